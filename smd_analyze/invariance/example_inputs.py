"""Example inputs guessed from the model: from its `config`, else from its first layer. Tracing tells which one fits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

IMAGE_SIZES = (224, 32, 64, 28, 96, 128, 256, 299, 84)
SIGNAL_LENGTHS = (1024, 128, 16000, 64)
BATCH, TOKENS, STEPS = 4, 8, 6

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def candidates(model: nn.Module) -> Iterator[Inputs]:
    """Inputs (positional, keyword) to try in turn; nothing if the model gives no hint. Only shapes and types matter."""
    yield from _from_config(model)
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            yield (_tokens(module.num_embeddings),), {}
        elif isinstance(module, nn.Conv2d):
            for size in IMAGE_SIZES:
                yield (torch.zeros(BATCH, module.in_channels, size, size),), {}
        elif isinstance(module, nn.Conv1d):
            for length in SIGNAL_LENGTHS:
                yield (torch.zeros(BATCH, module.in_channels, length),), {}
        elif isinstance(module, nn.Conv3d):
            for size in (32, 64, 112):
                yield (torch.zeros(BATCH, module.in_channels, 16, size, size),), {}
        elif isinstance(module, nn.Linear):
            yield (torch.zeros(BATCH, module.in_features),), {}
            yield (torch.zeros(BATCH, STEPS, module.in_features),), {}
            side = round(module.in_features**0.5)
            if side * side == module.in_features:
                yield (torch.zeros(BATCH, 1, side, side),), {}
        elif isinstance(module, (nn.LSTM, nn.GRU, nn.RNN)):
            yield (torch.zeros(BATCH, STEPS, module.input_size),), {}
        elif isinstance(module, (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)):
            width = module.linear1.in_features
            yield (torch.zeros(BATCH, STEPS, width),), {}
            yield (torch.zeros(BATCH, STEPS, width), torch.zeros(BATCH, STEPS, width)), {}
        else:
            continue
        return


def _from_config(model: nn.Module) -> Iterator[Inputs]:
    """As Hugging Face models say it: `main_input_name` and the sizes in `config`."""
    config, name = getattr(model, "config", None), getattr(model, "main_input_name", None)
    if config is None or not isinstance(name, str):
        return
    vocabulary = getattr(config, "vocab_size", 0) or 0
    longest = getattr(config, "max_position_embeddings", None) or TOKENS
    if name == "input_ids" and vocabulary:
        tokens = _tokens(vocabulary, min(TOKENS, longest))
        if getattr(config, "is_encoder_decoder", False):
            yield (), {name: tokens, "decoder_input_ids": tokens}
        yield (), {name: tokens}
    if name == "pixel_values":
        size = getattr(config, "image_size", None) or IMAGE_SIZES[0]
        height, width = size if isinstance(size, (tuple, list)) else (size, size)
        yield (), {name: torch.zeros(BATCH, getattr(config, "num_channels", 3), height, width)}
    if name == "input_values":
        yield (), {name: torch.zeros(BATCH, SIGNAL_LENGTHS[-2])}


def _tokens(vocabulary: int, length: int = TOKENS) -> torch.Tensor:
    """Token numbers that cover as much of the vocabulary as fits."""
    return (torch.arange(BATCH * length) % vocabulary).reshape(BATCH, length)
