"""`model`: the decoder, with any part changed for any slice of layers, or a checkpoint to start from."""

from functools import cached_property
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from smelt.recipe.parts.init import Init, NormalInit
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import Learned, Position, Rope
from smelt.recipe.parts.table import FeedForward, Mixer
from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Layer(Section):
    """One layer with every slice applied."""

    attention: Mixer
    position: Position
    feedforward: FeedForward
    norm: Norm


class LayerChange(Section):
    """Changes for the layers that `layers`, a Python slice such as `3::4` or a single index, selects."""

    layers: str | int
    attention: dict[str, Any] | None = None
    position: dict[str, Any] | None = None
    feedforward: dict[str, Any] | None = None
    norm: dict[str, Any] | None = None

    def selects(self, layer: int, layers: int) -> bool:
        if isinstance(self.layers, int) or ":" not in self.layers:
            return layer == range(layers)[int(self.layers)]
        return layer in range(layers)[slice(*(int(part) if part.strip() else None for part in self.layers.split(":")))]


class MultiToken(Section):
    """Multi-token prediction (DeepSeek-V3): `depth` further layers, each predicting one token further ahead.

    Layer d reads the state before it beside the embedding of the token d places on, and is a copy in kind of the last
    layer. The mean of their losses, times `weight`, joins the loss. They are not used in generation.
    """

    depth: Count = 1
    weight: float = Field(default=0.3, gt=0)


class Model(Section):
    """A decoder. `embedding_scale`, `residual_scale` and `logit_scale` multiply the embeddings, what each sublayer adds,
    and the logits; `logit_softcap` bounds the logits by softcap * tanh(logits / softcap); `z_loss` is the weight of the
    mean squared logsumexp of the logits (PaLM). `load` names the checkpoint the weights start from."""

    load: str | None = None
    hidden: Count
    layers: Count
    attention: Mixer
    position: Position = Rope()
    feedforward: FeedForward
    norm: Norm = Norm()
    tie_embeddings: bool = True
    embedding_scale: float = Field(default=1.0, gt=0)
    residual_scale: float = Field(default=1.0, gt=0)
    logit_scale: float = Field(default=1.0, gt=0)
    logit_softcap: float | None = Field(default=None, gt=0)
    z_loss: float = Field(default=0.0, ge=0)
    multi_token: MultiToken | None = None
    init: Init = NormalInit()
    per_layer: tuple[LayerChange, ...] = ()

    @model_validator(mode="after")
    def _fits(self) -> "Model":
        for change in self.per_layer:
            try:
                if not any(change.selects(layer, self.layers) for layer in range(self.layers)):
                    raise ValueError
            except (ValueError, IndexError):
                raise ValueError(f"per_layer: '{change.layers}' selects none of the {self.layers} layers") from None
        for index, layer in enumerate(self.each_layer):
            if isinstance(layer.position, Learned) and layer.position != self.position:
                raise ValueError(f"per_layer, layer {index}: position 'learned' is for the whole model; set model.position")
            if layer.attention.kind == layer.feedforward.kind == "none":
                raise ValueError(f"layer {index} has neither attention nor feedforward; give it one of them")
            layer.attention.check(self.around(index))
            layer.feedforward.check(self.around(index))
        return self

    @cached_property
    def each_layer(self) -> tuple[Layer, ...]:
        """Every layer's parts: a change of the same kind merges into the part, a new kind replaces it."""
        return tuple(self._layer(index) for index in range(self.layers))

    def layer(self, index: int) -> Layer:
        """The parts of layer `index`."""
        return self.each_layer[index]

    def around(self, index: int) -> Surroundings:
        """What the parts of layer `index` know of their layer."""
        layer = self.each_layer[index]
        return Surroundings(self.hidden, layer.position, layer.norm)

    def _layer(self, index: int) -> Layer:
        parts: dict[str, Any] = {name: getattr(self, name) for name in Layer.model_fields}
        changed = False
        for change in self.per_layer:
            if change.selects(index, self.layers):
                for name in parts:
                    new = getattr(change, name)
                    if new is not None:
                        old = parts[name] if isinstance(parts[name], dict) else parts[name].model_dump()
                        same = new.get("kind", old.get("kind")) == old.get("kind")
                        parts[name], changed = {**old, **new} if same else new, True
        if not changed:
            return Layer.model_construct(**parts)
        try:
            return _LAYER.validate_python(parts)
        except ValidationError as error:
            first = error.errors()[0]
            known = ("rope", "none", "learned", "alibi")
            where = ".".join(str(part) for part in first["loc"] if part not in known)
            raise ValueError(f"per_layer, layer {index}: {where}: {first['msg']}") from None


class WarmStart(Section):
    """A model that starts from `load`, a checkpoint of ours or a Hugging Face folder, with the fields given here changed.

    Fields are those of a model section; `per_layer` changes come after the checkpoint's own.
    """

    load: str
    attention: dict[str, Any] | None = None
    position: dict[str, Any] | None = None
    feedforward: dict[str, Any] | None = None
    norm: dict[str, Any] | None = None
    embedding_scale: float | None = None
    residual_scale: float | None = None
    logit_scale: float | None = None
    logit_softcap: float | None = None
    z_loss: float | None = None
    multi_token: MultiToken | None = None
    init: Init | None = None
    per_layer: tuple[LayerChange, ...] = ()


_LAYER = TypeAdapter(Layer)
