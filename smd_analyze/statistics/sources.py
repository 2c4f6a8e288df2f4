"""Every tensor that a group uses, once: where it lies in each checkpoint, and how each member sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group
from smd_analyze.records.run import LazyTensor, Run
from smd_analyze.statistics.segments import View, views
from smd_analyze.statistics.subjects import ANCHORS, CHEAP, MANY, OPEN_SUMS, Subject, longest, subject, wanted

RAW = {"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2}  # read as bytes; every other dtype goes through read()
INTEGERS = ("int", "uint", "bool")
SMALL = 1024 * 1024  # a model up to this size is read whole from each checkpoint


@dataclass(frozen=True)
class Use:
    """One member of group number `group`, or one of the runs that it is made of: how it sees its tensor."""

    group: int
    seen: View


@dataclass(frozen=True)
class Source:
    """A tensor through the run.

    tensors: what to ask, None where a checkpoint lacks it; () if its bytes lie `raw`, which says all: thousands of
    checkpoints are many tensors. files, offsets: [T] where they lie: number of the path (-1: absent) and position.
    look: how it is looked at for decay clocks, None if it is not. whole: a group whose uses hold each element once, so
    that their sums are the tensor's.
    """

    parameter: str
    dtype: str
    numel: int
    tensors: tuple[LazyTensor | None, ...]
    files: np.ndarray
    offsets: np.ndarray
    uses: tuple[Use, ...]
    raw: bool
    look: Subject | None = None
    whole: int | None = None

    @property
    def reach(self) -> tuple[int, int]:
        """First element that is wanted and the one after the last."""
        if self.look is not None:
            return 0, self.numel
        return min(use.seen.reach[0] for use in self.uses), max(use.seen.reach[1] for use in self.uses)

    @property
    def item(self) -> int:
        """Bytes of one element."""
        return RAW[self.dtype]

    def has(self, t: int) -> bool:
        """Whether checkpoint t holds it."""
        return bool(self.files[t] >= 0) if self.raw else self.tensors[t] is not None

    @property
    def place(self) -> tuple[int, int]:
        """File and position where it first lies."""
        at = int(np.argmax(self.files >= 0))
        return int(self.files[at]), int(self.offsets[at])


@dataclass(frozen=True)
class Sources:
    """All tensors to read, the paths that they lie in, the numbers of groups that cannot be measured, and why."""

    sources: tuple[Source, ...]
    paths: tuple[str, ...]
    unmeasured: frozenset[int]
    findings: tuple[Finding, ...]


def find_sources(run: Run, groups: Sequence[Group]) -> Sources:
    """Look up every member of every group in every checkpoint."""
    findings: list[Finding] = []
    members: dict[str, list[Use]] = {}
    histories: dict[str, tuple[tuple[LazyTensor | None, ...], tuple[int, ...] | None]] = {}
    lost: set[int] = set()
    for number, group in enumerate(groups):
        if group.numel == 0:
            findings.append(Finding("not-measured", "note", group.name, "has no elements"))
        for member in group.members:
            name = member.parameter
            if name not in histories:
                histories[name] = _history(run, name, findings)
            shape = histories[name][1]
            try:
                if shape is None or group.numel == 0:
                    lost.add(number)
                else:
                    members.setdefault(name, []).extend(Use(number, v) for v in views(shape, member, group.units))
            except ValueError as error:
                lost.add(number)
                findings.append(Finding("not-measured", "warning", group.name, str(error)))
    paths: dict[str, int] = {}
    sources = []
    for name, uses in members.items():
        tensors, shape = histories[name]
        kept = tuple(use for use in uses if use.group not in lost)
        if kept:
            sources.append(_source(name, tensors, prod(shape or ()), kept, paths))
    findings += _absent(run, sources)
    if len(run.checkpoints) > 1:
        sources = _looked_at(run, groups, sources, histories, paths)
    return Sources(tuple(sources), tuple(paths), frozenset(lost), tuple(findings))


def _looked_at(
    run: Run,
    groups: Sequence[Group],
    sources: Sequence[Source],
    histories: dict[str, tuple[tuple[LazyTensor | None, ...], tuple[int, ...] | None]],
    paths: dict[str, int],
) -> list[Source]:
    """The sources, and vectors that are no group's, with what is looked for in each for decay clocks."""
    known = {source.parameter: source for source in sources}
    small = sum(4 * source.numel for source in sources) <= SMALL
    names = dict(wanted(run, groups))
    most = longest(len(run.checkpoints), len(names) + len(known) if small else OPEN_SUMS)
    cheap = sum(4 * source.numel for source in sources) * len(run.checkpoints) <= CHEAP
    anchors = MANY if cheap else ANCHORS
    found = dict(known)
    for name, member in names.items():
        tensors, shape = histories.get(name) or _history(run, name, [])
        look = subject(name, tensors, shape, member, most, anchors) if shape is not None else None
        if look is not None:
            source = known.get(name) or _source(name, tensors, look.numel, (), paths)
            found[name] = replace(source, look=look, whole=_whole(source))
    return list(found.values())


