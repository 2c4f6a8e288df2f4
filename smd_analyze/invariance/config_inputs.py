"""Example inputs of Hugging Face models: from `main_input_name`, the forward's arguments and the sizes in `config`.

Only shapes and types matter. Sizes are kept small where the model leaves them open.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

BATCH, TOKENS, FRAMES, SAMPLES = 4, 8, 64, 16000
TEXT = ("text_config", "text_model", "decoder", "llm_config")
VISION = ("vision_config", "encoder")
IMAGE_SIDES = (224, 64, 32, 256, 384, 512)

Inputs = tuple[tuple[Any, ...], dict[str, Any]]


def from_config(model: nn.Module) -> Iterator[Inputs]:
    """Keyword inputs to try in turn; nothing for a model without `config` and `main_input_name`."""
    config, name = getattr(model, "config", None), getattr(model, "main_input_name", None)
    if config is None or not isinstance(name, str):
        return
    accepted = set(inspect.signature(model.forward).parameters)
    tokens = text(config)
    decoder = decoder_text(config) if "decoder_input_ids" in accepted else None
    if name == "input_ids" and tokens is not None:
        both = {name: tokens}
        if "pixel_values" in accepted:  # CLIP and its kin read both
            for image in images(config):
                yield (), both | image
        if decoder is not None:
            yield (), both | {"decoder_input_ids": decoder}
        yield (), both
        return
    for own in media(name, config):
        if decoder is not None:
            yield (), own | {"decoder_input_ids": decoder}
        if name == "pixel_values" and "input_ids" in accepted and tokens is not None:
            yield (), own | {"input_ids": tokens}
        yield (), own


def media(name: str, config: Any) -> Iterator[dict[str, Any]]:
    """What is not text: images, raw sound, spectrograms, series."""
    if name == "pixel_values":
        yield from images(config)
    elif name == "input_values":
        if max_length := number(config, "max_length", "num_mel_bins"):  # a spectrogram, time first
            yield {name: torch.zeros(BATCH, max_length, number(config, "num_mel_bins") or 128)}
        yield {name: torch.zeros(BATCH, SAMPLES)}
    elif name == "input_features":
        bins = number(config, "num_mel_bins", "input_feat_per_channel", "feature_projection_input_dim") or 80
        sources = number(config, "max_source_positions")
        frames = 2 * sources if sources and sources <= 2 * SAMPLES else FRAMES
        yield {name: torch.zeros(BATCH, bins, frames)}
        yield {name: torch.zeros(BATCH, FRAMES, bins)}
    elif name == "past_values":
        length, channels = number(config, "context_length") or FRAMES, number(config, "num_input_channels") or 1
        yield {name: torch.zeros(BATCH, length, channels)}


def images(config: Any) -> Iterator[dict[str, Any]]:
    """One image (or clip) per sample, of the size that the configuration names."""
    own = inner(config, VISION)
    size = value(own, "image_size") or value(own, "input_size")
    sides = [size] if size else IMAGE_SIDES
    channels = number(own, "num_channels", "in_channels", "in_chans") or 3
    frames = number(own, "num_frames")
    for side in sides:
        height, width = side if isinstance(side, (tuple, list)) else (side, side)
        if frames:
            yield {"pixel_values": torch.zeros(BATCH, frames, channels, height, width)}
        yield {"pixel_values": torch.zeros(BATCH, channels, height, width)}


def text(config: Any) -> torch.Tensor | None:
    """Token numbers that cover as much of the vocabulary as fits, within the positions that there are."""
    own = config if number(config, "vocab_size") else inner(config, TEXT)
    vocabulary = number(own, "vocab_size")
    if not vocabulary:
        return None
    longest = number(own, "max_position_embeddings", "n_positions") or TOKENS
    return tokens_of(vocabulary, min(TOKENS, longest))


def decoder_text(config: Any) -> torch.Tensor | None:
    """The same for the decoder."""
    vocabulary = number(inner(config, ("decoder",)), "decoder_vocab_size", "vocab_size")
    return tokens_of(vocabulary, TOKENS) if vocabulary else None


def tokens_of(vocabulary: int, length: int = TOKENS) -> torch.Tensor:
    """Token numbers 0, 1, 2, …, again from 0 beyond the vocabulary."""
    return (torch.arange(BATCH * length) % vocabulary).reshape(BATCH, length)


def inner(config: Any, names: tuple[str, ...]) -> Any:
    """The part of a configuration of several models, or the configuration itself."""
    found = (value(config, name) for name in names)
    return next((part for part in found if part is not None and not isinstance(part, (str, int, float))), config)


def value(config: Any, name: str) -> Any:
    """An entry of a configuration, which may be an object or a mapping; None if it is not there."""
    return config.get(name) if isinstance(config, Mapping) else getattr(config, name, None)


def number(config: Any, *names: str) -> int:
    """The first whole number among the entries; 0 if there is none."""
    found = (value(config, name) for name in names)
    return next((n for n in found if isinstance(n, int) and not isinstance(n, bool) and n > 0), 0)
