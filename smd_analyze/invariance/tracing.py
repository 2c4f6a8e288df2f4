"""Model → graph of ATen operations, without in-place writes, as the model computes in training."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.fx import GraphModule, Node
from torch.utils._pytree import tree_map

from smd_analyze.errors import UsageError

PREFIX = "model."
BY_PRODUCT = re.compile(r"past|cache|hidden_state|attention|mems|state$|states$|_model_output$|^aux")
MOST_NAMED = 3


@dataclass(frozen=True)
class Graph:
    """What the walk needs: the nodes, which placeholders are parameters or buffers, and which nodes are read.

    `parameters` maps a placeholder to the parameter's name (of tied ones the first), `aliases` every name to that one.
    `module_types` maps a module's path to its class name. `outputs_read` says in words what is taken as the output.
    `frozen` are paths of batch normalizations in eval mode.
    """

    module: GraphModule
    parameters: Mapping[str, str]
    constants: Mapping[str, torch.Tensor]
    outputs: Sequence[Node]
    aliases: Mapping[str, str]
    shapes: Mapping[str, tuple[int, ...]]
    module_types: Mapping[str, str]
    outputs_read: str = ""
    users: Mapping[str, Sequence[tuple[str, Node]]] = field(default_factory=dict)
    frozen: frozenset[str] = frozenset()

    @property
    def nodes(self) -> Sequence[Node]:
        """All nodes in the order of computation."""
        return list(self.module.graph.nodes)

    def is_frozen(self, node: Node) -> bool:
        """Whether the operation stands in a normalization that runs with its saved statistics."""
        return bool(self.frozen) and module_of(node, self).partition(" (")[0] in self.frozen

    def attribute(self, target: str) -> Any:
        """What is stored in the graph module under that name: a tensor, or the body of a branch."""
        found: Any = self.module
        for word in target.split("."):
            found = getattr(found, word)
        return found

    def blocks(self, node: Node, shape: tuple[int, ...]) -> list[tuple[tuple[int, ...], Any]]:
        """The degree vectors of a parameter: one per axis that is longer than 1.

        Convolution kernels only on the two channel axes, grouped ones on (output) and (group, input); stacks of
        matrices [E, a, b] on (E, a) and (E, b).
        """
        for user in node.users:
            name = str(user.target)
            if "conv" in name and len(user.args) > 1 and user.args[1] is node:
                return _kernel_blocks(shape, _groups(user, name))
        if len(shape) == 3 and min(shape) > 1:
            return [((0, 1), None), ((0, 2), None)]
        return [((a,), None) for a, n in enumerate(shape) if n > 1]


def _kernel_blocks(shape: tuple[int, ...], groups: int) -> list[tuple[tuple[int, ...], Any]]:
    if groups > 1 and shape[1] > 1:
        group = np.arange(shape[0]) // (shape[0] // groups)
        return [((0,), None), ((0, 1), group[:, None] * shape[1] + np.arange(shape[1])[None])]
    return [((a,), None) for a in (0, 1) if shape[a] > 1]


def _groups(node: Node, name: str) -> int:
    position = 8 if "convolution" in name else 6
    found = node.args[position] if len(node.args) > position else node.kwargs.get("groups", 1)
    return found if isinstance(found, int) else 1


class _Note:
    """A text that survives tracing, which puts back what it changes on modules."""

    text = ""


class _Training(nn.Module):
    """The model with one flat tuple of tensors as output: those that a loss would read."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.note = _Note()

    def forward(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, ...]:
        """The model's output tensors."""
        tensors, self.note.text = read_outputs(self.model(*args, **kwargs))
        if not tensors:
            raise ValueError("the model returns no floating-point tensor")
        return tensors


