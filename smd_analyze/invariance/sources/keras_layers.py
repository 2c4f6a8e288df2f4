"""Keras' layers as torch modules that compute the same from tensors with the channels last.

Only what matters to scales is kept: kernels, sums, normalizations, activations; numbers of dropout, padding values and
the like are not. A class that is not here is Opaque: whatever goes into it may not change at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.keras_attention import NESTED, WITH_PARTS, attention, mixed

Config = Mapping[str, Any]
Shapes = Mapping[str, tuple[int, ...]]
IDENTITY = ("ActivityRegularization", "InputLayer", "Identity", "Masking")
RANDOM = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "GaussianDropout", "AlphaDropout",
          "RandomFlip", "RandomRotation", "RandomCrop", "RandomZoom", "RandomTranslation")  # fmt: skip
"""Products with random numbers: the scale passes, but nothing that was constant stays so."""
ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x, "relu": F.relu, "relu6": F.relu6, "elu": F.elu, "selu": F.selu, "gelu": F.gelu,
    "silu": F.silu, "swish": F.silu, "sigmoid": torch.sigmoid, "hard_sigmoid": F.hardsigmoid, "tanh": torch.tanh,
    "softmax": lambda x: F.softmax(x, -1), "log_softmax": lambda x: F.log_softmax(x, -1), "softplus": F.softplus,
    "softsign": F.softsign, "leaky_relu": F.leaky_relu, "mish": F.mish, "exponential": torch.exp,
    "hard_swish": F.hardswish, "hard_silu": F.hardswish,
}  # fmt: skip
MERGES: dict[str, Callable[[Sequence[torch.Tensor], Config], torch.Tensor]] = {
    "Add": lambda x, c: sum(x[1:], x[0]), "Average": lambda x, c: sum(x[1:], x[0]) / len(x),
    "Subtract": lambda x, c: x[0] - x[1], "Multiply": lambda x, c: _product(x),
    "Maximum": lambda x, c: torch.stack(list(x)).amax(0), "Minimum": lambda x, c: torch.stack(list(x)).amin(0),
    "Concatenate": lambda x, c: torch.cat(list(x), c.get("axis", -1)),
}  # fmt: skip
CONVS = {f"Conv{n}D": n for n in (1, 2, 3)} | {f"Convolution{n}D": n for n in (1, 2, 3)}
TURNED = {f"Conv{n}DTranspose": n for n in (1, 2, 3)}
DEPTHWISE = {f"DepthwiseConv{n}D": n for n in (1, 2)}
SEPARABLE = {f"SeparableConv{n}D": n for n in (1, 2)}
POOLS = {f"{kind}Pooling{n}D": (kind, n) for kind in ("Max", "Average") for n in (1, 2, 3)}
GLOBALS = {f"Global{kind}Pooling{n}D": kind for kind in ("Max", "Average") for n in (1, 2, 3)}


def _product(x: Sequence[torch.Tensor]) -> torch.Tensor:
    out = x[0]
    for other in x[1:]:
        out = out * other
    return out


def activation(told: Any, where: str) -> Callable[[torch.Tensor], torch.Tensor]:
    """The function of an activation's name; UsageError for one that is not known."""
    name = told if isinstance(told, str) else "linear" if told is None else str((told or {}).get("config", told))
    owned = isinstance(told, dict) and ">" in str(told.get("registered_name"))
    if name not in ACTIVATIONS or owned:
        raise UsageError(f"{where}: its activation {name!r} is not known; give the model with --model")
    return ACTIVATIONS[name]


