"""Names and shapes → the modules they belong to, and the role of each tensor. No graph, no numbers."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from smd_analyze.records.run import LazyTensor

NORM_WORD = re.compile(r"norm|(?:^|[_\d])(?:bn|gn|ln|rms)\d*(?:$|_)", re.IGNORECASE)
QK_NORM_WORD = re.compile(r"^(?:norm_?(?P<a>[qk])|(?P<b>[qk])(?:uery|ey)?_?(?:layer_?)?(?:norm|ln))$", re.IGNORECASE)
EMBEDDING_WORD = re.compile(r"emb|^wte$|^wpe$|lookup", re.IGNORECASE)
MEANS = ("running_mean", "moving_mean", "_mean", "avg_mean")
VARIANCES = ("running_var", "moving_variance", "_variance", "avg_var")
STATISTICS = (*MEANS, *VARIANCES, "num_batches_tracked")
WEIGHTS = ("weight", "kernel", "w", "embeddings", "embedding", "depthwise_kernel")
GAINS = ("weight", "scale", "gamma")
BIASES = ("bias", "b", "beta")


@dataclass
class Module:
    """The tensors that share a prefix, in the file's order.

    `statistics`: length of its running mean, else 0. `frozen`: when these do not follow the data ("" if they do).
    """

    path: str
    tensors: dict[str, LazyTensor] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    statistics: int = 0
    frozen: str = ""

    @property
    def leaf(self) -> str:
        """Last word of the path: `conv1` of `layer1.0.conv1`."""
        return split(self.path)[1]

    @property
    def parent(self) -> str:
        """Path without its last word."""
        return split(self.path)[0]

    @property
    def weight(self) -> LazyTensor | None:
        """The matrix or kernel (ndim ≥ 2) that is multiplied with the input, if the module has one."""
        found = next((self.tensors[w] for w in WEIGHTS if w in self.tensors), None)
        return found if found is not None and len(found.shape) >= 2 and not self.is_head_norm else None

    @property
    def weight_name(self) -> str:
        """Full name of `weight`."""
        return next((self.names[w] for w in WEIGHTS if w in self.names), "")

    @property
    def bias_name(self) -> str:
        """Full name of the bias, "" without one."""
        return next((self.names[b] for b in BIASES if b in self.names), "")

    @property
    def is_head_norm(self) -> bool:
        """A gain of shape [heads, head size] under a name like `q_norm`."""
        return bool(QK_NORM_WORD.match(self.leaf))

    @property
    def norm_size(self) -> int:
        """Channels that it normalizes, 0 if it is no normalization.

        A normalization has running statistics, or a vector called weight, scale or gamma under a name that says so,
        or such a vector with a bias of the same length (no other layer has that).
        """
        if self.statistics:
            return self.statistics
        gain = next((self.tensors[g] for g in GAINS if g in self.tensors), None)
        if gain is None or (len(gain.shape) != 1 and not self.is_head_norm):
            return 0
        bias = next((self.tensors[b] for b in BIASES if b in self.tensors), None)
        named = NORM_WORD.search(self.leaf) or (bias is not None and bias.shape == gain.shape)
        return math.prod(gain.shape) if named else 0


def split(name: str) -> tuple[str, str]:
    """('layer1.0', 'conv1') of 'layer1.0.conv1'; '/' separates too, and TensorFlow's ':0' is dropped."""
    name = re.sub(r":\d+$", "", name)
    cut = max(name.rfind("."), name.rfind("/"))
    return ("", name) if cut < 0 else (name[:cut], name[cut + 1 :])


def statistic(name: str) -> tuple[str, str] | None:
    """Path of the normalization and "mean", "variance" or "count", if the name is that of a running statistic."""
    path, leaf = split(name)
    if leaf in STATISTICS:
        return path, "mean" if leaf in MEANS else "variance" if leaf in VARIANCES else "count"
    if leaf in ("mean", "var") and "batch_stats" in path:
        return re.sub(r"(^|[./])batch_stats([./])", r"\1params\2", path), "mean" if leaf == "mean" else "variance"
    return None


def modules_of(
    parameters: Mapping[str, LazyTensor], buffers: Mapping[str, LazyTensor], frozen: Mapping[str, str] = {}
) -> list[Module]:
    """Modules in the order in which their first parameter stands; normalizations without parameters come last.

    `frozen` maps the path of a normalization to when its statistics do not follow the data.
    """
    modules: dict[str, Module] = {}
    for name, tensor in parameters.items():
        path, leaf = split(name)
        if leaf not in STATISTICS:
            module = modules.setdefault(path, Module(path))
            module.tensors[leaf] = tensor
            module.names[leaf] = name
    for name, tensor in [*parameters.items(), *buffers.items()]:
        path, kind = statistic(name) or ("", "")
        if kind == "mean":
            bare = re.sub(r"^params[./]", "", path)
            place = bare if bare in modules and path not in modules else path
            module = modules.setdefault(place, Module(place))
            module.statistics, module.frozen = math.prod(tensor.shape), frozen.get(path, "")
    return list(modules.values())


def order_is_known(names: Iterable[str]) -> bool:
    """False if the names stand in alphabetical order: the file was sorted and does not tell which layer comes first."""
    seen = list(names)
    return seen != sorted(seen)


def output_axis(tensor: LazyTensor) -> int:
    """Axis of the output units: where the layout has its O ("IO", "HWIO", "IOHW"), else 0."""
    layout = tensor.layout or ""
    return layout.index("O") if "O" in layout and len(layout) == len(tensor.shape) else 0


def input_size(tensor: LazyTensor) -> int:
    """Input channels per group of a matrix or kernel."""
    layout = tensor.layout or ""
    if "I" in layout and len(layout) == len(tensor.shape):
        return tensor.shape[layout.index("I")]
    if "O" in layout and len(layout) == len(tensor.shape):
        return 1  # depthwise: every channel makes its own outputs
    return tensor.shape[1]


def role(name: str, tensor: LazyTensor) -> str:
    """conv, linear, embedding, norm gain, bias or other, as far as name and shape tell."""
    path, leaf = split(name)
    module = split(path)[1]
    if leaf in BIASES or re.search(r"(?:^|_)bias(?:$|_)", leaf):
        return "bias"
    if len(tensor.shape) < 2:
        named = leaf in GAINS and (NORM_WORD.search(module) or module.isdigit() or leaf == "gamma")
        return "norm gain" if named or NORM_WORD.search(leaf) else "other"
    if QK_NORM_WORD.match(module):
        return "norm gain"
    if len(tensor.shape) == 2:
        embedding = EMBEDDING_WORD.search(module) or EMBEDDING_WORD.search(leaf)
        return "embedding" if embedding and "proj" not in module else "linear"
    return (
        "conv" if len(tensor.shape) <= 5 and (leaf in WEIGHTS or leaf.startswith(("weight", "original"))) else "other"
    )
