"""`train.checkpoints`: how often a run is saved, which checkpoints stay, and where copies go."""

from pydantic import Field

from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count, CountOrZero


class Checkpoints(Section):
    """Save every `every_steps` steps and at the end of every stage; keep the newest `keep`, and for good those whose
    step is a multiple of `keep_every` (0: none).

    `upload` is a folder or a URL that fsspec knows, such as `s3://bucket/runs`: each checkpoint is copied to
    `upload/RUN/step-NNNNNNNN`, none is removed there, and no local one is removed before its copy has been read back.
    """

    every_steps: Count = 500
    keep: Count = 3
    keep_every: CountOrZero = 0
    upload: str | None = Field(default=None, min_length=1)
