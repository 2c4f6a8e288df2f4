"""Planted bugs: each breaks one rule of the calculus in a way that a person could, and names where it must show.

`MUTANTS` maps a description to (plant, zoo entries); `plant(monkeypatch)` puts the bug in.
"""

from smd_analyze.invariance import (
    reductions,
    rules_elementwise,
    rules_reduction,
)
from smd_analyze.invariance.degrees import Degrees
from smd_analyze.invariance.lattice import Term, Value, constant
from smd_analyze.invariance.rules import RULES

MUTANTS = {}


def mutant(description, *entries):
    def add(plant):
        MUTANTS[description] = (plant, entries)
        return plant

    return add


def as_homogeneous(monkeypatch, *operations):
    for name in operations:
        monkeypatch.setitem(RULES, name, rules_elementwise.homogeneous)


@mutant("tanh lets a scale through", "weight_norm_and_cosine_head", "detached_norm")
def tanh(monkeypatch):
    as_homogeneous(monkeypatch, "tanh")


@mutant("sigmoid lets a scale through", "squeeze_excite")
def sigmoid(monkeypatch):
    as_homogeneous(monkeypatch, "sigmoid")


@mutant("gelu lets a scale through", "activations_before_norm")
def gelu(monkeypatch):
    as_homogeneous(monkeypatch, "gelu")


@mutant("silu lets a scale through", "norm_after_sublayer")
def silu(monkeypatch):
    as_homogeneous(monkeypatch, "silu")


@mutant("a function that saturates lets a scale through", "linear_bottleneck")
def relu6(monkeypatch):
    as_homogeneous(monkeypatch, "relu6", "hardtanh")


@mutant("any bound is taken for one at zero", "activations_before_norm")
def clamp(monkeypatch):
    as_homogeneous(monkeypatch, "clamp")


@mutant("softmax lets a scale through", "pre_norm_encoder_layer", "norm_after_sublayer")
def softmax(monkeypatch):
    def wrong(d, value, axis):
        term = d.single(value)
        return Value(value.shape, (Term((), term.vary, term.taint),) if term else constant().terms, True)

    monkeypatch.setattr(reductions, "softmax", wrong)


@mutant("softmax deletes what varies along its axis", "rotated_key_bias")
def softmax_deletes(monkeypatch):
    right = reductions.softmax

    def wrong(d, value, axis):
        kept = [t for t in value.terms if len(t.vary) == value.ndim] or list(value.terms)
        return right(d, Value(value.shape, tuple(kept[:1])), axis)

    monkeypatch.setattr(reductions, "softmax", wrong)


@mutant("a normalization sees the first addend only", "layer_norm_mlp", "low_rank_merged")
def first_addend(monkeypatch):
    right = reductions.normalize
    monkeypatch.setattr(
        reductions, "normalize", lambda d, v, axes, centred: right(d, Value(v.shape, v.terms[:1]), axes, centred)
    )


@mutant("RMSNorm is taken to centre", "rms_norm_does_not_centre")
def rms_norm(monkeypatch):
    right = reductions.normalize
    monkeypatch.setattr(reductions, "normalize", lambda d, v, axes, centred: right(d, v, axes, True))


@mutant("a normalization works element by element", "query_key_norm_per_head", "group_norm")
def no_uniform(monkeypatch):
    def wrong(d, value, axes, centred):
        term = d.single(reductions._centred(d, value, set(axes)) if centred else value)
        return Value(value.shape, (Term((), term.vary, term.taint),) if term else ())

    monkeypatch.setattr(reductions, "normalize", wrong)


@mutant("GroupNorm is taken for InstanceNorm", "group_norm")
def group_norm(monkeypatch):
    def wrong(w, node, x, gain=None, bias=None, *_):
        value = w.value(x)
        out = reductions.normalize(w.degrees, value, range(2, value.ndim), centred=True)
        return rules_reduction._with_extras(w, node, reductions.affine(w.degrees, out, w.value(gain), w.value(bias), 1))

    monkeypatch.setitem(RULES, "native_group_norm", wrong)
    monkeypatch.setitem(
        RULES, "group_norm", lambda w, node, x, groups, gain=None, bias=None, *_: wrong(w, node, x, gain, bias)
    )


@mutant("any mean subtraction deletes a shift", "layer_norm_mlp", "centred_by_hand")
def shifts(monkeypatch):
    monkeypatch.setattr(
        reductions,
        "_centred",
        lambda d, value, over: Value(value.shape, tuple(t for t in value.terms if len(t.vary) > 1)),
    )


