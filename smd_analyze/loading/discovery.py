"""load_run(): from a path to a Run. Finds the checkpoints, picks one sequence, orders it, says what is odd."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path

from smd_analyze.errors import NothingToAnalyse, SmdError, UsageError
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.remote_blocks import opened_ahead
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import check_library, open_document
from smd_analyze.loading.frameworks.base import Fact
from smd_analyze.loading.frameworks.described import config_beside
from smd_analyze.loading.reading import Reading, read
from smd_analyze.loading.sequences.choosing import choose
from smd_analyze.loading.sequences.consistent import consistent
from smd_analyze.loading.sequences.name_numbers import varying
from smd_analyze.loading.sequences.opened import Opened, member_of
from smd_analyze.loading.sequences.step_pattern import chosen_by, number_by, step_pattern_of
from smd_analyze.loading.sequences.steps import epochs_of
from smd_analyze.loading.sidecars.attach import with_sidecars
from smd_analyze.loading.tensors.places import LazyTensors, Place, decoded, read_tensor
from smd_analyze.loading.units.folders import open_folder
from smd_analyze.loading.units.twins import with_twin
from smd_analyze.loading.units.walk import Unit, files_of, find_units
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Checkpoint, GraphHint, Run

LEFT_OUT = "It is left out."
FOREIGN = ("text, not", "a single NumPy array")  # not what a save that went wrong leaves behind
CALLED = re.compile(r"\.(pth?|ckpt|bin|pkl|pickle|npz|safetensors|h5|hdf5|keras|msgpack|tar|th|pt2|params)$", re.I)


def load_run(
    path: str | Path,
    *,
    weights: str = "live",
    steps_per_epoch: float | None = None,
    steps: str | None = None,
    run: str | None = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    order: str = "auto",
    step_pattern: str | None = None,
) -> Run:
    """Find the checkpoints under `path` (a folder, or one file) and order them. No tensor is read.

    `weights` picks the copy that is analysed: "live", "ema" or "master". `steps_per_epoch` turns epochs into optimizer
    steps. `steps="A:B"` keeps the checkpoints from step A to step B, both included. `run` names one of several
    sequences in the tree. `include` and `exclude` are globs on parameter names. `order` picks what the checkpoints are
    ordered by (one of order_sources.ORDERS); `step_pattern` is a regular expression on their paths whose group is the
    step (or, if it is called so, the epoch): it wins over all else, and files it does not match are left out.
    Unreadable files are findings; NothingToAnalyse if nothing readable remains.
    """
    root = str(path)
    if root.encode("utf-8", "replace").decode() != root:
        shown = root.encode("utf-8", "backslashreplace").decode()
        raise UsageError(f"{shown}: the path is not valid UTF-8; rename the folder")
    root = listing.root_of(root)
    pattern = step_pattern_of(step_pattern, order)
    units, findings = find_units(root)
    if pattern is not None:
        units, left = chosen_by(pattern, units, root)
        findings += left
    single = len(units) == 1 and units[0].path == root and not units[0].folder
    opened, unread = open_units(units, weights, strict=single)
    findings += unread
    if pattern is not None:
        opened = [replace(one, number=number_by(pattern, one.unit.name)) for one in opened]
    if not opened:
        raise nothing(root, units, findings)
    findings = [f for f in findings if not is_foreign_text(f)]
    sequence = choose(opened, root, run, order, steps_per_epoch)
    members, numbers = sequence.members, sequence.steps
    chosen = within(steps, numbers)
    findings += [*sequence.findings, *shared_findings(members)]
    readings, odd = consistent([members[i] for i in chosen], include, exclude)
    findings += odd
    checkpoints = build(members, chosen, numbers, readings)
    groups, last = groups_of(readings), members[chosen[-1]].unit
    graphs = graphs_of(readings) or config_beside(last.path, last.folder, root)
    found = Run(
        root, checkpoints, sequence.ordered_by, sequence.unit, tuple(unique(findings)), groups, sequence.aliases,
        graphs, runs=sequence.runs,
    )  # fmt: skip
    told = [member_of(members[i]) for i in chosen]
    named = varying([m.name for m in told])
    return with_sidecars(found, readings, told, epochs_of(told, named), named, steps_per_epoch, sequence.others)


def open_units(units: Sequence[Unit], weights: str, strict: bool) -> tuple[list[Opened], list[Finding]]:
    """Read every unit. Documents of one layout share one tree and one Reading."""
    opened: list[Opened] = []
    findings: list[Finding] = []
    previous: dict[str, tuple[Document, Reading]] = {}
    refused: UsageError | None = None
    far = bool(units) and listing.is_far(units[0].path)
    for unit in opened_ahead(units, files_of) if far else units:
        try:
            document, beside = open_unit(unit, previous)
            findings += beside
            before = previous.get(document.format)
            reading = before[1] if before and before[0].tree is document.tree else read(document, weights)
            if before and before[1] is not reading:
                reading = share(reading, before[1])
            previous[document.format] = (document, reading)
            one = with_numbers(Opened(unit, document.format, document.files, reading))
        except UsageError as problem:  # no such copy of the weights, a missing library: fatal if true of all
            refused = problem
            findings.append(unread(unit, problem))
            continue
        except (SmdError, OSError) as problem:
            if strict and isinstance(problem, SmdError):
                raise
            findings.append(unread(unit, problem))
            continue
        if reading.parameters:
            opened.append(one)
        elif strict:
            raise NothingToAnalyse(
                f"{unit.path}: holds no weights (floating point tensors outside an optimizer's state)"
            )
        else:
            findings.append(Finding("no-weights", "note", unit.path, "holds no weights: left out"))
    if refused is not None and not opened:
        raise refused
    return opened, findings


def with_numbers(one: Opened) -> Opened:
    """The same with facts and batches as numbers: those that lie in a tensor are read."""
    facts: list[Fact] = []
    for fact in one.reading.facts:
        value = scalar(fact.value, one.files) if isinstance(fact.value, Place) else fact.value
        if value is not None:
            facts.append(replace(fact, value=value))
    counter = one.reading.counter
    batches = scalar(counter, one.files) if counter is not None else None
    reading = one.reading
    if reading.unread:
        known = {s: number_in(place, one.files) for s, place in reading.unread.items()}
        settings = (replace(s, value=known[s]) if s in known else s for s in reading.settings)
        reading = replace(reading, settings=tuple(s for s in settings if s.value is not None or s.text is not None))
    return replace(one, reading=reading, facts=tuple(facts), batches=None if batches is None else int(batches))


def open_unit(unit: Unit, previous: Mapping[str, tuple[Document, Reading]]) -> tuple[Document, list[Finding]]:
    """One file or folder as a document."""
    if unit.form:
        check_library(unit.path, unit.form)
        before = previous.get(unit.form.name)
        return unit.form.open(unit.path, unit.files, before[0] if before else None)
    if unit.folder:
        before = next((d for d, _ in previous.values() if d.folder), None)
        return open_folder(unit.path, unit.files, before)
    with open_source(unit.path) as source:
        document = open_document(source, {f: d for f, (d, _) in previous.items() if not d.folder})
    return with_twin(document, unit.twin) if unit.twin else (document, [])


def unread(unit: Unit, problem: Exception) -> Finding:
    """A unit that could not be read, as a finding: the rest goes on."""
    words = str(problem).removeprefix(f"{unit.path}: ")
    code = {"UnknownFormat": "not-a-checkpoint", "DamagedFile": "damaged-file", "UnsafeFile": "unsafe-file"}
    severity = "note" if type(problem).__name__ == "UnknownFormat" and words.startswith(FOREIGN) else "warning"
    return Finding(code.get(type(problem).__name__, "unreadable-file"), severity, unit.path, words, LEFT_OUT)


def is_foreign_text(finding: Finding) -> bool:
    """Of a text file that is not even called like a checkpoint: said only where nothing else is found."""
    return finding.message.startswith(FOREIGN[0]) and not CALLED.search(finding.where)


def share(reading: Reading, before: Reading) -> Reading:
    """The same reading with mappings that equal the previous one's replaced by those: one copy for the sequence."""
    same = {}
    for name in ("parameters", "buffers", "variants", "optimizer_state", "parameter_groups"):
        if getattr(reading, name) == getattr(before, name):
            same[name] = getattr(before, name)
    return replace(reading, **same)


