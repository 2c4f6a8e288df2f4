"""What the writing framework held in memory at each save: the `<name>.expected.json` beside a sequence.

{"static": {library: version, …}, "step_unit": "epochs" (only if the numbers are no optimizer steps),
 "checkpoints": [{"path": "<name>/step_5.pt", "step": 5, "hyper": {"lr": 0.1, "weight_decay": [0.1, 0.0]},
   "params": {"conv1.weight": {"shape": [8, 3, 3, 3], "l2": 1.6, "first": 0.004, "dot": -24.0}},
   "optimizer": {parameter: {state: …}}, "variants": {"ema": {name: …}},
   "axes": {"conv1.weight": 0}, "buffers": ["mask"]}]}

`axes` says where a kernel's output units lie; `buffers` what is saved and never trained, running statistics apart.

`dot` is Σ x_i · (i mod 97 + 1) over the elements in the framework's own row-major order: any mix-up of order shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from smd_analyze.records.run import LazyTensor

TOLERANCE = 1e-4


@dataclass(frozen=True)
class Fingerprint:
    """An array as far as it is compared. `size` is Σ|x|, the scale of `dot`; None in the truth."""

    shape: tuple[int, ...]
    norm: float
    first: float
    dot: float
    size: float | None = None


@dataclass(frozen=True)
class TrueCheckpoint:
    """One save: `path` relative to the folder of all sequences, `step` None where the writer did not know."""

    path: str
    step: int | None
    hyper: Mapping[str, Any]
    arrays: Mapping[str, Fingerprint]
    optimizer: Mapping[str, Mapping[str, Fingerprint]]
    variants: Mapping[str, Mapping[str, Fingerprint]]
    axes: Mapping[str, int]
    buffers: frozenset[str]


@dataclass(frozen=True)
class Truth:
    """A whole sequence, in the order in which it was written; `libraries` are those that wrote it."""

    checkpoints: tuple[TrueCheckpoint, ...]
    libraries: frozenset[str]
    step_unit: str


def read_truth(path: Path) -> Truth:
    """The expected.json of one sequence."""
    saved = json.loads(path.read_text())
    found = []
    for one in saved["checkpoints"]:
        optimizer = {name: entries(state) for name, state in one.get("optimizer", {}).items()}
        variants = {label: entries(copy) for label, copy in one.get("variants", {}).items()}
        hyper = one.get("hyper") or {}
        told = one.get("axes", {}), frozenset(one.get("buffers", ()))
        found.append(
            TrueCheckpoint(one["path"], one["step"], hyper, entries(one["params"]), optimizer, variants, *told)
        )
    return Truth(tuple(found), frozenset(saved.get("static") or ()), saved.get("step_unit", ""))


def entries(saved: Mapping[str, Any]) -> dict[str, Fingerprint]:
    """Name → array, as as_json() wrote them."""
    return {n: Fingerprint(tuple(a["shape"]), a["l2"], a["first"] or 0.0, a["dot"]) for n, a in saved.items()}


def fingerprint(array: np.ndarray) -> Fingerprint:
    """Shape, norm, first element and order-sensitive sum, in float64."""
    flat = np.asarray(array, np.float64).reshape(-1)
    first = float(flat[0]) if flat.size else 0.0
    norm, dot = float(np.sqrt(flat @ flat)), float(flat @ weights(flat.size))
    return Fingerprint(tuple(array.shape), norm, first, dot, float(np.abs(flat).sum()))


@lru_cache(maxsize=64)
def weights(size: int) -> np.ndarray:
    """1, 2, …, 97, 1, 2, …"""
    return np.arange(size) % 97 + 1.0


def of_tensor(tensor: LazyTensor) -> Fingerprint:
    """The fingerprint of a saved tensor, read whole."""
    return fingerprint(tensor.load().double().numpy())


def same(found: Fingerprint, true: Fingerprint) -> bool:
    """Equal up to TOLERANCE, relative to the size of the numbers that were summed."""
    return (
        found.shape == true.shape
        and abs(found.norm - true.norm) <= TOLERANCE * max(abs(true.norm), 1e-12)
        and abs(found.first - true.first) <= TOLERANCE * max(abs(true.first), 1e-3 * true.norm, 1e-12)
        and abs(found.dot - true.dot) <= TOLERANCE * max(found.size or 0.0, abs(true.dot), 1e-12)
    )


def as_json(array: np.ndarray) -> dict[str, Any]:
    """An entry of expected.json."""
    made = fingerprint(array)
    return {"shape": list(made.shape), "l2": made.norm, "first": made.first, "dot": made.dot}
