"""`smelt launch`: scripts that start a run on one machine or many, and start it again when it ends too early."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load

if TYPE_CHECKING:
    from smelt.infra.job import Job

app = typer.Typer(help="Start a run with torchrun, under Slurm or on Kubernetes.", no_args_is_help=True)

Out = Annotated[Path | None, typer.Option("--out", help="Where to write it; usually in the run's own folder.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print it, and write and start nothing.")]


@app.command()
def torchrun(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Write a shell script that trains on this machine's processes, or on those of several machines.

    Example: smelt launch torchrun recipes/demo.yaml infra.gpus_per_node=8
    """
    job = _job(recipe, overrides, project)
    from smelt.infra.torchrun import script

    text = script(job)
    if not dry_run:
        path = _write(text, job, out, "torchrun.sh")
        where = "" if job.recipe.infra.nodes == 1 else " HEAD RANK   # on each machine"
        answer(as_json, {"script": path}, f"bash {path}{where}")
    else:
        _show(text, as_json)


@app.command()
def slurm(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Write a batch script and submit it; the job queues itself again until the run is done.

    Example: smelt launch slurm recipes/demo.yaml infra.launch.slurm.time=12:00:00 --dry-run
    """
    job = _job(recipe, overrides, project)
    from smelt.infra.slurm import script, submit

    text = script(job)
    if not dry_run:
        path = _write(text, job, out, "slurm.sh")
        number = submit(path)
        log = job.scripts / f"slurm-{number}.log"
        answer(as_json, {"script": path, "job": number, "log": log}, f"job {number}, log in {log}")
    else:
        _show(text, as_json)


@app.command()
def k8s(
    recipe: RecipeFile,
    overrides: Overrides = None,
    out: Out = None,
    dry_run: DryRun = False,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Write Kubernetes manifests: an indexed Job, its service, its volume and the recipe.

    Example: smelt launch k8s recipes/demo.yaml infra.launch.kubernetes.image=registry/smelt:1 --dry-run
    """
    job = _job(recipe, overrides, project)
    from smelt.infra.kubernetes import manifests

    text = manifests(job)
    if not dry_run:
        path = _write(text, job, out, "kubernetes.yaml")
        answer(as_json, {"manifests": path}, f"kubectl apply -f {path}")
    else:
        _show(text, as_json)


@app.command()
def check(
    scripts: Annotated[list[Path], typer.Argument(help="Shell scripts, such as a job's prolog and epilog.")],
    protect: Annotated[list[str] | None, typer.Option(help="A folder or URL that holds checkpoints.")] = None,
    as_json: Json = False,
) -> None:
    """Look for what could delete checkpoints in your own scripts; exit code 1 when something does.

    Example: smelt launch check prolog.sh epilog.sh --protect /scratch/runs
    """
    from smelt.errors import InputError
    from smelt.infra.lint import lint_script

    found, protected = [], ["runs", *(protect or [])]
    for script in scripts:
        if not script.is_file():
            raise InputError(f"{script}: no such script")
        text = script.read_text(encoding="utf-8", errors="replace")  # commands are ASCII, whatever comments are in
        found += [(finding.script or script, finding) for finding in lint_script(text, protected)]
    lines = [f"{script}, line {each.line}: '{each.command}' {each.reason}" for script, each in found]
    rows = [{"script": script, "line": each.line, "command": each.command} for script, each in found]
    answer(as_json, {"findings": rows}, "\n".join(lines) or "nothing here deletes checkpoints")
    raise typer.Exit(bool(found))


def _job(recipe: Path, overrides: list[str] | None, project: Path) -> "Job":
    loaded = load(recipe, overrides)
    from smelt.infra.job import Job, check_job
    from smelt.recipe.layout import check_layout

    job = Job(loaded, recipe.absolute(), tuple(overrides or ()), project.absolute())
    check_layout(loaded, job.processes)
    check_job(job)
    return job


def _write(text: str, job: "Job", out: Path | None, name: str) -> Path:
    from smelt.files import disk_errors, write_text
    from smelt.infra.job import check_text

    path = (out or job.scripts / name).absolute()
    if not name.endswith(".yaml"):
        check_text(text, job, str(path))
    with disk_errors(job.scripts):
        job.scripts.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    return path


def _show(text: str, as_json: bool) -> None:
    answer(as_json, {"script": text}, text.rstrip("\n"))
