"""Rules of reductions, pools and normalizations: operation → which scales are mixed, and which are divided out."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from smd_analyze.invariance import layout, reductions
from smd_analyze.invariance.degrees import FIXED, MIXED
from smd_analyze.invariance.lattice import Term, Value, plain
from smd_analyze.invariance.rules_elementwise import axes_of
from smd_analyze.invariance.walking import NoRule, Outcome, Walk, operation


def total(w: Walk, node: Node, x: Any, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """Sum and mean."""
    value = w.value(x)
    return reductions.total(w.degrees, value, axes_of(value, dims), keepdim, w.shape(node))


def cumulative(w: Walk, node: Node, x: Any, dim: int) -> Value:
    """Running sum: one degree along the axis, and nothing stays constant along it."""
    value = w.value(x)
    axis = dim % value.ndim
    terms = tuple(t.but(w.degrees.space.uniform(t.degree, {axis}), t.vary | {axis}) for t in value.terms)
    return Value(value.shape, terms, value.nonnegative)


def extreme(w: Walk, node: Node, x: Any, dims: Any = None, keepdim: bool = False) -> Outcome:
    """Largest or smallest element over axes; `max(x, y)` of two tensors."""
    if isinstance(dims, Node):
        return w.degrees.homogeneous(w.degrees.add([w.value(x), w.value(dims)], w.shape(node)))
    value = w.value(x)
    shapes = w.shapes(node)
    found = reductions.size_of(
        w.degrees, value, axes_of(value, dims), keepdim, shapes[0] or (), nonnegative=value.nonnegative
    )  # fmt: skip
    return [found, plain(shapes[1] or (), found.taint)] if w.several(node) else found


def norm(w: Walk, node: Node, x: Any, order: Any = 2, dims: Any = None, keepdim: bool = False, **_: Any) -> Value:
    """‖x‖ of any order but 0."""
    if order == 0:
        raise NoRule("number of nonzero elements")
    value = w.value(x)
    return reductions.size_of(w.degrees, value, axes_of(value, dims), keepdim, w.shape(node))


def variance(w: Walk, node: Node, x: Any, *rest: Any, **named: Any) -> Outcome:
    """var, std and, with the mean beside it, var_mean: constant parts are deleted, the degree doubles (std: not)."""
    value, name = w.value(x), operation(node)
    dims = rest[0] if rest and not isinstance(rest[0], bool) else named.get("dim")
    flags = [r for r in rest if isinstance(r, bool)]
    keep = bool(named.get("keepdim", flags[-1] if len(flags) > (0 if name.endswith("mean") else 1) else False))
    axes = axes_of(value, dims)
    shapes = w.shapes(node)
    power = 2 if name.startswith("var") else 1
    found = reductions.size_of(w.degrees, value, axes, keep, shapes[0] or (), power, centred=True)
    if not w.several(node):
        return found
    return [found, reductions.total(w.degrees, value, axes, keep, shapes[1] or ())]


def chosen(w: Walk, node: Node, x: Any, *rest: Any, **named: Any) -> Outcome:
    """topk, sort and kin: one degree along the axis; the indices have none."""
    value, name = w.value(x), operation(node)
    position = 1 if name in ("topk", "kthvalue") else 0
    dim = rest[position] if len(rest) > position else named.get("dim", -1)
    if isinstance(dim, bool) or not w.several(node):
        raise NoRule(f"{name} of this kind")
    term = w.degrees.single(value)
    shapes = [s or () for s in w.shapes(node)]
    if term is None:
        return [plain(s) for s in shapes]
    degree = w.degrees.space.uniform(term.degree, {dim % max(value.ndim, 1)})
    picked = Value(shapes[0], (Term(degree, frozenset(range(len(shapes[0]))), term.taint),), value.nonnegative)
    return [picked, plain(shapes[1], term.taint)]


def position_of(w: Walk, node: Node, x: Any, dim: Any = None, *_: Any, **__: Any) -> Value:
    """argmax and kin: an index has no scale, if all candidates have one."""
    value = w.value(x)
    term = w.degrees.single(value)
    if term:
        w.degrees.space.uniform(term.degree, axes_of(value, dim))
    return plain(w.shape(node), term.taint if term else 0)


def mean_pool(w: Walk, node: Node, x: Any, *rest: Any, **_: Any) -> Value:
    """Average pools and interpolation: linear; a shift stays constant unless padded zeros are counted."""
    value, name = w.value(x), operation(node)
    count = next(int(c) for c in name if c.isdigit())
    spatial = range(value.ndim - count, value.ndim)
    zeros_counted = name.startswith("avg_pool") and len(rest) > 2 and bool(np.any(np.atleast_1d(rest[2]) > 0))
    zeros_counted = zeros_counted and (rest[4] if len(rest) > 4 else True)
    zeros_counted = zeros_counted or (len(rest) > 5 and rest[5] is not None)  # a fixed divisor: borders may differ
    terms = []
    for term in value.terms:
        degree, pending = w.degrees.summed(term, spatial, value.vary)
        terms.append(term.but(degree, term.vary | (set(spatial) if zeros_counted else set()), 0, pending))
    return Value(w.shape(node), tuple(terms), value.nonnegative)


def max_pool(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Outcome:
    """Positively homogeneous, one degree over the window."""
    value, name = w.value(x), operation(node)
    count = next(int(c) for c in name if c.isdigit())
    term = w.degrees.single(value)
    shapes = [s or () for s in w.shapes(node)]
    terms = ()
    if term:
        w.degrees.space.cause = MIXED
        spatial = range(value.ndim - count, value.ndim)
        terms = (term.but(w.degrees.space.uniform(term.degree, spatial)),)
    pooled = Value(shapes[0], terms, value.nonnegative)
    return [pooled, plain(shapes[1])] if w.several(node) else pooled


def batch_norm(w: Walk, node: Node, x: Any, gain: Any, bias: Any, *rest: Any, **_: Any) -> Outcome:
    """Normalization by the batch's statistics; with running statistics it is a product with constants and a shift."""
    name, value, d = operation(node), w.value(x), w.degrees
    if "no_stats" in str(node.target) or name.startswith("_batch_norm_with_update"):
        training = True
    elif "no_training" in name or name == "_batch_norm_no_update":
        training = False
    else:
        training = bool(rest[2])
    training = training and not w.graph.is_frozen(node)
    if training:
        out = reductions.normalize(d, value, [0, *range(2, value.ndim)], centred=True)
    else:
        shift = Value(value.shape, (Term((), frozenset({1})),))
        out = d.add([value, shift], value.shape)
    out = reductions.affine(d, out, _optional(w, gain), _optional(w, bias), 1)
    return _with_extras(w, node, out)


