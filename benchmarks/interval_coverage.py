"""How often the fits' 95 % intervals hold the truth. One command: python benchmarks/interval_coverage.py [--scale 1]

Simulated runs of known truth (seeded): every schedule, 5 to 100 intervals, gradient scales that are constant, drift or
are correlated. Prints the tables of docs/accuracy.md; --scale multiplies the number of layers and units.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "fits")]

from coverage_studies import (  # noqa: E402
    COUNTS,
    QUANTITIES,
    SCALES,
    SCHEDULES,
    Tally,
    adamw_study,
    angles_study,
    fits_study,
    index_study,
    ou_study,
    scale_study,
)


def main() -> None:
    """All studies, as Markdown tables."""
    parser = argparse.ArgumentParser(description="Coverage of the fits' intervals.")
    parser.add_argument("--scale", type=float, default=1.0)
    share = parser.parse_args().scale

    def some(number: int) -> int:
        return max(int(number * share), 2)

    head(
        "Single units at a constant learning rate: rate / level of the Ornstein-Uhlenbeck fit",
        "gradient scale",
        "start",
    )
    for scale in SCALES:
        for start in (10.0, 1.0, 0.1):
            found = [ou_study(scale, n, units=some(400), start=start, seed=n) for n in COUNTS]
            line(f"{scale}", f"{start:g} S*", *(f"{share_of(r)} / {share_of(v)}" for r, v in found))
    head("Single units: gradient scale, constant, schedule trusted", "schedule")
    for plan in SCHEDULES:
        line(plan, *(share_of(scale_study(plan, n, units=some(400), seed=n)) for n in COUNTS))
    head("Layers of 16 units: equilibrium index / level of a stationary norm", "schedule", "gradient scale")
    for plan in SCHEDULES:
        for scale in SCALES:
            found = [index_study(plan, scale, n, layers=some(40), seed=n) for n in COUNTS]
            line(plan, scale, *(f"{told(e)} / {told(v)}" for e, v in found))
    for quantity in QUANTITIES:
        head(f"Layers of 16 units: what `fits` prints as {quantity}", "schedule", "gradient scale")
        for plan in SCHEDULES:
            for scale in SCALES:
                found = [tallies(plan, scale, n, some(20))[quantity] for n in COUNTS]
                line(plan, scale, *map(told, found))
    head("Layers of 16 units: agreement (constant) / angle_after_change (step)", "gradient scale")
    for scale in SCALES:
        pair = [
            [angles_study(plan, scale, n, layers=some(40), seed=n)[i] for n in COUNTS[1:]]
            for i, plan in enumerate(("constant", "step"))
        ]
        line(scale, "–", *(f"{told(a)} / {told(b)}" for a, b in zip(*pair, strict=True)))
    head("AdamW, layers of 12 units across a drop: relaxation_rate_ratio", "gradient scale")
    for scale in SCALES[:4]:
        found = [told(adamw_study(scale, n, layers=some(12), seed=n)) for n in COUNTS[1:3]]
        line(scale, "–", *found, "–")


CACHE: dict[tuple[str, str, int, int], dict[str, Tally]] = {}


def tallies(plan: str, scale: str, intervals: int, layers: int) -> dict[str, Tally]:
    """One study serves all quantities."""
    key = (plan, scale, intervals, layers)
    if key not in CACHE:
        CACHE[key] = fits_study(plan, scale, intervals, layers=layers, seed=intervals)
    return CACHE[key]


def share_of(tally: Tally) -> str:
    """Coverage in per cent."""
    return f"{100 * tally.coverage:.1f} %" if tally.claimed else "–"


def told(tally: Tally) -> str:
    """Coverage of those that claim one, and how many do."""
    return f"{100 * tally.coverage:.0f} % of {tally.claimed}" if tally.claimed else "–"


def head(title: str, *names: str) -> None:
    """The head of a table."""
    columns = [*names, *(f"{n} intervals" for n in COUNTS)]
    print(f"\n**{title}**\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}", flush=True)


def line(*cells: str) -> None:
    """A row of it."""
    print(f"| {' | '.join(as_cells(cells))} |", flush=True)


def as_cells(cells: Iterable[str]) -> list[str]:
    """Cells without empty ones at the end."""
    return [c or " " for c in cells]


if __name__ == "__main__":
    main()
