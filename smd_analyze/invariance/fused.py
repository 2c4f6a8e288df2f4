"""Projections that lie in one tensor here and in several there: query, key and value; gate and up."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from smd_analyze.invariance.renaming import canonical
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import LazyTensor

QKV = (
    ("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("q", "k", "v"), ("wq", "wk", "wv"),
    ("to_q", "to_k", "to_v"), ("q_lin", "k_lin", "v_lin"), ("linear_q", "linear_k", "linear_v"),
    ("query_proj", "key_proj", "value_proj"),
)  # fmt: skip
GATED = (("gate_proj", "up_proj"), ("w1", "w3"), ("gate", "up"))
TOGETHER = {
    **dict.fromkeys(("qkv", "qkv_proj", "c_attn", "wqkv", "to_qkv", "in_proj", "attn_qkv", "qkv_lin"), QKV),
    **dict.fromkeys(("query_key_value", "linear_qkv"), QKV),
    **dict.fromkeys(("gate_up_proj", "gate_up", "linear_fc1", "w13"), GATED),
}  # fmt: skip
INTERLEAVED = ("query_key_value", "linear_qkv")  # head by head, or group by group: how many is not in the names
NOT_SPLIT = "the scale of a part of a fused tensor cannot be told from that of the whole"


@dataclass(frozen=True)
class Piece:
    """Indices `start`…`stop` of `axis` of a run's tensor are `begin`… of axis `along` of the model's tensor `own`.

    `size`: length of that axis.
    """

    own: str
    axis: int
    start: int
    stop: int
    along: int
    begin: int
    size: int


def fused_parts(
    tensors: Mapping[str, LazyTensor], shapes: Mapping[str, tuple[int, ...]], matched: Mapping[str, str]
) -> tuple[dict[str, tuple[Piece, ...]], list[Finding]]:
    """Run's tensors that no name matched → their pieces of the model's tensors, whichever of the two is fused.

    `shapes` are the model's tensors that are left, `matched` what was found by name (it shows the prefix). Tensors that
    interleave their parts are not matched: a finding says so.
    """
    cut = _prefixes(matched)
    mine = {_cut(canonical(n), cut[0]): n for n in tensors}
    theirs = {_cut(canonical(n), cut[1]): n for n in shapes}
    found: dict[str, tuple[Piece, ...]] = {}
    findings: list[Finding] = []
    for word, name in mine.items():
        split = _split(word, theirs)
        if split and _last(word) in INTERLEAVED:
            findings.append(_unclear(name))
        elif split:
            parts = list(_pieces(tensors[name].shape, [(theirs[p], shapes[theirs[p]]) for p in split], True))
            if parts:
                found[name] = tuple(Piece(own, axis, a, b, along, 0, b - a) for own, axis, a, b, along in parts)
    for word, own in theirs.items():
        split = _split(word, mine)
        if split and _last(word) in INTERLEAVED:
            findings.append(_unclear(own))
        elif split:
            given = [(mine[p], tensors[mine[p]].shape) for p in split]
            for name, axis, a, b, along in _pieces(shapes[own], given, False):
                found[name] = (Piece(own, along, 0, b - a, axis, a, shapes[own][axis]),)
    return found, findings


def _prefixes(matched: Mapping[str, str]) -> tuple[str, str]:
    """What the run's, and what the model's names have in front, from the first pair that shows it."""
    for name, own in matched.items():
        a, b = canonical(name), canonical(own)
        if a.endswith(b):
            return a[: len(a) - len(b)], ""
        if b.endswith(a):
            return "", b[: len(b) - len(a)]
    return "", ""


def _cut(word: str, prefix: str) -> str:
    return word.removeprefix(prefix)


def _last(word: str) -> str:
    return word.split(".")[-2] if "." in word else ""


def _split(word: str, others: Mapping[str, str]) -> list[str]:
    """The names of the parts that `others` has of a fused one, [] if it has not all of them."""
    module = _last(word)
    stem = re.sub(rf"{re.escape(module)}\.(\w+)$", "", word)
    leaf = word.rpartition(".")[2]
    for parts in TOGETHER.get(module, ()):
        names = [f"{stem}{part}.{leaf}" for part in parts]
        if all(n in others for n in names):
            return names
    return []


def _pieces(
    whole: tuple[int, ...], parts: Sequence[tuple[str, tuple[int, ...]]], outputs_of_parts: bool
) -> Iterator[tuple[str, int, int, int, int]]:
    """(name, axis of the whole, start, stop, axis of the part), if the parts fill the whole along one axis.

    A matrix may be stored the other way round (GPT-2's Conv1D): the axis that the parts fill tells. Where several fit,
    the outputs are along axis 0 of the model's tensors: those of the parts, or of the whole.
    """
    straight = [(axis, axis) for axis in range(len(whole))]
    turned = [(1, 0), (0, 1)] if len(whole) == 2 else []
    fits = []
    for axis, along in [*straight, *turned]:
        rest = whole[:axis] + whole[axis + 1 :]
        same = all(len(s) == len(whole) and s[:along] + s[along + 1 :] == rest for _, s in parts)
        if same and sum(s[along] for _, s in parts) == whole[axis]:
            fits.append((axis, along))
    if not fits:
        return
    axis, along = min(fits, key=lambda fit: fit[::-1] if outputs_of_parts else fit)  # axis 0 holds torch's outputs
    start = 0
    for name, shape in parts:
        yield name, axis, start, start + shape[along], along
        start += shape[along]


def _unclear(name: str) -> Finding:
    message = "interleaves query, key and value, which lie apart on the other side: how is not in the names"
    return Finding("fused-not-matched", "warning", name, message, "give a --model that holds them as the run does")


def verdicts_of(
    parameter: str, pieces: Sequence[Piece], proved: Mapping[str, Sequence[Verdict]], aliases: Mapping[str, str]
) -> list[Verdict]:
    """The verdicts on a run's tensor from those on the model's tensors that its pieces come from.

    `proved`: the model's parameter → its verdicts; `aliases`: every name of a tied one → the name that stands there.
    """
    found = []
    for piece in pieces:
        for v in proved[aliases[piece.own]]:
            part = _of(v, piece)
            if part is not None:
                found.append(replace(part, parameter=parameter, translations=()))
    whole = len(pieces) == 1 and len(found) == 1
    return [replace(v, part=None) if whole else v for v in found]


def _of(v: Verdict, piece: Piece) -> Verdict | None:
    """One verdict on one piece, None if it is about other indices. What cannot be told of a part is unknown."""
    length = piece.stop - piece.start
    if v.part is not None and v.axis == piece.along and not v.every:
        low, high = max(v.part[0], piece.begin), min(v.part[1], piece.begin + length)
    else:
        low, high = piece.begin, piece.begin + length
    if low >= high:
        return None
    shift = piece.start - piece.begin
    placed = replace(v, axis=piece.axis, part=(low + shift, high + shift), every=0, units=high - low, partners=())
    if v.status in ("not invariant", "unknown", "dead"):
        return placed
    first, last = v.part or (0, piece.size)
    all_of_it = length == piece.size and (v.units == 1 or v.axis == piece.along)
    block = (last - first) // v.units if v.axis == piece.along else 0
    if not v.joint and not v.every:
        if v.part is None and all_of_it:
            return replace(placed, units=v.units)
        if block and (low - first) % block == (high - first) % block == 0:
            return replace(placed, units=(high - low) // block)
    return replace(placed, status="unknown", granularity="", evidence="not proved", joint="", reason=NOT_SPLIT)