class Layer(nn.Module):
    """One layer. `held` maps Keras' names of its variables to (this module's name, order of axes or None)."""

    def __init__(self, kind: str, config: Config, shapes: Shapes, where: str) -> None:
        super().__init__()
        self.kind, self.config, self.where = kind, config, where
        self.held: dict[str, tuple[str, tuple[int, ...] | None]] = {}
        told = config.get("activation") if kind != "Activation" else config.get("activation", "linear")
        self.act = activation(told if kind not in NESTED else None, where)
        if config.get("data_format") == "channels_first":
            raise UsageError(f"{where}: it has the channels first; give the model with --model")
        for name, shape in shapes.items():
            if not name.startswith("moving"):
                self.hold(name, shape)

    def hold(self, told: str, shape: tuple[int, ...]) -> None:
        """Register a variable: kernels of convolutions and matrices in torch's order of axes."""
        name = told
        order: tuple[int, ...] | None = None
        n = len(shape)
        if (
            name in ("kernel", "pointwise_kernel")
            and self.kind in (*CONVS, *SEPARABLE)
            or name == "kernel"
            and self.kind in TURNED
        ):
            order = (n - 1, n - 2, *range(n - 2))
        elif name == "kernel" and self.kind == "Dense":
            order = (1, 0)
        title = {"kernel": "weight", "gamma": "weight", "scale": "weight", "beta": "bias", "embeddings": "weight"}
        own = title.get(name, name).replace("/", "_")
        self.register_parameter(own, nn.Parameter(torch.ones([shape[i] for i in order] if order else list(shape))))
        self.held[told] = own, order

    def get(self, name: str) -> torch.Tensor | None:
        """A variable, None if the layer has none of that name."""
        found = getattr(self, name, None)
        return found if isinstance(found, torch.Tensor) else None

    def need(self, name: str) -> torch.Tensor:
        """A variable; UsageError if the run has none of that name for the layer."""
        found = self.get(name)
        if found is None:
            raise UsageError(f"{self.where}: the run holds no {name} of it; give the model with --model")
        return found

    def forward(self, *inputs: torch.Tensor, words: Sequence[str] = ()) -> torch.Tensor:
        """Tensors with the channels last → the same. `words`: names of the arguments, "" by position."""
        kind, config = self.kind, self.config
        if kind == "MultiHeadAttention":
            return attention(self, inputs, words or [""] * len(inputs))
        if kind in MERGES:
            return MERGES[kind](inputs, config)
        x = inputs[0]
        if kind in IDENTITY:
            return x
        if kind in RANDOM:
            return F.dropout(x, 0.5, True) if x.is_floating_point() and config.get("rate", 1) else x
        if kind in (*CONVS, *TURNED, *DEPTHWISE, *SEPARABLE):
            return self.act(self.convolved(x))
        if kind in POOLS:
            return self.pooled(x)
        if kind in GLOBALS:
            axes, keep = tuple(range(1, x.ndim - 1)), bool(config.get("keepdims"))
            return x.amax(axes, keep) if GLOBALS[kind] == "Max" else x.mean(axes, keep)
        return OTHERS[kind](self, x)

    def convolved(self, x: torch.Tensor) -> torch.Tensor:
        """A convolution of any kind with its bias."""
        config, n = self.config, x.ndim - 2
        run: Any
        x = first(x)
        stride, spread = listed(config.get("strides", 1), n), listed(config.get("dilation_rate", 1), n)
        bias = self.get("bias")
        if self.kind in TURNED:
            kernel = self.need("weight")
            run = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)[n - 1]
            wanted = [
                int(s * size) if config.get("padding") == "same" else int((size - 1) * s + max(k, s))
                for size, s, k in zip(x.shape[2:], stride, kernel.shape[2:], strict=True)
            ]
            return last(fitted(run(x, kernel, bias, stride), wanted))
        run = (F.conv1d, F.conv2d, F.conv3d)[n - 1]
        depth = self.get("depthwise_kernel") if self.kind in SEPARABLE else None
        if self.kind in DEPTHWISE:
            depth = self.get("depthwise_kernel") if self.get("depthwise_kernel") is not None else self.get("weight")
        if depth is not None:  # (…, channels, multiplier)
            turned = depth.permute(n, n + 1, *range(n)).reshape(
                depth.shape[n] * depth.shape[n + 1], 1, *depth.shape[:n]
            )
            x = padded(x, turned.shape[2:], stride, spread, config)
            x = run(x, turned, bias if self.kind in DEPTHWISE else None, stride, 0, spread, depth.shape[n])
            return last(run(x, self.need("pointwise_kernel"), bias) if self.kind in SEPARABLE else x)
        kernel = self.need("weight")
        x = padded(x, kernel.shape[2:], stride, spread, config)
        return last(run(x, kernel, bias, stride, 0, spread, int(config.get("groups") or 1)))

    def pooled(self, x: torch.Tensor) -> torch.Tensor:
        """Maxima or means over windows."""
        kind, n = POOLS[self.kind]
        size = listed(self.config.get("pool_size", 2), n)
        stride = listed(self.config.get("strides") or size, n)
        x = padded(first(x), size, stride, [1] * n, self.config)
        run = {"Max": (F.max_pool1d, F.max_pool2d, F.max_pool3d), "Average": (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)}
        return last(run[kind][n - 1](x, size, stride))


