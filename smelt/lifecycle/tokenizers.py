"""The tokenizer lab's steps over places on disk: tokenizers compared, vocabularies swept, one chosen for a recipe."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from smelt.corpus.build import documents
from smelt.errors import InputError
from smelt.files import read_json, write_json
from smelt.recipe.account import parameters
from smelt.recipe.schema import Recipe
from smelt.recipe.sections.model import Model
from smelt.report.style import save
from smelt.report.tokenizer_plots import comparison, vocabulary_sweep
from smelt.tokenizer.choose import Candidate, Choice, Target, choose, embedding_share
from smelt.tokenizer.measure import Measured, across, check_metric, compare, pooled
from smelt.tokenizer.sample import mixture_weights, sample
from smelt.tokenizer.sweep import gains, sweep
from smelt.tokenizer.texts import texts_at
from smelt.tokenizer.tokenizer import Tokenizer, load_tokenizer, padded

HELD_OUT_BYTES = 2_000_000  # of each source
_FIGURE = ("fertility", "pcw")


def compare_tokenizers(
    places: Sequence[str], texts: Sequence[str], limit: int, by: str | None, out: Path | None
) -> dict[str, Any]:
    """{"tokenizers": facts by name, "rows": measures by language and domain, "by": a metric's table, if asked for}.

    `places` are `[NAME=]PLACE` of tokenizers, `texts` are places as `texts_at` reads them, `limit` bytes of each. Under
    `out`, if given, the same as comparison.json and as comparison.png.
    """
    tokenizers = _named(places)
    samples = [texts_at(place, limit) for place in texts]
    if by is not None:
        check_metric(by, {each.language for each in samples})
    rows = compare(tokenizers, samples)
    facts = {name: {"ids": len(each), "padded": each.padded, "hash": each.hash} for name, each in tokenizers.items()}
    found: dict[str, Any] = {"tokenizers": facts, "rows": [row.row() for row in [*rows, *_all_domains(rows)]]}
    found["by"] = {metric: across(rows, metric) for metric in ((by,) if by else ("fertility", "pcw"))}
    if out is not None:
        write_json(out / "comparison.json", found)
        shown = (by,) if by else _FIGURE
        save(comparison({metric: across(rows, metric) for metric in shown}), out / "comparison.png")
    return found


def sweep_tokenizers(recipe: Recipe, corpus: Path, sizes: Sequence[int], out: Path | None) -> list[dict[str, Any]]:
    """A row a size: bytes a token of each source's validation documents, the share of tokens saved against the size
    before, and the embedding's share of the recipe's model, if it has one. Under `out`, sweep.json and sweep.png."""
    section = recipe.section("tokenizer").train
    if section is None:
        raise InputError("tokenizer.train: missing; a sweep trains tokenizers, so say how (tokenizer: {train: {}})")
    small = [size for size in sizes if size < 384]
    if small or len(set(sizes)) < 2:
        raise InputError("--sizes: give two or more, from 384 up, such as 4Ki,8Ki,16Ki")
    weights = mixture_weights(recipe) if section.draw == "mixture" else None
    learnt = list(sample(corpus, section.sample_bytes, weights))
    held_out = {source: _held_out(corpus, source) for source in recipe.section("corpus").sources}
    found = sweep(section, sizes, learnt, held_out)
    rows = [{**size.row(), "saved": gain} for size, gain in zip(found, [None, *gains(found)], strict=True)]
    model = recipe.model
    shares = None
    if isinstance(model, Model):
        shares = [_share(model, padded(size.ids)) for size in found]
        rows = [{**row, "embedding_share": share} for row, share in zip(rows, shares, strict=True)]
    if out is not None:
        write_json(out / "sweep.json", rows)
        save(vocabulary_sweep(rows, shares), out / "sweep.png")
    return rows


def choose_tokenizer(
    recipe: Recipe, compared: Path, weights: Mapping[str, float], max_share: float, max_fertility: float
) -> Choice:
    """A tokenizer of a saved comparison for the recipe's model and the languages in `weights` (all alike, if empty).

    Of a checkpoint that the model starts from, all but the weights is read.
    """
    found = read_json(compared)
    try:
        names = {field.name for field in fields(Measured)}
        rows = [Measured(**{key: row[key] for key in names}) for row in found["rows"] if row["domain"] != "all"]
        vocabularies = {name: facts["padded"] for name, facts in found["tokenizers"].items()}
    except (KeyError, TypeError):
        raise InputError(f"{compared}: not a comparison; make it with smelt tokenizer compare --out") from None
    fertility = across(rows, "fertility")
    languages = weights or {language: 1.0 for each in fertility.values() for language in each}
    candidates = [Candidate(name, vocabularies[name], fertility[name]) for name in vocabularies]
    if recipe.section("model").load is not None:
        from smelt.model.warm import resolved  # torch, which no other recipe needs

        recipe = resolved(recipe)
    return choose(candidates, target(recipe.section("model"), languages), max_share, max_fertility)


def target(model: Model, languages: Mapping[str, float]) -> Target:
    """What a choice has to know of a model."""
    counts = parameters(model, 0)
    return Target(model.hidden, counts["total"], counts["active"], model.tie_embeddings, languages)


def _share(model: Model, vocabulary: int) -> float:
    return embedding_share(vocabulary, model.hidden, parameters(model, 0)["total"], model.tie_embeddings)


def _named(places: Sequence[str]) -> dict[str, Tokenizer]:
    found: dict[str, Tokenizer] = {}
    for each in places:
        name, equals, place = each.partition("=")
        if not equals:
            name, place = Path(each).name, each
        if name in found:
            raise InputError(f"'{each}': there is a tokenizer named '{name}' already; write NAME={place}")
        found[name] = load_tokenizer(place)
    return found


def _all_domains(rows: Sequence[Measured]) -> list[Measured]:
    """Sums over the domains of each language that has several."""
    count = Counter((row.tokenizer, row.language) for row in rows)
    return [row for row in pooled(rows) if count[row.tokenizer, row.language] > 1]


def _held_out(corpus: Path, source: str) -> list[str]:
    texts, size = [], 0
    for document in documents(corpus, source, "validation"):
        texts.append(document.text)
        size += len(document.text.encode())
        if size >= HELD_OUT_BYTES:
            break
    return texts
