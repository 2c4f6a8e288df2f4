"""Arrays that tensorstore decodes: zarr and zarr3, each in a folder of its own or many in an OCDBT database.

What a folder holds is told by its .zarray, zarr.json and manifest.ocdbt files; nothing in it can name another place:
the specs handed to tensorstore are made here, tensorstore refuses keys with `..`, and links out of the folder are
refused. Source: google.github.io/tensorstore/kvstore/ocdbt, zarr-specs.readthedocs.io.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile, SmdError, UnsafeFile
from smd_analyze.loading.files.sources import FileId, changed, open_source
from smd_analyze.loading.tensors.dtypes import NUMPY, NUMPY_CODES
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place

MANIFEST = "manifest.ocdbt"
HEADERS = {".zarray": "zarr", "zarr.json": "zarr3"}
PROCESS = "ocdbt.process_"
FIRST = (MANIFEST, *HEADERS, "checkpoint")
LARGEST_HEADER = 1 << 20  # bytes
MOST_ARRAYS = 300_000
MOST_FILES = 1_000_000
DEEPEST = 16
CACHE = 1 << 24  # bytes of a database's nodes that are kept while it is listed
MOST_UNFOLDED = 40_000  # bytes that a byte of a compressed file may stand for (zstd: a block of one value)
SMALL = 1 << 26  # bytes of an array that is never suspicious
TYPES = {**NUMPY_CODES, "int4": "int8", "uint4": "uint8", "int2": "int8"}
"""zarr's dtypes without their byte order → ours; integers of less than a byte are widened."""


def below(path: str) -> tuple[str, ...]:
    """All files under a folder, relative to it; only names are looked at.

    Those that name arrays come first, so that they have the same numbers in every checkpoint of a run.
    """
    return tuple(sorted(names_below(path), key=lambda n: (n.rpartition("/")[2] not in FIRST, n)))


def names_below(path: str) -> Iterator[str]:
    """The same, unsorted, with links to folders, into which nothing is looked; cut off where there are too many."""
    count = 0
    for folder, inner, files in os.walk(path):
        inside = os.path.relpath(folder, path)
        prefix = "" if inside == "." else inside + "/"
        links = [b for b in inner if os.path.islink(f"{folder}/{b}")]  # noqa: PTH114 (many names: pathlib costs more)
        yield from (prefix + f for f in (*files, *links))
        count += len(files) + len(links)
        if count > MOST_FILES:
            return
        if prefix.count("/") > DEEPEST:
            inner[:] = []


def identities(path: str, files: Sequence[str]) -> tuple[FileId, ...]:
    """The files as they are now. UnsafeFile for links that leave the folder, unless into Hugging Face's cache."""
    if len(files) > MOST_FILES:
        raise UnsafeFile(f"{path}: refused: more than {MOST_FILES} files")
    found: list[FileId] = []
    home = os.path.realpath(path)
    cache = home.partition("/snapshots/")[0] + "/blobs" if "/snapshots/" in home else home
    for name in files:
        full = f"{path}/{name}"
        status = os.stat(full)  # noqa: PTH116
        if os.path.islink(full):  # noqa: PTH114
            target = os.path.realpath(full)
            if os.path.commonpath((home, target)) != home and os.path.commonpath((cache, target)) != cache:
                raise UnsafeFile(f"{full}: refused: is a link that leaves the checkpoint; copy what it points to")
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeFile(f"{full}: refused: neither a file nor a folder; remove it, or copy what it points to")
        found.append(FileId(full, status.st_size, status.st_mtime_ns))
    return tuple(found)


def find_arrays(files: Sequence[FileId], path: str) -> dict[str, Any]:
    """Every array below `path` under its name there, slashes between folders and databases' keys as they are.

    A value is a Place, or an Inert for a type that is no number. Headers are read, no elements.
    """
    out: dict[str, Any] = {}
    whole = sum(f.size for f in files)
    managed = {f.path[: -len(MANIFEST)] for f in files if f.path.endswith("/" + MANIFEST)}
    for number, file in enumerate(files):
        folder, _, leaf = file.path.rpartition("/")
        inside = folder[len(path) + 1 :]
        if leaf in HEADERS and not any(file.path.startswith(m) for m in managed):
            with open_source(file.path) as source:
                if source.size > LARGEST_HEADER:
                    raise DamagedFile(f"{file.path}: {source.size} bytes are no zarr header")
                header = source.read(0, source.size)
            out[inside] = place_of(header, leaf, number, "", whole, file.path)
        elif leaf == MANIFEST:
            above, _, own = inside.rpartition("/")
            if own.startswith(PROCESS):  # what one host wrote; the database above has it all, once they were merged
                hosts = sum(m.startswith(f"{path}/{above}/{PROCESS}".replace("//", "/")) for m in managed)
                if f"{path}/{above}/".replace("//", "/") in managed or hosts > 1:
                    continue
                inside = above
            for key, header in database(file):
                name, _, kind = key.rpartition("/")
                out[f"{inside}/{name}" if inside else name] = place_of(
                    header, kind, number, key, whole, f"{folder}: {name}"
                )
        if len(out) > MOST_ARRAYS:
            raise UnsafeFile(f"{path}: refused: more than {MOST_ARRAYS} arrays")
    return {k: v for k, v in out.items() if v is not None}


