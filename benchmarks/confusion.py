"""The confusion table: what the graph says of every parameter, against what running the model says.

    python benchmarks/confusion.py [NAME …] [--jobs 2] [--zoo]

One line per model, then totals and every disagreement. Models: the zoo of tests/unit/invariance, and small
configurations of the architectures of transformers, timm and torchvision that are installed (`--zoo`: without these).
The numbers are explained in docs/invariance.md. The exit code is 1 if the graph calls anything invariant that is not.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import sys
import time
import warnings
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "invariance"), str(ROOT / "benchmarks")]

from confusion_models import models  # noqa: E402
from zoo import ZOO  # noqa: E402

from smd_analyze.invariance.graph import _traced, analyse  # noqa: E402
from smd_analyze.invariance.verdicts import Verdict  # noqa: E402
from smd_analyze.invariance.verifying import measure  # noqa: E402
from smd_analyze.invariance.verifying_outcomes import DEAD, ZERO  # noqa: E402
from smd_analyze.invariance.verifying_points import POINTS, Probe  # noqa: E402
from smd_analyze.invariance.verifying_residuals import Sums, by_unit, claims_of  # noqa: E402

SYMBOLIC = ("invariant", "jointly invariant", "dead", "not invariant")
NUMERIC = ("invariant", "dead", "not", "undecided")
MOST_INDICES = 32  # of an axis whose free directions are counted
FAR = 1e-6


@dataclass
class Row:
    """One model."""

    name: str
    error: str = ""
    nodes: int = 0
    seconds: tuple[float, float] = (0.0, 0.0)
    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    granularity: tuple[int, int] = (0, 0)  # equal, compared
    sets: tuple[int, float] = (0, 0.0)  # joint sets and rescalings: how many, worst residual
    largest: float = 0.0
    smallest: float = np.inf
    differing: list[str] = field(default_factory=list)


def row(name: str) -> Row:
    """Both answers for every parameter of one model."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.manual_seed(0)
    out = Row(name)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            model, inputs = ZOO[name]()[:2] if name in ZOO else models()[name]()
            start = time.perf_counter()
            graph, used = _traced(model, inputs, name)
            found, _ = analyse(graph)
            traced = time.perf_counter()
            _compare(out, model, used, found)
        out.nodes, out.seconds = len(graph.nodes), (traced - start, time.perf_counter() - traced)
    except Exception as error:  # one model that cannot be built or traced is a line of the table
        out.error = f"{type(error).__name__}: {error}".splitlines()[0][:150]
    return out


def _compare(out: Row, model: torch.nn.Module, used: tuple, found: dict[str, list[Verdict]]) -> None:
    probe = Probe(model, used, {})
    alone = [Sums((_whole(v),)) for rows in found.values() for v in rows]
    claimed = [v for rows in found.values() for v in rows]
    claims = claims_of(found, probe.parameters)
    failed = measure(probe, [*alone, *claims])
    if len(alone[0].scales) < 2:
        raise ValueError(f"could not be measured: {failed}")
    free = []
    for sums, verdict in zip(alone, claimed, strict=True):
        truth, residual = _truth(sums)
        out.table[verdict.status, truth] += 1
        if truth == "invariant":
            out.largest = max(out.largest, residual)
            free.append(verdict)
        elif truth == "not":
            out.smallest = min(out.smallest, residual)
        expected = {"invariant": "invariant", "dead": "dead"}.get(verdict.status, "not")
        if truth != expected:
            where = f"[{verdict.part[0]}:{verdict.part[1]}]" if verdict.part else ""
            out.differing.append(
                f"{verdict.parameter}{where}: graph {verdict.status}, numbers {truth} ({residual:.0e})"
            )
    sets = [c for c in claims if c.exponents or len(c.members) > 1]
    out.sets = len(sets), max((c.violation() for c in sets), default=0.0)
    _granularity(out, probe, [v for v in free if v.status == "invariant"])


def _whole(v: Verdict) -> Verdict:
    """The same elements, asked about alone and as one."""
    return Verdict(v.parameter, v.role, "invariant", "", "proved", "whole", v.axis, v.part, 1, every=v.every)


def _truth(sums: Sums) -> tuple[str, float]:
    if float(sums.shares()[:2].max()) < DEAD:
        return "dead", 0.0
    residual = sums.violation()
    return ("invariant" if residual < ZERO else "not" if residual > FAR else "undecided"), residual


