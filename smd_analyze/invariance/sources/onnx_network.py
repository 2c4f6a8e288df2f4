"""An ONNX graph as a module: its nodes in their order, its trained initializers as parameters under their names.

What depends on shapes and constants only is computed once, when the module is built, on the meta device.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.onnx_calls import Call, NotFollowed
from smd_analyze.invariance.sources.onnx_operations import OPERATIONS
from smd_analyze.invariance.sources.onnx_windows import opaque

DOMAINS = ("", "ai.onnx")
OUTPUTS = ("loss", "logits", "last_hidden_state")  # one of these is what is trained; others beside it are by-products
RANDOM = ("RandomNormalLike", "RandomUniformLike", "Bernoulli", "Dropout")
CLASSES = {"Gather": "Embedding", "Gemm": "Linear", "MatMul": "Linear"}


class Module(nn.Module):
    """Where parameters live; its class is named after the operator that uses them."""

    def forward(self, run: Callable[..., Any], *args: Any) -> Any:
        """The operation, so that it is seen to happen here."""
        return run(*args)


@dataclass(frozen=True)
class Step:
    """A node that depends on data or parameters. `holder` is the module it happens in."""

    call: Call
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    holder: str


class Network(nn.Module):
    """`names`: initializer → this module's name of it. `inputs` are example inputs by name."""

    def __init__(
        self, graph: Mapping[str, Any], names: Mapping[str, str], inputs: Mapping[str, torch.Tensor], where: str
    ) -> None:
        super().__init__()
        self.graph, self.names, self.where = graph, names, where
        self.inputs, self.unknown = list(inputs), dict[str, list[str]]()
        outputs = list(graph["outputs"])
        self.outputs = next(([n] for n in OUTPUTS if n in outputs), outputs)
        self.used = _used(graph["nodes"], self.outputs)
        self.kept: dict[str, str] = {}
        users = _users(graph["nodes"])
        numbers = torch.Generator().manual_seed(0)
        for name, own in names.items():
            shape = graph["initializers"][name]["shape"]
            _holder(self, own.rpartition(".")[0], CLASSES.get(users.get(name, ""), users.get(name, "Module")))
            value = nn.Parameter(torch.randn(shape, generator=numbers) * 0.1)
            self.get_submodule(own.rpartition(".")[0]).register_parameter(own.rpartition(".")[2], value)
        self.steps = self.planned({n: x.to("meta") for n, x in inputs.items()})

    def planned(self, inputs: Mapping[str, torch.Tensor]) -> list[Step]:
        """The steps to take, after a walk that knows shapes and constants."""
        known: dict[str, torch.Tensor] = {}
        env: dict[str, Any] = {"": None, **inputs}
        for name, told in self.graph["initializers"].items():
            if "values" in told:
                known[name] = torch.as_tensor(told["values"])
            if name in self.names:
                env[name] = attribute(self, self.names[name]).to("meta")
            elif name in known:
                env[name] = known[name]
            elif name in self.used:
                raise UsageError(
                    f"{self.where}: the numbers of {name} are needed to follow the graph, but cannot be read; give the "
                    "model with --model"
                )
        steps: list[Step] = []
        for node in self.graph["nodes"]:
            if not self.used.intersection(node["outputs"]):
                continue
            lacking = [n for n in node["inputs"] if n not in env]
            if lacking:
                raise UsageError(f"{self.where}: {lacking[0]!r} is used before it is made: damaged?")
            read = node["inputs"][:1] if node["op"] == "CastLike" else node["inputs"]
            free = [n for n in read if n and (n not in known or n in self.names)]
            if node["op"] in ("Shape", "Size") or (not free and node["op"] not in RANDOM):
                found = self.constant(node, env, known)
                if found is not None:
                    known[node["outputs"][0]] = env[node["outputs"][0]] = found
                    continue
            step, results = self.planned_step(node, env, known)
            steps.append(step)
            env |= dict(zip(step.outputs, results, strict=False))
        for step in steps:
            for name in step.inputs:
                if name in known and name not in self.names and name not in self.kept:
                    self.kept[name] = f"constant_{len(self.kept)}"
                    self.register_buffer(self.kept[name], known[name], persistent=False)
        missing = [n for n in self.outputs if n not in env]
        if missing:
            raise UsageError(f"{self.where}: the graph does not make its output {missing[0]!r}: damaged?")
        return steps

    def call(self, node: Mapping[str, Any], known: Mapping[str, torch.Tensor]) -> Call:
        """The node with the numbers that are known."""
        constants = [known[n].numpy() if n in known else None for n in node["inputs"]]
        wanted = [i for i, n in enumerate(node["outputs"], start=1) if n in self.used]
        return Call(node["op"], node["attributes"], constants, max(wanted, default=1), int(self.graph["opset"]))

    def constant(
        self, node: Mapping[str, Any], env: Mapping[str, Any], known: Mapping[str, torch.Tensor]
    ) -> torch.Tensor | None:
        """The numbers of a node that depends on shapes and constants only; None if it has other results, or unknown."""
        op, told = node["op"], node["attributes"]
        if op == "Shape":
            shape = list(env[node["inputs"][0]].shape)
            return torch.tensor(shape[told.get("start", 0) : told.get("end", len(shape))], dtype=torch.int64)
        if op == "Size":
            return torch.tensor(env[node["inputs"][0]].numel())
        if op == "Constant":
            return _literal(told)
        if op == "CastLike":
            return known[node["inputs"][0]].to(env[node["inputs"][1]].dtype)
        run = OPERATIONS.get(op)
        if run is None or node["domain"] not in DOMAINS or len(node["outputs"]) > 1:
            return None
        try:
            found = run(self.call(node, known), *(known.get(n) for n in node["inputs"]))
        except (NotFollowed, RuntimeError, ValueError, TypeError, IndexError):  # then it is a step like any other
            return None
        return found.contiguous() if isinstance(found, torch.Tensor) else None

    def planned_step(
        self, node: Mapping[str, Any], env: Mapping[str, Any], known: Mapping[str, torch.Tensor]
    ) -> tuple[Step, Sequence[Any]]:
        """The step of a node and its results on the meta device; opaque if the operator is not known."""
        inputs = [env[n].to("meta") if isinstance(env[n], torch.Tensor) else env[n] for n in node["inputs"]]
        run = OPERATIONS.get(node["op"]) if node["domain"] in DOMAINS else None
        call, title = self.call(node, known), f"{node['op']}" if run else f"{node['domain']} {node['op']}".strip()
        holder = self.home(node)
        try:
            if run is None:
                raise NotFollowed(title)
            results = listed(run(call, *inputs))
        except NotFollowed as reason:
            shapes = [self.shape(n) for n in node["outputs"][: call.results]]
            if any(s is None for s in shapes) or any(isinstance(v, (list, tuple)) for v in inputs):
                raise UsageError(
                    f"{self.where}: what {reason} does to scales is not known; give the model with --model"
                ) from reason
            self.unknown.setdefault(str(reason), []).append(node["name"] or node["outputs"][0])
            run = _opaque([s for s in shapes if s is not None])
            results = listed(run(call, *inputs))
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as problem:
            reason = (str(problem).strip().splitlines() or [type(problem).__name__])[0][:160]
            name = node["name"] or node["outputs"][0]
            raise UsageError(f"{self.where}: {title} {name!r} cannot be followed ({reason})") from problem
        return Step(call, run, tuple(node["inputs"]), tuple(node["outputs"]), holder), results

    def home(self, node: Mapping[str, Any]) -> str:
        """The module whose parameters the node uses, else that which its name tells ("/block/bn/Mul")."""
        for name in node["inputs"]:
            if name in self.names:
                return self.names[name].rpartition(".")[0]
        modules = dict(self.named_modules())
        path = ".".join(node["name"].strip("/").split("/")[:-1])
        return path if isinstance(modules.get(path), Module) else ""

    def shape(self, name: str) -> list[int] | None:
        """The shape that the file tells of a tensor, if all of it is known."""
        found = self.graph["shapes"].get(name)
        return found if found is not None and all(isinstance(n, int) for n in found) else None

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The outputs by name."""
        env: dict[str, Any] = {"": None, **dict(zip(self.inputs, inputs, strict=True))}

        def value(name: str) -> Any:
            if name in self.names:
                return attribute(self, self.names[name])
            return getattr(self, self.kept[name]) if name in self.kept else env[name]

        for step in self.steps:
            args = [value(n) for n in step.inputs]
            if step.holder:
                found = self.get_submodule(step.holder)(step.run, step.call, *args)
            else:
                found = step.run(step.call, *args)
            env |= dict(zip(step.outputs, listed(found), strict=False))
        return {name: value(name) for name in self.outputs if name in env}


def attribute(module: nn.Module, path: str) -> Any:
    """What lies at the path: a parameter, or what stands for it while it is traced."""
    found: Any = module
    for word in path.split("."):
        found = getattr(found, word)
    return found


def _used(nodes: Sequence[Mapping[str, Any]], outputs: Sequence[str]) -> set[str]:
    """Tensors that the outputs depend on."""
    used = set(outputs)
    for node in reversed(nodes):
        if used.intersection(node["outputs"]):
            used.update(node["inputs"])
    return used - {""}


def _users(nodes: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tensor → the first operator that uses it; what only passes it on is looked through."""
    found: dict[str, str] = {}
    for node in reversed(nodes):
        for name in node["inputs"]:
            op = str(node["op"])
            found[name] = found.get(node["outputs"][0], op) if op in ("Identity", "Cast", "Transpose") else op
    return found


