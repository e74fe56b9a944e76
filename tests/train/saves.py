"""Small runs to save and load, alone or as ranks of a process group; imported by the workers of `pool` too."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.weights import Description
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.tokenizer.tokenizer import load_tokenizer
from smelt.train.checkpoints import Progress, Snapshot, load_parameters, load_state, read_progress
from smelt.train.saving import Saver
from smelt.train.storage import StagedFile

VOCAB = 64


@dataclass(frozen=True)
class Alone:
    """A world of one."""

    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class Group:
    """The process group at hand."""

    @property
    def rank(self) -> int:
        return dist.get_rank()

    @property
    def ranks(self) -> int:
        return dist.get_world_size()


def world() -> Alone | Group:
    return Group() if dist.is_initialized() else Alone()


class Run:
    """A decoder and its optimizer, sharded over all ranks, that take real steps."""

    def __init__(self, recipe: Recipe, tokenizer: Path, seed: int = 0) -> None:
        self.recipe, self.tokenizer = recipe, load_tokenizer(tokenizer)
        self.model = Decoder(recipe.section("model"), VOCAB)
        initialise(self.model, seed)
        if dist.is_initialized() and dist.get_world_size() > 1:
            mesh = init_device_mesh("cpu", (dist.get_world_size(),))
            for block in self.model.layers:
                fully_shard(block, mesh=mesh)
            fully_shard(self.model, mesh=mesh)
        self.optimizer = build_optimizer(self.model, recipe.section("train").optimizer)
        self.at = Progress(data="data")

    def step(self) -> None:
        """One step on a batch that depends on the step alone."""
        tokens = torch.randint(VOCAB, (4, 33), generator=torch.Generator().manual_seed(self.at.step))
        self.model(tokens[:, :-1], targets=tokens[:, 1:]).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.at.step += 1

    def snapshot(self) -> Snapshot:
        state = {**optimizer_tensors(self.optimizer), "skip.seen": torch.arange(5.0)}
        description = Description(self.model.config, VOCAB, self.model.dtype, {})
        parameters = dict(self.model.named_parameters())
        return Snapshot(self.recipe, self.tokenizer, self.at, description, parameters, state)

    def load(self, path: Path) -> dict[str, Tensor]:
        """Go on from a checkpoint; returns the state that it held."""
        parameters = dict(self.model.named_parameters())
        load_parameters(path, parameters)
        state = load_state(path, parameters)
        load_optimizer_tensors(self.optimizer, state)
        self.at = read_progress(path)
        return state

    def tensors(self) -> dict[str, Tensor]:
        """Everything, whole."""
        parameters = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        return {name: whole(each) for name, each in {**parameters, **optimizer_tensors(self.optimizer)}.items()}


def whole(tensor: Tensor) -> Tensor:
    return (tensor.full_tensor() if isinstance(tensor, DTensor) else tensor).clone()


def saved_after(recipe: Recipe, tokenizer: Path, run: Path, steps: int) -> dict[str, Tensor]:
    """Take some steps and save; everything that was saved."""
    made = Run(recipe, tokenizer)
    for _ in range(steps):
        made.step()
    saver = Saver(run, Checkpoints(), world())
    before = made.tensors()
    saver.save(made.snapshot())
    made.step()  # what is saved is what was there when it was asked for
    saver.close(done=True)
    return before


def loaded(recipe: Recipe, tokenizer: Path, path: Path) -> dict[str, Tensor]:
    """Everything in a checkpoint, loaded into a run that began with other weights."""
    made = Run(recipe, tokenizer, seed=1)
    state = made.load(path)
    assert torch.equal(state["skip.seen"], torch.arange(5.0))
    return made.tensors()


def disk_full_on_the_last_rank(recipe: Recipe, tokenizer: Path, run: Path) -> list[Any]:
    """Save with a disk that is full for one rank, then with room again; what was said, and how the next save ended."""
    made, said = Run(recipe, tokenizer), []
    made.step()
    saver = Saver(run, Checkpoints(), world(), said.append)
    write = StagedFile.write

    def full(self: StagedFile, path: Path) -> dict[str, Any]:
        if world().rank == world().ranks - 1:
            raise OSError(28, "No space left on device")
        return write(self, path)

    try:
        StagedFile.write = full  # type: ignore[method-assign]
        saver.save(made.snapshot())
        saver.wait()
    finally:
        StagedFile.write = write  # type: ignore[method-assign]
    kept = sorted(path.name for path in (run / "checkpoints").glob("*"))
    made.step()
    saver.save(made.snapshot())
    saver.close(done=True)
    return [said, kept]


def killed_while_writing(recipe: Recipe, tokenizer: Path, run: Path, rank: int) -> None:
    """Save step 1 whole; while step 2 is being written, one process is killed with half a file on the disk."""
    made = Run(recipe, tokenizer)
    saver = Saver(run, Checkpoints(), world())
    made.step()
    saver.save(made.snapshot())
    saver.wait()

    def half(self: StagedFile, path: Path) -> dict[str, Any]:
        if world().rank == rank:
            path.write_bytes(bytes(100))
            os.kill(os.getpid(), signal.SIGKILL)
        return {"bytes": 0, "sha256": ""}

    StagedFile.write = half  # type: ignore[method-assign]
    made.step()
    saver.save(made.snapshot())
    saver.close(done=True)


def newest(run: Path) -> str | None:
    path = Saver(run, Checkpoints(), world()).newest()
    return None if path is None else path.name


class _Two(nn.Module):
    """Matrices that tensor parallelism cuts both ways."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 14), nn.Linear(14, 5)


def nested() -> nn.Module:
    """The matrices of `_Two`, numbered through, in tensor-parallel halves that FSDP cuts again."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "tensor"))
    module = _Two()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(torch.arange(float(parameter.numel())).view(parameter.shape))
    parallelize_module(module, mesh["tensor"], {"first": ColwiseParallel(), "second": RowwiseParallel()})
    return fully_shard(module, mesh=mesh["data"])


class _Bare(Snapshot):
    """Tensors and no facts."""

    def write_facts(self, folder: Path) -> None:
        (folder / "state.json").write_text("{}")


def save_tensors(saver: Saver, named: dict[str, Tensor], state: dict[str, Tensor] | None = None, step: int = 0) -> None:
    """Save any tensors."""
    saver.save(_Bare(None, None, Progress(step), None, named, state or {}))  # type: ignore[arg-type]
    saver.close(done=True)


def numbered(mesh: DeviceMesh, placements: tuple[Any, ...], shape: tuple[int, ...]) -> DTensor:
    full = torch.arange(float(torch.Size(shape).numel())).view(shape)
    return distribute_tensor(full, mesh, placements, src_data_rank=None)


def uploaded_after(recipe: Recipe, tokenizer: Path, run: Path, url: str) -> dict[str, Tensor]:
    """Take a step, save and upload; everything that was saved."""
    made = Run(recipe, tokenizer)
    made.step()
    saver = Saver(run, Checkpoints(upload=url), world())
    saver.save(made.snapshot())
    saver.close(done=True)
    return made.tensors()


def fetched(recipe: Recipe, tokenizer: Path, run: Path, url: str) -> dict[str, Tensor]:
    """Everything in the newest checkpoint, which is only elsewhere."""
    made = Run(recipe, tokenizer, seed=1)
    saver = Saver(run, Checkpoints(upload=url), world())
    path = saver.newest()
    assert path is not None
    made.load(path)
    saver.close(done=True)
    return made.tensors()
