"""Repeated documents: a signature of each text, and from all signatures which document each one repeats.

The signatures of parts of a corpus can be made anywhere and stacked; only `originals` looks at all of them.
"""

import hashlib
import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from smelt.corpus.duplicates import minhash
from smelt.corpus.duplicates.clusters import join_equals
from smelt.recipe.sections.duplicates import AnyDuplicates

__all__ = ["originals", "signatures"]


def signatures(section: AnyDuplicates, texts: Sequence[str]) -> NDArray[np.uint64]:
    """What is compared of each text: uint64 [texts, columns].

    `exact` has two columns, 128 bits of a hash of the text; `minhash` one a band, 0 where a text has no words.
    """
    if section.kind == "exact":
        digests = b"".join(
            hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=16).digest() for text in texts
        )
        return np.frombuffer(digests, "<u8").reshape(-1, 2).astype(np.uint64)
    return minhash.signatures(section, texts)


def originals(
    section: AnyDuplicates, signatures: NDArray[np.uint64], groups: NDArray[np.int64], alive: NDArray[np.bool_]
) -> NDArray[np.int64]:
    """The index of the document that each one repeats, itself where it is kept: int64 [documents].

    Earlier documents are kept before later ones. Only documents that are `alive` compare, and unless `section.across`
    only those of equal `groups`. Near duplicates of near duplicates count as such. One column of `signatures` is read
    at a time, so that it may be mapped from a file.
    """
    labels = np.arange(len(alive), dtype=np.int64)
    columns = range(signatures.shape[1])
    for band in [tuple(columns)] if section.kind == "exact" else [(column,) for column in columns]:
        present = np.zeros(len(alive), bool)
        for column in band:
            present |= signatures[:, column] != 0
        members = np.flatnonzero(present & alive)
        keys = (np.asarray(signatures[members, column]) for column in band)
        join_equals(labels, members, keys if section.across else itertools.chain([groups[members]], keys))
    return labels
