"""What is to be said about a momentum that no file and no caller gives: read off the weights, bounded, or assumed."""

from __future__ import annotations

from collections.abc import Sequence

from smd_analyze.records.finding import Finding
from smd_analyze.schedule.clock_apply import Spoken
from smd_analyze.schedule.clock_momentum import MomentumRead

RESTS = (
    "Equilibrium index and half-lives rest on the clock alone; angular updates (√((1−α)/(1+α))), Σηλ and levels rest "
    "on the momentum"
)
EMPTY = "as from an empty momentum buffer on"


def momentum_findings(spoken: Sequence[Spoken]) -> list[Finding]:
    """One finding per momentum: how it was read, or that it is assumed and what the weights say of it."""
    out: list[Finding] = []
    told: set[tuple[float, bool, bool]] = set()
    for s in spoken:
        f, row = s.filled, s.filled.rows[0]
        if not f.momentum_assumed and f.momentum_read is None:
            continue
        key = (row["momentum"], bool(row["nesterov"]), f.momentum_assumed)
        if key in told:
            continue
        told.add(key)
        if f.momentum_assumed:
            out.append(_assumed(s))
        elif f.momentum_read is not None:
            out.append(_read(s, f.momentum_read))
    return out


def _read(spoken: Spoken, read: MomentumRead) -> Finding:
    where = f"parameter group {spoken.group}"
    if not read.alpha:
        message = (
            f"no momentum (below {read.high:.1g}), read off the weights: {_lost(spoken, read)}, none missing, and the "
            "run began with an empty buffer, its normalization layers being untrained. Decay beside a momentum, as "
            "SGDW has it, would look alike"
        )
        return Finding("momentum-read", "note", where, message, "--momentum")
    name = "Nesterov momentum" if read.nesterov else "momentum"
    other = "heavy ball" if read.nesterov else "Nesterov"
    message = (
        f"{name} {_measured(read)}, read off the weights: {_lost(spoken, read)}, {EMPTY}. {read.alpha:g} is taken; "
        f"with {other} it would be a value that nobody sets. A learning rate warmed up within these steps would give "
        f"it by chance only (about {_odds(read.chance)})"
    )
    return Finding("momentum-read", "note", where, message, "--momentum")


def _assumed(spoken: Spoken) -> Finding:
    read, value = spoken.filled.momentum_read, spoken.filled.rows[0]["momentum"]
    if read is None:
        message = f"the momentum is not known: {value:g} is assumed. {RESTS}"
    elif read.sure:  # of none
        message = (
            f"no momentum is assumed: {_lost(spoken, read)}, none missing, while a momentum buffer that begins empty "
            f"holds decay back. One that was full, of a resumed optimizer, would look alike. {RESTS}"
        )
    else:
        kind = "0.9, or another one," if value == read.alpha and value == 0.9 else f"{value:.3g}"
        message = (
            f"the momentum is not known: {kind} is assumed. {_lost(spoken, read)}: {EMPTY} with momentum "
            f"{_measured(read)}, or with a smaller one and a short warm-up. {RESTS}"
        )
    return Finding("momentum-assumed", "warning", "momentum", message, "--momentum")


def _lost(spoken: Spoken, read: MomentumRead) -> str:
    """What the clock lost, in updates' worth of settled decay."""
    rows = spoken.filled.rows
    first, last = rows[0]["step_from"], rows[read.until]["step_to"]
    of = "steps at the rates that it later runs on from, smoothly" if read.moving else "steps at its later rate"
    return (
        f"in steps {first} to {last} {spoken.pool.terms} lost the decay of {last - first - read.missing:.2f} of "
        f"{last - first} {of}"
    )


def _measured(read: MomentumRead) -> str:
    """`0.90001±0.00002`."""
    side = max(read.high - read.fitted, read.fitted - read.low, 1e-6)
    digits = next(d for d in range(1, 8) if 10.0**-d <= side)
    return f"{read.fitted:.{digits}f}±{side:.{digits}f}"


def _odds(chance: float) -> str:
    return f"1 in {round(1 / chance)}" if chance < 0.3 else f"{chance:.0%}"
