"""How a module sees this process's piece of what is cut, while its code stays as it is: its class becomes a subclass
that reads the piece where the code reads the whole."""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from smelt.parallel.exchange import Exchange


def adapt(module: nn.Module, members: dict[str, Any]) -> None:
    """Give one module, and no other of its class, these methods and properties."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), members)


def view(
    module: nn.Module,
    name: str,
    exchange: Exchange,
    placement: Any,
    grad: Any = None,
    then: Callable[[Tensor], Tensor] | None = None,
) -> None:
    """Make the parameter `name`, still on the meta device, a DTensor of this placement, of which the module reads the
    local piece, or what `then` makes of it.

    `grad` is how gradients of the piece are placed, by default as the piece itself.
    """
    from torch.distributed.tensor import distribute_tensor

    whole = module._parameters[name]
    assert whole is not None
    cut = distribute_tensor(whole.data, exchange.mesh, [placement], src_data_rank=None)
    module._parameters[name] = nn.Parameter(cut, requires_grad=whole.requires_grad)
    grads = [grad or placement]

    def piece(self: nn.Module) -> Tensor:
        held: Any = self._parameters[name]
        if held.device_mesh.ndim > 1:  # cut over data too, so not in use: who asks wants the parameter itself
            return held
        local = held.to_local(grad_placements=grads)
        return local if then is None else then(local)

    adapt(module, {name: property(piece)})


def localised(module: nn.Module, name: str, local: Callable[[Any], Any]) -> None:
    """Make the attribute `name` read as `local` of what is set, now and whenever it is set again."""
    hidden = f"_local_{name}"

    def put(self: nn.Module, value: Any) -> None:
        self.__dict__[hidden] = local(value)

    value = module.__dict__.pop(name)
    adapt(module, {name: property(lambda self: self.__dict__[hidden], put)})
    setattr(module, name, value)
