"""torchrun: starts the processes of a machine, and, where no supervisor does, all of them again when one dies."""

import shlex

from smelt.infra.job import Job
from smelt.infra.templates import render


def script(job: Job) -> str:
    """A shell script that trains on this machine, or, run on each of several machines, on all of them."""
    nodes = job.recipe.infra.nodes
    if nodes == 1:
        return render("torchrun.sh.jinja", job, train=f"{job.command('train')} --supervise")
    here = '--rdzv-endpoint="$head:$port" --rdzv-id={} --rdzv-conf="is_host=$([ "$rank" = 0 ] && echo 1 || echo 0)"'
    meeting = f"--rdzv-backend=c10d {here.format(shlex.quote(job.recipe.name))}"
    return render("torchrun.sh.jinja", job, train=torchrun(job, meeting))


def torchrun(job: Job, meeting: str, restarts: int | None = None) -> str:
    """The command that starts the processes of one machine; `meeting`: how it finds those of the others."""
    infra = job.recipe.infra
    words = [
        f"--nnodes={infra.nodes}",
        f"--nproc-per-node={infra.gpus_per_node}",
        f"--max-restarts={job.launch.restarts if restarts is None else restarts}",
        f"--shutdown-timeout={job.launch.grace_seconds}",
    ]
    start = f"{shlex.quote(job.python)} -m torch.distributed.run {' '.join(words)} {meeting}"
    return f"{start} -m smelt.cli.main train {shlex.join(job.arguments)}"
