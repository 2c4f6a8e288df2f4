"""Example inputs guessed from the model: from its `config`, else from its first layer. Tracing tells which one fits."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from smd_analyze.invariance.config_inputs import BATCH, Inputs, from_config, tokens_of

IMAGE_SIZES = (224, 32, 64, 28, 96, 128, 256, 299, 84)
SIGNAL_LENGTHS = (1024, 128, 16000, 64)
STEPS = 6
FIRST = {
    "Embedding": "weight", "Conv1d": "weight", "Conv2d": "weight", "Conv3d": "weight", "Linear": "weight",
    "LSTM": "weight_ih_l0", "GRU": "weight_ih_l0", "RNN": "weight_ih_l0",
    "TransformerEncoderLayer": "", "TransformerDecoderLayer": "",
}  # fmt: skip
"""Class of a first layer, torch's own or one called so (TorchScript's), → the weight that tells its inputs' width."""


def candidates(model: nn.Module) -> Iterator[Inputs]:
    """Inputs (positional, keyword) to try in turn; nothing if the model gives no hint. Only shapes and types matter."""
    yield from from_config(model)
    for module in model.modules():
        kind = next((k.__name__ for k in type(module).__mro__ if k.__name__ in FIRST), "")
        weight = _inner(module) if kind.startswith("Transformer") else getattr(module, FIRST.get(kind, ""), None)
        if not isinstance(weight, torch.Tensor) or weight.ndim < 2:
            continue
        width = weight.shape[1] * (getattr(module, "groups", 1) if kind.startswith("Conv") else 1)
        if kind == "Embedding":
            yield (tokens_of(weight.shape[0]),), {}
        elif kind == "Conv2d":
            for size in IMAGE_SIZES:
                yield (torch.zeros(BATCH, width, size, size),), {}
        elif kind == "Conv1d":
            for length in SIGNAL_LENGTHS:
                yield (torch.zeros(BATCH, width, length),), {}
        elif kind == "Conv3d":
            for size in (32, 64, 112):
                yield (torch.zeros(BATCH, width, 16, size, size),), {}
        elif kind == "Linear":
            yield (torch.zeros(BATCH, width),), {}
            yield (torch.zeros(BATCH, STEPS, width),), {}
            side = round(width**0.5)
            if side * side == width:
                yield (torch.zeros(BATCH, 1, side, side),), {}
        else:
            yield (torch.zeros(BATCH, STEPS, width),), {}
            if kind.startswith("Transformer"):
                yield (torch.zeros(BATCH, STEPS, width), torch.zeros(BATCH, STEPS, width)), {}
        return


def _inner(module: nn.Module) -> torch.Tensor | None:
    """Weight of the first linear layer in a transformer's layer."""
    return getattr(getattr(module, "linear1", None), "weight", None)
