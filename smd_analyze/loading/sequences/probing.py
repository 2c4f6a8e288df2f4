"""A few tensors of a checkpoint, read to judge how far it is from others: the same ones throughout a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from smd_analyze.errors import SmdError
from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.frameworks.base import Fact
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.places import Place, decoded, read_tensor

PROBES = 3  # tensors by which the angle between two files is judged
LARGEST_PROBE = 1 << 18  # bytes
LARGEST_READ = 1 << 24  # bytes of a probe that is read from every checkpoint
ENOUGH = 4096  # elements
LEAST_ELEMENTS = 1000  # in fewer, the angle between strangers is a matter of chance
NEARER = 0.9  # a file that goes on from the end of a run is nearer to it than to the beginning by this factor
STRANGE = 0.08  # cosine up to which the directions of two large tensors have nothing in common


@dataclass(frozen=True)
class Alike:
    """What tells whether two checkpoints are the same, or at least of one run."""

    name: str
    path: str
    link: str
    files: tuple[FileId, ...]
    parameters: Mapping[str, Place]
    facts: tuple[Fact, ...]


def read(one: Alike, name: str) -> np.ndarray:
    """The tensor's elements."""
    return read_tensor(one.parameters[name], one.files)


def probed(one: Alike) -> list[str]:
    """A few tensors of middle size; the same ones for checkpoints of one layout."""
    fitting = [n for n, p in one.parameters.items() if 64 <= p.nbytes <= LARGEST_PROBE and len(p.shape) > 1]
    fitting = fitting or [n for n, p in one.parameters.items() if len(p.shape) > 1 and p.nbytes and is_raw(p)]
    fitting = fitting or [n for n, p in one.parameters.items() if p.nbytes <= LARGEST_PROBE]
    fitting = fitting or sorted(one.parameters, key=lambda n: one.parameters[n].nbytes)[:1]
    return sorted(fitting)[:: max(1, len(fitting) // PROBES)][:PROBES]


def is_raw(place: Place) -> bool:
    """The elements lie in the file one after the other: a beginning can be read without the rest."""
    return all(v is None for v in (place.strides, place.pieces, place.read, place.find, place.inline))


def beginning(place: Place) -> Place:
    """The first elements of a large tensor that lies raw; other tensors as they are."""
    if place.nbytes <= LARGEST_PROBE or not is_raw(place):
        return place
    return replace(place, shape=(LARGEST_PROBE // ITEMSIZE[place.dtype],))


def too_large(one: Alike) -> bool:
    """To look at the probes would be to read a large part of every checkpoint."""
    return any(beginning(one.parameters[n]).nbytes > LARGEST_READ for n in probed(one))


def elements(one: Alike, name: str) -> np.ndarray:
    """A tensor (of a large one the beginning) in float64; zeros where it has none, or can no longer be read."""
    place = beginning(one.parameters[name])
    try:
        array = decoded(read_tensor(place, one.files), place.dtype)
    except (SmdError, OSError):  # measuring will say so
        return np.zeros(prod(place.shape))
    with np.errstate(invalid="ignore"):  # a signalling NaN is one of a damaged file's
        return array.astype(np.float64).ravel() if array.dtype.kind == "f" else np.zeros(array.size)


def unit(flat: np.ndarray) -> np.ndarray:
    """The direction of a vector; zeros where it has none."""
    with np.errstate(over="ignore", invalid="ignore"):
        norm = float(np.sqrt(np.square(flat).sum()))
    return flat / norm if 0 < norm < np.inf else np.zeros(flat.size)


def thinned(vector: np.ndarray) -> np.ndarray:
    """A unit vector of at most twice ENOUGH of its elements: in so many, angles hardly change."""
    return unit(vector[:: max(1, vector.size // ENOUGH)])


def strangers(a: Alike, b: Alike, least: int = LEAST_ELEMENTS) -> bool:
    """No probed tensor has anything of its direction in common in the two, as if they had started from other seeds.

    The mean is taken out first: weights of other runs may share it. False where the tensors have fewer than `least`
    elements: too small to tell.
    """
    total = 0
    for name in probed(a):
        if name not in b.parameters or a.parameters[name].shape != b.parameters[name].shape:
            return False
        pair = [elements(one, name) for one in (a, b)]
        x, y = (unit(v - v.mean()) if np.isfinite(v).all() else np.zeros(v.size) for v in pair)
        if x.any() and y.any():
            total += x.size
            if abs(float(x @ y)) > STRANGE + 3 / np.sqrt(x.size):
                return False
    return total >= least


def goes_on(first: Alike, last: Alike, other: Alike) -> bool:
    """`other` is nearer to the end of a run than to its beginning, and no stranger: training went on from there."""
    if too_large(first) or {n: p.shape for n, p in last.parameters.items()} != {n: p.shape for n, p in other.parameters.items()}:  # noqa: E501  # fmt: skip
        return False
    angles = Angles()
    return angles.between(last, other) < NEARER * angles.between(first, other) and not strangers(last, other, 0)


class Angles:
    """Angles between checkpoints, judged by a few tensors that are read once per checkpoint."""

    def __init__(self) -> None:
        self.known: dict[str, list[np.ndarray]] = {}

    def vectors(self, one: Alike) -> list[np.ndarray]:
        """The probed tensors as unit vectors (float64); zeros for what has no direction."""
        if one.path not in self.known:
            self.known[one.path] = [unit(elements(one, name)) for name in probed(one)]
        return self.known[one.path]

    def between(self, a: Alike, b: Alike) -> float:
        """The largest angle between the same probed tensor of both, in radians; 0 if none has a direction."""
        cosines = [
            float(np.clip(x @ y, -1, 1))
            for x, y in zip(self.vectors(a), self.vectors(b), strict=True)
            if x.any() and y.any()
        ]
        return float(np.arccos(min(cosines, default=1.0)))

    def spread(self, members: Sequence[Alike]) -> float:
        """The largest angle of a member from its nearest neighbour."""
        nearest = [min((self.between(a, b) for b in members if b is not a), default=0.0) for a in members]
        return max(nearest, default=0.0)
