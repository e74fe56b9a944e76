"""`smelt data plan`: what each stage of a recipe will consume, as a table and a picture, before anything runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smelt.cli.common import HERE, Json, Overrides, Project, RecipeFile, answer, load, say


def plan(
    recipe: RecipeFile,
    overrides: Overrides = None,
    have: Annotated[
        list[str] | None, typer.Option(help="Tokens a source holds, such as math=54B, where its shards are not here.")
    ] = None,
    picture: Annotated[
        Path | None, typer.Option(help="Where to draw it (.png, .svg), else artifacts/plans/NAME.png.")
    ] = None,
    project: Project = HERE,
    as_json: Json = False,
) -> None:
    """Draw what each stage will consume: tokens and epochs by source, sums by class, ramps and caps worked out.

    Example: smelt data plan recipes/mixtures/smollm3.yaml --have finemath=34B
    """
    loaded = load(recipe, overrides)
    from smelt.dataset.account import account
    from smelt.lifecycle.planning import available_tokens, packing_plan, stated_tokens, with_past
    from smelt.report.mixture_plan import plan_figure
    from smelt.report.style import save

    loaded = with_past(loaded, project)
    facts = account(loaded, available_tokens(loaded, project, stated_tokens(have or [], loaded)))
    facts["packing"] = packing_plan(loaded, project)
    out = picture or project / "artifacts" / "plans" / f"{loaded.name}.png"
    save(plan_figure(facts, loaded.dataset.classes), out)
    for line in (*facts["notices"], *facts["warnings"]):
        say(f"note: {line}")
    answer(as_json, {**facts, "picture": out}, f"{_table(facts)}\n\npicture: {out}")


def _table(facts: dict[str, Any]) -> str:
    from smelt.report.units import count

    stages = facts["stages"]
    wide = max([16, *(len(name) for name in (*facts["sources"], *facts["classes"]))])
    head = [f"{stage['name'][:14]} {count(stage['tokens'])}" for stage in stages]
    columns = [max(12, len(each)) for each in head]
    titles = "".join(f"  {each:>{width}}" for each, width in zip(head, columns, strict=True))
    lines = [f"{'share of':{wide}}{titles}  {'tokens':>8}  {'holds':>8}  {'epochs':>6}"]
    ends = "".join(f"  {stage['last_step']:>{width},}" for stage, width in zip(stages, columns, strict=True))
    lines.append(f"{'to step':{wide}}{ends}")
    for name, total in facts["sources"].items():
        holds = count(total["available"]) if total["available"] else "?"
        epochs = "?" if total["epochs"] is None else f"{total['epochs']:.2f}"
        cap = f"  capped: weights x {total['cap_factor']:g}" if total["cap_factor"] not in (None, 1) else ""
        parts = [stage["sources"].get(name, {}).get("share") for stage in stages]
        ends = f"  {count(total['tokens']):>8}  {holds:>8}  {epochs:>6}{cap}"
        lines.append(f"{name:{wide}}{_shares(parts, columns)}{ends}")
    if facts["classes"]:
        lines.append("by class")
        for name, share in facts["classes"].items():
            parts = [stage["classes"].get(name) for stage in stages]
            lines.append(f"{name:{wide}}{_shares(parts, columns)}  {count(share * facts['tokens']):>8}")
    for name, each in facts["packing"].items():
        packed = each["best-fit"]
        saved = f"the document mask saves {packed['attention_saved']:.0%} of attention"
        cut = f"{packed['cut']:.1%} of documents cut, {each['concatenate']['cut']:.1%} if concatenated"
        lines.append(f"packed {name}: padding {packed['padding']:.2%} of tokens; {cut}; {saved}")
    return "\n".join(lines)


def _shares(parts: list[float | None], columns: list[int]) -> str:
    words = ["-" if not part else f"{100 * part:.{2 if part >= 0.001 else 3}f} %" for part in parts]
    return "".join(f"  {word:>{width}}" for word, width in zip(words, columns, strict=True))
