"""Training a decoder whose layers lie on several processes, by the schedules of `torch.distributed.pipelining`."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from smelt.model.balance import Balance, LayerUse
from smelt.parallel.engine import Engine, place
from smelt.parallel.stages import Stage
from smelt.parallel.tied import SharedEmbedding
from smelt.parallel.world import World
from smelt.recipe.pipeline import micro_batches, stage_layers, stages_of
from smelt.recipe.sections.infra import Infra, Layout
from smelt.recipe.sections.model import Model


class PipelineEngine(Engine):
    """The stages of this process, by number, and what runs batches through those of all processes of a pipeline.

    `micro_batch` is the most rows of a micro-batch here: all have as many, and there are enough to fill the pipeline.
    """

    def __init__(self, stages: dict[int, Stage], world: World) -> None:
        self.stages, self.world = stages, world
        self.group = world.mesh["pipeline"].get_group()
        self.shared = _shared_embedding(stages, world.layout, self.group)
        self._shape: tuple[int, int, int] | None = None
        self._schedule: Any = None

    @property
    def parts(self) -> list[nn.Module]:
        return list(self.stages.values())

    @property
    def config(self) -> Model:
        return next(iter(self.stages.values())).config

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters of this process with the names that they have in a plain decoder; not a borrowed embedding."""
        for stage in self.stages.values():
            for name, parameter in stage.named_parameters():
                if not (stage.borrows and name == "embedding.weight"):
                    yield name, parameter

    def forward_backward(
        self, tokens: Tensor, starts: Tensor | None, targets: Tensor, micro_batch: int, weight: Tensor
    ) -> Tensor:
        layout = self.world.layout
        count = micro_batches(len(tokens), micro_batch, layout.schedule, layout.pipeline)
        weights = weight.expand(len(tokens))
        inputs = {"tokens": tokens, "targets": targets, "weight": weights}
        if starts is not None:
            inputs["starts"] = starts
        if self.shared is not None:
            self.shared.lend()
        schedule = self._schedule_for(len(tokens) // count, tokens.shape[1], count)
        try:
            losses = schedule.step(tokens, target=weights, **inputs)
        except RuntimeError as error:
            raise error.__cause__ or error from None  # torch wraps what a stage raises: mistakes, lack of memory
        if losses is None:
            return torch.zeros(len(tokens), dtype=torch.float64, device=tokens.device)
        sums: Tensor = losses.detach().double().sum(1)  # [rows, seq] -> [rows]
        return self.world.sum_over(sums, "tensor") if layout.tensor > 1 else sums

    def reduce_gradients(self) -> None:
        if self.shared is not None:
            self.shared.return_gradient()

    def reconfigure(self, config: Model) -> None:
        if config != self.config:
            from smelt.model.reconfigure import reconfigure

            before = self.config
            for stage in self.stages.values():
                reconfigure(stage, before, config, stage.vocab)

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        here = {name for name, _ in self.named_parameters()}
        super().load((name, tensor) for name, tensor in tensors if name in here)

    def of_all_layers(self, uses: Sequence[LayerUse]) -> list[LayerUse]:
        modules = itertools.chain(*(stage.named_modules() for stage in self.stages.values()))
        places = [_place(name) for name, module in modules if isinstance(module, Balance)]
        mine = [LayerUse._make(None if it is None else it.cpu() for it in use) for use in uses]
        everyone: list[Any] = [None] * self.world.layout.pipeline
        dist.all_gather_object(everyone, list(zip(places, mine, strict=True)), group=self.group)
        return [use for _, use in sorted(itertools.chain(*everyone), key=lambda placed: placed[0])]

    def _schedule_for(self, rows: int, sequence: int, count: int) -> Any:
        """The schedule for `count` micro-batches `[rows, sequence]`; its buffers are kept until the shape changes."""
        from smelt.parallel.schedule import new_schedule

        if self._shape != (rows, sequence, count):
            self._schedule = None  # first, to have its memory back
            self._schedule = new_schedule(self.stages, self.world, self.group, rows, sequence, count)
            self._shape = rows, sequence, count
        return self._schedule


def build_pipeline(
    config: Model, vocab: int, dtype: torch.dtype, seed: int, world: World, infra: Infra
) -> PipelineEngine:
    """A freshly initialised decoder whose layers are spread over the pipeline processes of `world`."""
    layout = world.layout
    layers = stage_layers(config, vocab, layout.pipeline * layout.stages)
    stages = {}
    rank = world.mesh.get_local_rank("pipeline")
    for number in stages_of(layout.schedule, layout.pipeline, layout.stages, rank):
        with torch.device("meta"):
            stage = Stage(config, vocab, dtype, layers[number])
        place(stage, seed, world, infra)
        stages[number] = stage
    return PipelineEngine(stages, world)


def _shared_embedding(stages: dict[int, Stage], layout: Layout, group: Any) -> SharedEmbedding | None:
    """What keeps the embedding of the last stage that of the first, where the last stage needs it."""
    config = next(iter(stages.values())).config
    if not (config.tie_embeddings or config.multi_token is not None):
        return None
    held = [stages_of(layout.schedule, layout.pipeline, layout.stages, rank) for rank in range(layout.pipeline)]
    final = layout.pipeline * layout.stages - 1
    first, last = (next(rank for rank, each in enumerate(held) if end in each) for end in (0, final))
    owner = next((each.embedding.weight for each in stages.values() if each.first), None)
    borrower = next((each.embedding.weight for each in stages.values() if each.borrows), None)
    ranks = dist.get_process_group_ranks(group)
    return SharedEmbedding(owner, borrower, ranks[first], ranks[last], group)


def _place(name: str) -> tuple[bool, int]:
    """What orders modules of layers, further ones last: "layers.7.feedforward.balance" comes at (False, 7)."""
    kind, index, *_ = name.split(".")
    return kind != "layers", int(index)
