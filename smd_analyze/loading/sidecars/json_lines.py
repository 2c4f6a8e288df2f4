"""Logs with a JSON object on every line: mmengine, detectron2, DeiT, MAE and many more."""

from __future__ import annotations

import json
from typing import Any

from smd_analyze.loading.sidecars.base import Reader, Sidecar, lines_of
from smd_analyze.loading.sidecars.columns import Rows
from smd_analyze.records.run import Applies

MOST_STRAY = 20  # lines in a row that are no JSON objects, after which the file is taken for something else


def matches(name: str) -> bool:
    """Names under which such logs are written."""
    last = name.rpartition("/")[2]
    return last.endswith((".jsonl", ".log.json", ".ndjson")) or last in ("log.txt", "log.json", "stats.txt")


def read(path: str) -> Sidecar:
    """Every hyperparameter that the rows log; nothing of a file that holds other text."""
    return rows_of(path) or Sidecar()


def rows_of(path: str) -> Sidecar | None:
    """The same, None if the lines are no JSON objects."""
    rows, stray, sound = Rows(), 0, 0
    conventions: set[Applies | None] = set()
    mean = False
    for line in lines_of(path):
        row = parsed(line)
        if row is None:
            stray += bool(line.strip())
            if stray > MOST_STRAY + sound:
                return None
            continue
        sound += 1
        mean = mean or "train_lr" in row  # the meters of DeiT, DINO and MAE average over the epoch
        conventions.add(convention(row))
        rows.add({k: v for k, v in row.items() if type(v) in (int, float)})
    if not sound:
        return None
    known = conventions - {None}
    return Sidecar(logs=rows.series(known.pop() if len(known) == 1 else None, mean))


def parsed(line: str) -> dict[str, Any] | None:
    """A line's object."""
    if not line.startswith("{"):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def convention(row: dict[str, Any]) -> Applies | None:
    """mmengine's `iter` counts updates made, the rate is theirs; fvcore's `iteration` counts from zero."""
    if "iter" in row and "data_time" in row:
        return "last update"
    if "iteration" in row and ("eta_seconds" in row or "data_time" in row or "time" in row):
        return "next update"
    return None


READER = Reader("JSON lines", matches, read)
