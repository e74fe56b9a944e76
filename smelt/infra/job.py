"""One run as launch scripts see it: where it is, what starts it, and what must not be deleted."""

import os
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from smelt.errors import InputError
from smelt.infra.lint import lint_script
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.launch import Launch


@dataclass(frozen=True)
class Job:
    """A recipe, the file and overrides it came from, the project folder it runs in, and the Python that runs it."""

    recipe: Recipe
    file: Path
    overrides: tuple[str, ...] = ()
    project: Path = Path(".")
    folder: Path = Path(".")
    python: str = sys.executable

    @property
    def launch(self) -> Launch:
        """`infra.launch`."""
        return self.recipe.infra.launch

    @property
    def processes(self) -> int:
        """Over all machines."""
        return self.recipe.infra.nodes * self.recipe.infra.gpus_per_node

    @property
    def gpus(self) -> bool:
        """Whether the run wants accelerators rather than the processor alone."""
        return self.recipe.infra.device != "cpu"

    @property
    def run(self) -> Path:
        """The run directory."""
        return Path(os.path.normpath(self.folder.absolute() / self.project / "runs" / self.recipe.name))

    @property
    def scripts(self) -> Path:
        """Where this run's launch scripts and their logs lie."""
        return self.run / "launch"

    def command(self, *verb: str) -> str:
        """A `smelt` verb on this recipe, quoted for a shell."""
        return shlex.join([*self.smelt, *verb, *self.arguments])

    @property
    def smelt(self) -> tuple[str, ...]:
        """What starts smelt."""
        return (self.python, "-m", "smelt.cli.main")

    @property
    def arguments(self) -> tuple[str, ...]:
        """The recipe, its overrides and the project, as verbs take them."""
        return (str(self.file), *self.overrides, "--project", str(self.project))


def check_job(job: Job) -> None:
    """InputError when the shell lines of the recipe, or scripts they call, could delete checkpoints."""
    for key, lines in (("setup", job.launch.setup), ("teardown", job.launch.teardown)):
        check_text("\n".join(lines), job, f"infra.launch.{key}")


def check_text(text: str, job: Job, place: str) -> None:
    """InputError when a script could delete checkpoints of this project."""
    upload = job.recipe.section("train").checkpoints.upload
    protected = [job.run.parent, *([upload] if upload else [])]
    findings = lint_script(text, protected, job.folder)
    if findings:
        more = f" (and {len(findings) - 1} more)" if findings[1:] else ""
        raise InputError(f"{place}, {findings[0]}{more}")
