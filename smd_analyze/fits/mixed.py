"""Sets of tensors that share one scale, but not one learning rate and weight decay: theory has no word for them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from smd_analyze.fits.context import INVARIANT
from smd_analyze.fits.regime import MIXED, names_of, regime
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule

SHOWN = 3


def mixed_settings(groups: Iterable[Group], steps: Iterable[int], schedule: Schedule) -> list[Finding]:
    """One finding for all joint groups whose members were trained with different hyperparameters."""
    mixed: list[Group] = []
    for group in groups:
        several = group.status in INVARIANT and len(names_of(group, schedule)) > 1
        if several and regime(group, np.asarray(list(steps)), schedule).gap == MIXED:
            mixed.append(group)
    if not mixed:
        return []
    names = ", ".join(g.name for g in mixed[:SHOWN]) + (", …" if len(mixed) > SHOWN else "")
    parts = " and ".join(names_of(mixed[0], schedule))
    count = f"{len(mixed)} joint sets have" if len(mixed) > 1 else "1 joint set has"
    message = (
        f"{count} members that differ in learning rate or weight decay ({names}; parameter groups {parts}): they share "
        "one scale, but no balance of theory holds for it"
    )
    remedy = "their norms and angles are shown without theory; one learning rate and decay for a set would change that"
    return [Finding("members-differ-in-settings", "warning", mixed[0].name, message, remedy)]