def read_outputs(output: Any) -> tuple[tuple[torch.Tensor, ...], str]:
    """The tensors that a loss reads, and what they are called: `loss`, else every tensor returned.

    Of a model that names its outputs, caches, hidden states and the like do not count beside logits: they would make
    every weight before them count. What is not known to be such a by-product does (boxes beside a detector's logits).
    """
    named = (
        {k: output[k] for k in output}
        if isinstance(output, Mapping)
        else vars(output)
        if hasattr(output, "logits")
        else {}
    )
    if isinstance(named.get("loss"), torch.Tensor):
        return (named["loss"],), "loss"
    read = named
    for mark in ("logits", "last_hidden_state"):
        if any(mark in str(k) and v is not None for k, v in named.items()):
            read = {k: v for k, v in named.items() if str(k) == mark or not BY_PRODUCT.search(str(k))}
            break
    found: list[torch.Tensor] = []

    def collect(value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if value.is_floating_point() or value.is_complex():
                found.append(value)
        elif isinstance(value, Mapping):
            for entry in value.values():
                collect(entry)
        elif isinstance(value, (tuple, list)):
            for entry in value:
                collect(entry)

    collect(read if named else output)
    holders = [str(k) for k, v in read.items() if isinstance(v, torch.Tensor)]
    if named and len(holders) == len(found) <= MOST_NAMED:
        return tuple(found), " and ".join(holders)
    return tuple(found), "output" if len(found) == 1 else f"all {len(found)} outputs"


def trace(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], label: str) -> Graph:
    """Trace the model in training mode by torch.export, by make_fx if that fails.

    The model's own mode is put back afterwards. Raises UsageError, naming `label`, if it cannot be traced.
    """
    modes = [(m, m.training) for m in model.modules()]
    config = getattr(model, "config", None)
    cache = getattr(config, "use_cache", None)
    try:
        model.train()
        if any(p.is_meta for p in model.parameters()):  # a model without numbers takes inputs without
            args, kwargs = tree_map(_on_meta, (args, dict(kwargs)))
        if cache:
            config.use_cache = False  # pyright: ignore[reportOptionalMemberAccess]
        with quiet():
            try:
                return _exported(model, args, kwargs)
            except Exception as first:
                try:
                    return _recorded(model, args, kwargs)
                except Exception as second:
                    raise UsageError(
                        f"{label}: the model could not be traced with inputs {describe(args, kwargs)} "
                        f"({_first_line(second)}; torch.export: {_first_line(first)}); give example inputs that its "
                        "forward accepts with --inputs"
                    ) from second
    finally:
        if cache:
            config.use_cache = cache  # pyright: ignore[reportOptionalMemberAccess]
        for module, training in modes:
            module.training = training


def _on_meta(value: Any) -> Any:
    return value.to("meta") if isinstance(value, torch.Tensor) else value


