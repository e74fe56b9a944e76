"""Context parallelism against one device: losses, gradients, and 20 steps of training."""

from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from reference import DENSE, plain, spread
from small_models import decoder, section, starts_of, tokens
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh

from smelt.errors import InputError
from smelt.model.context import Context
from smelt.model.decoder import Decoder
from smelt.parallel.context import context_parallel
from smelt.parallel.rows import shares

TOLERANCE = {"float64": 1e-9, "float32": 1e-4}
ROWS = [[13, 2, 9], [24], [1, 22, 1]]  # documents; parts of 6, 8 and 12 tokens cut them anywhere


OWN = [{"layers": ":", "norm": {"eps": 1e-5}}]  # marks a model that has parts of a user's own


def batch(documents: bool = True) -> tuple[Tensor, Tensor | None, Tensor]:
    """Tokens, starts and targets; the target after a document's end is ignored."""
    ids, starts = tokens(len(ROWS), 24), starts_of(ROWS)
    targets = tokens(len(ROWS), 24, seed=1)
    targets[:, :-1][starts[:, 1:] != starts[:, :-1]] = -100
    return ids, starts if documents else None, targets


def results(model: Decoder, documents: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses, and the gradients of their mean over the batch's valid targets."""
    ids, starts, targets = batch(documents)
    losses = model(ids, starts=starts, targets=targets)
    (losses.sum() / (targets >= 0).sum()).backward()
    return losses.detach(), {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def model_of(changes: dict[str, Any], dtype: torch.dtype) -> Decoder:
    model = decoder(section(**changes), dtype=dtype).to(dtype)
    if changes.get("per_layer") == OWN:
        model.layers[0].attention, model.layers[1].feedforward = Mean(), Shift()
    return model


class Mean(nn.Module):
    """A mixer of a user's own: the mean of a document so far."""

    def forward(self, x: Tensor, context: Context, cache: None) -> Tensor:
        total = F.pad(x.cumsum(1), (0, 0, 1, 0))
        starts = torch.zeros_like(context.position) if context.starts is None else context.starts.long()
        before = total.gather(1, starts[..., None].expand(len(x), -1, x.shape[2]))
        return (total[:, 1:] - before) / (context.position + 1)[..., None]


class Shift(nn.Module):
    """A feed-forward of a user's own, which reads the token before."""

    def forward(self, x: Tensor, context: Context) -> tuple[Tensor, Tensor]:
        out = F.pad(x, (0, 0, 1, -1)).tanh()
        return out, out.square().mean(-1)


def split(changes: dict[str, Any], dtype: torch.dtype, documents: bool) -> tuple[Tensor, dict[str, Tensor]]:
    """On a rank: what `results` gives, losses joined and gradients summed over ranks."""
    model = model_of(changes, dtype)
    context_parallel(model, init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("context",)))
    losses, grads = results(model, documents)
    for name, parameter in model.named_parameters():  # a rank without heads has no part in some
        if parameter.requires_grad:
            dist.all_reduce(grads.setdefault(name, torch.zeros_like(parameter)))
    parts = [torch.empty_like(losses) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, losses)
    return torch.cat(parts, 1), grads


def agree(pool: Any, ranks: int, changes: dict[str, Any], dtype: torch.dtype, tolerance: float, documents: bool = True):
    wanted, grads = results(model_of(changes, dtype), documents)
    for found, found_grads in pool(ranks, split, changes, dtype, documents):
        torch.testing.assert_close(found, wanted, rtol=tolerance, atol=tolerance)
        assert found_grads.keys() >= grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(found_grads[name], grad, rtol=tolerance, atol=tolerance, msg=name)


PLAIN = {"heads": 4, "kv_heads": 2}
SMALL = {"hidden": 24, "layers": 2}
ALIBI = {"position": {"kind": "alibi"}}
ATTENTION: dict[str, dict[str, Any]] = {
    "grouped": {"attention": PLAIN},
    "one key-value head": {"attention": {"heads": 4, "kv_heads": 1, "qk_norm": "head"}},
    "window and sinks": {"attention": {**PLAIN, "window": 7, "sink_tokens": 2, "sinks": True, "gate": "head"}},
    "chunks, softcap, no rotation": {"attention": {**PLAIN, "chunk": 5, "softcap": 2.0}, "position": {"kind": "none"}},
    "alibi": {"attention": PLAIN, **ALIBI},
    "heads that do not divide": {"attention": {"heads": 6, "kv_heads": 2, "sinks": True}, **ALIBI, "hidden": 24},
    "fewer heads than ranks": {"attention": {"heads": 2, "kv_heads": 1}, **ALIBI},
    "latent": {
        "attention": {"kind": "mla", "heads": 4, "kv_rank": 8, "nope_dim": 4, "rope_dim": 2, "value_dim": 6},
    },
    "learned positions": {"attention": PLAIN, "position": {"kind": "learned", "length": 24}},
    "two tokens ahead": {"attention": PLAIN, "multi_token": {"depth": 2, "weight": 0.3}, "z_loss": 0.01},
}


GATES = {"lightning": {}, "mamba2": {}, "dfw": {}, "gateloop": {}, "gla": {"rank": 3}, "mamba": {"rank": 3}}
LINEAR = {"kind": "linear", "heads": 2, "key_dim": 4, "value_dim": 6, "chunk": 5}
MAMBA2 = {"kind": "mamba2", "heads": 4, "head_dim": 6, "state": 4, "groups": 2, "conv": 4, "chunk": 7, "norm_groups": 2}
DELTANET = {"kind": "gated_deltanet", "key_heads": 2, "value_heads": 4, "key_dim": 4, "value_dim": 6, "chunk": 5}
SIDE_BY_SIDE = [{"mixer": MAMBA2, "input_scale": 0.5}, {"mixer": {**PLAIN, "window": 5}}]
RECURRENT: dict[str, dict[str, Any]] = {
    **{gate: {"attention": {**LINEAR, "gate": gate, **more}} for gate, more in GATES.items()},
    "mamba 2": {"attention": MAMBA2},
    "gated delta rule": {"attention": DELTANET},
    "side by side": {"attention": {"kind": "parallel", "branches": SIDE_BY_SIDE}},
    "parts of a user's own": {"attention": PLAIN, "per_layer": OWN},
    "a convolution wider than a part": {"attention": {**MAMBA2, "conv": 8}},
}
MIXERS = {**ATTENTION, **RECURRENT}


@pytest.mark.parametrize("name", MIXERS)
def test_split_rows_give_the_losses_and_gradients_of_whole_rows(pool: Any, name: str) -> None:
    """MID-06: with documents that cross the parts."""
    agree(pool, 4, MIXERS[name], torch.float64, 1e-9)


AHEAD = {**DENSE, "layers": 2, "multi_token": {"depth": 1, "weight": 0.3}}
HYBRID = {
    **DENSE,
    "layers": 2,
    "attention": MAMBA2,
    "per_layer": [{"layers": "1::2", "attention": {"kind": "gqa", **DENSE["attention"]}}],
}
LAYOUTS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {
    "four parts": (4, AHEAD, {"context": 4}),
    "with data": (4, HYBRID, {"context": 2, "zero": 1}),
    "with a pipeline": (4, HYBRID, {"context": 2, "pipeline": 2}),
}


def run(layout: dict[str, Any], model: dict[str, Any]) -> dict[str, Any]:
    return {dtype: spread(layout, model, dtype) for dtype in TOLERANCE}


@pytest.mark.parametrize("name", LAYOUTS)
def test_losses_and_norms_of_twenty_steps_are_those_of_one_process(pool: Any, name: str) -> None:
    """MID-06, INFRA-05: with documents, and a further token predicted across the parts' borders."""
    ranks, model, layout = LAYOUTS[name]
    wanted = {dtype: plain(model, getattr(torch, dtype)) for dtype in TOLERANCE}
    for results in pool(ranks, run, layout, model):
        for dtype, tolerance in TOLERANCE.items():
            for ours, theirs in zip(results[dtype], wanted[dtype], strict=True):
                assert ours == pytest.approx(theirs, rel=tolerance, abs=0)


def test_heads_are_shared_out_with_the_key_value_heads_that_they_read() -> None:
    assert shares(8, 2, 2) == ((0,), (1,))  # a key-value head goes where its group goes
    assert shares(8, 2, 4) == ((0,), (0,), (1,), (1,))
    assert shares(6, 2, 3) == ((0,), (0, 1), (1,))
    assert shares(6, 3, 2) == ((0, 0, 1), (1, 2, 2))  # once for each reader, where groups are cut unequally
    assert shares(5, 1, 2) == ((0,), (0,))
    assert shares(2, 2, 4) == ((), (0,), (), (1,))


def refused(sequence: int) -> str:
    model = model_of({}, torch.float32)
    context_parallel(model, init_device_mesh("cpu", (dist.get_world_size(),), mesh_dim_names=("context",)))
    with pytest.raises(InputError) as caught:
        model(tokens(1, sequence))
    return str(caught.value)


def test_rows_that_do_not_divide_are_refused(pool: Any) -> None:
    assert "context: 2 ranks cannot share rows of 25 tokens equally" in pool(2, refused, 25)[0]
