"""In which types and shapes the checkpoints hold the weights."""

from collections.abc import Iterable

from smd_analyze.records.group import Group
from smd_analyze.records.run import Run


def saved_types(run: Run, groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """Of each group the types (torch's names, sorted) of its members over all checkpoints.

    What rounding hides depends on them.
    """
    groups = tuple(groups)
    kinds: dict[str, set[str]] = {member.parameter: set() for group in groups for member in group.members}
    for checkpoint in run.checkpoints:
        for name in kinds.keys() & checkpoint.parameters.keys():
            kinds[name].add(checkpoint.parameters[name].dtype)
    return {g.name: tuple(sorted({t for m in g.members for t in kinds[m.parameter]})) for g in groups}


def saved_shapes(run: Run, groups: Iterable[Group]) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor that belongs to a group, as the last checkpoint that holds it saved it."""
    wanted = {member.parameter for group in groups for member in group.members}
    holders = {name: checkpoint for checkpoint in run.checkpoints for name in wanted & checkpoint.parameters.keys()}
    return {name: holder.parameters[name].shape for name, holder in holders.items()}
