"""What the training step drives: a decoder, whole or this process's part of it, with gradients, norms and counters that
are those of all processes together."""

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from smelt.model.balance import Balance, LayerUse
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.reconfigure import reconfigure
from smelt.parallel.clip import clip
from smelt.parallel.world import World
from smelt.recipe.sections.infra import Infra
from smelt.recipe.sections.model import Model


class Engine:
    """A decoder on one process, or spread over processes that all run every layer."""

    def __init__(self, model: Decoder, world: World) -> None:
        self.model, self.world = model, world

    @property
    def parts(self) -> list[nn.Module]:
        """The modules that this process holds."""
        return [self.model]

    @property
    def config(self) -> Model:
        """The model section at work."""
        return self.model.config

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Parameters with the names that they have in a plain decoder."""
        return self.model.named_parameters()

    def forward_backward(
        self, tokens: Tensor, starts: Tensor | None, targets: Tensor, micro_batch: int, weight: Tensor
    ) -> Tensor:
        """Add to the gradients those of the sum of token losses times `weight`, a scalar on the device.

        `tokens`, `starts` and `targets` are this process's rows of the batch, `[rows, seq]`, and taken `micro_batch` at
        a time. Returns the sum of each row's losses, float64 `[rows]`: those that this process has computed, to be
        summed by `World.sum`.
        """
        rows = len(tokens)
        sums = torch.zeros(rows, dtype=torch.float64, device=tokens.device)
        for first in range(0, rows, micro_batch):
            part = slice(first, first + micro_batch)
            self._before_micro_batch(last=first + micro_batch >= rows)
            losses = self.model(tokens[part], starts=None if starts is None else starts[part], targets=targets[part])
            (losses.sum() * weight).backward()
            sums[part] = losses.detach().double().sum(1)  # [micro_batch, seq] -> [micro_batch]
        return sums

    def reduce_gradients(self) -> None:
        """What is left to do before gradients are those of all processes."""

    def clip(self, max_norm: float) -> Tensor:
        """Clip gradients to the L2 norm `max_norm` over all parameters of all processes; returns it as it was."""
        return clip((parameter for _, parameter in self.named_parameters()), max_norm, self.world)

    def of_all_layers(self, uses: Sequence[LayerUse]) -> list[LayerUse]:
        """How every layer of the model used its experts, from how those of this process did; all processes ask."""
        return list(uses)

    def reconfigure(self, config: Model) -> None:
        """Go on with another model section that changes no shapes."""
        if config != self.config:
            reconfigure(self.model, self.config, config, self.model.vocab)

    def load(self, tensors: Iterable[tuple[str, Tensor]]) -> None:
        """Overwrite parameters with whole tensors, of which this process takes its part."""
        from smelt.parallel.initial import copy_parts

        copy_parts(dict(self.named_parameters()), tensors)

    def _before_micro_batch(self, last: bool) -> None:
        """Nothing, where there is one process."""


class ShardedEngine(Engine):
    """A decoder whose parameters are cut over processes."""

    def _before_micro_batch(self, last: bool) -> None:
        self.model.set_requires_gradient_sync(last or self.world.layout.zero > 1)

    def forward_backward(
        self, tokens: Tensor, starts: Tensor | None, targets: Tensor, micro_batch: int, weight: Tensor
    ) -> Tensor:
        sums = super().forward_backward(tokens, starts, targets, micro_batch, weight)
        return self.world.sum_over(sums, "tensor") if self.world.layout.tensor > 1 else sums


def build_engine(config: Model, vocab: int, dtype: torch.dtype, seed: int, infra: Infra, world: World) -> Engine:
    """A freshly initialised model in the layout of `world`, to be trained with activations in `dtype`.

    Its weights are the same in every layout. No process ever holds more than its part of them.
    """
    if world.ranks == 1:
        model = Decoder(config, vocab, dtype)
        if dtype == torch.float64:
            model.double()
        initialise(model, seed)
        return single_engine(model, infra, world)
    if world.layout.pipeline > 1:
        from smelt.parallel.pipeline import build_pipeline

        return build_pipeline(config, vocab, dtype, seed, world, infra)
    with torch.device("meta"):
        model = Decoder(config, vocab, dtype)
    place(model, seed, world, infra)
    return ShardedEngine(model, world)


def single_engine(model: Decoder, infra: Infra, world: World) -> Engine:
    """A whole model on one process."""
    _prepare(model, infra)
    return Engine(model.to(world.device).train(), world)


def place(model: Decoder, seed: int, world: World, infra: Infra) -> None:
    """Lay a decoder, or a stage of one, that was made on the meta device out over the processes that share it, with its
    initial weights."""
    from smelt.parallel.initial import initialise_parts, materialise
    from smelt.parallel.shard import shard

    if model.dtype == torch.float64:
        model.double()
    if world.layout.tensor > 1:
        from smelt.parallel.tensor import tensor_parallel

        tensor_parallel(model, world)
    if world.layout.context > 1:
        from smelt.parallel.context import context_parallel

        context_parallel(model, world.mesh["context"])
    if world.layout.expert > 1:
        from smelt.parallel.experts import expert_parallel

        expert_parallel(model, world.experts["expert"])
    _prepare(model, infra)
    shard(model, world, model.dtype)
    materialise(model, world.device)
    initialise_parts(model, seed)
    _count_over_ranks(model, world)
    model.train()


def _prepare(model: nn.Module, infra: Infra) -> None:
    """What is done to layers wherever they are."""
    if infra.recompute != "none" or infra.compile is True:
        from smelt.parallel.outfit import outfit

        outfit(model, infra)


def _count_over_ranks(model: nn.Module, world: World) -> None:
    """Experts are kept evenly busy over the tokens of all processes."""
    split = ("replicate", "shard", "context", *(("tensor",) if world.layout.expert > 1 else ()))
    for module in model.modules():
        if isinstance(module, Balance):
            module.sum_over_ranks = lambda counts: world.sum_over(counts, *split)
            module.sum_over_parts = lambda counts: world.sum_over(counts, *split[2:])
