"""Rows of a log (dicts of numbers) to series: which key counts, and whether it counts steps or epochs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite

from smd_analyze.loading.settings.key_words import EPOCH_KEYS, STEP_KEYS, hyperparameter
from smd_analyze.loading.sidecars.base import EPOCHS, MOST_POINTS, STEPS, Noted
from smd_analyze.records.run import Applies


@dataclass
class Rows:
    """Series that grow row by row."""

    names: dict[str, str | None] = field(default_factory=dict)  # key → hyperparameter
    found: dict[str, list[tuple[float | None, float | None, float]]] = field(default_factory=dict)

    def add(self, row: Mapping[str, float]) -> None:
        """One row: every hyperparameter in it, with the step and the epoch that stand beside it."""
        for key, value in row.items():
            if key not in self.names:
                self.names[key] = hyperparameter(key)
            if self.names[key] is None or not isfinite(value) or value < 0:
                continue
            series = self.found.setdefault(key, [])
            if len(series) < MOST_POINTS:
                series.append((count(row, STEP_KEYS), count(row, EPOCH_KEYS), value))

    def series(self, applies: Applies | None = None, mean: bool = False) -> tuple[Noted, ...]:
        """Every hyperparameter that has a count in each of its rows."""
        out = [s for key, rows in self.found.items() if (s := self.one(key, rows, applies, mean))]
        keys = {s.key for s in out}
        return tuple(s for s in out if not (s.key.endswith("_epoch") and f"{s.key[:-6]}_step" in keys))

    def one(
        self, key: str, rows: list[tuple[float | None, float | None, float]], applies: Applies | None, mean: bool
    ) -> Noted | None:
        """By steps if every row has one and they go on from epoch to epoch, else by epochs."""
        name = self.names[key] or ""
        steps, epochs = [s for s, _, _ in rows if s is not None], [e for _, e, _ in rows if e is not None]
        if len(steps) == len(rows) and not starts_again(rows):
            return sorted_series(name, key, STEPS, ((s, v) for s, (_, _, v) in zip(steps, rows, strict=True)), applies)
        if len(epochs) == len(rows):
            pairs = ((e, v) for e, (_, _, v) in zip(epochs, rows, strict=True))
            return sorted_series(name, key, EPOCHS, pairs, applies, mean)
        return None


def starts_again(rows: list[tuple[float | None, float | None, float]]) -> bool:
    """The step counts within each epoch: it falls back whenever the epoch changes."""
    changes = [(a, b) for a, b in zip(rows, rows[1:], strict=False) if a[1] is not None and b[1] and b[1] > a[1]]
    return bool(changes) and all(b[0] is not None and a[0] is not None and b[0] <= a[0] for a, b in changes)


def count(row: Mapping[str, float], keys: tuple[str, ...]) -> float | None:
    """The first of the keys that the row has."""
    return next((value for key in keys if (value := row.get(key)) is not None and isfinite(value)), None)


def sorted_series(
    name: str, key: str, unit: str, pairs: Iterable[tuple[float, float]], applies: Applies | None, mean: bool = False
) -> Noted:
    """In ascending order. Of two rows at one count the later wins, and a count that falls back (a resumed run)
    takes back what was logged from there on."""
    at: list[float] = []
    values: list[float] = []
    for where, value in pairs:
        while at and at[-1] >= where:
            at.pop()
            values.pop()
        at.append(where)
        values.append(value)
    return Noted(name, key, unit, tuple(at), tuple(values), applies, mean)
