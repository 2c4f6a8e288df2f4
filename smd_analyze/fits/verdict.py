"""One honest sentence about the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from smd_analyze.fits.agreement import AGREES, DIFFERS
from smd_analyze.fits.context import INVARIANT
from smd_analyze.fits.outcomes import Outcome
from smd_analyze.fits.state import RELAXED, settled
from smd_analyze.records.group import Group

Row = dict[str, Any]
RELAXES = "relaxes"
MOVES = {
    RELAXES: ("still relaxes", "still relax"),
    Outcome.MOVING.words: ("still moves", "still move"),
    Outcome.UNDECIDED.words: (f"is {Outcome.UNDECIDED.words}", f"are {Outcome.UNDECIDED.words}"),
    Outcome.LAGGING.words: (Outcome.LAGGING.words, "lag behind the learning rate"),
    Outcome.LAGS_AS_EXPECTED.words: (Outcome.LAGS_AS_EXPECTED.words, "lag behind the learning rate as expected"),
    Outcome.APART.words: ("differs from unit to unit", "differ from unit to unit"),
    Outcome.IMPOSSIBLE.words: (Outcome.IMPOSSIBLE.words, "fall faster than weight decay alone"),
    Outcome.HELD.words: ("has a norm that the training code holds", "have norms that the training code holds"),
}
"""What a norm may do that is not known to be stationary, of one layer and of several."""
State = tuple[Group, Mapping[str, Row], Row]


def verdict(states: Sequence[State], checkpoints: int, changes: Sequence[float]) -> str:
    """Say how many scale-invariant weights are stationary, how many agree with theory, and what the rest do.

    `states` are (group, its fits by quantity, its row of `layers`), `changes` the norms' changes over the run in %:
    all that is left to say where no weight is scale-invariant.
    """
    if not states:
        return "Nothing was analysed: no weight with two dimensions or more was found."
    invariant = [s for s in states if s[0].status in INVARIANT]
    if not invariant:
        unknown = sum(s[0].status == "unknown" for s in states)
        why = (
            f"of {unknown} of {len(states)} weights it is unknown"
            if unknown
            else f"{_count(len(states), 'weight')} shown"
        )
        return f"No scale-invariant weight found ({why}): {_trend(changes)}, theory is a reference only."
    guessed = sum(g.evidence == "guessed" for g, _, _ in invariant)
    n, noun = len(invariant), _count(len(invariant), "scale-invariant weight")
    if guessed == n:
        noun = _count(n, "presumably scale-invariant weight")
    outcomes = Counter(f["equilibrium_index"]["outcome"] for _, f, _ in invariant)
    common, times = outcomes.most_common(1)[0]
    if times == n and common.startswith("no decay"):
        return f"Weight decay is 0: no equilibrium exists ({noun})."
    still = [s for s in invariant if settled(s[1])]
    if times == n and not still and common not in MOVES:
        found = "one checkpoint" if checkpoints == 1 else f"{checkpoints} checkpoints"
        turned = [
            row["ratio"] for _, f, row in invariant if f["agreement"]["outcome"] == Outcome.STANDING_UNKNOWN.words
        ]
        turned = [ratio for ratio in turned if ratio is not None]
        measured = f"; measured rotation is {_range(turned)} of the equilibrium one" if turned else ""
        what = "whether norms are stationary" if turned else "the balance"
        return f"{noun} in {found}; {what} cannot be told: {common}{measured}."
    follow = bool(still) and all(s[1]["equilibrium_index"]["outcome"] == Outcome.FOLLOWS.words for s in still)
    stands = "a norm that follows its equilibrium" if follow else "a stationary norm"
    parts = [f"{len(still)} of {noun} {'has' if len(still) == 1 else 'have'} {stands}"]
    parts += _agreement(still)
    parts += _rest([s for s in invariant if not settled(s[1])])
    ratios = [f.get("relaxation_rate_ratio", {}) for _, f, _ in invariant]
    rates = [r["value"] for r in ratios if r.get("level") is not None]  # elsewhere the fit confirms nothing
    if rates:
        parts.append(f"relaxation after the learning-rate change at {_range(rates)} of the predicted rate")
    if 0 < guessed < n:
        parts.append(f"invariance is guessed for {guessed}")
    return "; ".join(parts) + "."


def _agreement(still: Sequence[State]) -> list[str]:
    """What independent measurements say of the stationary ones."""
    if not still:
        return []
    ratios = [row["ratio"] for _, f, row in still if f["agreement"]["outcome"] == AGREES]
    differ = [row["ratio"] for _, f, row in still if f["agreement"]["outcome"] == DIFFERS]
    if not ratios and not differ:
        return ["no independent measurement tells whether the rotation agrees with theory"]
    parts = []
    if ratios:
        parts.append(f"measured rotation agrees with theory in {len(ratios)} ({_range(ratios)})")
    if differ:
        parts.append(f"measured rotation differs from theory in {len(differ)} ({_range(differ)})")
    return parts


def _rest(moving: Sequence[State]) -> list[str]:
    """What those do whose norm is not known to be stationary."""
    counts: Counter[str] = Counter()
    for _, fits, row in moving:
        outcome = fits["equilibrium_index"]["outcome"]
        if outcome == Outcome.MOVING.words:
            young = row["half_lives"] is not None and row["half_lives"] < RELAXED
            outcome = RELAXES if young else Outcome.MOVING.words
        counts[outcome] += 1
    return [f"{n} {MOVES[what][n > 1]}" if what in MOVES else f"of {n}: {what}" for what, n in counts.most_common()]


def _trend(changes: Sequence[float]) -> str:
    """How norms moved over the run."""
    if not changes:
        return "norms and angles are shown"
    low, high = (f"{float(f'{change:.2g}'):+g}" for change in (min(changes), max(changes)))
    change = low if low == high else f"{low} to {high}"
    return f"norms changed by {change} % over the run"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low}–{high}"
