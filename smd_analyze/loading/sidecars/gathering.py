"""What lies beside the checkpoints of one run: read once, the nearest file first, as the files say it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from smd_analyze.errors import SmdError
from smd_analyze.loading import listing
from smd_analyze.loading.configured import configured_settings
from smd_analyze.loading.sidecars.base import Noted, Reader
from smd_analyze.loading.sidecars.columns import sorted_series
from smd_analyze.loading.sidecars.names import words
from smd_analyze.loading.sidecars.places import files_of, levels
from smd_analyze.loading.sidecars.registry import reader_of
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Setting

TELLING = frozenset((
    "config", "configs", "cfg", "conf", "args", "arg", "arguments", "opt", "opts", "options", "hyp", "hparams",
    "hparam", "hyperparameters", "hyperparams", "params", "param", "settings", "setup", "train", "training", "trainer",
    "ds", "deepspeed", "experiment", "exp", "flags", "run", "recipe", "history", "log", "logs", "scalars", "metrics",
    "state", "stats", "results", "progress", "summary",
))  # fmt: skip
NO_RUNS = frozenset(("tokenizer", "vocab", "data", "dataset", "labels", "classes"))


class Series(NamedTuple):
    """A logged series and the file that it stands in, as it is told to people."""

    noted: Noted
    source: str


@dataclass(frozen=True)
class Gathered:
    """`settings` as configured, each name by the nearest file that says it; `logs` of the nearest folder with any."""

    settings: tuple[Setting, ...] = ()
    logs: tuple[Series, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass
class _Collected:
    settings: dict[str, Setting] = field(default_factory=dict)
    logs: list[Series] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def gather(path: str, folder: bool, root: str, histories: bool = False) -> Gathered:
    """Everything beside the checkpoint at `path`. `histories`: its trainer_state.json has been read already."""
    out = _Collected()
    came_from = os.path.basename(path.rstrip("/"))  # noqa: PTH119 - paths are text throughout loading
    logged: set[str] = set()
    for level in levels(path, folder, root):
        here: list[Series] = []
        found = [(name, file, r) for name, file in files_of(level, came_from) if (r := reader_of(name)) is not None]
        for name, file, reader in sorted(found, key=lambda f: (not f[2].known(f[0]), f[0].count("/"))):
            if telling(name, reader) and not (histories and name.endswith("trainer_state.json")):
                take(out, here, name, file, reader, shown(file, root))
        out.logs += [s for s in joined(here) if s.noted.name not in logged]
        logged |= {s.noted.name for s in here}
        came_from = os.path.basename(level.rstrip("/"))  # noqa: PTH119
    return Gathered(tuple(out.settings.values()), tuple(out.logs), tuple(out.findings))


def telling(name: str, reader: Reader) -> bool:
    """A trainer's own name, or one that says what the file is about."""
    found = set(words(name.rpartition("/")[2].rpartition(".")[0]))
    return reader.known(name) or bool(found & TELLING and not found & NO_RUNS)


def shown(file: str, root: str) -> str:
    """The file's path as seen from the run's folder."""
    return os.path.relpath(file, root if listing.is_folder(root) else os.path.dirname(root) or ".")  # noqa: PTH120


def take(out: _Collected, here: list[Series], name: str, file: str, reader: Reader, where: str) -> None:
    """One file's settings and logs, or a finding why it cannot be read."""
    try:
        sidecar = reader.read(file)
        settings = configured_settings(sidecar.settings, where) if sidecar.settings else []
    except (SmdError, OSError) as problem:
        if reader.known(name):
            text = str(problem).removeprefix(f"{file}: ")
            out.findings.append(Finding("unreadable-sidecar", "note", file, text, "Its settings are not used."))
        return
    here += [Series(noted, where) for noted in sidecar.logs if noted.at]
    if sidecar.remark:
        out.findings.append(Finding("sidecar-not-read", "note", file, sidecar.remark))
    told: list[str] = []
    for setting in settings:
        before = out.settings.setdefault(setting.name, setting)
        if before is not setting and (before.value, before.text) != (setting.value, setting.text):
            told.append(f"{setting.name} is {said(setting)}, but {said(before)} in {before.source}")
    if told:
        message = "; ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")
        out.findings.append(Finding("sidecars-disagree", "note", file, message, "The nearer file is taken."))


def said(setting: Setting) -> str:
    """A setting's value as text."""
    return setting.text if setting.text is not None else f"{setting.value:g}"


def joined(here: list[Series]) -> list[Series]:
    """Event files of one folder are one log: a resumed run opens another. A later file takes back what it repeats."""
    events: dict[tuple[str, str], list[Series]] = {}
    out: list[Series] = []
    for series in here:
        folder, _, name = series.source.rpartition("/")
        if "tfevents" not in name:
            out.append(series)
            continue
        same = events.setdefault((folder, series.noted.key), [])
        if not same:
            out.append(series)
        same.append(series)
    for i, series in enumerate(out):
        folder, _, name = series.source.rpartition("/")
        same = sorted(events.get((folder, series.noted.key), ()), key=lambda s: s.source) if "tfevents" in name else ()
        if len(same) > 1:
            first = series.noted
            pairs = [pair for s in same for pair in zip(s.noted.at, s.noted.values, strict=True)]
            made = sorted_series(first.name, first.key, first.unit, pairs, first.applies, first.mean)
            out[i] = Series(made, same[-1].source)
    return [s._replace(noted=replace(s.noted, key=full_key(s))) for s in out]


def full_key(series: Series) -> str:
    """add_scalars writes every line into a folder of its own: its name is part of the key."""
    folder = series.source.rpartition("/")[0].rpartition("/")[2]
    key = series.noted.key
    return f"{folder}/{key}" if "tfevents" in series.source and key.replace("/", "_") in folder else key
