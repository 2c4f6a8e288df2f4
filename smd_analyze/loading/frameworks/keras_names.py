"""Keras' and TensorFlow's names: which variable of a layer is which, which axis is which, whose slot a state is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from smd_analyze.loading.tensors.places import Place

Shape = tuple[int, ...]
BY_WORD: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"separable_conv", ("depthwise_kernel", "pointwise_kernel", "bias")),
    (r"embedding$", ("embeddings",)),
    (r"(lstm|gru|simple_rnn)(_cell)?$", ("kernel", "recurrent_kernel", "bias")),
    (r"p_?re_?lu$", ("alpha",)),
    (r"rms_normalization$", ("scale",)),
    (r"conv|dense|^_?(query|key|value|output|attention_output)(_dense)?$", ("kernel", "bias")),
)
KNOWN = re.compile(r"normalization|" + "|".join(pattern for pattern, _ in BY_WORD))
"""Words that a layer's class is known by."""
KERNELS = ("kernel", "weights", "pointwise_kernel", "recurrent_kernel")
HEADS = re.compile(r"(^|/)_?(query|key|value)(_dense)?(_\d+)?/(kernel|bias)$")
"""MultiHeadAttention: (in, heads, size) and (heads, size)."""
ADAM = {"m": "exp_avg", "momentum": "exp_avg", "v": "exp_avg_sq", "velocity": "exp_avg_sq", "vhat": "max_exp_avg_sq"}
SLOTS = "|".join((*ADAM, "rms", "velocity_hat"))
SLOT = re.compile(rf"(?:[^/]+/)+?(?:(?P<a>{SLOTS})/(?P<x>.+)|(?P<y>.+)/(?P<b>{SLOTS})|(?P<z>[^/]+)_(?P<c>{SLOTS}))$")


def snake(name: str) -> str:
    """`Conv2DTranspose` → `conv2d_transpose`, as Keras names its layers; numbers at the end are dropped."""
    name = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", name)
    name = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return re.sub(r"_\d+$", "", name)


def variable_names(word: str, shapes: Sequence[Shape], config: Mapping[str, Any] | None) -> list[str]:
    """What the numbered variables of a layer are, in Keras' order; their numbers where that is not sure.

    `word` is the layer's class in snake case (or what stands for it in the file), `config` its configuration if known.
    """
    numbers = [str(i) for i in range(len(shapes))]
    if "batch_normalization" in word or "layer_normalization" in word or "group_normalization" in word:
        names = norm_names(word, len(shapes), config)
        return names if len(names) == len(shapes) else numbers
    for pattern, names in BY_WORD:
        if re.search(pattern, word):
            fits = len(shapes) <= len(names) and (
                len(shapes) == len(names) or names[1:] != ("bias",) or len(shapes) == 1
            )
            if "kernel" in names[0] and (not shapes or len(shapes[0]) < 2):
                fits = False
            return list(names[: len(shapes)]) if fits else numbers
    if len(shapes) == 4 and len(set(shapes)) == 1 and len(shapes[0]) == 1:
        return ["gamma", "beta", "moving_mean", "moving_variance"]
    if len(shapes) == 2 and len(shapes[0]) > 1 and shapes[1] == shapes[0][-1:]:
        return ["kernel", "bias"]
    return numbers


def norm_names(word: str, count: int, config: Mapping[str, Any] | None) -> list[str]:
    """gamma if it scales, beta if it centres, then a batch normalization's statistics."""
    ends = ["moving_mean", "moving_variance"] if "batch" in word else []
    if config is not None and ("scale" in config or "center" in config):
        scales, centres = config.get("scale", True), config.get("center", True)
        return (["gamma"] if scales else []) + (["beta"] if centres else []) + ends
    return [*{0: [], 1: ["0"], 2: ["gamma", "beta"]}.get(count - len(ends), []), *ends]


def with_axes(
    places: Mapping[str, Place], classes: Mapping[str, str], equations: Mapping[str, str] | None = None
) -> dict[str, Place]:
    """The same places with their layouts. `classes`: layer → class, `equations`: layer → einsum, where known."""
    out: dict[str, Place] = {}
    for name, place in places.items():
        layer = name.rpartition("/")[0]
        short = layer.rpartition("/")[2]
        kind = classes.get(layer) or classes.get(short, "")
        equation = (equations or {}).get(short, "")
        bias = places.get(f"{layer}/bias")
        layout = layout_of(name, len(place.shape), kind, equation, len(bias.shape) if bias else 0)
        if layout in ("HWIO", "DHWIO") and bias is not None and bias.shape == place.shape[-2:-1] != place.shape[-1:]:
            layout = layout[:-2] + "OI"  # a transposed kernel of a class that the file does not name
        out[name] = replace(place, layout=layout)
    return out


