"""Log-probabilities of continuations, in batches sorted by length; only the continuations' tokens meet the head."""

from collections.abc import Iterator, Sequence

import torch

from smelt.model.decoder import Decoder
from smelt.model.evaluating import evaluating
from smelt.model.loss import IGNORED
from smelt.tokenizer.tokenizer import Tokenizer

BATCH_TOKENS = 8192  # padded tokens that one pass of the model may hold

Pair = tuple[list[int], list[int]]  # context ids, continuation ids


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str, chat: bool = False) -> Pair:
    """Ids of a context and what follows it, cut where lm-eval cuts: spaces that end the context go with what follows,
    both are encoded as one text, and the continuation is what lies past the context's own number of ids.

    With `chat`, markers in the text become special ids. An empty context becomes the end-of-text id.
    """
    encode = tokenizer.encode_chat if chat else tokenizer.encode
    kept = context.rstrip()
    continuation, context = context[len(kept) :] + continuation, kept
    whole = encode(context + continuation)
    start = min(len(encode(context)), len(whole) - 1)
    return (whole[:start], whole[start:]) if start else ([tokenizer.eos], whole)


def log_probabilities(model: Decoder, pad: int, pairs: Sequence[Pair]) -> list[float]:
    """Summed log-probability, in nats, of each pair's continuation given its context."""
    sums = [0.0] * len(pairs)
    with evaluating(model):
        for batch in length_batches([len(context) + len(continuation) for context, continuation in pairs]):
            for place, value in zip(batch, _batch_sums(model, pad, [pairs[index] for index in batch]), strict=True):
                sums[place] = value
    return sums


def length_batches(lengths: Sequence[int], tokens: int = BATCH_TOKENS) -> Iterator[list[int]]:
    """Indices in batches of like length, longest first, each at most `tokens` with its padding (or a single row)."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    while order:
        rows = max(1, tokens // max(1, lengths[order[0]]))
        yield order[:rows]
        order = order[rows:]


def next_token_losses(model: Decoder, pad: int, rows: Sequence[tuple[list[int], int]]) -> list[torch.Tensor]:
    """For each row (ids, first): the loss in nats of its ids from position `first` on, float32 on the CPU.

    Must run inside `evaluating`. `first` is at least 1, as nothing predicts the first id of a row.
    """
    longest = max(len(ids) for ids, _ in rows)
    device = model.embedding.weight.device
    tokens = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in rows], device=device)  # [rows, seq]
    targets = torch.full_like(tokens, IGNORED)
    for row, (ids, first) in enumerate(rows):
        targets[row, first - 1 : len(ids) - 1] = tokens[row, first : len(ids)]
    wanted = targets != IGNORED
    losses = model.losses(model.states(tokens)[wanted][None], targets[wanted][None])[0].cpu()
    return list(losses.split([len(ids) - first for ids, first in rows]))


def _batch_sums(model: Decoder, pad: int, pairs: Sequence[Pair]) -> list[float]:
    rows = [(context + continuation, len(context)) for context, continuation in pairs]
    return [-float(losses.double().sum()) for losses in next_token_losses(model, pad, rows)]
