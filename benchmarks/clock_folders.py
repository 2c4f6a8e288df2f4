"""Decay clocks in folders as people have them: copies, gaps, mix-ups, averages, epochs instead of steps.

    python benchmarks/clock_folders.py [--runs 1] [--seed 0]

Prints a table in Markdown, that of docs/clocks.md: intervals claimed, those that hold the truth, and what is said of
the folder. Nets and rules are those of benchmarks/clocks.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from clocks import MOVING, Claim, claims, cosine, found_in, nets, table


def _at(trained: nets.Trained, names: Sequence[int], states: Sequence[int] | None = None) -> nets.Trained:
    """Checkpoints called `names`, each of the step `states` says (as a rule the same)."""
    by_step = dict(zip(trained.steps, trained.weights, strict=True))
    return replace(trained, steps=tuple(names), weights=tuple(by_step[s] for s in states or names))


def _widened(trained: nets.Trained, dtype: torch.dtype) -> nets.Trained:
    """Saved in 16 bits and widened to 32 again."""
    weights = [{n: torch.from_numpy(w).to(dtype).float().numpy() for n, w in s.items()} for s in trained.weights]
    return replace(trained, weights=tuple(weights))


def _mean_at_end(trained: nets.Trained) -> nets.Trained:
    """The last file is an average of the last six, as of stochastic weight averaging."""
    last = trained.weights[-6:]
    mean = {n: np.mean([w[n].astype(np.float64) for w in last], 0).astype(np.float32) for n in last[0]}
    return replace(trained, weights=(*trained.weights[:-1], mean))


THIRTY = tuple(range(0, 601, 30))
FOLDERS: dict[str, Callable[[nets.Trained], nets.Trained]] = {
    "as it is": lambda t: _at(t, THIRTY),
    "two files": lambda t: _at(t, (150, 600)),
    "three files": lambda t: _at(t, (0, 300, 600)),
    "files missing": lambda t: _at(t, [s for s in THIRTY if s not in (150, 180, 420)]),
    "two files exchanged": lambda t: _at(t, THIRTY, [{270: 300, 300: 270}.get(s, s) for s in THIRTY]),
    "a file 10 steps later than it says": lambda t: _at(t, THIRTY, [310 if s == 300 else s for s in THIRTY]),
    "a copy of the next file": lambda t: _at(t, THIRTY, [330 if s == 300 else s for s in THIRTY]),
    "first file again at the end": lambda t: _at(t, THIRTY, [0 if s == 600 else s for s in THIRTY]),
    "an average at the end": lambda t: _mean_at_end(_at(t, THIRTY)),
    "bfloat16, widened": lambda t: _widened(_at(t, THIRTY), torch.bfloat16),
    "float16, widened": lambda t: _widened(_at(t, THIRTY), torch.float16),
}


def odd(runs: int, seed: int) -> None:
    """Every folder under a constant rate and a cosine: intervals claimed, those that hold, what is said."""
    heads = {"heavy ball": nets.CASES["MLP, heavy ball, clipped"], "AdamW": nets.CASES["tokens, AdamW"]}
    shapes = {
        "constant": None,
        "cosine": cosine,
        "restarts": lambda n: 1e-3 + (1 + np.cos(np.pi * (n % 200) / 200)) / 2,
    }
    rows = []
    for rule, case in heads.items():
        for shape, schedule in shapes.items():
            every = [nets.train(replace(case, drop=None, schedule=schedule, every=10), seed + n) for n in range(runs)]
            for name, change in FOLDERS.items():
                rows.append([f"{rule}, {shape}, {name}", *_told(every, change)])
            rows.append([f"{rule}, {shape}, numbered by epochs of 60", *_epochs(every)])
    table(("folder", "intervals claimed", "of which hold", "worst error", "said"), rows)


def _told(every: Sequence[nets.Trained], change: Callable[[nets.Trained], nets.Trained]) -> list[object]:
    of: list[Claim] = []
    said: set[str] = set()
    for trained in every:
        changed = change(trained)
        found = found_in(changed)
        fine = nets.predicted(trained.case, next(iter(p for p, _ in trained.case.clocks)))
        ends = np.concatenate([[0.0], np.cumsum(fine)])[np.array(changed.steps) // trained.case.every]
        of += claims(changed, found, np.diff(ends))
        said |= {f.code for f in found.findings} - {"decay-replayed"}
    return _line(of, said)


def _line(of: Sequence[Claim], said: set[str]) -> list[object]:
    moving = [c for c in of if c.kind == MOVING]
    worst = max((abs(c.rate / c.truth - 1) for c in moving), default=0.0)
    return [len(of), sum(c.covered for c in of), f"{worst:.1e}", ", ".join(sorted(said))]


def _epochs(every: Sequence[nets.Trained]) -> list[object]:
    """The files say nothing of steps: the rates are per epoch, and the bits may tell how many updates that is."""
    of: list[Claim] = []
    said: set[str] = set()
    for trained in every:
        by_epoch = _at(trained, range(0, 601, 60))
        fine = nets.predicted(trained.case, next(iter(p for p, _ in trained.case.clocks)))
        truth = np.diff(np.concatenate([[0.0], np.cumsum(fine)])[::6])
        by_epoch = replace(by_epoch, steps=tuple(s // 60 for s in by_epoch.steps))
        found = found_in(by_epoch, unit="epochs")
        of += claims(by_epoch, found, truth)
        said |= {f"{f.code} ({f.message.split(' optimizer')[0]})" if f.code == "steps-counted" else f.code
                 for f in found.findings} - {"decay-replayed"}  # fmt: skip
    return _line(of, said)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    odd(chosen.runs, chosen.seed)
