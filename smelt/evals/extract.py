"""The answer in an output, in a canonical form so that equal answers are equal strings."""

import re
from decimal import Decimal

_NUMBER = re.compile(r"(?<![\d.])-?\d+(?:,\d{3})*(?:\.\d+)?")
_SPACES = re.compile(r"\s+")


def last_number(output: str) -> str:
    """The last number of an output, "" where there is none: "-35", "1,000" and "85.0" are read as -35, 1000 and 85.

    A minus sign counts where it directly precedes the digits and no digit precedes it: "47-12" ends in 12.
    """
    found = _NUMBER.findall(output.replace("\u2212", "-"))
    return f"{Decimal(found[-1].replace(',', '')).normalize() + 0:f}" if found else ""


def short_answer(output: str) -> str:
    """The line after the last "Answer:", or else the first line that holds any text.

    Spaces are made single, a final full stop and quotes or brackets around the whole are dropped.
    """
    _, _, after = output.rpartition("Answer:")
    line = next((line for line in after.splitlines() if line.strip()), "")
    return _SPACES.sub(" ", line).strip().removesuffix(".").strip("\"'[] ")
