"""Which parameters a saved parameter group holds: torch saves numbers, group by group in the order of parameters()."""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import accumulate
from typing import Any

from smd_analyze.loading.roles.registration import ANY
from smd_analyze.loading.settings.saved import group_name
from smd_analyze.loading.settings.state_matching import match_states
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import as_dict, number_of
from smd_analyze.records.finding import Finding

Shape = tuple[int, ...]
NO_DECAY = re.compile(r"bias|layer_?norm|rmsnorm|(^|\.)norm($|\.)|_norm($|\.)")
TOKENS = re.compile(r"(^|\.)((absolute_)?pos_embed\w*|\w+_token|\w*relative_position_bias_table|register_tokens?)$")
FACTOR = re.compile(r"(row|col)(_var)?$")
MOST_STATES = 200_000

RULES: tuple[tuple[str, Callable[[str, Shape], bool]], ...] = (
    ("matrices apart from vectors", lambda name, shape: len(shape) >= 2),
    ("biases and norms apart from weights", lambda name, shape: not (name.endswith("bias") or is_norm(name))),
    ("biases apart from weights", lambda name, shape: not name.endswith("bias")),
    ("weights of norms apart", lambda name, shape: not is_norm(name)),
    ("as transformers' Trainer does", lambda name, shape: not NO_DECAY.search(name.lower())),
    ("as timm does", lambda name, shape: len(shape) >= 2 and not (name.endswith("bias") or TOKENS.search(name))),
)


@lru_cache(maxsize=1 << 14)
def is_norm(name: str) -> bool:
    """A normalization layer, by its name."""
    return any(word in part for part in name.lower().split(".")[:-1] for word in ("norm", "bn", "ln_", "layer_norm"))


@dataclass(frozen=True)
class Mapped:
    """`groups`: group's name → parameters. `states`: parameter → its saved state. `by`: how it was found."""

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    states: Mapping[str, Mapping[str, Place]] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()


def map_groups(
    optimizer: Mapping[str, Any], parameters: Mapping[str, Place], ordered: bool, path: str, family: str = ""
) -> Mapped:
    """Match numbers to names: by names if they were saved, else by order and the shapes of the saved state.

    `family` tells whose model it is where the file keeps no order (registration.py).
    """
    optimizer = numbered(optimizer)
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
        decays = [number_of(g.get("weight_decay")) for g in raw]
        chosen = assign({n: p.shape for n, p in parameters.items()}, shapes, ordered, decays)
    if chosen is None:
        count = sum(map(len, members))
        why = f"{count} numbers in {len(members)} groups do not fit the {len(parameters)} parameters in one way only"
        remedy = "Give the settings per parameter with --settings."
        return Mapped(findings=(Finding("parameter-groups-unmapped", "warning", path, why, remedy),))
    groups = {t: tuple(c) for t, c in zip(titles, chosen, strict=True) if c}
    if ordered or all(n is not None for n in named):
        pairs = [pair for m, c in zip(members, chosen, strict=True) for pair in zip(m, c, strict=True)]
    else:
        pairs, family = match_states(members, chosen, states, parameters, family)
    found = {name: places for index, name in pairs if (places := places_of(states.get(index, {})))}
    lost = sum(bool(s) for s in states.values()) - len(found) if len(pairs) < sum(map(len, members)) else 0
    if ordered or not states or all(n is not None for n in named):
        return Mapped(groups, found)
    rule = "shape, layer number and the rule that a weight stands before its bias"
    if family:
        rule += f", and the order of modules in {family} models" if family != ANY else ", and the library's modules"
    words = f"the file keeps its parameters in no order: {len(found)} optimizer states were matched by {rule}"
    if not lost:
        return Mapped(groups, found, (Finding("optimizer-state-matched", "note", path, words),))
    words += f"; {lost} share their shape with others and cannot be told apart, so they are not used"
    return Mapped(groups, found, (Finding("optimizer-state-unmatched", "note", path, words),))


def places_of(state: Mapping[Any, Any]) -> dict[str, Place]:
    """A state's tensors; a step that is a plain number (torch before 1.12) as one, too."""
    found = {k: v for k, v in state.items() if isinstance(k, str) and type(v) is Place}
    step = state.get("step")
    if found and type(step) in (int, float):
        found["step"] = Place((), "float64", 0, inline=struct.pack("<d", step))
    return found


def numbered(optimizer: Mapping[str, Any]) -> Mapping[str, Any]:
    """An optimizer that was pickled whole, with numbers instead of the parameters themselves, whose places it keeps."""
    groups = [as_dict(g) or {} for g in optimizer["param_groups"]]
    held = [[p for p in m if type(p) is Place] if isinstance(m := g.get("params"), list) else [] for g in groups]
    if not any(held):
        return optimizer
    numbers = {where(p): i for i, p in enumerate(dict.fromkeys(p for places in held for p in places))}
    made = [
        {**g, "params": [numbers[where(p)] for p in places], "places": places}
        for g, places in zip(groups, held, strict=True)
    ]
    states: dict[Any, Any] = {}
    saved = optimizer.get("state")
    for key, state in saved.items() if isinstance(saved, dict) else ():
        place = key.args[0] if type(key) is Inert and key.args else key
        if type(place) is Place and where(place) in numbers:
            states[numbers[where(place)]] = state
    return {**optimizer, "param_groups": made, "state": states}


