"""Which saved optimizer state is whose, where the file keeps its parameters in no order.

By shape, and by what is certain of the order in which the model registered them. A state that cannot be told from
another is given to nobody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smd_analyze.loading.roles.registration import positions
from smd_analyze.loading.tensors.places import Place

Shape = tuple[int, ...]


def match_states(
    members: Sequence[Sequence[Any]],
    chosen: Sequence[Sequence[str]],
    states: Mapping[Any, Any],
    parameters: Mapping[str, Place],
    family: str,
) -> tuple[list[tuple[Any, str]], str]:
    """((number, name) for every state that can be told from those of its shape, the family whose order was used).

    `members` are the numbers and `chosen` the names of each parameter group, the former in the order of registration.
    Sound only because a group holds all of its names and nothing else, and every one of a shape has its state.
    """
    out: list[tuple[Any, str]] = []
    every = tuple(parameters)
    if family and not agrees(members, chosen, states, parameters, family):
        family = ""
    for indices, names in zip(members, chosen, strict=True):
        saved: dict[Shape, list[Any]] = {}
        for i in indices:
            if shape := own_shape(states.get(i)):
                saved.setdefault(shape, []).append(i)
        owners: dict[Shape, list[str]] = {}
        for n in names:
            owners.setdefault(parameters[n].shape, []).append(n)
        for shape, own in owners.items():
            found = saved.get(shape, ())
            if len(found) == len(own):
                places = positions(tuple(own), every, family)
                out += [(found[at], n) for at, n in zip(places, own, strict=True) if at is not None]
    return out, family


def agrees(
    members: Sequence[Sequence[Any]],
    chosen: Sequence[Sequence[str]],
    states: Mapping[Any, Any],
    parameters: Mapping[str, Place],
    family: str,
) -> bool:
    """Where the order of a whole group is held to be known, the states' shapes come in that order."""
    every = tuple(parameters)
    for indices, names in zip(members, chosen, strict=True):
        places = positions(tuple(names), every, family)
        ranked = {at: n for at, n in zip(places, names, strict=True) if at is not None}
        for at, i in enumerate(indices) if len(ranked) == len(indices) else ():
            shape = own_shape(states.get(i))
            if shape is not None and shape != parameters[ranked[at]].shape:
                return False
    return True


def own_shape(state: Mapping[Any, Any] | None) -> Shape | None:
    """The same, only where the state's tensors agree and none is a factor of it (Adafactor's rows and columns)."""
    shapes = {k: v.shape for k, v in (state or {}).items() if type(v) is Place and v.shape}
    if len(set(shapes.values())) != 1 or any(str(k).endswith(("row", "col")) for k in shapes):
        return None
    return next(iter(shapes.values()))
