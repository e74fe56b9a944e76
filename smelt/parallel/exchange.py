"""What tensor-parallel processes send each other, with what their gradients send back.

`x` is `[batch, seq, ...]`, the same on all processes or one piece of the sequence on each; a *partial* tensor is one
whose sum over the processes is meant.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Exchange:
    """Collectives among the processes of one dimension of the mesh."""

    def __init__(self, mesh: Any) -> None:
        self.mesh, self.size, self.rank = mesh, mesh.size(), mesh.get_local_rank()

    def mine(self, x: Tensor, dim: int = 1) -> Tensor:
        """This process's piece."""
        return x.chunk(self.size, dim)[self.rank]

    def split(self, x: Tensor) -> Tensor:
        """Same -> pieces, whose gradients are put together."""
        return _apply(lambda x: self.mine(x).clone(), self.gather, x)

    def join(self, x: Tensor) -> Tensor:
        """Pieces -> same; each process keeps its piece of the gradient."""
        return _apply(self.gather, self.mine, x)

    def read(self, x: Tensor) -> Tensor:
        """Same -> same, of which each process makes partial use."""
        return _apply(lambda x: x, self.sum, x)

    def read_pieces(self, x: Tensor) -> Tensor:
        """Pieces -> same, of which each process makes partial use."""
        return _apply(self.gather, self.scatter, x)

    def write(self, x: Tensor) -> Tensor:
        """Partial -> same."""
        return _apply(self.sum, lambda grad: grad, x)

    def write_pieces(self, x: Tensor) -> Tensor:
        """Partial -> pieces."""
        return _apply(self.scatter, self.gather, x)

    def total(self, x: Tensor) -> Tensor:
        """Partial -> same, of which each process makes partial use."""
        return _apply(self.sum, self.sum, x)

    def once(self, x: Tensor) -> Tensor:
        """Same -> same, whose gradient is the same too and counted on the first process alone."""
        return _apply(lambda x: x.clone(), lambda grad: grad * float(self.rank == 0), x)

    def rows(self, x: Tensor, count: int) -> Tensor:
        """The `count` rows of a table of which each process has a piece, and makes partial use of all."""
        most, own = -(-count // self.size), len(x)
        whole = _apply(lambda x: self.gather(_padded(x, most), 0), lambda grad: self.scatter(grad, 0)[:own], x)
        return whole[:count]

    def gather(self, x: Tensor, dim: int = 1) -> Tensor:
        """Pieces along `dim` -> same."""
        import torch.distributed._functional_collectives as collectives

        whole = collectives.wait_tensor(collectives.all_gather_single(x.contiguous(), 0, self.mesh))
        return torch.cat(whole.chunk(self.size), dim) if dim else whole

    def scatter(self, x: Tensor, dim: int = 1) -> Tensor:
        """Partial -> pieces along `dim`."""
        import torch.distributed._functional_collectives as collectives

        x = torch.cat(x.chunk(self.size, dim)) if dim else x.contiguous()
        return collectives.wait_tensor(collectives.reduce_scatter_single(x, "sum", 0, self.mesh))

    def sum(self, x: Tensor) -> Tensor:
        """Partial -> same."""
        import torch.distributed._functional_collectives as collectives

        return collectives.wait_tensor(collectives.all_reduce(x.contiguous(), "sum", self.mesh))


def _apply(forward: Callable[[Tensor], Tensor], backward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    out: Tensor = _Pair.apply(forward, backward, x)
    return out


class _Pair(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, push: Callable[[Tensor], Tensor], pull: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        ctx.pull = pull
        out = push(x)
        return out.view_as(out) if out is x else out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor]:
        return None, None, ctx.pull(grad)


def _padded(x: Tensor, rows: int) -> Tensor:
    return F.pad(x, (0, 0, 0, rows - len(x))) if len(x) < rows else x
