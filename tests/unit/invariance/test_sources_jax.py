"""Programs of jax as graphs. Without jax: equations written by hand; with it: functions and flax modules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from invariance_runs import run_of

from smd_analyze.errors import UsageError
from smd_analyze.invariance.graph import built_verdicts
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.naming import name_verdicts
from smd_analyze.invariance.sources.base import Built
from smd_analyze.invariance.sources.jaxpr_equations import Literal, Operand, Program
from smd_analyze.invariance.sources.jaxpr_network import Network

SHAPES = {"dense.kernel": (5, 6), "dense.bias": (6,), "norm.scale": (6,), "out": (6, 3)}


class Written:
    """A program from x [4, 5], written by hand."""

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.program, self.shapes = Program(), shapes
        self.named = {n: self.program.fresh(s) for n, s in shapes.items()}
        self.x = self.program.fresh((4, 5))
        self.program.arguments = [*self.named.values(), self.x]

    def do(self, name: str, *inputs: Operand | float, shape: tuple[int, ...] = (4, 6), **params: Any) -> int:
        given = [Literal(np.float32(i)) if isinstance(i, float) else i for i in inputs]
        return self.program.emit(name, given, [shape], ["float32"], "", **params)[0]

    def product(self, x: int, y: int, shape: tuple[int, ...] = (4, 6)) -> int:
        return self.do("dot_general", x, y, shape=shape, dimension_numbers=(((1,), (0,)), ((), ())))

    def spread(self, x: int) -> int:
        return self.do("broadcast_in_dim", x, broadcast_dimensions=(1,))

    def mean(self, x: int) -> int:
        total = self.do("reduce_sum", x, shape=(6,), axes=(0,))
        return self.do("div", total, 4.0, shape=(6,))

    def verdicts(self, result: int) -> dict[str, tuple[str, str]]:
        self.program.results = [result]
        network = Network(self.program, list(self.named), "by hand")
        tensors = dict(run_of(self.shapes).checkpoints[0].parameters)
        built = Built(network, "by hand", ((torch.randn(4, 5),), {}))
        found, _, _ = built_verdicts(built, None, tensors, name_verdicts(tensors, {}))
        return {v.parameter: (v.status, v.granularity) for v in found}


def test_a_fast_variance_is_a_variance():
    """flax: var = max(0, mean(x²) − mean(x)²), then (x − mean)·(rsqrt(var + ε)·scale)."""
    w = Written(SHAPES)
    h = w.do("add", w.product(w.x, w.named["dense.kernel"]), w.spread(w.named["dense.bias"]))
    mean, squares = w.mean(h), w.mean(w.do("square", h))
    var = w.do("sub", squares, w.do("square", mean, shape=(6,)), shape=(6,))
    safe = w.do("add", w.do("max", 0.0, var, shape=(6,)), 1e-5, shape=(6,))
    factor = w.do("mul", w.do("rsqrt", safe, shape=(6,)), w.named["norm.scale"], shape=(6,))
    z = w.do("mul", w.do("sub", h, w.spread(mean)), w.spread(factor))
    found = w.verdicts(w.product(z, w.named["out"], (4, 3)))
    assert found["dense.kernel"] == ("invariant", "unit")
    assert found["dense.bias"][0] == "dead"
    assert found["norm.scale"][0] == found["out"][0] == "not invariant"


def test_a_mean_of_something_else_centres_nothing():
    w = Written(SHAPES)
    h = w.do("add", w.product(w.x, w.named["dense.kernel"]), w.spread(w.named["dense.bias"]))
    other = w.mean(w.do("tanh", h))
    z = w.do("mul", w.do("sub", h, w.spread(other)), w.spread(w.named["norm.scale"]))
    found = w.verdicts(w.product(z, w.named["out"], (4, 3)))
    assert found["dense.bias"][0] == "not invariant"


def test_a_sum_divided_by_another_number_is_no_mean():
    w = Written(SHAPES)
    h = w.do("add", w.product(w.x, w.named["dense.kernel"]), w.spread(w.named["dense.bias"]))
    third = w.do("div", w.do("reduce_sum", h, shape=(6,), axes=(0,)), 3.0, shape=(6,))
    z = w.do("mul", w.do("sub", h, w.spread(third)), w.spread(w.named["norm.scale"]))
    assert w.verdicts(w.product(z, w.named["out"], (4, 3)))["dense.bias"][0] == "not invariant"


def test_a_primitive_that_is_not_known_stops_scales_and_kills_nothing():
    w = Written(SHAPES)
    h = w.do("mine", w.do("add", w.product(w.x, w.named["dense.kernel"]), w.spread(w.named["dense.bias"])))
    z = w.do("mul", w.do("sub", h, w.spread(w.mean(h))), w.spread(w.named["norm.scale"]))
    found = w.verdicts(w.product(z, w.named["out"], (4, 3)))
    assert found["dense.kernel"][0] == found["dense.bias"][0] == "not invariant"


def test_numbers_made_of_random_numbers_are_random():
    """A dropout mask between a bias and its norm: the bias is not dead."""
    w = Written(SHAPES)
    h = w.do("add", w.product(w.x, w.named["dense.kernel"]), w.spread(w.named["dense.bias"]))
    bits = w.program.emit("random_bits", [], [(4, 6)], ["uint32"], "")[0]
    mask = w.program.emit("lt", [bits, Literal(np.uint32(7))], [(4, 6)], ["bool"], "")[0]
    d = w.do("select_n", mask, w.do("broadcast_in_dim", 0.0, broadcast_dimensions=()), h)
    z = w.do("mul", w.do("sub", d, w.spread(w.mean(d))), w.spread(w.named["norm.scale"]))
    assert w.verdicts(w.product(z, w.named["out"], (4, 3)))["dense.bias"][0] == "not invariant"


def test_a_function_with_parameters():
    jnp = pytest.importorskip("jax.numpy")

    def loss_free(p: Any, x: Any) -> Any:
        h = x @ p["dense"]["kernel"] + p["dense"]["bias"]
        h = (h - h.mean(0)) / jnp.sqrt(h.var(0) + 1e-5) * p["norm"]["scale"]
        return h @ p["out"]

    parameters = {"dense": {"kernel": jnp.ones((5, 6)), "bias": jnp.ones(6)}, "norm": {"scale": jnp.ones(6)},
                  "out": jnp.ones((6, 3))}  # fmt: skip
    run = run_of({f"params/{n.replace('.', '/')}": s for n, s in SHAPES.items()})
    made = find_groups(run, lambda: (loss_free, parameters), (np.ones((4, 5), np.float32),))
    found = {p.parameter: (p.status, p.granularity, p.evidence) for p in made.parameters}
    assert found["params/dense/kernel"] == ("invariant", "unit", "proved")
    assert found["params/dense/bias"][0] == "dead"
    with pytest.raises(UsageError, match="does not tell its inputs"):
        find_groups(run, lambda: (loss_free, parameters))
    with pytest.raises(UsageError, match="jax cannot trace it"):
        find_groups(run, lambda: (loss_free, parameters), (np.ones((4, 9), np.float32),))


def test_a_stop_gradient_is_not_looked_through():
    jax = pytest.importorskip("jax")

    def detached(p: Any, x: Any) -> Any:
        h = x @ p["a"]
        return h / jax.numpy.linalg.norm(jax.lax.stop_gradient(h), axis=-1, keepdims=True) @ p["out"]

    parameters = {"a": jax.numpy.ones((5, 6)), "out": jax.numpy.ones((6, 3))}
    made = find_groups(run_of({"a": (5, 6), "out": (6, 3)}), lambda: (detached, parameters, np.ones((4, 5))))
    assert {p.status for p in made.parameters} == {"not invariant"}


def test_a_flax_module_in_training():
    linen = pytest.importorskip("flax.linen")

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: Any, train: bool = False) -> Any:
            x = linen.relu(linen.BatchNorm(use_running_average=not train)(linen.Conv(6, (3, 3))(x)))
            x = linen.Dropout(0.1, deterministic=not train)(linen.max_pool(x, (2, 2), (2, 2)))
            x = linen.LayerNorm()(linen.Dense(4)(x.mean((1, 2))))
            return linen.Dense(3)(x)

    shapes = {
        "params/Conv_0/kernel": (3, 3, 3, 6), "params/Conv_0/bias": (6,), "params/BatchNorm_0/scale": (6,),
        "params/BatchNorm_0/bias": (6,), "params/Dense_0/kernel": (6, 4), "params/Dense_0/bias": (4,),
        "params/LayerNorm_0/scale": (4,), "params/LayerNorm_0/bias": (4,), "params/Dense_1/kernel": (4, 3),
        "params/Dense_1/bias": (3,),
    }  # fmt: skip
    made = find_groups(run_of(shapes), Net, np.ones((4, 8, 8, 3), np.float32))
    found = {p.parameter: (p.status, p.granularity, p.evidence) for p in made.parameters}
    assert found["params/Conv_0/kernel"] == ("invariant", "unit", "proved")
    assert found["params/Conv_0/bias"][0] == "dead"
    assert found["params/Dense_0/kernel"][0] == "jointly invariant"
    assert found["params/Dense_1/kernel"][0] == "not invariant"
    group = next(g for g in made.groups if "Conv_0" in g.name)
    assert (group.units, group.members[0].axis) == (6, 3)
