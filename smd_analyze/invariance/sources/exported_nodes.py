"""The nodes of an exported program as a module: each is run by the aten operation of its name, in its scope."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from smd_analyze.errors import UsageError

Tree = Mapping[str, Any]
ATEN = "torch.ops.aten."
NUMBERS: dict[str, Callable[..., Any]] = {
    f"_operator.{name}": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "eq", "ne", "lt", "le", "gt", "ge",
                 "and_", "or_", "not_")
} | {
    "math.ceil": math.ceil, "math.floor": math.floor, "math.trunc": math.trunc,
    "torch.sym_float": float, "torch.sym_int": int, "torch.sym_max": max, "torch.sym_min": min,
    "torch.sym_not": operator.not_,
}  # fmt: skip
WRAPPERS = ("wrap_with_set_grad_enabled", "wrap_with_autocast")  # a part of the graph, run as it is
DTYPES = {
    1: torch.uint8, 2: torch.int8, 3: torch.int16, 4: torch.int32, 5: torch.int64, 6: torch.float16, 7: torch.float32,
    8: torch.float64, 10: torch.complex64, 11: torch.complex128, 12: torch.bool, 13: torch.bfloat16,
}  # fmt: skip
PLACES = ("device", "layout", "memory_format", "pin_memory")


class Scope(nn.Module):
    """A module of the exported model: it holds what it held there, and its operations run inside it."""

    def forward(self, operation: Callable[..., Any], args: Sequence[Any], kwargs: Tree) -> Any:
        """The operation's result."""
        return operation(*args, **kwargs)


