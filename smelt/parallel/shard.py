"""Fully sharded data parallelism: every parameter, gradient and optimizer state cut over the processes that read
different tokens, put together again only while it is used."""

import warnings
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from smelt.model.decoder import Layer
from smelt.model.experts import Experts
from smelt.model.linear import Linear
from smelt.model.multi_token import Further
from smelt.parallel.world import World

CAST = ("gate", "up", "down")  # of experts: their biases are added up in float32


def shard(module: nn.Module, world: World, dtype: torch.dtype) -> None:
    """Make every parameter below `module` a DTensor on the mesh, layer by layer, then the rest.

    Matrices of layers travel in `dtype`, in which they are used; what the model computes in float32, and the tables of
    embedding and head, whose gradients add up over many tokens, travel whole. Gradients are reduced in float32 and
    summed, never averaged: the loss is already divided by the tokens of all. Parameters without gradient stay plain.
    """
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view")  # nothing here changes it in place
    for layer in [each for each in module.modules() if isinstance(each, Layer | Further)][::-1]:
        _wrap(layer, world, torch.bfloat16 if dtype == torch.bfloat16 else None)
    _wrap(module, world, None)


def _wrap(module: nn.Module, world: World, dtype: torch.dtype | None) -> None:
    """One unit, whose parameters are put together before its forward pass: all at once, so that what runs inside is
    plain and can be compiled, but apart by dtype and by mesh."""
    from torch.distributed.fsdp import FSDPModule, fully_shard

    groups: dict[tuple[bool, torch.dtype | None], list[nn.Parameter]] = defaultdict(list)
    for owner, name, parameter in _own(module):
        if parameter.requires_grad:
            elsewhere = world.layout.expert > 1 and isinstance(owner, Experts)
            groups[elsewhere, dtype if _is_cast(owner, name) else None].append(parameter)
    everything = set(module.parameters())
    first, *others = groups.items() or [((False, None), [])]
    fully_shard(module, ignored_params=everything - set(first[1]), **_options(world, *first[0]))
    assert isinstance(module, FSDPModule)
    for key, parameters in others:
        _add_group(module, parameters, world, _options(world, *key))
    module.set_gradient_divide_factor(1.0)
    module.set_force_sum_reduction_for_comms(True)


def _own(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    """Parameters below `module` that no unit inside it has."""
    from torch.distributed.fsdp import FSDPModule

    for name, parameter in module._parameters.items():
        if parameter is not None:
            yield module, name, parameter
    for child in module.children():
        if not isinstance(child, FSDPModule):
            yield from _own(child)


def _is_cast(owner: nn.Module, name: str) -> bool:
    """Whether the model casts a parameter to the activations' dtype before it is used."""
    return isinstance(owner, Linear) or (isinstance(owner, Experts) and name in CAST)


def _options(world: World, experts: bool, dtype: torch.dtype | None) -> dict[str, Any]:
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import MixedPrecisionPolicy

    shards = world.experts["expert_shard"] if experts else world.along("shard", "context")
    mesh = DeviceMesh._concatenate([world.mesh["replicate"], shards]) if world.layout.replicate > 1 else shards
    policy = MixedPrecisionPolicy(
        param_dtype=dtype, reduce_dtype=torch.float32 if dtype is not None else None, cast_forward_inputs=False
    )
    return {"mesh": mesh, "mp_policy": policy, "reshard_after_forward": world.layout.zero == 3}


def _add_group(module: Any, parameters: list[nn.Parameter], world: World, options: dict[str, Any]) -> None:
    """More parameters for a unit, on a mesh or in a dtype of their own. PyTorch can hold several groups in a unit but
    makes them by mesh alone."""
    from torch.distributed.fsdp import OffloadPolicy
    from torch.distributed.fsdp._fully_shard._fsdp_init import _get_mesh_info, _get_post_forward_mesh_info
    from torch.distributed.fsdp._fully_shard._fsdp_param_group import FSDPParamGroup

    places: Any = _get_mesh_info(options["mesh"])
    after = _get_post_forward_mesh_info(options["reshard_after_forward"], places)
    group = FSDPParamGroup(
        parameters, (module,), places, after, world.device, None, options["mp_policy"], OffloadPolicy()
    )
    module._get_fsdp_state()._fsdp_param_groups.append(group)