def _exported(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
    from torch.export.graph_signature import InputKind, OutputKind

    wrapped = _Training(model)
    program = torch.export.export(wrapped, args, dict(kwargs), strict=False)
    program = program.run_decompositions({})
    parameters: dict[str, str] = {}
    constants: dict[str, torch.Tensor] = {}
    aliases, is_state = _aliases(model), _state(model)
    for spec in program.graph_signature.input_specs:
        name, target = spec.arg.name, spec.target or ""
        if spec.kind == InputKind.PARAMETER:
            parameters[name] = aliases[target.removeprefix(PREFIX)]
        elif spec.kind in (InputKind.BUFFER, InputKind.CONSTANT_TENSOR) and not is_state.get(
            target.removeprefix(PREFIX)
        ):
            tensor = program.state_dict.get(target, program.constants.get(target))
            if isinstance(tensor, torch.Tensor):
                constants[name] = tensor
    kinds = [spec.kind for spec in program.graph_signature.output_specs]
    returned = _output_node(program.graph_module).args[0]
    outputs = [n for n, k in zip(returned, kinds, strict=True) if k == OutputKind.USER_OUTPUT and isinstance(n, Node)]  # pyright: ignore
    return _graph(model, program.graph_module, parameters, constants, outputs, wrapped.note.text)


def _recorded(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Graph:
    """By running it: follows the branches that these inputs take."""
    from torch.func import functional_call, functionalize
    from torch.fx.experimental.proxy_tensor import make_fx

    wrapped = _Training(model)
    parameters = {k: v.detach() for k, v in wrapped.named_parameters()}
    buffers = {k: v.detach().clone() for k, v in wrapped.named_buffers()}

    def run(p: list[torch.Tensor], b: list[torch.Tensor], *xs: Any) -> Any:
        state = dict(zip(parameters, p, strict=True)) | dict(zip(buffers, b, strict=True))
        return functional_call(wrapped, state, xs, dict(kwargs))

    tracer = make_fx(functionalize(run), tracing_mode="real", _error_on_data_dependent_ops=False)
    module = tracer(list(parameters.values()), list(buffers.values()), *args)
    placeholders = [n for n in module.graph.nodes if n.op == "placeholder"]
    names = {n.name: k.removeprefix(PREFIX) for n, k in zip(placeholders, parameters, strict=False)}
    is_state = _state(model)
    constants = {
        n.name: b
        for n, (k, b) in zip(placeholders[len(parameters) :], buffers.items(), strict=False)
        if not is_state.get(k.removeprefix(PREFIX))
    }
    returned = _output_node(module).args[0]
    outputs = [n for n in (returned if isinstance(returned, (tuple, list)) else [returned]) if isinstance(n, Node)]
    return _graph(model, module, names, constants, outputs, wrapped.note.text)


def _graph(
    model: nn.Module, module: GraphModule, parameters: Mapping[str, str], constants: Mapping[str, torch.Tensor],
    outputs: Sequence[Node], read: str,
) -> Graph:  # fmt: skip
    shapes = {k: tuple(p.shape) for k, p in model.named_parameters(remove_duplicate=False)}
    types = {path: type(m).__name__ for path, m in model.named_modules()}
    return Graph(module, parameters, constants, outputs, _aliases(model), shapes, types, read)


def untraced(model: nn.Module) -> Graph:
    """Names and shapes of a model that could not be traced: no operations."""
    return _graph(model, GraphModule(nn.Module(), torch.fx.Graph()), {}, {}, (), "")


def _state(model: nn.Module) -> dict[str, bool]:
    """Which buffers' numbers must not be relied on: saved floating-point ones, which change in training."""
    saved = model.state_dict(keep_vars=True)
    return {k: k in saved and b.is_floating_point() for k, b in model.named_buffers(remove_duplicate=False)}


def _output_node(module: GraphModule) -> Node:
    return next(n for n in module.graph.nodes if n.op == "output")


def _aliases(model: nn.Module) -> dict[str, str]:
    """Every parameter name → the first name of the same tensor."""
    first: dict[int, str] = {}
    return {k: first.setdefault(id(p), k) for k, p in model.named_parameters(remove_duplicate=False)}


def module_of(node: Node, graph: Graph) -> str:
    """The innermost module that the operation belongs to, as "path (Class)"; "" where the trace does not say."""
    stack = node.meta.get("nn_module_stack") or {}
    for path, kind in reversed(list(stack.values())):
        path = re.sub(r"^L\[.self.\]\.?", "", path)
        path = re.sub(r"^model(?:\.|$)", "", path)
        word = kind if isinstance(kind, str) else kind.__name__
        word = word.split(".")[-1]
        if word != "_Training":
            return f"{path or 'the model'} ({graph.module_types.get(path, word)})"
    return ""


def describe(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """Shapes of the inputs, for messages."""
    words = [str(tuple(a.shape)) if isinstance(a, torch.Tensor) else type(a).__name__ for a in args]
    words += [f"{k}={tuple(v.shape) if isinstance(v, torch.Tensor) else v}" for k, v in kwargs.items()]
    return ", ".join(words)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:160]


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Tracing is talkative; what matters comes back as an error or a finding."""
    disabled = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
