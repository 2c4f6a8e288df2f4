"""Which course a group follows, and how far theory may be taken for it."""

from collections.abc import Callable, Mapping

import numpy as np
import polars as pl

from smd_analyze.records.group import Group
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics
from smd_analyze.theory.course import Course, course_of
from smd_analyze.theory.laws import Law

INVARIANT = ("invariant", "jointly invariant")


def parameter_group_of(group: Group, schedule: Schedule) -> str | None:
    """The parameter group of a group's members in the schedule; None if they belong to several that differ."""
    names = list(dict.fromkeys(schedule.parameter_group.get(m.parameter, group.parameter_group) for m in group.members))
    first, *others = names or [group.parameter_group]
    return first if all(_same(schedule.table, first, other) for other in others) else None


def courses(stats: Statistics, schedule: Schedule) -> Callable[[Group], Course | None]:
    """A function that gives a group's course, each made once; None: its members' parameter groups differ.

    Groups of one parameter group share a course, unless the optimizer's update depends on the matrix's shape.
    """
    made: dict[tuple[str, tuple[int, int] | None], Course] = {}
    by_shape = {
        row["parameter_group"]
        for row in schedule.table.select("parameter_group", "optimizer").unique().iter_rows(named=True)
        if (row["optimizer"] or "").lower() == "muon"
    }

    def course(group: Group) -> Course | None:
        name = parameter_group_of(group, schedule)
        if name is None:
            return None
        key = name, matrix_shape(group, stats.shapes) if name in by_shape else None
        if key not in made:
            made[key] = course_of(schedule, name, stats.steps, key[1])
        return made[key]

    return course


def matrix_shape(group: Group, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int] | None:
    """Rows and columns of the matrix that a group is, or is part of; None if unknown or if members differ.

    Tensors of more dimensions are seen as their first one by all others, as Muon does.
    """
    found = {shapes.get(member.parameter, ()) for member in group.members}
    if len(found) != 1:
        return None
    shape = found.pop()
    if len(shape) < 2 or 0 in shape:
        return None
    return shape[0], int(np.prod(shape[1:]))


def _same(table: pl.DataFrame, a: str, b: str) -> bool:
    """Whether two parameter groups have one optimizer, learning rate, decay and momentum all along."""
    rows = [
        table.filter(pl.col("parameter_group") == name).sort("step_from").drop("parameter_group", "source")
        for name in (a, b)
    ]
    return rows[0].height > 0 and rows[0].equals(rows[1])


def standing(group: Group) -> str:
    """How far theory may be taken for a group, in words; "" where it holds without reserve."""
    if group.status not in INVARIANT:
        known = "not scale-invariant" if group.status == "not invariant" else "not known to be scale-invariant"
        return f"reference only: {known}"
    return "if invariant" if group.evidence == "guessed" else ""


def reference(group: Group, law: Law | None) -> str:
    """What is known of how far theory holds for weights that are not scale-invariant, in words; "" if they are."""
    if group.status in INVARIANT or law is None:
        return ""
    if law.power == 2:
        return (
            "without invariance gradients may also push along the weights; where these average out the balance is the "
            "same (Kosson et al. 2023, arXiv:2305.17212)"
        )
    return "without invariance gradients also push along the weights and do not shrink as they grow: trends, not levels"