def nothing(root: str, units: Sequence[Unit], findings: Sequence[Finding]) -> NothingToAnalyse:
    """The error for a folder without a readable checkpoint: what was seen, and what to do."""
    if not units and not findings:
        return NothingToAnalyse(f"{root}: holds no checkpoints (torch.save files, safetensors, Hugging Face folders)")
    alike: dict[str, list[Finding]] = {}
    for finding in findings:
        alike.setdefault(finding.message, []).append(finding)
    seen = []
    for words, found in list(alike.items())[:4]:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        remedy = f" {found[0].remedy}" if found[0].remedy and found[0].remedy != LEFT_OUT else ""
        seen.append(f"{Path(found[0].where).name}{more}: {words}.{remedy}")
    return NothingToAnalyse(f"{root}: no checkpoint could be read. {' '.join(seen)}")


def scalar(place: Place, files: Sequence[FileId]) -> float | None:
    """The one number of a tensor, if it is a whole one."""
    value = float(read_tensor(place, files).reshape(-1)[0])
    return value if value == value and abs(value) < 2**62 and value == int(value) else None


def number_in(place: Place, files: Sequence[FileId]) -> float | None:
    """The one number of a tensor, as short as its type writes it (0.1 for float32's 0.10000000149)."""
    value = float(str(decoded(read_tensor(place, files), place.dtype).reshape(-1)[0]))
    return value if isfinite(value) else None


