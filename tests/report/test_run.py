"""Reading a run directory: restarts, crashes, absent and broken files."""

import json
from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.report import facts
from smelt.report.run import read_run
from smelt.report.summary import text


def test_rows_that_a_restart_logged_again_count_once_and_the_last_one_lives(run: Path) -> None:
    data = read_run(run)
    steps = [row["step"] for row in data.metrics]
    assert steps == sorted(set(steps))
    assert {row["life"] for row in data.metrics if row["step"] > 300} == {1}
    assert {row["life"] for row in data.metrics if row["step"] <= 300} == {0}


def test_training_time_includes_the_work_a_restart_did_again(run: Path) -> None:
    data = read_run(run)
    assert data.train_seconds == pytest.approx(0.92 * 330 + 0.92 * 300)
    train = next(cost for cost in facts.costs(data) if cost.step == "train")
    assert train.seconds == pytest.approx(data.train_seconds)
    assert train.money == pytest.approx(0.35 * data.train_seconds / 3600)
    assert facts.restarts(data) == 1


def test_a_last_line_cut_short_is_passed_over_in_silence(run: Path) -> None:
    before = read_run(run)
    for name in ("metrics.jsonl", "events.jsonl", "posttrain/sft/metrics.jsonl"):
        with (run / name).open("a") as file:
            file.write('{"step": 9999, "tokens": 3276')
    after = read_run(run)
    assert after.metrics == before.metrics and after.events == before.events and after.posttrain == before.posttrain
    assert after.notes == []


def test_a_line_cut_short_in_the_middle_is_left_out_with_a_note(run: Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[10] = lines[10][:25]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert read_run(run).notes == ["metrics.jsonl line 11 was cut short, by a crash or an edit, and is left out"]


def test_broken_json_is_left_out_with_a_note_and_the_rest_is_read(run: Path) -> None:
    (run / "evals" / "step-00000300.json").write_text('{"step": 300,')
    (run / "env.json").write_text("")
    data = read_run(run)
    assert [each["step"] for each in data.evals] == [0, 150, 450, 600]
    assert len(data.notes) == 2


def test_line_separators_inside_a_string_do_not_break_a_row(run: Path) -> None:
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"kind": "alert", "note": "one\u2028two\x85three"}, ensure_ascii=False) + "\n")
    assert read_run(run).events[-1]["note"] == "one\u2028two\x85three"


def test_a_missing_run_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such run folder") as error:
        read_run(tmp_path / "nowhere")
    assert "\n" not in str(error.value) and "nowhere" in str(error.value)


def test_a_folder_that_is_no_run_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"neither recipe\.yaml nor metrics\.jsonl"):
        text(tmp_path)


def test_conversations_of_both_shapes_are_merged_by_prompt(run: Path) -> None:
    later = [{"user": "What is 23 + 59?", "answers": {"dpo": "82."}}, {"user": "Hello", "answers": {"dpo": "Hi."}}]
    (run / "posttrain" / "conversations.json").write_text(json.dumps(later))
    talks = {talk.prompt: talk.answers for talk in read_run(run).conversations}
    assert list(talks["What is 23 + 59?"]) == ["base", "sft", "dpo"]
    assert talks["Hello"] == {"dpo": "Hi."}


def test_post_training_stages_follow_the_recipe_not_the_alphabet(run: Path) -> None:
    stage = "    lr: 1.0e-4\n"
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe.replace(stage, f"{stage}  - {{kind: sft, name: polish}}\n"))
    for name in ("polish", "align"):
        (run / "posttrain" / name).mkdir()
        (run / "posttrain" / name / "report.json").write_text('{"examples": 1}')
    assert [stage.name for stage in read_run(run).posttrain] == ["sft", "polish", "align"]
