"""A jaxpr as a flat list of equations: calls inlined, scans unrolled, random numbers and idioms recognised.

jax shares one sub-jaxpr between calls: every call gets variables of its own. jax itself is not imported here; what is
read of a jaxpr is the same in all its versions since 0.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

INLINED = ("jaxpr", "call_jaxpr", "fun_jaxpr")
CALLS = ("pjit", "jit", "closed_call", "core_call", "custom_jvp_call", "remote_call", "checkpoint", "remat2", "remat",
         "custom_lin", "xla_call", "named_call")  # fmt: skip
RANDOM = ("random_bits", "random_seed", "random_wrap", "random_unwrap", "random_fold_in", "random_split",
          "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform")  # fmt: skip
ARITHMETIC: dict[str, Callable[..., float]] = {
    "convert_element_type": lambda x: x, "add": lambda x, y: x + y, "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y, "max": max, "min": min,
}  # fmt: skip
"""What is computed at once, of numbers: jax writes the count of a variance as n − 0."""
MOST_EQUATIONS = 20_000


@dataclass(frozen=True)
class Literal:
    """A number or array that is known."""

    value: np.ndarray


Operand = int | Literal


@dataclass(frozen=True)
class Equation:
    """`outputs[i]` has shape `shapes[i]` and dtype `dtypes[i]`. `place` is the path of modules it was made in."""

    name: str
    inputs: tuple[Operand, ...]
    outputs: tuple[int, ...]
    params: Mapping[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    place: str = ""


@dataclass
class Program:
    """The equations in order; `arguments` and `results` are those of the whole function."""

    equations: list[Equation] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)
    arguments: list[int] = field(default_factory=list)
    results: list[Operand] = field(default_factory=list)
    random: set[int] = field(default_factory=set)
    count: int = 0

    def fresh(self, shape: Sequence[int]) -> int:
        """A new variable."""
        self.count += 1
        self.shapes[self.count] = tuple(int(n) for n in shape)
        return self.count

    def emit(
        self,
        name: str,
        inputs: Sequence[Operand],
        shapes: Sequence[Sequence[int]],
        dtypes: Sequence[str],
        place: str,
        **params: Any,
    ) -> list[int]:
        """Append an equation; its results."""
        outputs = [self.fresh(s) for s in shapes]
        known = tuple(tuple(int(n) for n in s) for s in shapes)
        self.equations.append(Equation(name, tuple(inputs), tuple(outputs), params, known, tuple(dtypes), place))
        variables = [i for i in inputs if isinstance(i, int)]
        if name in RANDOM or (variables and all(v in self.random for v in variables)):
            self.random.update(outputs)
        return outputs


def flattened(closed: Any) -> Program:
    """The program of a ClosedJaxpr."""
    program = Program()
    env: dict[Any, Operand] = {}
    for variable in closed.jaxpr.invars:
        program.arguments.append(program.fresh(variable.aval.shape))
        env[variable] = program.arguments[-1]
    program.results = inline(program, closed.jaxpr, closed.consts, env, "")
    return program


def inline(program: Program, jaxpr: Any, consts: Sequence[Any], env: dict[Any, Operand], place: str) -> list[Operand]:
    """Append a jaxpr's equations, its arguments given in `env`; its results."""
    for variable, value in zip(jaxpr.constvars, consts, strict=True):
        env[variable] = Literal(np.asarray(value)) if not is_key(value) else program.fresh(())

    def operand(atom: Any) -> Operand:
        if hasattr(atom, "val"):
            return Literal(np.asarray(atom.val)) if not is_key(atom.val) else program.fresh(())
        return env[atom]

    for equation in jaxpr.eqns:
        inputs = [operand(a) for a in equation.invars]
        here = "/".join(w for w in (place, str(getattr(equation.source_info, "name_stack", ""))) if w)
        found = appended(program, equation, inputs, here)
        env |= dict(zip(equation.outvars, found, strict=True))
    return [operand(a) for a in jaxpr.outvars]


def is_key(value: Any) -> bool:
    """A random key of jax: it cannot be an array of numbers."""
    return str(getattr(value, "dtype", "")).startswith("key<")


