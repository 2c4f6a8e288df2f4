"""A recognised schedule in words, with the numbers that make it up and their intervals."""

from __future__ import annotations

from collections.abc import Sequence

from smd_analyze.schedule.shapes import CONSTANT, NONE, STEPS, Shape, Value

Z95 = 1.96
FEW = 6  # changes that are named one by one
AT_NOTHING = 1e-3  # of the peak: a floor that the readings do not tell from zero


def in_words(
    shape: Shape, levels: Sequence[tuple[float, float]], sizes: Sequence[int], dates: Sequence[Sequence[float]]
) -> str:
    """One line on the form of the rates: `constant`, `divided by 10.00 at step 3040.0±0.2`, `cosine to 0 at step …`.

    `levels`: rate and standard deviation of each constant stretch, `sizes` its number of intervals. `dates`: step, low
    and high of the changes that could be dated, in order.
    """
    p = shape.parameters
    if shape.kind == "":
        words = "too few intervals to tell its form" if shape.points else ""
        return "; ".join([part for part in (words, _jumps(levels, sizes, dates)) if part])
    if shape.kind == CONSTANT:
        return "constant"
    if shape.kind == STEPS:
        return _jumps(levels, sizes, dates) or "constant in steps"
    if shape.kind == NONE:
        dated = _jumps(levels, sizes, dates) if dates else ""
        return NONE + (f"; {dated}" if dated else "")
    words = {
        "linear": "linear decay{end0}",
        "exponential": "exponential decay, halved every {half} steps",
        "warm-up, then constant": "warm-up{up}, then constant",
        "warm-up, then inverse square root": "warm-up{up}, then falling as 1/√step",
        "cosine": "cosine{end}",
        "polynomial": "polynomial decay with power {power}{end0}",
        "cosine restarts": "cosine with restarts every {period} steps{floor}",
        "cosine restarts, doubling": "cosine with restarts, the first after {period} steps, each twice as long{floor}",
        "warm-up, then linear": "linear warm-up{up}, then linear decay{end0}",
        "warm-up, then exponential": "linear warm-up{up}, then exponential decay, halved every {half} steps",
        "warm-up, then cosine": "linear warm-up{up}, then cosine{end}",
        "one-cycle": "one-cycle: up from {first} of the peak{up}, then{end}",
    }[shape.kind]
    floor = "" if "floor" not in p else f" down to {_share(p['floor'])}"
    end = "" if "end" not in p else f" at step {_step(p['end'])}"
    half = "" if "scale" not in p else _step(tuple(0.6931471805599453 * v for v in p["scale"]))
    told = words.format(
        up="" if "warm_up" not in p else f" until step {_step(p['warm_up'])}",
        end=f"{floor}{end}", end0=f" to 0{end}", half=half, floor=floor,
        power="" if "power" not in p else _plain(p["power"]),
        period="" if "period" not in p else _step(p["period"]),
        first="" if "first" not in p else _plain(p["first"]),
    )  # fmt: skip
    return told + (f" (or {', or '.join(shape.others)}: as good a fit)" if shape.others else "")


def _jumps(levels: Sequence[tuple[float, float]], sizes: Sequence[int], dates: Sequence[Sequence[float]]) -> str:
    """`divided by 10.00±0.01 at step 3040.0±0.2, then …` between stretches of two intervals and more."""
    long = [level for level, size in zip(levels, sizes, strict=True) if size >= 2]
    factors = [_factor(a, b) for a, b in zip(long, long[1:], strict=False)]
    if not factors or len(factors) != len(dates):
        return f"changes {len(dates)} times" if len(dates) > 1 else ""
    told = [f"{factor} at step {_step(date)}" for factor, date in zip(factors, dates, strict=True)]
    more = [f"… {len(told) - FEW} more"] if len(told) > FEW else []
    return ", then ".join(["constant", *told[:FEW], *more])


def _factor(before: tuple[float, float], after: tuple[float, float]) -> str:
    down = before[0] > after[0]
    high, low = (before, after) if down else (after, before)
    ratio = high[0] / low[0]
    error = Z95 * ratio * ((high[1] / high[0]) ** 2 + (low[1] / low[0]) ** 2) ** 0.5
    return f"{'divided' if down else 'multiplied'} by {_plain((ratio, ratio - error, ratio + error))}"


def _step(value: Sequence[float]) -> str:
    """`3040.0±0.2`, with no more digits than its interval allows; two sides where they differ."""
    middle, low, high = value
    down, up = middle - low, high - middle
    if max(down, up) < 0.05:
        return f"{middle:.1f}".removesuffix(".0")
    places = 1 if max(down, up) < 10 else 0
    if min(down, up) > 0.5 * max(down, up):
        return f"{middle:.{places}f}±{max(down, up):.{places}f}"
    return f"{middle:.{places}f} −{down:.{places}f} +{up:.{places}f}"


def _plain(value: Sequence[float]) -> str:
    """Up to five decimals, as many as the interval supports."""
    wide = max(value[0] - value[1], value[2] - value[0], 1e-12)
    places = next((n for n in range(6) if 10.0**-n < 2 * wide), 5)
    return f"{value[0]:.{places}f}±{max(wide, 10.0**-places):.{places}f}" if wide >= 5e-6 else f"{value[0]:.5g}"


def _share(value: Value) -> str:
    """`0`, or `0.0100±0.0002 of the peak`."""
    return "0" if value[1] <= 0 and value[0] < AT_NOTHING else f"{_plain(value)} of the peak"
