"""Python files of settings (mmengine's dumped configs, a script's config.py): assignments of literals, never run."""

from __future__ import annotations

import ast
import re
from typing import Any

from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file
from smd_analyze.loading.sidecars.literals import literal, parsed

NAMES = re.compile(r"(.*_)?(config|cfg|hparams|settings)\.py|\d{8}_\d{6}\.py")


def read(path: str) -> Sidecar:
    """Top-level names and class attributes (under the class's name) that are literals."""
    tree = parsed(text_of_file(path), path)
    out: dict[str, Any] = {}
    for node in getattr(tree, "body", []):
        if isinstance(node, ast.ClassDef):
            inner: dict[str, Any] = {}
            for statement in node.body:
                assign(statement, inner)
            if inner:
                out[node.name] = inner
        else:
            assign(node, out)
    return Sidecar(out)


def assign(node: ast.stmt, names: dict[str, Any]) -> None:
    """Keep what `name = literal` says; earlier names may stand in it."""
    match node:
        case (
            ast.Assign(targets=[ast.Name(id=name)], value=value) | ast.AnnAssign(target=ast.Name(id=name), value=value)
        ):
            found = literal(value, names)
            if found is not None:
                names[name] = found


READER = Reader("Python", lambda name: bool(NAMES.fullmatch(name.rpartition("/")[2])), read)