class Program(Scope):
    """An exported program: the root of its modules. It has no names of its own that one of them might have."""

    def __init__(self) -> None:
        super().__init__()
        self._follower: Follower | None = None

    def forward(self, *inputs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The program's own results; what it writes into buffers is not among them."""
        assert self._follower is not None
        return self._follower.results(inputs)


class Follower:
    """What follows the nodes. `program` gets the parameters, buffers and modules that they name.

    `weights` maps a parameter's name to where its numbers lie: two of one place are tied. `keys` are the names of the
    entries of a mapping that the program returns, with the number of tensors in each. `retrain`: it was exported in
    eval mode and is to compute as in training.
    """

    def __init__(
        self, program: Program, module: Tree, weights: Mapping[str, str], keys: Sequence[tuple[str, int]], where: str,
        device: torch.device, retrain: bool,
    ) -> None:  # fmt: skip
        program._follower = self
        self.graph_tree, self.signature, self.keys = module["graph"], module["signature"], keys
        self.where, self.device, self.retrain = where, device, retrain
        self.scopes: dict[str, Scope] = {"": program}
        self.kinds = dict(kinds_of(self.graph_tree))
        self.held: dict[str, str] = {}
        check(self.graph_tree, where)
        tied: dict[str, nn.Parameter] = {}
        for spec in self.signature["input_specs"]:
            kind, told = next(iter(spec.items()))
            if kind != "user_input":
                self.hold(kind, told, weights, tied)

    def hold(self, kind: str, told: Tree, weights: Mapping[str, str], tied: dict[str, nn.Parameter]) -> None:
        """Make the parameter or buffer that an entry of the signature names."""
        name = told.get(f"{kind}_name")
        if kind not in ("parameter", "buffer", "tensor_constant") or not isinstance(name, str):
            words = kind.replace("_", " ")
            raise UsageError(f"{self.where}: takes a {words} as an input, which is not followed; give the model with --model")  # noqa: E501  # fmt: skip
        placeholder = told["arg"]["name"]
        meta = self.graph_tree["tensor_values"][placeholder]
        value = torch.zeros(sizes_of(meta), dtype=dtype_of(meta), device=self.device)
        path, _, leaf = name.rpartition(".")
        if kind == "parameter" and (value.is_floating_point() or value.is_complex()):
            own = tied.setdefault(weights.get(name, name), nn.Parameter(value))
            self.scope(path).register_parameter(leaf, own)
        else:
            self.scope(path).register_buffer(leaf, value, persistent=bool(told.get("persistent")))
        self.held[placeholder] = name

    def scope(self, path: str) -> Scope:
        """The module at a dotted path, made if it is not there; its class has the exported one's name."""
        if path not in self.scopes:
            above, _, leaf = path.rpartition(".")
            made = type(self.kinds.get(path, "Module"), (Scope,), {})()
            self.scope(above).add_module(leaf, made)
            self.scopes[path] = made
        return self.scopes[path]

    def results(self, inputs: Sequence[Any]) -> Any:
        """The program's results for these inputs."""
        values: dict[str, Any] = {}
        given = iter(inputs)
        for spec in self.signature["input_specs"]:
            kind, told = next(iter(spec.items()))
            if kind == "user_input":
                value, arg = next(given), told["arg"]
                if "as_tensor" in arg:
                    values[arg["as_tensor"]["name"]] = value
                continue
            path, _, leaf = self.held[told["arg"]["name"]].rpartition(".")
            values[told["arg"]["name"]] = getattr(self.scopes[path], leaf)
        self.run(self.graph_tree, values)
        results = [
            self.value(told["arg"], values)
            for spec in self.signature["output_specs"]
            for kind, told in spec.items()
            if kind in ("user_output", "loss_output")
        ]
        if len(results) == sum(n for _, n in self.keys):
            rest = iter(results)
            named = {key: [next(rest) for _ in range(n)] for key, n in self.keys}
            return {key: found[0] if len(found) == 1 else found for key, found in named.items()}
        return results[0] if len(results) == 1 else tuple(results)

    def run(self, graph: Tree, values: dict[str, Any]) -> None:
        """Every node in its order; `values` gets their results by name."""
        for node in graph["nodes"]:
            target, args, kwargs = node["target"], [], {}
            for one in node["inputs"]:
                value = self.value(one["arg"], values)
                value = self.device if one["name"] == "device" and value is not None else value
                if one["name"]:
                    kwargs[one["name"]] = value
                else:
                    args.append(value)
            short = target.removeprefix(ATEN)
            if short.startswith(("_assert", "sym_constrain")):
                continue
            if target.rpartition(".")[2] in WRAPPERS:
                result = self.part(node, values)
            else:
                call = NUMBERS.get(target) or aten(short)
                if self.retrain:
                    call, kwargs = as_in_training(short, call, kwargs)
                args, kwargs = positional(call, args, kwargs, self.device)
                path = scope_of(node)
                result = self.scope(path)(call, args, kwargs) if path else call(*args, **kwargs)
            self.store(node["outputs"], result, values)

    def part(self, node: Tree, values: Mapping[str, Any]) -> Any:
        """A part of the graph that only sets a mode around itself."""
        position = next(i for i, one in enumerate(node["inputs"]) if "as_graph" in one["arg"])
        graph = node["inputs"][position]["arg"]["as_graph"]["graph"]
        operands = [self.value(one["arg"], values) for one in node["inputs"][position + 1 :]]
        inner = {arg["as_tensor"]["name"]: v for arg, v in zip(graph["inputs"], operands, strict=True) if "as_tensor" in arg}  # noqa: E501  # fmt: skip
        self.run(graph, inner)
        results = [self.value(arg, inner) for arg in graph["outputs"]]
        return results[0] if graph.get("is_single_tensor_return") else results

    def store(self, outputs: Sequence[Tree], result: Any, values: dict[str, Any]) -> None:
        """Results under their names."""
        if len(outputs) == 1 and "as_tensors" not in outputs[0]:
            results = [result[0] if isinstance(result, (tuple, list)) else result]
        else:
            results = list(result) if len(outputs) > 1 else [result]
        for told, found in zip(outputs, results, strict=False):
            kind, arg = next(iter(told.items()))
            if kind == "as_tensors":
                for one, part in zip(arg, found, strict=True):
                    values[one["name"]] = part
            elif isinstance(arg, dict) and ("name" in arg or "as_name" in arg):
                values[arg.get("name") or arg["as_name"]] = found
            elif kind == "as_optional_tensor" and "as_tensor" in arg:
                values[arg["as_tensor"]["name"]] = found

    def value(self, arg: Tree, values: Mapping[str, Any]) -> Any:
        """An argument as a Python value."""
        kind, told = next(iter(arg.items()))
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return values[told["name"]]
            case "as_tensors":
                return [values[one["name"]] for one in told]
            case "as_optional_tensor":
                return self.value(told, values)
            case "as_optional_tensors":
                return [self.value(one, values) for one in told]
            case "as_nested_tensors":
                return [[values[one["name"]] for one in part] for part in told]
            case "as_sym_int" | "as_sym_float" | "as_sym_bool":
                return values[told["as_name"]] if "as_name" in told else next(iter(told.values()))
            case "as_sym_ints" | "as_sym_floats":
                return [values[one["as_name"]] if "as_name" in one else next(iter(one.values())) for one in told]
            case "as_scalar_type":
                return DTYPES[told]
            case "as_int" | "as_ints" | "as_float" | "as_floats" | "as_bool" | "as_bools" | "as_string" | "as_strings":
                return float(told) if kind == "as_float" else told
            case "as_device":
                return self.device
            case "as_memory_format" | "as_layout" | "as_graph":
                return None
            case _:
                raise UsageError(f"{self.where}: an argument {kind} is not followed; give the model with --model")


def check(graph: Tree, where: str) -> None:
    """UsageError if an operation is none that may be called."""
    for node in graph["nodes"]:
        target = node["target"]
        if target.rpartition(".")[2] in WRAPPERS:
            for one in node["inputs"]:
                if "as_graph" in one["arg"]:
                    check(one["arg"]["as_graph"]["graph"], where)
        elif target not in NUMBERS and (not target.startswith(ATEN) or aten(target.removeprefix(ATEN)) is None):
            raise UsageError(f"{where}: calls {target}, which is no operation of aten; give the model with --model")


def aten(short: str) -> Any:
    """The operation of aten with that name and overload, or None."""
    name, _, overload = short.partition(".")
    packet = getattr(torch.ops.aten, name, None) if name.isidentifier() and not name.startswith("__") else None
    found = getattr(packet, overload or "default", None) if packet is not None else None
    return found if isinstance(found, torch._ops.OpOverload) else None  # what sym_size is, too


def as_in_training(short: str, call: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Batch normalization by the batch's statistics, dropout that drops."""
    name = short.partition(".")[0]
    if name == "_native_batch_norm_legit_no_training":
        return torch.ops.aten.native_batch_norm.default, {**kwargs, "training": True}
    if "batch_norm" in name and "training" in kwargs and kwargs.get("running_mean") is not None:
        return call, {**kwargs, "training": True}
    if name in ("dropout", "dropout_", "feature_dropout", "alpha_dropout") and "train" in kwargs:
        return call, {**kwargs, "train": True}
    return call, kwargs


def positional(
    call: Any, args: list[Any], kwargs: dict[str, Any], device: torch.device
) -> tuple[list[Any], dict[str, Any]]:
    """The same arguments, those without keyword-only names by position: "self" is no keyword for Python."""
    if not isinstance(call, torch._ops.OpOverload):
        numbers = [*args, *kwargs.values()]
        if any(isinstance(n, (list, tuple, str)) for n in numbers):
            raise TypeError("a list where a number is expected")
        return numbers, {}
    left = {k: v for k, v in kwargs.items() if k not in PLACES[1:] or v is not None}
    for one in call._schema.arguments[len(args) :]:
        if one.kwarg_only:
            break
        if one.name in left:
            args.append(left.pop(one.name))
        elif one.has_default_value():
            args.append(one.default_value)
    takes_device = any(one.name == "device" and one.kwarg_only for one in call._schema.arguments)
    if takes_device and not any(isinstance(a, torch.Tensor) for a in args):
        left.setdefault("device", device)  # what makes a tensor makes it where the others are
    return args, left


def kinds_of(graph: Tree) -> list[tuple[str, str]]:
    """(path, class) of the modules that the nodes name."""
    return [(p.partition("@")[0], k) for node in graph["nodes"] for p, k in stack_of(node) if p]


def root_of(graph: Tree) -> str:
    """Class of the exported model."""
    return next((k for node in graph["nodes"] for p, k in stack_of(node) if not p), "Program")


def stack_of(node: Tree) -> list[tuple[str, str]]:
    """(path, class) of the modules around a node, the outermost first."""
    found = []
    for entry in (node.get("metadata") or {}).get("nn_module_stack", "").split(";"):
        words = entry.split(",")
        if len(words) == 3:
            found.append((words[1].partition("@")[0], words[2].rpartition(".")[2]))
    return found


def scope_of(node: Tree) -> str:
    """Path of the innermost module around a node."""
    found = stack_of(node)
    path = found[-1][0] if found else ""
    return path if all(word for word in path.split(".")) else ""


def sizes_of(meta: Tree) -> list[int]:
    """A tensor's shape, open sizes as they were when it was exported."""
    return [one["as_int"] if "as_int" in one else one["as_expr"]["hint"]["as_int"] for one in meta["sizes"]]


def dtype_of(meta: Tree) -> torch.dtype:
    """A tensor's element type."""
    return DTYPES[meta["dtype"]]
