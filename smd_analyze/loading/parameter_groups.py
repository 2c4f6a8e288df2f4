"""Which parameters a saved parameter group holds: torch saves numbers, group by group in the order of parameters()."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from smd_analyze.loading.settings import group_name
from smd_analyze.loading.tensors import Place
from smd_analyze.loading.trees import as_dict
from smd_analyze.records.finding import Finding

Shape = tuple[int, ...]
MOST_STATES = 200_000

RULES: tuple[tuple[str, Callable[[str, Shape], bool]], ...] = (
    ("matrices apart from vectors", lambda name, shape: len(shape) >= 2),
    ("biases and norms apart from weights", lambda name, shape: not (name.endswith("bias") or is_norm(name))),
    ("biases apart from weights", lambda name, shape: not name.endswith("bias")),
    ("weights of norms apart", lambda name, shape: not is_norm(name)),
)


def is_norm(name: str) -> bool:
    """A normalization layer, by its name."""
    return any(word in part for part in name.lower().split(".")[:-1] for word in ("norm", "bn", "ln_", "layer_norm"))


@dataclass(frozen=True)
class Mapped:
    """`groups`: group's name → parameters. `states`: parameter → its saved state. `by`: how it was found."""

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def map_groups(optimizer: Mapping[str, Any], parameters: Mapping[str, Place], ordered: bool, where: str) -> Mapped:
    """Match numbers to names: by names if they were saved, else by order and the shapes of the saved state."""
    raw = [as_dict(g) or {} for g in optimizer["param_groups"]]
    members = [
        [i for i in p if isinstance(i, int | str)] if isinstance(p := g.get("params"), list | tuple) else []
        for g in raw
    ]
    titles = [group_name(g, i) for i, g in enumerate(raw)]
    saved = optimizer.get("state")
    states = {k: as_dict(v) or {} for k, v in saved.items()} if isinstance(saved, dict) else {}
    named = [names_of(g, m, parameters) for g, m in zip(raw, members, strict=True)]
    if members and all(n is not None for n in named):
        chosen: list[list[str]] | None = [n or [] for n in named]
    else:
        shapes = [[shape_of(states.get(i)) for i in m] for m in members]
        chosen = assign({n: p.shape for n, p in parameters.items()}, shapes, ordered)
    if chosen is None:
        count = sum(map(len, members))
        why = f"{count} numbers in {len(members)} groups do not fit the {len(parameters)} parameters in one way only"
        return Mapped(
            findings=(
                Finding(
                    "parameter-groups-unmapped",
                    "warning",
                    where,
                    why,
                    "Give the settings per parameter with --settings.",
                ),
            )
        )
    groups = {t: tuple(c) for t, c in zip(titles, chosen, strict=True) if c}
    if not ordered and not all(n is not None for n in named):
        return Mapped(groups)  # which parameters a group holds is known, but not in which order
    found: dict[str, dict[str, Place]] = {}
    for indices, names in zip(members, chosen, strict=True):
        for index, name in zip(indices, names, strict=True):
            places = {k: v for k, v in states.get(index, {}).items() if isinstance(k, str) and type(v) is Place}
            if places:
                found[name] = places
    return Mapped(groups, found)


def names_of(group: Mapping[str, Any], members: Sequence[Any], parameters: Mapping[str, Place]) -> list[str] | None:
    """The group's parameters if it says their names (`param_names`, or names instead of numbers)."""
    names = group.get("param_names")
    names = names if isinstance(names, list | tuple) else members
    if len(names) != len(members) or not all(isinstance(n, str) for n in names):
        return None
    for prefix in ("", "module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod."):
        short = [n.removeprefix(prefix) for n in names]
        if all(n in parameters for n in short):
            return short
    return None


def shape_of(state: Mapping[Any, Any] | None) -> Shape | None:
    """The parameter's shape, from the first state tensor that has axes."""
    for value in (state or {}).values():
        if type(value) is Place and value.shape:
            return value.shape
    return None


