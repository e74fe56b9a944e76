"""Pipelining in numbers: which layers a stage holds, which process a stage, how a batch is cut into micro-batches.

A pipeline of R processes with S stages each has R * S stages; the schedule says how they are dealt out.
"""

from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from smelt.errors import InputError
from smelt.recipe.account import layer_flops
from smelt.recipe.sections.infra import Infra, Layout
from smelt.recipe.sections.model import Model

SEQUENCE = 4096  # tokens of a row, where the FLOPs of layers are weighed against those of the head
EVENNESS = 8  # a high power is ruled by the heaviest stage, and still evens out the others


class Kind(NamedTuple):
    """What a schedule asks for: stages a process, `least` to `most`; `micro_batches` for each process, in rounds of
    equal size where `rounds`. `folded`: the first process holds the last stage too. `splits`: the backward pass of a
    stage runs twice, for what it has read and later for its weights."""

    least: int
    most: int | None
    micro_batches: int = 1
    rounds: bool = False
    folded: bool = False
    splits: bool = False


KINDS: dict[str, Kind] = {
    "gpipe": Kind(1, 1),
    "1f1b": Kind(1, 1),
    "interleaved": Kind(2, None, rounds=True),
    "looped_bfs": Kind(2, None),
    "zero_bubble": Kind(1, None, rounds=True, splits=True),
    "zbv": Kind(2, 2, folded=True, splits=True),
    "dualpipev": Kind(2, 2, micro_batches=2, folded=True, splits=True),
}


def check_pipeline(model: Model, layout: Layout, infra: Infra) -> None:
    """InputError unless the processes of a pipeline can share the layers under its schedule."""
    kind = KINDS[layout.schedule]
    if layout.pipeline == 1:
        if layout.stages > 1:
            raise InputError(f"infra.layout.stages: {layout.stages}, but pipeline is 1; raise it, or drop stages")
        return
    if layout.stages < kind.least or (kind.most is not None and layout.stages > kind.most):
        wanted = f"{kind.least}" if kind.most == kind.least else f"{kind.least} or more"
        raise InputError(
            f"infra.layout.stages: schedule '{layout.schedule}' needs {wanted} on each process, not {layout.stages}"
        )
    if layout.pipeline * layout.stages > model.layers:
        raise InputError(
            f"infra.layout.pipeline: {layout.pipeline} x {layout.stages} stages need at least as many layers, and the "
            f"model has {model.layers}; use fewer stages"
        )
    if splits_backward(layout):
        _check_split(model, layout, infra)


def splits_backward(layout: Layout) -> bool:
    """Whether backward passes run in two parts, which compiled layers cannot."""
    return layout.pipeline > 1 and KINDS[layout.schedule].splits


def _check_split(model: Model, layout: Layout, infra: Infra) -> None:
    """Refuses what a backward pass in two parts fails on or, with weights gathered twice, gets wrong in silence."""
    further = model.multi_token
    mends = {
        "infra.layout.zero: 3": ("2", layout.zero == 3),
        "infra.recompute: selective": ("'none' or 'full'", infra.recompute == "selective"),
        "infra.compile: true": ("false", infra.compile is True),
        "model.multi_token": (
            "depth 1 without tie_embeddings",
            further and (further.depth > 1 or model.tie_embeddings),
        ),
    }
    for field, (mend, given) in mends.items():
        if given:
            raise InputError(
                f"{field} does not go with infra.layout.schedule '{layout.schedule}', which runs the backward pass in "
                f"two parts; set it to {mend}, or use schedule '1f1b' or 'interleaved'"
            )


def stages_of(schedule: str, ranks: int, stages: int, rank: int) -> list[int]:
    """The stages, in order, that process `rank` of a pipeline holds."""
    rounds = (range(ranks * each, ranks * (each + 1)) for each in range(stages))
    if KINDS[schedule].folded:
        return [stage[::-1][rank] if each % 2 else stage[rank] for each, stage in enumerate(rounds)]
    return [stage[rank] for stage in rounds]


def micro_batches(rows: int, most: int, schedule: str, ranks: int) -> int:
    """Into how many equal micro-batches of at most `most` rows the `rows` of one process are cut, as few as can be.

    InputError when there are too few rows to keep every process of the pipeline busy.
    """
    kind = KINDS[schedule]
    least = kind.micro_batches * ranks
    for count in range(max(least, -(-rows // most)), rows + 1):
        if rows % count == 0 and not (kind.rounds and count % (count // ranks)):
            return count
    raise InputError(
        f"infra.layout.pipeline: {ranks} processes under schedule '{schedule}' need at least {least} equal "
        f"micro-batches a step, which the {rows} rows of each cannot give with infra.micro_batch {most}; raise "
        "train.batch_tokens or infra.micro_batch, or lower infra.layout.pipeline or infra.layout.data"
    )


def stage_layers(model: Model, vocab: int, stages: int) -> list[range]:
    """The layers of each stage: consecutive, at least one, so cut that the slowest stage is as fast as can be."""
    costs = [layer_flops(model, index, SEQUENCE) for index in range(model.layers)]
    head = 2 * vocab * model.hidden
    further = 0
    if model.multi_token is not None:
        further = model.multi_token.depth * (4 * model.hidden**2 + costs[-1] + head)
    return split(costs, stages, last=head + further)


def split(costs: Sequence[float], parts: int, last: float = 0) -> list[range]:
    """`costs` cut into consecutive `parts`, at least one in each, the heaviest part as light as can be.

    `last` joins the cost of the last part.
    """
    sums = [0, *accumulate(costs)]
    total = sums[-1] + last
    best: dict[int, tuple[float, list[range]]] = {0: (0.0, [])}  # by how many costs are dealt out
    for part in range(parts):
        extra = last if part == parts - 1 else 0
        ends = [len(costs)] if part == parts - 1 else range(part + 1, len(costs) - (parts - part) + 2)
        best = {
            end: min(
                (
                    (badness + ((sums[end] - sums[begin] + extra) / total) ** EVENNESS, [*cuts, range(begin, end)])
                    for begin, (badness, cuts) in best.items()
                    if begin < end
                ),
                key=lambda cut: cut[0],
            )
            for end in ends
        }
    return best[len(costs)][1]
