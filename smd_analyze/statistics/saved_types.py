"""In which types the checkpoints hold the weights: what their rounding hides depends on it."""

from collections.abc import Iterable

from smd_analyze.records.group import Group
from smd_analyze.records.run import Run


def saved_types(run: Run, groups: Iterable[Group]) -> dict[str, tuple[str, ...]]:
    """Of each group the types (torch's names, sorted) of its members over all checkpoints."""
    kinds: dict[str, set[str]] = {}
    for checkpoint in run.checkpoints:
        for name, tensor in checkpoint.parameters.items():
            kinds.setdefault(name, set()).add(tensor.dtype)
    return {g.name: tuple(sorted({t for m in g.members for t in kinds.get(m.parameter, ())})) for g in groups}
