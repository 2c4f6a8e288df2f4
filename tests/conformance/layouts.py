"""Is the output unit the right axis? By the convention of the library that wrote, and by the bias beside a matrix.

GPT-2's Conv1D is (in, out): c_attn makes three of one, so its shape decides for all of them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from smd_analyze.records.run import Checkpoint, LazyTensor

OUT_FIRST, OUT_LAST = {2: 0, 4: 0}, {2: -1, 4: -1}
CONVENTIONS: tuple[tuple[tuple[str, ...], Mapping[int, int]], ...] = (
    (("equinox", "mlx", "mindspore", "mxnet"), OUT_FIRST),
    (("tensorflow", "keras", "tf_keras", "jax", "flax"), OUT_LAST),
    (("paddle", "paddlepaddle"), {2: -1, 4: 0}),
    (("torch", "transformers", "lightning", "mmengine", "timm", "ultralytics", "deepspeed", "accelerate"), OUT_FIRST),
    (("megatron_core", "megatron", "onnx", "tinygrad", "gguf", "caffe", "chainer"), OUT_FIRST),
)
TABLES = re.compile(r"(emb|wte|wpe|tok|pos_)", re.IGNORECASE)
CONV1D = re.compile(r"(^|\.)c_(attn|proj|fc)\.weight$")
KERNEL = re.compile(r"(^|[./_])(weight|kernel)(:0)?$")


@dataclass
class LayoutsOutcome:
    """How many output axes are right, and which are not."""

    right: int = 0
    wrong: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)


def compare_layouts(
    checkpoint: Checkpoint, libraries: Iterable[str], told: Mapping[str, int] = MappingProxyType({})
) -> LayoutsOutcome:
    """Kernels of convolutions and dense layers; embeddings have no output unit and are passed over.

    `told` is what the truth says: name as it was read → output axis; it is believed before any convention.
    """
    out = LayoutsOutcome()
    convention = convention_of({*libraries}) or convention_of({checkpoint.framework.split()[-1]}) or {}
    fused = [t.shape for n, t in checkpoint.parameters.items() if n.endswith("c_attn.weight")]
    transposed = bool(fused) and all(len(s) == 2 and s[1] == 3 * s[0] for s in fused)
    for name, tensor in checkpoint.parameters.items():
        axis = told[name] if name in told else axis_by_bias(name, tensor, checkpoint.parameters)
        if axis is None and KERNEL.search(name) and not TABLES.search(name):
            axis = -1 if transposed and CONV1D.search(name) else convention.get(len(tensor.shape))
        if axis is None:
            continue
        axis %= len(tensor.shape)
        if tensor.layout is None or "O" not in tensor.layout:
            out.unknown.append(f"{name} {list(tensor.shape)}: layout {tensor.layout}, its output axis is {axis}")
        elif len(tensor.layout) != len(tensor.shape) or tensor.layout[axis] != "O":  # depthwise kernels have two
            out.wrong.append(f"{name} {list(tensor.shape)}: layout {tensor.layout}, its output axis is {axis}")
        else:
            out.right += 1
    return out


def convention_of(libraries: set[str]) -> Mapping[int, int] | None:
    """Number of axes → output axis, for the library that made the model."""
    return next((axes for names, axes in CONVENTIONS if libraries & set(names)), None)


def axis_by_bias(name: str, tensor: LazyTensor, parameters: Mapping[str, LazyTensor]) -> int | None:
    """The one axis that is as long as the bias of the same layer; None if no or both axes are."""
    stem = KERNEL.sub("", name)
    if len(tensor.shape) != 2 or stem == name:
        return None
    for between in ("/", ".", "_"):
        bias = parameters.get(f"{stem}{between}bias") or parameters.get(f"{stem}{between}bias:0")
        if bias is not None and len(bias.shape) == 1:
            axes = [i for i, n in enumerate(tensor.shape) if n == bias.shape[0]]
            return axes[0] if len(axes) == 1 else None
    return None
