"""Axes of Levanter's weights: haliax keeps no names of them in a checkpoint, but the model's width tells.

Projections into a layer take their inputs from the width, projections out of it give theirs to it; where the width does
not tell (square ones), the side on which the others have it does. Source: levanter/models, haliax/nn/linear.py.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from smd_analyze.loading.tensors.places import Place

INWARD = re.compile(r"((q|k|v|qkv|gate|up|query|key|value)_proj|c_fc|c_attn|lm_head|w1|w3|gate|up)$")
OUTWARD = re.compile(r"((o|out|down)_proj|c_proj|w2|down)$")
NORMS = re.compile(r"norm|(^|[._])ln", re.IGNORECASE)


def is_levanter(node: Any) -> bool:
    """Weights are called `weight`, none `kernel` or `w`."""
    leaves = {path[-1] for path, _ in walk(node, ()) if path}
    return "weight" in leaves and not leaves & {"kernel", "w"}


def walk(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Place]]:
    """(path, tensor) of everything below."""
    if type(node) is Place:
        yield path, node
    elif type(node) is dict:
        for key, value in node.items():
            yield from walk(value, (*path, str(key)))


def laid_out(node: Any) -> Any:
    """The same tree, its projections with their axes named."""
    found = list(walk(node, ()))
    widths = Counter(p.shape[0] for path, p in found if len(p.shape) == 1 and NORMS.search(".".join(path[-2:])))
    width = widths.most_common(1)[0][0] if widths else 0
    clear = Counter(side for path, p in found if (side := side_of(path, p, width)))
    first = clear["first"] >= clear["last"] if clear else None
    return named(node, (), width, first)


def side_of(path: tuple[str, ...], place: Place, width: int) -> str:
    """Where the outputs stand, "first" or "last"; "" if the shape does not tell or the name is not known."""
    module, shape = path[-2] if len(path) > 1 else "", place.shape
    ends = (shape[0] == width, shape[-1] == width) if len(shape) > 1 else (False, False)
    if path[-1:] != ("weight",) or ends[0] == ends[1]:
        return ""
    if INWARD.search(module):
        return "first" if ends[1] else "last"
    return ("first" if ends[0] else "last") if OUTWARD.search(module) else ""


def named(node: Any, path: tuple[str, ...], width: int, first: bool | None) -> Any:
    """The tree with axes: several axes of one kind stand together."""
    if type(node) is dict:
        return {k: named(v, (*path, str(k)), width, first) for k, v in node.items()}
    if type(node) is not Place:
        return node
    axes = len(node.shape)
    module = path[-2] if len(path) > 1 else ""
    if axes == 1:
        return replace(node, layout="O")
    if path[-1:] == ("bias",):
        return replace(node, layout="O" * axes or None)
    inward, outward = INWARD.search(module), OUTWARD.search(module)
    if path[-1:] != ("weight",) or axes < 2 or not (inward or outward) or first is None:
        return node
    side = side_of(path, node, width) or ("first" if first else "last")
    many, one = ("O", "I") if inward else ("I", "O")
    return replace(
        node, layout=many * (axes - 1) + one if (side == "first") == bool(inward) else one + many * (axes - 1)
    )
