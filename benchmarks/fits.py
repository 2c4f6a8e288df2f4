"""How long the fits of many units take. One command: python benchmarks/fits.py [--units 25000] [--checkpoints 100]

Rate, level, time to equilibrium and gradient scale of every unit of one simulated layer (seeded), each with its
interval, and the layer's rows of the table `fits`. docs/accuracy.md has the figure.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "fits")]

from fits_runs import SCALE, angles, chain, group, predictions, schedule, statistics  # noqa: E402

from smd_analyze.fits.fitting import contexts, fit  # noqa: E402
from smd_analyze.fits.per_unit import unit_estimates  # noqa: E402


def main() -> None:
    """Simulate, time, print."""
    parser = argparse.ArgumentParser(description="Time the fits of many units.")
    parser.add_argument("--units", type=int, default=25_000)
    parser.add_argument("--checkpoints", type=int, default=100)
    chosen = parser.parse_args()
    total = 60 * chosen.checkpoints
    rates, steps = np.full(total, 5e-5 / SCALE), np.round(np.linspace(0, total, chosen.checkpoints)).astype(int)
    vv = chain(steps, rates, chosen.units, start=5**0.5, seed=0)
    own, table = {group(units=chosen.units): vv}, schedule(steps, rates)
    stats = statistics(steps, own)
    begin = time.perf_counter()
    found = unit_estimates(next(contexts(stats, table, angles(), predictions())))
    units = time.perf_counter() - begin
    begin = time.perf_counter()
    rows = fit(stats, table, angles(), predictions())
    layer = time.perf_counter() - begin
    print(f"{chosen.units} units × {chosen.checkpoints} checkpoints")
    print(f"every unit: {units:.1f} s ({found.height} rows)")
    print(f"the layer's {rows.height} rows of fits: {layer:.1f} s")


if __name__ == "__main__":
    main()
