"""torch.distributed.checkpoint (DCP): a folder with .metadata and *.distcp files; FSDP2, torchtitan, Megatron-core.

.metadata is a pickle of a table: which chunk of which tensor lies where. Every chunk, and every value that is no
tensor, is a torch.save archive of its own inside a .distcp file.
Source: torch/distributed/checkpoint/metadata.py and filesystem.py.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from smd_analyze.errors import DamagedFile, SmdError, UnsafeFile
from smd_analyze.loading.dtypes import ITEMSIZE
from smd_analyze.loading.formats.base import Document, FolderFormat
from smd_analyze.loading.inert_objects import Inert
from smd_analyze.loading.inert_pickle import read_pickle
from smd_analyze.loading.sources import FileId, Source, open_source, part_of
from smd_analyze.loading.tensors import Place, joined
from smd_analyze.loading.torch_archive import find_inside, read_archive
from smd_analyze.loading.trees import moved
from smd_analyze.records.finding import Finding

BESIDE = ("common.pt", "meta.pt")  # Megatron-core's and Lightning's file of what is not sharded
UNUSED = ("rng", "dataloader", "data_loader", "_extra_state")  # entries whose names hold this are not looked at
LARGEST_VALUE = 1 << 20  # bytes of an entry that is no tensor
DEEPEST = 8

Stretch = tuple[str, int, int]  # file, first byte, number of bytes


def claims(path: str, files: Sequence[str], below: Sequence[str]) -> tuple[str, ...]:
    """A folder that holds .metadata and parts; without the former, a save is not finished."""
    if ".metadata" not in files or not any(f.endswith(".distcp") for f in files):
        return ()
    return (".metadata", *(f for f in files if f.endswith(".distcp") or f in BESIDE))


def open_folder(path: str, files: Sequence[str], previous: Document | None) -> tuple[Document, list[Finding]]:
    """The folder's tree, as its writer nested it. Tensors are named, not read; small values are."""
    table, metadata = read_table(path)
    where, used = storage_of(path, table["storage_data"])
    identities = [identity(path, name) for name in used]
    numbers = {name: i for i, name in enumerate(used)}
    paths = table.get("planner_data")
    paths = paths if isinstance(paths, dict) else {}
    tree: dict[Any, Any] = {}
    values = Values(path)
    with values:
        for name, entry in table["state_dict_metadata"].items():
            found = entry.attributes if type(entry) is Inert else {}
            if not isinstance(name, str) or any(word in name for word in UNUSED):
                continue
            keys = paths.get(name)
            keys = keys if isinstance(keys, tuple) and keys else (name,)
            if "chunks" in found:
                put(tree, keys, tensor_of(f"{path}: {name}", found, where.get(name, {}), numbers, identities), path)
            elif None in where.get(name, {}):
                put(tree, keys, values.read(where[name][None]), path)
    tree = lists_made(tree)
    findings: list[Finding] = []
    for name in BESIDE:
        if name in files:
            try:
                with open_source(f"{path}/{name}") as source:
                    beside, _ = read_archive(source)
                if type(beside) is dict:
                    tree = {**moved(beside, len(identities)), **tree}
                identities.append(source.file)
            except (SmdError, OSError) as problem:
                remedy = "Its settings are not used."
                findings.append(Finding("unreadable-file", "warning", f"{path}/{name}", str(problem), remedy))
    return Document(path, FORMAT.name, tree, (*identities, metadata), folder=True), findings


def read_table(path: str) -> tuple[dict[str, Any], FileId]:
    """.metadata as plain data: torch's own reader would run what a hostile one asks for, this one does not."""
    file = f"{path}/.metadata"
    with open_source(file) as source:
        made, _ = read_pickle(source.read, 0, source.size, what=file)
        table = made.attributes if type(made) is Inert else {}
        if not all(isinstance(table.get(k), dict) for k in ("state_dict_metadata", "storage_data")):
            raise DamagedFile(f"{file}: is no index of a torch.distributed checkpoint")
        return table, source.file


def storage_of(
    path: str, entries: Mapping[Any, Any]
) -> tuple[dict[str, dict[tuple[int, ...] | None, Stretch]], list[str]]:
    """Name → offset of the chunk (None: the whole) → where it lies; and all files, sorted."""
    where: dict[str, dict[tuple[int, ...] | None, Stretch]] = {}
    used: set[str] = set()
    for key, value in entries.items():
        index = attributes_of_key(key)
        info = value.attributes if type(value) is Inert else {}
        name, file = index.get("fqn"), info.get("relative_path")
        start, nbytes, offset = info.get("offset"), info.get("length"), index.get("offset")
        if not (isinstance(name, str) and isinstance(file, str) and type(start) is int and type(nbytes) is int):
            raise DamagedFile(f"{path}/.metadata: an entry does not say where it lies")
        if "/" in file or "\\" in file or "\0" in file or file in ("", ".", ".."):
            raise UnsafeFile(f"{path}/.metadata: refused: names a file outside its folder: {file!r}")
        if info.get("transform_descriptors"):
            raise DamagedFile(
                f"{path}: {name} was transformed (compressed?) when saved: this is not read; save it plain"
            )
        used.add(file)
        at = tuple(offset) if isinstance(offset, tuple | list) else None
        where.setdefault(name, {})[at] = (file, start, nbytes)
    return where, sorted(used)


