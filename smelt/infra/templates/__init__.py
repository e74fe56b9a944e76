"""Fills in the launch scripts."""

import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smelt.infra.job import Job


def render(template: str, job: "Job", **values: object) -> str:
    """A script of this folder for `job`; the filter `q` quotes for a shell."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("smelt.infra"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["q"] = lambda value: shlex.quote(str(value))
    return environment.get_template(template).render(job=job, infra=job.recipe.infra, launch=job.launch, **values)
