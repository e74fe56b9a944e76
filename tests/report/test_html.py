"""The report: one file, self-contained, complete, safe against hostile text, and honest about what is absent."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from smelt.errors import InputError
from smelt.report.html import write_report

SECTIONS = [
    *("summary", "loss", "validation", "throughput", "mixture", "evals", "posttraining"),
    *("conversations", "cost", "events", "recipe", "environment"),
]
VOID = {"meta", "link", "img", "br", "hr", "input"}


class Page(HTMLParser):
    """Tags, attributes and visible words of a page; every element must be closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def ids(self) -> list[str]:
        return [value for name, value in self.attributes if name == "id"]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def report(run: Path) -> tuple[str, Page]:
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text(encoding="utf-8")
    return page, Page(page)


def test_the_file_loads_nothing_from_anywhere(run: Path) -> None:
    page, parsed = report(run)
    assert not {"script", "link", "iframe", "object", "embed", "img", "base"} & set(parsed.tags)
    for name, value in parsed.attributes:
        if name in ("href", "src", "xlink:href", "srcset", "action", "data"):
            assert value.startswith("#"), (name, value)
        assert not name.startswith("on")
        assert all(target.startswith("#") for target in re.findall(r"url\(['\"]?([^)]*)", value))
    assert "@import" not in page and "http:" not in page and "https:" not in page
    assert len(page.encode()) < 2_000_000


def test_every_element_is_closed_and_every_reference_inside_resolves(run: Path) -> None:
    _, parsed = report(run)
    assert parsed.open == []
    used = {value[1:] for name, value in parsed.attributes if name == "href"}
    used |= {target for _, value in parsed.attributes for target in re.findall(r"url\(#([^)]*)\)", value)}
    assert used <= set(parsed.ids)


def test_every_section_is_there_with_its_numbers_and_figures(run: Path) -> None:
    page, parsed = report(run)
    assert [each for each in parsed.ids if each in SECTIONS] == SECTIONS
    assert parsed.tags.count("svg") == 14
    assert "absent" not in parsed.text
    for words in ("3.15M", "19.7M", "31.0 % → 93.0 %", "all 3 sources", "bigram 2.310", "Ana has 15 apples.", "resume"):
        assert words in parsed.text
    assert "prefers-color-scheme: dark" in page


ABSENT = {
    "metrics.jsonl": ["No losses: metrics.jsonl is absent or empty.", "No throughput"],
    "evals": ["No validation: no file in evals/ has a validation score.", "No evals: no file in evals/ has a task."],
    "posttrain": ["No post-training: this run has no posttrain/ folder."],
    "posttrain/sft/eval.json": ["posttrain/ has no eval.json."],
    "posttrain/sft/metrics.jsonl": ["posttrain/ has no metrics.jsonl."],
    "conversations.json": ["No conversations: conversations.json is absent."],
    "timings.json": ["timings.json is absent, so only training is counted."],
    "events.jsonl": ["No events: events.jsonl is absent or empty.", "What was consumed is not recorded"],
    "recipe.yaml": ["No recipe: recipe.yaml is absent."],
    "env.json": ["No environment: env.json is absent."],
}


@pytest.mark.parametrize(
    "paths",
    [
        ("metrics.jsonl", "env.json", "posttrain"),
        ("evals", "timings.json", "posttrain/sft/metrics.jsonl"),
        ("recipe.yaml", "conversations.json"),
        ("events.jsonl", "posttrain/sft/eval.json"),
    ],
)
def test_a_part_that_is_absent_is_named(run: Path, paths: tuple[str, ...]) -> None:
    for path in paths:
        shutil.rmtree(run / path) if (run / path).is_dir() else (run / path).unlink()
    _, parsed = report(run)
    assert [words for path in paths for words in ABSENT[path] if words not in parsed.text] == []
    assert [each for each in parsed.ids if each in SECTIONS] == SECTIONS


def test_a_run_with_nothing_but_its_recipe_has_a_report(run: Path) -> None:
    for path in run.iterdir():
        if path.name != "recipe.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    _, parsed = report(run)
    assert "not started" in parsed.text and "No times" in parsed.text


HOSTILE = "</pre></style><script>alert(1)</script><img src=x onerror=alert(2)>\"'&$x^2$"


def test_hostile_text_stays_text_wherever_it_stands(run: Path) -> None:
    talks = [{"prompt": HOSTILE, "base": HOSTILE, "tuned": {HOSTILE: HOSTILE}}]
    (run / "conversations.json").write_text(json.dumps(talks))
    (run / "env.json").write_text(json.dumps({HOSTILE: HOSTILE}))
    with (run / "events.jsonl").open("a") as file:
        file.write(json.dumps({"time": HOSTILE, "kind": HOSTILE, "step": 1, HOSTILE: HOSTILE}) + "\n")
    for path in [*(run / "evals").glob("*.json"), run / "posttrain" / "sft" / "eval.json"]:
        scores = json.loads(path.read_text())
        scores["tasks"][HOSTILE] = scores["tasks"]["addition"]
        scores["samples"] = {HOSTILE: [{"prompt": HOSTILE, "output": HOSTILE, "expected": HOSTILE, "correct": True}]}
        scores["validation"][HOSTILE] = scores["validation"]["arithmetic"]
        path.write_text(json.dumps(scores))
    recipe = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(recipe + "# " + HOSTILE + "\n")
    page, parsed = report(run)
    assert "<script" not in page and "<img" not in page
    assert not {"script", "img"} & set(parsed.tags)
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert parsed.open == []
    assert parsed.text.count("alert(1)") > 12


def test_a_long_run_keeps_the_report_small(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    many = [{**row, "step": row["step"] + 600 * lap, "tokens": row["tokens"] + 600 * 32_768 * lap}
            for lap in range(30) for row in rows]  # fmt: skip
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    talks = [{"prompt": f"{index}", "base": "x" * 50_000, "tuned": {"sft": "y" * 50_000}} for index in range(100)]
    (run / "conversations.json").write_text(json.dumps(talks))
    page, parsed = report(run)
    assert len(page.encode()) < 2_000_000
    assert "76 more in conversations.json." in parsed.text and "48,000 more characters" in parsed.text


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert report(run)[0] == report(run)[0]


def test_a_missing_run_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        write_report(tmp_path / "runs" / "nowhere")
    assert list(tmp_path.iterdir()) == []