def database(manifest: FileId) -> list[tuple[str, bytes]]:
    """(key, header) of every array in an OCDBT database."""
    import tensorstore

    folder = manifest.path[: -len(MANIFEST)]
    context = tensorstore.Context({"cache_pool": {"total_bytes_limit": CACHE}})
    spec = {"driver": "ocdbt", "base": {"driver": "file", "path": folder}}

    def listed() -> list[tuple[str, bytes]]:
        store = tensorstore.KvStore.open(spec, context=context).result()
        keys = [k for k in store.list().result() if k.rpartition(b"/")[2].decode("utf-8", "replace") in HEADERS]
        if len(keys) > MOST_ARRAYS:
            raise UnsafeFile(f"{folder}: refused: more than {MOST_ARRAYS} arrays")
        reads = [store.read(k) for k in keys]
        return [(k.decode("utf-8", "replace"), bytes(r.result().value)) for k, r in zip(keys, reads, strict=True)]

    return guarded(listed, manifest)


def place_of(header: bytes, kind: str, file: int, key: str, whole: int, what: str) -> Any:
    """The array that a zarr header describes; None for a group's. `whole` is what the checkpoint's files weigh."""
    found = parsed(header, kind)
    if found is None:
        raise DamagedFile(f"{what}: its zarr header is not sound")
    shape, dtype = found
    if not dtype:
        return None
    if dtype not in NUMPY:
        return Inert(f"array of dtype {dtype}")
    place = Place(shape, dtype, 0, file=file, read=read_array, key=key)
    if place.nbytes > max(SMALL, MOST_UNFOLDED * whole):
        raise DamagedFile(f"{what}: claims {place.nbytes} bytes in a checkpoint of {whole}: damaged?")
    return place


@lru_cache(maxsize=1 << 14)
def parsed(header: bytes, kind: str) -> tuple[tuple[int, ...], str] | None:
    """(shape, dtype) of a zarr header, dtype "" for a group; None for what is none. Those of a run repeat."""
    try:
        said = json.loads(header)
        if kind == "zarr.json" and said.get("node_type") == "group":
            return (), ""
        shape = tuple(said["shape"])
        dtype = said["data_type" if kind == "zarr.json" else "dtype"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    if not all(type(n) is int and n >= 0 for n in shape):
        return None
    name = dtype.lstrip("<>|=") if isinstance(dtype, str) and dtype else "unknown"
    return shape, TYPES.get(name, name)


@cache
def reading() -> Any:
    """What all reads share: nothing is kept, and few threads work, each of which holds on to memory of its own."""
    import tensorstore

    one = {"limit": 1}
    return tensorstore.Context(
        {"cache_pool": {"total_bytes_limit": 0}, "data_copy_concurrency": one, "file_io_concurrency": one}
    )


def read_stored(file: FileId, place: Place) -> np.ndarray:
    """The same; DamagedFile if a chunk is missing, which else stands for one that was all zeros."""
    return read_array(file, place, stored=True)


def read_array(file: FileId, place: Place, stored: bool = False) -> np.ndarray:
    """The elements of one array, or of a part of it; bfloat16 and float8 as their bits. One array is in memory."""
    import tensorstore

    folder, _, leaf = file.path.rpartition("/")
    store: dict[str, Any] = {"driver": "file", "path": folder + "/"}
    if leaf == MANIFEST:
        leaf = place.key.rpartition("/")[2]
        store = {"driver": "ocdbt", "base": store, "path": place.key[: -len(leaf)]}
    spec = {"driver": HEADERS[leaf], "kvstore": store, "fill_missing_data_reads": not stored}
    context = reading()

    def elements() -> np.ndarray:
        opened = tensorstore.open(spec, context=context, read=True, open=True).result()
        for axis, index in place.part:
            opened = opened[(slice(None),) * axis + (index,)]
        if tuple(opened.shape) != place.shape:
            raise DamagedFile(f"{file.path}: {place.key or leaf}: is of shape {list(opened.shape)}, was {place.shape}")
        return np.asarray(opened.read(order="C").result())

    check(file)
    array = guarded(elements, file, place.key)
    check(file)
    kind = np.dtype(NUMPY[place.dtype])
    if array.dtype.itemsize == kind.itemsize and (array.dtype.kind == kind.kind or array.dtype.name == place.dtype):
        return array.view(kind)
    if array.dtype.name in TYPES:
        return array.astype(kind)
    raise DamagedFile(f"{file.path}: {place.key or leaf}: holds {array.dtype}, the header said {place.dtype}")


def guarded(call: Callable[[], Any], file: FileId, key: str = "") -> Any:
    """tensorstore's result; DamagedFile with the beginning of its message for what it cannot read."""
    try:
        return call()
    except SmdError:
        raise
    except (ValueError, RuntimeError, KeyError, OSError, IndexError, NotImplementedError) as problem:
        words = str(problem).partition(" [")[0][:300]
        raise DamagedFile(f"{file.path}: {key + ': ' if key else ''}tensorstore cannot read it: {words}") from None


def check(file: FileId) -> None:
    """The file is still the one that was listed."""
    now = os.stat(file.path)  # noqa: PTH116
    if (now.st_size, now.st_mtime_ns) != (file.size, file.mtime_ns):
        raise changed(file.path)
