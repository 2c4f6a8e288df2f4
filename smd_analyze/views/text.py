"""Numbers and names as a person reads them: four digits, no NaN, long names shortened in the middle."""

from __future__ import annotations

import math
import re
from typing import Any

MISSING = "–"


def present(value: Any) -> bool:
    """Is there a number to show? Null is none, and neither is NaN or an infinity."""
    return value is not None and not (isinstance(value, float) and not math.isfinite(value))


def number(value: Any, digits: int = 4, scale: float = 1.0) -> str:
    """`value × scale` with so many significant digits; a dash for a missing one."""
    if not present(value):
        return MISSING
    if isinstance(value, bool | str):
        return str(value)
    if isinstance(value, int) and scale == 1.0:
        return f"{value:,}".replace(",", "\u2009") if value >= 10_000 else str(value)
    scaled = value * scale
    if scaled != 0 and not 1e-3 <= abs(scaled) < 1e5:
        return f"{scaled:.{digits - 1}e}".replace("e-0", "e-").replace("e+0", "e")
    return f"{scaled:#.{digits}g}".rstrip(".")


def given(value: Any) -> str:
    """A hyperparameter as it was written: no more digits than it needs."""
    return f"{value:.6g}" if present(value) else MISSING


def interval(value: Any, low: Any, high: Any, scale: float = 1.0, digits: int = 3) -> str:
    """`1.45±0.03`, or `1.45 −0.02 +0.09` where the interval is not symmetric; the value alone where there is none."""
    sides = _sides(value, low, high, scale)
    if sides is None:
        return number(value, digits, scale)
    widest = max(sides)
    places = min(10, _places(widest))
    if min(sides) > 0.8 * widest:
        return f"{value * scale:.{places}f}±{widest:.{places}f}"
    return f"{value * scale:.{places}f} −{sides[0]:.{places}f} +{sides[1]:.{places}f}"


def compact(value: Any, low: Any, high: Any, scale: float = 1.0, digits: int = 3) -> str:
    """`1.45±0.09`, the wider side of the interval, however lopsided it is: for a narrow column."""
    sides = _sides(value, low, high, scale)
    if sides is None:
        return number(value, digits, scale)
    places = _places(max(sides))
    if places > 4 or abs(value * scale) < 0.01:
        return f"{value * scale:.1e}±{max(sides):.0e}".replace("e-0", "e-")
    return f"{value * scale:.{places}f}±{max(sides):.{places}f}"


def _sides(value: Any, low: Any, high: Any, scale: float) -> tuple[float, float] | None:
    """How far the interval reaches below and above, or None where there is none."""
    if not (present(value) and present(low) and present(high)):
        return None
    sides = (value - low) * scale, (high - value) * scale
    return sides if max(sides) > 0 else None


def _places(uncertainty: float) -> int:
    """Decimals that show two digits of an uncertainty that starts with 1 or 2, else one."""
    lead, _, exponent = f"{uncertainty:.1e}".partition("e")
    return max(0, 1 - int(exponent) - (lead[0] not in "12"))


def shorten(name: str, width: int) -> str:
    """At most `width` characters, with … in the middle: both ends of a layer's name tell something."""
    if len(name) <= width:
        return name
    tail = (width - 1) * 3 // 5
    return f"{name[: width - 1 - tail]}…{name[len(name) - tail :]}"


def abbreviate(name: str, width: int) -> str:
    """At most `width` characters: the first words of a dotted name become their initials, its numbers and end stay."""
    words = name.split(".")
    for i, word in enumerate(words[:-1]):
        if len(".".join(words)) <= width:
            break
        words[i] = word if word.isdigit() else word[:1]
    return shorten(".".join(words), width)


def fold(name: str, width: int) -> str:
    """The name on as many lines as it needs, broken at its dots; a part that is still too long is shortened."""
    lines = [""]
    for part in re.split(r"(?<!\.)(?=\.[^.])", name):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(shorten(line, width) for line in lines)


def angle_scale(values: list[Any]) -> tuple[float, str]:
    """Factor and unit in which the largest of these angles per step (radians) is easy to read."""
    largest = max((abs(value) for value in values if present(value)), default=0.0)
    return (1e6, "µrad/step") if 0 < largest < 1e-4 else (1e3, "mrad/step")


def size(nbytes: Any) -> str:
    """Bytes in kB, MB or GB."""
    if not present(nbytes):
        return MISSING
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= factor:
            return f"{nbytes / factor:.3g} {unit}"
    return f"{nbytes} B"


def counted(count: int, noun: str) -> str:
    """`1 layer`, `3 layers`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
