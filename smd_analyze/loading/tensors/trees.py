"""Walking a checkpoint's tree: paths, tensors under dotted names. Trees may be cyclic or unfold without end."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.errors import UnsafeFile
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, renumbered

MOST_NODES = 300_000
DEEPEST = 60


def as_dict(node: Any) -> dict[Any, Any] | None:
    """A dict, or an object's attributes; None for everything else. omegaconf's wrapping is taken off."""
    if type(node) is dict:
        return node
    if type(node) is Inert:
        found = node.attributes
        content = found.get("_content")
        return content if isinstance(content, dict) else found
    return None


def plain(node: Any) -> Any:
    """A leaf's own value: an enum's, an omegaconf node's, else the leaf."""
    if type(node) is Inert:
        if "_val" in node.attributes:
            return node.attributes["_val"]
        if len(node.args) == 1 and isinstance(node.args[0], str | int | float):
            return node.args[0]
    return node


def number_of(value: Any) -> float | None:
    """A number, booleans as 0 and 1; None for anything else, tensors included."""
    value = plain(value)
    if type(value) in (int, float, bool):
        try:
            return float(value)
        except OverflowError:
            return None
    return None


def text_of(value: Any) -> str | None:
    """A short list, dict of numbers, or word as text."""
    if isinstance(value, str):
        return value
    if (
        type(value) is dict
        and value
        and all(type(k) in (int, str) and type(v) in (int, float) for k, v in value.items())
    ):
        return json.dumps(list(value.keys()) if all(type(k) is int for k in value) else value)
    if type(value) in (list, tuple) and len(value) <= 64 and all(type(v) in (int, float) for v in value):
        return json.dumps(list(value))
    return None


def get(node: Any, path: str) -> Any:
    """The value at a dotted path through dicts, objects and lists ("optimizer_history.-1.num_updates"), or None."""
    for key in path.split("."):
        if isinstance(node, list | tuple):
            index = int(key) if key.lstrip("-").isdigit() else len(node)
            node = node[index] if -len(node) <= index < len(node) else None
        else:
            found = as_dict(node)
            node = found.get(key) if found is not None else None
        if node is None:
            return None
    return plain(node)


def nested(flat: Mapping[str, Any], mark: str = "/") -> dict[str, Any]:
    """Names with slashes as dicts within dicts; flat as it was where a name is also the beginning of another."""
    out: dict[str, Any] = {}
    for name, value in flat.items():
        *path, leaf = name.split(mark)
        node = out
        for part in path:
            node = node.setdefault(part, {})
            if type(node) is not dict:
                return dict(flat)
        if leaf in node:
            return dict(flat)
        node[leaf] = value
    return out


def tensors(node: Any, what: str = "checkpoint") -> dict[str, Place]:
    """All tensors below a node under dotted names, in the order of the file.

    nn.Modules pickled whole give their state dict's names (own parameters, own buffers, then the children's).
    """
    out: dict[str, Place] = {}
    for name, place in _Walk(what).walk(node, "", 0):
        out.setdefault(name, place)
    return out


class _Walk:
    """One walk: what it has seen, so that shared nodes without tensors are visited once."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.nodes = 0
        self.found = 0
        self.barren: dict[int, Any] = {}

    def walk(self, node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Place]]:
        """(dotted name, tensor) for everything below a node."""
        kind = type(node)
        if kind is Place:
            self.found += 1
            yield prefix, node
            return
        if kind not in _BRANCHES or id(node) in self.barren:
            return
        self.nodes += 1
        if self.nodes > MOST_NODES or depth > DEEPEST:
            raise UnsafeFile(
                f"{self.what}: refused: its tree unfolds to more than {MOST_NODES} nodes or {DEEPEST} levels"
            )
        before = self.found
        yield from self.children(node, prefix, depth + 1)
        if self.found == before:
            self.barren[id(node)] = node  # kept, so that its id is not given to another

    def children(self, node: Any, prefix: str, depth: int) -> Iterator[tuple[str, Place]]:
        """The same for the node's parts."""
        if type(node) is Inert:
            found = node.attributes
            if "_modules" in found:
                yield from self.module(node.name, found, prefix, depth)
                return
            if "ConvTranspose" in node.name:  # TorchScript's objects bear the class's name, and what they hold
                found = {k: in_first(v) if k == "weight" else v for k, v in found.items()}
            node = found
        pairs = node.items() if type(node) is dict else enumerate(node)
        for key, value in pairs:
            if type(value) in _BRANCHES:
                yield from self.walk(value, f"{prefix}.{key}" if prefix else str(key), depth)

    def module(self, name: str, found: dict[str, Any], prefix: str, depth: int) -> Iterator[tuple[str, Place]]:
        """A pickled nn.Module: its class is known, so axes of transposed convolutions are too."""
        for part in ("_parameters", "_buffers", "_modules"):
            for title, place in self.walk(found.get(part) or {}, prefix, depth):
                yield title, in_first(place) if part == "_parameters" and "ConvTranspose" in name else place


def in_first(node: Any) -> Any:
    """The kernel of a transposed convolution: (in, out, …)."""
    if type(node) is not Place or len(node.shape) < 3:
        return node
    return replace(node, layout="IO" + "DHW"[5 - len(node.shape) :])


def moved(node: Any, file: int) -> Any:
    """The same tree with its places in file number `file`. Cyclic parts are kept as they are found once."""
    return with_places(node, lambda place: renumbered(place, lambda number: number + file)) if file else node


def with_places(node: Any, change: Callable[[Place], Place]) -> Any:
    """The same tree with each place changed; what is shared or cyclic stays so. UnsafeFile if it is too deep."""
    try:
        return _changed(node, change, {})
    except RecursionError:
        raise UnsafeFile("refused: its tree is nested deeper than any trainer's") from None


def _changed(node: Any, change: Callable[[Place], Place], seen: dict[int, Any]) -> Any:
    kind = type(node)
    if kind is Place:
        return change(node)
    if kind not in (dict, list, tuple, Inert):
        return node
    if id(node) in seen:
        return seen[id(node)]
    if kind is tuple:
        return tuple(_changed(v, change, seen) for v in node)
    if kind is dict:
        made: Any = {}
        seen[id(node)] = made
        made.update((k, _changed(v, change, seen)) for k, v in node.items())
    elif kind is list:
        made = []
        seen[id(node)] = made
        made.extend(_changed(v, change, seen) for v in node)
    else:
        made = Inert(node.name, node.args)
        seen[id(node)] = made
        made.args = _changed(node.args, change, seen)
        made.state = _changed(node.state, change, seen)
        made.items = _changed(node.items, change, seen)
        made.sequence = _changed(node.sequence, change, seen)
    return made


_BRANCHES = frozenset({Place, dict, list, tuple, Inert})