def where(place: Place) -> tuple[int, int, Shape]:
    """What tells a tensor of the file from the others."""
    return place.file, place.start, place.shape


def names_of(group: Mapping[str, Any], members: Sequence[Any], parameters: Mapping[str, Place]) -> list[str] | None:
    """The group's parameters if it says which (names, or a pickled optimizer's tensors, which are the model's own)."""
    places = group.get("places")
    if isinstance(places, list):
        known = {where(p): n for n, p in parameters.items()}
        found = [known.get(where(p)) for p in places]
        return [n for n in found if n is not None] if None not in found else None
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
    """The parameter's shape, from the first state tensor that has axes; or from Adafactor's rows and columns."""
    found = {str(k): v.shape for k, v in (state or {}).items() if type(v) is Place and v.shape}
    whole = [s for k, s in found.items() if not FACTOR.search(k)]
    if whole or not found:
        return whole[0] if whole else None
    rows, columns = (next((s for k, s in found.items() if word in k), None) for word in ("row", "col"))
    if rows is None or columns is None or len(rows) != len(columns):
        return None
    if "row_var" in found:  # torch: (…, rows, 1) and (…, 1, columns)
        return (*rows[:-1], columns[-1])
    return (*rows, columns[-1])  # transformers, fairseq, timm: (…, rows) and (…, columns)


def assign(
    parameters: Mapping[str, Shape],
    groups: list[list[Shape | None]],
    ordered: bool,
    decays: Sequence[float | None] = (),
) -> list[list[str]] | None:
    """Names for each group's members, or None if the shapes allow none, or several that no usual rule decides.

    Tried in turn: one group in order; the usual splits (decay for matrices only, …); groups of consecutive
    parameters; those of layers, by their weight `decays`; any order-keeping assignment, if there is only one.
    """
    names = list(parameters)
    sizes = [len(g) for g in groups]
    if sum(sizes) == len(names):
        if len(sizes) == 1:
            return [names] if fits(names, groups[0], parameters, ordered) else None
        for split in (*splits(parameters, groups, ordered), *layered(parameters, groups, ordered, decays)):
            if all(fits(s, g, parameters, ordered) for s, g in zip(split, groups, strict=True)):
                return split
    if ordered and sum(sizes) <= len(names):
        if len(groups) > 1 and set(sizes) == {1}:  # a group per parameter (mmengine), in the parameters' order
            found = only_way(names, parameters, [[g[0] for g in groups]])
            return [[n] for n in found[0]] if found else None
        return only_way(names, parameters, groups)
    return None


def splits(
    parameters: Mapping[str, Shape], groups: Sequence[Sequence[Shape | None]], ordered: bool
) -> list[list[list[str]]]:
    """Candidate partitions: by each rule, in both orders of the groups, and in consecutive blocks."""
    names, sizes = list(parameters), [len(g) for g in groups]
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
    if ordered and all(s is not None for g in groups for s in g):  # nothing but their shapes speaks for blocks
        out.append(blocks(names, sizes))
    return [s for s in out if [len(part) for part in s] == sizes]


def layered(
    parameters: Mapping[str, Shape],
    groups: Sequence[Sequence[Shape | None]],
    ordered: bool,
    decays: Sequence[float | None],
) -> list[list[list[str]]]:
    """Learning rates per layer (timm, BEiT, MAE): the decayed and the other parameters of each have their own groups.

    What is decayed are consecutive parts of the decayed parameters, and so for the others; the last may stand first.
    """
    if not ordered or any(s is None for g in groups for s in g):
        return []
    bare = [i for i, d in enumerate(decays) if d == 0]
    heavy = [i for i in range(len(decays)) if i not in set(bare)]
    several = len(decays) > 2 and bare and heavy
    out: list[list[list[str]]] = []
    for way in (1, -1):
        if way == -1:
            out.append(blocks(list(parameters), [len(g) for g in groups][::-1])[::-1])
        for _, rule in RULES if several else ():
            made: dict[int, list[str]] = {}
            for indices, wanted in ((heavy[::way], True), (bare[::way], False)):
                names = [n for n, s in parameters.items() if rule(n, s) is wanted]
                sizes = [len(groups[i]) for i in indices]
                if sum(sizes) == len(names):
                    made |= dict(zip(indices, blocks(names, sizes), strict=True))
            if len(made) == len(groups):
                out.append([made[i] for i in range(len(groups))])
    return out


def blocks(names: list[str], sizes: list[int]) -> list[list[str]]:
    """Consecutive parts of these sizes."""
    ends = list(accumulate(sizes))
    return [names[end - size : end] for end, size in zip(ends, sizes, strict=True)]


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
    spare = len(names) - sum(map(len, groups))
    states = spare + 1
    for group in groups:
        states *= len(group) + 1
    if states > MOST_STATES or any(s is None for g in groups for s in g):
        return None

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
