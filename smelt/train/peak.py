"""What the hardware could do at best: the measure that `mfu` is a share of."""

import functools
import re
import time

import torch

# Dense bfloat16 products in TFLOP/s as the makers state them, by words of the device's name; the first match counts.
DENSE = {
    "B300": 2250,
    "B200": 2250,
    "GB200": 2250,
    "H200": 989,
    "GH200": 989,
    "H100 PCIe": 756,
    "H100 NVL": 835,
    "H100": 989,
    "H800": 989,
    "H20": 148,
    "A100": 312,
    "A800": 312,
    "A40": 150,
    "A10": 125,
    "A6000": 155,
    "L40S": 362,
    "L40": 181,
    "L4": 121,
    "5090": 210,
    "4090": 165,
    "3090": 71,
}
ROUNDS = 5
SIZE = {"cpu": 1024, "cuda": 8192}


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of one device: of a known GPU its maker's figure for dense bfloat16, whatever the precision of the run;
    of any other the best of a few square matrix products in `dtype`, measured once a process."""
    if device.type == "cuda":
        known = stated_flops(torch.cuda.get_device_name(device))
        if known is not None:
            return known
    return measured_flops(device, dtype)


def stated_flops(name: str) -> float | None:
    """What the maker states of the GPU with this name, in FLOP/s; None for one that is not in the table."""
    return next((tera * 1e12 for words, tera in DENSE.items() if re.search(rf"\b{words}\b", name)), None)


@functools.cache
def measured_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s of the fastest of a few products of two square matrices."""
    size = SIZE[device.type]
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = float("inf")
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        torch.mm(a, b)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
