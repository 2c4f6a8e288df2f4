"""What a device keeps of a chunk for decay clocks: clock_kernels.fold's contract, by plain torch operations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from smd_analyze.statistics.looks import Kept, Look
from smd_analyze.statistics.segments import View, rectangles

Blocks = Callable[[int, int, int, int, int], Iterator[tuple[int, tuple[int, int, int], int]]]


def fold(looks: Sequence[Look], now: torch.Tensor, out: torch.Tensor, blocks: Blocks) -> None:
    """Sums over units and within them, and vectors, of one chunk into `out` [columns], zero before, float64.

    blocks: cuts a rectangle (start, rows, stride, units, run) into pieces that may be made float64 at a time.
    """
    for look in looks:
        units = look.subject.units
        piece = now[look.at : look.at + look.end - look.begin]
        if units is None:
            step = look.subject.over_step
            out[look.over.column : look.over.column + look.over.count] = piece[-look.begin % step :: step].double()
            continue
        view = View(units.before, units.count * units.after, 0, units.count, units.after)
        for r in rectangles(view, look.begin, look.end):
            for start, size, unit in blocks(r.start, r.rows, r.stride, r.units, r.run):
                x = torch.as_strided(piece, size, (r.stride, r.run, 1), piece.storage_offset() + start).double()
                at = look.begin + start
                first = at // view.row * units.after + at % units.after
                _add(out, look.over, look.subject.over_step, first, units.after, x.sum(1))
                _add(out, look.within, look.subject.within_step, r.unit + unit, 0, x.sum((0, 2))[None])


def _add(out: torch.Tensor, kept: Kept, step: int, first: int, stride: int, sums: torch.Tensor) -> None:
    """Add sums [rows, n] to those elements first + row·stride + 0 … n−1 of a sum that are kept."""
    if step == 1:
        start = out.storage_offset() + kept.column - kept.first + first
        torch.as_strided(out, tuple(sums.shape), (stride, 1), start).add_(sums)
        return
    rows = torch.arange(sums.shape[0], device=out.device)[:, None] * stride
    elements = first + rows + torch.arange(sums.shape[1], device=out.device)
    wanted = elements % step == 0
    out[kept.column - kept.first + elements[wanted] // step] += sums[wanted]
