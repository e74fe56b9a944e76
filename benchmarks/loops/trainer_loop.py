"""`transformers.Trainer` on a folder of token shards. Arguments: shards, settings as JSON (`model` is its config)."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pace import Pace
from torch.utils.data import IterableDataset
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments


class Rows(IterableDataset[dict[str, Any]]):
    """Rows of the stream, one after the other; waits for its turn where a batch begins."""

    def __init__(self, shards: Path, sequence: int, batch: int) -> None:
        self._tokens = np.memmap(next(shards.glob("*.ds")), dtype="<u2", mode="r")
        self._sequence, self._batch, self._pace = sequence, batch, Pace()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        rows, row = len(self._tokens) // self._sequence, 0
        while True:
            if row % self._batch == 0:
                self._pace.step()
            first = row % rows * self._sequence
            ids = torch.from_numpy(self._tokens[first : first + self._sequence].astype(np.int64))
            yield {"input_ids": ids, "labels": ids}
            row += 1


if __name__ == "__main__":
    shards, settings = Path(sys.argv[1]), json.loads(sys.argv[2])
    torch.manual_seed(0)
    weights = torch.bfloat16 if settings["weights"] == "bf16" else torch.float32
    config = AutoConfig.for_model("llama", **settings["model"])
    model = AutoModelForCausalLM.from_config(config, dtype=weights, attn_implementation=settings["attention"])
    arguments = TrainingArguments(
        settings["scratch"],
        max_steps=10**6,
        use_cpu=True,
        bf16=settings["amp"],
        per_device_train_batch_size=settings["rows"],
        learning_rate=3e-4,
        optim="adamw_torch_fused",
        torch_compile=settings["compile"],
        logging_steps=10,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
    )
    Trainer(model, arguments, train_dataset=Rows(shards, settings["sequence"], settings["rows"])).train()
