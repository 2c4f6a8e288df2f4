"""Rules of operations that act element by element: operation → how a scale passes through it."""

from __future__ import annotations

import operator
from typing import Any

from torch.fx import Node

from smd_analyze.invariance import reductions
from smd_analyze.invariance.degrees import FIXED
from smd_analyze.invariance.lattice import Value, constant, plain, zeros
from smd_analyze.invariance.layout import take
from smd_analyze.invariance.walking import NoRule, Outcome, Walk, operation, origin

LARGEST_EPS = 1e-2  # a constant up to here, added to a variance or norm that divides, is taken as eps → 0
MASKED = -1e4  # a fill below this is "no attention here"


def same(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    """Copies and casts."""
    return w.value(x)


def detached(w: Walk, node: Node, x: Any, *_: Any) -> Value:
    """No gradient comes back through it: an invariance that rests on it would not make gradients orthogonal."""
    return w.degrees.fixed(w.value(x), cause="a detached copy of it is used: the gradient does not see that path")


def negative(w: Walk, node: Node, x: Any) -> Value:
    """−x."""
    value = w.value(x)
    return Value(value.shape, value.terms)


def homogeneous(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    """ReLU and its kin: f(ax) = a·f(x) for a > 0."""
    return w.degrees.homogeneous(w.value(x), operation(node) in ("relu", "abs"))


def fixed(w: Walk, node: Node, x: Any, *_: Any, **__: Any) -> Value:
    """Functions that no scale passes through."""
    cause = f"{operation(node)} follows; {FIXED}"
    return w.degrees.fixed(w.value(x), operation(node) in ("sigmoid", "exp", "softplus"), cause)


def sign(w: Walk, node: Node, x: Any, *_: Any) -> Value:
    """Only the sign matters."""
    return w.degrees.sign(w.value(x))


def compare(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """Only the sign of the difference matters."""
    shape = w.shape(node)
    term = w.degrees.single(w.degrees.add([w.value(x), w.value(y)], shape))
    return plain(shape, term.taint) if term else constant(shape)


def dropout(w: Walk, node: Node, x: Any, p: float = 0.0, train: bool = True, *_: Any) -> Value:
    """A random mask: the degree stays, nothing stays constant."""
    return dropped(w.value(x), p if train else 0.0)


def native_dropout(w: Walk, node: Node, x: Any, p: float, train: bool) -> Outcome:
    """Dropout that also returns its mask."""
    value = dropped(w.value(x), p if train else 0.0)
    return [value, plain(value.shape)]


def dropped(value: Value, p: float | None) -> Value:
    """The value after dropout with probability p."""
    if not p:
        return value
    return Value(value.shape, tuple(t.but(None, range(value.ndim)) for t in value.terms), value.nonnegative)


def clamp(w: Walk, node: Node, x: Any, low: Any = None, high: Any = None, **named: Any) -> Value:
    """A bound at zero is homogeneous, a small lower bound under a division is an eps, all else fixes the scale."""
    value = w.value(x)
    low, high = named.get("min", low), named.get("max", high)
    if high is None and low == 0:
        return w.degrees.homogeneous(value, True)
    if low is None and high == 0:
        return w.degrees.homogeneous(value)
    if high is None and is_eps(w, node, value, low):
        return value
    return w.degrees.fixed(value, cause=f"{operation(node)} follows; {FIXED}")


def clamp_max(w: Walk, node: Node, x: Any, high: Any) -> Value:
    """min(x, high)."""
    return clamp(w, node, x, None, high)


def is_eps(w: Walk, node: Node, value: Value, number: Any) -> bool:
    """Whether `number` is an eps beside a nonnegative value that is only ever divided by."""
    if isinstance(number, Node):
        tensor = w.known.get(number)
        number = float(tensor) if tensor is not None and tensor.numel() == 1 else None
    if not isinstance(number, (int, float)) or isinstance(number, bool) or not 0 < number <= LARGEST_EPS:
        return False
    return value.nonnegative and _only_divides(w, node)


def _only_divides(w: Walk, node: Node, depth: int = 0) -> bool:
    users = [u for u in node.users if u in w.needed]
    if not users or depth > 4:
        return False
    for user in users:
        name = operation(user)
        if name in ("rsqrt", "sqrt", "reciprocal"):
            continue
        exponent = user.args[1] if len(user.args) > 1 else None
        if name == "pow" and isinstance(exponent, (int, float)) and (exponent < 0 or exponent == 0.5):
            continue
        if name in ("div", "true_divide") and exponent is node and next(iter(user.args)) is not node:
            continue
        through = (
            "expand",
            "unsqueeze",
            "view",
            "clone",
            "expand_as",
            "_to_copy",
            "type_as",
            "squeeze",
            "alias",
            "mul",
        )
        if name in through and _only_divides(w, user, depth + 1):
            continue
        return False
    return True


def add(w: Walk, node: Node, x: Any, y: Any, alpha: float = 1) -> Value:
    """A sum keeps both sides' terms; an eps is dropped."""
    for a, b in ((x, y), (y, x)):
        if isinstance(a, Node) and is_eps(w, node, w.value(a), b):
            return Value(w.shape(node), w.degrees.broadcast(w.value(a), w.shape(node)), True)
    out = w.degrees.add([w.value(x), w.value(y)], w.shape(node))
    return out if alpha > 0 else Value(out.shape, out.terms)


def subtract(w: Walk, node: Node, x: Any, y: Any, alpha: float = 1) -> Value:
    """x − mean(x) deletes what is constant; any other difference is a sum."""
    axes = _mean_axes(w, x, y)
    if axes is not None and alpha == 1:
        return reductions.centre(w.degrees, w.value(x), axes)
    out = w.degrees.add([w.value(x), w.value(y)], w.shape(node))
    return Value(out.shape, out.terms)


def _mean_axes(w: Walk, x: Any, y: Any) -> list[int] | None:
    """Axes of the mean, if y is the mean of x over them, kept as axes of length 1; else None."""
    mean = origin(y)
    if isinstance(mean, Node) and operation(mean) in ("expand", "unsqueeze"):
        mean = origin(mean.args[0])
    if not isinstance(mean, Node) or mean.op != "call_function":
        return None
    if mean.target is operator.getitem and mean.args[1] == 1:
        mean = mean.args[0]
        if not isinstance(mean, Node) or operation(mean) != "var_mean" or origin(mean.args[0]) is not origin(x):
            return None
        axes, keep = _argument(mean, 1, "dim"), mean.kwargs.get("keepdim", False) or _argument(mean, 3, "keepdim")
    elif operation(mean) == "mean" and origin(mean.args[0]) is origin(x):
        axes, keep = _argument(mean, 1, "dim"), _argument(mean, 2, "keepdim")
    else:
        return None
    found = axes_of(w.value(x), axes)
    return found if keep or len(found) == w.value(x).ndim else None


def _argument(node: Node, position: int, name: str) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name)


def axes_of(value: Value, axes: Any) -> list[int]:
    """Axes counted from the front; None or an empty list means all."""
    if axes is None or axes == []:
        return list(range(value.ndim))
    listed = axes if isinstance(axes, (list, tuple)) else [axes]
    return [int(a) % max(value.ndim, 1) for a in listed]


def multiply(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """Degrees add; a square is nonnegative."""
    out = w.degrees.multiply(w.value(x), w.value(y), w.shape(node), absorb=True)
    return Value(out.shape, out.terms, out.nonnegative or (x is y and isinstance(x, Node)))


def divide(w: Walk, node: Node, x: Any, y: Any, rounding_mode: str | None = None) -> Value:
    """Degrees subtract."""
    if rounding_mode:
        raise NoRule("rounded division")
    return w.degrees.divide(w.value(x), w.value(y), w.shape(node))


def larger(w: Walk, node: Node, x: Any, y: Any) -> Value:
    """Maximum or minimum of two: both need the same degree."""
    return w.degrees.homogeneous(w.degrees.add([w.value(x), w.value(y)], w.shape(node)))


def addcmul(w: Walk, node: Node, a: Any, x: Any, y: Any, value: float = 1) -> Value:
    """a + value·x·y."""
    d, shape = w.degrees, w.shape(node)
    out = d.add([w.value(a), d.multiply(w.value(x), w.value(y), shape)], shape)
    return Value(out.shape, out.terms)


def lerp(w: Walk, node: Node, a: Any, b: Any, weight: Any) -> Value:
    """a + weight·(b − a): the weight needs degree zero."""
    d, shape = w.degrees, w.shape(node)
    factor = d.fixed(w.value(weight))
    out = d.add([w.value(a), d.multiply(w.value(b), factor, shape), d.multiply(w.value(a), factor, shape)], shape)
    return Value(out.shape, out.terms)


def power(w: Walk, node: Node, x: Any, exponent: Any) -> Value:
    """x to a fixed power."""
    if not isinstance(exponent, (int, float)) or not isinstance(x, Node):
        raise NoRule("power with a tensor as exponent")
    if exponent == 0:
        return constant(w.shape(node))
    return w.value(x) if exponent == 1 else w.degrees.power(w.value(x), float(exponent))


def square_root(w: Walk, node: Node, x: Any) -> Value:
    """√x: half the degree."""
    return w.degrees.power(w.value(x), 0.5)


def reciprocal_root(w: Walk, node: Node, x: Any) -> Value:
    """1/√x."""
    return w.degrees.power(w.value(x), -0.5)


def reciprocal(w: Walk, node: Node, x: Any) -> Value:
    """1/x."""
    return w.degrees.power(w.value(x), -1.0)


def square(w: Walk, node: Node, x: Any) -> Value:
    """x²."""
    return w.degrees.power(w.value(x), 2.0)


def gated(w: Walk, node: Node, x: Any, dim: int = -1) -> Value:
    """glu: the first half passes, the second is a gate of fixed scale."""
    value = w.value(x)
    axis = dim % value.ndim
    half = value.shape[axis] // 2
    gate = w.degrees.fixed(take(value, axis, range(half, 2 * half)))
    return w.degrees.multiply(take(value, axis, range(half)), gate, w.shape(node))


def prelu(w: Walk, node: Node, x: Any, slope: Any) -> Value:
    """max(0, x) + slope·min(0, x): the slope needs degree zero."""
    slopes = w.degrees.fixed(w.value(slope), cause="a slope multiplies one side of zero only")
    out = w.degrees.homogeneous(w.value(x))
    return Value(out.shape, tuple(t.but(None, range(out.ndim), slopes.taint) for t in out.terms))


def where(w: Walk, node: Node, condition: Any, x: Any, y: Any) -> Value:
    """Choice by a condition; a side that is masked out fits any degree."""
    sides = [zeros() if _is_masking(w, side) else w.value(side) for side in (x, y)]
    return w.degrees.where(w.value(condition), sides[0], sides[1], w.shape(node))


def _is_masking(w: Walk, side: Any) -> bool:
    tensor = w.known.get(side) if isinstance(side, Node) else None
    number = float(tensor) if tensor is not None and tensor.numel() == 1 else side
    return isinstance(number, (int, float)) and number == float("-inf")


def masked_fill(w: Walk, node: Node, x: Any, mask: Any, fill: Any) -> Value:
    """A fill with zero or minus infinity fits any degree."""
    number = float(w.known[fill]) if fill in w.known and w.known[fill].numel() == 1 else fill
    if isinstance(number, (int, float)):
        value = zeros() if number == 0 or number <= MASKED else constant()
    else:
        value = w.value(fill)
    return w.degrees.where(w.value(mask), value, w.value(x), w.shape(node))


def triangle(w: Walk, node: Node, x: Any, *_: Any) -> Value:
    """Zero on one side of the diagonal."""
    value = w.value(x)
    last = {value.ndim - 1, value.ndim - 2}
    return Value(value.shape, tuple(t.but(None, t.vary | last) for t in value.terms), value.nonnegative)


def nothing(w: Walk, node: Node, *_: Any, **__: Any) -> Value:
    """A tensor of zeros."""
    return zeros(w.shape(node))


def made(w: Walk, node: Node, *_: Any, **__: Any) -> Value:
    """A tensor made from nothing but numbers."""
    return plain(w.shape(node))


def written(w: Walk, node: Node, x: Any, y: Any, *_: Any) -> Value:
    """y in the place of x."""
    value = w.value(y)
    return Value(w.shape(node), w.degrees.broadcast(value, w.shape(node)), value.nonnegative)


FIXED_FUNCTIONS = (
    "sigmoid", "tanh", "gelu", "silu", "mish", "softplus", "exp", "exp2", "expm1", "log", "log2", "log10", "log1p",
    "sin", "cos", "tan", "erf", "erfc", "elu", "celu", "selu", "hardsigmoid", "hardswish", "hardtanh", "log_sigmoid",
    "relu6", "log_sigmoid_forward_x", "atan", "asin", "acos", "sinh", "cosh", "asinh", "acosh", "floor", "ceil",
    "round", "trunc", "logit", "digamma", "lgamma", "hardshrink", "softshrink", "threshold", "frac",
)  # fmt: skip
RULES = {
    **dict.fromkeys(
        ("clone", "alias",  "_to_copy", "contiguous", "lift_fresh_copy", "lift_fresh", "type_as", "to",
         "positive", "real",  "alias_copy"), same,
    ),
    **dict.fromkeys(("relu", "leaky_relu", "abs", "rrelu", "rrelu_with_noise"), homogeneous),
    **dict.fromkeys(FIXED_FUNCTIONS, fixed),
    **dict.fromkeys(("sign", "sgn", "heaviside", "logical_not", "isnan", "isinf", "isfinite", "bitwise_not"), sign),
    **dict.fromkeys(
        ("gt", "lt", "ge", "le", "eq", "ne", "logical_and", "logical_or", "bitwise_and", "bitwise_or", "__and__",
         "__or__", "bitwise_xor", "logical_xor"), compare,
    ),
    **dict.fromkeys(("dropout", "alpha_dropout", "feature_dropout"), dropout),
    **dict.fromkeys(("maximum", "minimum", "fmax", "fmin"), larger),
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros", "empty", "empty_like", "new_empty", "zero"), nothing),
    **dict.fromkeys(
        ("ones", "ones_like", "full", "full_like", "new_ones", "new_full", "arange", "scalar_tensor", "rand", "randn",
         "rand_like", "randn_like", "eye", "linspace", "bernoulli", "randint", "one_hot", "randperm"), made,
    ),
    "detach": detached, "detach_copy": detached, "neg": negative,
    "native_dropout": native_dropout, "clamp": clamp, "clip": clamp, "clamp_min": clamp,
    "clamp_max": clamp_max, "add": add, "sub": subtract, "rsub": subtract, "mul": multiply, "multiply": multiply,
    "div": divide, "true_divide": divide, "addcmul": addcmul, "lerp": lerp, "pow": power, "sqrt": square_root,
    "rsqrt": reciprocal_root, "reciprocal": reciprocal, "square": square, "glu": gated, "prelu": prelu,
    "_prelu_kernel": prelu, "where": where, "masked_fill": masked_fill, "tril": triangle, "triu": triangle,
    "fill": written, "copy": written,
}  # fmt: skip
