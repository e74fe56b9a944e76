"""`model`: the decoder, with any part changed for any slice of layers."""

from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class GroupedQuery(Section):
    """Softmax attention: `kv_heads` equal to `heads` is multi-head attention, 1 is multi-query."""

    kind: Literal["gqa"] = "gqa"
    heads: Count
    kv_heads: Count
    head_dim: Count | None = None

    @model_validator(mode="after")
    def _groups(self) -> "GroupedQuery":
        if self.heads % self.kv_heads:
            raise ValueError(f"heads ({self.heads}) must be divisible by kv_heads ({self.kv_heads})")
        return self


class Rope(Section):
    """Rotary position embedding with base frequency `theta`."""

    kind: Literal["rope"] = "rope"
    theta: float = Field(default=50_000.0, gt=1)


class NoPosition(Section):
    """No position embedding: order comes from the causal mask alone."""

    kind: Literal["none"]


class SwiGLU(Section):
    """Gated feed-forward: down(silu(gate(x)) * up(x)), `width` channels wide."""

    kind: Literal["swiglu"] = "swiglu"
    width: Count


Attention = GroupedQuery
Position = Annotated[Rope | NoPosition, Field(discriminator="kind")]
FeedForward = SwiGLU


class Layer(Section):
    """One layer with every slice applied."""

    attention: Attention
    position: Position
    feedforward: FeedForward


class LayerChange(Section):
    """Changes for the layers that `layers`, a Python slice such as `3::4` or a single index, selects."""

    layers: str | int
    attention: dict[str, Any] | None = None
    position: dict[str, Any] | None = None
    feedforward: dict[str, Any] | None = None

    def selects(self, layer: int, layers: int) -> bool:
        if isinstance(self.layers, int) or ":" not in self.layers:
            return layer == range(layers)[int(self.layers)]
        return layer in range(layers)[slice(*(int(part) if part.strip() else None for part in self.layers.split(":")))]


class Model(Section):
    """A pre-norm decoder. Weights start as normal(0, init_std)."""

    hidden: Count
    layers: Count
    attention: Attention
    position: Position = Rope()
    feedforward: FeedForward
    norm_eps: float = Field(default=1e-6, gt=0)
    tie_embeddings: bool = True
    init_std: float = Field(default=0.02, gt=0)
    per_layer: tuple[LayerChange, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Model":
        for change in self.per_layer:
            try:
                if not any(change.selects(layer, self.layers) for layer in range(self.layers)):
                    raise ValueError
            except (ValueError, IndexError):
                raise ValueError(f"per_layer: '{change.layers}' selects none of the {self.layers} layers") from None
        for index in range(self.layers):
            attention = self.layer(index).attention
            if attention.head_dim is None and self.hidden % attention.heads:
                raise ValueError(
                    f"hidden ({self.hidden}) must be divisible by heads ({attention.heads}), or give attention.head_dim"
                )
            if self.head_dim(index) % 2:
                raise ValueError(f"head_dim ({self.head_dim(index)}) must be even, as rotary positions pair channels")
        return self

    def layer(self, index: int) -> Layer:
        """The parts of layer `index`: a change of the same kind merges into the part, a new kind replaces it."""
        parts: dict[str, Any] = {
            name: getattr(self, name).model_dump() for name in ("attention", "position", "feedforward")
        }
        for change in self.per_layer:
            if change.selects(index, self.layers):
                for name in parts:
                    new = getattr(change, name)
                    if new is not None:
                        same = new.get("kind", parts[name]["kind"]) == parts[name]["kind"]
                        parts[name] = {**parts[name], **new} if same else new
        try:
            return _LAYER.validate_python(parts)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"] if part not in ("rope", "none"))
            raise ValueError(f"per_layer, layer {index}: {where}: {first['msg']}") from None

    def head_dim(self, index: int) -> int:
        """Channels a head in layer `index`."""
        attention = self.layer(index).attention
        return attention.head_dim or self.hidden // attention.heads


_LAYER = TypeAdapter(Layer)
