"""Which tokenizer a model should take, with the reasons: reuse the cheapest one that covers its languages, or train.

A word costs a tokenizer's fertility times what the model computes a token, and a larger vocabulary lowers the one and
raises the other; so the choice depends on the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MAX_SHARE = 0.25
MAX_FERTILITY = 2.5
_MULTIPLE = 128


@dataclass(frozen=True)
class Candidate:
    """A tokenizer: rows of embedding that it asks for, and its fertility by language."""

    name: str
    vocabulary: int
    fertility: Mapping[str, float]


@dataclass(frozen=True)
class Target:
    """The model and its languages: `body` counts all parameters but embedding and head, `active` those a token meets.

    `languages` weighs each language, by the share of its words.
    """

    hidden: int
    body: int
    active: int
    tied: bool
    languages: Mapping[str, float]


@dataclass(frozen=True)
class Verdict:
    """What a candidate would mean: its embedding's `share` of all parameters, mean tokens a word, training FLOPs a word
    (6 a parameter that multiplies, Kaplan et al. 2020), and why it will not do, if so."""

    candidate: Candidate
    share: float
    fertility: float
    flops_per_word: float
    against: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """`name` of the tokenizer to reuse, None where one should be trained; the reasons, and all verdicts, best first."""

    name: str | None
    reasons: tuple[str, ...]
    verdicts: tuple[Verdict, ...]


def embedding_share(vocabulary: int, hidden: int, body: int, tied: bool) -> float:
    """Embedding (and head, unless tied) over all parameters of a model whose other ones are `body`."""
    embedding = vocabulary * hidden * (1 if tied else 2)
    return embedding / (body + embedding)


def choose(
    candidates: Sequence[Candidate],
    target: Target,
    max_share: float = MAX_SHARE,
    max_fertility: float = MAX_FERTILITY,
) -> Choice:
    """The candidate with the fewest training FLOPs a word among those that cover every language, at no more than
    `max_fertility` tokens a word, in no more than `max_share` of the parameters.

    Without any such candidate the advice is to train one, and the reasons say what stood in the way.
    """
    verdicts = sorted(
        (_verdict(each, target, max_share, max_fertility) for each in candidates),
        key=lambda verdict: (bool(verdict.against), verdict.flops_per_word),
    )
    fit = [verdict for verdict in verdicts if not verdict.against]
    if fit:
        return Choice(fit[0].candidate.name, tuple(_for(fit)), tuple(verdicts))
    reasons = [f"{each.candidate.name} will not do: {'; '.join(each.against)}" for each in verdicts]
    return Choice(None, (*reasons, _size(target, max_share)), tuple(verdicts))


def _verdict(candidate: Candidate, target: Target, max_share: float, max_fertility: float) -> Verdict:
    share = embedding_share(candidate.vocabulary, target.hidden, target.body, target.tied)
    against = []
    missing = [language for language in target.languages if language not in candidate.fertility]
    if missing:
        against.append(f"not measured on {', '.join(missing)}")
    for language in target.languages:
        if candidate.fertility.get(language, 0.0) > max_fertility:
            against.append(
                f"{candidate.fertility[language]:.2f} tokens a word in {language}, more than {max_fertility:g}"
            )
    if share > max_share:
        saved = share - embedding_share(candidate.vocabulary, target.hidden, target.body, tied=True)
        tie = "" if target.tied else f" (tied embeddings would bring it down by {saved:.0%})"
        against.append(f"its embeddings are {share:.0%} of the parameters, more than {max_share:.0%}{tie}")
    known = {each: weight for each, weight in target.languages.items() if each in candidate.fertility}
    whole = sum(known.values())
    fertility = sum(candidate.fertility[each] * weight for each, weight in known.items()) / whole if whole else 0.0
    flops = 6 * (target.active + candidate.vocabulary * target.hidden) * fertility
    return Verdict(candidate, share, fertility, flops, tuple(against))


def _for(fit: Sequence[Verdict]) -> list[str]:
    best = fit[0]
    reasons = [
        f"{best.candidate.name} covers every language at {best.fertility:.2f} tokens a word, in {best.share:.1%} of "
        "the parameters"
    ]
    for other in fit[1:]:
        tokens, flops = other.fertility / best.fertility - 1, other.flops_per_word / best.flops_per_word - 1
        reasons.append(
            f"{other.candidate.name} takes {abs(tokens):.1%} {'more' if tokens >= 0 else 'fewer'} tokens, at "
            f"{other.candidate.vocabulary:,} ids against {best.candidate.vocabulary:,}: {flops:.1%} more FLOPs a word"
        )
    return reasons


def _size(target: Target, max_share: float) -> str:
    rows = 1 if target.tied else 2
    limit = int(max_share / (1 - max_share) * target.body / target.hidden / rows) // _MULTIPLE * _MULTIPLE
    return (
        f"train one on a sample like the final mixture, of at most {limit:,} ids, which are {max_share:.0%} of the "
        "parameters; smelt tokenizer sweep shows what sizes below that gain"
    )
