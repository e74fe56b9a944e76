"""Model and task names -> scores with standard errors, and a few samples to read."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from smelt.errors import InputError
from smelt.evals.likelihood import encode_pair, log_probabilities
from smelt.evals.task import NEXT_ITEM, Item, Render, Task, share
from smelt.evals.tasks import find_tasks
from smelt.model.decoder import Decoder
from smelt.model.generate import generate
from smelt.model.load import load_model
from smelt.recipe.sections.infra import Infra
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer
from smelt.train.precision import resolve_device


def evaluate(
    model: Decoder | str | Path,
    tokenizer: Tokenizer | None = None,
    tasks: Sequence[str] = (),
    items: int = 200,
    seed: int = 0,
    samples: int = 5,
    render: Render | None = None,
) -> dict[str, Any]:
    """Score a model, or the one in a folder, on tasks by name: `{"tasks", "samples", "seconds"}`.

    `tasks` of the result: {task: {"metric", "score", "stderr", "n", "chance", "formulation", "format"}} on up to
    `items` items that `seed` draws; `samples`: the first few of each as {"prompt", "output", "expected", "correct"}.
    `render` turns a user's message into a prompt of the chat format; None asks in the base format. The tokenizer
    defaults to the one in the model's folder. Raises InputError for an unknown task.
    """
    found = find_tasks(tasks)
    if not isinstance(model, Decoder):
        model, own = load(Path(model))
        tokenizer = tokenizer or own
    if tokenizer is None:
        raise InputError("evaluate: a model in memory needs its tokenizer; pass tokenizer=")
    start = time.perf_counter()
    result: dict[str, Any] = {"tasks": {}, "samples": {}}
    for task in found:
        rows = answers(model, tokenizer, task, task.items(items, seed), render)
        result["tasks"][task.name] = {**summary(task, rows), "format": "base" if render is None else "chat"}
        result["samples"][task.name] = rows[:samples]
    return {**result, "seconds": round(time.perf_counter() - start, 3)}


def load(folder: Path) -> tuple[Decoder, Tokenizer]:
    """The model in a folder, on a GPU where there is one, and its tokenizer."""
    inner = folder / "tokenizer"
    model = load_model(folder).to(resolve_device(Infra()))
    return model, load_tokenizer(inner if inner.is_dir() else folder)


def answers(
    model: Decoder, tokenizer: Tokenizer, task: Task, items: Sequence[Item], render: Render | None = None
) -> list[dict[str, Any]]:
    """What the model answers to each item, judged: {"prompt", "output", "expected", "correct"}."""
    prompts = [item.prompt if render is None else render(item.message) for item in items]
    answer = _choose if task.formulation == "cloze" else _generate
    outputs = answer(model, tokenizer, task, prompts, items, render is not None)
    return [
        {"prompt": prompt, "output": output, "expected": item.answer, "correct": task.right(output, item)}
        for prompt, output, item in zip(prompts, outputs, items, strict=True)
    ]


def summary(task: Task, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Share of correct rows with its binomial standard error, sqrt(p (1 - p) / n), and what it has to be read with."""
    n = len(rows)
    score = sum(row["correct"] for row in rows) / n if n else 0.0
    stderr = math.sqrt(score * (1 - score) / n) if n else 0.0
    facts = {"metric": task.metric, "score": score, "stderr": stderr, "n": n}
    return {**facts, "chance": task.chance, "formulation": task.formulation}


def best_choice(choices: Sequence[str], log_probs: Sequence[float]) -> str:
    """The choice with the highest log-probability per character; equal ones are told apart by a hash of the text."""
    scores = {choice: value / max(1, len(choice)) for choice, value in zip(choices, log_probs, strict=True)}
    return max(scores, key=lambda choice: (scores[choice], share(choice)))


def _choose(
    model: Decoder, tokenizer: Tokenizer, task: Task, prompts: Sequence[str], items: Sequence[Item], chat: bool
) -> list[str]:
    pairs = [
        encode_pair(tokenizer, prompt, choice if chat else item.joint + choice, chat)
        for prompt, item in zip(prompts, items, strict=True)
        for choice in item.choices
    ]
    sums = iter(log_probabilities(model, tokenizer.pad, pairs))
    return [best_choice(item.choices, [next(sums) for _ in item.choices]) for item in items]


def _generate(
    model: Decoder, tokenizer: Tokenizer, task: Task, prompts: Sequence[str], items: Sequence[Item], chat: bool
) -> list[str]:
    encode = tokenizer.encode_chat if chat else tokenizer.encode
    stop = () if chat else _next_item_ids(tokenizer)
    outputs = generate(model, tokenizer, [encode(prompt) for prompt in prompts], task.max_tokens, stop=stop)
    return [output.partition(NEXT_ITEM)[0].strip() for output in outputs]


def _next_item_ids(tokenizer: Tokenizer) -> list[int]:
    """The id that opens a next question after a line break, where the tokenizer has it as one id."""
    last = tokenizer.encode(NEXT_ITEM)[-1:]
    return last if tokenizer.decode(last) == NEXT_ITEM.strip() else []
