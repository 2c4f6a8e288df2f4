"""Which bytes, in which order: the chunks of one pass, and for each the rectangles that its sums are taken over.

Chunk-major: a chunk is a piece of the checkpoint that fits the cache; it is read from checkpoint 0, 1, 2, … in turn, so
every byte is read once and a unit's whole history is in hand when its chunk is done.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from smd_analyze.records.group import Group
from smd_analyze.records.run import LazyTensor, Run
from smd_analyze.statistics.segments import Rectangle, rectangles
from smd_analyze.statistics.sources import RAW, Source, Sources, find_sources

CHUNK = 1024 * 1024
SMALL = 1024 * 1024  # a checkpoint up to this size is read whole
GAP = 32 * 1024  # bytes of others that are read along rather than read around
SUMS = 8 * 1024 * 1024  # bytes of sums that a worker may hold
FEWEST_STEPS = 8
FEWEST_ITEMS = 8


@dataclass(frozen=True)
class Span:
    """Units `unit` … `unit`+`units` of group number `group`, from `parameter`: slots from `slot` on."""

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
            steps = min(most, max(FEWEST_STEPS, SUMS // (24 * chunk.slots)))
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
        begin = min(use.seen.reach[0] for use in source.uses)
        stop = max(use.seen.reach[1] for use in source.uses)
        most = max(1, chunk_bytes // source.item)
        grain = source.uses[0].seen.grain
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
    table: list[tuple[int, ...]] = []
    spans: list[Span] = []
    slots = 0
    elements = 0
    for source, begin, end in now.pieces:
        at = now.distance(source, begin) or 0
        slots = _place_uses(source, begin, end, at, table, spans, slots)
        elements = max(elements, at + end - begin)
    first, skip = int(np.argmax(now.source.files >= 0)), now.begin * now.source.item
    array = np.array(table, np.int64).reshape(-1, 7)
    return Chunk(
        now.source.dtype, elements, now.source.files, now.source.offsets, skip, array, tuple(spans), slots, first
    )


def _place_uses(
    source: Source, begin: int, end: int, at: int, table: list[tuple[int, ...]], spans: list[Span], slots: int
) -> int:
    """Add the rectangles of a piece for every member that uses it; returns the number of slots so far."""
    for use in source.uses:
        found: list[Rectangle] = rectangles(use.seen, begin, end)
        if not found:
            continue
        unit = min(r.unit for r in found)
        units = max(r.unit + r.units for r in found) - unit
        spans.append(Span(use.group, source.parameter, unit, units, slots))
        for r in found:
            table.append((at + r.start, r.rows, r.stride, r.units, r.run, slots + r.unit - unit, len(spans) - 1))
        slots += units
    return slots


def _generic(source: Source) -> Chunk:
    """A tensor that does not lie raw: one chunk, asked of the tensor itself."""
    table: list[tuple[int, ...]] = []
    spans: list[Span] = []
    slots = _place_uses(source, 0, source.numel, 0, table, spans, 0)
    there = np.array([0 if tensor is not None else -1 for tensor in source.tensors])
    first = int(np.argmax(there >= 0))
    array = np.array(table, np.int64).reshape(-1, 7)
    return Chunk(
        source.dtype, source.numel, there, source.offsets, 0, array, tuple(spans), slots, first, source.tensors
    )
