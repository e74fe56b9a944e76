"""A mixture of experts: a router sends each token to a few small feed-forward networks out of many."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from smelt.recipe.parts.part import Counts, Part, Surroundings
from smelt.recipe.sections.base import Section
from smelt.recipe.units import Count


class BalanceLoss(Section):
    """`weight` * sum(f_i * P_i) joins the loss: f_i the share of choices that fall on expert i, P_i its mean routing
    probability. It is `weight` / experts in perfect balance and `weight` when one expert takes all (that of Fedus et
    al. 2021 without their factor, the number of experts). f counts the global batch up to and with the micro-batch at
    hand; with `local`, the micro-batch alone."""

    kind: Literal["loss"]
    weight: float = Field(default=0.01, gt=0)
    scope: Literal["global", "local"] = "global"


class BalanceBias(Section):
    """Loss-free balancing (Wang et al. 2024): after each step the bias of an expert with more than the mean load falls
    by `rate`, that of one with less rises. It joins the scores in the choice of experts, never in their weights."""

    kind: Literal["bias"]
    rate: float = Field(default=0.001, gt=0)


Balance = Annotated[BalanceLoss | BalanceBias, Field(discriminator="kind")]


class MixtureOfExperts(Part):
    """`top_k` of `experts` networks of `width` channels for a token, beside a shared one of `shared_width` for all.

    score         routing probabilities: softmax over the experts, or a sigmoid each
    normalize     the chosen experts' weights are divided by their sum; a single one's is then 1 whatever its score, and
                  the router learns from balancing alone
    scale         and multiplied by this
    groups        experts in equal groups, of which the `groups_kept` with the best sum of two scores take part
    activation    of the experts and the shared network: swiglu, relu2 (no gate), or clamped_swiglu as in gpt-oss:
                  gate at most 7, up within 7 of 0, then (up + 1) * gate * sigmoid(1.702 * gate)
    bias          on the experts' projections and the router
    shared_gate   the shared network's output multiplied by sigmoid of a projection of the input
    balance       how the experts are kept evenly busy
    z_loss        weight of the mean squared logsumexp of the router's logits (Zoph et al. 2022)
    """

    kind: Literal["moe"]
    experts: Count
    top_k: Count
    width: Count
    shared_width: Count | None = None
    shared_gate: bool = False
    score: Literal["softmax", "sigmoid"] = "softmax"
    normalize: bool = True
    scale: float = Field(default=1.0, gt=0)
    groups: Count = 1
    groups_kept: Count = 1
    activation: Literal["swiglu", "relu2", "clamped_swiglu"] = "swiglu"
    bias: bool = False
    balance: Balance | None = None
    z_loss: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> "MixtureOfExperts":
        if self.top_k > self.experts:
            raise ValueError(f"top_k ({self.top_k}) must not exceed experts ({self.experts})")
        if self.experts % self.groups:
            raise ValueError(f"experts ({self.experts}) must be divisible by groups ({self.groups})")
        if self.groups_kept > self.groups:
            raise ValueError(f"groups_kept ({self.groups_kept}) must not exceed groups ({self.groups})")
        if self.top_k > self.experts // self.groups * self.groups_kept:
            raise ValueError(
                f"top_k ({self.top_k}) must not exceed the experts of {self.groups_kept} groups kept "
                f"({self.experts // self.groups * self.groups_kept})"
            )
        if self.shared_gate and not self.shared_width:
            raise ValueError("shared_gate needs a shared network; give shared_width, or drop shared_gate")
        return self

    @property
    def matrices(self) -> int:
        """Matrices an expert has."""
        return 2 if self.activation == "relu2" else 3

    def count(self, around: Surroundings) -> Counts:
        hidden = around.hidden
        expert = self.matrices * hidden * self.width
        expert += self.bias * ((self.matrices - 1) * self.width + hidden)
        router = self.experts * hidden + self.experts * self.bias
        router += self.experts * (self.balance is not None and self.balance.kind == "bias")
        shared = self.matrices * hidden * (self.shared_width or 0) + hidden * self.shared_gate
        return Counts(router + shared + self.experts * expert, router + shared + self.top_k * expert)

    def flops(self, around: Surroundings, sequence: int) -> int:
        channels = self.top_k * self.width + (self.shared_width or 0)
        return 2 * around.hidden * (self.matrices * channels + self.experts + self.shared_gate)
