"""The code of a TorchScript archive, followed statement by statement on the modules and tensors that it names.

Source: torch/csrc/jit/serialization/python_print.cpp writes it; docs of TorchScript name the part of Python it uses.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from smd_analyze.invariance.sources.exported_nodes import Scope
from smd_analyze.invariance.sources.torchscript_values import NUMBERS, TYPES, plain_call

Tree = Mapping[str, Any]
ROOT = "__torch__"
MOST_STEPS = 500_000
DEEPEST = 50


class Unfollowed(Exception):
    """The code does something that is not followed; the message says what."""


class Returned(Exception):
    """A return statement: the value that is returned."""

    def __init__(self, value: Any) -> None:
        self.value = value


class Scripted(Scope):
    """A module of the archive. Its class has the name of the archived one."""

    def __init__(self) -> None:
        super().__init__()
        self._archive: Archive | None = None

    def forward(self, *args: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """The archived forward; with an operation first, as Scope's."""
        if args and callable(args[0]) and not isinstance(args[0], torch.Tensor):
            return super().forward(*args)
        assert self._archive is not None
        return self._archive.forward(self, args)


class Bound:
    """A function of the archive, with the object it belongs to (None for a plain function)."""

    def __init__(self, code: ast.FunctionDef, owner: Any) -> None:
        self.code, self.owner = code, owner


