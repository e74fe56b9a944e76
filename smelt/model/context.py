"""What all layers of one forward pass share: positions, documents, rotations, masks. Each is made once."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor

from smelt.errors import InputError
from smelt.model.masks import Engine, Scope, engine
from smelt.model.positions import Rotary, Rotation, positions, rotation

Made = TypeVar("Made")


class Context:
    """One batch of tokens, or the new tokens that follow `cached` ones in every row.

    `starts`, int32 `[batch, new]`, is the row position where each token's document begins; None means 0 everywhere.
    `position`, int64 `[batch or 1, new]`, is each token's place in its document. In a subclass a batch may hold parts
    of rows only; then `whole` is the context of the entire rows.
    """

    def __init__(self, tokens: Tensor, starts: Tensor | None, cached: int = 0) -> None:
        self.starts, self.cached = starts, cached
        self.batch, self.new = tokens.shape
        self.device = tokens.device
        self.position = positions(starts, cached, self.new, tokens.device)
        self._made: dict[Hashable, Any] = {}
        self._made_by: dict[Hashable, Any] = {}  # apart, as compiled code depends on how many there are of the others

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """What `make` returns, made the first time that `key` is asked for."""
        return _once(self._made, key, make)

    def once_by(self, module: Hashable, make: Callable[[], Made]) -> Made:
        """`once` for what is a module's own."""
        return _once(self._made_by, module, make)

    @property
    def whole(self) -> "Context":
        """The context of the entire rows."""
        return self

    def own(self, x: Tensor) -> Tensor:
        """What of `x` `[batch, seq, ...]`, of entire rows, is of this context's tokens."""
        return x

    def rotation(self, rotary: Rotary) -> Rotation:
        """Cosines and sines for `rotate`."""
        return self.once(rotary.name, lambda: rotation(self.position, rotary.part, rotary.channels))

    def engine(self, scope: Scope) -> Engine:
        """Attention of the new tokens among themselves, for a row that has nothing cached."""
        return self.once(scope.name, lambda: engine(self.starts, self.device, scope))

    def by_heads(
        self, read: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, *more: Tensor, heads: Sequence[Tensor] = ()
    ) -> Tensor:
        """`read(q, k, v, *more, *heads, context)`, which computes each head alone, along the tokens of entire rows.

        All but `heads`, `[heads, ...]`, are `[batch, new, heads, ...]`, those with fewer heads than others sharing each
        with a group of equal size; the result is like `v`, with as many heads as any.
        """
        return read(q, k, v, *more, *heads, self)

    def before(self, x: Tensor, count: int) -> Tensor | None:
        """Of `x` `[batch, new, channels]` the last `count` tokens before these, zeros before the row; None: no such."""
        return None

    @property
    def index(self) -> Tensor:
        """Row positions of the new tokens, int64 `[new]`."""
        return torch.arange(self.cached, self.cached + self.new, device=self.device)

    def position_within(self, length: int) -> Tensor:
        """`position`; InputError when a document has more than the `length` tokens that a table of positions serves."""
        row = self.cached + self.new
        if row > length:  # else no document can be longer, and no value need be read
            longest = row if self.starts is None else int(self.position.max()) + 1
            if longest > length:
                raise InputError(
                    f"a document of {longest} tokens is longer than model.position.length ({length}), "
                    "the table of learned positions; shorten it, or train a longer table"
                )
        return self.position


def _once(made: dict[Hashable, Any], key: Hashable, make: Callable[[], Made]) -> Made:
    if key not in made:
        made[key] = make()
    found: Made = made[key]
    return found
