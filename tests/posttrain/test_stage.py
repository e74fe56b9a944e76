"""A stage turns a model folder into one that answers and stops, on the assistant's tokens alone."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("trl", reason="the extra 'post' is not installed")

from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from smelt.errors import InputError
from smelt.files import check_directory
from smelt.model.load import load_model
from smelt.posttrain.answer import answer
from smelt.posttrain.check import check_loss, own_loss
from smelt.posttrain.examples import encode
from smelt.posttrain.instructions import instructions
from smelt.posttrain.sft import fine_tune, settings
from smelt.posttrain.stage import run_stage
from smelt.posttrain.template import TEMPLATE
from smelt.recipe.sections.posttrain import SupervisedFineTuning
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer

CPU = torch.device("cpu")


def stage(data: dict[str, Any], **changes: Any) -> SupervisedFineTuning:
    fields: dict[str, Any] = {"kind": "sft", "data": data, "lr": 1e-2, "batch_examples": 8, "max_length": 96}
    return SupervisedFineTuning.model_validate({**fields, **changes})


def theirs(base: Path) -> Any:
    loaded = AutoTokenizer.from_pretrained(base)
    loaded.chat_template = TEMPLATE
    return loaded


@pytest.fixture
def colours(tmp_path: Path) -> dict[str, Any]:
    """Four conversations to learn by heart."""
    path = tmp_path / "chat.jsonl"
    pairs = [("Colour of snow?", "White."), ("Colour of coal?", "Black."), ("Add 3 and 4.", "3 + 4 = 7."), ("Hi", "Hi")]
    rows = [[{"role": "user", "content": a}, {"role": "assistant", "content": b}] for a, b in pairs]
    path.write_text("".join(json.dumps({"messages": row}) + "\n" for row in rows))
    return {"kind": "jsonl", "path": str(path)}


@pytest.mark.parametrize("packing", [False, True])
def test_a_stage_leaves_a_model_that_answers_and_stops(
    base: Path, colours: dict[str, Any], tmp_path: Path, packing: bool
) -> None:
    out, seen = tmp_path / "out", []
    report = run_stage(
        stage(colours, epochs=60.0, batch_examples=4, packing=packing), base, out, seed=0, progress=seen.append
    )
    check_directory(out)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert rows == seen
    assert [row["step"] for row in rows] == list(range(1, report["steps"] + 1))
    assert {"loss", "lr", "grad_norm", "tokens", "steps", "seconds"} <= set(rows[0])
    assert json.loads((out / "report.json").read_text()) == report
    assert (report["examples"], report["dropped"], report["turns"]) == (4, 0, 8)
    assert report["last_loss"] < 0.2 < report["first_loss"]

    asked = [[{"role": "user", "content": text}] for text in ("Colour of coal?", "Add 3 and 4.")]
    tokenizer = load_tokenizer(out)
    assert answer(load_model(out), tokenizer, asked, max_tokens=40) == ["Black.", "3 + 4 = 7."]

    hugging, words = AutoModelForCausalLM.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    assert hugging.generation_config.eos_token_id == [tokenizer.eot, tokenizer.eos]
    prompt = words.apply_chat_template(asked[0], add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = hugging.generate(**prompt, max_new_tokens=40, do_sample=False)[0, prompt["input_ids"].shape[1] :]
    assert words.decode(made) == "Black.<|im_end|>"


def test_the_same_seed_gives_the_same_losses(base: Path, tmp_path: Path) -> None:
    chosen = stage({"kind": "instructions", "examples": 48}, batch_examples=16)
    reports = [run_stage(chosen, base, tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))]
    losses = [(report["first_loss"], report["last_loss"]) for report in reports]
    assert losses[0] == losses[1] != losses[2]


def test_the_first_loss_is_that_of_the_assistants_tokens_alone(base: Path, tmp_path: Path) -> None:
    """POST-04: the trainer's first loss against plain transformers with a mask made here."""
    data = {"kind": "instructions", "examples": 8}
    report = run_stage(stage(data), base, tmp_path / "out", seed=3)
    tokenizer, model = theirs(base), AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    total, count = 0.0, 0
    for row in instructions(3, 8):
        found = tokenizer.apply_chat_template(row["messages"], return_dict=True, return_assistant_tokens_mask=True)
        ids, mask = found["input_ids"][:96], found["assistant_masks"][:96]
        with torch.no_grad():
            logs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total -= sum(float(logs[place - 1, ids[place]]) for place in range(1, len(ids)) if mask[place])
        count += sum(mask)
    assert report["first_loss"] == pytest.approx(total / count, rel=1e-4)
    assert report["assistant_tokens"] == count