def assign(parameters: Mapping[str, Shape], groups: list[list[Shape | None]], ordered: bool) -> list[list[str]] | None:
    """Names for each group's members, or None if the shapes allow none, or several that no usual rule decides.

    Tried in turn: one group in order; the usual splits (decay for matrices only, …); groups of consecutive
    parameters; any order-keeping assignment, if there is only one.
    """
    names = list(parameters)
    sizes = [len(g) for g in groups]
    if sum(sizes) == len(names):
        if len(sizes) == 1:
            return [names] if fits(names, groups[0], parameters, ordered) else None
        for split in splits(parameters, sizes):
            if all(fits(s, g, parameters, ordered) for s, g in zip(split, groups, strict=True)):
                return split
    if ordered and sum(sizes) <= len(names) and len(sizes) <= 3:
        return only_way(names, parameters, groups)
    return None


def splits(parameters: Mapping[str, Shape], sizes: list[int]) -> list[list[list[str]]]:
    """Candidate partitions: by each rule, in both orders of the groups, and in consecutive blocks."""
    names = list(parameters)
    out: list[list[list[str]]] = []
    if len(sizes) == 2:
        for _, rule in RULES:
            first = [n for n in names if rule(n, parameters[n])]
            second = [n for n in names if not rule(n, parameters[n])]
            out += [[first, second], [second, first]]
    if len(sizes) == 3:  # YOLO: weights, norm weights, biases in some order
        bias = [n for n in names if n.endswith("bias")]
        norm = [n for n in names if not n.endswith("bias") and len(parameters[n]) < 2]
        rest = [n for n in names if n not in set(bias) | set(norm)]
        out += [[rest, norm, bias], [bias, rest, norm], [norm, rest, bias], [rest, bias, norm], [bias, norm, rest]]
    blocks: list[list[str]] = []
    at = 0
    for size in sizes:
        blocks.append(names[at : at + size])
        at += size
    out.append(blocks)
    return [s for s in out if [len(part) for part in s] == sizes]


def fits(names: Sequence[str], shapes: Sequence[Shape | None], parameters: Mapping[str, Shape], ordered: bool) -> bool:
    """Every known shape is that of the parameter in its place (or, without order, the known shapes are among them)."""
    if len(names) != len(shapes):
        return False
    if ordered:
        return all(s is None or s == parameters[n] for n, s in zip(names, shapes, strict=True))
    have = Counter(parameters[n] for n in names)
    return all(have[s] >= n for s, n in Counter(s for s in shapes if s is not None).items())


def only_way(
    names: list[str], parameters: Mapping[str, Shape], groups: list[list[Shape | None]]
) -> list[list[str]] | None:
    """The one order-keeping assignment that the shapes allow; parameters may be left out (frozen). None if several."""
    states = len(names)
    for group in groups:
        states *= len(group) + 1
    if states > MOST_STATES or any(s is None for g in groups for s in g):
        return None
    spare = len(names) - sum(map(len, groups))

    @cache
    def ways(used: tuple[int, ...], left_out: int) -> int:
        at = sum(used) + left_out
        if at == len(names):
            return 1
        total = ways(used, left_out + 1) if left_out < spare else 0
        for g, group in enumerate(groups):
            if used[g] < len(group) and group[used[g]] == parameters[names[at]]:
                total += ways((*used[:g], used[g] + 1, *used[g + 1 :]), left_out)
        return min(total, 2)

    start = tuple(0 for _ in groups)
    if len(names) > 800 or ways(start, 0) != 1:
        return None
    out: list[list[str]] = [[] for _ in groups]
    used, left_out = start, 0
    for name in names:
        for g, group in enumerate(groups):
            after = (*used[:g], used[g] + 1, *used[g + 1 :])
            if used[g] < len(group) and group[used[g]] == parameters[name] and ways(after, left_out):
                out[g].append(name)
                used = after
                break
        else:
            left_out += 1
    return out
