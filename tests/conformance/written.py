"""What a real library held when it wrote, as expected.json; and the comparison with what is read of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .comparing import Outcome, compare
from .truth import as_json

STEPS = (5, 10, 15)
Arrays = Mapping[str, Any]


def save(path: str, step: int, arrays: Arrays, hyper: Arrays | None = None, **copies: Any) -> dict[str, Any]:
    """One save as expected.json holds it; `optimizer` and `variants` are dicts of dicts of arrays."""
    deep = {k: {n: entries(v) for n, v in found.items()} for k, found in copies.items()}
    return {"path": f"run/{path}", "step": step, "hyper": hyper or {}, "params": entries(arrays), **deep}


def entries(arrays: Arrays) -> dict[str, Any]:
    return {n: as_json(np.asarray(a, dtype=np.float64)) for n, a in arrays.items()}


def check(folder: Path, saves: list[dict[str, Any]], *libraries: str) -> Outcome:
    """Compare what lies in folder/run with the saves; nothing may differ, and no hyperparameter may be unknown."""
    truth = {"static": dict.fromkeys(libraries, ""), "checkpoints": saves}
    (folder / "run.expected.json").write_text(json.dumps(truth))
    found = compare(folder, "run")
    if "tensorstore" in found.refusal:
        pytest.skip(found.refusal)
    assert not found.differences
    assert found.counts["hyper absent"] == 0
    assert found.counts["steps equal"] == len(saves)
    return found