def attributes_of_key(key: Any) -> dict[str, Any]:
    """A MetadataIndex, as the dictionary's key that it is."""
    if type(key) is Inert and key.name == "key" and key.args and type(key.args[0]) is Inert:
        key = key.args[0]
    return key.attributes if type(key) is Inert else {}


def identity(path: str, name: str) -> FileId:
    """A file of the folder; DamagedFile if it is not there."""
    file = f"{path}/{name}"
    try:
        found = os.stat(file)  # noqa: PTH116
    except OSError:
        raise DamagedFile(f"{path}: {name}, which .metadata names, is missing; copy it into the folder") from None
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFile(f"{file}: refused: not a regular file")
    return FileId(file, found.st_size, found.st_mtime_ns)


def tensor_of(
    what: str,
    entry: Mapping[str, Any],
    where: Mapping[tuple[int, ...] | None, Stretch],
    numbers: Mapping[str, int],
    files: Sequence[FileId],
) -> Any:
    """One tensor as a Place of its chunks; an Inert if its elements are of a type that is not read."""
    dtype, shape, chunks = dtype_of(entry.get("properties")), entry.get("size"), entry.get("chunks")
    if dtype not in ITEMSIZE:
        return Inert(f"tensor of dtype {dtype}")
    if not isinstance(shape, tuple) or not isinstance(chunks, list):
        raise DamagedFile(f"{what}: its entry in .metadata is not sound")
    pieces: list[tuple[tuple[int, ...], Place]] = []
    for chunk in chunks:
        found = chunk.attributes if type(chunk) is Inert else {}
        begin, size = found.get("offsets"), found.get("sizes")
        if not (isinstance(begin, tuple) and isinstance(size, tuple) and len(begin) == len(size) == len(shape)):
            raise DamagedFile(f"{what}: a chunk in .metadata does not say which part it is")
        if not all(type(n) is int and n >= 0 for n in (*begin, *size)):
            raise DamagedFile(f"{what}: a chunk of shape {size} at {begin} cannot be")
        place = where.get(begin) or (where.get(None) if len(chunks) == 1 else None)
        if place is None:
            raise DamagedFile(f"{what}: .metadata does not say where its chunk at {begin} lies")
        file, start, nbytes = place
        piece = Place(size, dtype, start, file=numbers[file], find=find_inside, within=nbytes)
        if not 0 <= start <= start + nbytes <= files[piece.file].size or piece.nbytes > nbytes:
            raise DamagedFile(f"{what}: {nbytes} bytes from {start} of {file} do not hold its chunk: truncated?")
        pieces.append((begin, piece))
    return joined(shape, dtype, pieces, what)


def dtype_of(properties: Any) -> str:
    """The element type in TensorProperties, whose state is (dtype, layout, …) or a dict."""
    state = properties.state if type(properties) is Inert else None
    kind = state[0] if isinstance(state, tuple) and state else state.get("dtype") if type(state) is dict else None
    return str(kind).rpartition(" ")[2].rpartition(".")[2]


class Values:
    """Entries that are no tensor, each a small archive; equal bytes are understood once."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.stack = ExitStack()
        self.sources: dict[str, Source] = {}
        self.known: dict[bytes, Any] = {}

    def __enter__(self) -> Values:
        return self

    def __exit__(self, *_: object) -> None:
        self.stack.close()

    def read(self, place: Stretch) -> Any:
        """The value: numbers, text and what is made of them; None for all else."""
        file, start, nbytes = place
        if nbytes > LARGEST_VALUE:
            return None
        if file not in self.sources:
            self.sources[file] = self.stack.enter_context(open_source(f"{self.path}/{file}"))
        part = part_of(self.sources[file], start, nbytes)
        raw = part.read(0, nbytes)
        if raw not in self.known:
            self.known[raw] = simple(read_archive(part)[0])
        return self.known[raw]


def simple(node: Any, depth: int = 0) -> Any:
    """Numbers, text, and dicts, lists and tuples of them; None for anything else."""
    if isinstance(node, bool | int | float | str):
        return node
    if depth < DEEPEST and isinstance(node, list | tuple):
        return type(node)(simple(v, depth + 1) for v in node)
    if depth < DEEPEST and type(node) is dict:
        return {k: simple(v, depth + 1) for k, v in node.items()}
    return None


def put(tree: dict[Any, Any], keys: Sequence[Any], value: Any, path: str) -> None:
    """The value at a path of keys; whole numbers among them are places in a list."""
    node = tree
    for key in keys[:-1]:
        node = node.setdefault(key, {})
        if type(node) is not dict:
            raise DamagedFile(f"{path}/.metadata: {keys} lies inside something that is no dict")
    node[keys[-1]] = value


def lists_made(node: Any) -> Any:
    """Dicts whose keys are 0, 1, 2, … as the lists that they were."""
    if type(node) is not dict:
        return node
    made = {k: lists_made(v) for k, v in node.items()}
    if made and all(type(k) is int for k in made) and sorted(made) == list(range(len(made))):
        return [made[i] for i in range(len(made))]
    return made


FORMAT = FolderFormat("torch DCP", claims, open_folder)
