"""What lies beside the checkpoints of one run: read once, the nearest file first, as the files say it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from smd_analyze.errors import SmdError
from smd_analyze.loading.files import listing
from smd_analyze.loading.settings.configured import configured_settings
from smd_analyze.loading.settings.key_words import words
from smd_analyze.loading.sidecars.base import Noted, Reader
from smd_analyze.loading.sidecars.columns import sorted_series
from smd_analyze.loading.sidecars.places import files_of
from smd_analyze.loading.sidecars.registry import reader_of
from smd_analyze.loading.units.surroundings import inside, left_behind, levels, shared
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import Checkpoint, Setting

TELLING = frozenset((
    "config", "configs", "cfg", "conf", "args", "arg", "arguments", "opt", "opts", "options", "hyp", "hparams",
    "hparam", "hyperparameters", "hyperparams", "params", "param", "settings", "setup", "train", "training", "trainer",
    "ds", "deepspeed", "experiment", "exp", "flags", "run", "recipe", "history", "log", "logs", "scalars", "metrics",
    "state", "stats", "results", "progress", "summary",
))  # fmt: skip
CORE = frozenset(("optimizer", "learning_rate", "weight_decay", "momentum", "beta1", "beta2"))
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


def gather(
    checkpoint: Checkpoint, folder: bool, root: str, histories: bool, mine: Sequence[str], others: Sequence[str]
) -> Gathered:
    """Everything beside the checkpoint. `histories`: its trainer_state.json has been read already.

    `mine` and `others` are the paths of this run's checkpoints and of other runs', as seen from the root. The walk up
    ends where another run's home begins; of a folder above several runs only its own files are read.
    """
    out = _Collected()
    path, base = checkpoint.path, root if listing.is_folder(root) else os.path.dirname(root) or "."  # noqa: PTH120
    own = {s.name: s for s in checkpoint.settings if s.kind == "configured" and s.parameter_group == ""}
    came_from = os.path.basename(path.rstrip("/"))  # noqa: PTH119 - paths are text throughout loading
    logged: set[str] = set()
    alone = True
    for at, level in enumerate(levels(path, folder, root)):
        above = not inside(level, base)
        if at and not above and left_behind(level, root, mine, others):
            break
        alone = alone and (above or not shared(level, root, mine, others))
        here: list[Series] = []
        found = [(n, file, r) for n, file in files_of(level, came_from, alone) if (r := reader_of(n)) is not None]
        said: list[tuple[str, list[Setting]]] = []
        for name, file, reader in sorted(found, key=lambda f: (not f[2].known(f[0]), f[0].count("/"))):
            if not telling(name, reader) or (histories and name.endswith("trainer_state.json")):
                continue
            if reader.known(name) or not above:
                said.append((file, take(out, here, name, file, reader, shown(file, root))))
        near = {**out.settings, **own}
        if folder and at == 1:  # beside one checkpoint lies the learning rate of its step, not that of the run
            near.pop("learning_rate", None)
        for file, settings in without_sisters(out, said):
            wrong = at > 0 and [s for s in settings if s.name in CORE and differs(s, near.get(s.name))]
            if wrong:
                words = f"{words_of(wrong[0], near[wrong[0].name])}: of another run, or out of date"
                remark = Finding("sidecars-disagree", "note", file, words, "It is not used; the nearer file is.")
                out.findings += [remark] if alone else []
                continue
            keep(out, file, settings)
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


def take(out: _Collected, here: list[Series], name: str, file: str, reader: Reader, where: str) -> list[Setting]:
    """One file's settings; its logs are added to `here`. Or a finding why a trainer's file cannot be read."""
    try:
        sidecar = reader.read(file)
        settings = configured_settings(sidecar.settings, where) if sidecar.settings else []
    except (SmdError, OSError) as problem:
        if reader.known(name):
            text = str(problem).removeprefix(f"{file}: ")
            out.findings.append(Finding("unreadable-sidecar", "note", file, text, "Its settings are not used."))
        return []
    here += [Series(noted, where) for noted in sidecar.logs if noted.at]
    if sidecar.remark:
        out.findings.append(Finding("sidecar-not-read", "note", file, sidecar.remark))
    return settings


def without_sisters(out: _Collected, said: Sequence[tuple[str, list[Setting]]]) -> list[tuple[str, list[Setting]]]:
    """The files' settings without those on which the same file of sister folders (a logger's runs) disagrees.

    Which of the sisters belongs to these checkpoints is not known.
    """
    families: dict[tuple[str, str], list[tuple[str, list[Setting]]]] = {}
    for file, settings in said:
        parts = listing.real_path(file).split("/")
        for i in range(len(parts) - 4, len(parts) - 1):
            families.setdefault(("/".join(parts[:i]), "/".join(parts[i + 1 :])), []).append((file, settings))
    doubtful: set[int] = set()
    for family in families.values():
        values: dict[str, dict[tuple[float | None, str | None], str]] = {}
        for file, settings in family:
            for s in settings:
                values.setdefault(s.name, {}).setdefault((s.value, s.text), file)
        unsure = {name: list(files.values()) for name, files in values.items() if len(files) > 1}
        doubtful |= {id(s) for _, settings in family for s in settings if s.name in unsure}
        if unsure:
            name, files = next(iter(unsure.items()))
            words = f"{', '.join(list(unsure)[:4])}: another value than in {files[0]}, and which run these checkpoints are of is not said"  # noqa: E501
            remedy = "Neither is used; name it with --lr and the like, or --settings run.toml."
            out.findings.append(Finding("sidecars-disagree", "note", files[1], words, remedy))
    return [(file, [s for s in settings if id(s) not in doubtful]) for file, settings in said]


def keep(out: _Collected, file: str, settings: Sequence[Setting]) -> None:
    """Settings that no nearer file has said; a finding where one said otherwise."""
    told: list[str] = []
    for setting in settings:
        before = out.settings.setdefault(setting.name, setting)
        if before is not setting and differs(setting, before):
            told.append(words_of(setting, before))
    if told:
        message = "; ".join(told[:3]) + (f" and {len(told) - 3} more" if len(told) > 3 else "")
        out.findings.append(Finding("sidecars-disagree", "note", file, message, "The nearer file is taken."))


def differs(setting: Setting, other: Setting | None) -> bool:
    """The other one says something else."""
    return other is not None and (other.value, (other.text or "").lower()) != (
        setting.value,
        (setting.text or "").lower(),
    )


def words_of(setting: Setting, before: Setting) -> str:
    """What two files say."""
    return f"{setting.name} is {value_of(setting)}, but {value_of(before)} in {before.source}"


def value_of(setting: Setting) -> str:
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
