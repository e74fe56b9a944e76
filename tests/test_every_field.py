"""No knob is dead: every field of the recipe, changed, changes something that can be observed."""

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pyarrow
import pyarrow.parquet
import pytest
import torch
from pydantic import BaseModel, TypeAdapter

from smelt.corpus.build import build_corpus
from smelt.corpus.document import Document
from smelt.corpus.edits.table import EDITS
from smelt.corpus.filters.table import FILTERS, reasons
from smelt.corpus.readers import read
from smelt.dataset.account import account
from smelt.dataset.batches import BatchSource
from smelt.dataset.order import DataOrder
from smelt.errors import InputError
from smelt.infra import kubernetes, slurm, torchrun
from smelt.infra.job import Job
from smelt.lifecycle.artifacts import prepare
from smelt.lifecycle.pretrain import pretrain
from smelt.lifecycle.steps import Steps
from smelt.marathon.adapt import curves
from smelt.model.decoder import Decoder
from smelt.model.init import initialise
from smelt.model.warm import resolved, warm_decoder
from smelt.model.weights import save_weights
from smelt.optim.optimizers import build_optimizer
from smelt.optim.schedules import learning_rate
from smelt.optim.skip import Skip
from smelt.parallel.engine import Engine
from smelt.parallel.world import World
from smelt.posttrain.conversations import conversations
from smelt.posttrain.examples import Example
from smelt.posttrain.sft import settings
from smelt.recipe.load import load_recipe
from smelt.recipe.mixtures.plateau import recommend
from smelt.recipe.plan import Plan
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.base import Section
from smelt.recipe.sections.corpus import AnyFilter
from smelt.recipe.sections.edits import AnyEdit
from smelt.recipe.sections.filters import (
    C4Quality,
    FineWebQuality,
    GopherQuality,
    GopherRepetition,
    Lengths,
    RepeatedSpans,
    Symbols,
)
from smelt.recipe.sections.posttrain import SupervisedFineTuning
from smelt.recipe.sections.readers import Reader
from smelt.report.facts import costs
from smelt.report.run import read_run
from smelt.tokenizer.train import build_tokenizer
from smelt.train.checkpoints import checkpoints
from smelt.train.precision import resolve_device, resolve_dtype
from smelt.train.step import train_step

CPU = torch.device("cpu")
Observer = Callable[[Any, Path, str, tuple[str, ...]], Any]


def losses(workshop: Any, folder: Path, name: str, changes: tuple[str, ...], steps: int = 14) -> list[float]:
    """Parameters and fourteen steps of training in memory: the most sensitive thing there is."""
    return _losses(workshop, ("name=losses", *changes), steps)