@mutant("batch norm in eval mode is read as training", "frozen_batch_norm")
def eval_mode(monkeypatch):
    right = rules_reduction.batch_norm

    def wrong(w, node, x, gain, bias, *rest, **named):
        value = w.value(x)
        out = reductions.normalize(w.degrees, value, [0, *range(2, value.ndim)], centred=True)
        out = reductions.affine(w.degrees, out, w.value(gain), w.value(bias), 1)
        return rules_reduction._with_extras(w, node, out)

    for name, rule in list(RULES.items()):
        if rule is right:
            monkeypatch.setitem(RULES, name, wrong)


@mutant("a padded convolution keeps a shift constant", "padded_shift")
def padding(monkeypatch):
    right = reductions.convolve
    monkeypatch.setattr(
        reductions,
        "convolve",
        lambda d, x, weight, groups, shape, transposed, padded: right(d, x, weight, groups, shape, transposed, False),
    )


@mutant("a padded pool keeps a shift constant", "padded_pool_before_norm")
def pool(monkeypatch):
    right = rules_reduction.mean_pool

    def wrong(w, node, x, size, stride=None, *_, **__):
        return right(w, node, x, size)

    monkeypatch.setitem(RULES, "avg_pool2d", wrong)


@mutant("a detached copy is taken for the value", "detached_norm")
def detach(monkeypatch):
    for name in ("detach", "detach_copy"):
        monkeypatch.setitem(RULES, name, rules_elementwise.same)


@mutant("any constant that is added is taken for an eps", "constant_before_norm")
def eps(monkeypatch):
    monkeypatch.setattr(rules_elementwise, "is_eps", lambda w, node, value, number: isinstance(number, float))


@mutant("a quotient does not divide", "detached_norm", "weights_normalized_by_the_optimizer")
def divide(monkeypatch):
    monkeypatch.setattr(
        Degrees, "divide", lambda d, x, y, shape: Value(tuple(shape), d.broadcast(d.homogeneous(x), shape))
    )


@mutant("a square root keeps the degree", "constant_before_norm")
def root(monkeypatch):
    monkeypatch.setitem(RULES, "sqrt", rules_elementwise.homogeneous)
    monkeypatch.setitem(RULES, "rsqrt", rules_elementwise.reciprocal)


@mutant("a sum takes the first side's degree", "branches_before_one_norm", "residual_pre_activation")
def add(monkeypatch):
    right = Degrees.add

    def wrong(d, values, shape):
        first = next((v for v in values if v.terms), values[0])
        return right(d, [first], shape)

    monkeypatch.setattr(Degrees, "add", wrong)


@mutant("a slope of PReLU is free", "activations_before_norm")
def slope(monkeypatch):
    for name in ("prelu", "_prelu_kernel"):
        monkeypatch.setitem(RULES, name, lambda w, node, x, slope: w.degrees.homogeneous(w.value(x)))


@mutant("a sum over channels of different scale is allowed", "two_linears_then_norm", "fused_qkv_normalized")
def contraction(monkeypatch):
    right = Degrees.summed

    def wrong(d, term, axes, all_vary):
        degree, _ = right(d, Term(term.degree, frozenset(), term.taint), axes, frozenset({-1}))
        return degree, ()

    monkeypatch.setattr(Degrees, "summed", wrong)


@mutant("a gate by data counts as a constant", "similarity_in_the_graph", "squeeze_excite")
def product(monkeypatch):
    right = Degrees.multiply

    def wrong(d, x, y, shape, absorb=False):
        plain = Value(y.shape, tuple(Term((), t.vary, t.taint) for t in y.terms), y.nonnegative)
        return right(d, x, plain, shape, absorb)

    monkeypatch.setattr(Degrees, "multiply", wrong)


@mutant("dropout keeps a bias the same everywhere", "dropout_before_norm")
def dropout(monkeypatch):
    for name in ("dropout", "native_dropout"):
        right = RULES[name]
        monkeypatch.setitem(RULES, name, lambda w, node, x, p, train, right=right: right(w, node, x, 0.0, train))


@mutant("a mean over channels is taken for one over places", "centred_by_hand")
def mean_axes(monkeypatch):
    right = rules_elementwise._mean_axes

    def wrong(w, x, y):
        return None if right(w, x, y) is None else [1]

    monkeypatch.setattr(rules_elementwise, "_mean_axes", wrong)


@mutant("recurrent cells let a scale through", "recurrent")
def recurrent(monkeypatch):
    def wrong(w, node, x, state, weights, *_):
        value = w.value(x)
        taint = value.taint
        for entry in weights:
            taint |= w.value(entry).taint
        return [None if s is None else constant(s) if i else Value(s, (Term((), frozenset(range(len(s))), taint),))
                for i, s in enumerate(w.shapes(node))]  # fmt: skip

    for name in ("lstm", "gru"):
        monkeypatch.setitem(RULES, name, wrong)
