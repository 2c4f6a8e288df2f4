"""Which bytes, in which order: the chunks of one pass, and for each the rectangles that its sums are taken over.

Chunk-major: a chunk is a piece of the checkpoint that fits the cache; it is read from checkpoint 0, 1, 2, … in turn, so
every byte is read once and a unit's whole history is in hand when its chunk is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.run import LazyTensor, Run
from smd_analyze.statistics.looks import Look, look
from smd_analyze.statistics.sampling import Piece, joined, positions_for, sampled
from smd_analyze.statistics.segments import Rectangle, rectangles
from smd_analyze.statistics.sources import RAW, SMALL, Source, Sources, find_sources

CHUNK = 1024 * 1024
GAP = 32 * 1024  # bytes of others that are read along rather than read around
SUMS = 8 * 1024 * 1024  # bytes of sums that a worker may hold
FEWEST_STEPS = 8
FEWEST_ITEMS = 8


@dataclass(frozen=True)
class Span:
    """Units `unit` … `unit`+`units` of group number `group`, from `parameter`: slots from `slot` on.

    Group −1 is nobody's: a tensor that is only looked at for decay clocks, as one unit.
    """

    group: int
    parameter: str
    unit: int
    units: int
    slot: int


@dataclass(frozen=True)
class Chunk:
    """`elements` consecutive elements of one dtype, in every checkpoint.

    files, offsets: [T], where they lie in checkpoint t: `skip` bytes after the offset; file -1 if it lacks them.
    table: [S, 7] int64, one row per rectangle: start, rows, stride, units, run, slot, span.
    tensors: for what does not lie raw, the one tensor to ask in each checkpoint; `elements` is then its size.
    first: the first checkpoint that has them, to which angles from the first refer.
    looks: what is kept of them for decay clocks, in `columns` numbers at each checkpoint, and of `turn_slots` slices.
    pieces: sampled elements, kept to compare far checkpoints; sample: [Q] their places in the chunk.
    """

    dtype: str
    elements: int
    files: np.ndarray
    offsets: np.ndarray
    skip: int
    table: np.ndarray
    spans: tuple[Span, ...]
    slots: int
    first: int
    tensors: tuple[LazyTensor | None, ...] = ()
    looks: tuple[Look, ...] = ()
    columns: int = 0
    turn_slots: int = 0
    pieces: tuple[Piece, ...] = ()
    sample: np.ndarray = field(default_factory=lambda: joined(()))

    @property
    def nbytes(self) -> int:
        """Bytes in one checkpoint."""
        return self.elements * RAW.get(self.dtype, 4)


@dataclass(frozen=True)
class Item:
    """A worker's portion: a chunk at checkpoints begin … end-1 (it also reads the one before, and the first)."""

    chunk: Chunk
    begin: int
    end: int


@dataclass(frozen=True)
class Plan:
    """What `items` cuts into portions: the tensors in order of their bytes, and how large a chunk may be."""

    found: Sources
    raw: tuple[Source, ...]
    checkpoints: int
    chunk_bytes: int

    @property
    def nbytes(self) -> int:
        """All that will be read, roughly: tensors that some checkpoints lack are counted for all."""
        return self.checkpoints * sum(s.numel * RAW.get(s.dtype, 4) for s in self.found.sources)


def make_plan(run: Run, groups: Sequence[Group], chunk_bytes: int = CHUNK) -> Plan:
    """Find the run's analysed tensors and their order. Groups that cannot be measured get a finding."""
    found = find_sources(run, groups)
    raw = tuple(sorted((s for s in found.sources if s.raw), key=lambda s: s.place))
    return Plan(found, raw, len(run.checkpoints), chunk_bytes)


