"""Files that repeat a member of the sequence under a label (last, best), and files that belong to another run."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeVar

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.loading.frameworks.base import STEPS, Fact
from smd_analyze.loading.mixtures import MOST, separate
from smd_analyze.loading.sources import FileId
from smd_analyze.loading.tensors import Place, decoded, read_tensor
from smd_analyze.records.finding import Finding

LABEL = re.compile(r"(^|[._\-/])(last|latest|best|final|recovery|current|resume|end)([._\-/]|$)", re.IGNORECASE)
PROBES = 3  # tensors by which the angle between two files is judged
LARGEST_PROBE = 1 << 18  # bytes
LARGEST_READ = 1 << 24  # bytes of a probe that is read from every checkpoint
ENOUGH = 4096  # elements
LARGEST_COMPARED = 1 << 28  # bytes that are compared to be sure that two files hold the same
FAR, VERY_FAR = 0.5, 1.2  # rad from the nearest checkpoint beyond which a file is suspected to be of another run
MOST_NEIGHBOURS = 12

T = TypeVar("T")


@dataclass(frozen=True)
class Alike:
    """What tells whether two checkpoints are the same, or at least of one run."""

    name: str
    path: str
    link: str
    files: tuple[FileId, ...]
    parameters: Mapping[str, Place]
    facts: tuple[Fact, ...]


def is_label(name: str) -> bool:
    """The last part of the path says which checkpoint it is by a word, not by a number."""
    return LABEL.search(name.rpartition("/")[2]) is not None


def label_of(name: str) -> str:
    """The word for Run.aliases: last, best, …, else the file's stem."""
    base = name.rpartition("/")[2]
    found = LABEL.search(base)
    return found[2].lower() if found else base.split(".")[0]


