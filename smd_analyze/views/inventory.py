"""What was found: the checkpoints and hyperparameters of a Run."""

from __future__ import annotations

import re

from rich.console import Console
from rich.text import Text

from smd_analyze.records.run import Run, Setting
from smd_analyze.views.grid import grid
from smd_analyze.views.layers import NARROW
from smd_analyze.views.text import counted, given, shorten, size

ENDS = 6  # checkpoints shown at each end of a long run


def print_run(run: Run, console: Console, *, verbose: int = 0) -> None:
    """The checkpoints (shortened in the middle unless `verbose`), the hyperparameters with their source, the labels."""
    found = run.checkpoints
    head = f"{run.path}: {counted(len(found), 'checkpoint')}"
    if len(found) > 1:
        head += f", {run.step_unit} {found[0].step} to {found[-1].step}, ordered by {run.ordered_by}"
    elif found and run.step_unit != "saves":
        head += f", at {found[0].step} {run.step_unit}, by {run.ordered_by}"
    elif found:
        head += ", at an unknown step"
    console.print(Text(head, style="bold"))
    if not found:
        return
    gap = max(0, len(found) - 2 * ENDS)
    gap = gap if gap > 1 and not verbose else 0
    room = max(20, console.width - 60)
    rows = [
        (str(c.step), shorten(c.path.removeprefix(run.path.rstrip("/") + "/"), room), c.format, c.framework,
         str(len(c.parameters)), size(c.nbytes))
        for c in ([*found[:ENDS], *found[ENDS + gap :]] if gap else found)
    ]  # fmt: skip
    if gap:
        rows.insert(ENDS, ("…", f"{gap} more; -v shows all", "", "", "", ""))
    console.print(grid(("step", "path", "format", "trainer", "tensors", "size"), ("step", "tensors", "size"), rows))
    console.print()
    _print_settings(run, console)
    for name, target in run.aliases.items():
        console.print(Text(f"{name} is {target}"))
    _print_runs(run, console, bool(verbose))


def _print_runs(run: Run, console: Console, every: bool) -> None:
    """The other sequences of the tree, by the names that --run takes."""
    if len(run.runs) < 2:
        return
    shown = list(run.runs.items())[: None if every else 2 * ENDS]
    rows = [("→" if i == 0 else "", name, str(count)) for i, (name, count) in enumerate(shown)]
    if len(shown) < len(run.runs):
        rows.append(("", f"… {len(run.runs) - len(shown)} more; -v shows all", ""))
    console.print()
    told = f"{len(run.runs)} sequences lie in this folder; the first is shown. Name another one: --run NAME"
    console.print(Text(told, style="bold"))
    console.print(grid(("", "--run", "checkpoints"), ("checkpoints",), rows, fixed=("--run",)))


def _print_settings(run: Run, console: Console) -> None:
    last: dict[tuple[str, str, str], Setting] = {}
    seen: dict[tuple[str, str, str], list[str]] = {}
    for name, parameters in run.parameter_groups.items():
        some = ", ".join(parameters[:3]) + (", …" if len(parameters) > 3 else "")
        console.print(Text(f"parameter group {name}: {counted(len(parameters), 'tensor')}: {some}"))
    for c in run.checkpoints:
        for s in c.settings:
            if s.name.startswith("schedule._"):  # a scheduler's private parts, as JSON
                continue
            key = (s.parameter_group, s.name, s.kind)
            last[key] = s
            value = s.text or given(s.value)
            if value not in seen.setdefault(key, []):
                seen[key].append(value)
    if not last:
        told = "No hyperparameter was found in the files: smd-analyze schedule may read the decay off the weights."
        console.print(Text(told))
        return
    merged: dict[tuple[str, ...], list[str]] = {}  # what several parameter groups share stands once
    for key, s in sorted(last.items(), key=lambda item: item[0][0]):
        values = seen[key]
        text = values[0] if len(values) == 1 else f"{values[0]} … {values[-1]}"
        if len(values) > 2:
            text += f" ({len(values)} values)"
        source = re.sub(r"\[\d+\]", "", s.source)
        merged.setdefault((s.name, text, f"{s.kind}: {source}"), []).append(s.parameter_group or "every")
    heads = ("group", "hyperparameter", "value", "where it stands")
    shown = 4 if console.width >= NARROW else 3
    rows = [(", ".join(names), *cells)[:shown] for cells, names in merged.items()]
    console.print(grid(heads[:shown], (), rows, fixed=heads[:3]))
