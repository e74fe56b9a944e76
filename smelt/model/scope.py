"""Which tokens a token sees and how scores are weighed: the one meaning that every attention engine computes."""

from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Scope:
    """What a layer sees and how it weighs it; fields as in `smelt.recipe.parts.attention.GroupedQuery`.

    Scores are scale * q k, then capped, then lowered by ALiBi's slope * distance, then masked. `alibi` has the slope of
    each query head, and is empty without ALiBi. Equal scopes have the same `name`: torch.compile can look a string up,
    but not a dataclass.
    """

    scale: float
    window: int | None = None
    sink_tokens: int = 0
    chunk: int | None = None
    softcap: float | None = None
    alibi: tuple[float, ...] = ()
    name: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = (self.scale, self.window, self.sink_tokens, self.chunk, self.softcap, self.alibi)
        object.__setattr__(self, "name", " ".join(map(str, parts)))  # not repr(self), which a compiler cannot follow

    @property
    def plain(self) -> bool:
        """Whether a token sees its whole document up to itself, by scaled scores alone."""
        return self.window is None and self.chunk is None and self.softcap is None and not self.alibi

    def sees(self, query: Tensor, key: Tensor, begin: Tensor | int) -> Tensor:
        """Whether the token at row position `query`, whose document begins at `begin`, sees the one at `key`."""
        seen = (key <= query) & (key >= begin)
        if self.window is not None:
            near = query - key < self.window
            seen = seen & (near | (key - begin < self.sink_tokens) if self.sink_tokens else near)
        if self.chunk is not None:
            seen = seen & ((query - begin) // self.chunk == (key - begin) // self.chunk)
        return seen

    def weigh(self, scores: Tensor, distance: Tensor, slope: Tensor) -> Tensor:
        """Scaled scores, capped and lowered with `distance`, which broadcasts with them, as `slope` does."""
        if self.softcap is not None:
            scores = (scores / self.softcap).tanh() * self.softcap
        return scores - slope * distance if self.alibi else scores


def slopes(heads: int) -> tuple[float, ...]:
    """ALiBi's slope of each query head (Press et al. 2022).

    2^(-8 i / heads) for i = 1 to heads, when that is a power of two; else those of the power of two below, then every
    other one of the power of two above.
    """
    below = 1 << heads.bit_length() - 1
    powers = tuple(2 ** (-8 * i / below) for i in range(1, below + 1))
    return powers if heads == below else powers + slopes(2 * below)[::2][: heads - below]