def within(steps: str | None, numbers: Sequence[int]) -> list[int]:
    """Indices of the steps inside "A:B" (both ends included, either may be missing)."""
    if steps is None:
        return list(range(len(numbers)))
    low, colon, high = steps.partition(":")
    try:
        start = int(low) if low.strip() else None
        stop = int(high) if high.strip() else None
    except ValueError:
        colon = ""
        start = stop = None
    if not colon:
        raise UsageError(f"steps must be A:B, two step numbers or one of them, not {steps!r}")
    chosen = [i for i, n in enumerate(numbers) if (start is None or n >= start) and (stop is None or n <= stop)]
    if not chosen:
        raise UsageError(f"no checkpoint lies in steps {steps}; they go from {numbers[0]} to {numbers[-1]}")
    return chosen


def shared_findings(members: Sequence[Opened]) -> list[Finding]:
    """What every member says about itself, said once where it is the same for all."""
    out: dict[tuple[str, str], Finding] = {}
    for one in members:
        for finding in one.reading.findings:
            out.setdefault((finding.code, finding.message), finding)
    return list(out.values())


def build(
    members: Sequence[Opened], chosen: Sequence[int], numbers: Sequence[int], readings: Sequence[Reading]
) -> tuple[Checkpoint, ...]:
    """The records."""
    out: list[Checkpoint] = []
    for index, reading in zip(chosen, readings, strict=True):
        one = members[index]
        files = one.files
        out.append(
            Checkpoint(
                step=numbers[index],
                path=one.unit.path,
                format=one.format,
                framework=reading.framework,
                parameters=LazyTensors(reading.parameters, files),
                settings=reading.settings,
                nbytes=sum(f.size for f in files),
                buffers=LazyTensors(reading.buffers, files),
                variants={label: LazyTensors(copy, files) for label, copy in reading.variants.items()},
                optimizer_state={n: LazyTensors(s, files) for n, s in reading.optimizer_state.items()},
                identity={f.path: (f.size, f.stamp) for f in files},
            )
        )
    return tuple(out)


def groups_of(readings: Sequence[Reading]) -> Mapping[str, tuple[str, ...]]:
    """Parameter group → parameters, from the first checkpoint that knows most; parameters left out are dropped.

    A group that was added to the optimizer on the way (a backbone that was frozen at first) counts.
    """
    best: dict[str, tuple[str, ...]] = {}
    for reading in readings:
        kept = {g: tuple(n for n in names if n in reading.parameters) for g, names in reading.parameter_groups.items()}
        if sum(map(len, kept.values())) > sum(map(len, best.values())):
            best = {g: names for g, names in kept.items() if names}
    return best


def graphs_of(readings: Sequence[Reading]) -> tuple[GraphHint, ...]:
    """Descriptions of the model, from the latest checkpoint that has any."""
    return next((reading.graphs for reading in reversed(readings) if reading.graphs), ())


def unique(findings: Iterable[Finding]) -> list[Finding]:
    """Each finding once, in order."""
    return list(dict.fromkeys(findings))
