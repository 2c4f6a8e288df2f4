"""The caller's word: hyperparameters and a learning-rate schedule, from a mapping or a TOML file, checked by key."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smd_analyze.errors import UsageError
from smd_analyze.schedule.decay_rules import ALIASES as RULES
from smd_analyze.schedule.decay_rules import rule_named
from smd_analyze.schedule.names import DEFAULTS, OTHERS, normal

Value = float | bool | str

ALIASES = {"lr": "learning_rate"}
WORDS = ("optimizer", "decay_rule")
SWITCHES = ("nesterov", "decoupled", "rate_in_velocity")
BOUNDS: dict[str, tuple[float, float, str]] = {
    "learning_rate": (0.0, math.inf, "a number >= 0"),
    "weight_decay": (0.0, math.inf, "a number >= 0"),
    "momentum": (0.0, 1.0, "a number in [0, 1)"),
    "dampening": (0.0, 1.0 + 1e-12, "a number in [0, 1]"),
    "beta1": (0.0, 1.0, "a number in [0, 1)"),
    "beta2": (0.0, 1.0, "a number in [0, 1)"),
    "eps": (0.0, math.inf, "a number >= 0"),
}
KEYS = (*WORDS, *BOUNDS, *SWITCHES)
KINDS = ("constant", "steps", "cosine", "linear")
SCHEDULE_KEYS = ("kind", "steps", "learning_rate", "total_steps", "warmup_steps", "min_learning_rate")


@dataclass(frozen=True)
class ScheduleTable:
    """The `[schedule]` table. Steps count in the run's own step unit.

    kind "steps": `learning_rate[i]` holds for the updates after `steps[i]` until `steps[i+1]`; with one value more
    than steps, the first one holds from the start. kind "cosine" and "linear": from the learning rate down to
    `min_learning_rate` at `total_steps`, after a linear warm-up over `warmup_steps`.
    """

    kind: str
    steps: tuple[float, ...] = ()
    learning_rate: tuple[float, ...] = ()
    total_steps: float = 0.0
    warmup_steps: float = 0.0
    min_learning_rate: float = 0.0


@dataclass(frozen=True)
class CallerSettings:
    """What the caller said: values for every parameter, values per glob of parameter names, a schedule.

    `groups` keeps the caller's order: the first glob that matches a parameter wins.
    """

    values: Mapping[str, Value] = field(default_factory=dict)
    groups: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    schedule: ScheduleTable | None = None
    steps_per_epoch: float | None = None


def read_settings(settings: Mapping[str, Any] | str | Path | None) -> CallerSettings:
    """Check a mapping, or the TOML file at a path, and return what it says.

    Raises UsageError naming the key and what is allowed there.
    """
    if settings is None:
        return CallerSettings()
    where = "settings"
    if isinstance(settings, (str, Path)):
        where = str(settings)
        settings = load_toml(Path(settings))
    if not isinstance(settings, Mapping):
        raise UsageError(f"settings: a mapping, a path to a TOML file or None is needed, not {type(settings).__name__}")
    plain = {k: v for k, v in settings.items() if k not in ("groups", "schedule", "steps_per_epoch")}
    values = _values(plain, where, extra=("groups", "schedule", "steps_per_epoch"))
    groups = _table(settings.get("groups", {}), f"{where}: groups")
    by_glob = {
        str(g): _values(_table(t, f"{where}: groups.{g!r}"), f"{where}: groups.{g!r}") for g, t in groups.items()
    }
    schedule = None
    if "schedule" in settings:
        schedule = _schedule(_table(settings["schedule"], f"{where}: schedule"), values, f"{where}: schedule")
    per_epoch = None
    if settings.get("steps_per_epoch") is not None:
        per_epoch = _number(settings["steps_per_epoch"], f"{where}: steps_per_epoch", 0.0, math.inf, "a number > 0")
        if per_epoch == 0:
            raise UsageError(f"{where}: steps_per_epoch = 0 is not allowed; a number > 0 is needed")
    return CallerSettings(values, by_glob, schedule, per_epoch)


def merged(path: Path | None, said: Mapping[str, Any]) -> Mapping[str, Any] | Path | None:
    """The settings file with the command line's own words over it: what is said last and closest wins."""
    if path is None or not said:
        return said or path
    said = {ALIASES.get(key, key): value for key, value in said.items()}
    table = {key: value for key, value in load_toml(path).items() if ALIASES.get(key, key) not in said}
    return {**table, **said}


def load_toml(path: Path) -> dict[str, Any]:
    """The tables of a settings file. Raises UsageError if it cannot be read as TOML."""
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise UsageError(f"{path}: the settings file cannot be read: {error.strerror or error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: the settings file is not valid TOML: {error}") from error


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{where}: a table is needed, not {value!r}")
    return value


