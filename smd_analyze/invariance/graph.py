"""Model and inputs → verdicts for the run's parameters, proved on the model's graph."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from smd_analyze.errors import UsageError
from smd_analyze.invariance.constraints import Space
from smd_analyze.invariance.degrees import Degrees, Parameter
from smd_analyze.invariance.example_inputs import Inputs, candidates
from smd_analyze.invariance.frozen import in_model, told_apart
from smd_analyze.invariance.fused import verdicts_of
from smd_analyze.invariance.joint_verdicts import add_joint, told
from smd_analyze.invariance.lattice import Value
from smd_analyze.invariance.matching import match_names
from smd_analyze.invariance.modules import role, split
from smd_analyze.invariance.reading import Part, Reading, read_best
from smd_analyze.invariance.rules import RULES
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.sources.jax_model import build as from_jax
from smd_analyze.invariance.sources.jax_model import is_of_jax
from smd_analyze.invariance.specs import label, load_inputs, load_model
from smd_analyze.invariance.tracing import Graph, module_of, trace
from smd_analyze.invariance.translations import class_axis, with_translations
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.invariance.walking import carried, operation, walk
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Granularity
from smd_analyze.records.run import LazyTensor

NORM_CLASS = re.compile("norm", re.IGNORECASE)
PLAIN_WORD = {  # operations whose own name says little
    "_native_batch_norm_legit_functional": "batch norm",
    "linalg_vector_norm": "norm",
    "native_layer_norm": "layer norm",
    "native_group_norm": "group norm",
    "_fused_rms_norm": "rms norm",
    "add": "sum",
    "mul": "product",
    "div": "quotient",
    "mm": "matrix product",
    "addmm": "linear",
    "scaled_dot_product_attention": "attention",
}


def graph_verdicts(
    model: str | Callable[..., Any], inputs: Any, tensors: Mapping[str, LazyTensor], guessed: Sequence[Verdict],
    check: bool = False, frozen: Mapping[str, str] = {},
) -> tuple[list[Verdict], str, list[Finding]]:  # fmt: skip
    """A verdict for each of the run's `tensors`, what they rest on, and what did not fit.

    Tensors that the model does not have keep their `guessed` verdict, with a finding. `check`: numerically, too.
    `frozen`: the run's batch normalizations in eval mode → when they were.
    """
    made = load_model(model)
    if is_of_jax(made):
        built = from_jax(made, None if inputs is None else load_inputs(inputs), label(model), tensors)
        return built_verdicts(built, None, tensors, guessed, check, frozen)
    return built_verdicts(Built(made, label(model)), inputs, tensors, guessed, check, frozen)


def built_verdicts(
    built: Built, inputs: Any, tensors: Mapping[str, LazyTensor], guessed: Sequence[Verdict], check: bool = False,
    frozen: Mapping[str, str] = {},
) -> tuple[list[Verdict], str, list[Finding]]:  # fmt: skip
    """The same for a model that is there; `inputs` win over those that were built with it."""
    try:
        graph, used = _traced(built.network, inputs if inputs is not None else built.inputs, built.label)
    except UsageError as problem:
        if not check:
            raise
        from smd_analyze.invariance.verifying_names import checked_guesses

        chosen = _chosen(inputs if inputs is not None else built.inputs)
        return checked_guesses(built, [chosen] if chosen else candidates(built.network), tensors, guessed, problem)
    proved, findings = analyse(graph)
    match = match_names(graph, tensors, built.label, built.names or {}, built.transposed or {})
    matched, orders = match.names, match.orders
    norms: Mapping[str, str] = {}
    if frozen:
        norms, lost = in_model(frozen, matched, graph.module_types)
        proved = told_apart(proved, analyse(replace(graph, frozen=frozenset(norms)))[0], norms)
        findings = [*findings, *lost]
    if check:
        from smd_analyze.invariance.verifying_run import verified

        proved, checked = verified(replace(built, transposed=orders), graph, used, matched, tensors, proved, norms)
        findings = [*findings, *checked]
    verdicts: list[Verdict] = []
    for parameter in tensors:
        own = matched.get(parameter)
        if parameter in match.parts:
            verdicts += verdicts_of(parameter, match.parts[parameter], proved, graph.aliases)
        elif own is None:
            verdicts += [v for v in guessed if v.parameter == parameter]
        else:
            found = [replace(v, parameter=parameter) for v in proved[graph.aliases[own]]]
            order = orders.get(own)
            verdicts += [_reordered(v, order) for v in found] if order else found
    verdicts = told(verdicts, matched, graph.aliases, proved)
    read_output = "" if graph.outputs_read in ("output", "") else f", {graph.outputs_read} as the output"
    return verdicts, f"graph of {built.label}{read_output}", [*built.findings, *match.findings, *findings]


def _traced(network: Any, inputs: Any, name: str) -> tuple[Graph, Inputs]:
    """The graph, and the inputs that it was traced with."""
    chosen = _chosen(inputs)
    if chosen is not None:
        return trace(network, *chosen, name), chosen
    error: UsageError | None = None
    for args, kwargs in candidates(network):
        try:
            return trace(network, args, kwargs, name), (args, kwargs)
        except UsageError as failed:
            error = failed
    if error is None:
        raise UsageError(f"{name}: no example inputs can be guessed from the model; give them with --inputs")
    raise UsageError(f"{name}: none of the guessed example inputs fits; give them with --inputs (last try: {error})")


def _reordered(v: Verdict, order: Sequence[int]) -> Verdict:
    """The verdict with axes counted as in the checkpoint."""
    sums = tuple(replace(t, axes=tuple(sorted(order[a] for a in t.axes))) for t in v.translations)
    return replace(v, axis=order[v.axis], translations=sums)


def _chosen(inputs: Any) -> Inputs | None:
    """The caller's inputs, or a graph source's, as (positional, keyword)."""
    return inputs if inputs is None or _is_pair(inputs) else load_inputs(inputs)


def _is_pair(inputs: Any) -> bool:
    """Inputs as a graph source gives them: (positional, keyword)."""
    return (
        isinstance(inputs, tuple) and len(inputs) == 2 and isinstance(inputs[0], tuple) and isinstance(inputs[1], dict)
    )


def analyse(graph: Graph) -> tuple[dict[str, list[Verdict]], list[Finding]]:
    """Verdicts for every parameter of the graph, and a finding for each operation without a rule.

    Each parameter is asked alone first, then all together; then for sums that feel no gradient.
    """
    names = list(dict.fromkeys(graph.aliases.values()))
    number = {n: i for i, n in enumerate(names)}
    alone, taint = walk(graph, RULES, number.__getitem__)
    readers = {graph.parameters[n.name]: n for n in reversed(graph.nodes) if n.name in graph.parameters}
    axes = {name: _output_axis(graph, name, readers.get(name)) for name in names}
    readings = {n: read_best(alone.space, p, axes[n]) for n, p in alone.parameters.items()}
    verdicts = {name: _alone(graph, alone, taint, name, readings.get(name), axes[name]) for name in names}

    def walked(owner: Callable[[str], int], space: Space, whole: bool) -> Degrees:
        return walk(graph, RULES, owner, space, whole)[0]

    def where(place: Any) -> str:
        return _where(graph, place)

    def carry(d: Degrees) -> list[tuple[Any, Value]]:
        return list(carried(graph, RULES, d, number.__getitem__))

    def absorber(place: Any) -> tuple[str, float | None]:
        return _absorber(graph, place)

    verdicts, findings = add_joint(verdicts, number, axes, walked, where, absorber)
    classes = graph.outputs_read in ("output", "logits", "")
    verdicts = with_translations(verdicts, carry, axes, class_axis if classes else None, where)
    return verdicts, [*(_opaque(*entry) for entry in alone.opaque_operations.items()), *findings]


def _opaque(name: str, count: int) -> Finding:
    times = f"{count} times" if count > 1 else "once"
    message = f"the model's graph holds, {times}, an operation whose effect on scales is not known: {name}"
    return Finding(
        "operation-without-rule", "note", name, message, "weights before it may be invariant without a proof"
    )


def _dead(d: Degrees, taint: int, name: str) -> bool:
    return not taint >> d.parameters[name].number & 1


def _alone(graph: Graph, d: Degrees, taint: int, name: str, reading: Reading | None, axis: int) -> list[Verdict]:
    """What one parameter may do by itself."""
    shape = graph.shapes[name]
    kind = _role(graph, name, shape)
    if reading is None or _dead(d, taint, name):
        number = d.parameters[name].number if name in d.parameters else -1
        place = d.deleted.get(number)
        reason = (
            f"{_where(graph, place)} subtracts what is constant over what it normalizes"
            if place
            else "no output depends on it"
        )
        return [Verdict(name, kind, "dead", reason, "proved", axis=axis, units=shape[axis] if shape else 1)]
    parameter = d.parameters[name]
    sliced = len(reading.parts) > 1
    return [_part(graph, d, parameter, name, kind, reading, part, sliced, axis) for part in reading.parts]


def _part(
    graph: Graph, d: Degrees, parameter: Parameter, name: str, kind: str, reading: Reading, part: Part, sliced: bool,
    axis: int,
) -> Verdict:  # fmt: skip
    shape = parameter.shape
    where = (part.start, part.stop) if sliced else None
    if not part.free:
        place, cause = d.space.why.get(parameter.number, (None, "it mixes elements that scale differently"))
        reason = cause.format(place=_where(graph, place)) if "{place}" in cause else f"{_where(graph, place)}: {cause}"
        axis = reading.axis if sliced else axis
        units = part.count if sliced else (shape[axis] if shape else 1)
        return Verdict(name, kind, "not invariant", reason, "not proved", "", axis, where, units, every=part.every)
    probe = Verdict(
        name, kind, "invariant", "", "proved", _granularity(part), reading.axis, where, part.units, every=part.every
    )
    place = d.absorbed.get(parameter.number)
    reason = f"{_where(graph, place)} divides its scale out" if place is not None else "its scale cancels on every path"
    if probe.numel(shape) == part.units:  # single numbers whose size does not matter feel no gradient
        deleted = d.deleted.get(parameter.number)
        reason = f"{_where(graph, deleted)} subtracts it" if deleted is not None else f"{reason}; only its sign is left"
        return replace(probe, status="dead", reason=reason, granularity="")
    norm, eps = _absorber(graph, place)
    if reading.axis != axis:
        reason += f" (for each index of axis {reading.axis})" if part.units > 1 else ""
    return replace(probe, reason=reason, norm=norm, eps=eps)


def _granularity(part: Part) -> Granularity:
    if part.block == 1:
        return "unit"
    return "block" if part.units > 1 else "whole"


def _where(graph: Graph, place: Any) -> str:
    """An operation by the module that it stands in: "layer1.0.bn1 (BatchNorm2d)", "gelu in mlp (MLP)"."""
    if not isinstance(place, Node):
        return "the model"
    module, word = module_of(place, graph), PLAIN_WORD.get(operation(place), operation(place).strip("_"))
    word = "batch norm" if "batch_norm" in word else word.replace("_", " ")
    return module if word.replace(" ", "") in module.lower() else f"{word} in {module}" if module else word


def _absorber(graph: Graph, place: Any) -> tuple[str, float | None]:
    """Path of the normalization that the operation belongs to, and the ε that it adds (None: not known)."""
    if not isinstance(place, Node):
        return "", None
    path, name = module_of(place, graph).partition(" (")[0], operation(place)
    if name.startswith("_weight_norm"):
        return path, 0.0
    numbers = [a for a in (*place.args, *place.kwargs.values()) if isinstance(a, float)]
    return path, numbers[-1] if numbers and "norm" in name and name != "linalg_vector_norm" else None


def _output_axis(graph: Graph, name: str, node: Node | None) -> int:
    """Axis of the output units: by the layer's class, else by the operations that read the tensor's `node`."""
    shape = graph.shapes[name]
    if len(shape) < 2:
        return 0
    kind = graph.module_types.get(split(name)[0], "")
    if kind.startswith("ConvTranspose"):
        return 1
    if kind == "Conv1D" and len(shape) == 2:  # GPT-2's linear layer stores its weight as [in, out]
        return 1
    for user in node.users if node is not None else ():
        if operation(user) in ("mm", "matmul", "bmm", "addmm") and user.args[-1] is node:
            return len(shape) - 1
    return 0


def _role(graph: Graph, name: str, shape: tuple[int, ...]) -> str:
    """By the class of the layer that owns it, else by name and shape."""
    path, leaf = split(name)
    kind = graph.module_types.get(path, "")
    if leaf == "weight" and len(shape) >= 2 and kind.startswith("Conv") and kind != "Conv1D":
        return "conv"
    if leaf == "weight" and kind == "Embedding":
        return "embedding"
    if leaf == "weight" and NORM_CLASS.search(kind) and len(shape) <= 1:
        return "norm gain"
    return role(name, LazyTensor(shape, "float32", _never))


def _never() -> Any:
    raise AssertionError("a parameter of the graph is never read")
