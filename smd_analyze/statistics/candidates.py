"""What the pass found for decay clocks, put together: candidates, what was looked at, what was set aside and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.records.clocks import Candidate, Candidates
from smd_analyze.statistics.reading import Files
from smd_analyze.statistics.screening import Screened
from smd_analyze.statistics.sources import Source

ROOM = 16 << 20  # numbers that all candidates of a run may take together
THIN = 1024  # elements that are left of a long one when there is no more room


def candidates(
    screened: Sequence[Screened],
    slices: Mapping[str, Sequence[Candidate]],
    sources: Iterable[Source],
    files: Files,
) -> Candidates:
    """All candidates in the order of the pass; NaN where a file turned out to be spoilt."""
    lost = _lost(sources, files)
    found: list[Candidate] = []
    room = ROOM
    for seen in screened:
        for candidate in (*seen.found, *slices.get(seen.subject.parameter, ())):
            bad = lost.get(candidate.parameter)
            kept = _thinned(candidate) if candidate.values.size > room else candidate
            room -= kept.values.size
            found.append(kept if bad is None else _blanked(kept, bad))
    looked_at = {
        "tensors": len(screened),
        "sums": sum(seen.sums for seen in screened),
        "slices": sum(seen.slices for seen in screened),
        "vectors": sum(seen.vectors for seen in screened),
    }
    aside = {seen.subject.parameter: seen.why_not for seen in screened if seen.why_not}
    return Candidates(tuple(found), looked_at, aside)


def _thinned(candidate: Candidate) -> Candidate:
    """With fewer elements, evenly chosen."""
    count = candidate.values.shape[1]
    if count <= THIN:
        return candidate
    return replace(candidate, values=candidate.values[:, np.arange(THIN) * count // THIN].copy())


def _lost(sources: Iterable[Source], files: Files) -> dict[str, np.ndarray]:
    """Parameter → checkpoints [T] whose file cannot be trusted."""
    if not files.problems:
        return {}
    spoilt = np.array(sorted(files.problems))
    bad = {s.parameter: np.isin(s.files, spoilt) for s in sources if s.raw}
    return {parameter: where for parameter, where in bad.items() if where.any()}


def _blanked(candidate: Candidate, bad: np.ndarray) -> Candidate:
    values, vv, dd = candidate.values.copy(), candidate.tensor_vv.copy(), candidate.tensor_dd.copy()
    values[bad] = np.nan
    vv[bad] = np.nan
    dd[bad] = np.nan
    dd[1:][bad[:-1]] = np.nan
    return replace(candidate, values=values, tensor_vv=vv, tensor_dd=dd)
