"""The next token from logits: greedy, or by temperature within a nucleus."""

import torch
from torch import Tensor


def choose(logits: Tensor, temperature: float, top_p: float, uniforms: Tensor) -> Tensor:
    """One id a row, int64 `[rows]`, from float32 logits `[rows, vocab]`.

    Temperature 0 takes the highest logit. Otherwise `uniforms`, float64 `[rows]` in (0, 1), picks from the nucleus: the
    fewest likeliest tokens whose probability reaches `top_p` (Holtzman et al. 2020).
    """
    if temperature == 0:
        return logits.argmax(-1)
    probabilities, ids = (logits.double() / temperature).softmax(-1).sort(dim=-1, descending=True, stable=True)
    before = probabilities.cumsum(-1) - probabilities
    nucleus = torch.where(before < top_p, probabilities, 0).cumsum(-1)
    picked = torch.searchsorted(nucleus, uniforms[:, None] * nucleus[:, -1:], right=True)
    return ids.gather(-1, picked.clamp_max(logits.shape[-1] - 1)).squeeze(-1)
