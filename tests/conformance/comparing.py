"""One sequence against its truth: everything that load_run and `smd-analyze ls --json` say of it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smd_analyze.cli import main
from smd_analyze.errors import SmdError
from smd_analyze.loading.discovery import load_run
from smd_analyze.records.run import Checkpoint, Run

from .arrays import compare_arrays, compare_copies, consistency
from .claims import doubly_claimed, shared_files
from .held import as_numbers, holds
from .hyperparameters import compare_hyperparameters, shown
from .layouts import compare_layouts
from .truth import TrueCheckpoint, Truth, read_truth


@dataclass
class Outcome:
    """What came out for one sequence. `differences` fail the suite; `named` ones are explained and do not."""

    name: str
    format: str = ""
    framework: str = ""
    checkpoints: str = ""
    steps: str = ""
    unit: str = ""
    ordered_by: str = ""
    truth: bool = True
    refusal: str = ""
    counts: Counter[str] = field(default_factory=Counter)
    how: Counter[str] = field(default_factory=Counter)
    roles: Counter[str] = field(default_factory=Counter)
    differences: list[str] = field(default_factory=list)
    named: list[str] = field(default_factory=list)
    findings: list[str] = field(default_factory=list)


def compare(folder: Path, name: str) -> Outcome:
    """Read FOLDER/NAME and compare it with FOLDER/NAME.expected.json, if that is there."""
    out = Outcome(name)
    expected = folder / f"{name}.expected.json"
    out.truth = expected.exists()
    try:
        run = load_run(folder / name)
    except SmdError as problem:
        out.refusal = f"{type(problem).__name__}: {problem}"
        if out.truth:
            out.differences.append(out.refusal)
        return out
    out.format = listed(c.format for c in run.checkpoints)
    out.framework = listed(c.framework for c in run.checkpoints)
    out.unit, out.ordered_by = run.step_unit, run.ordered_by
    out.checkpoints = str(len(run.checkpoints))
    out.steps = " ".join(str(c.step) for c in run.checkpoints)
    out.findings = [f"{f.severity} {f.code}: {f.where}: {f.message}" for f in run.findings]
    out.differences += doubly_claimed(str(folder / name)) + shared_files(run.checkpoints)
    out.differences += listing_differs(run)
    for checkpoint in run.checkpoints:
        out.differences += [f"{short(checkpoint, folder)}: {words}" for words in consistency(checkpoint)]
    if out.truth:
        against_truth(out, run, read_truth(expected), folder)
    return out


def against_truth(out: Outcome, run: Run, truth: Truth, folder: Path) -> None:
    """Number, order, steps, arrays, layouts and hyperparameters of the checkpoints."""
    found = {true.path: matching(true.path, run.checkpoints, folder) for true in truth.checkpoints}
    out.checkpoints = f"{len(run.checkpoints)} of {len(truth.checkpoints)}"
    out.counts["checkpoints"] += len(truth.checkpoints)
    out.differences += [f"{path}: not among the checkpoints" for path, one in found.items() if one is None]
    known = {one.path for one in found.values() if one}
    out.differences += [f"{c.path}: read, but never written" for c in run.checkpoints if c.path not in known]
    pairs = [(one, true) for true in truth.checkpoints if (one := found[true.path]) is not None]
    order = [run.checkpoints.index(one) for one, _ in pairs]
    if order != sorted(order):
        out.differences.append(f"order: read as {', '.join(short(c, folder) for c in run.checkpoints)}")
    compare_steps(out, run, pairs, truth.step_unit)
    for one, true in pairs:
        where = short(one, folder)
        arrays = compare_arrays(one, true)
        out.how.update(arrays.how)
        out.roles.update(arrays.roles)
        out.counts["arrays equal"] += sum(arrays.how.values())
        out.counts["arrays differing"] += len(arrays.differing)
        out.counts["arrays missing"] += len(arrays.missing)
        out.counts["beyond truth"] += len(arrays.beyond)
        out.counts["parameters"] += len(one.parameters)
        out.counts["with optimizer state"] += len(one.optimizer_state)
        grouped = {n for names in run.parameter_groups.values() for n in names}
        out.counts["in a parameter group"] += len(grouped & one.parameters.keys())
        out.differences += [f"{where}: {words}" for words in arrays.differing + arrays.misplaced]
        out.differences += [f"{where}: {n} is missing" for n in arrays.missing]
        if arrays.beyond:
            out.named.append(f"read, and not in the truth: {', '.join(arrays.beyond[:4])}")
        if arrays.uncounted:
            out.named.append(f"counters that were not exported: {', '.join(arrays.uncounted)}")
        right, wrong = compare_copies(one, true, arrays.names)
        out.counts["copies and states equal"] += right
        out.counts["copies and states differing"] += len(wrong)
        out.differences += [f"{where}: {words}" for words in wrong]
        axes = {arrays.names.get(n, n): axis for n, axis in true.axes.items()}
        layouts = compare_layouts(one, truth.libraries, axes)
        out.counts["layouts right"] += layouts.right
        out.counts["layouts wrong"] += len(layouts.wrong) + len(layouts.unknown)
        out.differences += [f"{where}: {words}" for words in layouts.wrong + layouts.unknown]
        hyper = compare_hyperparameters(one.settings, true.hyper)
        out.counts["hyper equal"] += hyper.equal
        out.counts["hyper differing"] += len(hyper.differing)
        out.counts["hyper absent"] += len(hyper.absent)
        out.differences += [f"{where}: {words}" for words in hyper.differing]
        lost = [n for n, v in hyper.absent.items() if any(holds(folder / out.name, one.path, x) for x in as_numbers(v))]
        out.differences += [f"{where}: {n} = {shown(hyper.absent[n])} is in the file and was not found" for n in lost]
        if unsaved := [n for n in hyper.absent if n not in lost]:
            out.named.append(f"stands in no file: {', '.join(unsaved)}")
    out.named = list(dict.fromkeys(out.named))


OWN_COUNT = re.compile(r"optimizer|iterations|num_update")


def compare_steps(out: Outcome, run: Run, pairs: Sequence[tuple[Checkpoint, TrueCheckpoint]], unit: str) -> None:
    """The truth's number, or the batches that the truth's own BatchNorm had counted, which settles the unit.

    A truth that numbers its saves or epochs, or lags behind the optimizer's own count by a constant, is named.
    """
    shift = linear([(true.step, one.step) for one, true in pairs])
    if shift not in (None, (1, 0)) and run.step_unit == "optimizer steps" and OWN_COUNT.search(run.ordered_by):
        more = f"{shift[0]} × its number" + (f" + {shift[1]}" if shift[1] else "")
        out.named.append(f"steps are counted by the optimizer ({run.ordered_by}): {more} in the truth")
        out.counts["steps equal"] += len(pairs)
        return
    for one, true in pairs:
        counter = next((a.first for n, a in true.arrays.items() if n.endswith("num_batches_tracked")), None)
        if true.step is None and not counter:
            continue
        if unit and run.step_unit == unit and one.step == true.step:
            out.counts["steps equal"] += 1
        elif run.step_unit == "optimizer steps" and counter and one.step == counter:
            out.counts["steps equal"] += 1
            if one.step != true.step:
                out.named.append("the truth numbers its saves; steps are those that its own BatchNorm counted")
        elif one.step == true.step:
            out.counts["steps equal"] += 1
            if run.step_unit == "optimizer steps" and counter and counter != one.step:
                out.named.append(f"steps as the writer counts them; BatchNorm counted {counter - one.step:+g}")
            if run.step_unit != "optimizer steps":
                out.named.append(f"steps are {run.step_unit}, as many as in the truth")
        else:
            out.counts["steps differing"] += 1
            said = f", its BatchNorm counted {counter:g}" if counter else ""
            out.differences.append(f"{one.path}: step {one.step} ({run.step_unit}), was {true.step} {unit}{said}")


def linear(pairs: Sequence[tuple[int | None, int]]) -> tuple[int, int] | None:
    """(a, b) if found = a · truth + b throughout, with a = 1 and b = 1, or a > 1 and b = 0; at least two pairs."""
    if len(pairs) < 2 or any(true is None for true, _ in pairs):
        return None
    for factor, more in ((1, 0), (1, 1), (round(pairs[0][1] / pairs[0][0]) if pairs[0][0] else 0, 0)):
        if factor and all(found == factor * (true or 0) + more for true, found in pairs):
            return factor, more
    return None


def matching(path: str, checkpoints: Sequence[Checkpoint], folder: Path) -> Checkpoint | None:
    """The checkpoint at a path of the truth, which may name the folder around it or a stem."""
    for rule in (
        lambda here: here == path,
        lambda here: here.startswith((path + "/", path + ".")),
        lambda here: path.startswith(here + "/"),
    ):
        found = [c for c in checkpoints if rule(short(c, folder))]
        if len(found) == 1:
            return found[0]
    return None


def listing_differs(run: Run) -> list[str]:
    """What `smd-analyze ls --json` prints must be what load_run returns."""
    printed = listing(run.path)
    if isinstance(printed, str):
        return [f"ls --json: {printed}"]
    rows = [(c["step"], c["path"], c["format"], c["framework"]) for c in printed["checkpoints"]]
    read = [(c.step, c.path, c.format, c.framework) for c in run.checkpoints]
    out = [f"ls --json lists {rows}, load_run {read}"] if rows != read else []
    shown = {(s["step"], s["parameter_group"], s["name"], s["value"], s["text"]) for s in printed["settings"]}
    held = {(c.step, s.parameter_group, s.name, s.value, s.text) for c in run.checkpoints for s in c.settings}
    return out + [f"ls --json lacks the setting {one}" for one in sorted(held - shown, key=str)[:3]]


def listing(path: str) -> dict[str, Any] | str:
    """The document that ls prints, or what went wrong in words."""
    told, complaint = io.StringIO(), io.StringIO()
    code: Any = 0
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(complaint):
        try:
            main(["ls", path, "--json"])
        except SystemExit as end:
            code = end.code
    if code:
        return f"exit code {code}: {complaint.getvalue().strip()[-300:]}"
    return json.loads(told.getvalue())


def short(checkpoint: Checkpoint, folder: Path) -> str:
    """The path relative to the folder of all sequences."""
    return os.path.relpath(checkpoint.path, folder)


def listed(words: Any) -> str:
    """Different words, in order."""
    return ", ".join(dict.fromkeys(words))
