"""litgpt's own pretraining, in its own environment: `litgpt_loop.py ROWS CONFIG`, the latter in JSON."""

import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gate import Gate
from litgpt import Config
from litgpt.args import EvalArgs, TrainArgs
from litgpt.data import DataModule
from litgpt.pretrain import setup

ROWS = 8


class Batches(torch.utils.data.IterableDataset[Any]):
    """Rows of tokens; in training, asking for a batch means that the step before is done."""

    def __init__(self, path: str, gate: Gate | None) -> None:
        self.rows, self.gate = np.load(path), gate

    def __iter__(self) -> Iterator[Any]:
        for index in range(1 << 20):
            if self.gate is not None:
                self.gate.step() if index else self.gate.open()
            picked = np.arange(ROWS * index, ROWS * (index + 1)) % len(self.rows)
            yield torch.from_numpy(self.rows[picked].astype(np.int64))


class Data(DataModule):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path, self.gate = path, Gate()

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        pass

    def train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(Batches(self.path, self.gate), batch_size=None)

    def val_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(Batches(self.path, None), batch_size=None)


def main(rows: str, config: str) -> None:
    setup(
        model_name="benchmark",
        model_config=Config(**json.loads(config)),
        out_dir=Path(tempfile.mkdtemp()),
        precision="bf16-mixed",
        data=Data(rows),
        train=TrainArgs(
            save_interval=None,
            log_interval=10,
            global_batch_size=ROWS,
            micro_batch_size=ROWS,
            max_tokens=int(1e12),
            max_norm=1.0,
            tie_embeddings=True,
        ),
        eval=EvalArgs(interval=10**9, max_iters=1, initial_validation=False, final_validation=False),
        optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": 5e-4, "weight_decay": 0.1}},
        devices=1,
        logger_name="csv",
    )


main(*sys.argv[1:])