def _whole(source: Source) -> int | None:
    """A group whose uses hold each element of the tensor once; None if there is none that clearly does."""
    for group in dict.fromkeys(use.group for use in source.uses):
        seen = sorted((use.seen for use in source.uses if use.group == group), key=lambda view: view.lead)
        apart = all(
            b.row == a.row and b.rows == a.rows and b.lead >= a.lead + a.units * a.run
            for a, b in zip(seen, seen[1:], strict=False)
        )
        if apart and sum(view.rows * view.units * view.run for view in seen) == source.numel:
            return group
    return None


def _history(
    run: Run, parameter: str, findings: list[Finding]
) -> tuple[tuple[LazyTensor | None, ...], tuple[int, ...] | None]:
    """The tensor at each checkpoint, None where absent or of another shape than it mostly has, and that shape.

    Complex numbers are pairs of reals: one axis more.
    """
    tensors = [checkpoint.parameters.get(parameter) for checkpoint in run.checkpoints]
    shapes: dict[tuple[int, ...], int] = {}
    for tensor in tensors:
        if tensor is not None and not tensor.dtype.startswith(INTEGERS):
            shapes[tensor.shape] = shapes.get(tensor.shape, 0) + 1
    if not shapes:
        text = "is in no checkpoint" if all(t is None for t in tensors) else "holds integers: it has no angle"
        findings.append(Finding("not-measured", "warning", parameter, text))
        return tuple(tensors), None
    shape = max(shapes, key=lambda s: shapes[s])
    for t, tensor in enumerate(tensors):
        if tensor is not None and (tensor.shape != shape or tensor.dtype.startswith(INTEGERS)):
            tensors[t] = None
            where = f"{run.checkpoints[t].path}: {parameter}"
            text = f"is {tensor.dtype} of shape {tensor.shape}, elsewhere of shape {shape}: left out here"
            findings.append(Finding("shape-changed", "warning", where, text))
    pairs = any(tensor is not None and tensor.dtype.startswith("complex") for tensor in tensors)
    return tuple(tensors), (*shape, 2) if pairs else shape


def _source(
    parameter: str, tensors: tuple[LazyTensor | None, ...], numel: int, uses: tuple[Use, ...], paths: dict[str, int]
) -> Source:
    there = [tensor for tensor in tensors if tensor is not None]
    dtype = there[0].dtype
    files, offsets = np.full(len(tensors), -1, np.int64), np.zeros(len(tensors), np.int64)
    raw = dtype in RAW and all(
        t.dtype == dtype and t.extent is not None and t.extent.nbytes == numel * RAW[dtype] for t in there
    )
    if raw:
        for t, tensor in enumerate(tensors):
            if tensor is not None and tensor.extent is not None:
                files[t] = paths.setdefault(tensor.extent.path, len(paths))
                offsets[t] = tensor.extent.offset
    elif len({t.dtype for t in there}) > 1:
        dtype = "float64"  # the dtype changes on the way: compare as numbers
    return Source(parameter, dtype, numel, () if raw else tensors, files, offsets, uses, raw)


def _absent(run: Run, sources: Sequence[Source]) -> list[Finding]:
    """One finding for each checkpoint that lacks tensors."""
    found = []
    for t, checkpoint in enumerate(run.checkpoints):
        names = [source.parameter for source in sources if not source.has(t)]
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            text = f"lacks {names[0]}{more}: no numbers for what they belong to at this checkpoint"
            found.append(Finding("missing-tensor", "warning", checkpoint.path, text))
    return found
