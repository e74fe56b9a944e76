"""Averages of weights along a run and over checkpoints."""

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from smelt.model.tensor_files import Spec
from smelt.optim.averaging import Followed, Mean, follow
from smelt.optim.optimizers import build_optimizer, load_optimizer_tensors, optimizer_tensors
from smelt.recipe.sections.optimizer import AdamW, Muon, Optimizer, OwnOptimizer


class Tensors:
    """A source in memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self._tensors = tensors
        self.specs = {name: Spec(tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}

    def read(self, name: str, entry: int | None = None) -> Tensor:
        return self._tensors[name] if entry is None else self._tensors[name][entry]


SECTIONS = (AdamW(), Muon(kind="muon"), OwnOptimizer(kind="torch.optim:Adam"))


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.kind)
def test_the_exponential_average_is_pytorchs_also_across_a_resume(section: Optimizer) -> None:
    torch.manual_seed(0)
    network = nn.ModuleDict({"embedding": nn.Embedding(5, 4), "layer": nn.Linear(4, 3), "norm": nn.RMSNorm(4)})
    optimizer = build_optimizer(network, section)
    theirs = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    for step in range(20):
        for parameter in network.parameters():
            parameter.grad = torch.randn(parameter.shape)
        optimizer.step()
        follow(optimizer, 0.9)
        theirs.update_parameters(network)
        if step == 10:
            saved = {name: tensor.clone() for name, tensor in optimizer_tensors(optimizer).items()}
            optimizer = build_optimizer(network, section)
            load_optimizer_tensors(optimizer, saved)
    saved = optimizer_tensors(optimizer)
    for name, average in theirs.module.named_parameters():
        assert torch.equal(saved[f"average.{name}"], average)


def test_averages_stand_in_for_the_weights_of_a_checkpoint() -> None:
    weights = {"a": torch.zeros(2, 3), "bias": torch.ones(2)}
    source = Followed(Tensors(weights), Tensors({"average.a": torch.full((2, 3), 0.5), "exp_avg.a": torch.ones(2, 3)}))
    assert set(source.specs) == {"a", "bias"}
    assert torch.equal(source.read("a"), torch.full((2, 3), 0.5))
    assert torch.equal(source.read("a", 1), torch.full((3,), 0.5))
    assert torch.equal(source.read("bias"), torch.ones(2))


def test_a_soup_is_the_mean_of_its_ingredients() -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = [torch.randn(4, 3, generator=generator) for _ in range(3)]
    soup = Mean([Tensors({"a": tensor}) for tensor in tensors])
    assert torch.equal(soup.read("a"), torch.stack(tensors).double().mean(0).float())
    assert torch.equal(soup.read("a", 2), soup.read("a")[2])
    assert soup.read("a").dtype == torch.float32
