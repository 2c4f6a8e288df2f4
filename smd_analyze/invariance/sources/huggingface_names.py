"""Names under which transformers 5 saves: it builds other modules than it saves (experts in one tensor, new names).

The library's own table says which saved name becomes which parameter. What is only renamed is matched so; what is
stacked or concatenated on loading becomes parameters of its own in the model, so that each saved tensor is asked for
itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

STACKS = ("MergeModulelist", "Concatenate")


class Assembled(nn.Module):
    """A parameter made of those that are saved: lists of them are stacked along `stacked`, then joined along `joined`.

    `lengths` are the numbers of parts in each list; `stacked` None: each list is a single tensor, taken as it is.
    """

    def __init__(self, lengths: Sequence[int], stacked: int | None, joined: int) -> None:
        super().__init__()
        self.lengths, self.stacked, self.joined = tuple(lengths), stacked, joined

    def forward(self, *parts: torch.Tensor) -> torch.Tensor:
        """The model's tensor of the saved ones."""
        lists, start = [], 0
        for length in self.lengths:
            own = parts[start : start + length]
            lists.append(own[0] if self.stacked is None else torch.stack(own, self.stacked))
            start += length
        return lists[0] if len(lists) == 1 else torch.cat(lists, self.joined)

    def right_inverse(self, whole: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The saved ones of the model's tensor, equal shares of it."""
        lists = whole.chunk(len(self.lengths), self.joined)
        parts = lists if self.stacked is None else [p for found in lists for p in found.unbind(self.stacked)]
        return tuple(p.clone() for p in parts)


def as_saved(network: Any, saved: Iterable[str]) -> dict[str, str]:
    """Give the network (changed in place) a parameter per saved tensor; saved name → its parameter.

    {} if all are the same. Names that the library's table does not tell stay away: they are matched, or missed, as
    usual. Libraries without the table (before 5) save what they build.
    """
    try:
        from transformers.conversion_mapping import (  # pyright: ignore[reportMissingImports]
            get_model_conversion_mapping,
        )
        from transformers.core_model_loading import (  # pyright: ignore[reportMissingImports]
            WeightConverter,
            rename_source_key,
        )
    except ImportError:
        return {}
    transforms = get_model_conversion_mapping(network)
    renamings: Any = [t for t in transforms if not isinstance(t, WeightConverter)]
    converters = [t for t in transforms if isinstance(t, WeightConverter)]
    own = {n: p for n, p in network.named_parameters(remove_duplicate=False)}
    names: dict[str, str] = {}
    pieces: dict[str, dict[str, list[str]]] = {}
    for name in saved:
        target, pattern = rename_source_key(name, renamings, converters, network.base_model_prefix, own)
        if target not in own:
            continue
        if pattern is None:
            names[name] = target
        else:
            pieces.setdefault(target, {}).setdefault(pattern, []).append(name)
    for target, lists in pieces.items():
        used = next((c for c in converters if set(lists) <= set(c.source_patterns)), None)
        if used is not None and set(lists) == set(used.source_patterns):
            names |= assembled(network, target, [lists[p] for p in used.source_patterns], used.operations)
    return names if any(n != target for n, target in names.items()) else {}


def assembled(network: Any, target: str, lists: Sequence[list[str]], operations: Sequence[Any]) -> Mapping[str, str]:
    """Make the parameter `target` one that is assembled; {} if by other operations than stacking and joining."""
    kinds = [type(o).__name__ for o in operations]
    if not kinds or any(k not in STACKS for k in kinds) or kinds.count("Concatenate") > 1:
        return {}
    stacked = next((o.dim for o in operations if type(o).__name__ == "MergeModulelist"), None)
    joined = next((o.dim for o in operations if type(o).__name__ == "Concatenate"), 0)
    if (stacked is None and any(len(found) > 1 for found in lists)) or (len(lists) > 1 and "Concatenate" not in kinds):
        return {}
    path, _, leaf = target.rpartition(".")
    module = network.get_submodule(path)
    whole = getattr(module, leaf)
    lengths = [len(found) for found in lists]
    if stacked is not None and any(n != whole.shape[stacked] for n in lengths):
        return {}  # some of the saved tensors are not there
    ordered = [name for found in lists for name in sorted(found, key=natural)]
    parametrize.register_parametrization(module, leaf, Assembled(lengths, stacked, joined))
    if len(ordered) == 1:
        return {ordered[0]: f"{path}.parametrizations.{leaf}.original"}
    return {name: f"{path}.parametrizations.{leaf}.original{i}" for i, name in enumerate(ordered)}


def natural(name: str) -> list[Any]:
    """Sorts experts.2 before experts.10."""
    return [(0, int(word), "") if word.isdigit() else (1, 0, word) for word in re.split(r"(\d+)", name)]