def _granularity(out: Row, probe: Probe, free: list[Verdict]) -> None:
    """Free directions along the units' axis: as many as the graph says? Counted in the null space of the sums."""
    free = [v for v in free if v.count(tuple(probe.parameters[v.parameter].shape)) <= MOST_INDICES]
    if not free:
        return
    longest = max(v.count(tuple(probe.parameters[v.parameter].shape)) for v in free)
    rows: list[list[np.ndarray]] = [[] for _ in free]
    for number in range(longest + 4):
        products = probe.products(POINTS[number % len(POINTS)], 100 + number)
        for kept, v in zip(rows, free, strict=True):
            product = products[v.parameter]
            signed, size = by_unit(product, replace(v, units=v.count(tuple(product.shape))))
            kept.append(signed / max(size.sum(), 1e-300))
    equal = 0
    for kept, v in zip(rows, free, strict=True):
        rank = int((np.linalg.svd(np.array(kept), compute_uv=False) > FAR).sum())
        dimension = len(kept[0]) - rank
        equal += dimension == v.units
        if dimension != v.units:
            out.differing.append(f"{v.parameter}: graph {v.units} free units, numbers {dimension}")
    out.granularity = equal, len(free)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--zoo", action="store_true", help="only the hand-written models of the tests")
    chosen = parser.parse_args()
    names = chosen.names or [*ZOO, *([] if chosen.zoo else models())]
    start = time.perf_counter()
    rows: list[Row] = []
    print(
        "| model | nodes | rows | invariant | joint | dead | not | agree | granularity | sets | worst | graph | run |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    with ProcessPoolExecutor(chosen.jobs) as pool:
        for one in pool.map(row, names):
            rows.append(one)
            print(_line(one), flush=True)
    _totals(rows, time.perf_counter() - start)
    wrong = sum(n for r in rows for (said, true), n in r.table.items() if said == "invariant" and true == "not")
    sys.exit(1 if wrong else 0)


def _line(r: Row) -> str:
    if r.error:
        return f"| {r.name} | {r.error} |"
    by = Counter[str]()
    for (said, _), n in r.table.items():
        by[said] += n
    total = sum(r.table.values())
    agree = total - sum("free units" not in text for text in r.differing)
    counts = " | ".join(str(by[s]) for s in SYMBOLIC)
    return (
        f"| {r.name} | {r.nodes} | {total} | {counts} | {agree}/{total} | {r.granularity[0]}/{r.granularity[1]} "
        f"| {r.sets[0]} | {r.sets[1]:.0e} | {r.seconds[0]:.1f} s | {r.seconds[1]:.1f} s |"
    )


def _totals(rows: list[Row], seconds: float) -> None:
    done = [r for r in rows if not r.error]
    table = sum((r.table for r in done), Counter[tuple[str, str]]())
    print(f"\n{len(done)} models, {sum(table.values())} parameters and slices, {seconds:.0f} s\n")
    print("| graph \\ numbers, alone | " + " | ".join(NUMERIC) + " |")
    print("|---" * (len(NUMERIC) + 1) + "|")
    for said in SYMBOLIC:
        print(f"| {said} | " + " | ".join(str(table[said, true]) for true in NUMERIC) + " |")
    truly = sum(table[said, "invariant"] for said in SYMBOLIC)
    print(f"\nfalse invariant: {table['invariant', 'not']}; false dead: {table['dead', 'not']}")
    print(f"truly invariant parameters found: {table['invariant', 'invariant']} of {truly}")
    equal, compared = (sum(r.granularity[i] for r in done) for i in (0, 1))
    print(f"granularity equal: {equal} of {compared}")
    print(
        f"joint sets and rescalings: {sum(r.sets[0] for r in done)}, worst residual {max(r.sets[1] for r in done):.0e}"
    )
    print(
        f"relative residuals: invariant ≤ {max(r.largest for r in done):.0e}, others ≥ "
        f"{min(r.smallest for r in done):.0e}"
    )
    for r in rows:
        if r.error:
            print(f"  {r.name}: {r.error}")
        for text in r.differing:
            print(f"  {r.name}: {text}")


if __name__ == "__main__":
    main()
