"""Prompts in, continuations out: batches of different lengths, decoded with a cache."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smelt.errors import InputError
from smelt.model.cache import Cache
from smelt.model.decoder import Decoder
from smelt.model.draws import uniform
from smelt.model.evaluating import evaluating
from smelt.model.sampling import choose
from smelt.recipe.parts.position import Learned
from smelt.tokenizer.tokenizer import Tokenizer

ROWS = 64  # prompts decoded together


def generate(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[int] = (),
) -> list[str]:
    """`generate_ids`, decoded: only the new text, without special tokens."""
    continuations = generate_ids(model, tokenizer, prompts, max_tokens, temperature, top_p, seed, stop)
    return [tokenizer.decode(ids) for ids in continuations]


def generate_ids(
    model: Decoder,
    tokenizer: Tokenizer,
    prompts: Sequence[str] | Sequence[Sequence[int]],
    max_tokens: int = 64,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    stop: Sequence[int] = (),
) -> list[list[int]]:
    """The new ids of each prompt, without the id that stopped it: end of text, end of turn or one of `stop`.

    A text prompt is encoded as ordinary text. Temperature 0 is greedy. Padding and ids past the tokenizer's length are
    never produced. The same seed, prompts and settings give the same ids. InputError for a prompt without tokens or
    with an id the model does not have, and for settings out of range.
    """
    stops = {tokenizer.eos, tokenizer.eot, *stop}
    forbidden = torch.arange(model.vocab) >= len(tokenizer)
    forbidden[[id for id in (tokenizer.pad,) if id not in stops]] = True
    ids = [tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt) for prompt in prompts]
    return continue_ids(model, ids, stops, forbidden, max_tokens, temperature, top_p, seed)


def continue_ids(
    model: Decoder,
    prompts: Sequence[list[int]],
    stops: set[int],
    forbidden: Tensor,
    max_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> list[list[int]]:
    """`generate_ids` without a tokenizer; `forbidden`, boolean `[vocab]`, marks ids that are never produced.

    Prompts of like length are decoded together. The draws of prompt i depend on the seed and i alone. The model decodes
    in evaluation mode, and has its own mode back afterwards.
    """
    _check(prompts, model, max_tokens, temperature, top_p)
    forbidden = forbidden.to(model.embedding.weight.device)
    out: list[list[int]] = [[] for _ in prompts]
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    with evaluating(model):
        for first in range(0, len(order), ROWS):
            rows = order[first : first + ROWS]
            draws = np.stack([uniform(f"sample.{row}", seed, 0, max_tokens) for row in rows])
            batch = _Batch(model, [prompts[row] for row in rows], max_tokens)
            for place, id in _decode(batch, draws, stops, forbidden, temperature, top_p):
                out[rows[place]].append(id)
    return out


def _decode(
    batch: "_Batch", draws: NDArray[np.float64], stops: set[int], forbidden: Tensor, temperature: float, top_p: float
) -> Iterator[tuple[int, int]]:
    """Pairs (row, new id), a step at a time, until every row has stopped or the draws `[rows, steps]` are used up."""
    for step in range(draws.shape[1]):
        logits = batch.logits.masked_fill(forbidden, -torch.inf)
        chosen = choose(logits, temperature, top_p, torch.from_numpy(draws[batch.rows, step]).to(logits.device))
        ids = chosen.tolist()
        going = [place for place, id in enumerate(ids) if id not in stops]
        yield from ((batch.rows[place], ids[place]) for place in going)
        if not going or step + 1 == draws.shape[1]:
            return
        batch.advance(chosen, going)


class _Batch:
    """Rows being decoded: `rows` are those not stopped, `logits` `[rows, vocab]` what comes next in each.

    Prompts are padded on the left; the padding is a document of its own, which nothing after it sees.
    """

    def __init__(self, model: Decoder, prompts: Sequence[list[int]], room: int) -> None:
        self.model, self.rows = model, list(range(len(prompts)))
        device = model.embedding.weight.device
        longest = max(map(len, prompts))
        padding = [longest - len(prompt) for prompt in prompts]
        tokens = torch.tensor([[0] * pad + prompt for pad, prompt in zip(padding, prompts, strict=True)], device=device)
        self.starts: Tensor | None = None
        starts = None
        if any(padding):
            self.starts = torch.tensor(padding, dtype=torch.int32, device=device)[:, None]
            starts = torch.where(torch.arange(longest, device=device) >= self.starts, self.starts, 0)
        self.cache = Cache(model, len(prompts), longest + room)
        self.logits = model.logits(model.states(tokens, starts, self.cache)[:, -1])

    def advance(self, chosen: Tensor, going: list[int]) -> None:
        """Append `chosen` `[rows]` to the rows `going` and drop the others."""
        if len(going) < len(self.rows):
            keep = torch.tensor(going, device=chosen.device)
            self.rows = [self.rows[place] for place in going]
            self.cache.keep(keep)
            chosen = chosen[keep]
            self.starts = self.starts[keep] if self.starts is not None else None
        self.logits = self.model.logits(self.model.states(chosen[:, None], self.starts, self.cache)[:, -1])


def _check(prompts: Sequence[list[int]], model: Decoder, max_tokens: int, temperature: float, top_p: float) -> None:
    position, vocab = model.config.position, model.vocab
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise InputError(f"prompt {index} has no tokens; give it some text, or the end-of-text id to start from")
        if not 0 <= min(prompt) <= max(prompt) < vocab:
            raise InputError(f"prompt {index} has an id outside 0..{vocab - 1}; encode it with this model's tokenizer")
        if isinstance(position, Learned) and len(prompt) + max_tokens > position.length:
            raise InputError(
                f"prompt {index} has {len(prompt)} tokens, which with max_tokens ({max_tokens}) exceed "
                f"model.position.length ({position.length}), the table of learned positions; shorten one of them"
            )
    if max_tokens < 1:
        raise InputError(f"max_tokens is {max_tokens}; give at least 1")
    if not 0 <= temperature < float("inf"):
        raise InputError(f"temperature is {temperature}; give 0 for greedy or a positive number")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p is {top_p}; give a number above 0, at most 1")
