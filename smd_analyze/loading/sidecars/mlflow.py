"""MLflow's file store: `params/NAME` holds a value, `metrics/NAME` lines of time, value, step."""

from __future__ import annotations

from smd_analyze.loading.settings.key_words import hyperparameter
from smd_analyze.loading.sidecars.base import Reader, Sidecar, lines_of, text_of_file
from smd_analyze.loading.sidecars.columns import sorted_series


def matches(name: str) -> bool:
    """A file in params/, or one in metrics/ whose name is a hyperparameter's."""
    folder, _, last = name.partition("/")
    return (folder == "params" and "." not in last) or (folder == "metrics" and hyperparameter(last) is not None)


def read(path: str) -> Sidecar:
    """One parameter, or one series."""
    _, folder, name = f"/{path}".rpartition("/params/")
    if folder:
        return Sidecar({name: text_of_file(path).strip()[:1000]})
    key = path.rpartition("/metrics/")[2]
    pairs: list[tuple[float, float]] = []
    for line in lines_of(path):
        cells = line.split()
        if len(cells) == 3:
            try:
                pairs.append((float(cells[2]), float(cells[1])))
            except ValueError:
                continue
    name = hyperparameter(key)
    return Sidecar(logs=(sorted_series(name, key, "", pairs, None),) if name and pairs else ())


READER = Reader("MLflow", matches, read)
