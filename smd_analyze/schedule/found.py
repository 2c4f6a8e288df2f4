"""What the checkpoints say about the hyperparameters of a parameter group: values at updates, and where they stood."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from smd_analyze.records.run import Checkpoint, Setting
from smd_analyze.schedule.series import SAME
from smd_analyze.schedule.updates import Clock

NUMBERS = ("learning_rate", "weight_decay", "momentum", "dampening", "beta1", "beta2", "eps")
RANK = {"in force": 0, "inferred": 1, "configured": 2, "logged": 3}
Point = tuple[int, float, float, bool, str]  # rank of the kind, update, value, whether it was only meant, source


@dataclass(frozen=True)
class Found:
    """One hyperparameter over the run: values[i] acted at update updates[i]. `kind` is that of the best source.

    `meant[i]`: it was saved for an update still to come, which a script or a resumed run may have given another value.
    """

    updates: tuple[float, ...]
    values: tuple[float, ...]
    meant: tuple[bool, ...]
    kind: str
    source: str

    @property
    def varies(self) -> bool:
        """Whether the values differ by more than float32 rounding."""
        return max(self.values) - min(self.values) > SAME * max(abs(v) for v in self.values)


@dataclass(frozen=True)
class GroupFacts:
    """All that the files say about one parameter group: numbers, configured numbers beside those in force, words."""

    numbers: dict[str, Found] = field(default_factory=dict)
    configured: dict[str, list[tuple[float, str]]] = field(default_factory=dict)
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    switches: dict[str, tuple[bool, str]] = field(default_factory=dict)
    scheduler: tuple[tuple[int, dict[str, float | str]], ...] = ()


def group_names(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Names of the parameter groups that settings speak of, in order of appearance ("" left out)."""
    names = {s.parameter_group: None for c in checkpoints for s in c.settings if s.parameter_group}
    return list(names)


def facts(checkpoints: Sequence[Checkpoint], group: str, clock: Clock) -> GroupFacts:
    """Collect the settings that hold for `group` (its own, else those for every group) at every checkpoint."""
    points: dict[str, list[Point]] = {}
    result = GroupFacts(scheduler=tuple(_scheduler(checkpoints, group)))
    for checkpoint in checkpoints:
        best = _best(checkpoint.settings, group)
        for name, setting in best.items():
            _take(result, points, name, setting, checkpoint, clock)
        for setting in _other_moments(checkpoint.settings, best):
            _take(result, points, setting.name, setting, checkpoint, clock)
        for setting in checkpoint.settings:
            if setting.parameter_group in ("", group):
                _beside(result, setting)
    for name, found in points.items():
        best = min(rank for rank, *_ in found)
        updates, values, meant, sources = zip(*sorted(p[1:] for p in found if p[0] == best), strict=True)
        kind = next(k for k, rank in RANK.items() if rank == best)
        result.numbers[name] = Found(updates, values, meant, kind, sources[-1])
    return result


def _best(settings: Iterable[Setting], group: str) -> dict[str, Setting]:
    """Of each name the setting that ranks first: in force, inferred, configured; the group's own before all groups'."""
    chosen: dict[str, tuple[tuple[int, int], Setting]] = {}
    for s in settings:
        if s.parameter_group not in ("", group):
            continue
        rank = (RANK[s.kind], 0 if s.parameter_group == group else 1)
        if s.name not in chosen or rank < chosen[s.name][0]:
            chosen[s.name] = (rank, s)
    return {name: s for name, (_, s) in chosen.items()}


def _other_moments(settings: Iterable[Setting], best: Mapping[str, Setting]) -> list[Setting]:
    """Values of the same rank and parameter group as the best one that act at another update: last beside next."""
    return [
        s
        for s in settings
        if s.name in best
        and s.applies != best[s.name].applies
        and (s.kind, s.parameter_group) == (best[s.name].kind, best[s.name].parameter_group)
    ]


def _take(
    result: GroupFacts,
    points: dict[str, list[Point]],
    name: str,
    setting: Setting,
    checkpoint: Checkpoint,
    clock: Clock,
) -> None:
    if name in NUMBERS and setting.value is not None:
        update = clock.made(checkpoint.step) + (0 if setting.applies == "last update" else 1)
        meant = setting.applies == "next update"
        points.setdefault(name, []).append((RANK[setting.kind], update, setting.value, meant, setting.source))
    elif name in ("optimizer", "schedule", "adjust_lr") and setting.text:
        result.words[name] = (setting.text, setting.source)
    elif name in ("nesterov", "decoupled_weight_decay") and setting.value is not None:
        result.switches[name] = (bool(setting.value), setting.source)


def _beside(result: GroupFacts, setting: Setting) -> None:
    """Configured numbers are kept for comparison."""
    if setting.value is not None and setting.kind == "configured" and setting.name in NUMBERS:
        stated = result.configured.setdefault(setting.name, [])
        if (setting.value, setting.source) not in stated:
            stated.append((setting.value, setting.source))


def _scheduler(checkpoints: Sequence[Checkpoint], group: str) -> Iterable[tuple[int, dict[str, float | str]]]:
    for checkpoint in checkpoints:
        state: dict[str, float | str] = {}
        for s in checkpoint.settings:
            if s.name.startswith("schedule.") and s.parameter_group in ("", group):
                value = s.value if s.value is not None else s.text
                if value is not None:
                    state[s.name.removeprefix("schedule.")] = value
        if state:
            yield checkpoint.step, state
