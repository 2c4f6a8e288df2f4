"""HDF5 files as Keras (.h5, .weights.h5, the weights in a .keras archive) and Caffe write them: datasets and texts.

Names, shapes and places are read with h5py; an unpacked dataset in one piece is a raw range of the file, others are
read through h5py when asked for. HDF5 can point outside its file: external and soft links, external storage and
virtual datasets are refused. Source: HDF5 File Format Specification 3.0.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from smd_analyze.errors import DamagedFile, SmdError, UnknownFormat, UnsafeFile
from smd_analyze.loading.files import listing
from smd_analyze.loading.files.sources import FileId, Source, changed, open_source, part_of
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.places import Place

if TYPE_CHECKING:
    import h5py

MAGIC = b"\x89HDF\r\n\x1a\n"
DEEPEST = 40
MOST_OBJECTS = 200_000
LONGEST_TEXT = 1 << 24  # characters of an attribute
MOST_PACKED = 1100  # deflate packs at most 1032 to 1 (RFC 1951)
CAFFE = "Caffe HDF5"
PART = re.compile(r"(.+)_\d{5}\.weights\.h5")
KERAS = ("layer_names", "layer_names0", "keras_version")


@dataclass(frozen=True)
class Hdf5Dataset:
    """Reads a packed dataset: `base` and `size` are the part of the file that is the HDF5 file."""

    name: str
    base: int
    size: int

    def __call__(self, file: FileId, place: Place) -> Place:
        """The same place, with its bytes."""
        with open_source(file.path) as source:
            if source.file != file:
                raise changed(file.path)
            with opened(part_of(source, self.base, self.size)) as root:
                array = np.ascontiguousarray(dataset_of(root, self.name)[()])
            source.check_unchanged()
        if array.dtype.byteorder == ">":
            array = array.astype(array.dtype.newbyteorder("<"))
        return Place(array.shape, place.dtype, 0, file=place.file, inline=array.tobytes())


def dataset_of(root: h5py.File, name: str) -> Any:
    """The dataset of that name, which was there when the file was listed."""
    return root[name]


def address_of(node: h5py.Group | h5py.Dataset) -> int:
    """Where the object's header lies: the same for all links to it."""
    return import_module("h5py.h5o").get_info(node.id).addr


class Window(io.RawIOBase):
    """A source as a file object for h5py: reads only."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.at = 0

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a byte of the part."""
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.source.size}[whence]
        return self.at

    def tell(self) -> int:
        """Where the next read begins."""
        return self.at

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer; bytes behind the end are left out."""
        view = memoryview(buffer).cast("B")
        stop = min(self.at + len(view), self.source.size)
        data = self.source.read(self.at, stop) if stop > self.at else b""
        view[: len(data)] = data
        self.at += len(data)
        return len(data)


@contextmanager
def opened(source: Source) -> Iterator[h5py.File]:
    """The HDF5 file; what the library does not like about it is a DamagedFile."""
    import h5py

    try:
        with h5py.File(Window(source), "r") as root:
            yield root
    except SmdError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError, MemoryError) as problem:
        raise DamagedFile(f"{source.path}: not a sound HDF5 file: {problem}") from None


def matches(source: Source) -> bool:
    """The signature at byte 0."""
    return source.head.startswith(MAGIC)


def open_document(source: Source, previous: Document | None) -> Document:
    """{"datasets": {path: Place}, "texts": {path: {attribute: text or texts}}}.

    UnknownFormat unless Keras or Caffe wrote it, or if it is only a part of a checkpoint.
    """
    part = PART.fullmatch(source.path)
    if part and listing.is_file(f"{part[1]}.weights.json"):
        words = "is one part of a cut checkpoint of Keras', which is not put together; save without max_shard_size"
        raise UnknownFormat(f"{source.path}: {words}")
    tree = read_tree(source)
    if is_caffe(tree):
        return Document(source.path, CAFFE, tree, (source.file,))
    if not is_keras(tree):
        raise UnknownFormat(
            f"{source.path}: an HDF5 file that neither Keras nor Caffe wrote; "
            "save the arrays of a checkpoint as safetensors"
        )
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def is_caffe(tree: dict[str, Any]) -> bool:
    """Nothing but numbered blobs of layers (.caffemodel.h5), or a solver's iteration and history (.solverstate.h5)."""
    names = tree["datasets"]
    blobs = [re.fullmatch(r"(data|diff)/.+/\d+", name) for name in names]
    solver = "iter" in names and "current_step" in names
    return solver or (bool(blobs) and all(blobs) and not tree["texts"])


def is_keras(tree: dict[str, Any]) -> bool:
    """The attributes of a legacy file, or Keras 3's groups called `vars`."""
    texts = tree["texts"]
    legacy = any(key in texts.get(group, {}) for group in ("", "model_weights") for key in KERAS)
    return legacy or any("/vars/" in f"/{name}" for name in tree["datasets"])