def _values(table: Mapping[str, Any], where: str, extra: Sequence[str] = ()) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for key, value in table.items():
        name = ALIASES.get(key, key)
        if value is None:  # an option that was not given
            continue
        if name in values:
            raise UsageError(f"{where}: {key!r} says learning_rate a second time; give one of lr and learning_rate")
        if name in WORDS:
            values[name] = _word(name, value, f"{where}: {key}")
        elif name in SWITCHES:
            if not isinstance(value, bool):
                raise UsageError(f"{where}: {key} = {value!r} is not allowed; true or false is needed")
            values[name] = value
        elif name in BOUNDS:
            values[name] = _number(value, f"{where}: {key}", *BOUNDS[name])
        else:
            allowed = ", ".join((*KEYS, "lr", *extra))
            raise UsageError(f"{where}: unknown key {key!r}; allowed are {allowed}")
    if values.get("decoupled") is False and str(values.get("optimizer", "")).lower() in (
        "adamw",
        "sgdw",
        "lion",
        "muon",
    ):
        raise UsageError(
            f"{where}: decoupled = false contradicts optimizer = {values['optimizer']!r}; "
            "drop one of them, or name the optimizer 'adam' or 'sgd'"
        )
    return values


def _word(name: str, value: Any, where: str) -> str:
    """The optimizer as it was written, or the decay rule in full."""
    example = "a name such as 'sgd' or 'adamw'" if name == "optimizer" else f"one of {', '.join(RULES)}"
    if not isinstance(value, str) or not value.strip():
        raise UsageError(f"{where} = {value!r} is not allowed; {example} is needed")
    if name == "decay_rule":
        rule = rule_named(value)
        if rule is None:
            raise UsageError(f"{where} = {value!r} is not known; {example} is needed")
        return rule
    if normal(value) not in (*DEFAULTS, *OTHERS):
        raise UsageError(f"{where} = {value!r} is not known; one of {', '.join(DEFAULTS)} is needed")
    return value


def _number(value: Any, where: str, low: float, high: float, allowed: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value < high:
        raise UsageError(f"{where} = {value!r} is not allowed; {allowed} is needed")
    return float(value)


def _numbers(value: Any, where: str) -> tuple[float, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise UsageError(f"{where} = {value!r} is not allowed; a list of numbers >= 0 is needed")
    return tuple(_number(v, where, 0.0, math.inf, "a list of numbers >= 0") for v in value)


def _schedule(table: Mapping[str, Any], values: Mapping[str, Value], where: str) -> ScheduleTable:
    for key in table:
        if key not in SCHEDULE_KEYS:
            raise UsageError(f"{where}: unknown key {key!r}; allowed are {', '.join(SCHEDULE_KEYS)}")
    kind = table.get("kind", "steps" if "steps" in table else None)
    if kind not in KINDS:
        raise UsageError(f"{where}: kind = {kind!r} is not allowed; one of {', '.join(KINDS)} is needed")
    if kind == "steps":
        return _steps(table, values, where)
    if "steps" in table or "learning_rate" in table:
        raise UsageError(f"{where}: steps and learning_rate belong to kind 'steps', not to kind {kind!r}")
    if "learning_rate" not in values:
        raise UsageError(f"{where}: kind {kind!r} needs learning_rate (the largest one) outside of the schedule table")
    if kind == "constant":
        return ScheduleTable("constant")
    total = _number(table.get("total_steps"), f"{where}: total_steps", 1.0, math.inf, "a number >= 1")
    warmup = _number(table.get("warmup_steps", 0), f"{where}: warmup_steps", 0.0, math.inf, "a number >= 0")
    lowest = _number(table.get("min_learning_rate", 0), f"{where}: min_learning_rate", 0.0, math.inf, "a number >= 0")
    if warmup >= total:
        raise UsageError(
            f"{where}: warmup_steps = {warmup:g} is not allowed; less than total_steps = {total:g} is needed"
        )
    return ScheduleTable(kind, total_steps=total, warmup_steps=warmup, min_learning_rate=lowest)


def _steps(table: Mapping[str, Any], values: Mapping[str, Value], where: str) -> ScheduleTable:
    if "learning_rate" in values:
        raise UsageError(f"{where}: learning_rate is given twice, as one number and as the schedule's list; keep one")
    steps = _numbers(table.get("steps"), f"{where}: steps")
    rates = _numbers(table.get("learning_rate"), f"{where}: learning_rate")
    if not rates or len(rates) - len(steps) not in (0, 1):
        raise UsageError(
            f"{where}: {len(steps)} steps and {len(rates)} learning rates do not fit; "
            "as many are needed, or one learning rate more (the first then holds from the start)"
        )
    if any(b <= a for a, b in zip(steps, steps[1:], strict=False)):
        raise UsageError(f"{where}: steps = {list(steps)} is not allowed; each must be larger than the one before")
    if len(rates) == len(steps) + 1:
        steps = (0.0, *steps) if not steps or steps[0] > 0 else (-1.0, *steps)
    return ScheduleTable("steps", steps=steps, learning_rate=rates)
