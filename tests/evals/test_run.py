"""`evaluate` turns a model and task names into scores that carry what they must be read with."""

import json
import math
from pathlib import Path

import pytest
import torch

from smelt.errors import InputError
from smelt.evals.run import answers, evaluate, summary
from smelt.evals.task import ask
from smelt.evals.tasks import TASKS
from smelt.model.decoder import Decoder
from smelt.model.weights import save_weights
from smelt.tokenizer.tokenizer import Tokenizer


def test_every_task_gives_a_whole_row_in_both_formats(decoder: Decoder, tokenizer: Tokenizer) -> None:
    def render(message: str) -> str:
        return f"<|im_start|>user\n{message}<|im_end|>\n<|im_start|>assistant\n"

    for given, name in ((None, "base"), (render, "chat")):
        result = evaluate(decoder, tokenizer, list(TASKS), items=6, seed=0, samples=2, render=given)
        json.dumps(result)
        assert set(result["tasks"]) == set(result["samples"]) == set(TASKS)
        for task, row in result["tasks"].items():
            assert row["n"] == 6
            assert row["format"] == name
            assert row["stderr"] == pytest.approx(math.sqrt(row["score"] * (1 - row["score"]) / 6))
            assert row["formulation"] == TASKS[task].formulation
            assert len(result["samples"][task]) == 2
            assert set(result["samples"][task][0]) == {"prompt", "output", "expected", "correct"}
            assert result["samples"][task][0]["prompt"].startswith("<|im_start|>") == (given is not None)


def test_the_same_call_gives_the_same_result(decoder: Decoder, tokenizer: Tokenizer) -> None:
    first, again = (evaluate(decoder, tokenizer, ["addition", "sum-choice"], items=8, seed=5) for _ in range(2))
    assert first["tasks"] == again["tasks"]
    assert first["samples"] == again["samples"]


def test_a_model_is_loaded_from_its_checkpoint_folder(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save_weights(decoder, tmp_path)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = evaluate(tmp_path, tasks=["sum-choice"], items=8)
    assert loaded["tasks"] == evaluate(decoder, tokenizer, ["sum-choice"], items=8)["tasks"]


def test_a_model_without_its_tokenizer_is_refused(decoder: Decoder) -> None:
    with pytest.raises(InputError, match="needs its tokenizer"):
        evaluate(decoder, tasks=["addition"])


def test_an_unknown_task_is_refused_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown task 'nothing'"):
        evaluate(tmp_path, tasks=["nothing"])


def test_no_tasks_give_an_empty_result(decoder: Decoder, tokenizer: Tokenizer) -> None:
    assert evaluate(decoder, tokenizer)["tasks"] == {}


def test_a_score_has_its_binomial_standard_error() -> None:
    row = summary(TASKS["addition"], [{"correct": correct} for correct in [True] * 3 + [False]])
    assert row["score"] == 0.75
    assert row["stderr"] == pytest.approx(math.sqrt(0.75 * 0.25 / 4))
    assert (row["metric"], row["n"], row["chance"]) == ("exact_match", 4, 0.0)


def test_only_the_first_answer_of_a_model_that_goes_on_counts(decoder: Decoder, tokenizer: Tokenizer) -> None:
    """A base model goes on with the next question, as its corpus does."""
    item = ask("What is 3 + 4?", "7")
    text = f"{item.prompt} 3 + 4 = 7.\n\n{item.prompt} 9."
    tokens = torch.tensor([tokenizer.encode(text)])
    optimizer = torch.optim.Adam(decoder.parameters(), 1e-2)
    for _ in range(60):
        decoder(tokens[:, :-1], targets=tokens[:, 1:]).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    (row,) = answers(decoder, tokenizer, TASKS["addition"], [item])
    assert row["output"] == "3 + 4 = 7."
    assert row["correct"]
