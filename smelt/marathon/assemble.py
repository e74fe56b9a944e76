"""The parts of a run at its first step or at the step it goes on from: model, optimizer, and all that is restored."""

from pathlib import Path

import torch

from smelt.model.decoder import Decoder
from smelt.model.init import learning_rate_factors
from smelt.model.warm import warm_decoder
from smelt.model.weights import read_description
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors
from smelt.parallel.engine import Engine, build_engine, single_engine
from smelt.parallel.fp8 import multiply_in_fp8
from smelt.parallel.world import World
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.recipe.sections.optimizer import Optimizer
from smelt.tokenizer.tokenizer import Tokenizer
from smelt.train.checkpoints import Progress, load_parameters, load_state, read_progress
from smelt.train.loop import Training
from smelt.train.precision import resolve_dtype


def make_engine(
    recipe: Recipe, tokenizer: Tokenizer, world: World, newest: Path | None
) -> tuple[Engine, int, list[str]]:
    """The model at its start, its vocabulary, and how it differs from the checkpoint it starts from; to go on from
    `newest`, only its shape counts."""
    engine, vocab, changes = _engine(recipe, tokenizer, world, newest)
    if recipe.section("train").precision == "fp8":
        multiply_in_fp8(engine.parts)
    return engine, vocab, changes


def _engine(recipe: Recipe, tokenizer: Tokenizer, world: World, newest: Path | None) -> tuple[Engine, int, list[str]]:
    config: Model = recipe.section("model")
    dtype = resolve_dtype(recipe.section("train"), world.device)
    vocab = tokenizer.padded if newest is None else read_description(newest).vocab
    if config.load is None or newest is not None:
        return build_engine(config, vocab, dtype, recipe.seed, recipe.infra, world), vocab, []
    model, changes = warm_decoder(config, tokenizer, dtype, recipe.seed)
    if world.ranks == 1:
        return single_engine(model, recipe.infra, world), model.vocab, changes
    engine = build_engine(config, model.vocab, dtype, recipe.seed, recipe.infra, world)
    engine.load((name, parameter.detach()) for name, parameter in model.named_parameters())
    return engine, model.vocab, changes


def make_optimizer(engine: Engine, section: Optimizer, vocab: int) -> torch.optim.Optimizer:
    """The optimizer of this rank's parameters, grouped as those of the whole model."""
    with torch.device("meta"):
        whole = Decoder(engine.config, vocab)
    names = [name for name, parameter in whole.named_parameters() if parameter.requires_grad]
    return build_optimizer(engine.named_parameters(), section, learning_rate_factors(whole), names)


def restore(training: Training, checkpoint: Path, optimizer: bool = True) -> Progress:
    """Load this rank's share of a checkpoint, of the `optimizer` too, however many ranks wrote it."""
    parameters = dict(training.engine.named_parameters())
    load_parameters(checkpoint, parameters)
    if optimizer:
        state = load_state(checkpoint, parameters)
        load_optimizer_tensors(training.optimizer, state)
        if training.skip is not None:
            training.skip.load(state)
    return read_progress(checkpoint)
