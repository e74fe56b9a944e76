"""How long training waits for an asynchronous save of a 100M-parameter model with its AdamW state, and how much longer
a step takes while the files are written. Peer: `torch.distributed.checkpoint.async_save` of the same tensors."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tokenizers
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from common import main, row

from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.weights import Description
from smelt.optim.optimizers import build_optimizer, optimizer_tensors
from smelt.parallel.world import World
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.checkpoints import Checkpoints
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import AdamW
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.train.checkpoints import Progress, Snapshot
from smelt.train.saving import Saver

SHAPE = {
    "hidden": 768,
    "layers": 12,
    "attention": {"heads": 12, "kv_heads": 4},
    "feedforward": {"width": 2048},
    "tie_embeddings": True,
}
VOCAB, SEQUENCE, ROWS = 32768, 512, 8  # 100.7M parameters, 4096 tokens a step
SHARE = 0.05  # of a step that a save may hold training up
SLOWER = 1.1  # times a step may take while the files are written
CPU = torch.device("cpu")


class Training:
    """The model, and steps of it."""

    def __init__(self, folder: Path) -> None:
        self.model = Decoder(Model.model_validate(SHAPE), VOCAB, torch.bfloat16)
        initialise(self.model, 0)
        self.optimizer = build_optimizer(self.model, AdamW())
        self.recipe, self.tokenizer, self.at = Recipe(name="benchmark"), some_tokenizer(folder), Progress()

    def step(self) -> None:
        tokens = torch.randint(VOCAB, (ROWS, SEQUENCE + 1))
        for one in tokens:
            self.model(one[None, :-1], targets=one[None, 1:]).mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.at.step += 1

    def snapshot(self) -> Snapshot:
        description = Description(self.model.config, VOCAB, self.model.dtype, {})
        parameters = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
        state = optimizer_tensors(self.optimizer)
        return Snapshot(self.recipe, self.tokenizer, self.at, description, parameters, state)


def some_tokenizer(folder: Path) -> Tokenizer:
    """A checkpoint carries one, whichever it is."""
    words = tokenizers.models.WordLevel({"<pad>": 0, "<|endoftext|>": 1}, unk_token="<pad>")
    backend = tokenizers.Tokenizer(words)
    backend.add_special_tokens(["<pad>", "<|endoftext|>"])
    backend.save(str(folder / "tokenizer.json"))
    return load_tokenizer(folder)


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def measure(quick: bool) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        training = Training(folder)
        (folder / "run").mkdir()
        saver = Saver(folder / "run", Checkpoints(keep=1), World.single(CPU))
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
        took: dict[str, list[float]] = {name: [] for name in ("step", "stall", "during", "peer", "peer during")}
        for _ in range(3 if quick else 11):
            took["step"].append(seconds(training.step))
            snapshot = training.snapshot()
            took["stall"].append(saver.save(snapshot))
            took["during"].append(seconds(training.step))
            saver.wait()
            state, target = {**snapshot.parameters, **snapshot.state}, folder / "peer"
            start = time.perf_counter()
            future = dcp.async_save(state, checkpoint_id=target)
            took["peer"].append(time.perf_counter() - start)
            took["peer during"].append(seconds(training.step))
            future.result()
            shutil.rmtree(target)
        saver.close(done=True)
        dist.destroy_process_group()
    median = {name: statistics.median(each[1:]) for name, each in took.items()}  # the first one allocates
    step, share = median["step"], median["stall"] / median["step"]
    return [
        row("stall of a save, share of a step", "", share, {"step (s)": step}, SHARE / share, 1.0),
        row(
            "stall of a save",
            "s",
            median["stall"],
            {"dcp.async_save": median["peer"]},
            median["peer"] / median["stall"],
            1.0,
        ),
        row(
            "step while files are written",
            "s",
            median["during"],
            {"step": step, "dcp.async_save": median["peer during"]},
            SLOWER * step / median["during"],
            1.0,
        ),
    ]


if __name__ == "__main__":
    main(measure)
