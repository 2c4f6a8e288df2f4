"""The walk over a model's graph: each operation's rule in turn, from the parameters to the outputs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from smd_analyze.invariance import layout
from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.degrees import Degrees
from smd_analyze.invariance.lattice import GROUND, Value, constant, plain, zeros
from smd_analyze.invariance.tracing import Graph

Outcome = Value | list[Value | None]
IGNORED = ("dtype", "layout", "device", "pin_memory", "memory_format", "non_blocking", "out_dtype", "generator")
RANDOM = ("rand", "randn", "rand_like", "randn_like", "bernoulli", "native_dropout", "dropout", "randint", "randperm")
MOST_FOLDED = 2_000_000  # elements of a tensor computed from constants; larger ones are treated as data
REACHES = "it reaches the output {place} with no normalization on the way that divides its scale out"
VIEWS = ("alias", "clone", "_to_copy", "type_as", "contiguous")


class NoRule(Exception):
    """The operation, or this use of it, has no rule: it is treated as opaque."""


@dataclass
class Walk:
    """The state of the walk: values of the nodes so far, and those whose numbers are known."""

    graph: Graph
    degrees: Degrees
    needed: set[Node]
    values: dict[Node, Outcome]
    known: dict[Node, torch.Tensor]
    whole: bool = False

    def shape(self, node: Node) -> tuple[int, ...]:
        """Shape of the node's single result."""
        meta = node.meta.get("val")
        return tuple(int(n) for n in meta.shape) if isinstance(meta, torch.Tensor) else ()

    def shapes(self, node: Node) -> list[tuple[int, ...] | None]:
        """Shapes of the results of a node that returns several."""
        meta = node.meta.get("val")
        results = meta if isinstance(meta, (tuple, list)) else [meta]
        return [tuple(int(n) for n in t.shape) if isinstance(t, torch.Tensor) else None for t in results]

    def several(self, node: Node) -> bool:
        """Whether the node returns a tuple."""
        return isinstance(node.meta.get("val"), (tuple, list))

    def value(self, arg: Any) -> Value:
        """What is known of an argument: a node, a tensor, a number."""
        if isinstance(arg, Node):
            found = self.values[arg]
            if isinstance(found, Value):
                return found
            raise NoRule("a tuple where one tensor is expected")
        if isinstance(arg, torch.Tensor):
            return known_value(arg)
        if isinstance(arg, (bool, int, float)):
            return (
                zeros()
                if arg == 0 and not isinstance(arg, bool)
                else constant((), not isinstance(arg, bool) and arg > 0)
            )
        raise NoRule(f"argument of type {type(arg).__name__}")


def known_value(tensor: torch.Tensor) -> Value:
    """A tensor whose numbers are known: where it varies, whether it is zero or nonnegative."""
    shape = tuple(tensor.shape)
    if tensor.is_meta or not tensor.numel():
        return plain(shape) if shape else constant()
    if tensor.dtype != torch.bool and bool((tensor == 0).all()):
        return zeros(shape)
    nonnegative = tensor.dtype.is_floating_point and bool((tensor >= 0).all())
    vary = (a for a, n in enumerate(shape) if n > 1 and not bool((tensor == tensor.narrow(a, 0, 1)).all()))
    return Value(shape, (constant().terms[0].but(None, vary),), nonnegative)


def operation(node: Node) -> str:
    """Name of the operation without namespace and overload: "add" of aten.add.Tensor."""
    text = str(node.target)
    return text.split(".")[1] if text.startswith("aten.") else getattr(node.target, "__name__", text)


def origin(node: Any) -> Any:
    """The node behind copies and casts."""
    while isinstance(node, Node) and node.op == "call_function" and operation(node) in VIEWS:
        node = node.args[0]
    return node


def walk(
    graph: Graph,
    rules: Mapping[str, Callable[..., Outcome]],
    owner: Callable[[str], int],
    space: Space | None = None,
    whole: bool = False,
) -> tuple[Degrees, int]:
    """Carry degrees from the parameters to the outputs and demand degree zero there.

    `owner(name)` numbers what is asked alone: each parameter by itself, or the members of a set as one. `space` holds
    the constraints (default: owners are apart); `whole`: every tensor has one degree, not one per index of its axes.
    Returns the solved degrees and the taint of the outputs: parameters that are missing in it are dead.
    """
    d, taint = Degrees(space or Space()), 0
    for node, value in carried(graph, rules, d, owner, whole):
        taint |= value.taint
        _demand_zero(d, node, value)
    _unused_like_used(d)
    layout.close(d)
    return d, taint


