"""Linear attention whose state fades by a factor an element: S_t = exp(-rates * d_t) * S_{t-1} + k_t v_t^T (Mamba).

o_t = q_t S_t. q and k are float32 `[batch, seq, heads, key_dim]`, v and the steps d >= 0 `[batch, seq, heads,
value_dim]`, rates >= 0 `[heads, key_dim, value_dim]`. These factors do not split into a reader's and a writer's part,
so every state is written out, those of one chunk at a time; the backward pass computes them again. The state is float32
`[batch, heads, key_dim, value_dim]`. Each form returns o `[batch, seq, heads, value_dim]` and the state after the last
token.
"""

from typing import Any

import torch
from torch import Tensor

from smelt.model.chunks import kept
from smelt.model.context import Context


def chunked(
    q: Tensor, k: Tensor, v: Tensor, steps: Tensor, rates: Tensor, state: Tensor | None, context: Context, most: int
) -> tuple[Tensor, Tensor]:
    """For many tokens, with the states of `most` tokens in memory at a time."""
    if state is None:
        state = q.new_zeros(q.shape[0], *rates.shape)
    alive = None if context.starts is None else (context.position > 0).float()
    out, _, after = _scan(q, k, v, steps, rates, state, alive, most)
    return out, after


def step(
    q: Tensor, k: Tensor, v: Tensor, steps: Tensor, rates: Tensor, state: Tensor, context: Context
) -> tuple[Tensor, Tensor]:
    """For one token: the recurrence itself."""
    state = state * kept(-rates * steps[..., None, :], context)[:, 0] + k[:, 0, :, :, None] * v[:, 0, :, None]
    return (q[:, 0, :, None] @ state).transpose(1, 2), state


@torch.library.custom_op("smelt::element_scan", mutates_args=())
def _scan(
    q: Tensor, k: Tensor, v: Tensor, steps: Tensor, rates: Tensor, state: Tensor, alive: Tensor | None, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    """o, the states before each chunk `[chunks, batch, heads, key_dim, value_dim]`, and the one after the last.

    `alive`, `[batch, seq]`, is 0 where a token begins a document. One op, so that a compiler need not unroll the loop.
    """
    out, before = [], []
    for qs, ks, vs, ds, living in _pieces(most, q, k, v, steps, alive):
        before.append(state)
        _, states = _states(ks, vs, ds, rates, living, state)
        out.append((qs[..., None, :] @ states).squeeze(-2))
        state = states[-1].clone()
    return torch.cat(out).transpose(0, 1).contiguous(), torch.stack(before), state


@_scan.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, steps: Tensor, rates: Tensor, state: Tensor, alive: Tensor | None, most: int
) -> tuple[Tensor, Tensor, Tensor]:
    chunks = (q.shape[1] + most - 1) // most
    return torch.empty_like(v), state.new_empty(chunks, *state.shape), torch.empty_like(state)


@torch.library.custom_op("smelt::element_scan_backward", mutates_args=())
def _backward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    steps: Tensor,
    rates: Tensor,
    before: Tensor,
    alive: Tensor | None,
    most: int,
    grad_out: Tensor,
    grad_after: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v, steps, rates and the first state."""
    grads: list[list[Tensor]] = [[], [], [], []]
    grad_rates, grad = torch.zeros_like(rates), grad_after
    pieces = _pieces(most, q, k, v, steps, alive, grad_out)
    for state, (qs, ks, vs, ds, living, grad_os) in zip(reversed(before.unbind()), reversed(pieces), strict=True):
        factors, states = _states(ks, vs, ds, rates, living, state)
        grad_states = qs[..., None] * grad_os[..., None, :]
        grad_states[-1] += grad
        for token in reversed(range(len(qs) - 1)):
            grad_states[token].addcmul_(factors[token + 1], grad_states[token + 1])
        grad = factors[0] * grad_states[0]
        grads[0].append((states @ grad_os[..., None]).squeeze(-1))
        grads[1].append((grad_states @ vs[..., None]).squeeze(-1))
        grads[2].append((ks[..., None, :] @ grad_states).squeeze(-2))
        grad_states.mul_(factors)  # from here the gradient of the exponents, -rates * d
        grad_states[1:] *= states[:-1]
        grad_states[0] *= state
        grads[3].append(-(grad_states * rates).sum(-2))
        grad_rates -= (grad_states * ds[..., None, :]).sum((0, 1))
    joined = [torch.cat(grad[::-1]).transpose(0, 1).contiguous() for grad in grads]
    return joined[0], joined[1], joined[2], joined[3], grad_rates, grad.clone()


@_backward.register_fake
def _(*inputs: Any) -> tuple[Tensor, ...]:
    q, k, v, steps, rates, before = inputs[:6]
    return tuple(torch.empty_like(x) for x in (q, k, v, steps, rates, before[0]))


def _pieces(most: int, *rows: Tensor | None) -> list[tuple[Tensor, ...]]:
    """The rows, `[batch, seq, ...]`, in pieces of at most `most` tokens, `[tokens, batch, ...]`."""
    cut = [None if x is None else x.transpose(0, 1).contiguous().split(most) for x in rows]
    count = len(cut[0])  # type: ignore[arg-type]
    return list(zip(*(x or (None,) * count for x in cut), strict=True))  # type: ignore[arg-type]


def _states(
    k: Tensor, v: Tensor, steps: Tensor, rates: Tensor, alive: Tensor | None, state: Tensor
) -> tuple[Tensor, Tensor]:
    """The factors on the state and the state after each token, both `[tokens, batch, heads, key_dim, value_dim]`."""
    factors = (steps[..., None, :] * -rates).exp_()
    if alive is not None:
        factors *= alive[..., None, None, None]
    states = k[..., None] * v[..., None, :]
    for now, factor in zip(states, factors, strict=True):
        state = now.addcmul_(factor, state)
    return factors, states


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    q, k, v, steps, rates, _, alive, ctx.most = inputs
    ctx.save_for_backward(q, k, v, steps, rates, output[1], alive)


def _differentiate(ctx: Any, grad_out: Tensor, _: Tensor, grad_after: Tensor) -> tuple[Tensor | None, ...]:
    *inputs, before, alive = ctx.saved_tensors
    return *_backward(*inputs, before, alive, ctx.most, grad_out, grad_after), None, None


_scan.register_autograd(_differentiate, setup_context=_save)