class Archive:
    """The parsed code and the modules; `retrain`: saved in eval mode and to compute as in training."""

    def __init__(self, root: Tree, code: Mapping[str, ast.Module], constants: Sequence[Any], retrain: bool) -> None:
        self.root, self.constants, self.retrain = root, constants, retrain
        self.functions: dict[str, ast.FunctionDef] = {}
        self.classes: dict[str, dict[str, ast.FunctionDef]] = {}
        self.trained: dict[str, set[str]] = {}
        self.device = torch.device("cpu")
        self.fields: dict[int, dict[str, Any]] = {}
        self.places: dict[int, tuple[Scripted, str]] = {}
        self.steps = self.depth = 0
        for file, tree in code.items():
            prefix = file.removesuffix(".py").replace("/", ".")
            for node in tree.body:
                if isinstance(node, ast.FunctionDef):
                    self.functions[f"{prefix}.{node.name}"] = node
                elif isinstance(node, ast.ClassDef):
                    title = f"{prefix}.{node.name}"
                    self.classes[title] = {f.name: f for f in node.body if isinstance(f, ast.FunctionDef)}
                    self.trained[title] = set(parameters_in(node))

    def network(self, device: str) -> Scripted:
        """The modules, with parameters and buffers without numbers."""
        self.device = torch.device(device)
        made = self.module(self.root, {})
        made._archive = self
        return made

    def module(self, told: Tree, tied: dict[int, nn.Parameter]) -> Scripted:
        """One module and those within it."""
        title = told["object"]
        kind = title.rpartition(".")[2]
        module = type(kind, (Scripted,), {})()
        kept: dict[str, Any] = {"": title}
        self.fields[id(module)] = kept
        for name, value in told["fields"].items():
            if isinstance(value, dict) and "tensor" in value:
                tensor = tensor_of(value, self.device)
                self.places.setdefault(value["at"], (module, name))
                if name in self.trained.get(title, ()):
                    module.register_parameter(name, tied.setdefault(value["at"], nn.Parameter(tensor)))
                else:
                    module.register_buffer(name, tensor)
            elif isinstance(value, dict) and str(value.get("object", "")).startswith(ROOT):
                module.add_module(name, self.module(value, tied))
            else:
                kept[name] = value
        if self.retrain and "training" in kept:
            kept["training"] = True
        return module

    # ---- following

    def forward(self, module: Scripted, args: Sequence[Any]) -> Any:
        """The module's forward on these inputs."""
        self.steps = self.depth = 0
        return self.call(self.method(module, "forward"), args, {})

    def method(self, owner: Any, name: str) -> Bound:
        """A method of a module's class."""
        title = self.fields[id(owner)][""]
        code = self.classes.get(title, {}).get(name)
        if code is None:
            raise Unfollowed(f"{title} has no method {name}")
        return Bound(code, owner)

    def call(self, function: Bound, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A function of the archive; a module's forward runs inside the module, so that the graph shows it."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise Unfollowed("functions call each other without end")
        told = function.code.args
        names = [a.arg for a in told.args]
        given = [function.owner, *args] if function.owner is not None else list(args)
        if len(given) > len(names):
            raise Unfollowed(f"{function.code.name} gets {len(given)} arguments and takes {len(names)}")
        local = dict(zip(names, given, strict=False)) | dict(kwargs)
        for name, default in zip(names[len(names) - len(told.defaults) :], told.defaults, strict=True):
            if name not in local:
                local[name] = self.value(default, {})
        try:
            if function.owner is not None and function.code.name == "forward":
                return function.owner(self.result, [function.code.body, local], {})
            return self.result(function.code.body, local)
        finally:
            self.depth -= 1

    def result(self, body: Iterable[ast.stmt], local: dict[str, Any]) -> Any:
        """What a function's body returns."""
        try:
            self.block(body, local)
        except Returned as found:
            return found.value
        return None

    def block(self, body: Iterable[ast.stmt], local: dict[str, Any]) -> None:
        """Statements in their order."""
        for node in body:
            self.step()
            self.statement(node, local)

    def step(self) -> None:
        """One more of the steps that are followed."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Unfollowed("it does not come to an end")

    def statement(self, node: ast.stmt, local: dict[str, Any]) -> None:
        """One statement."""
        match node:
            case ast.Assign(targets=[target]):
                self.assign(target, self.value(node.value, local), local)
            case ast.AnnAssign(value=ast.expr()):
                self.assign(node.target, self.value(node.value, local), local)  # pyright: ignore[reportArgumentType]
            case ast.AnnAssign() | ast.Pass():
                pass
            case ast.Expr():
                self.value(node.value, local)
            case ast.Return():
                raise Returned(self.value(node.value, local) if node.value else None)
            case ast.If():
                self.block(node.body if decided(self.value(node.test, local)) else node.orelse, local)
            case ast.For():
                items = self.value(node.iter, local)
                for item in items if isinstance(items, range) else list(items):
                    self.step()
                    self.assign(node.target, item, local)
                    self.block(node.body, local)
            case ast.While():
                while decided(self.value(node.test, local)):
                    self.step()
                    self.block(node.body, local)
            case ast.Assert():
                pass
            case _:
                raise Unfollowed(f"a statement {type(node).__name__.lower()}")

    def assign(self, target: ast.expr, value: Any, local: dict[str, Any]) -> None:
        """To a name, to several, or to a counter of a module."""
        match target:
            case ast.Name():
                local[target.id] = value
            case ast.Tuple() | ast.List():
                parts = list(value)
                if len(parts) != len(target.elts):
                    raise Unfollowed("an assignment of too many or too few values")
                for one, part in zip(target.elts, parts, strict=True):
                    self.assign(one, part, local)
            case ast.Attribute(attr="num_batches_tracked"):
                pass
            case _:
                raise Unfollowed("writes into a module or a list")

    def value(self, node: ast.expr, local: Mapping[str, Any]) -> Any:
        """An expression."""
        match node:
            case ast.Constant():
                return node.value
            case ast.Name():
                return self.name(node.id, local)
            case ast.Attribute():
                return self.attribute(node, local)
            case ast.Call():
                return self.called(node, local)
            case ast.Tuple() | ast.List():
                parts = [self.value(one, local) for one in node.elts]
                return tuple(parts) if isinstance(node, ast.Tuple) else parts
            case ast.Dict():
                keys = [self.value(k, local) for k in node.keys if k is not None]
                return dict(zip(keys, (self.value(v, local) for v in node.values), strict=True))
            case ast.UnaryOp(op=ast.USub()):
                return -self.value(node.operand, local)
            case ast.Subscript():
                return self.value(node.value, local)[self.value(node.slice, local)]
            case ast.IfExp():
                return self.value(node.body if decided(self.value(node.test, local)) else node.orelse, local)
            case _:
                raise Unfollowed(f"an expression {type(node).__name__.lower()}")

    def name(self, word: str, local: Mapping[str, Any]) -> Any:
        """A variable, or one of the few names that are always there."""
        if word in local:
            return local[word]
        if word in ("inf", "nan"):
            return float(word)
        if word in TYPES:
            return word
        raise Unfollowed(f"the name {word}")

    def attribute(self, node: ast.Attribute, local: Mapping[str, Any]) -> Any:
        """A function of the archive, a constant, or what a module holds."""
        words = dotted(node)
        if words and words[0] == ROOT:
            code = self.functions.get(".".join(words))
            if code is None:
                raise Unfollowed(f"{'.'.join(words)} is not in the archive")
            return Bound(code, None)
        if words and words[0] == "CONSTANTS" and len(words) == 2:
            found = self.constants[int(words[1][1:])]
            return tensor_of(found, self.device) if isinstance(found, dict) else found
        if words and words[0] not in local:
            raise Unfollowed(".".join(words))
        return self.held(self.value(node.value, local), node.attr)

    def held(self, owner: Any, name: str) -> Any:
        """A module's parameter, buffer, child or setting; parts of a named tuple."""
        if isinstance(owner, Scripted):
            kept = self.fields[id(owner)]
            if name in kept:
                return self.setting(kept[name])
            if name in owner._parameters or name in owner._buffers or name in owner._modules:
                return getattr(owner, name)
        if isinstance(owner, torch.Tensor) and name in ("shape", "dtype", "device"):
            return getattr(owner, name)
        raise Unfollowed(f"the attribute {name}")

    def setting(self, value: Any) -> Any:
        """A setting as the code wants it; tensors in lists are parameters that stand elsewhere, too."""
        if isinstance(value, list | tuple):
            return type(value)(self.setting(v) for v in value)
        if isinstance(value, dict) and "tensor" in value:
            module, name = self.places.get(value["at"], (None, ""))
            return tensor_of(value, self.device) if module is None else getattr(module, name)
        if isinstance(value, dict) and "dict" in value:
            return {self.setting(k): self.setting(v) for k, v in value["dict"]}
        if isinstance(value, dict):
            raise Unfollowed(f"an object {value.get('object') or value.get('name')}")
        return value

    def called(self, node: ast.Call, local: Mapping[str, Any]) -> Any:
        """A call: an operation, a function or method of the archive, a few of Python's own."""
        words = dotted(node.func)
        if words and words[0] in ("annotate", "unchecked_cast") and len(node.args) == 2:
            return self.value(node.args[1], local)
        if words == ["uninitialized"]:
            return None
        args = [self.value(a, local) for a in node.args]
        kwargs = {k.arg: self.value(k.value, local) for k in node.keywords if k.arg}
        if words == ["getattr"] and len(args) == 2:
            return self.held(*args)
        if words and words[0] == "torch" and len(words) == 2 and "torch" not in local:
            return self.operation(words[1], args, kwargs)
        if words and (words[:2] == ["ops", "prim"] or len(words) == 1) and words[0] not in local:
            return plain_call(words[-1], args)
        if isinstance(node.func, ast.Attribute) and not (words and words[0] == ROOT):
            owner = self.value(node.func.value, local)
            if isinstance(owner, Scripted):
                return self.call(self.method(owner, node.func.attr), args, kwargs)
        function = self.value(node.func, local)
        if not isinstance(function, Bound):
            raise Unfollowed(f"calls {ast.unparse(node.func)[:60]}")
        return self.call(function, args, kwargs)

    def operation(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """torch.name: of numbers and lists by Python, of tensors by aten."""
        if name == "device":
            return self.device
        if name == "tensor":
            return torch.full([], args[0], device=self.device) if not isinstance(args[0], list) else refused(name)
        of_list = bool(args) and isinstance(args[0], (list, tuple, dict, str))
        if of_list and name not in NUMBERS and name not in OF_LISTS and name not in FACTORIES:
            return refused(name)  # a list that it changes would stay as it was
        if name in NUMBERS and (of_list or name in OF_ANY or not any(isinstance(a, torch.Tensor) for a in args)):
            return NUMBERS[name](*args, **kwargs)
        packet = getattr(torch.ops.aten, name, None) if not name.startswith("__") or name in DUNDER else None
        if packet is None or not hasattr(packet, "overloads"):
            return refused(name)
        args = [self.device if isinstance(a, torch.device) else a for a in args]
        kwargs = {k: self.device if isinstance(v, torch.device) else v for k, v in kwargs.items()}
        if name in FACTORIES:
            kwargs["device"] = self.device
        if self.retrain and name in PLACES and len(args) > PLACES[name]:
            args[PLACES[name]] = True
        return packet(*args, **kwargs)


OF_ANY = ("size", "dim", "len", "__is__", "__isnot__")
OF_LISTS = ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack", "einsum",
            "meshgrid", "broadcast_tensors", "block_diag")  # fmt: skip
FACTORIES = ("zeros", "ones", "full", "empty", "arange", "rand", "randn", "eye", "linspace", "randint", "scalar_tensor")
DUNDER = ("__and__", "__or__", "__xor__")
PLACES = {"batch_norm": 5, "dropout": 2, "dropout_": 2, "feature_dropout": 2, "alpha_dropout": 2}


def refused(name: str) -> Any:
    """What cannot be called."""
    raise Unfollowed(f"calls torch.{name}, which is no operation of aten that is followed")


def decided(test: Any) -> bool:
    """A condition that is known; Unfollowed if it is that of a tensor."""
    if isinstance(test, torch.Tensor):
        raise Unfollowed("a branch that the data decide")
    return bool(test)


def dotted(node: ast.expr) -> list[str]:
    """The words of a.b.c; [] for anything else."""
    words: list[str] = []
    while isinstance(node, ast.Attribute):
        words.append(node.attr)
        node = node.value
    return [node.id, *reversed(words)] if isinstance(node, ast.Name) else []


def parameters_in(node: ast.ClassDef) -> list[str]:
    """What a class calls its parameters."""
    for line in node.body:
        match line:
            case ast.Assign(targets=[ast.Name(id="__parameters__")], value=ast.List(elts=names)):
                return [e.value for e in names if isinstance(e, ast.Constant) and isinstance(e.value, str)]
    return []


def tensor_of(told: Any, device: Any) -> Any:
    """A tensor of zeros for one that is told as plain data; other values as they are."""
    if not isinstance(told, dict) or "tensor" not in told:
        return told
    return torch.zeros(told["tensor"], dtype=getattr(torch, told["dtype"]), device=device)