def _optional(w: Walk, arg: Any) -> Value | None:
    return None if arg is None else w.value(arg)


def _with_extras(w: Walk, node: Node, out: Value) -> Outcome:
    """The other results of a fused operation are statistics that nothing trained reads."""
    if not w.several(node):
        return out
    return [out, *(None if s is None else plain(s, out.taint) for s in w.shapes(node)[1:])]


def layer_norm(
    w: Walk, node: Node, x: Any, shape: Any, gain: Any = None, bias: Any = None, *_: Any, **named: Any
) -> Outcome:
    """Mean and variance over the last axes."""
    value = w.value(x)
    axes = range(value.ndim - len(shape), value.ndim)
    out = reductions.normalize(w.degrees, value, axes, centred=True)
    gain, bias = named.get("weight", gain), named.get("bias", bias)
    return _with_extras(w, node, reductions.affine(w.degrees, out, _optional(w, gain), _optional(w, bias), None))


def rms_norm(w: Walk, node: Node, x: Any, shape: Any, gain: Any = None, *_: Any, **named: Any) -> Outcome:
    """Root mean square over the last axes: nothing is subtracted."""
    value = w.value(x)
    out = reductions.normalize(w.degrees, value, range(value.ndim - len(shape), value.ndim), centred=False)
    gain = named.get("weight", gain)
    return _with_extras(w, node, reductions.affine(w.degrees, out, _optional(w, gain), None, None))


