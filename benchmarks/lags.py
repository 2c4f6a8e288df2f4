"""Coverage of the interval of drift_fraction: simulated SGD whose gradients keep one direction to a known share.

Prints the table of docs/lags.md: `python benchmarks/lags.py [runs]`, some minutes with 40 runs a cell.
"""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "fits"))

from fits_runs import angles, predictions
from lag_runs import records, walk

from smd_analyze.fits.fitting import contexts
from smd_analyze.fits.lags import lag_rows
from smd_analyze.theory.lags import lagged

CASES = {
    "": {}, "norm starts at 0.7 of its equilibrium": {"start": 0.7}, "noise ∝ 1/i over the elements": {"uneven": True}
}  # fmt: skip


def estimate(seed: int, fraction: float, checkpoints: int, **more) -> dict:
    every = 50 if fraction > 0.1 else 100
    weights = walk(checkpoints, every, drift=fraction, elements=400, seed=seed, **more)
    stats, told = records(weights, every)
    (context,) = contexts(stats, told, angles(), predictions(), None, lagged(stats, told))
    return next(row for row in lag_rows(context) if row["quantity"] == "drift_fraction")


def main(runs: int) -> None:
    print("| f | checkpoints | gradients | mean | intervals that hold f |\n|---|---|---|---|---|")
    for words, more in CASES.items():
        for fraction in (0.0, 0.01, 0.05, 0.2):
            for checkpoints in (21, 81) if not words else (21,):
                rows = [estimate(seed, fraction, checkpoints, **more) for seed in range(runs)]
                told = [row for row in rows if row["value"] is not None]
                held = sum(row["low"] <= fraction <= row["high"] for row in told)
                mean = np.mean([row["value"] for row in told]) if told else np.nan
                print(f"| {fraction} | {checkpoints} | {words} | {mean:.2g} | {held} of {len(told)} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 40)
