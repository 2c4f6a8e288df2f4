"""ONNX' operators as torch computes them (onnx.ai/onnx/operators), as far as scales go; normalizations as in training.

Each function gets its Call and the node's inputs (None where one is left out) and returns a tensor, or several. The
size and the sign of what is copied around a border do not matter to scales and are not followed to the letter.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from smd_analyze.invariance.sources.onnx_calls import Call, NotFollowed
from smd_analyze.invariance.sources.onnx_windows import WINDOWS

Tensor = torch.Tensor
DTYPES = {1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64,
          9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16}  # fmt: skip
FLOATING = (1, 10, 11, 16)


def product(inputs: Sequence[Tensor]) -> Tensor:
    """x·y·…"""
    out = inputs[0]
    for other in inputs[1:]:
        out = out * other
    return out


def cast(c: Call, x: Tensor, like: Tensor | None = None) -> Tensor:
    """A change of type; floating-point numbers stay what they are, so that they can be followed in double precision."""
    code = c.integer("to", 1)
    floating = like.is_floating_point() if like is not None else code in FLOATING
    if floating and x.is_floating_point():
        return x
    return x.to(like.dtype if like is not None else DTYPES.get(code, torch.float32))


def dropout(c: Call, x: Tensor, *_: Any) -> Any:
    """A random mask, unless the probability is known to be zero: nothing that was constant stays so."""
    out = x if c.number(1, "ratio") == 0 else F.dropout(x, 0.5, True)
    return (out, torch.ones_like(x, dtype=torch.bool)) if c.results > 1 else out


def clip(c: Call, x: Tensor, *bounds: Tensor | None) -> Tensor:
    """Bounds from attributes or inputs."""
    low, high = c.number(1, "min"), c.number(2, "max")
    if any(b is not None and c.known(i) is None for i, b in enumerate(bounds, start=1)):
        raise NotFollowed("Clip whose bounds depend on data")
    if low is None and high is None:
        return x
    return F.relu(x) if low == 0 and high is None else torch.clamp(x, low, high)


def power(c: Call, x: Tensor, y: Tensor) -> Tensor:
    """With the exponent as a number where it is known."""
    exponent = c.number(1)
    return torch.pow(x, exponent if exponent is not None else y)


def divide(c: Call, x: Tensor, y: Tensor) -> Tensor:
    """Whole numbers divide to whole numbers."""
    return x / y if x.is_floating_point() or y.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def gemm(c: Call, x: Tensor, y: Tensor, z: Tensor | None = None) -> Tensor:
    """α·x·y + β·z."""
    x = x.t() if c.integer("transA", 0) else x
    alpha, beta = c.real("alpha", 1.0), c.real("beta", 1.0)
    if c.integer("transB", 0) and alpha == beta == 1.0 and (z is None or z.ndim == 1):
        return F.linear(x, y, z)
    out = torch.matmul(x, y.t() if c.integer("transB", 0) else y)
    out = out if alpha == 1.0 else out * alpha
    return out if z is None else out + (z if beta == 1.0 else z * beta)


def reduced(run: Callable[[Tensor, list[int], bool], Tensor]) -> Callable[..., Tensor]:
    """A reduction over the axes that the node names; over all if it names none."""

    def reduce(c: Call, x: Tensor, axes: Tensor | None = None) -> Tensor:
        found = c.axes(x.ndim)
        if found is None and axes is not None:
            raise NotFollowed(f"{c.op} over axes that depend on data")
        if not found:
            if c.integer("noop_with_empty_axes", 0):
                return x
            found = list(range(x.ndim))
        return run(x, found, bool(c.integer("keepdims", 1)))

    return reduce


def softmax(c: Call, x: Tensor) -> Tensor:
    """Before opset 13 over all axes from the given one on, flattened."""
    run = torch.log_softmax if c.op == "LogSoftmax" else torch.softmax
    if c.opset >= 13:
        return run(x, c.integer("axis", -1))
    axis = c.integer("axis", 1) % x.ndim
    return run(x, axis) if axis == x.ndim - 1 else run(x.flatten(axis), axis).reshape(x.shape)


def batch_norm(c: Call, x: Tensor, gain: Tensor, bias: Tensor, *statistics: Tensor) -> Any:
    """By the batch's statistics, unless it is known to be frozen."""
    if c.integer("frozen", 0):
        return F.batch_norm(x, statistics[0], statistics[1], gain, bias, False, 0.0, c.real("epsilon", 1e-5))
    out = F.batch_norm(x, None, None, gain, bias, True, 0.0, c.real("epsilon", 1e-5))
    return (out, *statistics, *statistics)[: c.results] if c.results > 1 else out


