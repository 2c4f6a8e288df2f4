"""JSON files: settings, or what was logged (a list of rows, or Keras' history: a list of values for every key)."""

from __future__ import annotations

import json
import re
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file
from smd_analyze.loading.sidecars.columns import Rows

KNOWN = re.compile(
    r"(args|config|params|hparams|opt|train_?args|training_args|train(ing)?_?config|commandline_args|ds_config|flags)\.json"
)
NEVER = re.compile(
    r"(tokenizer|vocab|special_tokens|added_tokens|generation|preprocessor|package|coco|.*\.index\.json)"
)


def matches(name: str) -> bool:
    """Any .json but those that hold a model's vocabulary, shards or logs by the line."""
    return name.endswith(".json") and not NEVER.match(name.rpartition("/")[2]) and not name.endswith(".log.json")


def read(path: str) -> Sidecar:
    """One JSON document."""
    text = text_of_file(path)
    try:
        found = json.loads(text)
    except RecursionError:
        raise DamagedFile(f"{path}: not sound JSON: nested too deep") from None
    except ValueError as problem:
        from smd_analyze.loading.sidecars.json_lines import rows_of  # a document per line: a log

        rows = rows_of(path)
        if rows is None:
            raise DamagedFile(f"{path}: not sound JSON: {problem}") from None
        return rows
    if isinstance(found, list):
        return Sidecar(logs=log_of(found))
    if not isinstance(found, dict):
        return Sidecar()
    if found and all(isinstance(v, list) for v in found.values()):
        length = max(map(len, found.values()))
        rows = [{"epoch": i, **{k: v[i] for k, v in found.items() if i < len(v)}} for i in range(length)]
        return Sidecar(logs=log_of(rows))
    history = found.get("log_history")
    return Sidecar(found if history is None else {}, ())


def log_of(rows: list[Any]) -> tuple[Any, ...]:
    """Series from a list of rows."""
    made = Rows()
    for row in rows:
        if isinstance(row, dict):
            made.add({k: v for k, v in row.items() if isinstance(k, str) and type(v) in (int, float)})
    return made.series()


READER = Reader("JSON", matches, read, lambda name: bool(KNOWN.fullmatch(name.rpartition("/")[2])))
