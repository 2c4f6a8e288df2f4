"""Frozen batch normalization, seen in the data: its running statistics stay while the weights move.

In training each step mixes the batch's mean and variance into the running ones, so they change in every bit pattern.
Where they do not, the layer ran in eval mode: it multiplied with constants, and the weights before it are not
scale-invariant. Only the statistics are read, and at most a few small weights to see that two checkpoints differ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.invariance.modules import split, statistic
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Checkpoint, LazyTensor, Run

FEW = 4  # tensors from each end of the sizes that tell whether two checkpoints differ
SMALL = 1 << 20  # bytes; larger ones are not read for that
SHOWN = 3
NOT_IN_GRAPH = "its statistics are frozen, but the model has no batch norm of that name"


@dataclass
class _History:
    """The statistics of every norm at every checkpoint, read when asked for: norm → its buffers."""

    checkpoints: Sequence[Checkpoint]
    norms: Mapping[str, Sequence[str]]
    seen: dict[tuple[str, int], bytes] = field(default_factory=dict)

    def at(self, norm: str, number: int) -> bytes:
        """All bits of one norm's statistics at one checkpoint; b"" where it lacks them."""
        if (norm, number) not in self.seen:
            checkpoint = self.checkpoints[number]
            found = [_tensor(checkpoint, name) for name in self.norms[norm]]
            self.seen[norm, number] = b"".join(_bits(t) for t in found if t is not None)
        return self.seen[norm, number]

    def differ(self, a: int, b: int) -> bool:
        """Whether training went on between two checkpoints: other statistics, else another small weight."""
        if any(self.at(n, a) != self.at(n, b) for n in self.norms):
            return True
        first, second = self.checkpoints[a].parameters, self.checkpoints[b].parameters
        sized = sorted((_nbytes(t), n) for n, t in first.items() if n in second and "float" in t.dtype)
        small = [n for nbytes, n in sized if nbytes <= SMALL]
        last = [n for n in first if n in set(small)][-FEW:]  # a backbone may rest while its head is trained
        chosen = dict.fromkeys([*small[:FEW], *small[-FEW:], *last])
        return any(_bits(first[n]) != _bits(second[n]) for n in chosen)


def frozen_norms(run: Run) -> tuple[dict[str, str], list[Finding]]:
    """Norm's path → when its running statistics were frozen, in words; and findings for a person.

    Nothing is said of a norm whose checkpoints are too few, or too alike, to tell. A norm that was frozen at the start
    or towards the end only is named with the step from, or up to, which it was.
    """
    names: dict[str, list[str]] = {}
    last = run.checkpoints[-1]
    for name in (*last.parameters, *last.buffers):
        found = statistic(name)
        if found:
            names.setdefault(found[0], []).append(name)
    names = {path: buffers for path, buffers in names.items() if any(_is_mean(n) for n in buffers)}
    if not names or len(run.checkpoints) < 2:
        return {}, []  # one checkpoint shows nothing: verdicts are those of training mode, as their evidence says
    history = _History(run.checkpoints, names)
    try:
        found = _frozen(run, history)
    except (SmdError, OSError, ValueError, EOFError) as problem:
        message = f"whether batch norms were frozen is not known: their statistics cannot be read ({problem})"
        return {}, [Finding("frozen-norms-unknown", "note", run.path, message, "verdicts are those of training mode")]
    if found is None:
        message = "whether batch norms were frozen (eval mode) cannot be seen: no two checkpoints differ"
        remedy = "verdicts are those of training mode, where the batch's own statistics normalize"
        return {}, [Finding("frozen-norms-unknown", "note", run.path, message, remedy)]
    return found, _told(found)


def _frozen(run: Run, history: _History) -> dict[str, str] | None:
    """Norm → when it was frozen; None if no two checkpoints differ."""
    count = len(run.checkpoints)
    final = count - 1
    before = next((i for i in range(final - 1, -1, -1) if history.differ(i, final)), None)
    after = next((i for i in range(1, count) if history.differ(0, i)), None)
    if before is None or after is None:
        return None
    found: dict[str, str] = {}
    for norm in history.norms:
        still_at_end = history.at(norm, before) == history.at(norm, final) != b""
        still_at_start = history.at(norm, 0) == history.at(norm, after) != b""
        if still_at_end and history.at(norm, 0) == history.at(norm, final):
            found[norm] = "over the whole run"
        elif still_at_end:
            start = _first(0, before, lambda i, n=norm: history.at(n, i) == history.at(n, final))
            found[norm] = f"from {_step(run, start)} on"
        elif still_at_start:
            stop = _first(after, final, lambda i, n=norm: history.at(n, i) != history.at(n, 0)) - 1
            found[norm] = f"up to {_step(run, stop)}"
    return found