def instance_norm(c: Call, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Per sample and channel."""
    return F.instance_norm(x, None, None, gain, bias, True, 0.0, c.real("epsilon", 1e-5))


def layer_norm(c: Call, x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Any:
    """Over the axes from `axis` on; its other results are statistics."""
    shape = list(x.shape[c.integer("axis", -1) % x.ndim :])
    bias = None if bias is None else bias.reshape(shape)
    out = F.layer_norm(x, shape, gain.reshape(shape), bias, c.real("epsilon", 1e-5))
    if c.results > 1:
        raise NotFollowed("LayerNormalization whose statistics are used")
    return out


def rms_norm(c: Call, x: Tensor, gain: Tensor) -> Tensor:
    """Over the axes from `axis` on."""
    shape = list(x.shape[c.integer("axis", -1) % x.ndim :])
    return F.rms_norm(x, shape, gain.reshape(shape), c.real("epsilon", 1e-5))


def group_norm(c: Call, x: Tensor, gain: Tensor, bias: Tensor) -> Tensor:
    """Before opset 21 with a gain per group."""
    groups = c.integer("num_groups", 1)
    if gain.numel() != x.shape[1]:
        gain, bias = (v.repeat_interleave(x.shape[1] // groups) for v in (gain, bias))
    return F.group_norm(x, groups, gain, bias, c.real("epsilon", 1e-5))


def lp_normalization(c: Call, x: Tensor) -> Tensor:
    """x / ‖x‖ along an axis."""
    return x / torch.linalg.vector_norm(x, c.integer("p", 2), c.integer("axis", -1), True)


def mean_variance(c: Call, x: Tensor) -> Tensor:
    """(x − mean) / std."""
    axes = c.sizes("axes", 0, 0) or [0, 2, 3]
    centred = x - x.mean(axes, True)
    return centred / torch.sqrt((centred * centred).mean(axes, True) + 1e-9)


def prelu(c: Call, x: Tensor, slope: Tensor) -> Tensor:
    """max(0, x) + slope·min(0, x)."""
    return F.relu(x) - slope * F.relu(-x)


def attention(c: Call, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None, *past: Tensor | None) -> Tensor:
    """Softmax attention of opset 23 over [batch, (heads,) length, size]."""
    if any(p is not None for p in past) or c.results > 1:
        raise NotFollowed("Attention with a cache")
    flat = q.ndim == 3
    if flat:
        heads, of_keys = c.integer("q_num_heads", 1), c.integer("kv_num_heads", 1)
        q, k, v = (x.reshape(*x.shape[:2], n, -1).transpose(1, 2) for x, n in ((q, heads), (k, of_keys), (v, of_keys)))
    if k.shape[1] != q.shape[1]:
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = torch.matmul(q, k.transpose(-1, -2)) * c.real("scale", q.shape[-1] ** -0.5)
    if c.real("softcap", 0.0):
        scores = torch.tanh(scores / c.real("softcap", 1.0)) * c.real("softcap", 1.0)
    if c.integer("is_causal", 0):
        scores = scores.masked_fill(
            torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu(1), float("-inf")
        )
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    out = torch.matmul(torch.softmax(scores, -1), v)
    return out.transpose(1, 2).flatten(2) if flat else out


def mod(c: Call, x: Tensor, y: Tensor) -> Tensor:
    """Remainder."""
    return torch.fmod(x, y) if c.integer("fmod", 0) else torch.remainder(x, y)


def einsum(c: Call, *inputs: Tensor) -> Tensor:
    """As written."""
    return torch.einsum(c.word("equation"), *inputs)


def cumulative(c: Call, x: Tensor, axis: Tensor) -> Tensor:
    """Running sums."""
    if c.integer("exclusive", 0) or c.integer("reverse", 0):
        raise NotFollowed("CumSum that is exclusive or reversed")
    return torch.cumsum(x, c.need(1)[0])


def gelu(c: Call, x: Tensor) -> Tensor:
    """Exact, or by tanh."""
    return F.gelu(x, approximate="tanh" if c.word("approximate") == "tanh" else "none")


def simple(run: Callable[..., Any]) -> Callable[..., Any]:
    """An operation without attributes."""
    return lambda c, *inputs: run(*inputs)


def total(inputs: Sequence[Tensor]) -> Tensor:
    """x + y + …"""
    out = inputs[0]
    for other in inputs[1:]:
        out = out + other
    return out


def paired(run: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operation of two tensors, of any number of them."""

    def fold(c: Call, *inputs: Tensor) -> Tensor:
        out = inputs[0]
        for other in inputs[1:]:
            out = run(out, other)
        return out

    return fold


NORM = torch.linalg.vector_norm
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "Identity": simple(lambda x: x), "Cast": cast, "CastLike": cast, "Dropout": dropout, "Clip": clip, "Pow": power,
    "Add": simple(torch.add), "Sub": simple(torch.sub), "Mul": simple(torch.mul), "Div": divide, "Mod": mod,
    "Neg": simple(torch.neg), "Abs": simple(torch.abs), "Sqrt": simple(torch.sqrt), "Exp": simple(torch.exp),
    "Reciprocal": simple(torch.reciprocal), "Log": simple(torch.log), "Sign": simple(torch.sign),
    "Floor": simple(torch.floor), "Ceil": simple(torch.ceil), "Round": simple(torch.round), "Erf": simple(torch.erf),
    "Sin": simple(torch.sin), "Cos": simple(torch.cos), "Tan": simple(torch.tan), "Tanh": simple(torch.tanh),
    "Sigmoid": simple(torch.sigmoid), "Softplus": simple(F.softplus), "Softsign": simple(lambda x: x / (1 + abs(x))),
    "Relu": simple(F.relu), "LeakyRelu": lambda c, x: F.leaky_relu(x, c.real("alpha", 0.01)), "PRelu": prelu,
    "Elu": simple(F.elu), "Selu": simple(F.selu), "Celu": simple(F.celu), "Gelu": gelu, "Mish": simple(F.mish),
    "Swish": simple(F.silu), "HardSigmoid": simple(F.hardsigmoid), "HardSwish": simple(F.hardswish),
    "Sum": lambda c, *x: total(x), "Mean": lambda c, *x: total(x) / len(x), "Max": paired(torch.maximum),
    "Min": paired(torch.minimum), "MatMul": simple(torch.matmul), "Gemm": gemm, "Einsum": einsum, "CumSum": cumulative,
    "Softmax": softmax, "LogSoftmax": softmax, "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm, "LayerNormalization": layer_norm, "RMSNormalization": rms_norm,
    "SimplifiedLayerNormalization": rms_norm, "GroupNormalization": group_norm, "LpNormalization": lp_normalization,
    "MeanVarianceNormalization": mean_variance, "Attention": attention,
    "ReduceMean": reduced(lambda x, a, k: x.mean(a, k)), "ReduceSum": reduced(lambda x, a, k: x.sum(a, k)),
    "ReduceMax": reduced(lambda x, a, k: x.amax(a, k)), "ReduceMin": reduced(lambda x, a, k: x.amin(a, k)),
    "ReduceL2": reduced(lambda x, a, k: NORM(x, 2, a, k)), "ReduceL1": reduced(lambda x, a, k: NORM(x, 1, a, k)),
    "ReduceSumSquare": reduced(lambda x, a, k: (x * x).sum(a, k)),
    "ReduceLogSumExp": reduced(lambda x, a, k: torch.logsumexp(x, a, k)), "Greater": simple(torch.gt),
    "GreaterOrEqual": simple(torch.ge), "Less": simple(torch.lt), "LessOrEqual": simple(torch.le),
    "Equal": simple(torch.eq), "Not": simple(torch.logical_not), "And": simple(torch.logical_and),
    "Or": simple(torch.logical_or), "Xor": simple(torch.logical_xor), "IsNaN": simple(torch.isnan),
    "IsInf": simple(torch.isinf),
}  # fmt: skip
OPERATIONS: dict[str, Callable[..., Any]] = {**ARITHMETIC, **WINDOWS}
