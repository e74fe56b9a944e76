"""Log-probabilities of continuations are those of the model, whatever the batch, and are compared by characters."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smelt.evals.likelihood import encode_pair, length_batches, log_probabilities
from smelt.evals.run import answers, best_choice
from smelt.evals.task import ask
from smelt.evals.tasks import TASKS
from smelt.model.decoder import Decoder
from smelt.model.evaluating import evaluating
from smelt.model.families import export_model
from smelt.tokenizer.tokenizer import Tokenizer

Scored = Callable[[list[int], int], float]


def test_a_batch_scores_each_pair_as_if_alone(
    decoder: Decoder, tokenizer: Tokenizer, texts: list[str], plain_log_probability: Scored
) -> None:
    pairs = [encode_pair(tokenizer, text[: len(text) // 2], text[len(text) // 2 :]) for text in texts[:20]]
    for (context, continuation), value in zip(pairs, log_probabilities(decoder, tokenizer.pad, pairs), strict=True):
        assert value == pytest.approx(plain_log_probability(context + continuation, len(context)), rel=1e-4)


def test_context_and_continuation_are_encoded_as_one_text(tokenizer: Tokenizer) -> None:
    context, continuation = encode_pair(tokenizer, "Question: What is 3?\nAnswer: ", "47")
    assert context == tokenizer.encode("Question: What is 3?\nAnswer:")
    assert context + continuation == tokenizer.encode("Question: What is 3?\nAnswer: 47")


def test_without_a_context_the_end_of_text_comes_first(tokenizer: Tokenizer) -> None:
    assert encode_pair(tokenizer, "", "47") == ([tokenizer.eos], tokenizer.encode("47"))


def test_batches_hold_every_row_once_within_their_room() -> None:
    lengths = [5, 100, 7, 30, 30, 1]
    batches = list(length_batches(lengths, tokens=100))
    assert sorted(index for batch in batches for index in batch) == list(range(6))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 100 for batch in batches)


def test_a_longer_right_answer_wins_where_raw_and_token_normalised_scores_err() -> None:
    """EVAL-01: sums are divided by characters."""
    right, wrong = "photosynthesis in plants", "no"
    sums, tokens = (-12.0, -4.0), (4, 2)
    assert max(zip(sums, (right, wrong), strict=True))[1] == wrong
    assert max(zip((s / n for s, n in zip(sums, tokens, strict=True)), (right, wrong), strict=True))[1] == wrong
    assert best_choice((right, wrong), sums) == right
    assert best_choice((wrong, right), sums[::-1]) == right


def test_a_real_model_chooses_by_characters(uniform_decoder: Decoder, tokenizer: Tokenizer) -> None:
    """EVAL-01: every token costs this model the same, so the fewest tokens would win raw, and none by tokens."""
    right, wrong = "Question Answer", "zq"
    assert len(tokenizer.encode(f" {right}")) > len(tokenizer.encode("zq"))
    item = ask("Which?", right, (wrong, right))
    rows = answers(uniform_decoder, tokenizer, TASKS["sum-choice"], [item])
    assert rows[0]["output"] == right
    assert rows[0]["correct"]


def test_equal_scores_do_not_favour_the_first_choice() -> None:
    winners = [best_choice(pair, (-1.0, -1.0)) == pair[0] for pair in ((f"a{n}", f"b{n}") for n in range(60))]
    assert 10 < sum(winners) < 50


def test_a_uniform_model_scores_near_chance(uniform_decoder: Decoder, tokenizer: Tokenizer) -> None:
    task = TASKS["words-choice"]
    rows = answers(uniform_decoder, tokenizer, task, task.items(200, 0))
    score = sum(row["correct"] for row in rows) / 200
    assert abs(score - task.chance) < 4 * math.sqrt(0.25 * 0.75 / 200)


def test_the_mode_of_the_model_comes_back(decoder: Decoder, tokenizer: Tokenizer) -> None:
    decoder.train()
    with pytest.raises(ZeroDivisionError), evaluating(decoder):
        assert not decoder.training
        assert not torch.is_grad_enabled()
        _ = 1 / 0
    assert decoder.training
    decoder.eval()
    log_probabilities(decoder, tokenizer.pad, [([1], [2])])
    assert not decoder.training


def test_scores_equal_those_of_lm_eval(decoder: Decoder, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The same requests through lm-eval's own Hugging Face backend give the same numbers."""
    pytest.importorskip("lm_eval", reason="lm-eval is not installed")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    export_model(decoder, tmp_path / "hf", tokenizer=tokenizer, context=2048)
    items = [*TASKS["sum-choice"].items(4, 0), *TASKS["code-choice"].items(3, 0)]
    asked = [(item.prompt, item.joint + choice) for item in items for choice in item.choices]
    theirs = HFLM(pretrained=str(tmp_path / "hf"), device="cpu", dtype="float32", batch_size=8).loglikelihood(
        [Instance("loglikelihood", {}, each, index) for index, each in enumerate(asked)], disable_tqdm=True
    )
    pairs = [encode_pair(tokenizer, *each) for each in asked]
    ours = log_probabilities(decoder, tokenizer.pad, pairs)
    assert ours == pytest.approx([value for value, _ in theirs], rel=1e-4)
