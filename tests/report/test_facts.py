"""What rows amount to: baseline, before and after, stages, mixture, cost, and a few lines for the terminal."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smelt.report import facts, units
from smelt.report.run import read_run
from smelt.report.summary import text


def test_each_source_is_held_against_its_bigram(run: Path) -> None:
    scores = {score.source: score for score in facts.source_scores(read_run(run))}
    assert list(scores) == ["python-docs", "python-source", "arithmetic"]
    docs = scores["python-docs"]
    assert docs.end < docs.bigram < docs.start
    assert docs.gain == pytest.approx(1 - docs.end / docs.bigram)


def test_tasks_are_compared_between_the_last_base_evaluation_and_each_stage(run: Path) -> None:
    tasks = {each.task: each for each in facts.before_after(read_run(run))}
    assert set(tasks) == {"addition", "subtraction", "words"}
    assert {model: row["score"] for model, row in tasks["addition"].scores.items()} == {"base": 0.31, "sft": 0.93}


def test_the_mixture_that_was_seen_comes_from_what_events_say_was_consumed(run: Path) -> None:
    stable, decay = facts.stages(read_run(run))
    assert stable.seen == pytest.approx({"python-docs": 0.4, "python-source": 0.4, "arithmetic": 0.2}, abs=1e-6)
    assert decay.seen == pytest.approx(decay.planned, abs=1e-6)
    assert (stable.tokens, decay.tokens) == (420 * 32_768, 180 * 32_768)


def test_without_such_events_only_the_plan_is_known(run: Path) -> None:
    (run / "events.jsonl").unlink()
    assert [stage.seen for stage in facts.stages(read_run(run))] == [None, None]


def test_parameters_follow_the_checkpoint_vocabulary_else_the_recipe_rounded_up(run: Path) -> None:
    from_recipe = facts.parameter_count(read_run(run))
    model = run / "checkpoints" / "step-00000600" / "model.json"
    model.parent.mkdir(parents=True)
    model.write_text(json.dumps({"model": {}, "vocab": 4096 + 128}))
    assert facts.parameter_count(read_run(run)) == from_recipe + 128 * 192


def test_a_run_that_stopped_early_says_how_far_it_came(run: Path) -> None:
    rows = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text("\n".join(rows[:51]) + "\n")
    assert facts.status(read_run(run)) == "100 of 600 steps"
    (run / "metrics.jsonl").write_text("")
    assert facts.status(read_run(run)) == "not started"


def test_a_branch_counts_from_where_it_left_its_trunk(run: Path) -> None:
    text = (run / "recipe.yaml").read_text()
    past = "[{stage: 0, name: web, steps: 500, sequence: 512, batch_tokens: 32768, mixture: {arithmetic: 1}}]"
    trunk = f"train:\n  from: {{run: trunk, step: 500, past: {past}}}\n"
    (run / "recipe.yaml").write_text(text.replace("train:\n  sequence", f"{trunk}  sequence"))
    assert facts.status(read_run(run)) == "600 of 1,100 steps"
    assert facts.stages(read_run(run))[0].first_token == 500 * 32_768


def test_a_recipe_that_cannot_be_read_leaves_the_steps(run: Path) -> None:
    (run / "recipe.yaml").write_text((run / "recipe.yaml").read_text().replace("batch_tokens", "batch_words"))
    assert facts.status(read_run(run)) == "600 steps"


def test_steps_that_were_skipped_cost_nothing_and_no_price_means_no_money(run: Path) -> None:
    costs = {cost.step: cost for cost in facts.costs(read_run(run))}
    assert costs["tokenizer"].skipped and costs["tokenizer"].seconds == 0
    recipe = (run / "recipe.yaml").read_text().replace("  price_per_hour: 0.35\n", "")
    (run / "recipe.yaml").write_text(recipe)
    assert all(cost.money is None for cost in facts.costs(read_run(run)))


def test_the_summary_names_size_baseline_and_tasks_in_a_few_lines(run: Path) -> None:
    lines = text(run).splitlines()
    assert lines[0].startswith("lifecycle-demo: finished, 3.15M parameters, 19.7M tokens, 9 min 40 s, 1 restart")
    assert "  addition: 31.0 % (base) -> 93.0 % (sft)" in lines
    assert len(lines) < 12


@given(st.floats(min_value=1e-3, max_value=9e14))
def test_humanised_counts_stay_within_half_a_per_cent(value: float) -> None:
    shown = units.count(value)
    scale = {"k": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}.get(shown[-1])
    back = float(shown[:-1]) * scale if scale else float(shown)
    assert back == pytest.approx(value, rel=0.006)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.42, "0.4 s"),
        (61, "61 s"),
        (245, "4 min 05 s"),
        (599.7, "10 min"),
        (7_500, "2 h 05 min"),
        (187_200, "2 d 4 h"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, shown: str) -> None:
    assert units.duration(seconds) == shown
