"""A loss that is no number: where it happened, on which documents, and what to go on from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smelt.dataset.shards import Shards
from smelt.dataset.trace import trace
from smelt.errors import InputError
from smelt.train.checkpoints import checkpoints
from smelt.train.health import LossLost
from smelt.train.loop import Training
from smelt.train.records import event

NAMED = 3  # documents in the message; all of them are in the event


def explained(lost: LossLost, training: Training, sources: Mapping[str, Shards]) -> InputError:
    """The end of the run in one line, and in full in its events."""
    documents = _documents(lost, training, sources)
    training.saver.wait()
    last = next(reversed(checkpoints(training.run)), None)
    if training.engine.world.is_first:
        facts = {"rank": lost.rank, "checkpoint": None if last is None else last.name, "documents": documents}
        event(training.run, "loss_lost", step=lost.step, **facts)
    names = [f"{Path(each['shard']).name} document {each['document']}" for each in documents]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    where = "" if lost.rank is None else f" on rank {lost.rank}"
    go_on = f"the newest good checkpoint is {last}" if last else "no checkpoint had been saved"
    return InputError(
        f"train: the loss of step {lost.step} is not a number{where}, in {', '.join(names[:NAMED])}{more}; {go_on}: "
        "lower train.optimizer.lr, set train.skip_step, or pass over the batch with the amendment "
        f"{{from_step: {lost.step - 1}, skip: 1}}"
    )


def _documents(lost: LossLost, training: Training, sources: Mapping[str, Shards]) -> list[dict[str, Any]]:
    """Of the rows that the rank read in that step, or of all rows."""
    rows = trace(training.recipe, sources, training.tokenizer, lost.step - 1)
    if lost.data_rank is not None:
        rank, ranks = lost.data_rank, training.engine.world.data_ranks
        windows = training.plan.at(lost.step - 1).windows
        mine = range(windows * rank // ranks, windows * (rank + 1) // ranks)
        rows = [row for row in rows if row["window"] in mine]
    kept = ("source", "shard", "document", "window")
    return list({(row["shard"], row["document"]): {key: row[key] for key in kept} for row in rows}.values())
