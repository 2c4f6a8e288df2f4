"""Slices that kept their direction, read again, element by element, from every checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.records.clocks import Candidate
from smd_analyze.statistics.numbers import decode
from smd_analyze.statistics.parallel import in_order
from smd_analyze.statistics.reading import Files, is_far
from smd_analyze.statistics.screening import KEPT, SPARE, Claim, Screened, choose
from smd_analyze.statistics.sources import RAW, Source
from smd_analyze.statistics.subjects import LONGEST

ROOM = 4 << 20  # numbers that the slices that are listed may take together
AT_ONCE = 2 << 20  # numbers of one tensor that are held at a time
PIECE = 1 << 20  # bytes of one read
GAP = 32 * 1024  # bytes of others that are read along rather than read around
FAR_PIECE, FAR_GAP = 4 << 20, 1 << 20  # where each read is a request


def second_look(
    screened: Sequence[Screened], sources: Iterable[Source], files: Files, workers: int, tell: Callable[[], None]
) -> dict[str, list[Candidate]]:
    """The claimed slices of each parameter as candidates, with the values that the files hold."""
    known = {source.parameter: source for source in sources}
    claimed = [s for s in screened if s.claims]
    listed = sum(min(claim.listed, len(claim.indices)) for seen in claimed for claim in seen.claims)
    checkpoints = max((len(s.vv) for s in claimed), default=1)
    share = max(1, listed * checkpoints * KEPT / ROOM)  # of so many, one can be kept
    if share > 1:
        claimed = [replace(s, claims=tuple(_fewer(claim, share) for claim in s.claims)) for s in claimed]
    most = max(KEPT, int(ROOM * share) // (max(1, listed) * checkpoints))

    def work(seen: Screened) -> list[Candidate]:
        return list(_look(seen, known[seen.subject.parameter], files, most))

    found: dict[str, list[Candidate]] = {}
    for seen, candidates in zip(claimed, in_order(work, claimed, workers), strict=True):
        found[seen.subject.parameter] = candidates
        tell()
    return found


def _fewer(claim: Claim, share: float) -> Claim:
    """One of so many of its slices, the best."""
    listed = max(1, int(claim.listed / share))
    return replace(claim, indices=claim.indices[: SPARE * listed], listed=listed)


def _look(seen: Screened, source: Source, files: Files, most: int) -> Iterator[Candidate]:
    """One tensor's, axis by axis, at most so many elements of each."""
    subject, checkpoints = seen.subject, len(source.files)
    room = AT_ONCE // (checkpoints * sum(len(c.indices) for c in seen.claims))
    wanted = [
        claim.axis.positions(min(most, LONGEST, max(KEPT, room))) + index * claim.axis.after
        for claim in seen.claims
        for index in claim.indices
    ]
    elements, back = np.unique(np.concatenate(wanted), return_inverse=True)
    values = _values(source, files, elements)
    places = np.split(back, np.cumsum([positions.size for positions in wanted])[:-1])
    number = 0
    for claim in seen.claims:
        read = [
            Candidate(
                parameter=subject.parameter,
                functional=claim.axis.name(index),
                kind="slice",
                dtype=subject.dtype,
                shape=subject.shape,
                axes=claim.axis.axes,
                values=values[:, places[number + n]],
                elements=claim.axis.elements,
                tensor_vv=seen.vv,
                tensor_dd=seen.dd,
                parts=claim.axis.count,
            )
            for n, index in enumerate(claim.indices)
        ]
        number += len(read)
        listed = choose(read, claim.listed)
        for place, candidate in enumerate(listed):
            yield replace(candidate, alike=claim.alike - len(listed) if place == 0 else 0)


def _values(source: Source, files: Files, elements: np.ndarray) -> np.ndarray:
    """Those elements (ascending) of a tensor at every checkpoint [T, elements] float64; NaN where it is missing."""
    values = np.full((len(source.files), elements.size), np.nan)
    pieces = list(_pieces(elements, source, files)) if source.raw else []
    space = np.empty(max((piece.count for piece in pieces), default=0) * RAW.get(source.dtype, 1), np.uint8)
    for t in range(len(source.files)):
        if not source.has(t):
            continue
        tensor = None if source.raw else source.tensors[t]
        if tensor is not None:
            try:
                values[t] = decode(tensor.read(), tensor.dtype, True)[elements]
            except (SmdError, OSError, ValueError, EOFError):
                continue  # the pass has told so
            continue
        for piece in pieces:
            buffer = space[: piece.count * source.item]
            if not files.read(int(source.files[t]), int(source.offsets[t]) + piece.first * source.item, buffer.data):
                values[t] = np.nan
                break
            bits = np.uint16 if source.dtype == "bfloat16" else np.dtype(source.dtype)
            values[t, piece.which] = decode(buffer.view(bits), source.dtype, False)[elements[piece.which] - piece.first]
    return values


@dataclass(frozen=True)
class _Piece:
    """`count` elements from `first` on, read in one go, and which of the wanted ones are among them."""

    first: int
    count: int
    which: slice


def _pieces(elements: np.ndarray, source: Source, files: Files) -> Iterator[_Piece]:
    """Stretches that hold all the wanted elements, without long gaps."""
    far = is_far(files.paths[source.place[0]])
    gap, most = (FAR_GAP if far else GAP) // source.item, (FAR_PIECE if far else PIECE) // source.item
    begin = 0
    while begin < elements.size:
        end = int(np.searchsorted(elements, elements[begin] + most))
        breaks = np.flatnonzero(np.diff(elements[begin:end]) > gap)
        if breaks.size:
            end = begin + int(breaks[0]) + 1
        first = int(elements[begin])
        yield _Piece(first, int(elements[end - 1]) + 1 - first, slice(begin, end))
        begin = end