def few_losses(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[float]:
    """Four steps, which are enough for what a model computes."""
    return losses(workshop, folder, name, changes, 4)


@cache
def _losses(workshop: Any, changes: tuple[str, ...], steps: int) -> list[float]:
    recipe = workshop.load("losses", *changes)
    train = recipe.section("train")
    source, vocab = _data(workshop, tuple(change for change in changes if not change.startswith("model")))
    model = Decoder(recipe.section("model"), vocab, dtype=resolve_dtype(train, CPU))
    initialise(model, recipe.seed)
    optimizer = build_optimizer(model, train.optimizer)
    seen: list[float] = [sum(each.numel() for each in model.parameters())]
    engine, plan = Engine(model, World.single(CPU)), Plan(recipe)
    skip = Skip(train.skip_step, CPU) if train.skip_step else None
    for step in range(min(steps, plan.total_steps)):
        result = train_step(
            engine,
            optimizer,
            source.batch(step),
            lr=learning_rate(plan, step),
            clip=train.clip,
            micro_batch=recipe.infra.micro_batch,
            sources=len(recipe.sources),
            skip=skip,
        )
        seen.append(float(result.loss_sums.sum() / result.token_counts.sum()))
    return seen


@cache
def _data(workshop: Any, changes: tuple[str, ...]) -> tuple[BatchSource, int]:
    recipe = workshop.load("losses", *changes)
    ready = prepare(recipe, workshop.project)
    sources = ready.sources(recipe)
    return BatchSource(recipe, sources, ready.tokenizer.eos), ready.tokenizer.padded


def planned(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[Any]:
    """What every step is to be made of: its stage, settings, learning rate and windows."""
    recipe = workshop.load("planned", *changes)
    order = DataOrder(recipe, dict.fromkeys(recipe.sources, 50_000))
    seen: list[Any] = []
    for step in range(order.plan.total_steps):
        segment = order.plan.at(step)
        settings = (segment.name, segment.train.clip, segment.model, segment.shared)
        windows = order.windows(step)
        seen.append((settings, learning_rate(order.plan, step), windows.sequence, windows.offsets.tolist()))
    return seen


def classes(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> dict[str, float]:
    """What is summed up by class."""
    return account(workshop.load("classes", *changes), {})["classes"]


def adapting(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> str:
    """What six evaluations, in which some things rise and others stand still, give to recommend."""
    section = workshop.load("adapting", *changes).section("train").adapt
    for step in range(6):
        rising, still = {"score": 0.1 * step, "n": 10_000}, {"score": 0.5, "n": 10_000}
        validation = {"docs": {"bits_per_byte": 3 - 0.2 * step}, "math": {"bits_per_byte": 2.0 - 0.3 * (step == 1)}}
        scores = {"tasks": {"addition": still, "subtraction": rising}, "validation": validation}
        (folder / f"step-{step}.json").write_text(json.dumps({"step": step, "tokens": 1000 * step, **scores}))
    points = curves(section, sorted(folder.glob("step-*.json")), 0)
    return str(recommend(section, points, {"docs": 0.5, "math": 0.5}))


def logits(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[float]:
    """What an untrained model of large weights says, for parts that are for inference alone."""
    recipe = workshop.load("logits", "train=null", "model.init={kind: normal, std: 0.3}", *changes)
    model = Decoder(recipe.section("model"), 512)
    initialise(model, 0)
    with torch.no_grad():
        return model.eval()(torch.arange(100)[None])[0, -1].tolist()


def warm(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[float]:
    """A model that starts from a checkpoint of the tiny one: what it says, and what its loss asks of it."""
    tiny = workshop.load("tiny")
    for seed, checkpoint in enumerate(("CHECKPOINT", "ANOTHER")):
        model = Decoder(tiny.section("model"), 512)
        initialise(model, seed)
        save_weights(model, folder / checkpoint)
    path = folder / "warm.yaml"
    path.write_text("name: warm\nmodel: {load: CHECKPOINT}\n".replace("CHECKPOINT", str(folder / "CHECKPOINT")))
    recipe = load_recipe(path, [change.replace("HERE", str(folder)) for change in changes])
    section = resolved(recipe).section("model")
    model, _ = warm_decoder(section, prepare(tiny, workshop.project).tokenizer, torch.float32, 0)
    tokens = torch.arange(60)[None]
    model.train()(tokens[:, :-1], targets=tokens[:, 1:]).mean().backward()
    return [float(parameter.grad.norm()) for parameter in model.parameters()]


def run(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> dict[str, Any]:
    """What a whole short run leaves on disk."""
    recipe = workshop.load(name, "train.stages.0.steps=3", "train.stages.1.steps=3", *changes)
    out = workshop.project / "runs" / recipe.name
    pretrain(recipe, workshop.project, resume=False, steps=Steps(out / "timings.json", lambda text: None))
    scores = json.loads((out / "evals" / "step-00000006.json").read_text())
    return {
        "run": out.name,
        "checkpoints": [path.name for path in checkpoints(out)],
        "saved": [row for row in (out / "events.jsonl").read_text().splitlines() if '"checkpoint"' in row].__len__(),
        "rows": len((out / "metrics.jsonl").read_text().splitlines()),
        "stages": [json.loads(row)["stage"] for row in (out / "metrics.jsonl").read_text().splitlines()],
        "evals": sorted(path.name for path in (out / "evals").glob("*.json")),
        "tasks": {task: row["n"] for task, row in scores["tasks"].items()},
        "samples": [len(rows) for rows in scores["samples"].values()],
        "bytes": [row["bytes"] for row in scores["validation"].values()],
        "losses": [json.loads(row)["loss"] for row in (out / "metrics.jsonl").read_text().splitlines()],
        "money": list(map(str, costs(read_run(out)))) if "infra.price_per_hour=2" in changes else [],
    }


def corpus(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    return build_corpus(workshop.load("c", *changes), folder / name)


def cleaned(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    """What every step drops of two small sources of repeated texts."""
    _write_repetitions(folder)
    reads = ", ".join(f"{each}: {{read: {{kind: jsonl, path: HERE/{each}.rows.jsonl}}}}" for each in ("one", "two"))
    given = (f"corpus.sources={{{reads}}}", "corpus.executor={kind: local, workers: 1}", "train=null", *changes)
    recipe = workshop.load("cleaned", *(change.replace("HERE", str(folder)) for change in given))
    report = build_corpus(recipe, folder / name)
    return report, json.loads((folder / name / "funnel.json").read_text())


def judged(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    """What a filter, or an edit, given as `key=JSON`, makes of a text with some of everything."""
    fields = {key: json.loads(value) for key, value in (change.split("=", 1) for change in changes)}
    line = "The use of cookies and of JavaScript is {all} that we have to say of it.[1]"
    others = "- It was 42 long ago, me@example.org #...\nYes sir.\nWe use cookies here.\nSee JavaScript run.\n"
    text = f"{line}\n{line}\n\n{others}See {'x' * 1001}."
    if fields["kind"] in EDITS:
        return EDITS[fields["kind"]](TypeAdapter(AnyEdit).validate_python(fields))(text)
    section = TypeAdapter(AnyFilter).validate_python(fields)
    masks = reasons(section, FILTERS[section.kind](section).score([Document(f"{text} {'ha ho ' * 40}", "0", "s")]))
    return {reason: bool(mask[0]) for reason, mask in masks.items()}


def tokenizer(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> str:
    recipe = workshop.load("t", *changes)
    documents = next((workshop.project / "artifacts" / "corpus").iterdir())
    return build_tokenizer(recipe, documents, folder / name).hash


def launching(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[str]:
    """What is started where."""
    job = Job(workshop.load("launched", *changes), Path("recipe.yaml"))
    return [torchrun.script(job), slurm.script(job), kubernetes.manifests(job).split("kind: Service")[-1]]


def texts(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> list[str]:
    """Documents of a reader given as `key=value` on top of its kind."""
    _write_texts(folder)
    fields = dict(change.split("=", 1) for change in changes)
    fields = {key: value.replace("HERE", str(folder)) for key, value in fields.items()}
    reader: Reader = TypeAdapter(Reader).validate_python(fields)
    try:
        return [document.text for document in read(reader, "s", 0)]
    except InputError as error:
        return [str(error)]


def fine_tuning(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    """What TRL is told, and the data it gets."""
    recipe = workshop.load("f", *changes)
    stage: SupervisedFineTuning = recipe.section("posttrain").stages[0]
    examples = [Example([], list(range(length)), [1] * length) for length in (20, 60, 100)]
    told = settings(stage, examples, Path("scratch"), seed=0, device=CPU).to_dict()
    return {key: value for key, value in told.items() if "dir" not in key}, conversations(stage.data, 0)


def section(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    """Which folder a stage writes, which tasks it is scored on: read by the lifecycle from these values."""
    recipe: Recipe = workshop.load("p", *changes)
    posttrain = recipe.section("posttrain")
    return [posttrain.stages[0].name, posttrain.tasks, posttrain.items]


def device(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> str:
    try:
        return str(resolve_device(workshop.load("d", *changes).infra))
    except InputError as error:
        return str(error)


@cache
def _write_texts(folder: Path) -> None:
    (folder / "a.txt").write_text("plain a")
    (folder / "b.txt").write_text("plain b")
    for file in ("a", "b"):
        rows = [{"text": f"text {file}{index}", "body": f"body {file}{index}"} for index in range(3)]
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), folder / f"{file}.parquet")
    for repository in ("one", "two"):
        for subset in ("x", "y"):
            for split in ("train", "test"):
                where = folder / repository / subset
                where.mkdir(parents=True, exist_ok=True)
                row = {"text": f"{repository} {subset} {split}", "body": f"other {repository}"}
                (where / f"{split}.jsonl").write_text(json.dumps(row) + "\n")
        configs = "".join(
            f"- config_name: {subset}\n  data_files:\n"
            + "".join(f"  - split: {split}\n    path: {subset}/{split}.jsonl\n" for split in ("train", "test"))
            for subset in ("x", "y")
        )
        (folder / repository / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (folder / "chat.jsonl").write_text(
        json.dumps({"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}) + "\n"
    )


@cache
def _write_repetitions(folder: Path) -> None:
    """In each source two texts of its own, equal ones, near ones, and a line that all but the last have."""
    line = "A line that many documents have."
    for source in ("one", "two"):
        own = [" ".join(f"{source}{number}x{word}" for word in range(90)) for number in range(2)]
        both = " ".join(f"both{word}" for word in range(90))
        near = [f"{both} {' '.join(f'{source}{number}y{word}' for word in range(16))}" for number in range(3)]
        texts = [f"{text}\n{line}" for text in (own[0], own[0], both, *near)] + [own[1]]
        (folder / f"{source}.rows.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    rows = [{"question": own[1], "answer": f"{both} and more"}]
    (folder / "protected.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "other.jsonl").write_text(json.dumps({"question": own[0]}) + "\n")


HUB = ("kind=hub", "id=HERE/one", "subset=x")
STAGE = "posttrain.stages.0."
EXACT, NEAR, LINES = "corpus.dedup=[{kind: exact}]", "corpus.dedup=[{kind: minhash}]", "corpus.lines={}"
PROTECTED = "corpus.decontaminate={against: [{path: HERE/protected.jsonl, field: question}]}"

CHANGES: dict[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]] = {
    "Recipe.name": (run, (), ("name=renamed",)),
    "Recipe.seed": (losses, (), ("seed=1",)),
    "TextFiles.path": (texts, ("kind=text", "path=HERE/a.txt"), ("kind=text", "path=HERE/b.txt")),
    "JsonLines.path": (texts, ("kind=jsonl", "path=HERE/a.jsonl"), ("kind=jsonl", "path=HERE/b.jsonl")),
    "JsonLines.field": (texts, ("kind=jsonl", "path=HERE/a.jsonl"), ("kind=jsonl", "path=HERE/a.jsonl", "field=body")),
    "Parquet.path": (texts, ("kind=parquet", "path=HERE/a.parquet"), ("kind=parquet", "path=HERE/b.parquet")),
    "Parquet.field": (
        texts,
        ("kind=parquet", "path=HERE/a.parquet"),
        ("kind=parquet", "path=HERE/a.parquet", "field=body"),
    ),
    "Hub.id": (texts, HUB, ("kind=hub", "id=HERE/two", "subset=x")),
    "Hub.subset": (texts, HUB, ("kind=hub", "id=HERE/one", "subset=y")),
    "Hub.split": (texts, HUB, (*HUB, "split=test")),
    "Hub.field": (texts, HUB, (*HUB, "field=body")),
    "Arithmetic.documents": (corpus, (), ("corpus.sources.math.read.documents=200",)),
    "Source.documents": (corpus, (), ("corpus.sources.docs.documents=20",)),
    "Corpus.validation_fraction": (corpus, (), ("corpus.validation_fraction=0.2",)),
    "Exact.across": (cleaned, (EXACT,), ("corpus.dedup=[{kind: exact, across: false}]",)),
    "MinHash.across": (cleaned, (NEAR,), ("corpus.dedup=[{kind: minhash, across: false}]",)),
    "MinHash.ngram": (cleaned, (NEAR,), ("corpus.dedup=[{kind: minhash, ngram: 60}]",)),
    "MinHash.bands": (cleaned, (NEAR,), ("corpus.dedup=[{kind: minhash, bands: 1}]",)),
    "MinHash.rows": (cleaned, (NEAR,), ("corpus.dedup=[{kind: minhash, rows: 64}]",)),
    "Lines.max_documents": (cleaned, (LINES,), ("corpus.lines={max_documents: 50}",)),
    "Lines.min_characters": (cleaned, (LINES,), ("corpus.lines={min_characters: 50}",)),
    "Lines.sources": (cleaned, (LINES,), ("corpus.lines={sources: [one]}",)),
    "Lines.across": (cleaned, (LINES,), ("corpus.lines={across: false}",)),
    "Protected.path": (cleaned, (PROTECTED,), (PROTECTED.replace("protected.jsonl", "other.jsonl"),)),
    "Protected.field": (cleaned, (PROTECTED,), (PROTECTED.replace("question", "answer"),)),
    "Decontaminate.ngram": (
        cleaned,
        (PROTECTED.replace("question", "answer"),),
        (PROTECTED.replace("question", "answer"), "corpus.decontaminate.ngram=92"),
    ),
    "TrainTokenizer.vocab": (tokenizer, (), ("tokenizer.train.vocab=600",)),
    "TrainTokenizer.sample_bytes": (tokenizer, (), ("tokenizer.train.sample_bytes=5k",)),
    "TrainTokenizer.digits": (tokenizer, (), ("tokenizer.train.digits=groups-of-3",)),
    "TrainTokenizer.draw": (tokenizer, ("tokenizer.train.sample_bytes=20k",), ("tokenizer.train.draw=mixture",)),
    "Tokenizer.load": (tokenizer, (), ("tokenizer={load: LOADED}",)),
    "Dataset.shards": (losses, (), ("dataset.shards={web: SHARDS}", "train.stages.0.mixture={web: 1}")),
    "Dataset.span": (losses, (), ("dataset.span=2Ki",)),
    "GroupedQuery.heads": (losses, (), ("model.attention.heads=4",)),
    "GroupedQuery.kv_heads": (losses, (), ("model.attention.kv_heads=2",)),
    "GroupedQuery.head_dim": (losses, (), ("model.attention.head_dim=8",)),
    "LayerChange.norm": (losses, (), ("model.per_layer=[{layers: 0, norm: {placement: post}}]",)),
    "Rope.theta": (losses, (), ("model.position={kind: rope, theta: 100}",)),
    "SwiGLU.width": (losses, (), ("model.feedforward.width=32",)),
    "LayerChange.layers": (
        losses,
        ("model.per_layer=[{layers: 0, position: {kind: none}}]",),
        ("model.per_layer=[{layers: 1, position: {kind: none}}]",),
    ),
    "LayerChange.attention": (losses, (), ("model.per_layer=[{layers: 0, attention: {kv_heads: 2}}]",)),
    "LayerChange.position": (losses, (), ("model.per_layer=[{layers: 0, position: {kind: none}}]",)),
    "LayerChange.feedforward": (losses, (), ("model.per_layer=[{layers: 0, feedforward: {width: 32}}]",)),
    "Model.hidden": (losses, (), ("model.hidden=48",)),
    "Model.layers": (losses, (), ("model.layers=1",)),
    "Model.tie_embeddings": (losses, (), ("model.tie_embeddings=false",)),
    "Stage.name": (run, (), ("train.stages.0.name=first",)),
    "Stage.tokens": (losses, (), ("train.stages.0={name: one, tokens: 2k, mixture: {docs: 0.5, math: 0.5}}",)),
    "Stage.steps": (losses, (), ("train.stages.0.steps=4",)),
    "Stage.mixture": (losses, (), ("train.stages.0.mixture.docs=0.9",)),
    "Stage.set": (run, (), ("train.stages.1.set={model.position.theta: 5}",)),
    "Stage.sequence": (losses, (), ("train.stages.0.sequence=128",)),
    "Train.sequence": (losses, (), ("train.sequence=128",)),
    "Train.batch_tokens": (losses, (), ("train.batch_tokens=1Ki",)),
    "Train.document_mask": (losses, (), ("train.document_mask=false",)),
    "Train.packing": (losses, (), ("train.packing=best-fit",)),
    "Stage.packing": (losses, (), ("train.stages.0.packing=best-fit",)),
    "Train.precision": (losses, (), ("train.precision=bf16",)),
    "Train.clip": (losses, (), ("train.clip=0.1",)),
    "Train.log_every_steps": (run, (), ("train.log_every_steps=3",)),
    "Checkpoints.every_steps": (run, (), ("train.checkpoints.every_steps=1",)),
    "Checkpoints.keep": (run, (), ("train.checkpoints.keep=1",)),
    "Checkpoints.keep_every": (
        run,
        ("train.checkpoints={every_steps: 1, keep: 1}",),
        ("train.checkpoints={every_steps: 1, keep: 1, keep_every: 2}",),
    ),
    "Evals.tasks": (run, (), ("evals.tasks=[subtraction]",)),
    "Evals.items": (run, (), ("evals.items=2",)),
    "Evals.every_steps": (run, (), ("evals.every_steps=2",)),
    "Evals.validation_bytes": (run, (), ("evals.validation_bytes=600",)),
    "Evals.samples": (run, (), ("evals.samples=1",)),
    "Instructions.examples": (fine_tuning, (), (f"{STAGE}data.examples=30",)),
    "ChatFiles.path": (fine_tuning, (), (f"{STAGE}data={{kind: jsonl, path: CHAT}}",)),
    "SupervisedFineTuning.name": (section, (), (f"{STAGE}name=tuned",)),
    "SupervisedFineTuning.lr": (fine_tuning, (), (f"{STAGE}lr=1e-4",)),
    "SupervisedFineTuning.warmup_fraction": (fine_tuning, (), (f"{STAGE}warmup_fraction=0.5",)),
    "SupervisedFineTuning.batch_examples": (fine_tuning, (), (f"{STAGE}batch_examples=4",)),
    "SupervisedFineTuning.epochs": (fine_tuning, (), (f"{STAGE}epochs=2",)),
    "SupervisedFineTuning.max_length": (fine_tuning, (), (f"{STAGE}max_length=64",)),
    "SupervisedFineTuning.packing": (fine_tuning, (), (f"{STAGE}packing=true",)),
    "SupervisedFineTuning.precision": (fine_tuning, (f"{STAGE}precision=fp32",), (f"{STAGE}precision=bf16",)),
    "Posttrain.tasks": (section, (), ("posttrain.tasks=[lists]",)),
    "Posttrain.items": (section, (), ("posttrain.items=7",)),
    "Infra.device": (device, (), ("infra.device=cuda",)),
    "Infra.price_per_hour": (run, (), ("infra.price_per_hour=2",)),
}
PLAIN_MLA = "{kind: mla, heads: 2, kv_rank: 8, q_rank: 8, nope_dim: 8, rope_dim: 8, value_dim: 8}"
PLAIN_MAMBA = "{kind: mamba2, heads: 4, head_dim: 8, state: 8, groups: 2}"
PLAIN_DELTA = "{kind: gated_deltanet, key_heads: 2, value_heads: 4, key_dim: 8, value_dim: 8}"
LINEAR = "{kind: linear, heads: 2, key_dim: 8, value_dim: 8}"
PLAIN_MOE = "{kind: moe, experts: 4, top_k: 2, width: 16}"
BRANCHES = "{kind: parallel, branches: [{mixer: {heads: 2, kv_heads: 1}}, {mixer: {heads: 2, kv_heads: 2}}]}"
ROPE = "model.position={kind: rope, theta: 100}"
YARN = "{kind: yarn, factor: 4, original: 64}"
LLAMA3 = "{kind: llama3, factor: 4, original: 64}"

PARTS: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("GroupedQuery", "attention", "", {"bias": "qkv", "qk_norm": "head", "gate": "head", "window": 8, "chunk": 8}),
    ("GroupedQuery", "attention", "", {"sinks": "true", "softcap": 0.1, "scale": 1}),
    ("GroupedQuery", "attention", "{heads: 2, kv_heads: 1, window: 8}", {"sink_tokens": 2}),
    ("Latent", "attention", PLAIN_MLA, {"heads": 4, "kv_rank": 4, "q_rank": 4, "nope_dim": 4, "rope_dim": 4}),
    ("Latent", "attention", PLAIN_MLA, {"value_dim": 4, "scale": 1, "norm_eps": 0.1}),
    ("Mamba2", "attention", PLAIN_MAMBA, {"heads": 2, "head_dim": 4, "state": 4, "groups": 1, "conv": 2}),
    ("Mamba2", "attention", PLAIN_MAMBA, {"bias": "true", "conv_bias": "false", "norm": "false", "norm_groups": 2}),
    ("Mamba2", "attention", PLAIN_MAMBA, {"gate_first": "false", "dt_min": 0.05, "dt_max": 0.01}),
    ("Mamba2", "attention", PLAIN_MAMBA, {"scales": "[1, 2, 1, 1, 1]"}),
    ("GatedDeltaNet", "attention", PLAIN_DELTA, {"key_heads": 4, "value_heads": 2, "key_dim": 4, "value_dim": 4}),
    ("GatedDeltaNet", "attention", PLAIN_DELTA, {"conv": 2}),
    ("LinearAttention", "attention", LINEAR, {"heads": 4, "key_dim": 4, "value_dim": 4, "gate": "lightning"}),
    ("LinearAttention", "attention", LINEAR, {"activation": "silu", "norm": "none", "output_gate": "true"}),
    ("LinearAttention", "attention", LINEAR[:-1] + ", gate: gla}", {"rank": 4, "tau": 4}),
    ("LinearAttention", "attention", LINEAR[:-1] + ", gate: hgrn2}", {"floor": 0.5}),
    ("Branch", "attention.branches.0", BRANCHES, {"input_scale": 2, "output_scale": 2}),
    ("Rope", "position", "{kind: rope, theta: 100}", {"fraction": 0.5}),
    ("LinearScaling", "position.scaling", "{kind: linear, factor: 2}", {"factor": 4}),
    ("Yarn", "position.scaling", YARN, {"factor": 8, "original": 256, "beta_fast": 4, "beta_slow": 0.1}),
    ("Yarn", "position.scaling", YARN, {"temperature": 2, "truncate": "false"}),
    ("Llama3Scaling", "position.scaling", LLAMA3, {"factor": 8, "original": 256}),
    ("Llama3Scaling", "position.scaling", LLAMA3, {"low_frequency": 2, "high_frequency": 8}),
    ("DualChunk", "position.scaling", "{kind: dual_chunk, chunk: 32, local: 8}", {"chunk": 16, "local": 4}),
    ("DualChunk", "position.scaling", "{kind: dual_chunk, chunk: 32, local: 8, original: 64}", {"original": 48}),
    ("Learned", "position", "{kind: learned, length: 64}", {"length": 128}),
    ("SwiGLU", "feedforward", "", {"bias": "true", "gate_scale": 2, "output_scale": 2}),
    ("GeGLU", "feedforward", "{kind: geglu, width: 64}", {"width": 32, "bias": "true", "gate_scale": 2}),
    ("GeGLU", "feedforward", "{kind: geglu, width: 64}", {"output_scale": 2}),
    ("ReLU2", "feedforward", "{kind: relu2, width: 64}", {"width": 32, "bias": "true"}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE, {"experts": 8, "top_k": 1, "width": 8, "shared_width": 8}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE, {"score": "sigmoid", "normalize": "false", "scale": 2}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE, {"activation": "relu2", "bias": "true", "z_loss": 1}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE[:-1] + ", shared_width: 8}", {"shared_gate": "true"}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE[:-1] + ", groups_kept: 1}", {"groups": 2}),
    ("MixtureOfExperts", "feedforward", PLAIN_MOE[:-1] + ", groups: 2}", {"groups_kept": 2}),
    ("BalanceLoss", "feedforward.balance", "{kind: loss}", {"weight": 1, "scope": "local"}),
    ("BalanceBias", "feedforward.balance", "{kind: bias}", {"rate": 1}),
    ("Norm", "norm", "", {"eps": 0.1, "placement": "post", "zero_centered": "true"}),
    ("Model", "", "", {"embedding_scale": 2, "residual_scale": 2, "logit_scale": 2, "logit_softcap": 0.1, "z_loss": 1}),
    ("MultiToken", "multi_token", "{depth: 1}", {"depth": 2, "weight": 1}),
    ("NormalInit", "init", "{kind: normal}", {"std": 0.1}),
    ("TruncatedInit", "init", "{kind: truncated}", {"std": 0.1}),
    ("ScaledInit", "init", "{kind: scaled}", {"std": 0.1}),
    ("MuPInit", "init", "{kind: mup, base_hidden: 16}", {"std": 0.1, "base_hidden": 64}),
)
FIRST = {
    "BalanceLoss": (f"model.feedforward={PLAIN_MOE}",),
    "BalanceBias": (f"model.feedforward={PLAIN_MOE}",),
    **dict.fromkeys(
        ("LinearScaling", "Yarn", "Llama3Scaling", "DualChunk"), ("model.position={kind: rope, theta: 100}",)
    ),
}


def _changes_of_parts() -> Iterator[tuple[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]]]:
    """`PARTS` as lines of `CHANGES`: with its base in place, each field takes its other value."""
    for name, at, base, values in PARTS:
        usual = (*FIRST.get(name, ()), *([f"model.{at.removesuffix('.branches.0')}={base}"] if base else []))
        observer = logits if name == "DualChunk" else few_losses
        for field, value in values.items():
            changed = f"model.{at}.{field}={value}" if at else f"model.{field}={value}"
            yield f"{name}.{field}", (observer, usual, (*usual, changed))


WARM = {
    "attention": "{qk_norm: head}",
    "position": "{theta: 5}",
    "feedforward": "{gate_scale: 2}",
    "norm": "{eps: 0.1}",
    "embedding_scale": 2,
    "residual_scale": 2,
    "logit_scale": 2,
    "logit_softcap": 0.1,
    "z_loss": 1,
    "load": "HERE/ANOTHER",
}
CHANGES |= dict(_changes_of_parts())
CHANGES |= {f"WarmStart.{field}": (warm, (), (f"model.{field}={value}",)) for field, value in WARM.items()}

SCHEDULES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("Cosine", "kind: cosine, warmup_steps: 2", {"warmup_steps": 5, "min_lr_fraction": 0.5}),
    ("WSD", "kind: wsd, warmup_steps: 2, decay_steps: 9", {"warmup_steps": 5, "decay_steps": 4, "decay": "sqrt"}),
    ("WSD", "kind: wsd, warmup_steps: 2, decay_fraction: 0.9", {"decay_fraction": 0.5, "min_lr_fraction": 0.5}),
    ("MultiStep", "kind: multi_step, warmup_steps: 2", {"warmup_steps": 5, "milestones": "[0.3, 0.9]"}),
    ("MultiStep", "kind: multi_step, warmup_steps: 2", {"factors": "[0.5, 0.1]"}),
    (
        "DeepSeekV3",
        "kind: deepseek_v3, warmup_steps: 2, floor_until: 0.98",
        {"warmup_steps": 5, "constant_until": 0.3, "floor": 0.5},
    ),
    (
        "DeepSeekV3",
        "kind: deepseek_v3, warmup_steps: 2, floor_until: 0.98",
        {"cosine_until": 0.8, "floor_until": 0.975, "last": 0.001},
    ),
)


def _changes_of_schedules() -> Iterator[tuple[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]]]:
    for name, fields, values in SCHEDULES:
        base = ("train.stages.0.steps=90", f"train.schedule={{{fields}}}")
        for field, value in values.items():
            yield f"{name}.{field}", (planned, base, (*base, f"train.schedule.{field}={value}"))


CHANGES |= dict(_changes_of_schedules())
RUNGS = "train.batch_warmup={rungs: [{batch_tokens: 128, until: 1k}]}"
AMENDED = "amendments=[{from_step: 3, until_step: 6, set: {train.clip: 0.5}}]"
PAST = "stage: 0, name: past, steps: 4, sequence: 64, batch_tokens: 512, mixture: {docs: 3, math: 7}"
SET = "skip: 2, shared: true, set: {model.position.theta: 5}"
FROM = f"train.from={{run: trunk, step: 4, past: [{{{PAST}, {SET}}}]}}"
TWICE = f"train.from={{run: trunk, step: 8, past: [{{{PAST}}}, {{{PAST}}}]}}"
LATER = f"train.from={{run: trunk, step: 8, past: [{{{PAST}}}, {{{PAST.replace('stage: 0', 'stage: 1')}}}]}}"
STRETCH = {
    "name: past": "name: other",
    "steps: 4": "steps: 5",
    "sequence: 64": "sequence: 128",
    "batch_tokens: 512": "batch_tokens: 1024",
    "mixture: {docs: 3, math: 7}": "mixture: {math: 1}",
    "skip: 2": "skip: 3",
    "shared: true": "shared: false",
    "set: {model.position.theta: 5}": "set: {model.position.theta: 6}",
}
CHANGES |= {
    "Rung.batch_tokens": (planned, (RUNGS,), (RUNGS.replace("128", "256"),)),
    "Rung.until": (planned, (RUNGS,), (RUNGS.replace("1k", "2k"),)),
    "BatchWarmup.scale_lr": (planned, (RUNGS,), (RUNGS, "train.batch_warmup.scale_lr=none")),
    "Amendment.from_step": (planned, (AMENDED,), (AMENDED.replace("3", "4"),)),
    "Amendment.until_step": (planned, (AMENDED,), (AMENDED.replace("6", "7"),)),
    "Amendment.set": (planned, (AMENDED,), (AMENDED.replace("0.5", "0.1"),)),
    "Amendment.skip": (planned, (), ("amendments=[{from_step: 3, skip: 2}]",)),
    "Stretch.stage": (planned, (TWICE,), (LATER,)),
    **{f"Stretch.{old.split(':')[0]}": (planned, (FROM,), (FROM.replace(old, new),)) for old, new in STRETCH.items()},
}

RAMP = "train.stages.1.ramp={steps: 6, rungs: 3}"
CAP = "train.caps={math: {epochs: 0.05}}"
LONG = (
    "dataset.long={long: {of: docs, tokens: 256}}",
    "train.stages.0={name: one, steps: 12, mixture: {docs: 1, long: 1}}",
)
ADAPT = (
    "evals.tasks=[addition, subtraction]",
    "train.adapt={window: 4, gain: 0.03, capabilities: {sums: {tasks: [addition], sources: [math]}, "
    "prose: {validation: [docs], sources: [docs]}}}",
)
WATCHED = "train.adapt.capabilities"
CHANGES |= {
    "Ramp.steps": (planned, (RAMP,), (RAMP.replace("6", "9"),)),
    "Ramp.tokens": (planned, (RAMP,), (RAMP.replace("steps: 6", "tokens: 2k"),)),
    "Ramp.rungs": (planned, (RAMP,), (RAMP, "train.stages.1.ramp.rungs=2")),
    "Cap.epochs": (planned, (CAP,), (CAP.replace("0.05", "0.04"),)),
    "Cap.tokens": (planned, (CAP,), (CAP.replace("epochs: 0.05", "tokens: 1k"),)),
    "Cap.factor": (planned, (CAP,), (CAP, "train.caps.math.factor=0.5")),
    "LongDocuments.of": (losses, LONG, (*LONG, "dataset.long.long={of: math, tokens: 64}")),
    "LongDocuments.tokens": (losses, LONG, (*LONG, "dataset.long.long.tokens=400")),
    "Dataset.classes": (classes, (), ("dataset.classes={sums: [math]}",)),
    "Adapt.window": (adapting, ADAPT, (*ADAPT, "train.adapt.window=7")),
    "Adapt.gain": (adapting, ADAPT, (*ADAPT, "train.adapt.gain=5")),
    "Adapt.factor": (adapting, ADAPT, (*ADAPT, "train.adapt.factor=3")),
    "Capability.tasks": (adapting, ADAPT, (*ADAPT, f"{WATCHED}.sums.tasks=[subtraction]")),
    "Capability.validation": (adapting, ADAPT, (*ADAPT, f"{WATCHED}.prose.validation=[math]")),
    "Capability.sources": (adapting, ADAPT, (*ADAPT, f"{WATCHED}.sums.sources=[docs]")),
}

POD = "infra={nodes: 2, device: cpu, launch: {kubernetes: {image: i}}}"
LAUNCH = {
    "Infra.nodes": "infra.nodes=3",
    "Infra.gpus_per_node": "infra.gpus_per_node=8",
    "Launch.restarts": "infra.launch.restarts=5",
    "Launch.grace_seconds": "infra.launch.grace_seconds=60",
    "Launch.port": "infra.launch.port=29500",
    "Launch.environment": "infra.launch.environment={A: b}",
    "Launch.setup": "infra.launch.setup=[module load cuda]",
    "Launch.teardown": "infra.launch.teardown=[sync]",
    "Slurm.partition": "infra.launch.slurm.partition=fast",
    "Slurm.account": "infra.launch.slurm.account=us",
    "Slurm.time": "infra.launch.slurm.time=1:00:00",
    "Slurm.options": "infra.launch.slurm.options=[--exclusive]",
    "Kubernetes.image": "infra.launch.kubernetes.image=other",
    "Kubernetes.namespace": "infra.launch.kubernetes.namespace=research",
    "Kubernetes.claim": "infra.launch.kubernetes.claim=shared",
    "Kubernetes.size": "infra.launch.kubernetes.size=2Ti",
    "Kubernetes.storage_class": "infra.launch.kubernetes.storage_class=fast",
    "Kubernetes.node_selector": "infra.launch.kubernetes.node_selector={gpu: h100}",
}
CHANGES |= {field: (launching, (POD,), (POD, change)) for field, change in LAUNCH.items()}

OPTIMIZERS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("AdamW", "adamw", {"betas": "[0.8, 0.9]", "eps": 1e-3}),
    ("Muon", "muon", {"betas": "[0.8, 0.9]", "eps": 1e-3, "momentum": 0.5, "nesterov": "false"}),
    ("Muon", "muon", {"adjust_lr": "original", "adamw": "[embedding, attention]"}),
    ("AdEMAMix", "ademamix", {"betas": "[0.9, 0.95, 0.5]", "alpha": 1, "warmup_steps": 20, "eps": 1e-3}),
    ("Lion", "lion", {"betas": "[0.5, 0.9]"}),
)


def _changes_of_optimizers() -> Iterator[tuple[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]]]:
    """Each kind with each of its fields changed, and those that all have."""
    for name, kind, values in OPTIMIZERS:
        base = (f"train.optimizer={{kind: {kind}, lr: 3e-3}}",)
        common = {"lr": 1e-3, "weight_decay": 5, "no_decay": "[norm]"}
        for field, value in {**common, **values}.items():
            yield f"{name}.{field}", (few_losses, base, (*base, f"train.optimizer.{field}={value}"))


CHANGES |= dict(_changes_of_optimizers())
GROUPS = "train.optimizer.groups=[{match: attention, lr_factor: 0.5, weight_decay: 0.1}]"
SKIP = "train.skip_step={sigmas: 0.5, window: 4}"
CHANGES |= {
    "ParameterGroup.match": (few_losses, (GROUPS,), (GROUPS.replace("attention", "feedforward"),)),
    "ParameterGroup.lr_factor": (few_losses, (GROUPS,), (GROUPS.replace("0.5", "2"),)),
    "ParameterGroup.weight_decay": (few_losses, (GROUPS,), (GROUPS.replace("0.1", "9"),)),
    "SkipStep.sigmas": (losses, (SKIP,), (SKIP, "train.skip_step.sigmas=9")),
    "SkipStep.window": (losses, (SKIP,), (SKIP, "train.skip_step.window=12")),
    "SkipStep.patience": (losses, (SKIP,), (SKIP, "train.skip_step.patience=1")),
}


def documents(workshop: Any, folder: Path, name: str, changes: tuple[str, ...]) -> Any:
    """Names and texts of a reader given as JSON, and why other rows are bad."""
    _write_pages(folder)
    bad: list[Any] = []
    reader: Reader = TypeAdapter(Reader).validate_json(changes[0].replace("HERE", str(folder)))
    return [(document.id, document.text) for document in read(reader, "s", 0, bad=bad.append)], bad


@cache
def _write_pages(folder: Path) -> None:
    _write_texts(folder)
    cell = f"<table><tr><td>{'Cell text about metal. ' * 8}</td></tr></table>"
    doubtful = '<div class="teaser"><p>Teaser on coal.</p></div>'
    for file in ("a", "b"):
        content = f"<p>{'Text of ore. ' * 14}{file}</p>{cell}{doubtful}"
        page = f'<html><body><div class="content">{content}</div></body></html>'
        (folder / f"{file}.html").write_text(page)
        answer = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n{page}"
        head = "WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://ore.example/\r\n"
        head += f"WARC-Record-ID: <urn:{file}>\r\nContent-Length: {len(answer)}"
        (folder / f"{file}.warc").write_text(f"{head}\r\n\r\n{answer}\r\n\r\n", newline="")
        (folder / file / "vendor").mkdir(parents=True)
        (folder / file / "short.py").write_text(f"x = '{file}'\n")
        (folder / file / "long.rs").write_text(f"// {'word ' * 100}\n")
        (folder / file / "made.rs").write_text("// @generated\nfn x() {}\n")
        (folder / file / "vendor" / "other.rs").write_text("fn y() {}\n")
    messages = [{"role": "user", "content": "hi"}]
    rows = [{"messages": messages, "turns": messages * 2, "id": "i", "name": "n"}]
    for file in ("one", "two"):
        (folder / f"{file}.chat.jsonl").write_text("".join(json.dumps({**row, "id": file}) + "\n" for row in rows))


def _of_reader(kind: str, at: str, **values: Any) -> dict[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]]:
    """Each field of a kind of reader, changed to a value of its own."""
    base = {"kind": kind, "id": f"HERE/{at}", "subset": "x"} if kind == "hub" else {"kind": kind, "path": f"HERE/{at}"}
    changed = {field: json.dumps(base | {field: value}) for field, value in values.items()}
    return {field: (documents, (json.dumps(base),), (change,)) for field, change in changed.items()}


READERS = {
    "TextFiles": _of_reader("text", "a.txt", max_bytes=3),
    "JsonLines": _of_reader("jsonl", "a.jsonl", id_field="body", max_bytes=9),
    "Parquet": _of_reader("parquet", "a.parquet", id_field="body", max_bytes=3),
    "Hub": _of_reader("hub", "one", id_field="body", max_bytes=3),
    "Html": _of_reader("html", "a.html", path="HERE/b.html", favor="recall", max_bytes=100),
    "Warc": _of_reader("warc", "a.warc", path="HERE/b.warc", favor="recall", max_bytes=100),
    "Chat": _of_reader(
        "chat", "one.chat.jsonl", path="HERE/two.chat.jsonl", field="turns", id_field="name", max_bytes=9
    ),
    "Code": _of_reader(
        "code", "a", path="HERE/b", languages=["Rust"], generated=True, vendored=True, max_line=100, max_bytes=10
    ),
}
CHANGES |= {f"{name}.{field}": change for name, changes in READERS.items() for field, change in changes.items()}

MEASURED: dict[type[Section], dict[str, str]] = {
    GopherQuality: {"stop_words": '["cow"]'},
    GopherRepetition: {"max_top_ngram": '{"2": 1}', "max_duplicate_ngram": '{"5": 1}'},
    C4Quality: {},
    FineWebQuality: {"short_line": "9999"},
    RepeatedSpans: {"max_span": "1"},
    Lengths: {},
    Symbols: {},
}
C4_LINES = {
    "punctuation": "false",
    "min_words": "1",
    "max_word_length": "null",
    "citations": "false",
    "javascript": "false",
    "policy": "false",
}


def _changes_of_filters() -> Iterator[tuple[str, tuple[Observer, tuple[str, ...], tuple[str, ...]]]]:
    """Each threshold where nothing, then where everything is beyond it; and what changes the scores themselves."""
    for section, values in MEASURED.items():
        kind = f'kind="{get_args(section.model_fields["kind"].annotation)[0]}"'
        for field in section.model_fields:
            if field in values:
                yield f"{section.__name__}.{field}", (judged, (kind,), (kind, f"{field}={values[field]}"))
            elif field != "kind":
                limits = (-1, 10**9) if field.startswith("min_") else (10**9, -1)
                base, changed = ((kind, f"{field}={limit}") for limit in limits)
                yield f"{section.__name__}.{field}", (judged, base, changed)


CHANGES |= dict(_changes_of_filters())
CHANGES |= {
    f"C4Lines.{field}": (judged, ('kind="c4-lines"',), ('kind="c4-lines"', f"{field}={value}"))
    for field, value in C4_LINES.items()
}
LANGUAGE, PREDICATE = ('kind="language"', 'keep=["en"]'), ('kind="predicate"', 'function="operator:truth"')
CHANGES |= {
    "PersonalData.remove": (judged, ('kind="pii"',), ('kind="pii"', 'remove=["ip"]')),
    "Language.keep": (judged, LANGUAGE, ('kind="language"', 'keep=["fr"]')),
    "Language.min_score": (judged, (*LANGUAGE, "min_score=0"), (*LANGUAGE, "min_score=1")),
    "Predicate.function": (judged, PREDICATE, ('kind="predicate"', 'function="operator:not_"')),
    "Predicate.min_score": (judged, PREDICATE, (*PREDICATE, "min_score=2")),
}

ELSEWHERE = {
    "Corpus.bad_share": "tests/corpus/test_pipeline.py: whether a build goes on, and by design no document",
    "Language.model": "tests/corpus/test_language.py: a file of another library's format",
    "Predicate.source": "tests/corpus/test_predicate.py: a function that has changed is refused",
    **dict.fromkeys(
        ("Classifier.model", "Classifier.min_score", "Classifier.max_score"),
        "tests/corpus/test_classifier.py: a model that has to be trained first",
    ),
    "Local.workers": "tests/corpus/test_executors.py: who does the work, and by design no document",
    "Ray.memory_gb": "tests/corpus/test_executors.py: what a task reserves, and by design no document",
    **dict.fromkeys(
        ("SlurmArray.partition", "SlurmArray.time", "SlurmArray.memory_gb", "SlurmArray.workers", "SlurmArray.options"),
        "tests/corpus/test_executors.py: what a job array asks for, and by design no document",
    ),
    "ExponentialAverage.decay": "tests/lifecycle/test_averages.py: what is exported, and no loss of the run",
    "Soup.last": "tests/lifecycle/test_averages.py: what is exported, and no loss of the run",
    "Model.load": "tests/marathon/test_warm_start.py: a whole section that starts from a checkpoint",
    "Model.source": "tests/marathon/test_warm_start.py: a checkpoint that has changed is refused",
    "Mamba2.chunk": "tests/model/test_mamba2.py: changes speed and memory, and by design no result",
    "GatedDeltaNet.chunk": "tests/model/test_deltanet.py: changes speed and memory, and by design no result",
    "LinearAttention.chunk": "tests/model/test_linear_attention.py: changes speed and memory, and by design no result",
    "Hub.revision": "tests/corpus/test_hub.py: handed to the hub, which only a network can answer",
    "Hub.streaming": "tests/corpus/test_hub.py: the same documents, read as they come or downloaded first",
    "Checkpoints.upload": "tests/train/test_remote.py: a copy of every checkpoint elsewhere, and by design no loss",
    **dict.fromkeys(
        ("Layout.data", "Layout.replicate", "Layout.zero", "Layout.tensor", "Layout.sequence_parallel"),
        "tests/parallel/test_layouts.py: who holds what, and by design no loss",
    ),
    **dict.fromkeys(
        ("Layout.context", "Layout.expert", "Layout.pipeline", "Layout.schedule", "Layout.stages"),
        "tests/parallel/test_{context,experts,pipeline}.py: who computes what, and by design no loss",
    ),
    "Infra.micro_batch": "tests/train/test_step.py: changes memory and speed, and by design no loss",
    "Infra.recompute": "tests/parallel/test_recompute.py: changes memory and speed, and by design no gradient",
    "Infra.compile": "tests/parallel/test_recompute.py: changes speed, and by design no gradient",
    "Adapt.apply": "tests/marathon/test_mixture_run.py: a run that amends itself",
    "Amendment.by": "tests/marathon/test_mixture_run.py: a run that amends itself",
    "Stretch.packing": "tests/dataset/test_packed_order.py: the past of a branch of a packed run",
    "Trunk.run": "tests/marathon/test_branch.py: a run that goes on from another",
    "Trunk.step": "tests/marathon/test_branch.py: a run that goes on from another",
    "Trunk.optimizer": "tests/marathon/test_branch.py: a run that goes on from another",
}


def test_every_field_of_the_recipe_is_in_the_table() -> None:
    assert set(CHANGES) | set(ELSEWHERE) == set(_leaves(Recipe))
    assert not set(CHANGES) & set(ELSEWHERE)


@pytest.mark.parametrize("field", CHANGES)
def test_a_changed_field_changes_something(workshop, tmp_path: Path, field: str) -> None:
    if field == "Infra.device" and torch.cuda.is_available():
        pytest.skip("with a CUDA device, 'auto' and 'cuda' are the same")
    observe, base, changed = CHANGES[field]
    _write_texts(tmp_path)
    places = {
        "LOADED": next((workshop.project / "artifacts" / "tokenizer").glob("*")),
        "SHARDS": workshop.shards / "math" / "train",
        "CHAT": tmp_path / "chat.jsonl",
    }
    if field == "Tokenizer.load":
        base = ("tokenizer.train.vocab=600",)
    for word, place in places.items():
        changed = tuple(change.replace(word, str(place)) for change in changed)
    slug = field.replace(".", "-")
    before, after = (observe(workshop, tmp_path, f"{slug}-{side}", it) for side, it in (("a", base), ("b", changed)))
    if isinstance(before, dict) and observe is run and field != "Recipe.name":
        before.pop("run"), after.pop("run")
    assert before != after


def _leaves(model: type[BaseModel]) -> set[str]:
    """`Class.field` of every field that holds values rather than sections, over all sections a recipe can have."""
    found: set[str] = set()
    for name, field in model.model_fields.items():
        inner = _sections(field.annotation)
        for each in inner:
            found |= _leaves(each)
        if not inner and name != "kind":
            found.add(f"{model.__name__}.{name}")
    return found


def _sections(annotation: Any) -> list[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [found for part in get_args(annotation) for found in _sections(part)]