class Opaque(nn.Module):
    """A layer of which only the result's shape (without the batch) is known: no scale of its inputs passes through."""

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, *inputs: torch.Tensor, words: Sequence[str] = ()) -> torch.Tensor:
        """A tensor that every number of the inputs may change."""
        others = [x.float() if not x.is_floating_point() else x for x in inputs[1:]]
        return mixed(inputs[0], others, self.shape)


def first(x: torch.Tensor) -> torch.Tensor:
    """Channels to the front."""
    return x.movedim(-1, 1)


def last(x: torch.Tensor) -> torch.Tensor:
    """Channels to the end."""
    return x.movedim(1, -1)


def listed(value: Any, n: int) -> list[int]:
    """A number for each of n axes."""
    return [int(v) for v in value] if isinstance(value, list | tuple) else [int(value)] * n


def padded(
    x: torch.Tensor, size: Sequence[int], stride: Sequence[int], spread: Sequence[int], config: Config
) -> torch.Tensor:
    """Zeros around, as padding "same" (and "causal") asks for."""
    if config.get("padding", "valid") == "valid":
        return x
    pads: list[int] = []
    for n, k, s, d in reversed(list(zip(x.shape[2:], size, stride, spread, strict=True))):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        left = total if config.get("padding") == "causal" else total // 2
        pads += [left, total - left]
    return F.pad(x, pads) if any(pads) else x


def fitted(x: torch.Tensor, wanted: Sequence[int]) -> torch.Tensor:
    """Cut or padded at the ends to the wanted sizes."""
    for axis, size in enumerate(wanted, start=2):
        x = x.narrow(axis, 0, min(size, x.shape[axis]))
    pads = [p for axis in reversed(range(2, x.ndim)) for p in (0, wanted[axis - 2] - x.shape[axis])]
    return F.pad(x, pads) if any(pads) else x


def _batch_norm(self: Layer, x: torch.Tensor) -> torch.Tensor:
    axis = self.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) else axis
    if self.config.get("trainable", True) is False:  # frozen: the saved statistics are constants
        scale, shift = self.get("weight"), self.get("bias")
        constants = torch.linspace(1.0, 2.0, x.shape[axis], device=x.device)
        x = x.movedim(axis, -1)
        x = (x * scale if scale is not None else x) + constants
        return (x if shift is None else x + shift).movedim(-1, axis)
    if self.config.get("renorm"):
        raise UsageError(f"{self.where}: batch renormalization uses saved statistics; give the model with --model")
    gain, shift, eps = self.get("weight"), self.get("bias"), self.config.get("epsilon", 1e-3)
    return F.batch_norm(x.movedim(axis, 1), None, None, gain, shift, True, 0.0, eps).movedim(1, axis)


def _layer_norm(self: Layer, x: torch.Tensor) -> torch.Tensor:
    axis = self.config.get("axis", -1)
    axes = [a % x.ndim for a in (axis if isinstance(axis, list) else [axis])]
    if sorted(axes) != list(range(x.ndim - len(axes), x.ndim)):
        raise UsageError(f"{self.where}: it normalizes inner axes; give the model with --model")
    shape = [x.shape[a] for a in sorted(axes)]
    if self.kind == "RMSNormalization":
        return F.rms_norm(x, shape, self.get("weight"), self.config.get("epsilon", 1e-6))
    return F.layer_norm(x, shape, self.get("weight"), self.get("bias"), self.config.get("epsilon", 1e-3))


