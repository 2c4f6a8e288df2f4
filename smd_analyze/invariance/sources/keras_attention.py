"""Keras' layers with weights of several parts: attention, einsum, recurrent cells; names with a path (query/kernel)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from string import ascii_letters
from typing import Any

import torch
import torch.nn.functional as F

from smd_analyze.errors import UsageError

RECURRENT = ("LSTM", "GRU", "SimpleRNN", "CuDNNLSTM", "CuDNNGRU", "Bidirectional")
NESTED = ("MultiHeadAttention", *RECURRENT)
"""Classes whose variables lie in layers of their own."""


def attention(self: Any, inputs: Sequence[torch.Tensor], words: Sequence[str]) -> torch.Tensor:
    """MultiHeadAttention over the axis before the last; `words` are the names of its arguments, "" by position."""
    config = self.config
    if config.get("attention_axes") not in (None, [1], (1,), 1) or inputs[0].ndim != 3:
        raise UsageError(f"{self.where}: it attends over several axes; give the model with --model")
    order = iter(("query", "value", "key", "query_mask", "value_mask", "key_mask", "attention_mask"))
    given = {word or next(order): x for word, x in zip(words, inputs, strict=True)}
    query, value = given["query"], given.get("value", given["query"])
    key = given.get("key", value)

    def projected(name: str, x: torch.Tensor) -> torch.Tensor:
        out = torch.einsum("bti,ihd->bhtd", x, self.need(f"{name}_kernel"))
        bias = self.get(f"{name}_bias")
        return out if bias is None else out + bias.unsqueeze(1)

    q, k, v = projected("query", query), projected("key", key), projected("value", value)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2))
    mask = given.get("attention_mask")
    if mask is not None:
        mask = mask.bool()
        scores = scores.masked_fill(~(mask.unsqueeze(1) if mask.ndim == 3 else mask), float("-inf"))
    weights = F.dropout(torch.softmax(scores, -1), 0.5, bool(config.get("dropout")))
    mixed = torch.matmul(weights, v)  # batch, heads, places, size
    out = torch.einsum("bhtd,hdo->bto", mixed, self.need("attention_output_kernel"))
    bias = self.get("attention_output_bias")
    return out if bias is None else out + bias


def einsum(self: Any, x: torch.Tensor) -> torch.Tensor:
    """EinsumDense."""
    equation = str(self.config["equation"]).replace(" ", "")
    if "..." in equation:
        inside, _, out = equation.partition("->")
        first, _, second = inside.partition(",")
        spare = [c for c in ascii_letters if c not in equation]
        batch = "".join(spare[: x.ndim - len(first.replace("...", ""))])
        equation = f"{first.replace('...', batch)},{second}->{out.replace('...', batch)}"
    found = torch.einsum(equation, x, self.need("weight") if self.get("weight") is not None else self.need("kernel"))
    bias = self.get("bias")
    return self.act(found if bias is None else found + bias)


def unit_norm(self: Any, x: torch.Tensor) -> torch.Tensor:
    """UnitNormalization."""
    axis = self.config.get("axis", -1)
    axes = [int(a) for a in axis] if isinstance(axis, list | tuple) else [int(axis)]
    return x * torch.rsqrt((x * x).sum(axes, True) + 1e-12)


def recurrent(self: Any, x: torch.Tensor) -> torch.Tensor:
    """A recurrent cell: its gates let no scale through, so only the shape of the result matters."""
    config: Mapping[str, Any] = self.config
    sides = 1
    if self.kind == "Bidirectional":
        sides = 2 if config.get("merge_mode", "concat") == "concat" else 1
        config = config["layer"]["config"]
    if config.get("return_state"):
        raise UsageError(f"{self.where}: it returns its state, too; give the model with --model")
    shape = [sides * int(config["units"])]
    shape = [x.shape[1], *shape] if config.get("return_sequences") else shape
    return mixed(x, [p for p in self.parameters() if p.numel()], shape)


def mixed(x: torch.Tensor, weights: Sequence[torch.Tensor], shape: Sequence[int]) -> torch.Tensor:
    """A tensor (batch, *shape) of which every number may depend on all of the inputs, and which nothing deletes.

    It varies along every axis: else a normalization behind it would delete it, and what is before it look dead.
    """
    total = torch.exp(x.float().flatten(1).sum(1)) if x.ndim > 1 else torch.exp(x.float())
    for weight in weights:
        total = total * torch.exp(weight.sum())
    count = max(torch.Size(shape).numel(), 1)
    pattern = torch.linspace(1.0, 2.0, max(count, 2), device=x.device)[:count].reshape(tuple(shape))
    return total.reshape(-1, *(1 for _ in shape)) * pattern


WITH_PARTS: dict[str, Callable[..., torch.Tensor]] = {
    "EinsumDense": einsum, "UnitNormalization": unit_norm, **dict.fromkeys(RECURRENT, recurrent),
}  # fmt: skip