def group_norm(
    w: Walk, node: Node, x: Any, groups: int, gain: Any = None, bias: Any = None, *_: Any, **named: Any
) -> Value:
    """Mean and variance over the channels of a group and all places."""
    value, d = w.value(x), w.degrees
    batch, channels, *places = value.shape
    split = layout.reshape(d, value, (batch, groups, channels // groups, *places))
    out = layout.reshape(d, reductions.normalize(d, split, range(2, split.ndim), centred=True), value.shape)
    return reductions.affine(d, out, _optional(w, named.get("weight", gain)), _optional(w, named.get("bias", bias)), 1)


def native_group_norm(
    w: Walk, node: Node, x: Any, gain: Any, bias: Any, batch: int, channels: int, places: int, groups: int, eps: float
) -> Outcome:
    """The fused form, which also returns its statistics."""
    return _with_extras(w, node, group_norm(w, node, x, groups, gain, bias))


def instance_norm(
    w: Walk, node: Node, x: Any, gain: Any, bias: Any, mean: Any, var: Any, use_input: bool, *_: Any
) -> Value:
    """Mean and variance over the places of each channel."""
    if not use_input:
        raise NoRule("instance_norm with running statistics")
    value = w.value(x)
    out = reductions.normalize(w.degrees, value, range(2, value.ndim), centred=True)
    return reductions.affine(w.degrees, out, _optional(w, gain), _optional(w, bias), 1)


def weight_norm(w: Walk, node: Node, direction: Any, magnitude: Any, dim: int = 0) -> Outcome:
    """g·v/‖v‖, the norm over all axes but `dim` (−1: over all)."""
    value = w.value(direction)
    axes = [a for a in range(value.ndim) if dim == -1 or a != dim % value.ndim]
    out = reductions.normalize(w.degrees, value, axes, centred=False)
    return _with_extras(w, node, w.degrees.multiply(out, w.value(magnitude), value.shape))


def softmax(w: Walk, node: Node, x: Any, dim: int, *_: Any, **__: Any) -> Value:
    """Softmax and its logarithm."""
    value = w.value(x)
    out = reductions.softmax(w.degrees, value, dim % max(value.ndim, 1))
    return Value(out.shape, out.terms, "log" not in operation(node))


def log_sum_exp(w: Walk, node: Node, x: Any, dims: Any, keepdim: bool = False) -> Value:
    """log Σ exp."""
    value = w.degrees.fixed(w.value(x), cause=f"logsumexp follows; {FIXED}")
    return reductions.total(w.degrees, value, axes_of(value, dims), keepdim, w.shape(node))


def likelihood(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Outcome:
    """Losses of log-probabilities: nothing may change them. From logits, a shift of all classes is deleted first."""
    value = w.value(x)
    if operation(node) == "cross_entropy_loss":
        value = reductions.softmax(w.degrees, value, 1 if value.ndim > 1 else 0)
    value = w.degrees.fixed(value, cause=f"the loss {operation(node)} reads it")
    results: list[Value | None] = [plain(s or (), value.taint) for s in w.shapes(node)]
    return results if w.several(node) else plain(w.shape(node), value.taint)


POOLS = (
    "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d", "upsample_linear1d", "upsample_bilinear2d",
    "upsample_bicubic2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa", "avg_pool1d",
    "avg_pool2d", "avg_pool3d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d",
    "adaptive_avg_pool3d", "_adaptive_avg_pool3d",
)  # fmt: skip
BATCH_NORMS = (
    "_native_batch_norm_legit_functional", "native_batch_norm", "_native_batch_norm_legit", "cudnn_batch_norm",
    "_native_batch_norm_legit_no_training", "batch_norm", "_batch_norm_with_update_functional",
    "_batch_norm_no_update", "miopen_batch_norm", "_batch_norm_with_update",
)  # fmt: skip
RULES = {
    **dict.fromkeys(("sum", "mean", "nansum"), total),
    **dict.fromkeys(("amax", "amin", "max", "min"), extreme),
    **dict.fromkeys(("linalg_vector_norm", "norm", "frobenius_norm"), norm),
    **dict.fromkeys(("var", "std", "var_mean", "std_mean"), variance),
    **dict.fromkeys(("topk", "sort", "kthvalue", "cummax"), chosen),
    **dict.fromkeys(("argmax", "argmin"), position_of),
    **dict.fromkeys(POOLS, mean_pool),
    **dict.fromkeys(
        ("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "max_pool2d_with_indices",
         "max_pool3d_with_indices"), max_pool,
    ),
    **dict.fromkeys(BATCH_NORMS, batch_norm),
    **dict.fromkeys(("layer_norm", "native_layer_norm"), layer_norm),
    **dict.fromkeys(("rms_norm", "_fused_rms_norm"), rms_norm),
    **dict.fromkeys(("_weight_norm", "_weight_norm_interface"), weight_norm),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"), softmax),
    **dict.fromkeys(
        ("nll_loss", "nll_loss_nd", "nll_loss_forward", "nll_loss2d_forward", "cross_entropy_loss"), likelihood
    ),
    "cumsum": cumulative, "group_norm": group_norm, "native_group_norm": native_group_norm,
    "instance_norm": instance_norm, "logsumexp": log_sum_exp,
}  # fmt: skip