def read_tree(source: Source) -> dict[str, Any]:
    """Every dataset that holds numbers, and the attributes that are text."""
    with opened(source) as root:
        walk = _Walk(source)
        walk.group(root, "", 0)
    return {"datasets": walk.datasets, "texts": walk.texts}


class _Walk:
    """One walk over the links of a file; a group that is linked twice is entered once."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.datasets: dict[str, Place] = {}
        self.texts: dict[str, dict[str, Any]] = {}
        self.seen: set[int] = set()

    def group(self, group: h5py.Group, path: str, depth: int) -> None:
        """Everything below a group, in the file's own order (by name, unless it was written with another)."""
        import h5py

        address = address_of(group)
        if address in self.seen:
            return
        self.seen.add(address)
        if depth > DEEPEST or len(self.seen) + len(self.datasets) > MOST_OBJECTS:
            raise UnsafeFile(f"{self.source.path}: refused: more than {DEEPEST} levels or {MOST_OBJECTS} objects")
        self.attributes(group, path)
        for name in map(str, group):
            here = f"{path}/{name}" if path else name
            link = group.get(name, getlink=True)
            if not isinstance(link, h5py.HardLink):
                kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
                raise UnsafeFile(f"{self.source.path}: refused: {here} is {kind}; Keras writes none")
            node = group[name]
            if isinstance(node, h5py.Group):
                self.group(node, here, depth + 1)
            elif isinstance(node, h5py.Dataset):
                place = self.place(node, here)
                if place is not None:
                    self.datasets[here] = place

    def attributes(self, node: h5py.Group, path: str) -> None:
        """Texts and lists of texts."""
        found: dict[str, Any] = {}
        for name in node.attrs:
            kind = node.attrs.get_id(name).dtype
            if kind.kind in "SO":
                value = as_text(node.attrs[name])
                if value is not None:
                    found[name] = value
        if found:
            self.texts[path] = found

    def place(self, dataset: h5py.Dataset, name: str) -> Place | None:
        """Where a dataset lies; None if it holds no numbers."""
        import h5py

        what = f"{self.source.path}: {name}"
        if dataset.external or dataset.is_virtual:
            raise UnsafeFile(f"{what}: refused: its data lie in another file")
        dtype = dtype_of(dataset)
        if dtype is None or dataset.shape is None:
            return None
        shape = tuple(int(n) for n in dataset.shape)
        nbytes, stored = prod(shape) * ITEMSIZE[dtype], dataset.id.get_storage_size()
        if nbytes > stored * (MOST_PACKED if dataset.chunks else 1) or stored > self.source.size:
            raise UnsafeFile(f"{what}: refused: claims {nbytes} bytes and holds {min(stored, self.source.size)}")
        start = dataset.id.get_offset()
        kind = dataset.id.get_type()
        ordered = ITEMSIZE[dtype] > 1 and not isinstance(
            kind, h5py.h5t.TypeOpaqueID
        )  # Keras writes bfloat16 as it lies
        big = ordered and kind.get_order() == h5py.h5t.ORDER_BE
        if start is not None:
            if start + nbytes > self.source.size:
                raise DamagedFile(f"{what}: lies outside the file: truncated?")
            return Place(shape, dtype, self.source.base + start, big_endian=big)
        where = self.source.base + address_of(dataset)
        return Place(shape, dtype, where, find=Hdf5Dataset(name, self.source.base, self.source.size))


def dtype_of(dataset: h5py.Dataset) -> str | None:
    """torch's name of the element type; None for texts, records and references."""
    import h5py

    kind = dataset.id.get_type()
    if isinstance(kind, h5py.h5t.TypeFloatID):
        return {(2, 5): "float16", (2, 8): "bfloat16", (4, 8): "float32", (8, 11): "float64"}.get(
            (kind.get_size(), kind.get_fields()[2])
        )
    if isinstance(kind, h5py.h5t.TypeIntegerID):
        return ("int" if kind.get_sign() else "uint") + str(8 * kind.get_size()) if kind.get_size() <= 8 else None
    if isinstance(kind, h5py.h5t.TypeEnumID):
        return "bool" if dataset.dtype == np.bool_ else None
    if isinstance(kind, h5py.h5t.TypeOpaqueID) and kind.get_size() == 2 and dataset.id.get_offset() is not None:
        return "bfloat16" if as_text(dataset.attrs.get("dtype")) == "bfloat16" else None
    return None


def as_text(value: Any) -> str | list[str] | None:
    """An attribute as text, or as a list of texts; None for anything else."""
    if isinstance(value, np.ndarray):
        texts = [as_text(v) for v in value.ravel().tolist()]
        return [t for t in texts if isinstance(t, str)] if all(isinstance(t, str) for t in texts) else None
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return str(value) if isinstance(value, str) and len(value) <= LONGEST_TEXT else None


FORMAT = Format("Keras HDF5", matches, open_document, requires=("h5py",))