def items(plan: Plan) -> Iterator[Item]:
    """All portions, in order of the bytes; made while they are asked for: a large model has very many.

    Cut in time where the sums of all checkpoints would be large, or where few chunks would leave workers idle.
    """
    size = sum(s.numel * s.item for s in plan.raw)
    small = plan.chunk_bytes >= CHUNK and size <= SMALL
    chunks = _chunks(plan.raw, SMALL if small else plan.chunk_bytes, SMALL if small else GAP)
    chunks = chain(chunks, (_generic(s) for s in plan.found.sources if not s.raw))
    most = plan.checkpoints
    if size <= FEWEST_ITEMS * plan.chunk_bytes:
        chunks = list(chunks)
        if len(chunks) < FEWEST_ITEMS:
            most = max(4 * FEWEST_STEPS, -(-plan.checkpoints * len(chunks) // FEWEST_ITEMS))
    for chunk in chunks:
        if chunk.spans:
            steps = min(most, max(FEWEST_STEPS, SUMS // (24 * chunk.slots + 8 * (chunk.columns + chunk.sample.size))))
            count = -(-plan.checkpoints // steps)
            for part in range(count):
                yield Item(chunk, plan.checkpoints * part // count, plan.checkpoints * (part + 1) // count)


@dataclass
class _Open:
    """The chunk that is being filled: pieces (source, begin, end), all at fixed distances from the first."""

    source: Source
    begin: int
    pieces: list[tuple[Source, int, int]]

    def distance(self, source: Source, begin: int) -> int | None:
        """Elements from the chunk's start to element `begin` of a source; None if it differs between checkpoints."""
        if source.dtype != self.source.dtype or not np.array_equal(source.files, self.source.files):
            return None
        gaps = (source.offsets - self.source.offsets)[source.files >= 0]
        if gaps.size == 0 or (gaps != gaps[0]).any() or gaps[0] % source.item:
            return None
        return int(gaps[0]) // source.item + begin - self.begin


def _chunks(sources: Sequence[Source], chunk_bytes: int, gap_bytes: int) -> Iterator[Chunk]:
    """Consecutive pieces of tensors, cut between units where a chunk can hold one."""
    now: _Open | None = None
    for source in sources:
        begin, stop = source.reach
        most = max(1, chunk_bytes // source.item)
        grain = source.uses[0].seen.grain if source.uses else (0, 1)
        while begin < stop:
            at = now.distance(source, begin) if now else None
            if now and at is not None:
                last = now.pieces[-1]
                used = (now.distance(last[0], last[1]) or 0) + last[2] - last[1]
                end = _cut(grain, begin, min(stop, begin + most - at), stop)
                if 0 <= at - used <= gap_bytes // source.item and end > begin:
                    now.pieces.append((source, begin, end))
                    begin = end
                    continue
            if now:
                yield _close(now)
            end = _cut(grain, begin, min(stop, begin + most), stop)
            if end <= begin:
                end = min(stop, begin + most)  # a unit longer than a chunk: its partial sums are added
            now = _Open(source, begin, [(source, begin, end)])
            begin = end
    if now:
        yield _close(now)


def _cut(grain: tuple[int, int], begin: int, end: int, stop: int) -> int:
    """The last element up to `end` where a cut leaves units whole."""
    origin, length = grain
    return end if end >= stop else max(origin + (end - origin) // length * length, begin)


def _close(now: _Open) -> Chunk:
    made = _Making()
    elements = 0
    for source, begin, end in now.pieces:
        at = now.distance(source, begin) or 0
        made.add(source, begin, end, at)
        elements = max(elements, at + end - begin)
    source = now.source
    first, skip = int(np.argmax(source.files >= 0)), now.begin * source.item
    return Chunk(
        source.dtype, elements, source.files, source.offsets, skip, made.array, tuple(made.spans), made.slots, first,
        (), tuple(made.looks), made.columns, made.turn_slots, tuple(made.pieces), joined(made.sample),
    )  # fmt: skip


@dataclass
class _Making:
    """The table, spans, looks and sample of a chunk while pieces are added to it."""

    table: list[tuple[int, ...]] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    slots: int = 0
    columns: int = 0
    turn_slots: int = 0
    pieces: list[Piece] = field(default_factory=list)
    sample: list[np.ndarray] = field(default_factory=list)

    @property
    def array(self) -> np.ndarray:
        return np.array(self.table, np.int64).reshape(-1, 7)

    def add(self, source: Source, begin: int, end: int, at: int) -> None:
        """Add the rectangles of elements begin … end for every member that uses them, and the look at them."""
        whole: list[int] = []
        for use in source.uses:
            found: list[Rectangle] = rectangles(use.seen, begin, end)
            if not found:
                continue
            unit = min(r.unit for r in found)
            units = max(r.unit + r.units for r in found) - unit
            if use.group == source.whole:
                whole.append(len(self.spans))
            self.spans.append(Span(use.group, source.parameter, unit, units, self.slots))
            for r in found:
                row = (at + r.start, r.rows, r.stride, r.units, r.run, self.slots + r.unit - unit, len(self.spans) - 1)
                self.table.append(row)
            self.slots += units
        places = positions_for(source)
        low, high = sampled(places, begin, end)
        if high > low:
            self.pieces.append(Piece(source.parameter, low, high - low, sum(p.count for p in self.pieces)))
            self.sample.append(places[low:high] - (begin - at))
        if source.look is None:
            return
        if source.whole is None:
            whole.append(len(self.spans))
            self.table.append((at, 1, end - begin, 1, end - begin, self.slots, len(self.spans)))
            self.spans.append(Span(-1, source.parameter, 0, 1, self.slots))
            self.slots += 1
        seen, self.columns, self.turn_slots = look(
            source.look, begin, end, at, tuple(whole), self.columns, self.turn_slots
        )
        self.looks.append(seen)


def _generic(source: Source) -> Chunk:
    """A tensor that does not lie raw: one chunk, asked of the tensor itself."""
    made = _Making()
    made.add(source, 0, source.numel, 0)
    there = np.array([0 if tensor is not None else -1 for tensor in source.tensors])
    first = int(np.argmax(there >= 0))
    return Chunk(
        source.dtype, source.numel, there, source.offsets, 0, made.array, tuple(made.spans), made.slots, first,
        source.tensors, tuple(made.looks), made.columns, made.turn_slots, tuple(made.pieces), joined(made.sample),
    )  # fmt: skip