def carried(
    graph: Graph,
    rules: Mapping[str, Callable[..., Outcome]],
    degrees: Degrees,
    owner: Callable[[str], int],
    whole: bool = False,
) -> list[tuple[Node, Value]]:
    """Carry degrees from the parameters to the outputs: what arrives there, with the output's node."""
    needed: set[Node] = set()
    stack = list(graph.outputs)
    while stack:
        node = stack.pop()
        if node not in needed:
            needed.add(node)
            stack += node.all_input_nodes
    w = Walk(graph, degrees, needed, {}, {}, whole)
    for node in graph.nodes:
        if node.op == "placeholder":
            _leaf(w, node, owner)
        elif node.op == "get_attr":
            stored = graph.attribute(str(node.target))
            if isinstance(stored, torch.Tensor):
                w.known[node] = stored
            w.values[node] = known_value(stored) if isinstance(stored, torch.Tensor) else constant()
        elif node.op == "call_function" and node in needed:
            w.degrees.space.place = node
            _step(w, node, rules)
    return [(node, v) for node in graph.outputs for v in _listed(w.values[node]) if v is not None]


def _unused_like_used(d: Degrees) -> None:
    """Rows that the example inputs never reach (positions beyond their length) are taken to be like the others."""
    root, _ = d.space.find(np.concatenate(d.used)) if d.used else (np.zeros(0, int), None)
    used = np.zeros(d.space.count, bool)
    used[root] = True
    for parameter in d.parameters.values():
        for f in parameter.factors[:1]:
            root, _ = d.space.find(f.ids)
            reached = used[root] | (root == GROUND)
            if f.axes and reached.any() and not reached.all():
                d.exchangeable.append((f.ids, 0))


def _demand_zero(d: Degrees, node: Node, value: Value) -> None:
    d.space.place = node
    for term in value.terms:
        d.flush(term)
        d.use(term.degree)
        d.space.cause = REACHES
        d.space.zero(term.degree)


def _leaf(w: Walk, node: Node, owner: Callable[[str], int]) -> None:
    """A placeholder: a parameter, a buffer with known numbers, or data."""
    name = w.graph.parameters.get(node.name)
    if name is not None:
        shape = w.shape(node)
        if name in w.degrees.leaves:  # a tied tensor: the same variables
            w.values[node] = w.degrees.leaves[name]
            return
        blocks = [] if w.whole else w.graph.blocks(node, shape)
        w.values[node] = w.degrees.parameter(name, shape, owner(name), blocks)
    elif node.name in w.graph.constants:
        tensor = w.graph.constants[node.name]
        w.values[node] = known_value(tensor)
        if not tensor.is_meta:
            w.known[node] = tensor
    else:
        w.values[node] = plain(w.shape(node))


def _step(w: Walk, node: Node, rules: Mapping[str, Callable[..., Outcome]]) -> None:
    if node.target is operator.getitem:
        source, index = node.args
        found = w.values[source]  # pyright: ignore[reportArgumentType]
        value = found[index] if isinstance(found, list) else found  # pyright: ignore[reportArgumentType, reportCallIssue]
        w.values[node] = value if value is not None else plain(w.shape(node))
        return
    if _fold(w, node):
        return
    kwargs = {k: v for k, v in node.kwargs.items() if k not in IGNORED}
    rule = rules.get(operation(node))
    try:
        if rule is None:
            raise NoRule(operation(node))
        w.values[node] = rule(w, node, *node.args, **kwargs)
    except Exception as error:  # what a rule cannot take is opaque: sound, and said so in a finding
        name = str(error) if isinstance(error, NoRule) else f"{operation(node)} ({type(error).__name__}: {error})"
        inputs = [v for n in node.all_input_nodes for v in _listed(w.values[n]) if v is not None]
        out = w.degrees.opaque(inputs, w.shape(node), name)
        if w.several(node):
            w.values[node] = [None if s is None else plain(s, out.taint) for s in w.shapes(node)]
        else:
            w.values[node] = out


def _listed(found: Outcome) -> Sequence[Value | None]:
    return found if isinstance(found, list) else [found]


def _fold(w: Walk, node: Node) -> bool:
    """Compute what depends on constants only (masks, position tables), so that its numbers are known."""
    meta = node.meta.get("val")
    if not isinstance(meta, torch.Tensor) or meta.numel() > MOST_FOLDED or operation(node) in RANDOM:
        return False
    if any(n not in w.known for n in node.all_input_nodes) or "meta" in str(node.kwargs.get("device", "")):
        return False
    try:
        with torch.no_grad():
            args = torch.fx.map_arg(node.args, lambda n: w.known[n])
            kwargs = torch.fx.map_arg(node.kwargs, lambda n: w.known[n])
            result = node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
    except Exception:  # any operation may be here; without its numbers the rule still applies
        return False
    w.known[node] = result
    w.values[node] = known_value(result)
    return True