def layout_of(name: str, axes: int, kind: str = "", equation: str = "", bias_axes: int = 0) -> str | None:
    """Axes as Keras lays them out: the output comes last; a transposed kernel is (…, out, in).

    Axes of one letter side by side are one: a depthwise kernel has an output unit for each channel and multiplier, an
    attention's query one for each head and element of it.
    """
    layer, _, leaf = name.rpartition("/")
    leaf = re.sub(r"_\d+$", "", leaf)
    word = snake(kind) if kind else re.sub(r"_\d+$", "", layer.rpartition("/")[2].lower())
    if axes < 2 or "bedding" in word or "bedding" in leaf:
        return None
    space = {3: "W", 4: "HW", 5: "DHW"}.get(axes, "")
    if HEADS.search(name) and axes == (3 if leaf == "kernel" else 2):
        return "IOO"[3 - axes :]
    if leaf == "depthwise_kernel" or (leaf in ("kernel", "weights") and "depthwise" in word and axes > 2):
        return space + "OO"
    if leaf not in KERNELS:
        return None
    if word in ("attention_output", "_output_dense") and axes == 3:
        return "IIO"
    if "einsum" in word or equation:
        return einsum_axes(equation, axes) or (einsum_like(axes, bias_axes) if "einsum" in word else None)
    if axes == 2:
        return "IO"
    if axes == 3 and "conv" not in word:
        return None
    return (space + ("OI" if "transpose" in word else "IO")) if axes <= 5 else None


def einsum_axes(equation: str, axes: int) -> str | None:
    """Axes of the kernel in "abc,cd->abd": an output is what appears on the right; None if it cannot be told."""
    match = re.fullmatch(r"([a-zA-Z.]+),([a-zA-Z]+)->([a-zA-Z.]+)", equation.replace(" ", ""))
    if match is None or len(match[2]) != axes:
        return None
    found = "".join("O" if c in match[3] else "I" for c in match[2])
    return found if re.fullmatch("I*O+I*|O*I+O*", found) and set(found) == {"I", "O"} else None


def einsum_like(axes: int, bias_axes: int) -> str | None:
    """The same without the equation: the bias has the outputs' axes, which come last; a matrix is (in, out)."""
    if 0 < bias_axes < axes:
        return "I" * (axes - bias_axes) + "O" * bias_axes
    return "IO" if axes == 2 else None


def slots(states: Mapping[str, Place], parameters: Mapping[str, Place]) -> dict[str, dict[str, Place]]:
    """Parameter → its state, from names such as Adam/m/conv/kernel, Adam/conv/kernel/m, adam/conv_kernel_velocity.

    Only shapes that agree count. Without a second moment the first is a velocity: Keras' SGD adds it to the weights,
    so it is −η times torch's momentum buffer.
    """
    flat: dict[str, str] = {}
    for name in parameters:
        short = name.replace("/", "_")
        flat[short] = "" if short in flat else name
    found: dict[str, dict[str, Place]] = {}
    for name, place in states.items():
        match = SLOT.match(name)
        if match is None:
            continue
        owner = match["x"] or match["y"] or flat.get(match["z"] or "", "")
        if owner in parameters and parameters[owner].shape == place.shape:
            found.setdefault(owner, {})[match["a"] or match["b"] or match["c"]] = place
    return {owner: named_state(own) for owner, own in found.items()}


def averages(states: Mapping[str, Place], parameters: Mapping[str, Place]) -> dict[str, Place]:
    """Parameter → its moving average (use_ema), from names such as adam/conv_kernel_average."""
    flat = {name.replace("/", "_"): name for name in parameters}
    found: dict[str, Place] = {}
    for name, place in states.items():
        old = re.match(r"[^/]+/average/(.+)$", name)
        owner = flat.get(name.rpartition("/")[2].removesuffix("_average"), "") if name.endswith("_average") else ""
        owner = old[1] if old and old[1] in parameters else owner
        if owner and parameters[owner].shape == place.shape:
            found[owner] = place
    return found


def named_state(own: Mapping[str, Place]) -> dict[str, Place]:
    """One parameter's slots under torch's names where they mean the same."""
    if own.keys() & {"v", "velocity"}:
        return {ADAM[k]: p for k, p in own.items() if k in ADAM}
    if len(own) == 1 and own.keys() <= {"m", "momentum"}:
        return {"velocity": next(iter(own.values()))}
    return {}


def slots_in_order(
    states: Sequence[Place], parameters: Mapping[str, Place], per: int, interleaved: bool
) -> dict[str, list[Place]]:
    """The same for states without names: `per` for each parameter, one after the other or in `per` blocks.

    Nothing unless every shape agrees.
    """
    count = len(parameters)
    if len(states) != per * count:
        return {}
    own = {
        n: [states[i * per + k] if interleaved else states[k * count + i] for k in range(per)]
        for i, n in enumerate(parameters)
    }
    return own if all(p.shape == parameters[n].shape for n, ps in own.items() for p in ps) else {}


def without_output(names: Iterable[str]) -> dict[str, str]:
    """Name → name without TensorFlow's `:0`, unless two would become one."""
    saved = list(names)
    short = [re.sub(r":\d+$", "", n) for n in saved]
    return dict(zip(saved, short if len(set(short)) == len(short) else saved, strict=True))
