"""The recipe's optimizer, built on named parameter groups, its update, and its state by parameter name."""

import inspect
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.model.init import learning_rate_factors
from smelt.optim.adamw import ADAMW
from smelt.optim.ademamix import ADEMAMIX
from smelt.optim.groups import parameter_groups
from smelt.optim.lion import LION
from smelt.optim.muon import MUON
from smelt.optim.rules import Ruled
from smelt.recipe.parts.custom import imported, source_hash
from smelt.recipe.sections.optimizer import Optimizer, OwnOptimizer

RULES = {"adamw": ADAMW, "muon": ADAMW, "ademamix": ADEMAMIX, "lion": LION}  # Muon's is for matrices alone
_OF_GROUPS = {"kind", "lr", "weight_decay", "no_decay", "groups", "adamw"}


def build_optimizer(
    of: nn.Module | Iterable[tuple[str, nn.Parameter]],
    section: Optimizer,
    factors: Mapping[str, float] | None = None,
    names: Collection[str] | None = None,
) -> torch.optim.Optimizer:
    """The optimizer of a model, or of parameters by name, which may be DTensors; its state is like the parameters.

    `factors` on learning rates, by name, are the model's own where a model is given. `names`: see `parameter_groups`.
    """
    if isinstance(of, nn.Module):
        factors = learning_rate_factors(of) if factors is None else factors
        of = of.named_parameters()
    groups = parameter_groups(of, section, factors or {}, names)
    if isinstance(section, OwnOptimizer):
        return _own(section, groups)
    settings = section.model_dump(exclude=_OF_GROUPS)
    return Ruled([{**group, **settings, "rule": MUON if group["matrix"] else RULES[section.kind]} for group in groups])


def _own(section: OwnOptimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    owner = _class(section)
    if not (isinstance(owner, type) and issubclass(owner, torch.optim.Optimizer)):
        raise InputError(f"train.optimizer.kind: '{section.kind}' is no torch.optim.Optimizer; name a class that is")
    closure = inspect.signature(owner.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise InputError(
            f"train.optimizer.kind: '{section.kind}' wants a closure that computes the loss again; choose another"
        )
    if section.weight_decay and "weight_decay" not in inspect.signature(owner).parameters:
        raise InputError(f"train.optimizer.weight_decay: '{section.kind}' takes none; set it to 0")
    make: Callable[..., torch.optim.Optimizer] = owner
    try:
        return make(groups, lr=section.lr, **section.arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"train.optimizer.arguments: '{section.kind}' refuses them ({error}); mend them") from None


def _class(section: OwnOptimizer) -> Any:
    module_name, _, class_name = section.kind.partition(":")
    try:
        module = imported(section.kind, module_name)
    except ValueError as error:
        raise InputError(f"train.optimizer: {error}") from None
    if section.source not in (None, source_hash(module)):
        raise InputError(
            f"train.optimizer.kind: {module.__file__} has changed since this recipe was frozen; restore it, or drop "
            "'source' from the recipe to use it as it is now"
        )
    return getattr(module, class_name, None)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state as `{"exp_avg.layers.0.attention.q.weight": tensor}`, for saving; DTensors stay such."""
    return {
        f"{key}.{name}": _tensor(optimizer, key, value).detach()
        for name, parameter in _named(optimizer)
        for key, value in optimizer.state[parameter].items()
        if value is not None
    }


def load_optimizer_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `optimizer_tensors` gave, on each parameter's device, and in its layout if `tensors` are whole."""
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        kind, _, name = key.partition(".")
        state.setdefault(name, {})[kind] = value
    for group in optimizer.param_groups:
        on_device = isinstance(optimizer, Ruled) or group.get("fused") or group.get("capturable")
        for name, parameter in zip(group["names"], group["params"], strict=True):
            optimizer.state[parameter] = {
                kind: _placed(value, parameter, on_device or kind != "step")
                for kind, value in state.get(name, {}).items()
            }


def _placed(value: Tensor, parameter: Any, on_device: bool) -> Tensor:
    """A state tensor where its parameter is; PyTorch's optimizers want some step counts on the CPU."""
    if on_device:
        value = value.to(parameter.device)
    if hasattr(parameter, "placements") and not hasattr(value, "placements") and value.shape == parameter.shape:
        from torch.distributed.tensor import distribute_tensor

        return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value


def _tensor(optimizer: torch.optim.Optimizer, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise InputError(
            f"train.optimizer.kind: {type(optimizer).__name__} keeps '{key}' as a {type(value).__name__}, and "
            "checkpoints hold tensors only; choose another, or keep it as a tensor"
        )
    return value


def _named(optimizer: torch.optim.Optimizer) -> list[tuple[str, Tensor]]:
    return [pair for group in optimizer.param_groups for pair in zip(group["names"], group["params"], strict=True)]
