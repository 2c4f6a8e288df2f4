"""Axes of weights where a library other than torch lays them out; names and shapes alone do not tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.tensors.places import Place

LayoutOf = Callable[[str, Place, Mapping[str, Any]], str | None]
"""(name of a tensor, the tensor, the dict it stands in) → its axes or None."""

OUT_FIRST = {1: "O", 2: "OI", 3: "OIW", 4: "OIHW", 5: "OIDHW"}
OUT_LAST = {1: "O", 2: "IO", 3: "WIO", 4: "HWIO", 5: "DHWIO"}
OUT_FIRST_IN_LAST = {1: "O", 2: "OI", 3: "OWI", 4: "OHWI", 5: "ODHWI"}


def laid_out(node: Any, layout_of: LayoutOf) -> Any:
    """The same tree of dicts, every tensor with its axes named."""
    if type(node) is not dict:
        return node
    return {
        key: replace(value, layout=layout_of(str(key), value, node))
        if type(value) is Place
        else laid_out(value, layout_of)
        for key, value in node.items()
    }
