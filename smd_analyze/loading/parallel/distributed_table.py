"""One folder that torch.distributed.checkpoint wrote: its index (.metadata) and where every chunk lies.

.metadata is a pickle of a table. Every chunk, and every value that is no tensor, is a torch.save archive of its own
inside a .distcp file, perhaps compressed. Source: torch/distributed/checkpoint/metadata.py, filesystem.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.files.listing import identity
from smd_analyze.loading.files.sources import FileId, Source, open_source, part_of
from smd_analyze.loading.parallel.rank_parts import refuse_flat
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.pickles.torch_archive import find_inside, read_archive
from smd_analyze.loading.pickles.zstandard_parts import find_packed, unpacked
from smd_analyze.loading.tensors.dtypes import ITEMSIZE
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place, joined

UNUSED = ("rng", "dataloader", "data_loader", "_extra_state")  # values whose names hold this are not looked at
LARGEST_VALUE = 1 << 20  # bytes of an entry that is no tensor
ZSTANDARD = "stream.zstd/1"
DEEPEST = 8
MOST_VALUES = 300_000  # in one entry: what is shared in a pickle unfolds without end


class Stretch(NamedTuple):
    """Where an entry lies: a file of the folder, first byte, number of bytes; whether it is compressed."""

    file: str
    start: int
    nbytes: int
    packed: bool


def read_folder(path: str, first: int) -> tuple[dict[Any, Any], list[FileId]]:
    """(the tree, as its writer nested it; its files, counted from `first`). Tensors are named, small values read."""
    table, metadata = read_table(path)
    where, used = storage_of(path, table["storage_data"])
    files = [file_in(path, name) for name in used]
    numbers = {name: i for i, name in enumerate(used)}
    refuse_flat((n for n in table["state_dict_metadata"] if isinstance(n, str)), path)
    tree: dict[Any, Any] = {}
    with Values(path) as values:
        for name, keys, entry in entries_of(table):
            places = where.get(name, {})
            if "chunks" in entry:
                value = tensor_of(f"{path}: {name}", entry, places, numbers, files, first)
            elif None in places and not any(word in name for word in UNUSED):
                value = values.read(places[None])
            else:
                continue
            put(tree, keys, value, path)
    return lists_made(tree), [*files, metadata]


def read_table(path: str) -> tuple[dict[str, Any], FileId]:
    """.metadata as plain data: torch's own reader would run what a hostile one asks for, this one does not."""
    file = f"{path}/.metadata"
    with open_source(file) as source:
        made, _ = read_pickle(source.read, 0, source.size, what=file)
        table = made.attributes if type(made) is Inert else {}
        if not all(isinstance(table.get(k), dict) for k in ("state_dict_metadata", "storage_data")):
            raise DamagedFile(f"{file}: is no index of a torch.distributed checkpoint")
        return table, source.file


def entries_of(table: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    """(name, path of keys, what the index says of it), in the order in which the state dict held them.

    The index lists a rank's entries after another's; the planner's table of paths has them as every rank did.
    """
    paths = table.get("planner_data")
    paths = paths if isinstance(paths, dict) else {}
    entries = table["state_dict_metadata"]
    for name in dict.fromkeys((*(n for n in paths if n in entries), *entries)):
        if isinstance(name, str):
            keys, entry = paths.get(name), entries[name]
            path = keys if isinstance(keys, tuple) and keys else (name,)
            yield name, path, entry.attributes if type(entry) is Inert else {}


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
        transforms = info.get("transform_descriptors") or []
        if transforms not in ([], [ZSTANDARD]):
            words = f"{name} was transformed by {transforms!r} when saved: only {ZSTANDARD} is read; save it plain"
            raise DamagedFile(f"{path}: {words}")
        used.add(file)
        at = tuple(offset) if isinstance(offset, tuple | list) else None
        where.setdefault(name, {})[at] = Stretch(file, start, nbytes, bool(transforms))
    return where, sorted(used)


def attributes_of_key(key: Any) -> dict[str, Any]:
    """A MetadataIndex, as the dictionary's key that it is."""
    if type(key) is Inert and key.name == "key" and key.args and type(key.args[0]) is Inert:
        key = key.args[0]
    return key.attributes if type(key) is Inert else {}


def file_in(path: str, name: str) -> FileId:
    """A file of the folder; DamagedFile if it is not there."""
    try:
        return identity(f"{path}/{name}")
    except FileNotFoundError:
        raise DamagedFile(f"{path}: {name}, which .metadata names, is missing; copy it into the folder") from None


def tensor_of(
    what: str,
    entry: Mapping[str, Any],
    where: Mapping[tuple[int, ...] | None, Stretch],
    numbers: Mapping[str, int],
    files: Sequence[FileId],
    first: int,
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
        number = numbers[place.file]
        find = find_packed if place.packed else find_inside
        piece = Place(size, dtype, place.start, file=first + number, find=find, within=place.nbytes)
        end = place.start + place.nbytes
        if not 0 <= place.start <= end <= files[number].size or (piece.nbytes > place.nbytes and not place.packed):
            lying = f"{place.nbytes} bytes from {place.start} of {place.file}"
            raise DamagedFile(f"{what}: {lying} do not hold its chunk: truncated?")
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
        if place.nbytes > LARGEST_VALUE:
            return None
        if place.file not in self.sources:
            self.sources[place.file] = self.stack.enter_context(open_source(f"{self.path}/{place.file}"))
        part = part_of(self.sources[place.file], place.start, place.nbytes)
        if place.packed:
            part = unpacked(part, LARGEST_VALUE)
        raw = part.read(0, part.size)
        if raw not in self.known:
            self.known[raw] = simple(read_archive(part)[0])
        return self.known[raw]


def simple(node: Any) -> Any:
    """Numbers, text, and dicts, lists and tuples of them; None for anything else, and for all of what is too much."""
    left = [MOST_VALUES]

    def made(one: Any, depth: int) -> Any:
        left[0] -= 1
        if left[0] < 0 or isinstance(one, bool | int | float | str):
            return one if left[0] >= 0 else None
        if depth < DEEPEST and isinstance(one, list | tuple):
            return type(one)(made(v, depth + 1) for v in one) if left[0] >= len(one) else None
        if depth < DEEPEST and type(one) is dict:
            return {k: made(v, depth + 1) for k, v in one.items()} if left[0] >= len(one) else None
        return None

    found = made(node, 0)
    return found if left[0] >= 0 else None


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
