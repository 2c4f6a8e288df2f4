"""`python -m tests.conformance FOLDER [NAME …] [--json] [-v]`: every sequence in FOLDER against its truth.

FOLDER holds sequences `NAME/`, each with `NAME.expected.json` beside it (see truth.py). Exit code 1 on any difference.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

from .comparing import Outcome, compare
from .table import show


def sequences(folder: Path, wanted: list[str]) -> list[str]:
    """Names of what lies in the folder, sorted."""
    found = sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))
    found += sorted(p.name[:-14] for p in folder.glob("*.expected.json") if p.name[:-14] not in found)
    return [n for n in found if not wanted or any(w in n for w in wanted)]


def totals(outcomes: list[Outcome]) -> Counter[str]:
    """The counts of all sequences."""
    out: Counter[str] = Counter()
    for one in outcomes:
        out.update(one.counts)
        out["sequences"] += one.truth
        out["without truth"] += not one.truth
        out["differences"] += len(one.differences)
        out["sequences with differences"] += bool(one.differences)
    return out


def run(words: list[str]) -> int:
    """Compare, print, and say by the exit code whether all is equal."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", help="only sequences whose name contains one of these")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of the table")
    parser.add_argument("-v", "--verbose", action="store_true", help="every difference, and what the reader found odd")
    asked = parser.parse_args(words)
    outcomes = [compare(asked.folder, name) for name in sequences(asked.folder, asked.names)]
    summed = totals(outcomes)
    if asked.json:
        print(json.dumps({"sequences": [vars(o) for o in outcomes], "totals": summed}, ensure_ascii=False))
    else:
        show(outcomes, summed, asked.verbose)
    return 1 if summed["differences"] else 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
