"""What a layer with a state keeps of the tokens seen: as much after a million as after one."""

from torch import Tensor


class Recurrence:
    """`state`, float32 `[batch, heads, key_dim, value_dim]`, and where the layer has a convolution its last inputs,
    `tail`, `[batch, width - 1, channels]` in the activations' dtype. Zeros before the first token."""

    def __init__(self, state: Tensor, tail: Tensor | None = None) -> None:
        self.state, self.tail = state, tail

    @property
    def bytes(self) -> int:
        """Bytes of its tensors."""
        return self.state.nbytes + (0 if self.tail is None else self.tail.nbytes)

    def keep(self, rows: Tensor) -> None:
        """Drop every row that `rows`, int64 indices, does not name."""
        self.state = self.state[rows]
        self.tail = None if self.tail is None else self.tail[rows]
