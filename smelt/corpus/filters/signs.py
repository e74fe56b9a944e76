"""Sets of signs that the published filters speak of, as facts: code points, not a library's idea of them, so that
decisions stay the same when a library learns a newer Unicode."""

import string
import unicodedata

ASSIGNED = (*map(chr, range(0x32400)), *map(chr, range(0xE0000, 0xE0200)))
"""All characters that Unicode 17 assigns, private ones aside, and some that it leaves free."""
IDEOGRAPHS = "\u3005-\u3007\u3041-\u3096\u30a1-\u30fa\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
"""Han, Hiragana and Katakana, as ranges of a regular expression."""

# Unicode's property Sentence_Terminal of version 15.0, with three signs of Khmer.
_TERMINAL_RANGES = """
0021 002E 003F 0589 061D-061F 06D4 0700-0702 07F9 0837 0839 083D-083E 0964-0965 104A-104B 1362 1367-1368 166E 1735-1736
17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F 203C-203D 2047-2049
2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52
FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD
111DE-111DF 11238-11239 1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946
11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 16E98 1BC9F 1DA88
"""


def _expand(ranges: str) -> frozenset[str]:
    bounds = [[int(bound, 16) for bound in each.split("-")] for each in ranges.split()]
    return frozenset(chr(code) for each in bounds for code in range(each[0], each[-1] + 1))


BREAKS = "\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
"""What ends a line, to `str.splitlines`."""
FREE_CONTROLS = "\t" + BREAKS
"""Control characters that format text."""
TERMINALS = _expand(_TERMINAL_RANGES)
"""What ends a sentence, in any script."""
SPACED_TERMINALS = ".!?\u2026"
"""Those that end a sentence only where white space or the end of the text follows (3.14 is no end)."""
CLOSERS = "\"'\u201d\u2019\u00bb)]}\u300d\u300f\uff09\u3011"
"""What may stand between the end of a sentence and the space after it."""
# The punctuation of CCNet (Wenzek et al. 2020; its fullwidth digit one included) and control characters.
PUNCTUATION = (
    frozenset(string.punctuation)
    | frozenset(
        "\u00ab\u00b4\u00bb\u2013\u2014\u2019\u201c\u201d\u201e\u2026\u2236\u2501\u25ba\u3001\u3002\u3008\u3009\u300a"
        "\u300b\u300c\u300d\u3010\u3011\uff01\uff05\uff08\uff09\uff0c\uff0e\uff11\uff1a\uff1b\uff1f\uff5e"
    )
    | frozenset(chr(code) for code in (*range(9), *range(11, 32), *range(127, 160)))
    | TERMINALS
)
"""A word of nothing but these is a symbol, not a word, to Gopher's rules."""
BULLETS = ("\u2022", "-")
ELLIPSES = ("...", "\u2026")
# How Windows-1252 shows the bytes 0x80-0x9f; what it leaves undefined stays a control character.
_WINDOWS = "".join(bytes([byte]).decode("cp1252", "ignore") for byte in range(0x80, 0xA0))
CONTINUATIONS = frozenset(_WINDOWS) | frozenset(map(chr, range(0x80, 0xC0)))
"""What the second and later bytes of a character look like where UTF-8 was read as Latin-1 or Windows-1252."""


def is_mark(char: str) -> bool:
    """Whether it is written onto the letter before it."""
    return unicodedata.category(char)[0] == "M"


def is_broken(char: str) -> bool:
    """Whether it is the replacement character, a control that formats no text, private, unassigned or a surrogate."""
    return char == "\ufffd" or (unicodedata.category(char) in ("Cc", "Cn", "Co", "Cs") and char not in FREE_CONTROLS)
