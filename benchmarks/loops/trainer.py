"""`transformers.Trainer` on rows of tokens: `trainer.py ROWS CONFIG SETTINGS`, all but the first in JSON."""

import json
import sys
import tempfile
from typing import Any

import numpy as np
import torch
from gate import Gate
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainerCallback, TrainingArguments


class Rows(torch.utils.data.Dataset[dict[str, Any]]):
    def __init__(self, path: str, count: int) -> None:
        self.rows, self.count = np.load(path, mmap_mode="r"), count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        row = torch.from_numpy(self.rows[index % len(self.rows)][:-1].astype(np.int64))
        return {"input_ids": row, "labels": row}


class Gated(TrainerCallback):
    def __init__(self) -> None:
        self.gate = Gate()

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        self.gate.open()

    def on_step_end(self, *arguments: Any, **named: Any) -> None:
        self.gate.step()


def main(rows: str, config: str, settings: str) -> None:
    chosen = json.loads(settings)
    torch.manual_seed(0)
    model = LlamaForCausalLM._from_config(LlamaConfig(**json.loads(config)), attn_implementation="sdpa")
    if chosen.pop("bf16_weights", False):
        model = model.to(torch.bfloat16)
    arguments = TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        use_cpu=not torch.cuda.is_available(),
        learning_rate=5e-4,
        adam_beta2=0.95,
        weight_decay=0.1,
        max_grad_norm=1.0,
        optim="adamw_torch_fused",
        lr_scheduler_type="constant",
        logging_steps=10,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **chosen,
    )
    Trainer(model, arguments, train_dataset=Rows(rows, 1 << 20), callbacks=[Gated()]).train()


main(*sys.argv[1:])
