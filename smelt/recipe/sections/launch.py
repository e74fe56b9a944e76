"""`infra.launch`: what launch scripts ask a cluster for, and when they start a run again."""

from typing import Annotated

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count, CountOrZero

Line = Annotated[str, Field(pattern=r"^[^\n]+$")]


class Slurm(Section):
    """`time`: limit of one job as Slurm writes it, such as `1-12:00:00`; `options`: further `#SBATCH` options."""

    partition: Line | None = None
    account: Line | None = None
    time: Annotated[str, Field(pattern=r"^(\d+-)?\d+(:\d+){0,2}$")] | None = None
    options: tuple[Annotated[str, Field(pattern=r"^--?[A-Za-z][^\n]*$")], ...] = ()


class Kubernetes(Section):
    """`claim`: a volume claim that is there already; without one, a volume of `size` that every pod may write to."""

    image: Line | None = None
    namespace: Line | None = None
    claim: Line | None = None
    size: Annotated[str, Field(pattern=r"^\d+[KMGTP]i?$")] = "1Ti"
    storage_class: Line | None = None
    node_selector: dict[str, str] = Field(default_factory=dict)


class Launch(Section):
    """How a run is started on a cluster, and kept going.

    restarts            lives in a row that may end without a new checkpoint before the run is given up
    grace_seconds       between the word to stop and the end: time to save
    port                where the processes of several machines meet
    environment         variables of every process
    setup, teardown     shell lines before training starts and after it ended
    """

    restarts: CountOrZero = 3
    grace_seconds: Count = 300
    port: Annotated[Count, Field(lt=65536)] = 29400
    environment: dict[Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")], Line] = Field(default_factory=dict)
    setup: tuple[Line, ...] = ()
    teardown: tuple[Line, ...] = ()
    slurm: Slurm = Slurm()
    kubernetes: Kubernetes = Kubernetes()
