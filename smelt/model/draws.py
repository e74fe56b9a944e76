"""Random numbers that are a function of (seed, name, index): any slice can be drawn alone, on any machine."""

import hashlib

import numpy as np
from numpy.typing import NDArray

_WORDS = 4  # 64-bit words in one Philox block


def uniform(name: str, seed: int, start: int, count: int) -> NDArray[np.float64]:
    """Elements `start` to `start + count` of the stream (seed, name): 53-bit uniforms in (0, 1), never 0 nor 1.

    Philox 4x64 (Salmon et al. 2011), keyed by a hash of seed and name; an element's counter is its index.
    """
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    block, skipped = divmod(start, _WORDS)
    raw = np.random.Philox(key=int.from_bytes(digest[:16], "little"), counter=block).random_raw(skipped + count)
    return np.minimum(((raw[skipped:] >> np.uint64(11)) + 0.5) * 2.0**-53, 1 - 2.0**-53)
