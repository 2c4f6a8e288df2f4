"""gin bindings: `Optimizer.learning_rate = 0.1`, as they stand; macros (%NAME) are looked up, references are words."""

from __future__ import annotations

import ast
import re
from typing import Any

from smd_analyze.loading.sidecars.base import Reader, Sidecar, text_of_file

BINDING = re.compile(r"\s*(?:[\w.\-]+/)*([\w.]+)\s*=\s*(.+?)\s*(#.*)?")


def read(path: str) -> Sidecar:
    """Bindings as a tree by the names' dots."""
    macros: dict[str, Any] = {}
    flat: dict[str, Any] = {}
    for line in text_of_file(path).splitlines():
        match = BINDING.fullmatch(line)
        if match is None:
            continue
        value = value_of(match[2], macros)
        if "." in match[1]:
            flat[match[1]] = value
        else:
            macros[match[1]] = value
    tree: dict[str, Any] = dict(macros)
    for name, value in flat.items():
        home, _, leaf = name.rpartition(".")
        node = tree.setdefault(home, {})
        if isinstance(node, dict):
            node[leaf] = value
    return Sidecar(tree)


def value_of(text: str, macros: dict[str, Any]) -> Any:
    """A literal, a macro's value, or the word itself (`@Adam` without its mark)."""
    if text.startswith("%"):
        return macros.get(text[1:], text)
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text.lstrip("@").removesuffix("()")


READER = Reader("gin", lambda name: name.endswith(".gin"), read)
