"""Random programs by the thousand: does the graph claim anything that the numbers deny?

    python benchmarks/confusion_fuzz.py FIRST LAST [--mutants]

Prints every false claim with the program's seed and steps, then totals. With `--mutants` each bug planted by
tests/unit/invariance/mutants.py is put in, in turn, and the programs that notice it are counted.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "invariance"))

import pytest
from cases import Case
from fuzz_programs import Program, program
from mutants import MUTANTS


def main() -> None:
    """Run the seeds FIRST to LAST."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int)
    parser.add_argument("--mutants", action="store_true")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    start = time.perf_counter()
    cases: dict[int, Case] = {}
    wrong = missed = parameters = 0
    for seed in range(chosen.first, chosen.last):
        case = program(seed)
        if case is None:
            continue
        if chosen.mutants:
            cases[seed] = case
        parameters += len(case.graph.shapes)
        false, overlooked = case.false_claims(), case.missed()
        wrong += bool(false)
        missed += len(overlooked)
        if false or overlooked:
            steps = ", ".join(step[0] for step in Program(seed).steps)
            print(f"program {seed} ({steps}): false {false}, missed {overlooked}", flush=True)
        done = seed - chosen.first + 1
    print(
        f"{done} programs, {parameters} parameters, {time.perf_counter() - start:.0f} s: "
        f"{wrong} programs with a false claim, {missed} invariant parameters missed"
    )
    if chosen.mutants:
        _mutants(cases)
    sys.exit(1 if wrong else 0)


def _mutants(cases: dict[int, Case]) -> None:
    print("\n| planted bug | programs that notice it | first |\n|---|---|---|")
    for description, (plant, _) in MUTANTS.items():
        with pytest.MonkeyPatch.context() as patch:
            plant(patch)
            noticing = [seed for seed, case in cases.items() if case.false_claims() or case.missed()]
        print(f"| {description} | {len(noticing)} of {len(cases)} | {noticing[0] if noticing else '–'} |", flush=True)


if __name__ == "__main__":
    main()
