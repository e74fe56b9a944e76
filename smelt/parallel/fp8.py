"""Products of layers in 8-bit floating point, through torchao: each tensor scaled by its largest entry, on GPUs that
multiply such numbers."""

import importlib.util
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from smelt.errors import InputError
from smelt.model.decoder import Layer
from smelt.model.linear import Linear

FIRST = (8, 9)  # compute capability
MULTIPLE = 16  # what both sides of a matrix must be multiples of


def check_fp8(device: torch.device) -> None:
    """InputError where `train.precision: fp8` cannot run."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < FIRST:
        raise InputError("train.precision: 'fp8' needs a GPU of the Hopper generation or later; use 'bf16'")
    if importlib.util.find_spec("torchao") is None:
        raise InputError("train.precision: 'fp8' needs torchao; pip install 'smelt[gpu]', or use 'bf16'")


def multiply_in_fp8(parts: Iterable[nn.Module], emulate: bool = False) -> None:
    """Have the matrices of layers below `parts` multiply in 8 bits, forward and backward; sums stay wider.

    Weights, their gradients and all that lies between products keep their precision. Embedding, head and router are
    left as they are, and so are matrices of odd sizes. `emulate` computes the same numbers on any device.
    """
    product = _product(emulate)
    for layer in (module for part in parts for module in part.modules() if isinstance(module, Layer)):
        for module in layer.modules():
            if isinstance(module, Linear) and not any(size % MULTIPLE for size in module.weight.shape):
                module.forward = _in_fp8(module, product)


def _in_fp8(module: Linear, product: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    def forward(x: Tensor) -> Tensor:
        out = product(x, module.weight.to(x.dtype).t())
        return out if module.bias is None else out + module.bias.to(x.dtype)

    return forward


def _product(emulate: bool) -> Callable[[Tensor, Tensor], Tensor]:
    """`x @ weight` in 8 bits, whose gradients are products in 8 bits too."""
    from torchao.float8 import Float8LinearConfig
    from torchao.float8.float8_linear import Float8Linear, matmul_with_hp_or_float8_args

    config = Float8LinearConfig(emulate=emulate)
    sizes: Any = Float8Linear(MULTIPLE, MULTIPLE, bias=False, device="meta", config=config).linear_mm_config
    return lambda x, weight: matmul_with_hp_or_float8_args.apply(x, weight, sizes, config)
