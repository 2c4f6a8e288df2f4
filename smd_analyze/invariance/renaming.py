"""One word for what frameworks and torch's own generations call differently, to compare names by."""

from __future__ import annotations

import re

from smd_analyze.invariance.modules import split

LEAVES = {
    "kernel": "weight", "embedding": "weight", "embeddings": "weight", "scale": "weight", "gamma": "weight",
    "w": "weight", "beta": "bias", "b": "bias",
}  # fmt: skip
PARAMETRIZED = (
    (re.compile(r"\.parametrizations\.(\w+)\.original0$"), r".\1_g"),  # weight_norm: magnitude and direction
    (re.compile(r"\.parametrizations\.(\w+)\.original1$"), r".\1_v"),
    (re.compile(r"\.parametrizations\.(\w+)\.original$"), r".\1_orig"),  # spectral_norm
    (re.compile(r"(^|\.)in_proj_(weight|bias)$"), r"\1in_proj.\2"),  # nn.MultiheadAttention
)
WRAPPERS = re.compile(r"(?:^|(?<=\.))(?:params|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")


def canonical(name: str) -> str:
    """The name in torch's words: dots, lower case, numbers as words of their own, weight and bias, no wrappers.

    `params/layers_0/Dense_1/kernel` and `layers.0.dense.1.weight` are one.
    """
    name = name.replace("/", ".")
    name = WRAPPERS.sub("", re.sub(r":\d+$", "", name))
    for pattern, plain in PARAMETRIZED:
        name = pattern.sub(plain, name)
    path, leaf = split(name)
    words = re.sub(r"_(\d+)(?=\.|$)", r".\1", path).lower()
    return ".".join(w for w in (words, LEAVES.get(leaf, leaf)) if w)
