"""The additive sums of one chunk through the checkpoints, on a device: sums.py's contract, by plain torch operations.

The feed is the limit: each worker reads into a ring of pinned buffers, copies to the device on its own stream, and
keeps the previous chunk there; the sums come back once per chunk. Only this module of the stage imports torch, and it
is itself imported only where a device is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from smd_analyze.statistics.looking import Looked, Looking
from smd_analyze.statistics.looks_torch import fold
from smd_analyze.statistics.plan import Chunk, Item
from smd_analyze.statistics.reading import PAGE, Files
from smd_analyze.statistics.sampling import Sampler, Seen
from smd_analyze.statistics.sums import ChunkSums, Scratch, count_nonfinite, fetch_raw, fetch_tensor

BLOCK = 1 << 24  # elements that are made float64 at a time
RING = 3


@dataclass
class Ring:
    """A worker's pinned buffers, each with the event after which it may be filled again, and its stream."""

    device: torch.device
    stream: torch.cuda.Stream | None = None
    buffers: list[torch.Tensor] = field(default_factory=list)
    events: list[torch.cuda.Event | None] = field(default_factory=list)
    scratch: Scratch = field(default_factory=Scratch)
    next: int = 0

    def fit(self, nbytes: int) -> None:
        """Make room for a chunk of this size."""
        if not self.buffers or self.buffers[0].numel() < nbytes + PAGE:
            self.drain()
            pinned = self.device.type == "cuda"
            self.buffers = [torch.empty(nbytes + PAGE, dtype=torch.uint8, pin_memory=pinned) for _ in range(RING)]
            self.events = [None] * RING

    def drain(self) -> None:
        """Wait until no copy out of the buffers is under way."""
        for event in self.events:
            if event is not None:
                event.synchronize()


def ring(device: str) -> Ring:
    """A worker's ring for a device ("cuda", or "cpu" to try the same code without one)."""
    place = torch.device(device)
    return Ring(place, torch.cuda.Stream(place) if place.type == "cuda" else None)


def sum_item(item: Item, files: Files, mine: Ring) -> ChunkSums:
    """Read a chunk from checkpoint after checkpoint, and add up on the device. See sums.sum_item."""
    with torch.inference_mode(), torch.cuda.stream(mine.stream):  # no stream: does nothing
        return _sum(item, files, mine)


def _sum(item: Item, files: Files, mine: Ring) -> ChunkSums:
    chunk, steps = item.chunk, item.end - item.begin
    problems: list[tuple[int, str]] = []
    double = {"dtype": torch.float64, "device": mine.device}
    sums = torch.zeros((steps, 3, chunk.slots), **double)
    firsts = torch.zeros((steps, 2, len(chunk.spans)), **double)
    looking = _Looking(item, mine.device) if chunk.looks else None
    sampler = _Sampler(chunk.sample, item.begin, item.end, len(chunk.files)) if chunk.pieces else None
    first = before = None
    if chunk.first < item.begin:
        first = _to_device(chunk, files, mine, problems, chunk.first)
    if item.begin > 0:
        before = first if item.begin - 1 == chunk.first else _to_device(chunk, files, mine, problems, item.begin - 1)
    if looking and looking.before is not None:
        known = {chunk.first: first, item.begin - 1: before}
        here = looking.before in known
        looking.see_there(
            looking.before, known[looking.before] if here else _to_device(chunk, files, mine, problems, looking.before)
        )
    table = [tuple(row) for row in chunk.table.tolist()]
    for t in range(item.begin, item.end):
        row = t - item.begin
        now = _to_device(chunk, files, mine, problems, t)
        if t == chunk.first:
            first = now
        if now is None:
            sums[row] = firsts[row] = torch.nan
        else:
            _add_up(
                table, now if first is None else first, now if before is None else before, now, sums[row], firsts[row]
            )
            if before is None:
                sums[row, 1:] = torch.nan
            if first is None:
                firsts[row] = torch.nan
        if looking:
            looking.see_there(t, now)
        if sampler:
            sampler.see_there(t, now)
        before = now
    home, home_firsts = sums.cpu().numpy(), firsts.cpu().numpy()
    counts = count_nonfinite(item, home, partial(_again, chunk, files, mine.scratch, problems))
    looked, seen = looking and looking.looked_there(), sampler and sampler.seen_there()
    return ChunkSums(item, home, home_firsts, counts, tuple(problems), looked, seen)


