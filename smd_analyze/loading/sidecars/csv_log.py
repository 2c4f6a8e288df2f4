"""Tables with a row per step or epoch: Lightning's metrics.csv, YOLO's results.csv, timm's summary.csv, Keras' log."""

from __future__ import annotations

import csv
from collections.abc import Iterator

from smd_analyze.loading.settings.key_words import EPOCH_KEYS, STEP_KEYS, hyperparameter
from smd_analyze.loading.sidecars.base import Reader, Sidecar, lines_of
from smd_analyze.loading.sidecars.columns import Rows


def matches(name: str) -> bool:
    """Any .csv or .tsv; Keras' CSVLogger is often given training.log."""
    return name.endswith((".csv", ".tsv")) or name in ("training.log", "history.log")


def read(path: str) -> Sidecar:
    """The columns that are hyperparameters; nothing of a table without them or without a count."""
    lines = lines_of(path)
    head = next(lines, "")
    comma = max(",;\t", key=head.count)
    names = [n.strip() for n in next(table(iter([head]), comma), [])]
    if not any(hyperparameter(n) for n in names) or not set(names) & {*STEP_KEYS, *EPOCH_KEYS}:
        return Sidecar()
    rows = Rows()
    for row in table(lines, comma):
        if len(row) == len(names):
            rows.add({n: value for n, cell in zip(names, row, strict=True) if (value := number(cell)) is not None})
    lightning = "step" in names and ("epoch" in names or any(n.startswith("lr-") for n in names))
    lightning = lightning and path.endswith("metrics.csv")  # its step counts the updates made before
    yolo = any(n.startswith(("lr/pg", "x/lr")) for n in names)
    if yolo and rows.found:  # the table counts epochs from one, the files' names from zero
        first = min(e for series in rows.found.values() for _, e, _ in series[:1] if e is not None)
        if first == 1:
            rows.found = {k: [(s, e and e - 1, v) for s, e, v in series] for k, series in rows.found.items()}
    return Sidecar(logs=rows.series("next update" if lightning else None))


def table(lines: Iterator[str], comma: str) -> Iterator[list[str]]:
    """Rows; one that the csv module refuses ends the table (it was being written)."""
    reader = csv.reader((line.replace("\0", "") for line in lines), delimiter=comma)
    while True:
        try:
            yield next(reader)
        except (StopIteration, csv.Error):
            return


def number(cell: str) -> float | None:
    """A cell's number, None if it is empty or a word."""
    try:
        return float(cell)
    except ValueError:
        return None


READER = Reader("CSV", matches, read)
