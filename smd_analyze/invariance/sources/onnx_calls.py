"""One node of an ONNX graph as its operation sees it: attributes, and which inputs are numbers that are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


class NotFollowed(Exception):
    """The operation, or this use of it, is not one of those that are interpreted."""


@dataclass(frozen=True)
class Call:
    """`constants[i]` is input i where its numbers are known, else None; `results` counts the outputs that are used.

    Constants are numpy arrays: tracing must not see them.
    `opset` is the version of the operators: defaults and the place of axes changed between versions.
    """

    op: str
    attributes: Mapping[str, Any]
    constants: Sequence[np.ndarray | None]
    results: int
    opset: int

    def known(self, position: int) -> np.ndarray | None:
        """Input `position` if it is there and its numbers are known."""
        return self.constants[position] if position < len(self.constants) else None

    def ints(self, position: int, attribute: str = "") -> list[int] | None:
        """Whole numbers from an attribute (older operators) or a known input; None if neither is there."""
        told = self.attributes.get(attribute)
        if told is not None:
            return [int(n) for n in (told if isinstance(told, list) else [told])]
        found = self.known(position)
        return None if found is None else [int(n) for n in found.reshape(-1).tolist()]

    def need(self, position: int, attribute: str = "") -> list[int]:
        """The same; NotFollowed if the numbers depend on data."""
        found = self.ints(position, attribute)
        if found is None:
            raise NotFollowed(f"{self.op} whose {attribute or 'sizes'} depend on data")
        return found

    def number(self, position: int, attribute: str = "") -> float | None:
        """A single number from an attribute or a known input; None if neither is there."""
        told = self.attributes.get(attribute)
        if told is not None:
            return float(told)
        found = self.known(position)
        return None if found is None or found.size != 1 else float(found.reshape(-1)[0])

    def integer(self, name: str, default: int) -> int:
        """An attribute that is a whole number."""
        found = self.attributes.get(name)
        return default if found is None else int(found)

    def real(self, name: str, default: float) -> float:
        """An attribute that is a number."""
        found = self.attributes.get(name)
        return default if found is None else float(found)

    def word(self, name: str, default: str = "") -> str:
        """An attribute that is a text."""
        found = self.attributes.get(name)
        return found if isinstance(found, str) else default

    def sizes(self, name: str, count: int, default: int) -> list[int]:
        """A list attribute, with the default for every axis."""
        found = self.attributes.get(name)
        return [int(n) for n in found] if isinstance(found, list) else [default] * count

    def axes(self, ndim: int, position: int = 1) -> list[int] | None:
        """Axes counted from the front, from the attribute or input `axes`; None: it names none."""
        found = self.ints(position, "axes")
        if found is None and position < len(self.constants) and self.constants[position] is None:
            return None
        return None if found is None else [a % ndim for a in found]
