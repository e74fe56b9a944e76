"""Numbers as people read them: 1.2M tokens, 14 min, 87.5 %."""

import math

_SCALES = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def count(value: float) -> str:
    """1234567 -> "1.23M"; three digits that matter, k M B T as powers of 1000."""
    for scale, unit in _SCALES:
        if abs(value) >= 0.9995 * scale:
            return f"{_three(value / scale)}{unit}"
    return _three(value)


def duration(seconds: float) -> str:
    """Seconds -> "0.4 s", "42 s", "4 min 05 s", "14 min", "3 h 05 min", "2 d 4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if seconds < 599.5:
        return f"{round(seconds) // 60} min {round(seconds) % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes:02d} min"
    return f"{hours // 24} d {hours % 24} h"


def percent(share: float) -> str:
    """0.8754 -> "87.5 %"; 0 and 1 without decimals."""
    digits = 0 if share in (0, 1) else 1
    return f"{100 * share:.{digits}f} %"


def number(value: float) -> str:
    """A plain decimal with four digits that matter."""
    return f"{value:.4g}"


def scientific(value: float) -> str:
    """0.0005 -> "5e-4"."""
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{float(mantissa):g}e{int(exponent)}" if value else "0"


def score(value: float, metric: str) -> str:
    """A task's score: a share as per cent, anything else as a number."""
    return percent(value) if is_share(metric) else number(value)


def is_share(metric: str) -> bool:
    """Whether a metric counts right answers out of all, so that it lies in 0..1."""
    return any(word in metric for word in ("acc", "match", "pass", "rate", "correct", "exact"))


def _three(value: float) -> str:
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value)) + 1e-9))
    text = f"{value:.{min(digits, 6)}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text
