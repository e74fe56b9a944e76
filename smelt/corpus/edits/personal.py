"""E-mail addresses, public IP addresses and phone numbers become placeholders.

Patterns are bounded, so that no text, however odd, takes longer than its length warrants. Private addresses stay, and
so do numbers that only might be a phone's.
"""

import ipaddress
import re
from collections.abc import Callable, Mapping

from smelt.corpus.edits.edit import Edit
from smelt.recipe.sections.edits import PersonalData

_LOCAL = r"[A-Za-z0-9._%+-]"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = re.compile(rf"(?<!{_LOCAL}){_LOCAL}{{1,64}}@(?:{_LABEL}\.){{1,8}}[A-Za-z]{{2,24}}(?![\w@(-])")
_OCTETS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
_GROUPS = r"[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{3,34}"  # what is routed today begins with 2 or 3
_ADDRESS = re.compile(rf"(?<![\w.:-])(?:{_OCTETS}(?![\w-]|\.[0-9])|{_GROUPS}(?![\w:]))")
_CODE = r"\+[1-9][0-9]{0,2}[ -]?(?:\([0-9]{1,4}\)[ -]?)?"
_ABROAD = rf"(?<![\w)+*/^=.-])(?<![0-9] ){_CODE}[0-9]{{1,4}}(?:[ -]?[0-9]{{2,4}}){{1,4}}(?![\w(]|[.,][0-9])"
_AMERICA = r"(?<![\w.+-])(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-. ])[2-9][0-9]{2}[-.][0-9]{4}(?![\w-]|\.[0-9])"
_PHONE = re.compile(rf"{_ABROAD}|{_AMERICA}")
# What is cheap to look for, and in every text that has one: most texts have none.
_ADDRESS_SIGN = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:")
_PHONE_SIGN = re.compile(r"[0-9]{3}[-.][0-9]{4}|\+[1-9]")
_DIGITS = range(9, 16)  # of a telephone number with its country's code (ITU-T E.164: at most 15)


def personal_data(section: PersonalData) -> Edit:
    """The edit of a recipe's section; its changes count `email`, `ip` and `phone`."""
    finders = [(name, *_FINDERS[name]) for name in ("email", "ip", "phone") if name in section.remove]

    def edit(text: str) -> tuple[str, Mapping[str, int]]:
        changes = {}
        for name, sign, pattern, wanted in finders:
            text, number = _replaced(text, sign, pattern, f"<{name}>", wanted)
            if number:
                changes[name] = number
        return text, changes

    return edit


def _replaced(
    text: str, sign: re.Pattern[str], pattern: re.Pattern[str], by: str, wanted: Callable[[str], bool]
) -> tuple[str, int]:
    """Replace what matches and is wanted; only lines with a `sign` are looked at, as no match goes across lines."""
    number = done = 0
    pieces = []

    def one(match: re.Match[str]) -> str:
        nonlocal number
        found = wanted(match[0])
        number += found
        return by if found else match[0]

    while sighted := sign.search(text, done):
        start, end = text.rfind("\n", done, sighted.start()) + 1 or done, text.find("\n", sighted.end())
        end = len(text) if end < 0 else end
        pieces += (text[done:start], pattern.sub(one, text[start:end]))
        done = end
    return ("".join((*pieces, text[done:])) if number else text), number


def _public(found: str) -> bool:
    """Whether it is an address of the open internet; four small numbers are rather those of a section or a release."""
    try:
        address = ipaddress.ip_address(found)
    except ValueError:
        return False
    large = sum(octet >= 10 for octet in address.packed)
    return address.is_global and not address.is_multicast and (address.version == 6 or large >= 2)


def _telephone(found: str) -> bool:
    return not found.startswith("+") or sum(map(str.isdigit, found)) in _DIGITS


_FINDERS: dict[str, tuple[re.Pattern[str], re.Pattern[str], Callable[[str], bool]]] = {
    "email": (re.compile("@"), _EMAIL, lambda found: ".." not in found),
    "ip": (_ADDRESS_SIGN, _ADDRESS, _public),
    "phone": (_PHONE_SIGN, _PHONE, _telephone),
}
