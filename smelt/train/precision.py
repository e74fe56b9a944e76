"""Which device and which compute dtype `auto` means on this machine."""

import torch

from smelt.errors import InputError
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.train import Train


def resolve_device(infra: Infra) -> torch.device:
    """The device that the recipe asks for; InputError when it is not there."""
    if infra.device == "cuda" and not torch.cuda.is_available():
        raise InputError("infra.device: 'cuda' but no CUDA device is visible; use 'auto' or 'cpu'")
    use_gpu = infra.device == "cuda" or (infra.device == "auto" and torch.cuda.is_available())
    return torch.device("cuda" if use_gpu else "cpu")


def resolve_dtype(train: Train, device: torch.device) -> torch.dtype:
    """What activations are computed in: bfloat16 where the hardware multiplies it natively, else float32; what the
    recipe names otherwise. With fp8, what is no product of a layer is in bfloat16."""
    if train.precision != "auto":
        return {"bf16": torch.bfloat16, "fp8": torch.bfloat16, "fp32": torch.float32}[train.precision]
    return torch.bfloat16 if has_bf16(device) else torch.float32


def has_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products run in hardware: CUDA compute 8.0 and later, CPUs with AVX512-BF16 or AMX."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))
