"""The tokenizer lab's results as tables for a terminal."""

from collections.abc import Mapping, Sequence
from typing import Any

from smelt.tokenizer.measure import METRICS


def comparison_table(found: Mapping[str, Any], only: bool) -> str:
    """A table a metric over all languages, then all measures within each language, unless `only` the first is asked."""
    names = found["tokenizers"]
    wide = max(12, *(len(name) for name in names))
    lines = [f"{'ids':>{wide + 10}}  {'padded':>8}"]
    lines += [f"{name:{wide}}{facts['ids']:>10,}  {facts['padded']:>8,}" for name, facts in names.items()]
    for metric, values in found["by"].items():
        languages = list(dict.fromkeys(language for each in values.values() for language in each))
        lines += ["", f"{METRICS[metric]} ({metric})", " " * wide + "".join(f"{each:>9}" for each in languages)]
        for name, each in values.items():
            lines.append(f"{name:{wide}}" + "".join(f"{each[language]:>9.3f}" for language in languages))
    return "\n".join(lines if only else lines + _by_language(found["rows"], wide))


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a size: bytes a token by source, what it saves against the size before, the embedding's share."""
    sources = list(rows[0]["bytes_per_token"])
    wide = [max(9, len(source) + 2) for source in sources]
    head = "".join(f"{source:>{width}}" for source, width in zip(sources, wide, strict=True))
    last = "embedding" if "embedding_share" in rows[0] else ""
    lines = ["bytes a token, to be compared within a column", f"{'ids':>9}{head}{'saved':>9}{last:>11}"]
    for row in rows:
        ratios = "".join(
            f"{row['bytes_per_token'][each]:>{width}.3f}" for each, width in zip(sources, wide, strict=True)
        )
        saved = "" if row["saved"] is None else f"{100 * row['saved']:.1f} %"
        share = f"{100 * row['embedding_share']:.1f} %" if "embedding_share" in row else ""
        lines.append(f"{row['ids']:>9,}{ratios}{saved:>9}{share:>11}")
    return "\n".join(lines)


def _by_language(rows: Sequence[Mapping[str, Any]], wide: int) -> list[str]:
    lines = []
    for language, domain in dict.fromkeys((row["language"], row["domain"]) for row in rows):
        lines += ["", f"{language}, {domain}", f"{'fertility':>{wide + 11}}     PCW  bytes/token  chars/token     MB/s"]
        for row in rows:
            if (row["language"], row["domain"]) == (language, domain):
                lines.append(
                    f"{row['tokenizer']:{wide}}{row['fertility']:>11.3f}{row['pcw']:>8.3f}{row['bytes_per_token']:>13.3f}"
                    f"{row['characters_per_token']:>13.3f}{row['megabytes_per_second']:>9.1f}"
                )
    return lines
