"""Layers that are scanned (flax.linen.scan, nnx.scan, haliax.Stacked): one tensor holds all of them along one axis.

Such a tensor is no matrix: it is cut into its layers, `decoder.layers.mlp.wi.kernel` into `decoder.layers.0.mlp.…`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from smd_analyze.loading.tensors.cutting import can_be_cut, cut
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import tensors
from smd_analyze.records.finding import Finding

GAINS = ("scale", "gamma", "offset")
BIASES = ("bias", "b", "beta")
NAMES = re.compile(
    r"(\w*_)?(layers?|blocks?|stack|stacked|scan|scanned|repeat|cycles?|h)|\w*scan\w*|(en|de)coder_?blocks?|layer_stack",
    re.IGNORECASE,
)
MOST_LAYERS = 1000
DEEPEST = 40


@dataclass(frozen=True)
class Stack:
    """`length` layers along `axis` of every tensor below the dotted path `where`; `whole`: they cannot be cut."""

    where: str
    axis: int
    length: int
    whole: bool = False


def find_stacks(node: Any, where: str = "", depth: int = 0) -> list[Stack]:
    """The topmost modules whose tensors are all stacked."""
    if type(node) is not dict or depth > DEEPEST:
        return []
    inner = [v for v in node.values() if type(v) is dict and tensors(v)]
    alone = len(inner) == 1 and not any(type(v) is Place for v in node.values())
    found = None if alone and not NAMES.fullmatch(where.rpartition(".")[2]) else stack_at(node, where)
    if found is not None:
        return [found]
    return [s for k, v in node.items() for s in find_stacks(v, f"{where}.{k}" if where else str(k), depth + 1)]


def stack_at(node: Mapping[str, Any], where: str) -> Stack | None:
    """Every tensor has as many entries along one axis as there are layers, and vectors have an axis too many.

    A normalization's gain of two axes tells it. Without one, the module's name must, and every matrix have three axes.
    """
    word = where.rpartition(".")[2]
    if not word:
        return None
    found = tensors(node)
    gains = [tuple(n for n in p.shape if n > 1) for name, p in found.items() if is_gain(name)]  # Haiku's are (1, 1, n)
    biases = [p.shape for n, p in found.items() if n.rpartition(".")[2] in BIASES]
    matrices = [p.shape for n, p in found.items() if not is_gain(n) and n.rpartition(".")[2] not in BIASES]
    if not found or any(len(s) < 2 for s in (*gains, *biases)):
        return None
    named = NAMES.fullmatch(word) is not None and not any(str(k).isdigit() for k in node)
    modules = {n.rpartition(".")[0] for n in found}
    if not (gains and (named or len(modules) > 1)) and not (named and matrices and all(len(s) > 2 for s in matrices)):
        return None
    fitting: list[tuple[int, int]] = []
    for axis in (0, 1):
        lengths = {p.shape[axis] if len(p.shape) > axis else 0 for p in found.values()}
        if len(lengths) == 1 and 1 <= (length := next(iter(lengths))) <= MOST_LAYERS:
            fitting.append((length, axis))
    if not fitting:
        return None
    length, axis = min(fitting)  # where all take their inputs from the width, that fits too, and is larger
    return Stack(where, axis, length, not all(can_be_cut(p, axis) for p in found.values()))


def is_gain(name: str) -> bool:
    """A normalization's gain, by its name: of one axis, unless layers are stacked."""
    module, _, leaf = name.rpartition(".")
    return leaf in GAINS or (leaf == "weight" and re.search(r"norm|(^|[._])ln", module.lower()) is not None)


def unstacked(node: Any, stacks: Sequence[Stack], where: str = "") -> Any:
    """The tree with a dict of layers, "0", "1", …, for each stack."""
    stack = next((s for s in stacks if s.where == where and not s.whole), None)
    if stack is not None:
        return {str(i): layer(node, stack.axis, i) for i in range(stack.length)}
    if type(node) is not dict or not any(s.where.startswith(where) for s in stacks):
        return node
    return {k: unstacked(v, stacks, f"{where}.{k}" if where else str(k)) for k, v in node.items()}


def layer(node: Any, axis: int, index: int) -> Any:
    """One layer's part of everything below a node."""
    if type(node) is Place:
        return cut(node, axis, index)
    return {k: layer(v, axis, index) for k, v in node.items()} if type(node) is dict else node


def each_layer(name: str, place: Place, stacks: Sequence[Stack]) -> Iterator[tuple[str, Place]]:
    """A tensor by its dotted name (a moment, an average), cut if it belongs to a stack and has its length."""
    for stack in stacks:
        if name.startswith(stack.where + ".") and not stack.whole:
            if (
                not can_be_cut(place, stack.axis)
                or len(place.shape) <= stack.axis
                or place.shape[stack.axis] != stack.length
            ):
                return  # something else is kept of the stack: it cannot be told to which layer it belongs
            for i in range(stack.length):
                yield f"{stack.where}.{i}{name[len(stack.where) :]}", cut(place, stack.axis, i)
            return
    yield name, place


def findings(stacks: Sequence[Stack]) -> tuple[Finding, ...]:
    """What was cut, in words."""
    out: list[Finding] = []
    for s in stacks:
        words = f"its tensors hold {s.length} layers each, along axis {s.axis}: "
        if s.whole:
            words += "they cannot be cut as they lie, and all numbers are of the layers together"
            out.append(Finding("stacked-layers", "warning", s.where, words, "Save the layers apart, or with Orbax."))
        else:
            words += f"they are analysed as {s.where}.0 to {s.where}.{s.length - 1}"
            out.append(Finding("stacked-layers", "note", s.where, words))
    return tuple(out)