def appended(program: Program, equation: Any, inputs: list[Operand], place: str) -> list[Operand]:
    """One equation, or what a call or a scan consists of."""
    name, params = equation.primitive.name, equation.params
    body = next((params[k] for k in INLINED if k in params), None)
    if name in CALLS and body is not None:
        inner = getattr(body, "jaxpr", body)
        given = inputs[len(inputs) - len(inner.invars) :]
        return inline(program, inner, getattr(body, "consts", ()), dict(zip(inner.invars, given, strict=True)), place)
    if name == "scan" and int(params["length"]) * len(params["jaxpr"].jaxpr.eqns) <= MOST_EQUATIONS:
        return unrolled(program, params, inputs, place)
    if name in ARITHMETIC and all(isinstance(i, Literal) and i.value.size == 1 for i in inputs):
        numbers = [float(i.value.reshape(-1)[0]) for i in inputs if isinstance(i, Literal)]
        made = equation.outvars[0].aval
        kind = str(made.dtype) if str(made.dtype).startswith(("int", "uint", "bool")) else "float32"
        return [Literal(np.asarray(ARITHMETIC[name](*numbers)).astype(kind).reshape(made.shape))]
    shapes = [getattr(v.aval, "shape", ()) for v in equation.outvars]
    dtypes = [str(getattr(v.aval, "dtype", "float32")) for v in equation.outvars]
    kept = {k: v for k, v in params.items() if k not in ("name", "sharding")}
    return [*program.emit(name, inputs, shapes, dtypes, place, **kept)]


def unrolled(program: Program, params: Mapping[str, Any], inputs: list[Operand], place: str) -> list[Operand]:
    """A scan, step by step: slices of what it runs over go in, what it returns is stacked."""
    body, length = params["jaxpr"], int(params["length"])
    constants, carried = int(params["num_consts"]), int(params["num_carry"])
    fixed, state = inputs[:constants], inputs[constants : constants + carried]
    over = inputs[constants + carried :]
    outputs: dict[int, list[Operand]] = {}
    order = reversed(range(length)) if params.get("reverse") else range(length)
    kinds = [str(v.aval.dtype) for v in body.jaxpr.invars[constants + carried :]]
    for i in order:
        parts = [one_of(program, x, i, kind, place) for x, kind in zip(over, kinds, strict=True)]
        given = dict(zip(body.jaxpr.invars, [*fixed, *state, *parts], strict=True))
        found = inline(program, body.jaxpr, body.consts, given, place)
        state = found[:carried]
        for k, value in enumerate(found[carried:]):
            outputs.setdefault(k, []).append(value)
    stacked: list[Operand] = []
    for k, parts in outputs.items():
        variable = body.jaxpr.outvars[carried + k]
        ordered = parts[::-1] if params.get("reverse") else parts
        shape = (length, *variable.aval.shape)
        stacked += program.emit("stack", ordered, [shape], [str(variable.aval.dtype)], place)
    return [*state, *stacked]


def one_of(program: Program, x: Operand, i: int, dtype: str, place: str) -> Operand:
    """Entry `i` of the first axis."""
    if isinstance(x, Literal):
        return Literal(x.value[i])
    return program.emit("select_one", [x], [program.shapes[x][1:]], [dtype], place, index=i)[0]


def used(program: Program) -> list[Equation]:
    """The equations that the results depend on."""
    needed = {r for r in program.results if isinstance(r, int)}
    kept: list[Equation] = []
    for equation in reversed(program.equations):
        if needed.intersection(equation.outputs):
            kept.append(equation)
            needed.update(i for i in equation.inputs if isinstance(i, int))
    return kept[::-1]


def users_of(equations: Sequence[Equation]) -> dict[int, list[Equation]]:
    """Variable → the equations that read it."""
    found: dict[int, list[Equation]] = {}
    for equation in equations:
        for i in operands(equation):
            found.setdefault(i, []).append(equation)
    return found


def operands(equation: Equation) -> Iterator[int]:
    """The variables that it reads."""
    yield from (i for i in equation.inputs if isinstance(i, int))
