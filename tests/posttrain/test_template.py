"""The chat template renders the same everywhere, and marks exactly what the assistant says."""

from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.posttrain.template import FILE, TEMPLATE, asking, learnable, render, template_of
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.tokenizer.train import train_tokenizer

CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 3 + 4?"},
    {"role": "assistant", "content": "3 + 4 = 7."},
    {"role": "tool", "content": "7"},
    {"role": "user", "content": "Sure?\nReally?"},
    {"role": "assistant", "content": "Yes."},
]
GOLDEN = """\
<|im_start|>system
Be brief.<|im_end|>
<|im_start|>user
What is 3 + 4?<|im_end|>
<|im_start|>assistant
3 + 4 = 7.<|im_end|>
<|im_start|>tool
7<|im_end|>
<|im_start|>user
Sure?
Really?<|im_end|>
<|im_start|>assistant
Yes.<|im_end|>
"""


@pytest.fixture
def theirs(tokenizer: Tokenizer, tmp_path: Path):  # type: ignore[no-untyped-def]
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    (tmp_path / FILE).write_text(TEMPLATE, encoding="utf-8")
    return AutoTokenizer.from_pretrained(tmp_path)


def test_a_conversation_renders_as_the_golden_text() -> None:
    assert render(CONVERSATION) == GOLDEN


def test_a_generation_prompt_opens_the_assistants_turn() -> None:
    assert render(CONVERSATION, add_generation_prompt=True) == GOLDEN + "<|im_start|>assistant\n"


def test_a_message_is_put_into_the_tokenizers_own_template(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asking(tokenizer)("Hi") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    monkeypatch.setitem(tokenizer.config, "chat_template", "{{ messages[0].content }} ->")
    assert asking(tokenizer)("Hi") == "Hi ->"


def test_transformers_renders_and_encodes_the_same(theirs, tokenizer: Tokenizer) -> None:  # type: ignore[no-untyped-def]
    for prompt in (False, True):
        ours = render(CONVERSATION, prompt)
        assert theirs.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=prompt) == ours
        encoded = theirs.apply_chat_template(CONVERSATION, add_generation_prompt=prompt, return_dict=True)
        assert encoded["input_ids"] == tokenizer.encode_chat(ours)


def test_the_mask_covers_the_assistants_words_and_end_of_turn_alone(theirs, tokenizer: Tokenizer) -> None:  # type: ignore[no-untyped-def]
    """POST-04: user, system and tool turns are masked, and the mask is the template's own."""
    found = theirs.apply_chat_template(CONVERSATION, return_dict=True, return_assistant_tokens_mask=True)
    spoken = [id for id, mask in zip(found["input_ids"], found["assistant_masks"], strict=True) if mask]
    assert spoken == tokenizer.encode_chat("3 + 4 = 7.<|im_end|>") + tokenizer.encode_chat("Yes.<|im_end|>")


def test_a_tokenizer_keeps_its_own_template(tokenizer: Tokenizer, tmp_path: Path) -> None:
    assert template_of(tokenizer) == TEMPLATE
    tokenizer.save(tmp_path)
    (tmp_path / FILE).write_text("{{ messages[0].content }}!", encoding="utf-8")
    assert render(CONVERSATION, template=template_of(load_tokenizer(tmp_path))) == "Be brief.!"


def test_a_template_that_marks_the_assistant_is_told_from_one_that_does_not() -> None:
    assert learnable(TEMPLATE)
    assert learnable("{%generation%}x{%endgeneration%}")
    assert not learnable("{{ add_generation_prompt }} {% if add_generation_prompt %}generation{% endif %}")
    assert not learnable(None)


def test_a_tokenizer_without_the_markers_is_refused() -> None:
    plain = train_tokenizer(384, ["text"])
    plain._chat.encode_special_tokens = True  # as if it had no such tokens
    with pytest.raises(InputError, match=r"no token <\|im_start\|>"):
        template_of(plain)


def test_what_the_template_refuses_is_a_users_mistake() -> None:
    with pytest.raises(InputError, match="cannot render"):
        render(CONVERSATION, template="{{ raise_exception('roles must alternate') }}")


def test_a_template_cannot_reach_outside() -> None:
    with pytest.raises(InputError, match="cannot render"):
        render(CONVERSATION, template="{{ messages.__class__.__mro__[1].__subclasses__() }}")
