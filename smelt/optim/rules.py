"""An optimizer whose groups each follow a rule, on the pieces of parameters that a rank holds; it can skip a step."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Members(NamedTuple):
    """Parameters of a group that have a gradient. What is kept beside each, by name in `slots`, has its shape.

    All but `params`, which may be DTensors, are this rank's pieces; `steps` count the steps taken, 0-dimensional.
    `skip`, if not None, is a boolean on the device: where true, nothing may change.
    """

    params: list[Tensor]
    pieces: list[Tensor]
    grads: list[Tensor]
    steps: list[Tensor]
    slots: dict[str, list[Tensor]]
    skip: Tensor | None

    def kept(self) -> Tensor | float:
        """1, or 0 where the step is skipped, whose gradients then become 0, so that nothing infinite comes in.

        Factors are to be raised to it and shares multiplied by it: x * y**0 and x + 0 * y leave every bit of x.
        """
        if self.skip is None:
            return 1.0
        for grad in self.grads:
            grad.masked_fill_(self.skip, 0)
        return (~self.skip).to(self.pieces[0].dtype)

    def unless_skipped(self, change: Tensor) -> Tensor:
        """A change, in place made 0 where the step is skipped."""
        return change if self.skip is None else change.masked_fill_(self.skip, 0)


class Rule(NamedTuple):
    """How a group's parameters change: `update(group, members)`, in place."""

    slots: Sequence[str]
    update: Callable[[dict[str, Any], Members], None]


class Ruled(torch.optim.Optimizer):
    """Updates each group by the `Rule` under its "rule". A true `skip` makes `step` leave everything as it is."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {})
        self.skip: Tensor | None = None

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """PyTorch's own, without the wrapper that imports its compiler (a second) for a call that is never traced."""
        inspect.unwrap(torch.optim.Optimizer.add_param_group)(self, param_group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update from the gradients at hand."""
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                rule: Rule = group["rule"]
                states = [self._state(param, rule.slots) for param in params]
                members = Members(
                    params,
                    [local(param) for param in params],
                    [local(param.grad) for param in params],
                    [state["step"] for state in states],
                    {slot: [local(state[slot]) for state in states] for slot in rule.slots},
                    self.skip,
                )
                rule.update(group, members)

    def _state(self, param: Tensor, slots: Sequence[str]) -> dict[str, Any]:
        state: dict[str, Any] = self.state[param]
        if "step" not in state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=param.device)
            state.update({slot: torch.zeros_like(param, memory_format=torch.preserve_format) for slot in slots})
        return state


def local(tensor: Tensor) -> Tensor:
    """What this rank holds of a DTensor; any other tensor itself."""
    piece: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return piece