def _holder(root: nn.Module, path: str, title: str) -> None:
    """Modules down to `path`; the last one's class is called `title`."""
    words = path.split(".") if path else []
    for i, word in enumerate(words):
        if word not in root._modules:
            kind = title if i == len(words) - 1 else "Module"
            root.add_module(word, type(re.sub(r"\W", "_", kind), (Module,), {})())
        root = root.get_submodule(word)


def _literal(told: Mapping[str, Any]) -> torch.Tensor | None:
    """The tensor of a Constant node."""
    value = told.get("value")
    if isinstance(value, dict):
        return torch.as_tensor(value["values"]) if "values" in value else None
    for name, dtype in (("value_int", torch.int64), ("value_ints", torch.int64), ("value_float", torch.float32),
                        ("value_floats", torch.float32)):  # fmt: skip
        if name in told:
            return torch.tensor(told[name], dtype=dtype)
    return None


def _opaque(shapes: Sequence[Sequence[int]]) -> Callable[..., Any]:
    """A function of which only the results' shapes are known."""

    def run(call: Call, *inputs: Any) -> tuple[torch.Tensor, ...]:
        given = [x for x in inputs if isinstance(x, torch.Tensor)]
        return tuple(opaque(given, shape) for shape in shapes)

    return run


def listed(found: Any) -> Sequence[Any]:
    """Results one by one; a sequence of tensors is one result, in a list."""
    return found if isinstance(found, (tuple, list)) else (found,)