def test_conversations_cut_to_nothing_of_the_assistant_are_dropped_and_counted(
    base: Path, tokenizer: Tokenizer
) -> None:
    """What a trainer drops in silence is counted; when nothing is left, it says so."""
    rows = instructions(0, 40)
    whole, statistics = encode(rows, theirs(base), 1000)
    assert len(whole) == statistics["examples"] == 40
    assert statistics["truncated"] == statistics["dropped"] == 0
    starts = sorted(example.mask.index(1) for example in whole)
    cut = starts[len(starts) // 2]
    kept, statistics = encode(rows, theirs(base), cut)
    assert statistics["dropped"] == sum(start >= cut for start in starts) > 0
    assert statistics["examples"] + statistics["dropped"] == 40
    assert statistics["tokens"] == sum(min(len(example.ids), cut) for example in kept)
    with pytest.raises(InputError, match=r"max_length \(3\) cuts off every answer of the 40 conversations"):
        encode(rows, theirs(base), 3)


def test_a_model_whose_own_forward_the_trainer_skips_is_refused(base: Path) -> None:
    """A logit scale of the model's own would be lost in silence."""

    class Scaled(LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = out.logits * 30
            return out

    model = Scaled.from_pretrained(base, dtype=torch.float32)
    examples, _ = encode(instructions(0, 16), theirs(base), 96)
    chosen = stage({"kind": "instructions"})
    with pytest.raises(InputError, match="the trainer's loss on the first batch"):
        fine_tune(model, theirs(base), examples, chosen, seed=0, device=CPU, record=lambda row: None)


def test_the_own_loss_is_the_same_padded_and_packed(base: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    first, second = torch.tensor([5, 6, 7, 8]), torch.tensor([9, 10, 11])
    labels = [torch.tensor([-100, -100, 7, 8]), torch.tensor([-100, 10, 11])]
    padded = {
        "input_ids": torch.nn.utils.rnn.pad_sequence([first, second], batch_first=True),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
    }
    packed = {
        "input_ids": torch.cat([first, second])[None],
        "labels": torch.cat(labels)[None],
        "position_ids": torch.tensor([[0, 1, 2, 3, 0, 1, 2]]),
    }
    with torch.no_grad():
        assert own_loss(model, padded) == pytest.approx(own_loss(model, packed), rel=1e-6)


@pytest.mark.parametrize("loss", [2.1, float("nan")])
def test_a_loss_that_differs_is_refused(loss: float) -> None:
    check_loss(2.0, 2.0, torch.float32)
    with pytest.raises(InputError, match="trainer does not support"):
        check_loss(loss, 2.0, torch.float32)


def test_a_step_learns_from_as_many_conversations_as_asked(base: Path, tmp_path: Path) -> None:
    """Large batches run in micro-batches; packs hold about as many conversations as the batch names."""
    examples, _ = encode(instructions(0, 64), theirs(base), 512)
    large = settings(stage({"kind": "instructions"}, batch_examples=512), examples, tmp_path, seed=0, device=CPU)
    assert large.per_device_train_batch_size * large.gradient_accumulation_steps == 512
    assert large.gradient_accumulation_steps > 1
    packed = settings(
        stage({"kind": "instructions"}, batch_examples=64, max_length=512, packing=True),
        examples,
        tmp_path,
        seed=0,
        device=CPU,
    )
    mean = sum(len(example.ids) for example in examples) / 64
    packs = packed.per_device_train_batch_size * packed.gradient_accumulation_steps
    assert packs == round(64 * mean / 512)


def test_a_missing_installation_is_named(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "smelt.posttrain.sft")
    with pytest.raises(InputError, match=r"needs trl, which is not installed; run: pip install 'smelt\[post\]'"):
        run_stage(stage({"kind": "instructions"}), base, tmp_path / "out", seed=0)


def test_a_stage_that_fails_leaves_nothing_behind(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError):
        run_stage(stage({"kind": "instructions", "examples": 8}, max_length=3), base, tmp_path / "out", seed=0)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_a_model_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "empty")
    with pytest.raises(InputError, match="not a model that transformers loads"):
        run_stage(stage({"kind": "instructions", "examples": 8}), tmp_path / "empty", tmp_path / "out", seed=0)