def _group_norm(self: Layer, x: torch.Tensor) -> torch.Tensor:
    groups = int(self.config.get("groups", 32))
    groups = x.shape[-1] if groups == -1 else groups
    return last(F.group_norm(first(x), groups, self.get("weight"), self.get("bias"), self.config.get("epsilon", 1e-3)))


def _reshape(self: Layer, x: torch.Tensor) -> torch.Tensor:
    return x.reshape(x.shape[0], *[int(n) for n in self.config["target_shape"]])


def _dense(self: Layer, x: torch.Tensor) -> torch.Tensor:
    return self.act(F.linear(x, self.need("weight"), self.get("bias")))


def _leaky(self: Layer, x: torch.Tensor) -> torch.Tensor:
    return F.leaky_relu(x, float(self.config.get("negative_slope", self.config.get("alpha", 0.3)) or 0.0))


def _relu(self: Layer, x: torch.Tensor) -> torch.Tensor:
    top, slope = self.config.get("max_value"), self.config.get("negative_slope")
    if top:
        return F.hardtanh(x, 0.0, float(top))
    return F.leaky_relu(x, float(slope)) if slope else F.relu(x)


def _pad(self: Layer, x: torch.Tensor) -> torch.Tensor:
    told = self.config.get("padding", 1)
    pairs = told if isinstance(told, list) else [told] * (x.ndim - 2)
    pairs = [pairs] if x.ndim == 3 and len(pairs) == 2 and not isinstance(pairs[0], list) else pairs
    flat = [n for pair in reversed(pairs) for n in (pair if isinstance(pair, list) else [pair, pair])]
    return last(F.pad(first(x), flat))


def _crop(self: Layer, x: torch.Tensor) -> torch.Tensor:
    told = self.config.get("cropping", 1)
    for axis, pair in enumerate(told if isinstance(told, list) else [told] * (x.ndim - 2), start=1):
        before, after = pair if isinstance(pair, list) else (pair, pair)
        x = x.narrow(axis, before, x.shape[axis] - before - after)
    return x


def _grow(self: Layer, x: torch.Tensor) -> torch.Tensor:
    for axis, times in enumerate(listed(self.config.get("size", 2), x.ndim - 2), start=1):
        x = x.repeat_interleave(times, axis)
    return x


OTHERS: dict[str, Callable[[Layer, torch.Tensor], torch.Tensor]] = {
    "Dense": _dense, "Activation": lambda self, x: self.act(x), "ReLU": _relu, "LeakyReLU": _leaky,
    "ELU": lambda self, x: F.elu(x), "Softmax": lambda self, x: F.softmax(x, -1),
    "PReLU": lambda self, x: F.relu(x) - self.need("alpha") * F.relu(-x),
    "Flatten": lambda self, x: x.reshape(x.shape[0], prod(x.shape[1:])), "Reshape": _reshape,
    "Permute": lambda self, x: x.permute(0, *self.config["dims"]), "BatchNormalization": _batch_norm,
    "BatchNormalizationV1": _batch_norm, "SyncBatchNormalization": _batch_norm, "LayerNormalization": _layer_norm,
    "RMSNormalization": _layer_norm, "GroupNormalization": _group_norm, "ZeroPadding1D": _pad, "ZeroPadding2D": _pad,
    "ZeroPadding3D": _pad, "Cropping1D": _crop, "Cropping2D": _crop, "UpSampling1D": _grow, "UpSampling2D": _grow,
    "Embedding": lambda self, x: F.embedding(x, self.need("weight")),
    "GaussianNoise": lambda self, x: x + torch.randn_like(x), **WITH_PARTS,
    "Rescaling": lambda self, x: x * float(self.config.get("scale", 1.0)) + float(self.config.get("offset", 0.0)),
}  # fmt: skip
KNOWN = (
    *IDENTITY,
    *RANDOM,
    "MultiHeadAttention",
    *MERGES,
    *CONVS,
    *TURNED,
    *DEPTHWISE,
    *SEPARABLE,
    *POOLS,
    *GLOBALS,
    *OTHERS,
)
