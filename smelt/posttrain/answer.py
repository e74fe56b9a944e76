"""What a model says in a conversation."""

from collections.abc import Sequence

from smelt.model.decoder import Decoder
from smelt.model.generate import generate
from smelt.posttrain.template import Message, render, template_of
from smelt.tokenizer.tokenizer import Tokenizer


def answer(
    model: Decoder,
    tokenizer: Tokenizer,
    conversations: Sequence[Sequence[Message]],
    max_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
) -> list[str]:
    """The assistant's next turn in each conversation, which ends with a turn of someone else.

    Rendered by the tokenizer's own chat template or, where it has none, by ours. Temperature 0 is greedy.
    """
    template = template_of(tokenizer)
    prompts = [tokenizer.encode_chat(render(each, True, template)) for each in conversations]
    texts = generate(model, tokenizer, prompts, max_tokens, temperature, seed=seed)
    return [text.strip() for text in texts]
