"""For every test: hypothesis draws the same examples each time in CI; shared data; a tiny project to work in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from smelt.lifecycle.artifacts import prepare
from smelt.recipe.load import load_recipe
from smelt.recipe.schema import Recipe

settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


sys.path.append(str(Path(__file__).parent / "parallel"))


@pytest.fixture(scope="session")
def pool() -> Iterator[Any]:
    """Worker processes: `pool(n, function, *args)` runs a function as `n` ranks of a process group."""
    from pool import Pool

    workers = Pool()
    yield workers
    workers.close()


@pytest.fixture
def shared_data() -> Path:
    """The folder that SMELT_DATA names; the test is skipped where it is unset."""
    if not os.environ.get("SMELT_DATA"):
        pytest.skip("SMELT_DATA is unset: it names a folder of small real datasets")
    return Path(os.environ["SMELT_DATA"])


TINY = """\
name: tiny
corpus:
  sources:
    docs: {read: {kind: python-docs}, documents: 30}
    math: {read: {kind: arithmetic, documents: 300}}
tokenizer: {train: {vocab: 512}}
dataset: {span: 1Ki}
model:
  hidden: 32
  layers: 2
  attention: {heads: 2, kv_heads: 1}
  feedforward: {width: 64}
train:
  sequence: 64
  batch_tokens: 512
  precision: fp32
  optimizer: {lr: 3e-3}
  schedule: {kind: wsd, warmup_steps: 2}
  log_every_steps: 1
  checkpoints: {every_steps: 5}
  stages:
    - {name: one, steps: 12, mixture: {docs: 0.5, math: 0.5}}
    - {name: two, steps: 8, mixture: {docs: 0.25, math: 0.75}}
evals: {tasks: [addition], items: 4, every_steps: 10, validation_bytes: 5k}
posttrain:
  stages:
    - {kind: sft, data: {kind: instructions, examples: 24}, lr: 1e-3, batch_examples: 8, max_length: 128}
  tasks: [addition]
  items: 4
infra: {device: cpu, micro_batch: 3}
"""


@dataclass(frozen=True)
class Workshop:
    """A project folder whose artifacts tests share; each test gives its runs names of their own."""

    project: Path
    recipe: Path

    def load(self, name: str, *overrides: str) -> Recipe:
        """The tiny recipe under another name, changed."""
        return load_recipe(self.recipe, [f"name={name}", *overrides])

    @property
    def shards(self) -> Path:
        """Those of the tiny recipe, whatever other tests have built beside them."""
        made = prepare(self.load("tiny"), self.project).shards
        assert made is not None
        return made

    def smelt(self, *arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line in the project folder."""
        command = [sys.executable, "-m", "smelt.cli.main", *map(str, arguments)]
        return subprocess.run(command, cwd=self.project, capture_output=True, text=True, **options)


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """The tiny recipe, and a project that has its corpus, tokenizer and shards."""
    project = tmp_path_factory.mktemp("project")
    (project / "tiny.yaml").write_text(TINY)
    made = Workshop(project, project / "tiny.yaml")
    prepare(made.load("tiny"), project)
    return made
