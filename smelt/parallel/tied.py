"""One embedding that the first and the last stage of a pipeline both use, each process having its own tensor of it.

The first stage owns it: it alone is optimised, counted in the norm and saved. Before a step the last stage takes over
its values, after the backward pass it hands over its gradient.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup


class SharedEmbedding:
    """`owner` and `borrower` are the parameters that this process has of the two; with `FSDP2` their shards are alike.

    `first` and `last` are the global ranks that hold them.
    """

    def __init__(
        self, owner: nn.Parameter | None, borrower: nn.Parameter | None, first: int, last: int, group: ProcessGroup
    ) -> None:
        self.owner, self.borrower, self.group = owner, borrower, group
        self.first, self.last = first, last

    @torch.no_grad()
    def lend(self) -> None:
        """The borrower gets the values of the owner."""
        if self.owner is not None and self.borrower is not None:
            _local(self.borrower).copy_(_local(self.owner))
        elif self.owner is not None:
            dist.send(_local(self.owner), self.last, self.group)
        elif self.borrower is not None:
            dist.recv(_local(self.borrower), self.first, self.group)

    @torch.no_grad()
    def return_gradient(self) -> None:
        """The owner's gradient becomes the sum of both, and the borrower's is dropped."""
        if self.borrower is not None:
            gradient = _gradient(self.borrower)
            self.borrower.grad = None
            if self.owner is None:
                dist.send(gradient, self.first, self.group)
            else:
                _gradient(self.owner).add_(gradient)
        elif self.owner is not None:
            theirs = torch.empty_like(_gradient(self.owner))
            dist.recv(theirs, self.last, self.group)
            _gradient(self.owner).add_(theirs)


def _local(tensor: Tensor) -> Tensor:
    """This process's part, contiguous, as it lies in memory."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part.detach()


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return _local(parameter.grad)
