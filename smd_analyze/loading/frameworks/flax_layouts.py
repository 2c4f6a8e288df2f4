"""Axes of the weights of Flax and Haiku: output last; attention's kernels have a head's number and size as two axes.

Axes of one letter that stand side by side are one: "IOO" of a query's kernel (in, heads, size) has a unit for each
pair, "IIO" of the output projection (heads, size, out) takes its inputs from both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from smd_analyze.loading.frameworks.layouts import OUT_LAST
from smd_analyze.loading.tensors.places import Place

INWARD = re.compile(r"(q|k|v|qkv|kv|query|key|value)(_?(proj|projection|dense|einsum))?|c_attn|in_proj", re.IGNORECASE)
OUTWARD = re.compile(r"(out|o|output|attn_vec|c)(_?(proj|projection|dense|einsum))?|attention_output|dense_out", re.I)
BIASES = {"kernel": "bias", "w": "b"}


def laid_out(node: Any, module: str = "", parent: Mapping[str, Any] | None = None) -> Any:
    """The same tree of dicts, every tensor with its axes named."""
    if type(node) is not dict:
        return node
    return {
        key: replace(value, layout=layout_of(str(key), value, module, node, parent or {}))
        if type(value) is Place
        else laid_out(value, str(key), node)
        for key, value in node.items()
    }


def layout_of(
    leaf: str, place: Place, module: str, siblings: Mapping[str, Any], around: Mapping[str, Any]
) -> str | None:
    """The axes of one tensor: `siblings` share its module, `around` are the modules beside that one."""
    leaf, axes = leaf.rpartition(".")[2], len(place.shape)
    if axes == 1:
        return "O"
    if leaf in ("bias", "b"):
        kernel = siblings.get("kernel" if leaf == "bias" else "w")
        fits = type(kernel) is Place and kernel.shape[-axes:] == place.shape
        return "O" * axes if fits and axes else None
    if (
        leaf in ("scale", "offset") and place.shape[:-1] == (1,) * (axes - 1) and axes
    ):  # Haiku's BatchNorm: (1, 1, 1, n)
        return "O" * axes
    if leaf == "linear" and axes == 2:  # Gemma's feed-forward output
        return "IO"
    if leaf not in BIASES or axes < 2:
        return None
    found = siblings.get(BIASES[leaf])
    bias = found.shape if type(found) is Place else None
    if leaf == "w" and module.endswith("einsum"):  # Gemma: (heads, size, out), but (heads, in, size)
        return "IIO" if axes == 3 and module.startswith("attn_vec") else None
    if leaf == "w" and module == "post" and axes == 3:  # Praxis' attention output: (out, heads, size)
        return "OII"
    if bias is not None and len(bias) > 1:
        units = len(bias)
        return "I" * (axes - units) + "O" * units if place.shape[-units:] == bias and axes > units else None
    heads = [k for k, v in around.items() if type(v) is dict and INWARD.fullmatch(str(k)) and k != module]
    if axes > 2 and bias is None and INWARD.fullmatch(module) and (heads or axes > 3 or "q" in module.lower()):
        return "I" + "O" * (axes - 1)
    if axes == 3 and OUTWARD.fullmatch(module) and heads:
        return "IIO"
    if bias is not None and place.shape[-1:] != bias:
        turned = axes > 2 and place.shape[-2:-1] == bias  # ConvTranspose(transpose_kernel=True)
        usual = OUT_LAST.get(axes)
        return usual[:-2] + "OI" if turned and usual else None
    return OUT_LAST.get(axes)