class _Sampler(Sampler):
    """The same as on the CPU; the sampled elements stay on the device until all have been seen."""

    def see_there(self, t: int, now: torch.Tensor | None) -> None:
        """Take in the chunk of checkpoint t on the device; None if it could not be read."""
        if t not in self.place or now is None:
            return
        if not hasattr(self, "there"):
            kind = torch.float64 if now.dtype == torch.float64 else torch.float32
            shape = len(self.rows), len(self.index)
            self.there = torch.full(shape, torch.nan, dtype=kind, device=now.device)
            self.chosen = torch.from_numpy(self.index).to(now.device)
        self.there[self.place[t]] = now[self.chosen]

    def seen_there(self) -> Seen:
        """All of it, at home."""
        if hasattr(self, "there"):
            self.values = self.there.cpu().numpy()
        return self.seen()


class _Looking(Looking):
    """The same as on the CPU; sums are made on the device, the few sampled elements come home at anchors."""

    def __init__(self, item: Item, device: torch.device) -> None:
        super().__init__(item)
        shape = (item.end - item.begin, item.chunk.columns)
        self.there = torch.zeros(shape, dtype=torch.float64, device=device)
        self.place = torch.from_numpy(self.index[0]).to(device)
        self.all = np.arange(self.index[0].size)

    def see_there(self, t: int, now: torch.Tensor | None) -> None:
        """Take in the chunk of checkpoint t on the device; None if it could not be read."""
        if t >= self.item.begin:
            row = self.there[t - self.item.begin]
            if now is None:
                row.fill_(torch.nan)
            else:
                fold(self.item.chunk.looks, now, row, _blocks)
        if self.is_anchor(t):
            self.compare(t, None if now is None else now[self.place].double().cpu().numpy(), self.all)

    def looked_there(self) -> Looked:
        self.folds = self.there.cpu().numpy()
        return self.looked()


def _to_device(chunk: Chunk, files: Files, mine: Ring, problems: list[tuple[int, str]], t: int) -> torch.Tensor | None:
    """The chunk of checkpoint t on the device, in its own dtype; the copy may still be under way on the stream."""
    if chunk.tensors:
        values = fetch_tensor(chunk, problems, t, 0)
        return None if values is None else torch.from_numpy(values).to(mine.device)
    file, offset = int(chunk.files[t]), int(chunk.offsets[t]) + chunk.skip
    if file < 0:
        return None
    mine.fit(chunk.nbytes)
    slot, mine.next = mine.next, (mine.next + 1) % RING
    event = mine.events[slot]
    if event is not None:
        event.synchronize()
    shift = offset % PAGE
    buffer = mine.buffers[slot][shift : shift + chunk.nbytes]
    if not files.read(file, offset, buffer.numpy().data):
        return None
    there = torch.empty(chunk.nbytes, dtype=torch.uint8, device=mine.device)
    there.copy_(buffer, non_blocking=True)
    if mine.stream is not None:
        event = mine.events[slot] = torch.cuda.Event()
        event.record(mine.stream)
    return there.view(getattr(torch, chunk.dtype))


def _again(
    chunk: Chunk, files: Files, scratch: Scratch, problems: list[tuple[int, str]], t: int, slot: int
) -> np.ndarray | None:
    """The chunk once more, on this side, to count what is not finite."""
    if chunk.tensors:
        return fetch_tensor(chunk, problems, t, slot)
    scratch.fit(chunk)
    return fetch_raw(chunk, files, scratch, t, slot)


def _add_up(
    table: list[tuple[int, ...]],
    first: torch.Tensor,
    before: torch.Tensor,
    now: torch.Tensor,
    sums: torch.Tensor,
    firsts: torch.Tensor,
) -> None:
    """Add to sums [3, slots] and firsts [2, spans] what kernels.add_up would, in float64 blocks."""
    for begin, rows, stride, units, run, slot, span in table:
        for start, size, unit in _blocks(begin, rows, stride, units, run):
            v, u, w = (torch.as_strided(x, size, (stride, run, 1), start).double() for x in (now, before, first))
            d, f = v - u, v - w
            part = sums[:, slot + unit : slot + unit + size[1]]
            part[0] += (v * v).sum((0, 2))
            part[1] += (d * d).sum((0, 2))
            part[2] += (d * v).sum((0, 2))
            firsts[0, span] += (f * f).sum()
            firsts[1, span] += (f * v).sum()


def _blocks(
    begin: int, rows: int, stride: int, units: int, run: int
) -> Iterator[tuple[int, tuple[int, int, int], int]]:
    """A rectangle in blocks of at most BLOCK elements: (start, (rows, units, run), first unit)."""
    length = min(run, BLOCK)
    wide = min(units, max(1, BLOCK // length)) if length == run else 1
    high = min(rows, max(1, BLOCK // (length * wide)))
    for row in range(0, rows, high):
        for unit in range(0, units, wide):
            for at in range(0, run, length):
                size = (min(high, rows - row), min(wide, units - unit), min(length, run - at))
                yield begin + row * stride + unit * run + at, size, unit
