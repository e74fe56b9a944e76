"""Sections of a recipe with the changes that stages and amendments make to them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from pydantic import ValidationError

from smelt.recipe.merge import put
from smelt.recipe.mistakes import in_words
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.train import Train

if TYPE_CHECKING:
    from smelt.recipe.sections.model import WarmStart

_S = TypeVar("_S", Model, Train)


class Setting(NamedTuple):
    """A field with a new value, and where the recipe says so."""

    place: str
    key: str
    value: Any


class Settings:
    """The sections `model` and `train` under settings, each combination put together and checked once."""

    def __init__(self, model: "Model | WarmStart | None") -> None:
        self._model = model if isinstance(model, Model) else None
        self._models: dict[str, Model] = {}
        self._trains: dict[str, Train] = {}

    def model(self, settings: Sequence[Setting]) -> Model | None:
        """The model section; None where its checkpoint has not been read."""
        mine = [each for each in settings if each.key.startswith("model.")]
        if self._model is None or not mine:
            return self._model
        key = repr(mine)
        if key not in self._models:
            data = {"model": self._model.model_dump()}
            for setting in mine:
                _put(data, setting)
            self._models[key] = _checked(Model, data["model"], mine[-1].place, "model.")
        return self._models[key]

    def train(self, train: Train, settings: Sequence[Setting]) -> Train:
        """The section `train`, which may itself have been amended."""
        mine = [each for each in settings if each.key.startswith("train.")]
        if not mine:
            return train
        key = repr((train, mine))
        if key not in self._trains:
            data = {"train": train.model_dump()}
            for setting in mine:
                _put(data, setting)
            self._trains[key] = _checked(Train, data["train"], mine[-1].place, "train.")
        return self._trains[key]


def planned(train: Train, settings: Sequence[Setting]) -> Train:
    """`train` with other stages, schedules or batches: a stage is given one length, and a mixture is replaced."""
    if not settings:
        return train
    data = {"train": train.model_dump(mode="json")}
    for setting in settings:
        *parents, last = setting.key.split(".")
        if last in ("steps", "tokens") and parents[-2] == "stages":
            _put(data, Setting(setting.place, ".".join([*parents, "tokens" if last == "steps" else "steps"]), None))
        if last == "mixture":
            _put(data, Setting(setting.place, setting.key, None))
        _put(data, setting)
    return _checked(Train, data["train"], settings[-1].place, "train.")


def _put(data: dict[str, Any], setting: Setting) -> None:
    try:
        put(data, setting.key.split("."), setting.value)
    except IndexError:
        parts = setting.key.split(".")
        number = next(index for index, part in enumerate(parts) if part.isdigit())
        message = f"{setting.place}: {'.'.join(parts[:number])}: has no entry {parts[number]}"
        raise ValueError(message) from None
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"{setting.place}: {setting.key}: lies below a plain value or a list; check the key") from None


def _checked(section: type[_S], data: Any, place: str, name: str) -> _S:
    try:
        return section.model_validate(data)
    except ValidationError as error:
        raise ValueError(f"{place}: {name}{in_words(error.errors()[0])}") from None
