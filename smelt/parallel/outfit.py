"""What layers in training are fitted with: recomputation and compilation."""

from torch import nn

from smelt.model.decoder import Layer
from smelt.model.multi_token import Further
from smelt.parallel.compiling import compile_layers
from smelt.parallel.recompute import recompute
from smelt.recipe.sections.infra import Infra


def outfit(model: nn.Module, infra: Infra) -> None:
    """Fit the layers below `model`; a `compile` that is still `auto` is off."""
    further = {module.layer for module in model.modules() if isinstance(module, Further)}  # a part of what holds it
    layers = [each for each in model.modules() if isinstance(each, Layer | Further) and each not in further]
    compiled = infra.compile is True
    if compiled:
        compile_layers(layers, infra.recompute)
    if infra.recompute == "full" or not compiled:
        recompute(layers, infra.recompute)
