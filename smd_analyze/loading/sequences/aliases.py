"""Files that repeat a member of the sequence under a label (last, best), and files that belong to another run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.findings import unreadable
from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS
from smd_analyze.loading.sequences.probing import Alike, Angles, probed, read
from smd_analyze.records.finding import Finding

LABEL = re.compile(r"(^|[._\-/])(last|latest|best|final|recovery|current|resume|end)([._\-/]|$)", re.IGNORECASE)
LARGEST_COMPARED = 1 << 28  # bytes that are compared to be sure that two files hold the same
FAR, VERY_FAR = 0.5, 1.2  # rad from the nearest checkpoint beyond which a file is suspected to be of another run
MOST_NEIGHBOURS = 12

T = TypeVar("T")


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
            findings.append(unreadable(where, problem, "It is left out."))
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
            words = "is named otherwise, but states a step of its own and joins the sequence"
            findings.append(Finding("joins-sequence", "note", where, words))
        else:
            words = "has the sequence's tensors but is none of its steps: left out"
            findings.append(
                Finding("stray-file", "note", where, words, "If it belongs there, rename it like the others.")
            )
    return kept, aliases, findings


def has_own_step(one: Alike, members: Sequence[Alike]) -> bool:
    """Its file states a step that none of the members has, and all of them state theirs in the same way.

    An epoch does as well where no steps are stated.
    """
    for unit in (STEPS, EPOCHS):
        for fact in one.facts:
            if fact.unit == unit:
                stated = [f.value for m in members for f in m.facts if f.source == fact.source]
                return len(stated) == len(members) == len(set(stated)) and fact.value not in stated
        if any(f.unit == unit for m in members for f in m.facts):
            return False
    return False


def same(a: Alike, b: Alike) -> bool:
    """One file by a link, or equal tensors. Cheap looks first: the steps they state, then a few tensors, then all."""
    if (b.link and listing.real_path(a.path) == b.link) or same_content(a.files, b.files):
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


def same_content(a: Sequence[FileId], b: Sequence[FileId]) -> bool:
    """The files are one another by links, or the Hub says that they are: it names every content by a hash."""
    if len(a) != len(b) or not all(x.size == y.size for x, y in zip(a, b, strict=True)):
        return False
    if all(x.version and x.version == y.version and x.path.startswith("hf://") for x, y in zip(a, b, strict=True)):
        return True
    return all(listing.real_path(x.path) == listing.real_path(y.path) for x, y in zip(a, b, strict=True))


def differs(a: Alike, b: Alike, name: str) -> bool:
    """One tensor is not the same in both."""
    x, y = read(a, name), read(b, name)
    return not np.array_equal(x, y, equal_nan=x.dtype.kind == "f")
