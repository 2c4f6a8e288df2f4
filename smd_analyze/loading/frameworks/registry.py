"""Which trainer laid a checkpoint out: all are asked; the plain layout is what remains."""

from __future__ import annotations

from functools import cache
from importlib.metadata import entry_points

from smd_analyze.errors import AmbiguousFormat
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks import (
    caffe,
    chainer,
    deepspeed,
    equinox,
    fastai,
    flax,
    gguf,
    huggingface,
    keras,
    lightning,
    megatron,
    mindspore,
    mlx,
    mxnet,
    onnx,
    paddle,
    plain,
    scikit_learn,
    stable_baselines3,
    tensorflow,
    torch_distributed,
    ultralytics,
)
from smd_analyze.loading.frameworks.base import Framework

FRAMEWORKS: tuple[Framework, ...] = (
    huggingface.FRAMEWORK,
    keras.FRAMEWORK,
    tensorflow.FRAMEWORK,
    lightning.FRAMEWORK,
    fastai.FRAMEWORK,
    ultralytics.FRAMEWORK,
    stable_baselines3.FRAMEWORK,
    torch_distributed.FRAMEWORK,
    deepspeed.FRAMEWORK,
    megatron.FRAMEWORK,
    flax.FRAMEWORK,
    mlx.FRAMEWORK,
    chainer.FRAMEWORK,
    paddle.FRAMEWORK,
    mindspore.FRAMEWORK,
    mxnet.FRAMEWORK,
    onnx.FRAMEWORK,
    equinox.FRAMEWORK,
    gguf.FRAMEWORK,
    caffe.FRAMEWORK,
    scikit_learn.FRAMEWORK,
)


@cache
def plugins() -> tuple[Framework, ...]:
    """Frameworks of other packages: entry points `smd_analyze.frameworks`."""
    return tuple(entry.load() for entry in entry_points(group="smd_analyze.frameworks"))


def framework_of(document: Document) -> Framework:
    """The one framework that recognises the document, or the plain one."""
    found = [f for f in (*FRAMEWORKS, *plugins()) if f.matches(document)]
    if len(found) > 1:
        names = " and ".join(f.name for f in found)
        raise AmbiguousFormat(f"{document.path}: laid out like {names}; save weights and optimizer in a plain dict")
    return found[0] if found else plain.FRAMEWORK
