"""The `groups` table: which weights are scale-invariant, layers of one kind in one row, and what to do next."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.text import Text

from smd_analyze.records.group import Groups, ParameterVerdict
from smd_analyze.views.grid import grid
from smd_analyze.views.kinds import kinds, label, skeleton
from smd_analyze.views.layers import SCREEN, SMALL
from smd_analyze.views.text import counted, fold, shorten

ORDER = ("invariant", "jointly invariant", "dead", "unknown", "not invariant")
VECTORS = {
    "norm gain": "gains: they come after a normalization and set the scale of what follows",
    "bias": "biases: nothing divides their scale out",
}
GRANULARITY = {"unit": "per unit", "block": "per block", "whole": "as a whole"}
CLASS = re.compile(r" \([A-Z]\w*\)")
GUESSED = (
    "Guessed from names and shapes: --model package.module:factory, which builds the network, has it proved on the "
    "network's graph."
)
PARTLY = "Rows marked guessed are of parameters that the graph does not have."
MORE = "--why NAME tells the way to a verdict (a pattern like '*.conv1.weight' too), -v lists every parameter."


def print_groups(groups: Groups, console: Console, *, verbose: int = 0) -> None:
    """Counts, then every parameter with verdict and reason: more than a screen of them kind by kind, unless `verbose`.

    Invariant weights come first; gains and biases that are not invariant are one row each.
    """
    every = bool(verbose)
    tensors = len({p.parameter for p in groups.parameters})
    by = f"the {groups.source}" if groups.source.startswith("graph") else groups.source
    console.print(Text(f"{counted(tensors, 'parameter')}, by {by}", style="bold"))
    evidence = Counter(p.evidence for p in groups.parameters)
    for line in _counts(groups.parameters):
        console.print(Text(line))
    console.print()
    room = max(18, min(44, console.width - 58))
    merged = not every and len(groups.parameters) > SCREEN
    rows = list(_rows(groups.parameters, room, merged, len(evidence) > 1))
    shown = [i for i, wanted in enumerate((True, merged, True, console.width >= SMALL)) if wanted]
    heads = [("parameter", "×", "verdict", "why")[i] for i in shown]
    console.print(grid(heads, ("×",), [[row[i] for i in shown] for row in rows], fixed=("parameter", "verdict")))
    hints = [GUESSED] if set(evidence) == {"guessed"} else [PARTLY] if evidence["guessed"] else []
    console.print()
    for hint in [*hints, MORE]:
        console.print(Text(hint, style="dim"))


def _counts(parameters: Sequence[ParameterVerdict]) -> Iterator[str]:
    """One line for each status: how many, at which granularity, and how sure."""
    for status in ORDER:
        rows = [p for p in parameters if p.status == status]
        if rows:
            finest = Counter(GRANULARITY[p.granularity] for p in rows if p.granularity)
            sure = Counter(p.evidence for p in rows)
            told = [", ".join(f"{n} {word}" if len(c) > 1 else word for word, n in c.items()) for c in (finest, sure)]
            yield f"{len(rows):>6}  {status:<18}" + "; ".join(text for text in told if text)


def _rows(
    parameters: Sequence[ParameterVerdict], room: int, merged: bool, evident: bool
) -> Iterator[tuple[str, str, str, str]]:
    """Cells of each row: names, how many tensors, verdict, reason."""
    same: dict[tuple[str, ...], dict[str, ParameterVerdict]] = {}
    for index, p in enumerate(sorted(parameters, key=lambda p: (ORDER.index(p.status), _is_aside(p)))):
        alone = () if merged else (str(index),)
        key = ("" if _is_aside(p) else p.role, p.status, p.granularity, p.evidence, *alone)
        same.setdefault(key, {})[p.parameter + (f"[{p.slice}]" if p.slice else "")] = p
    for (_, status, granularity, evidence, *_), found in same.items():
        gap = "\n" if status == "jointly invariant" else " "
        verdict = status + (f",{gap}{GRANULARITY[granularity]}" if granularity else "")
        verdict += f"\n({evidence})" if evident else ""
        if merged and _is_aside(next(iter(found.values()))):
            yield from _aside(found, room, verdict)
            continue
        for names in kinds(found, SCREEN).values() if merged else [[name] for name in found]:
            reason = _reason([found[n] for n in names], names) if merged else found[names[0]].reason
            yield fold(label(names), room), str(len(names)), verdict, reason


def _is_aside(p: ParameterVerdict) -> bool:
    """Gains and biases that are not invariant: not what this table is about."""
    return p.role in VECTORS and p.status == "not invariant"


def _aside(found: dict[str, ParameterVerdict], room: int, verdict: str) -> Iterator[tuple[str, str, str, str]]:
    for role, why in VECTORS.items():
        names = [n for n, p in found.items() if p.role == role]
        if names:
            name = f"{shorten(names[0], room - 3)}, …" if len(names) > 1 else fold(names[0], room)
            yield name, str(len(names)), verdict, why if len(names) > 1 else found[names[0]].reason


def _reason(rows: Sequence[ParameterVerdict], names: Sequence[str]) -> str:
    """The commonest reason in short: its first clause, without class names and without the path that the name shows."""
    by_kind: dict[str, list[str]] = {}
    for row in rows:
        by_kind.setdefault(skeleton(_short(row.reason)), []).append(_short(row.reason))
    most = max(by_kind.values(), key=len)
    reasons = list(dict.fromkeys(most))
    text = label(reasons) if len(set(map(skeleton, reasons))) == 1 else reasons[0]
    words = label(names).split(".")
    for length in range(len(words) - 1, 0, -1):
        text = text.replace(".".join(words[:length]) + ".", "")
    return text


def _short(reason: str) -> str:
    return CLASS.sub("", reason).partition(";")[0]
