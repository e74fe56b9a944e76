"""Numbers with units: `8T`, `2.36M`, `4k`, `64Ki`."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

UNITS = {"": 1, "k": 10**3, "M": 10**6, "B": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_PATTERN = re.compile(r"([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE]\+?[0-9]+)?)\s*([A-Za-z]*)")


def parse_count(value: Any) -> Any:
    """A whole number from `1234`, `"8T"`, `"2.36M"` or `"4Ki"`; ValueError names the unit that is wrong."""
    if isinstance(value, bool) or value is None:
        raise ValueError(f"expected a number such as 4096, 4k or 2.36M, got {value}")
    if isinstance(value, float):
        if not value.is_integer():
            raise ValueError(f"expected a whole number, got {value}")
        return int(value)
    if not isinstance(value, str):
        return value
    match = _PATTERN.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"expected a number such as 4096, 4k or 2.36M, got '{value}'")
    number, unit = match.groups()
    if unit not in UNITS:
        near = next((known for known in UNITS if known and known.lower() == unit.lower()), None)
        mend = f"did you mean '{near}'?" if near else "units are k M B T (powers of 1000) and Ki Mi Gi (of 1024)"
        raise ValueError(f"unknown unit '{unit}' in '{value}'; {mend}")
    exact = Decimal(number.replace("_", "")) * UNITS[unit]
    if exact != exact.to_integral_value():
        raise ValueError(f"'{value}' is not a whole number")
    return int(exact)


Count = Annotated[int, BeforeValidator(parse_count), Field(gt=0)]
CountOrZero = Annotated[int, BeforeValidator(parse_count), Field(ge=0)]


def parse_moment(value: Any) -> Any:
    """A share between 0 and 1 as it is; anything else as `parse_count` has it."""
    if isinstance(value, float) and 0 < value < 1:
        return value
    return parse_count(value)


# A point of a schedule: a share of its tokens, between 0 and 1, or a number of steps.
Moment = Annotated[float, BeforeValidator(parse_moment), Field(gt=0)]
