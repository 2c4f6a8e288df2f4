"""Does a checkpoint hold a number that was not found? Looks through everything the format names, without meaning."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smd_analyze.errors import SmdError
from smd_analyze.loading.discovery import open_unit
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, decoded, read_tensor
from smd_analyze.loading.units.walk import find_units

from .hyperparameters import near

NUMBER = re.compile(r"-?\d+\.?\d*(?:[eE][-+]?\d+)?")
LONGEST = 1 << 20


def holds(root: Path, path: str, value: float) -> bool:
    """Some scalar, some text or some JSON of the checkpoint at `path` is this number."""
    for unit in find_units(str(root))[0]:
        if unit.path == path:
            try:
                document, _ = open_unit(unit, {})
            except SmdError:
                return False
            return any(near(found, value) for found in numbers(document.tree, document, set()))
    return False


def numbers(node: Any, document: Document, seen: set[int]) -> Iterator[float]:
    """All scalars below a node: plain ones, tensors of one element, and those in texts."""
    if isinstance(node, Place):
        if node.shape in ((), (1,)) and node.dtype.startswith(("float", "bfloat")):
            yield float(decoded(read_tensor(node, document.files), node.dtype).reshape(-1)[0])
    elif isinstance(node, bool) or node is None:
        return
    elif isinstance(node, int | float):
        yield float(node) if abs(node) < 1e300 else 0.0
    elif isinstance(node, str) and len(node) < LONGEST:
        yield from (float(found) for found in NUMBER.findall(node))
    elif id(node) not in seen:
        seen.add(id(node))
        if isinstance(node, dict):
            below = [*node.values()]
        elif isinstance(node, Inert):
            below = [v for k in ("args", "state", "items") if (v := getattr(node, k, None)) is not None]
        else:
            below = list(node) if isinstance(node, list | tuple) else []
        for value in below:
            yield from numbers(value, document, seen)


def as_numbers(value: Any) -> list[float]:
    """The numbers of a truth's hyperparameter other than zero, which is everywhere."""
    found = json.loads(json.dumps(value))
    return [float(v) for v in (found if isinstance(found, list) else [found]) if v]
