"""Rules of products that sum over an axis: linear layers, convolutions, attention, recurrent cells."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch.fx import Node

from smd_analyze.invariance import layout, reductions
from smd_analyze.invariance.lattice import Value, constant, plain
from smd_analyze.invariance.rules_elementwise import dropped
from smd_analyze.invariance.walking import NoRule, Outcome, Walk, operation

LETTERS = "abcdefghijklmnop"  # labels of batch axes; x, y, z are the matrix axes


def product(w: Walk, x: Value, y: Value, shape: tuple[int, ...]) -> Value:
    """torch.matmul of any ranks, batch axes broadcast."""
    if x.ndim == 1 and y.ndim == 1:
        return reductions.contract(w.degrees, x, y, "z", "z", "", shape)
    if x.ndim == 1:
        batch = LETTERS[: y.ndim - 2]
        return reductions.contract(w.degrees, x, y, "z", batch + "zy", batch + "y", shape)
    if y.ndim == 1:
        batch = LETTERS[: x.ndim - 2]
        return reductions.contract(w.degrees, x, y, batch + "xz", "z", batch + "x", shape)
    return _batched(w, x, y, "xz", "zy", "xy", shape)


def _batched(w: Walk, x: Value, y: Value, x_end: str, y_end: str, end: str, shape: tuple[int, ...]) -> Value:
    """Contract the last two axes; batch axes of length 1 are broadcast."""
    batch = LETTERS[: len(shape) - 2]
    x, x_batch = _squeezed(w, x, batch, shape)
    y, y_batch = _squeezed(w, y, batch, shape)
    return reductions.contract(w.degrees, x, y, x_batch + x_end, y_batch + y_end, batch + end, shape)


def _squeezed(w: Walk, value: Value, batch: str, shape: tuple[int, ...]) -> tuple[Value, str]:
    """Without batch axes of length 1 that are broadcast; the labels of the others."""
    labels = batch[len(batch) - (value.ndim - 2) :]
    kept = ""
    for position in reversed(range(len(labels))):
        label = labels[position]
        if value.shape[position] == 1 and shape[batch.index(label)] != 1:
            value = layout.drop(value, position)
        else:
            kept = label + kept
    return value, kept


def matrix_product(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """mm, bmm, matmul, mv."""
    return product(w, w.value(x), w.value(y), w.shape(node))


def linear(w: Walk, node: Node, x: Any, weight: Any, bias: Any = None) -> Value:
    """x·Wᵀ + b."""
    value = w.value(x)
    batch, shape = LETTERS[: value.ndim - 1], w.shape(node)
    out = reductions.contract(w.degrees, value, w.value(weight), batch + "z", "yz", batch + "y", shape)
    return out if bias is None else w.degrees.add([out, w.value(bias)], shape)


def product_and_sum(w: Walk, node: Node, bias: Any, x: Any, y: Any, beta: float = 1, alpha: float = 1) -> Value:
    """addmm, baddbmm: beta·bias + alpha·x·y."""
    if operation(node) == "addbmm":
        raise NoRule("addbmm")
    out = product(w, w.value(x), w.value(y), w.shape(node))
    return out if beta == 0 else w.degrees.add([w.value(bias), out], w.shape(node))


def dot(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """Inner product of two vectors."""
    return reductions.contract(w.degrees, w.value(x), w.value(y), "a", "a", "", ())


def outer(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """Outer product of two vectors."""
    return reductions.contract(w.degrees, w.value(x), w.value(y), "x", "y", "xy", w.shape(node))


def einsum(w: Walk, node: Node, equation: str, operands: Any, **_: Any) -> Value:
    """One or two operands with explicit output and no repeated label."""
    equation = equation.replace(" ", "")
    inputs, arrow, output = equation.partition("->")
    labels = inputs.split(",")
    if "." in equation or not arrow or len(operands) > 2 or any(len(set(x)) != len(x) for x in labels):
        raise NoRule(f"einsum {equation}")
    values = [w.value(x) for x in operands]
    if len(values) == 1:
        return reductions.contract(w.degrees, values[0], constant(), labels[0], "", output, w.shape(node))
    return reductions.contract(w.degrees, values[0], values[1], labels[0], labels[1], output, w.shape(node))


def convolution(
    w: Walk, node: Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1,
    groups: int = 1,
) -> Value:  # fmt: skip
    """conv1d, conv2d, conv3d."""
    padded = padding != "valid" if isinstance(padding, str) else bool(np.any(np.atleast_1d(padding) > 0))
    return _convolve(w, node, x, weight, bias, groups, False, padded)


def transposed(
    w: Walk, node: Node, x: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0,
    output_padding: Any = 0, groups: int = 1, dilation: Any = 1,
) -> Value:  # fmt: skip
    """conv_transpose*d: its borders see fewer inputs, so a shift never stays constant."""
    return _convolve(w, node, x, weight, bias, groups, True, True)


def general_convolution(
    w: Walk, node: Node, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, is_transposed: bool,
    output_padding: Any, groups: int, *_: Any,
) -> Value:  # fmt: skip
    """The one operation behind all of them."""
    return _convolve(w, node, x, weight, bias, groups, is_transposed, any(p > 0 for p in padding))


def _convolve(
    w: Walk, node: Node, x: Any, weight: Any, bias: Any, groups: int, is_transposed: bool, padded: bool
) -> Value:
    value, kernel, shape, d = w.value(x), w.value(weight), w.shape(node), w.degrees
    single = value.ndim == kernel.ndim - 1
    if single:
        value, shape = layout.unsqueeze(value, 0), (1, *shape)
    out = reductions.convolve(d, value, kernel, groups, shape, is_transposed, padded)
    out = reductions.affine(d, out, None, None if bias is None else w.value(bias), 1)
    return layout.drop(out, 0) if single else out


def attention(
    w: Walk, node: Node, q: Any, k: Any, v: Any, mask: Any = None, p: float = 0.0, causal: bool = False, **named: Any
) -> Outcome:
    """softmax(q·kᵀ + mask)·v. Without dropout the rows sum to one, so a shift of v constant along the keys passes."""
    if operation(node) == "_scaled_dot_product_flash_attention_for_cpu":
        p, mask = (mask if isinstance(mask, float) else named.get("dropout_p", 0.0)), None
    mask, p = named.get("attn_mask", mask), named.get("dropout_p", p)
    query, key, value, d = w.value(q), w.value(k), w.value(v), w.degrees
    rank = query.ndim
    if rank >= 3 and key.shape[-3] != query.shape[-3]:  # grouped queries: each key head serves several
        heads = np.repeat(np.arange(key.shape[-3]), query.shape[-3] // key.shape[-3])
        key, value = layout.take(key, rank - 3, heads), layout.take(value, rank - 3, heads)
    scores_shape = (*query.shape[:-1], key.shape[-2])
    scores = _batched(w, query, key, "xz", "yz", "xy", scores_shape)
    if mask is not None and w.value(mask).terms:
        scores = d.add([scores, w.value(mask)], scores_shape)
    weights = dropped(reductions.softmax(d, scores, rank - 1), p)
    shape = (*query.shape[:-1], value.shape[-1])
    terms = []
    for term in value.terms:
        if rank - 2 in term.vary or p:
            terms += _batched(w, weights, Value(value.shape, (term,)), "xy", "yz", "xz", shape).terms
        else:
            terms.append(term)
    out = Value(shape, d.simplified(terms))
    if not w.several(node):
        return out
    return [out, *(None if s is None else plain(s) for s in w.shapes(node)[1:])]


def recurrent(
    w: Walk, node: Node, x: Any, state: Any, weights: Any, biases: bool, layers: int, dropout: float, training: bool,
    bidirectional: bool, batch_first: bool = False,
) -> Outcome:  # fmt: skip
    """lstm, gru, rnn: gates of fixed scale, so nothing that enters may change."""
    d = w.degrees
    taint = w.value(x).taint
    d.fixed(w.value(x), cause="a recurrent cell follows; its gates need a fixed scale")
    for entry in [*(state if isinstance(state, (list, tuple)) else [state]), *weights]:
        taint |= w.value(entry).taint
        d.fixed(w.value(entry), cause="the gates of a recurrent cell need a fixed scale")
    return [None if s is None else plain(s, taint) for s in w.shapes(node)]


RULES = {
    **dict.fromkeys(("mm", "bmm", "matmul", "mv"), matrix_product),
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv"), product_and_sum),
    **dict.fromkeys(("vdot", "dot"), dot),
    **dict.fromkeys(("conv1d", "conv2d", "conv3d"), convolution),
    **dict.fromkeys(("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"), transposed),
    **dict.fromkeys(("convolution", "_convolution"), general_convolution),
    **dict.fromkeys(
        ("scaled_dot_product_attention", "_scaled_dot_product_flash_attention_for_cpu",
         "_scaled_dot_product_efficient_attention"), attention,
    ),
    **dict.fromkeys(("lstm", "gru", "rnn_tanh"), recurrent),
    "linear": linear, "outer": outer, "einsum": einsum,
}  # fmt: skip