def _first(low: int, high: int, holds: Callable[[int], bool]) -> int:
    """The first number in low…high from which on `holds` is true; it is at `high`."""
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle + 1, high)
    return low


def _step(run: Run, number: int) -> str:
    unit = {"optimizer steps": "step", "epochs": "epoch"}.get(run.step_unit, "checkpoint")
    return f"{unit} {run.checkpoints[number].step}"


def _told(found: Mapping[str, str]) -> list[Finding]:
    times: dict[str, list[str]] = {}
    for norm, when in found.items():
        times.setdefault(when, []).append(norm)
    findings = []
    for when, norms in times.items():
        some = ", ".join(norms[:SHOWN]) + (", …" if len(norms) > SHOWN else "")
        many = f"{len(norms)} batch norms keep their" if len(norms) > 1 else "1 batch norm keeps its"
        message = (
            f"{many} running statistics {when} ({some}) while weights change: frozen, in eval mode; the weights before "
            "them are not scale-invariant then"
        )
        step = when.split()[-2] if when.endswith(" on") else when.split()[-1]
        remedy = "no equilibrium of spherical motion is to be expected of them"
        if when.endswith(" on"):
            remedy = f"analyse the part before by itself: --steps :{step}"
        elif when.startswith("up to"):
            remedy = f"analyse the part after by itself: --steps {step}:"
        findings.append(Finding("frozen-norms", "warning", norms[0], message, remedy))
    return findings


def reason_of(norm: str, when: str) -> str:
    """Why a weight before a norm that is frozen at some time is not invariant."""
    if when.startswith("over"):
        return f"{norm} comes after it but is frozen (its running statistics never change): it divides nothing out"
    return f"{norm} normalizes its output, but not {when}: its running statistics are frozen there"


def in_model(
    frozen: Mapping[str, str], matched: Mapping[str, str], modules: Mapping[str, str]
) -> tuple[dict[str, str], list[Finding]]:
    """The same by the model's own module paths, and a finding for each norm that the model does not have.

    `matched` maps the run's parameters to the model's, `modules` the model's paths to class names.
    """
    paths = {split(name)[0]: split(own)[0] for name, own in matched.items()}
    prefixes = {_prefixes(name, own) for name, own in matched.items()} or {("", "")}
    found: dict[str, str] = {}
    findings: list[Finding] = []
    for norm, when in frozen.items():
        tries = [paths.get(norm), *(own + norm.removeprefix(more) for more, own in sorted(prefixes))]
        path = next((p for p in tries if p is not None and p in modules), None)
        if path is None:
            remedy = "weights before it are not scale-invariant, whatever the table says"
            findings.append(Finding("frozen-norm-not-in-model", "warning", norm, NOT_IN_GRAPH, remedy))
        else:
            found[path] = when
    return found, findings


def told_apart(
    training: Mapping[str, list[Verdict]], actual: Mapping[str, list[Verdict]], frozen: Mapping[str, str]
) -> dict[str, list[Verdict]]:
    """The verdicts that hold with frozen norms; where training mode would give another one, the reason says so."""
    found = dict(actual)
    for name, rows in actual.items():
        lost = next((v for v in training[name] if v.status not in ("not invariant", "unknown")), None)
        if lost is None or [v.status for v in rows] == [v.status for v in training[name]]:
            continue
        norm = next((n for n in frozen if lost.reason.startswith(f"{n} (")), "")
        reason = (
            reason_of(norm, frozen[norm])
            if norm
            else f"{lost.status} only if no batch norm is frozen; of those after it, some are"
        )
        found[name] = [replace(v, reason=reason) if v.status == "not invariant" else v for v in rows]
    return found


def _prefixes(name: str, own: str) -> tuple[str, str]:
    """What the run's name has in front, and what the model's has, where one ends like the other."""
    if name.endswith(own):
        return name[: len(name) - len(own)], ""
    return ("", own[: len(own) - len(name)]) if own.endswith(name) else ("", "")


def _tensor(checkpoint: Checkpoint, name: str) -> LazyTensor | None:
    return checkpoint.buffers.get(name) or checkpoint.parameters.get(name)


def _is_mean(name: str) -> bool:
    found = statistic(name)
    return found is not None and found[1] == "mean"


def _bits(tensor: LazyTensor) -> bytes:
    return np.ascontiguousarray(tensor.read()).tobytes()


def _nbytes(tensor: LazyTensor) -> int:
    return int(np.prod(tensor.shape)) * (8 if tensor.dtype == "float64" else 4)