def sort_out(
    members: Sequence[T], rest: Sequence[T], of_members: Sequence[Alike], of_rest: Sequence[Alike]
) -> tuple[list[T], dict[str, str], list[Finding]]:
    """Members (a "last" at a step of its own joins them), label → path of what it repeats, findings for the rest."""
    kept = list(members)
    aliases: dict[str, str] = {}
    findings: list[Finding] = []
    angles = Angles()
    near = of_members[:: max(1, len(of_members) // MOST_NEIGHBOURS)]
    for one, other in zip(rest, of_rest, strict=True):
        where = other.path
        if {n: p.shape for n, p in of_members[0].parameters.items()} != {
            n: p.shape for n, p in other.parameters.items()
        }:
            findings.append(
                Finding("stray-file", "note", where, "holds other tensors than the sequence: another model, left out")
            )
            continue
        try:
            twin = next((m for m in of_members if same(m, other)), None)
        except (SmdError, OSError) as problem:
            words = str(problem).removeprefix(f"{where}: ")
            findings.append(Finding("unreadable-file", "warning", where, words, "It is left out."))
            continue
        if twin is not None:
            label = label_of(other.name)
            aliases[label if label not in aliases else other.name] = twin.path
            findings.append(Finding("alias", "note", where, f"repeats {twin.name}: kept as a label, not as a step"))
            continue
        spread = angles.spread(near)
        nearest = min(angles.between(m, other) for m in near)
        if nearest > max(FAR, min(3 * spread, VERY_FAR), 1.2 * spread):
            apart = f"{np.degrees(nearest):.0f} degrees"
            words = f"one of its weights lies {apart} from the sequence: another run, left out"
            findings.append(Finding("stray-file", "warning", where, words, "Analyse it by itself."))
        elif has_own_step(other, of_members):
            kept.append(one)
            words = "is named otherwise, but stands at an optimizer step of its own and joins the sequence"
            findings.append(Finding("joins-sequence", "note", where, words))
        else:
            words = "has the sequence's tensors but is none of its steps: left out"
            findings.append(
                Finding("stray-file", "note", where, words, "If it belongs there, rename it like the others.")
            )
    return kept, aliases, findings


def has_own_step(one: Alike, members: Sequence[Alike]) -> bool:
    """Its file states an optimizer step that none of the members has, and all of them state theirs in the same way."""
    for fact in one.facts:
        if fact.unit == STEPS:
            steps = [f.value for m in members for f in m.facts if f.source == fact.source]
            return len(steps) == len(members) == len(set(steps)) and fact.value not in steps
    return False


def same(a: Alike, b: Alike) -> bool:
    """One file by a link, or equal tensors. Cheap looks first: the steps they state, then a few tensors, then all."""
    if b.link and os.path.realpath(a.path) == b.link:
        return True
    stated = {f.source: f.value for f in a.facts if f.unit == STEPS}
    if any(f.source in stated and stated[f.source] != f.value for f in b.facts):
        return False
    names = probed(a)
    if not names or any(differs(a, b, n) for n in names):
        return False
    rest, total = [n for n in a.parameters if n not in names], 0
    for name in rest:
        total += a.parameters[name].nbytes
        if total > LARGEST_COMPARED:
            break
        if differs(a, b, name):
            return False
    return True


def differs(a: Alike, b: Alike, name: str) -> bool:
    """One tensor is not the same in both."""
    x, y = read(a, name), read(b, name)
    return not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")


def read(one: Alike, name: str) -> np.ndarray:
    """The tensor's elements."""
    place = one.parameters[name]
    return read_tensor(place, one.files)


def probed(one: Alike) -> list[str]:
    """A few tensors of middle size; the same ones for checkpoints of one layout."""
    fitting = [n for n, p in one.parameters.items() if 64 <= p.nbytes <= LARGEST_PROBE and len(p.shape) > 1]
    fitting = fitting or [n for n, p in one.parameters.items() if p.nbytes <= LARGEST_PROBE]
    fitting = fitting or sorted(one.parameters, key=lambda n: one.parameters[n].nbytes)[:1]
    return sorted(fitting)[:: max(1, len(fitting) // PROBES)][:PROBES]


def unit_vector(one: Alike, name: str) -> np.ndarray:
    """A tensor's direction in float64; zeros where it has none, or can no longer be read (measuring will say so)."""
    place = one.parameters[name]
    try:
        array = decoded(read(one, name), place.dtype)
    except (SmdError, OSError):
        return np.zeros(prod(place.shape))
    with np.errstate(invalid="ignore"):  # a signalling NaN is one of a damaged file's
        flat = array.astype(np.float64).ravel() if array.dtype.kind == "f" else np.zeros(array.size)
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt(np.square(flat).sum()))
    return flat / norm if 0 < norm < np.inf else np.zeros(flat.size)


def of_one_run(ordered: Sequence[Alike]) -> tuple[list[int], list[Finding]]:
    """Indices of the checkpoints of the main run, and a finding if others are mixed with it."""
    if len(ordered) < 3:  # nothing can lie between others: no tensor is read
        return list(range(len(ordered))), []
    names = probed(ordered[0])
    shapes = [ordered[0].parameters[n].shape for n in names]
    same = [[o.parameters[n].shape for n in names if n in o.parameters] == shapes for o in ordered]
    usual = [i for i, o in enumerate(ordered) if same[i] and probed(o) == names]
    if any(ordered[0].parameters[n].nbytes > LARGEST_READ for n in names):
        return list(range(len(ordered))), []
    parts = separate([[thinned(unit_vector(ordered[i], n)) for n in names] for i in usual[:MOST]])
    if len(parts) == 1:
        return list(range(len(ordered))), []
    strange = [usual[i] for part in parts[1:] for i in part]
    listed = ", ".join(ordered[i].name for i in strange[:3]) + (f" and {len(strange) - 3} more" if strange[3:] else "")
    words = f"{len(parts)} runs seem to be mixed: far from their neighbours, which are near each other, are {listed}"
    where = ordered[strange[0]].path
    if len(usual) > MOST:
        remedy = "Put each run into a folder of its own; all numbers here are of the mixture."
        return list(range(len(ordered))), [Finding("mixed-runs", "error", where, words, remedy)]
    remedy = "They are left out (another run, or damaged). Put each run into a folder of its own."
    return [i for i in range(len(ordered)) if i not in set(strange)], [
        Finding("mixed-runs", "warning", where, words, remedy)
    ]


def thinned(vector: np.ndarray) -> np.ndarray:
    """A unit vector of at most twice ENOUGH of its elements: in so many, angles hardly change."""
    part = vector[:: max(1, vector.size // ENOUGH)]
    norm = float(np.sqrt(np.square(part).sum()))
    return part / norm if norm > 0 else part


class Angles:
    """Angles between checkpoints, judged by a few tensors that are read once per checkpoint."""

    def __init__(self) -> None:
        self.known: dict[str, list[np.ndarray]] = {}

    def vectors(self, one: Alike) -> list[np.ndarray]:
        """The probed tensors as unit vectors (float64); zeros for what has no direction."""
        if one.path not in self.known:
            found = [unit_vector(one, name) for name in probed(one)]
            self.known[one.path] = found
        return self.known[one.path]

    def between(self, a: Alike, b: Alike) -> float:
        """The largest angle between the same probed tensor of both, in radians; 0 if none has a direction."""
        cosines = [
            float(np.clip(x @ y, -1, 1))
            for x, y in zip(self.vectors(a), self.vectors(b), strict=True)
            if x.any() and y.any()
        ]
        return float(np.arccos(min(cosines, default=1.0)))

    def spread(self, members: Sequence[Alike]) -> float:
        """The largest angle of a member from its nearest neighbour."""
        nearest = [min((self.between(a, b) for b in members if b is not a), default=0.0) for a in members]
        return max(nearest, default=0.0)
