"""What the pass found for decay clocks, put together: candidates, what was looked at, what was set aside and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from smd_analyze.records.clocks import Candidate, Candidates
from smd_analyze.statistics.reading import Files
from smd_analyze.statistics.screening import Screened
from smd_analyze.statistics.sources import Source

SAME = 1e-11  # relative difference of sums of the same numbers


def candidates(
    screened: Sequence[Screened],
    slices: Mapping[str, Sequence[Candidate]],
    sources: Iterable[Source],
    files: Files,
) -> Candidates:
    """All candidates in the order of the pass; NaN where a file turned out to be spoilt."""
    lost = _lost(sources, files)
    tied = _tied(screened)
    found: list[Candidate] = []
    for seen in screened:
        if seen.subject.parameter in tied:
            continue
        for candidate in (*seen.found, *slices.get(seen.subject.parameter, ())):
            bad = lost.get(candidate.parameter)
            found.append(candidate if bad is None else _blanked(candidate, bad))
    looked_at = {
        "tensors": len(screened),
        "sums": sum(seen.sums for seen in screened),
        "slices": sum(seen.slices for seen in screened),
        "vectors": sum(seen.vectors for seen in screened),
    }
    aside = {seen.subject.parameter: seen.why_not for seen in screened if seen.why_not}
    return Candidates(tuple(found), looked_at, aside | {name: f"the same as {first}" for name, first in tied.items()})


def _tied(screened: Sequence[Screened]) -> dict[str, str]:
    """Parameters with candidates that hold what another holds: parameter → the one before. They prove nothing more.

    The same shape, and the same norms and steps at every checkpoint but for the order in which they were added up.
    """
    tied: dict[str, str] = {}
    kept: dict[tuple[int, ...], list[Screened]] = {}
    for seen in screened:
        if not (seen.found or seen.claims):
            continue
        others = kept.setdefault(seen.subject.shape, [])
        for other in others:
            if all(
                np.allclose(a, b, rtol=SAME, atol=0, equal_nan=True)
                for a, b in ((seen.vv, other.vv), (seen.dd, other.dd))
            ):
                tied[seen.subject.parameter] = other.subject.parameter
                break
        else:
            others.append(seen)
    return tied


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
