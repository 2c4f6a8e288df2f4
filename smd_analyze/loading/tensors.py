"""Where a tensor lies in a file (Place), and the LazyTensors made of places on demand.

A layout is parsed once and shared by all checkpoints that have it: places know no path, only the number of the file.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from math import prod

import numpy as np

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.dtypes import ITEMSIZE, NUMPY
from smd_analyze.loading.sources import FileId, read_array
from smd_analyze.records.run import Extent, LazyTensor

MOST_REPEATED = 1 << 26  # bytes that a view may unfold to beyond its storage (an expanded tensor), against bombs


@dataclass(frozen=True, slots=True)
class Place:
    """`start` is the byte of the first element; `strides` count elements, None means contiguous and row-major.

    `file` numbers the files of a checkpoint. `inline` holds the bytes of an array that lies raw in no file.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int
    strides: tuple[int, ...] | None = None
    file: int = 0
    layout: str | None = None
    big_endian: bool = False
    inline: bytes | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all elements."""
        return prod(self.shape) * ITEMSIZE[self.dtype]


def placed(
    shape: Sequence[int], strides: Sequence[int] | None, dtype: str, first: int, start: int, nbytes: int, what: str
) -> Place:
    """A Place for a view: element `first` of the storage at bytes `start` to `start + nbytes`.

    Shape, strides and offset come from the file and are checked against the storage: DamagedFile if they leave it.
    """
    shape = tuple(shape)
    if type(first) is not int or first < 0 or not all([type(n) is int and n >= 0 for n in shape]):
        raise DamagedFile(f"{what}: a tensor of shape {shape} at element {first} cannot be")
    size = ITEMSIZE[dtype]
    numel = prod(shape)
    if strides is not None:
        strides = tuple(strides)
        if len(strides) != len(shape) or not all([type(n) is int and n >= 0 for n in strides]):
            raise DamagedFile(f"{what}: strides {strides} do not fit the shape {shape}")
        if numel <= 1 or strides == (usual := row_major(shape)) or same_where_it_matters(shape, strides, usual):
            strides = None
    span = (
        numel
        if strides is None
        else (1 + sum((n - 1) * s for n, s in zip(shape, strides, strict=True)) if numel else 0)
    )
    if (first + span) * size > nbytes:
        raise DamagedFile(
            f"{what}: a tensor of shape {shape} with strides {strides} at element {first} leaves its storage"
        )
    if numel * size > max(nbytes, MOST_REPEATED):
        raise DamagedFile(f"{what}: a tensor of shape {shape} would unfold {nbytes} bytes to {numel * size}")
    return Place(shape, dtype, start + first * size, strides)


@lru_cache(maxsize=4096)
def row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Strides, in elements, of a contiguous row-major array."""
    out: list[int] = []
    step = 1
    for n in reversed(shape):
        out.append(step)
        step *= n
    return tuple(reversed(out))


def same_where_it_matters(shape: Sequence[int], a: Sequence[int], b: Sequence[int]) -> bool:
    """Equal strides; that of an axis of length one does not matter."""
    return all(n == 1 or s == r for n, s, r in zip(shape, a, b, strict=True))


def read_place(place: Place, file: FileId) -> np.ndarray:
    """All elements as an array that owns its memory, in the file's own shape."""
    kind = np.dtype(NUMPY[place.dtype])
    if place.big_endian:
        kind = kind.newbyteorder(">")
    numel = prod(place.shape)
    if numel == 0:
        return np.zeros(place.shape, kind.newbyteorder("="))
    strides = place.strides
    span = numel if strides is None else 1 + sum((n - 1) * s for n, s in zip(place.shape, strides, strict=True))
    if place.inline is not None:
        raw = np.frombuffer(place.inline, np.uint8).copy()
    else:
        raw = read_array(file, place.start, span * kind.itemsize)
    flat = raw.view(kind)
    if strides is not None:
        # ndarray() checks shape and strides against the buffer, as_strided() would not
        flat = np.ndarray(place.shape, kind, flat.data, 0, [s * kind.itemsize for s in strides]).copy()
    return flat.astype(kind.newbyteorder("="), copy=False).reshape(place.shape)


def decoded(array: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16, which numpy does not know, as float32; everything else as it is."""
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def lazy_tensor(place: Place, files: Sequence[FileId]) -> LazyTensor:
    """The record of one tensor; its bytes stay where they are."""
    file = files[place.file]
    raw = place.strides is None and place.inline is None and not place.big_endian
    extent = Extent(file.path, place.start, place.nbytes) if raw else None
    return LazyTensor(place.shape, place.dtype, partial(read_place, place, file), place.layout, extent)


class LazyTensors(Mapping[str, LazyTensor]):
    """Tensors of one checkpoint by name. Only the files are its own: the places are shared with its neighbours."""

    __slots__ = ("files", "places")

    def __init__(self, places: Mapping[str, Place], files: Sequence[FileId]) -> None:
        self.places = places
        self.files = files

    def __getitem__(self, name: str) -> LazyTensor:
        return lazy_tensor(self.places[name], self.files)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def __repr__(self) -> str:
        return f"<{len(self.places)} tensors in {', '.join(f.path for f in self.files)}>"
