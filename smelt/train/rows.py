"""`metrics.jsonl`: the row of a logged step, exact means over the valid tokens of all ranks, and where time went."""

import time
from typing import TYPE_CHECKING, Any

from smelt.model.balance import metrics
from smelt.optim.schedules import learning_rate
from smelt.recipe.account import flops_per_token
from smelt.recipe.plan import Segment
from smelt.train.memory import peak_memory
from smelt.train.peak import peak_flops
from smelt.train.step import StepResult
from smelt.train.timing import Timings

if TYPE_CHECKING:
    from smelt.train.loop import Training

PHASES = ("data", "forward_backward", "optimizer", "checkpoint")


class Rows:
    """Makes the rows. A row's numbers are those of its step, `tokens` and `tokens_<source>` all trained on by then; its
    seconds are means over the steps since the last row.

    `mfu` is the share of the hardware's peak (`peak_flops`) that the model's FLOPs took, causal attention counted at
    half, whatever was computed again.
    """

    def __init__(self, training: "Training", timings: Timings) -> None:
        self._training, self._timings = training, timings
        self._began = self._since = time.perf_counter()
        self._aside = 0.0
        self._steps = self._tokens = 0
        self._flops: dict[int, int] = {}  # a token, by the first step of the segment

    def restart(self) -> None:
        """Begin the next row's time now."""
        self._since, self._aside, self._steps, self._tokens = time.perf_counter(), 0.0, 0, 0

    def step(self, segment: Segment) -> None:
        """Counts a step."""
        self._steps += 1
        self._tokens += segment.batch_tokens

    def aside(self, seconds: float) -> None:
        """Time that passed since the last row and is no part of a step."""
        self._aside += seconds

    def row(self, segment: Segment, result: StepResult) -> dict[str, Any]:
        """The row of the step just taken; every rank takes part. Waits for the device."""
        training, at = self._training, self._training.at
        result = result.gathered(training.engine.world, training.followed)
        sums, counts = result.loss_sums.tolist(), result.token_counts.tolist()
        numbers = {
            "loss": sum(sums) / max(1.0, sum(counts)),
            **{f"loss_{name}": sums[i] / counts[i] for i, name in enumerate(training.recipe.sources) if counts[i]},
            "grad_norm": result.grad_norm.item(),
            "lr": learning_rate(training.plan, at.step - 1),
            **{name: mean.item() for name, mean in result.means.items()},
            **metrics(training.engine.of_all_layers(result.experts)),
        }
        if training.skip is not None:
            numbers["skipped_steps"] = int(training.skip.skipped.item())
        seconds = self._seconds(segment)
        place = {"step": at.step, "tokens": at.tokens, "stage": segment.name}
        consumed = training.batches.order.consumed(at.step)
        numbers |= {f"tokens_{name}": each["tokens"] for name, each in consumed.items() if each["tokens"]}
        return {**place, **numbers, **seconds, "life": at.life, "seconds": time.perf_counter() - self._began}

    def _seconds(self, segment: Segment) -> dict[str, float]:
        world, phases, now = self._training.engine.world, self._timings.read(), time.perf_counter()
        spent = max(now - self._since - self._aside, 1e-9)
        rate = self._tokens / spent
        peak = peak_flops(world.device, self._training.dtype) * world.ranks
        row = {
            "tokens_per_second": rate,
            "mfu": rate * self._flops_per_token(segment) / peak,
            "step_seconds": spent / self._steps,
            **{f"{name}_seconds": phases.get(name, 0.0) / self._steps for name in PHASES},
            "memory_gib": peak_memory(world.device) / 2**30,
        }
        self.restart()
        return row

    def _flops_per_token(self, segment: Segment) -> int:
        if segment.first not in self._flops:
            model = self._training.engine.config
            self._flops[segment.first] = flops_per_token(model, self._training.vocab, segment.sequence)
        return self._flops[segment.first]
