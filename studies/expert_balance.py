"""A collapsed router, mended by each balancing method; run as a script, it draws docs/expert-balance.png.

A layer of eight experts learns what eight random networks, one for each kind of synthetic token, do. At the start every
token goes to the same two experts, and without balancing most of the others never see one.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from smelt.model.balance import after_step
from smelt.model.context import Context
from smelt.model.moe import MixtureOfExperts
from smelt.recipe.parts.moe import MixtureOfExperts as Config
from smelt.recipe.parts.norm import Norm
from smelt.recipe.parts.part import Surroundings
from smelt.report.style import GREY, INK, canvas, drawing, positive_axis

HIDDEN, WIDTH, KINDS, EXPERTS, TOP_K = 32, 32, 8, 8, 2
BATCH, SEQUENCE, LR, COLLAPSE = 8, 64, 3e-3, 4.0
METHODS: dict[str, dict[str, Any] | None] = {
    "no balancing": None,
    "balancing loss": {"kind": "loss", "weight": 0.1},
    "loss-free bias": {"kind": "bias", "rate": 0.01},
}
COLOURS = ("#d55e00", "#e69f00", "#c6dbef", "#9ecae1", "#6baed6", "#4292c6", "#2171b5", "#08519c")
EVEN: dict[str, Any] = {"color": INK, "linestyle": (0, (4, 3)), "linewidth": 1.2}


class Task:
    """Tokens of `KINDS` kinds around a common mean, and a random two-layer network a kind to learn."""

    def __init__(self, seed: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        self.mean = self._normal(HIDDEN)
        self.centres = self._normal(KINDS, HIDDEN)
        self.first = self._normal(KINDS, WIDTH, HIDDEN) / HIDDEN**0.5
        self.second = self._normal(KINDS, HIDDEN, WIDTH) / WIDTH**0.5

    def batch(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of kinds at random, `[batch, seq, hidden]` each."""
        return self.tokens(torch.randint(0, KINDS, (BATCH, SEQUENCE), generator=self.draws))

    def tokens(self, kind: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the kinds given, `[batch, seq]`."""
        x = self.mean + self.centres[kind] + 0.5 * self._normal(*kind.shape, HIDDEN)
        inner = torch.einsum("bswh,bsh->bsw", self.first[kind], x).relu()
        return x, torch.einsum("bshw,bsw->bsh", self.second[kind], inner)

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.draws)


def collapsed(balance: dict[str, Any] | None, task: Task) -> MixtureOfExperts:
    """A layer whose router sends every token to experts 0 and 1."""
    fields = {"kind": "moe", "experts": EXPERTS, "top_k": TOP_K, "width": WIDTH, "balance": balance}
    layer = MixtureOfExperts(Config.model_validate(fields), Surroundings(HIDDEN, None, Norm()))
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in layer.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=draws) * (name != "balance.bias") * 0.1)
        towards = task.mean / task.mean.square().sum()
        layer.router.weight[:2] += COLLAPSE * towards
    return layer


def train(balance: dict[str, Any] | None, steps: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Each step's loads, `[steps, experts]` with 1 for an even share, and errors, `[steps]`: mean squares over those
    of the targets."""
    task = Task(seed)
    layer = collapsed(balance, task).train()
    optimizer = torch.optim.AdamW([each for each in layer.parameters() if each.requires_grad], LR, weight_decay=0)
    loads, errors = [], []
    for _ in range(steps):
        x, target = task.batch()
        out, extra = layer(x, Context(torch.zeros(x.shape[:2], dtype=torch.int64), None))
        error = (out - target).square().mean() / target.square().mean()
        (error if extra is None else error + extra.mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        loads.append(after_step(layer)[0].load)
        errors.append(error.detach())
    return torch.stack(loads), torch.stack(errors)


def draw(runs: dict[str, tuple[Tensor, Tensor]], path: Path) -> None:
    """Shares of the choices, expert upon expert, over the error; a column a method."""
    with drawing():
        figure = canvas(10, 5.4)
        upper, lower = figure.subplots(2, len(runs), sharex=True, sharey="row", height_ratios=(3, 2))
        for (method, (loads, errors)), shares, error in zip(runs.items(), upper, lower, strict=True):
            shares.stackplot(range(len(loads)), smooth(loads).T / EXPERTS, colors=COLOURS, ec="white", lw=0.4)
            shares.axhline(TOP_K / EXPERTS, **EVEN)
            shares.set(title=method, xlim=(0, len(loads)), ylim=(0, 1), yticks=(0, 0.25, 0.5, 0.75, 1))
            for _, others in runs.values():
                error.plot(smooth(others), color=GREY, alpha=0.4)
            error.plot(smooth(errors), color=INK)
            last = float(smooth(errors)[-1])
            error.annotate(f"{last:.3f}", (len(loads), last), (0, 6), textcoords="offset points", ha="right")
            error.set_xlabel("step")
        positive_axis(error, torch.cat([smooth(errors) for _, errors in runs.values()]).numpy())
        upper[0].set_ylabel("share of all choices")
        lower[0].set_ylabel("error relative to targets")
        keys = {
            "the two experts that began with every choice": Patch(color=COLOURS[1]),
            "the six that began with none": Patch(color=COLOURS[5]),
            "where the two would end in perfect balance": Line2D([], [], **EVEN),
        }
        figure.legend(list(keys.values()), list(keys), loc="outside lower center", ncols=3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, facecolor="white")


def smooth(values: Tensor, over: int = 10) -> Tensor:
    """The mean of each step and those shortly before it."""
    total = values.cumsum(0)
    total[over:] -= total[:-over].clone()
    count = torch.arange(1, len(values) + 1).clamp(max=over)
    return total / count.view(-1, *[1] * (values.ndim - 1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("docs/expert-balance.png"))
    options = parser.parse_args()
    draw({method: train(balance, options.steps) for method, balance in METHODS.items()}, options.out)
