"""One layer, from inputs through formulas to numbers: what `--explain LAYER` prints.

Numbers are those of the report's tables. Every formula is shown in symbols and with numbers put in, and what these
give is worked out anew, for display alone: it has to be the report's number, or the line says why it is not (the form
shown is an approximation, or that of the whole layer where the report summarises its units). In the order in which a
person asks: state, angular update, norm, time-scales, where learning rate and decay come from, estimates.
"""

from __future__ import annotations

from collections.abc import Iterator

from smd_analyze.records.report import Report
from smd_analyze.views.explain_angles import angle_ways
from smd_analyze.views.explain_estimates import estimate_ways
from smd_analyze.views.explain_facts import Facts, facts_of
from smd_analyze.views.explain_norms import norm_ways
from smd_analyze.views.explain_sources import source_ways
from smd_analyze.views.explain_times import time_ways
from smd_analyze.views.explain_ways import Way, lines, papers
from smd_analyze.views.text import MISSING

SECTIONS = (
    ("Angular update: how far does one step turn the weights?", angle_ways),
    ("Weight norm: where is it, where should it be, does it stand still?", norm_ways),
    ("Time-scales: how long does the balance take?", time_ways),
    ("Where learning rate and decay come from", source_ways),
    ("Estimates", estimate_ways),
)


def explain_layer(report: Report, layer: str) -> str:
    """The whole reasoning for one layer, as plain text.

    `layer` is a group, or a parameter that belongs to one.

    Raises:
        UsageError: the report has no such layer; names that are near.
    """
    f = facts_of(report, layer)
    parts = ["\n".join(lines_of_state(f))]
    for title, section in SECTIONS:
        found = list(lines(section(f)))
        if found:
            parts.append("\n".join([title, *found]))
    text = "\n\n".join(parts)
    return "\n".join([text, "", *papers(text)]).rstrip("\n")


def explained(report: Report, layer: str) -> list[Way]:
    """The ways to every number of a layer that `explain_layer` shows, in its order."""
    f = facts_of(report, layer)
    return [item for _, section in SECTIONS for item in section(f) if isinstance(item, Way)]


def lines_of_state(f: Facts) -> Iterator[str]:
    """What the layer is, and its state in words."""
    about = f.layer
    guessed = about["evidence"] == "guessed"
    finest = f"granularity {about['granularity']}, " if about["granularity"] else ""
    yield f"{f.name}: {about.get('state') or MISSING}"
    yield from lines(
        [
            f"{about['status']} ({about['evidence']}), {finest}{about['units']} units, {about['numel']} elements"
            + (f": {about['reason']}" if about.get("reason") else "")
            + ("; what is said below holds if that guess is right" if f.invariant and guessed else ""),
            *([f"advice: {about['advice']}"] if about.get("advice") else []),
        ]
    )
