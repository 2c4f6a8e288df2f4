"""The additive sums of one chunk through the checkpoints, on the CPU.

sums_torch.py has the same contract on a device. A worker owns one Scratch; nothing is allocated per checkpoint.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.statistics.looking import Looked, Looking
from smd_analyze.statistics.numbers import decode
from smd_analyze.statistics.plan import Chunk, Item
from smd_analyze.statistics.reading import PAGE, Files
from smd_analyze.statistics.sampling import Sampler, Seen

Fetch = Callable[[int, int], np.ndarray | None]
NARROW = ("float16", "bfloat16")
BITS = {"float32": np.float32, "float64": np.float64, "float16": np.uint16, "bfloat16": np.uint16}


@dataclass(frozen=True)
class ChunkSums:
    """What a worker hands back. T counts the item's checkpoints.

    sums: [T, 3, slots] float64, vv, dd, dv of every unit; NaN where the chunk (for dd, dv: or its predecessor) is
    missing. firsts: [T, 2, spans], dd and dv against the first checkpoint. nonfinite: [T, spans] elements.
    problems: (checkpoint, message) of tensors that could not be read through `read()`. looked: for decay clocks; seen:
    sampled elements.
    """

    item: Item
    sums: np.ndarray
    firsts: np.ndarray
    nonfinite: np.ndarray
    problems: tuple[tuple[int, str], ...] = ()
    looked: Looked | None = None
    seen: Seen | None = None


@dataclass
class Scratch:
    """A worker's buffers: two for what is read, page-aligned, two for 16-bit floats made 32-bit, the first chunk."""

    raw: list[np.ndarray] = field(default_factory=list)
    wide: list[np.ndarray] = field(default_factory=list)
    first: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))

    def fit(self, chunk: Chunk) -> None:
        """Make room for a chunk of this size."""
        if not self.raw or self.raw[0].size < chunk.nbytes + PAGE:
            self.raw = [np.frombuffer(mmap.mmap(-1, chunk.nbytes + PAGE), np.uint8) for _ in range(2)]
        if chunk.dtype in NARROW and (not self.wide or self.wide[0].size < chunk.elements):
            self.wide = [np.empty(chunk.elements, np.float32) for _ in range(2)]

    def keep(self, values: np.ndarray) -> np.ndarray:
        """A copy that lasts while the other buffers are filled again."""
        if self.first.size < values.nbytes:
            self.first = np.frombuffer(mmap.mmap(-1, values.nbytes), np.uint8)
        kept = self.first[: values.nbytes].view(values.dtype)
        np.copyto(kept, values)
        return kept


def sum_item(item: Item, files: Files, scratch: Scratch) -> ChunkSums:
    """Read a chunk from checkpoint after checkpoint, and add up."""
    problems: list[tuple[int, str]] = []
    if item.chunk.tensors:
        return _sum(item, partial(fetch_tensor, item.chunk, problems), lambda values: values, problems)
    scratch.fit(item.chunk)
    return _sum(item, partial(fetch_raw, item.chunk, files, scratch), scratch.keep, problems)


def _sum(
    item: Item, fetch: Fetch, keep: Callable[[np.ndarray], np.ndarray], problems: list[tuple[int, str]]
) -> ChunkSums:
    """The loop over checkpoints. `fetch(t, slot)` gives the chunk's elements in buffer `slot`, or None."""
    from smd_analyze.statistics import kernels  # numba: half a second, for those who measure only

    chunk, steps = item.chunk, item.end - item.begin
    sums = np.empty((steps, 3, chunk.slots))
    firsts = np.empty((steps, 2, len(chunk.spans)))
    looking = Looking(item) if chunk.looks else None
    sampler = Sampler(chunk.sample, item.begin, item.end, len(chunk.files)) if chunk.pieces else None
    first = before = None
    if chunk.first < item.begin:
        first = fetch(chunk.first, 0)
        first = None if first is None else keep(first)
    if item.begin > 0:
        before = fetch(item.begin - 1, (item.begin - 1) & 1)
    if looking and looking.before is not None:
        known = {chunk.first: first, item.begin - 1: before}
        looking.see(
            looking.before, known[looking.before] if looking.before in known else fetch(looking.before, item.begin & 1)
        )
    for t in range(item.begin, item.end):
        row = t - item.begin
        now = fetch(t, t & 1)
        if now is None:
            sums[row] = firsts[row] = np.nan
        else:
            if t == chunk.first:
                first = keep(now)
            kernels.add_up(
                chunk.table,
                now if first is None else first,
                now if before is None else before,
                now,
                sums[row],
                firsts[row],
            )
            if before is None:
                sums[row, 1:] = np.nan
            if first is None:
                firsts[row] = np.nan
        if looking:
            looking.see(t, now)
        if sampler:
            sampler.see(t, now)
        before = now
    looked = looking.looked() if looking else None
    return ChunkSums(
        item, sums, firsts, count_nonfinite(item, sums, fetch), tuple(problems), looked, sampler and sampler.seen()
    )


def count_nonfinite(item: Item, sums: np.ndarray, fetch: Fetch) -> np.ndarray:
    """NaN and infinite elements per checkpoint and span [T, spans]: looked for only where a sum is not finite."""
    counts = np.zeros((len(sums), len(item.chunk.spans)), np.int64)
    for row in np.flatnonzero(~np.isfinite(sums[:, 0]).all(axis=1)):
        values = fetch(item.begin + int(row), 0)
        if values is None:
            continue
        bad = ~np.isfinite(values)
        for start, rows, stride, units, run, _slot, span in item.chunk.table.tolist():
            width = units * run
            window = np.lib.stride_tricks.as_strided(bad[start:], (rows, width), (stride, 1), writeable=False)
            counts[row, span] += np.count_nonzero(window)
    return counts


def fetch_raw(chunk: Chunk, files: Files, scratch: Scratch, t: int, slot: int) -> np.ndarray | None:
    """The chunk of checkpoint t in buffer `slot` (0 or 1), as float32 or float64."""
    file = int(chunk.files[t])
    if file < 0:
        return None
    offset, dtype = int(chunk.offsets[t]) + chunk.skip, BITS[chunk.dtype]
    size = np.dtype(dtype).itemsize
    shift = offset % PAGE if offset % size == 0 else 0  # the place in its page as in the file's: copies at full speed
    raw = scratch.raw[slot][shift : shift + chunk.nbytes]
    if not files.read(file, offset, raw.data):
        return None
    values = raw.view(dtype)
    if size > 2:
        return values
    from smd_analyze.statistics import kernels

    wide = scratch.wide[slot][: chunk.elements]
    if chunk.dtype == "bfloat16":
        kernels.widen_bfloat16(values, wide.view(np.uint32))
    else:
        kernels.widen_float16(values, wide)
    return wide


def fetch_tensor(chunk: Chunk, problems: list[tuple[int, str]], t: int, _slot: int) -> np.ndarray | None:
    """The same for a tensor that has to be asked."""
    tensor = chunk.tensors[t]
    if tensor is None or any(t == at for at, _ in problems):
        return None
    try:
        return decode(tensor.read(), tensor.dtype, chunk.dtype in ("float64", "complex128"))
    except (SmdError, OSError, ValueError, EOFError) as error:
        problems.append((t, str(error)))
        return None
