"""`corpus.executor`: where the work on documents runs; what comes out is the same."""

from typing import Annotated, Literal

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class Local(Section):
    """Processes of this machine; "auto" is one a core."""

    kind: Literal["local"] = "local"
    workers: Count | Literal["auto"] = "auto"


class SlurmArray(Section):
    """Tasks of a Slurm job array, through datatrove's executor, on a file system that all nodes share.

    `workers` is how many run at once (all, if not given); `options` are further ones of sbatch: `{account: us}`.
    """

    kind: Literal["slurm"]
    partition: str
    time: str = "24:00:00"
    memory_gb: Count = 4
    workers: Count | None = None
    options: dict[str, str] = Field(default_factory=dict)


class Ray(Section):
    """Tasks of a Ray cluster, through datatrove's executor: the one that RAY_ADDRESS names or that runs on this
    machine, or else one started here. `memory_gb` is what a task reserves."""

    kind: Literal["ray"]
    memory_gb: Count = 2


AnyExecutor = Annotated[Local | SlurmArray | Ray, Field(discriminator="kind")]
