"""`model`: the decoder, with any part changed for any slice of layers, or a checkpoint to start from."""

from functools import cached_property
from itertools import chain
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag, TypeAdapter, ValidationError, field_validator, model_validator

from smelt.recipe.merge import merged
from smelt.recipe.mistakes import Place, located, moved, not_of_this_kind, of_no_kind
from smelt.recipe.parts.custom import is_custom, with_source
from smelt.recipe.parts.init import Init, NormalInit
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings
from smelt.recipe.parts.position import Learned, Position, Rope
from smelt.recipe.parts.table import KINDS, FeedForward, Mixer
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

    @field_validator("attention", "feedforward")
    @classmethod
    def _sourced(cls, part: dict[str, Any] | None) -> dict[str, Any] | None:
        return with_source(part) if part is not None and is_custom(part) else part

    def selects(self, layer: int, layers: int) -> bool:
        if isinstance(self.layers, int) or ":" not in self.layers:
            return layer == range(layers)[int(self.layers)]
        return layer in range(layers)[slice(*(int(part) if part.strip() else None for part in self.layers.split(":")))]


class MultiToken(Section):
    """Multi-token prediction (DeepSeek-V3): `depth` further layers, each predicting one token further ahead.

    Layer d reads the state before it beside the embedding of the token d places on, and is a copy in kind of the last
    layer. The mean of their losses, times `weight`, joins the loss. They are not used in generation. The metrics show
    the mean before the weight as `multi_token_loss`.
    """

    depth: Count = 1
    weight: float = Field(default=0.3, gt=0)


class Model(Section):
    """A decoder. `embedding_scale`, `residual_scale` and `logit_scale` multiply the embeddings, what each sublayer
    adds, and the logits; `logit_softcap` bounds the logits by softcap * tanh(logits / softcap); `z_loss` is the weight
    of the mean squared logsumexp of the logits (PaLM). `load` names the checkpoint the weights start from; `source`,
    filled in when a run begins, identifies what was in it."""

    load: str | None = None
    source: str | None = None
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
        for number, change in enumerate(self.per_layer):
            try:
                found = any(change.selects(layer, self.layers) for layer in range(self.layers))
            except (ValueError, IndexError, TypeError):
                found = False
            if not found:
                message = f"'{change.layers}' selects none of the {self.layers} layers"
                raise located(("per_layer", number, "layers"), message)
        for index in range(self.layers):
            self._check(index)
        return self

    def _check(self, index: int) -> None:
        layer = self.each_layer[index]
        if isinstance(layer.position, Learned) and layer.position != self.position:
            raise located(self._set_at(index, "position"), "'learned' is for the whole model; set model.position")
        if layer.attention.kind == layer.feedforward.kind == "none":
            place = max(self._set_at(index, "attention"), self._set_at(index, "feedforward"), key=len)
            raise located(place, f"layer {index} has neither attention nor feedforward; give it one of them")
        for name in ("attention", "feedforward"):
            try:
                getattr(layer, name).check(self.around(index))
            except ValueError as error:
                raise located(self._set_at(index, name), str(error)) from None

    def _set_at(self, index: int, name: str) -> Place:
        """Where part `name` of a layer was last set: by a change of `per_layer`, or for the whole model."""
        place: Place = (name,)
        for number, change in enumerate(self.per_layer):
            if getattr(change, name) is not None and change.selects(index, self.layers):
                place = ("per_layer", number, name)
        return place

    @property
    def logit_multiplier(self) -> float:
        """What logits are multiplied by: `logit_scale`, and what muP adds to it."""
        return self.logit_scale * self.init.widening(self.hidden)

    @cached_property
    def each_layer(self) -> tuple[Layer, ...]:
        """Every layer's parts: a change of the same kind merges into the part, a new kind replaces it."""
        return tuple(self._layer(index) for index in range(self.layers))

    def around(self, index: int) -> Surroundings:
        """What the parts of layer `index` know of their layer."""
        layer = self.each_layer[index]
        return Surroundings(self.hidden, layer.position, layer.norm)

    def _layer(self, index: int) -> Layer:
        parts: dict[str, Any] = {name: getattr(self, name) for name in Layer.model_fields}
        changes = [change for change in self.per_layer if change.selects(index, self.layers)]
        if not changes:
            return Layer.model_construct(**parts)
        parts = {name: part.model_dump() for name, part in parts.items()}
        for change in changes:
            for name, old in parts.items():
                parts[name] = merged(old, getattr(change, name) or {})
        try:
            return _LAYER.validate_python(parts)
        except ValidationError as error:
            raise self._explained(index, error) from None

    def _explained(self, index: int, error: ValidationError) -> ValidationError:
        """The mistake where the change that made it stands."""
        first = error.errors()[0]
        name = str(first["loc"][0])
        place = self._set_at(index, name)
        if first["type"] == "extra_forbidden" and name in KINDS:
            kind, key = map(str, first["loc"][-2:])
            return located((*place, key), not_of_this_kind(key, kind, _fields(name)))
        return moved(error, place[:-1])


def _fields(part: str) -> dict[str, tuple[str, ...]]:
    """The fields of every kind of a part; a norm has no kinds."""
    return {kind: tuple(each.model_fields) for kind, each in KINDS.get(part, {"": Norm}).items()}


class WarmStart(Section):
    """A model that starts from `load`, a checkpoint of ours or a Hugging Face folder, with the fields here changed.

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

    @model_validator(mode="after")
    def _fits(self) -> "WarmStart":
        _check_names(self, ())
        for number, change in enumerate(self.per_layer):
            _check_names(change, ("per_layer", number))
        return self

    def applied(self, to: Model, source: str) -> Model:
        """The model section `to` with these changes; `source` identifies the checkpoint it describes."""
        given = {name: getattr(self, name) for name in self.model_fields_set - {"load", "per_layer"}}
        changes = {name: it.model_dump() if isinstance(it, Section) else it for name, it in given.items()}
        section = merged(to.model_dump(), {**changes, "load": self.load, "source": source})
        return Model.model_validate({**section, "per_layer": (*to.per_layer, *self.per_layer)})


def _check_names(change: "LayerChange | WarmStart", place: Place) -> None:
    """Refuse fields that no part could have; what they are merged into is not known yet."""
    for part in Layer.model_fields:
        fields = getattr(change, part) or {}
        kinds = _fields(part)
        kind = fields.get("kind")
        if is_custom(fields):
            continue
        if kind is not None and kind not in kinds:
            known = ", ".join(map(repr, kinds))
            raise located((*place, part, "kind"), f"unknown kind '{kind}'; known kinds: {known}")
        for key in fields:
            if kind is not None and key not in kinds[kind]:
                raise located((*place, part, key), not_of_this_kind(key, kind, kinds))
            if not any(key in names for names in kinds.values()):
                raise located((*place, part, key), of_no_kind(key, part, sorted({*chain(*kinds.values())})))


def _which(value: Any) -> str:
    """A mapping with `load` but no shape is a warm start."""
    if isinstance(value, dict):
        return "WarmStart" if "load" in value and "hidden" not in value else "Model"
    return type(value).__name__


ModelOrStart = Annotated[Annotated[Model, Tag("Model")] | Annotated[WarmStart, Tag("WarmStart")], Discriminator(_which)]
_LAYER = TypeAdapter(Layer)
