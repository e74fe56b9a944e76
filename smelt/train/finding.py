"""The checkpoint to go on from: the newest whole one, here or where checkpoints are uploaded."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from smelt.errors import InputError
from smelt.files import check_directory
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe
from smelt.train.checkpoints import checkpoint_path, step_in
from smelt.train.records import event
from smelt.train.remote import Remote
from smelt.train.retention import Retention
from smelt.train.together import Together
from smelt.train.uploading import Uploader

_RECIPE = "recipe.yaml"
Accept = Callable[[Recipe, int], bool]  # asked with a checkpoint's recipe and step

T = TypeVar("T")


@dataclass
class Finder:
    """Looks through the checkpoints of a run; all its ranks take part, each checking a share of the files."""

    run: Path
    ranks: Together
    retention: Retention
    remote: Remote | None
    uploader: Uploader | None
    say: Callable[[str], None]
    accept: Accept

    def records(self) -> None:
        """Bring the run's records here where its recipe is gone: they tell what the run is."""

        def bring() -> None:
            if not (self.run / _RECIPE).is_file():
                self._read_there(lambda remote: remote.fetch_records(self.run))

        self.ranks.first(bring)

    def newest(self) -> Path | None:
        """See `Saver.newest`. The copy elsewhere counts where the one here is missing or damaged."""
        for step, here in self.ranks.first(self._candidates):
            path = checkpoint_path(self.run, step)
            if here and self.ranks.first(partial(self._wanted, path)) and self._whole(path):
                return path
            if not here and self.ranks.first(partial(self._fetched, step)):
                return path
        return None

    def _candidates(self) -> list[tuple[int, bool]]:
        """(step, whether it is here), the newest first, of a step the one here before its copy."""
        there = self._read_there(Remote.steps) or []
        found = {(step, True) for step in self._steps_here()} | {(step, False) for step in there}
        return sorted(found, reverse=True)

    def _steps_here(self) -> list[int]:
        steps = (step_in(path.name) for path in (self.run / "checkpoints").glob("step-*"))
        return [step for step in steps if step is not None]

    def _read_there(self, read: Callable[[Remote], T]) -> T | None:
        """What `read` gives; None where nothing is uploaded, or where it cannot be reached but checkpoints are here."""
        if self.remote is None:
            return None
        try:
            return read(self.remote)
        except Exception as error:  # each file system has errors of its own
            text = f"train.checkpoints.upload: {self.remote.url} cannot be read ({error})"
            if not self._steps_here():
                raise InputError(f"{text}, and there is no checkpoint here; mend the connection or the name") from None
            self.say(f"{text}; going on from what is here")
            return None

    def _wanted(self, path: Path) -> bool:
        try:
            recipe = load_recipe(path / _RECIPE)
        except InputError as problem:
            self._pass_over(str(problem))
            return False
        return self.accept(recipe, step_in(path.name) or 0)

    def _whole(self, path: Path) -> bool:
        """Whether every file is what the manifest says; a damaged checkpoint is told of and passed over."""

        def problem() -> str:
            try:
                check_directory(path, share=slice(self.ranks.rank, None, self.ranks.ranks))
            except InputError as error:
                return str(error)
            return ""

        problems = [each for each in self.ranks.each(problem) if each]
        if problems:
            self.ranks.first(lambda: self._pass_over(problems[0]))
        return not problems

    def _fetched(self, step: int) -> bool:
        """Bring a checkpoint here, and the run's records if they are gone; False if it will not do."""
        assert self.remote is not None and self.uploader is not None
        recipe = self._taken(step, self._recipe_there)
        if recipe is None or not self.accept(recipe, step):
            return False
        path = self._taken(step, self._copied)
        if path is None:
            return False
        self.uploader.note(path)
        event(self.run, "fetch", step=step, url=self.remote.url)
        return True

    def _taken(self, step: int, take: Callable[[Remote, int], T]) -> T | None:
        """What `take` brings of the checkpoint there; None where that is damaged, which is told of."""
        assert self.remote is not None
        try:
            return take(self.remote, step)
        except InputError as problem:
            self._pass_over(str(problem))
            return None
        except Exception as error:  # each file system has errors of its own; an older step would lose what is there
            raise InputError(
                f"train.checkpoints.upload: {self.remote.url}/{checkpoint_path(self.run, step).name} cannot be fetched "
                f"({error}); mend the connection"
            ) from error

    def _recipe_there(self, remote: Remote, step: int) -> Recipe:
        remote.fetch_records(self.run)  # first, as the events tell what happens here
        with TemporaryDirectory() as scratch:
            file = Path(scratch) / _RECIPE
            file.write_bytes(remote.read(step, _RECIPE))
            return load_recipe(file)

    def _copied(self, remote: Remote, step: int) -> Path:
        path = checkpoint_path(self.run, step)
        self.say(f"fetching {remote.url}/{path.name}")
        with self.retention.replacing(path) as folder:
            remote.fetch(step, folder)
        return path

    def _pass_over(self, problem: str) -> None:
        text = f"passing over a damaged checkpoint: {problem}"
        self.say(text)
        self.run.mkdir(parents=True, exist_ok=True)
        event(self.run, "fallback", reason=text)
