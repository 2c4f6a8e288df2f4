"""Where a tensor lies in a file (Place), and the LazyTensors made of places on demand.

A layout is parsed once and shared by all checkpoints that have it: places know no path, only the number of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import prod
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import FileId, read_array
from smd_analyze.loading.tensors.dtypes import ITEMSIZE, NUMPY
from smd_analyze.records.run import Extent, LazyTensor

MOST_REPEATED = 1 << 26  # bytes that a view may unfold to beyond its storage (an expanded tensor), against bombs


Find = Callable[[FileId, "Place"], "Place"]
Read = Callable[[FileId, "Place"], np.ndarray]


@dataclass(frozen=True, slots=True)
class Place:
    """`start` is the byte of the first element; `strides` count elements, None means contiguous and row-major.

    `file` numbers the files of a checkpoint. `inline` holds the bytes of an array that lies raw in no file.
    `pieces` make up a tensor that is cut: each is (where it begins, its Place); a beginning has an index per axis, or
    a single one into the flattened tensor. `find(file, place)` gives the real Place when the tensor is read, for
    tensors inside an archive within the file, from byte `start`, `within` bytes long. `read(file, place)` gives the
    elements of an array that a library has to decode: the one called `key` there, or, of that one, what is left when
    each (axis, index) of `part` has been taken in turn.
    """

    shape: tuple[int, ...]
    dtype: str
    start: int
    strides: tuple[int, ...] | None = None
    file: int = 0
    layout: str | None = None
    big_endian: bool = False
    inline: bytes | None = None
    pieces: tuple[tuple[tuple[int, ...], Place], ...] | None = None
    find: Find | None = None
    within: int = 0
    read: Read | None = None
    key: str = ""
    part: tuple[tuple[int, int], ...] = ()

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


def read_tensor(place: Place, files: Sequence[FileId]) -> np.ndarray:
    """All elements of a tensor that lies in one of the files, or in pieces in several: one piece in memory at a time.

    DamagedFile if the pieces overlap, leave the tensor or do not cover it.
    """
    if place.pieces is None:
        file = files[place.file]
        if place.read is not None:
            return place.read(file, place)
        if place.find is None:
            return read_place(place, file)
        found = place.find(file, place)
        if found.dtype != place.dtype or without_ones(found.shape) != without_ones(place.shape):
            raise DamagedFile(
                f"{file.path}: at byte {place.start} lies a tensor {found.dtype}{list(found.shape)}, "
                f"the index says {place.dtype}{list(place.shape)}"
            )
        return read_place(found, file).reshape(place.shape)
    out = np.empty(place.shape, np.dtype(NUMPY[place.dtype]))
    flat = out.reshape(-1)
    done = 0
    for begin, piece in place.pieces:
        if piece.dtype != place.dtype:
            raise DamagedFile(f"{files[piece.file].path}: a piece of a {place.dtype} tensor is {piece.dtype}")
        read = read_tensor(piece, files)
        if len(begin) == 1 and len(place.shape) != 1:
            read, target = read.reshape(-1), flat
        else:
            target = out
        part = tuple(slice(b, b + n) for b, n in zip(begin, read.shape, strict=True))
        target[part] = read
        done += read.size
    if done != out.size:
        raise DamagedFile(f"{files[place.file].path}: pieces hold {done} of the {out.size} elements of a tensor")
    return out


def without_ones(shape: Sequence[int]) -> list[int]:
    """The axes that are longer than one."""
    return [n for n in shape if n != 1]


def joined(shape: Sequence[int], dtype: str, pieces: Sequence[tuple[tuple[int, ...], Place]], what: str) -> Place:
    """A tensor made of pieces. DamagedFile unless they lie inside it, apart from each other, and cover it."""
    shape = tuple(shape)
    if not all(type(n) is int and n >= 0 for n in shape):
        raise DamagedFile(f"{what}: a tensor of shape {shape} cannot be")
    boxes: list[tuple[tuple[int, ...], tuple[int, ...]]] = []
    flat = len(shape) != 1 and all(len(begin) == 1 for begin, _ in pieces)
    for begin, piece in pieces:
        frame, size = ((prod(shape),), (prod(piece.shape),)) if flat else (shape, piece.shape)
        if not (len(begin) == len(size) == len(frame) and all(type(b) is int for b in begin)):
            raise DamagedFile(f"{what}: a piece at {begin} of shape {piece.shape} does not fit the shape {shape}")
        if not all(b >= 0 and b + n <= whole for b, n, whole in zip(begin, size, frame, strict=True)):
            raise DamagedFile(f"{what}: a piece at {begin} of shape {piece.shape} leaves the shape {shape}")
        boxes.append((tuple(begin), size))
    held = sum(prod(size) for _, size in boxes)
    if held != prod(shape):
        raise DamagedFile(
            f"{what}: pieces hold {held} of the {prod(shape)} elements: a part is missing or stands twice"
        )
    if overlap(boxes):
        raise DamagedFile(f"{what}: pieces of the tensor overlap")
    if len(pieces) == 1 and (piece := pieces[0][1]).pieces is None and piece.strides is None and piece.read is None:
        return replace(piece, shape=shape)
    return Place(shape, dtype, 0, file=pieces[0][1].file if pieces else 0, pieces=tuple(pieces))


def overlap(boxes: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> bool:
    """Two boxes (begin, size) have an element in common. Sorted along the first axis, so that usual cuts are quick."""
    full = sorted(b for b in boxes if prod(b[1]))
    for i, (begin, size) in enumerate(full):
        for other, extent in full[i + 1 :]:
            if begin and other[0] >= begin[0] + size[0]:
                break
            if all(a < b + n and b < a + m for a, b, m, n in zip(begin, other, size, extent, strict=True)):
                return True
    return False


def renumbered(place: Place, number: Callable[[int], int]) -> Place:
    """The same place, its files numbered anew."""
    pieces = place.pieces and tuple((begin, renumbered(piece, number)) for begin, piece in place.pieces)
    return replace(place, file=number(place.file), pieces=pieces)


def decoded(array: np.ndarray, dtype: str) -> np.ndarray:
    """bfloat16, which numpy does not know, as float32; everything else as it is."""
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "bfloat16" else array


def lazy_tensor(place: Place, files: Sequence[FileId]) -> LazyTensor:
    """The record of one tensor; its bytes stay where they are."""
    whole = place.pieces is None and place.find is None and place.read is None
    raw = whole and place.strides is None and place.inline is None and not place.big_endian
    extent = Extent(files[place.file].path, place.start, place.nbytes) if raw else None
    read: partial[Any] = partial(read_place, place, files[place.file]) if whole else partial(read_tensor, place, files)
    return LazyTensor(place.shape, place.dtype, read, place.layout, extent)


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
