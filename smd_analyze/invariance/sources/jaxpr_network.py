"""A flattened jaxpr as a module: equations in their order, leaves of the parameters under their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.jaxpr_equations import Equation, Literal, Operand, Program, used, users_of
from smd_analyze.invariance.sources.jaxpr_idioms import Idioms
from smd_analyze.invariance.sources.jaxpr_primitives import PRIMITIVES, NotFollowed, listed

CONVOLUTION = "conv_general_dilated"


class Module(nn.Module):
    """Where parameters live; its class is named after the module of jax that made them."""

    def forward(self, run: Callable[..., Any], *args: Any) -> Any:
        """The operation, so that it is seen to happen here."""
        return run(*args)


class Network(nn.Module):
    """`names` are those of the first arguments of the program, its parameters; the others are data.

    `orders`: parameter → its axes in the order in which it is held here, if that is another (kernels: outputs, inputs,
    places). `unknown` counts primitives that are not known.
    """

    def __init__(self, program: Program, names: Sequence[str], where: str) -> None:
        super().__init__()
        idioms = Idioms(program.equations, program.shapes)
        program.equations = [idioms.read(e) for e in program.equations]
        self.program, self.where = program, where
        self.equations = used(program)
        self.parameters_of = dict(zip(program.arguments, names, strict=False))
        self.data = program.arguments[len(names) :]
        self.orders: dict[str, tuple[int, ...]] = {}
        self.unknown: dict[str, int] = {}
        users = users_of(self.equations)
        numbers = torch.Generator().manual_seed(0)
        for variable, name in self.parameters_of.items():
            shape = program.shapes[variable]
            order = kernel_order(variable, users.get(variable, []))
            if order is not None and variable not in program.results:
                self.orders[name], shape = order, tuple(shape[a] for a in order)
            path, _, leaf = name.rpartition(".")
            homes(self, path).register_parameter(leaf, nn.Parameter(torch.randn(shape, generator=numbers) * 0.1))
        self.kept: dict[int, str] = {}
        for equation in self.equations:
            for operand in equation.inputs:
                if isinstance(operand, Literal) and operand.value.size > 1 and id(operand) not in self.kept:
                    self.kept[id(operand)] = f"constant_{len(self.kept)}"
                    value = operand.value
                    value = value.astype("float32") if value.dtype.kind not in "fiub" else value
                    value = value.astype("int64") if value.dtype.kind in "iu" else value
                    self.register_buffer(self.kept[id(operand)], torch.as_tensor(value.copy()), persistent=False)

    def forward(self, *data: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The floating-point results."""
        env: dict[int, Any] = dict(zip(self.data, data, strict=True))
        for equation in self.equations:
            args = [self.operand(env, equation, i, x) for i, x in enumerate(equation.inputs)]
            run = self.primitive(equation)
            home = self.home(equation)
            found = home(run, equation, *args) if home is not None else run(equation, *args)
            env |= dict(zip(equation.outputs, listed(found, len(equation.outputs)), strict=False))
        return tuple(v for r in self.program.results if isinstance(v := self.value(env, r), torch.Tensor))

    def value(self, env: Mapping[int, Any], operand: Operand) -> Any:
        """A tensor, or the number that a literal is; parameters in jax' own order of axes."""
        if isinstance(operand, Literal):
            if operand.value.size > 1:
                return getattr(self, self.kept[id(operand)])
            return operand.value.reshape(-1)[0].item() if operand.value.size else 0.0
        name = self.parameters_of.get(operand)
        if name is None:
            return env.get(operand, 0.0)  # only random keys are made by nothing
        held = attribute(self, name)
        order = self.orders.get(name)
        return held if order is None else held.permute([order.index(a) for a in range(held.ndim)])

    def operand(self, env: Mapping[int, Any], equation: Equation, position: int, operand: Operand) -> Any:
        """The same; a convolution's kernel with its outputs first, then its inputs."""
        if equation.name != CONVOLUTION or position != 1:
            return self.value(env, operand)
        name = self.parameters_of.get(operand) if isinstance(operand, int) else None
        if name in self.orders:
            return attribute(self, name)
        return self.value(env, operand).permute([int(a) for a in equation.params["dimension_numbers"][1]])

    def primitive(self, equation: Equation) -> Callable[..., Any]:
        """What computes it; what is not known lets no scale through."""
        if all(v in self.program.random for v in equation.outputs):
            return PRIMITIVES["random"]
        run = PRIMITIVES.get(equation.name)

        def careful(e: Equation, *args: Any) -> Any:
            try:
                if run is None:
                    raise NotFollowed(e.name)
                return run(e, *args)
            except NotFollowed as reason:
                self.unknown[str(reason)] = self.unknown.get(str(reason), 0) + 1
                given = [a for a in args if isinstance(a, torch.Tensor)]
                return tuple(opaque(given, shape) for shape in e.shapes)

        return careful

    def home(self, equation: Equation) -> nn.Module | None:
        """The module whose path ends the equation's ("Net/Block_0/Conv_0")."""
        words = [re.sub(r"\W", "_", w) for w in equation.place.split("/")]
        for start in range(len(words)):
            found: nn.Module | None = self
            for word in words[start:]:
                found = found._modules.get(word) if found is not None else None
            if found is not None and start < len(words) and words[start:]:
                return found
        return None


def opaque(inputs: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """A tensor of which every number may depend in any way on every number of the inputs, and which nothing deletes."""
    numbers = [x if x.is_floating_point() else x.float() for x in inputs]
    mixed = sum((torch.exp(x.sum()) for x in numbers), torch.zeros(()))
    size = torch.Size(shape).numel()
    return mixed * torch.linspace(1.0, 2.0, max(size, 2))[:size].reshape(tuple(shape))


def kernel_order(variable: int, users: Sequence[Equation]) -> tuple[int, ...] | None:
    """Its axes as torch orders a kernel's, if convolutions alone use it, all in one way."""
    orders = {
        tuple(int(a) for a in e.params["dimension_numbers"][1])
        for e in users
        if e.name == CONVOLUTION and e.inputs[1] == variable and e.inputs[0] != variable
    }
    alone = all(e.name == CONVOLUTION and e.inputs[0] != variable for e in users)
    return orders.pop() if len(orders) == 1 and alone else None


def homes(root: nn.Module, path: str) -> nn.Module:
    """Modules down to the path; each is of the class that its name tells (Conv_0: Conv)."""
    for word in path.split(".") if path else ():
        if word not in root._modules:
            title = re.sub(r"_?\d+$", "", word) or "Module"
            root.add_module(word, type(title, (Module,), {})())
        found = root._modules[word]
        if found is None:
            raise UsageError(f"the parameters' names make no tree at {path}")
        root = found
    return root


def attribute(module: nn.Module, path: str) -> Any:
    """What lies at the path."""
    found: Any = module
    for word in path.split("."):
        found = getattr(found, word)
    return found
