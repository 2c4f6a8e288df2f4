"""How often the momentum read off a decay clock's first intervals is right: python benchmarks/momentum.py [--runs N].

Clocks by their exact recursion, with noise; momenta, forms, rates, spacings and schedules drawn at random.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict

import numpy as np

from smd_analyze.decay_formulas import log_ratios, oscillation_limit, settled_buffer, step_matrices
from smd_analyze.schedule.clock_momentum import read_momentum

MOMENTA = (0.0, 0.0, 0.5, 0.8, 0.9, 0.9, 0.9, 0.95, 0.99)
SPACINGS = (20, 50, 100, 250, 390, 1000, 5000)
KINDS = ("constant", "constant", "warm-up within the first interval", "longer warm-up", "cosine", "full buffer")
USUAL = 0.9


def one(rng: np.random.Generator) -> tuple[str, str] | None:
    """(kind of run, what was said); None where the decay drawn is too fast to be read."""
    momentum = float(rng.choice(MOMENTA))
    nesterov = bool(rng.integers(2)) and momentum > 0
    spacing, intervals = int(rng.choice(SPACINGS)), int(rng.integers(3, 20))
    limit = float(oscillation_limit(momentum, nesterov)) if momentum else 0.01
    x = float(min(10 ** rng.uniform(-6.5, -3.5), 0.2 * limit))
    if x / (1 - momentum) * spacing > 1.5:
        return None
    kind = str(rng.choice(KINDS))
    t = np.arange(spacing * intervals)
    course = np.ones(len(t))
    if "within" in kind:
        course = np.minimum(1, (t + rng.integers(2)) / rng.integers(2, spacing))
    elif "longer" in kind:
        course = np.minimum(1, (t + 1) / rng.integers(spacing, 3 * spacing))
    elif kind == "cosine":
        course = 0.5 * (1 + np.cos(np.pi * t / len(t)))
    buffer = settled_buffer(x, 1.0, momentum, nesterov=nesterov) if kind == "full buffer" else 0.0
    edges = np.arange(0, len(t) + 1, spacing)
    total = log_ratios(step_matrices(x * course, 1.0, momentum, nesterov=nesterov), edges, buffer)[0]
    sd = 10 ** rng.uniform(-7, -3) * x / (1 - momentum) * spacing
    total = total + sd * rng.standard_normal(intervals)
    read = read_momentum(total, total - 1.96 * sd, total + 1.96 * sd, np.full(intervals, spacing), 0.0, None, USUAL)
    if read is None:
        return kind, "nothing"
    if not read.sure:
        return kind, "assumed"
    return kind, "right" if (read.alpha, read.nesterov) == (momentum, nesterov) else "wrong"


def main() -> None:
    """Print the table."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--runs", type=int, default=4000)
    options.add_argument("--seed", type=int, default=11)
    chosen = options.parse_args()
    rng = np.random.default_rng(chosen.seed)
    tallies: dict[str, Counter[str]] = defaultdict(Counter)
    for _ in range(chosen.runs):
        said = one(rng)
        if said is not None:
            tallies[said[0]][said[1]] += 1
    print("| run | read, right | read, wrong | assumed, and said so | nothing read |\n|---|---|---|---|---|")
    for kind, tally in sorted(tallies.items()):
        print(f"| {kind} | {tally['right']} | {tally['wrong']} | {tally['assumed']} | {tally['nothing']} |")


if __name__ == "__main__":
    main()
