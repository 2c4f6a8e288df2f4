"""The text behind `groups --why NAME`: one parameter's verdict and the way to it, in words."""

from __future__ import annotations

from difflib import get_close_matches
from fnmatch import fnmatchcase

from smd_analyze.errors import UsageError
from smd_analyze.records.group import Groups, ParameterVerdict

MEANING = {
    "invariant": "its scale does not change the output",
    "jointly invariant": "its scale does not change the output if the whole set is scaled together",
    "not invariant": "its scale matters, as far as can be told",
    "dead": "it has no influence on the output: it feels no gradient, only weight decay",
    "unknown": "nothing can be said for sure",
}
GRANULARITY = {
    "unit": "each output unit may be scaled alone",
    "block": "each block of units (a head, a norm group) may be scaled alone",
    "whole": "only the tensor as a whole",
}
EVIDENCE = {
    "proved": "on the model's graph, for eps → 0 and normalization as in training",
    "not proved": "the graph shows no invariance, which does not prove that there is none",
    "guessed": "from names and shapes; give --model to have it proved",
    "confirmed": "numerically, at the probed points",
    "proved and confirmed": "on the graph, and numerically",
    "refuted": "by a numerical counter-example",
}


MOST = 40  # parameters of one glob that are explained


def explain(groups: Groups, name: str) -> str:
    """A few lines on one parameter or group, or on all that a glob matches: verdict, granularity, evidence, reason.

    Raises UsageError, with close matches, for a name that is neither.
    """
    members = {m.parameter for g in groups.groups if g.name == name for m in g.members}
    rows = [r for r in groups.parameters if name in (r.parameter, r.group) or r.parameter in members]
    rows = rows or [r for r in groups.parameters if fnmatchcase(r.parameter, name) or fnmatchcase(r.group, name)]
    if not rows:
        known = list(dict.fromkeys([r.parameter for r in groups.parameters] + [g.name for g in groups.groups]))
        close = get_close_matches(name, known, n=3, cutoff=0.5) or [k for k in known if name in k][:3]
        hint = "close: " + ", ".join(close) if close else "`smd-analyze groups` lists them"
        raise UsageError(f"no parameter or group is called {name!r}; {hint}")
    more = [f"… {len(rows) - MOST} more"] if len(rows) > MOST else []
    return "\n".join([*(line for row in rows[:MOST] for line in _lines(groups, row)), *more])


def _status(row: ParameterVerdict) -> str:
    """The status, and how sure it is."""
    if row.evidence == "guessed" and row.status != "unknown":
        return f"presumably {row.status}"
    return "not shown to be invariant" if row.evidence == "not proved" else row.status


def _lines(groups: Groups, row: ParameterVerdict) -> list[str]:
    title = row.parameter + (f"[{row.slice}]" if row.slice else "")
    lines = [f"{title}: {_status(row)} — {MEANING[row.status]}"]
    shape = " × ".join(map(str, row.shape)) or "scalar"
    lines.append(
        f"  shape        {shape}, {row.role}"
        + (f", parameter group {row.parameter_group}" if row.parameter_group else "")
    )
    group = next((g for g in groups.groups if g.name == row.group), None)
    if row.granularity:
        units = f"; {group.units} of them" if group and group.units > 1 else ""
        meaning = GRANULARITY[row.granularity]
        meaning = meaning.replace("the tensor", "the set") if row.status == "jointly invariant" else meaning
        lines.append(f"  granularity  {row.granularity}: {meaning}{units}")
    lines.append(f"  because      {row.reason}")
    lines.append(f"  evidence     {row.evidence}: {EVIDENCE[row.evidence]}")
    lines.append(f"  rests on     {groups.source}")
    if group and len(group.members) > 1:
        lines.append("  scaled with  " + ", ".join(m.parameter for m in group.members if m.parameter != row.parameter))
    for t in groups.translations:
        if t.parameter == row.parameter and t.functional != "whole":  # a dead tensor was told so already
            axes = "axis " + str(t.axes[0]) if len(t.axes) == 1 else "axes " + ", ".join(map(str, t.axes))
            told = f"its {t.functional} ({axes}) feels no gradient: {t.reason}"
            lines.append(f"  decay clock  {told}" + (f", {t.assumed}" if t.assumed else ""))
    lines.append(f"  group        {row.group or 'not analysed: name it with --include to see its trajectory'}")
    return lines
