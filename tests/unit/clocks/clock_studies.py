"""From trained weights to claims and back: is each claimed rate the one that was really in force?

Shared by the tests here and by benchmarks/clocks.py.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from trained_nets import Trained, predicted, turning, vector, write

import smd_analyze as smd
from smd_analyze.records.clocks import Clocks


@dataclass(frozen=True)
class Claim:
    """One row of the `clocks` table against the truth, per update. `exact`: a clock that the case names."""

    parameter: str
    functional: str
    kind: str
    rate: float
    low: float
    high: float
    truth: float
    exact: bool
    calibrated: float  # 1.96 self-calibrated sd per update, without any floor
    interval: tuple[int, int]  # numbers of the checkpoints that it lies between

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


def find(folder: Path, unit: str = "optimizer steps") -> Clocks:
    """The clocks of a folder of checkpoints, from the weights alone; `unit` is what numbers them."""
    run = smd.load_run(folder)
    stats = smd.measure(run, smd.find_groups(run), device="cpu", workers=1)
    return smd.find_clocks(stats, step_unit=unit)


def found_in(trained: Trained, dtype: str = "float32", unit: str = "optimizer steps") -> Clocks:
    """Written to files, read back, looked at."""
    with tempfile.TemporaryDirectory() as folder:
        return find(write(trained, Path(folder) / "run", dtype), unit)


def claims(trained: Trained, clocks: Clocks, truth: np.ndarray | None = None) -> list[Claim]:
    """Every claimed interval, with the decay per update that really acted on it (`truth` [K], over the interval)."""
    turns: dict[tuple[str, str], np.ndarray] = {}
    known: dict[str, np.ndarray] = {}
    out = []
    for r in clocks.table.iter_rows(named=True):
        name = (r["parameter"], r["functional"])
        if name not in turns:
            turns[name] = turning(trained, *name)
            known[name[0]] = predicted(trained.case, name[0]) if truth is None else truth
        out.append(_claim(trained, r, known[name[0]], turns[name]))
    return out


def _claim(trained: Trained, row: dict, expected: np.ndarray, turns: np.ndarray) -> Claim:
    where, end = (trained.steps.index(row[f"step_{side}"]) for side in ("from", "to"))
    length = row["step_to"] - row["step_from"]
    known = expected[where:end].sum()
    name = (row["parameter"], row["functional"])
    values = vector(trained.weights[where], *name)
    turn = turns[where:end].sum()
    kappa = 1.0 if row["functional"].startswith(("sum", "within")) else _kappa(values)
    sd = np.sqrt(2 * turn * kappa / max(values.size - 1, 1))
    return Claim(
        *name,
        row["kind"],
        row["decay_per_step"],
        row["decay_per_step_low"],
        row["decay_per_step_high"],
        known / length,
        name in trained.case.clocks,
        1.96 * sd / length,
        (where, end),
    )


def _kappa(v: np.ndarray) -> float:
    return float(v.size * (v**4).sum() / (v**2).sum() ** 2)


def looked_at(clocks: Clocks) -> int:
    """How many candidate directions were compared."""
    return sum(many for what, many in clocks.looked_at.items() if what != "tensors")
