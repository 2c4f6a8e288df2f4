"""NumPy .npz: a zip of .npy arrays (numpy.lib.format), stored or compressed; also what Chainer and MLX write.

Compressed members are unpacked one at a time, when they are read, and no further than their header says.
"""

from __future__ import annotations

import zlib
from dataclasses import replace
from typing import Any

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.encodings.numpy_arrays import ALIGNED, LONGEST_HEADER, read_header
from smd_analyze.loading.files.sources import FileId, Source, changed, read_array
from smd_analyze.loading.files.zip_directory import DEFLATED, Member, first_name, is_zip, member_start, read_directory
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.pickles.numpy_objects import holds_objects, read_objects
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import nested

BEST_RATIO = 1032  # deflate cannot pack better (zlib's technical notes)
LONGEST_ARRAY = 1 << 34  # bytes that a compressed member may unpack to
LONGEST_NAME = 1000


def matches(source: Source) -> bool:
    """A zip whose members are .npy arrays; a zip that is cut short counts if its first member is one."""
    if not is_zip(source):
        return False
    try:
        names = read_directory(source)
    except DamagedFile:
        return first_name(source).endswith(b".npy")
    arrays = sum(n.endswith(".npy") for n in names)
    return arrays > 0 and 2 * arrays > len(names)


def open_document(source: Source, previous: Document | None) -> Document:
    """Arrays under their names, slashes as levels. Dicts in place of an array are read as data, nothing is unpickled.

    UnsafeFile if there are objects and nothing else.
    """
    found: dict[str, Any] = {}
    padded = True
    for name, member in read_directory(source).items():
        if name.endswith(".npy") and len(name) < LONGEST_NAME:
            found[name[:-4]], header = read_member(source, name, member)
            padded = padded and header % ALIGNED == 0
    objects = [n for n, v in found.items() if type(v) is Inert]
    if len(objects) == len(found):
        raise UnsafeFile(
            f"{source.path}: refused: {objects[0]} is no array of numbers but pickled objects or text; "
            "save the arrays themselves: numpy.savez(path, **{name: array})"
        )
    tree = nested(found)
    if not padded:  # numpy always pads, MLX does not
        tree["__metadata__"] = {"format": "mlx"}
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def read_member(source: Source, name: str, member: Member) -> tuple[Any, int]:
    """(one array, or a dict of arrays that was pickled in its place; bytes of its header).

    UnsafeFile for encrypted members and unknown ways of packing.
    """
    what = f"{source.path}: {name}"
    start = member_start(source, name, member)
    if member.flags & 1 or member.method not in (0, DEFLATED):
        raise UnsafeFile(f"{what}: refused: encrypted, or compressed in a way that NumPy does not use")
    if member.method == 0:
        array, _ = read_header(source.read, start, member.size, what)
        if type(array) is Place:
            return array, array.start - start
        objects = holds_objects(source.read(start, start + min(member.size, 256)))
        held = read_objects(source, start, start + member.size, what) if objects else array
        return held if isinstance(held, dict) else array, 0
    packed = source.read(start, start + min(member.size, LONGEST_HEADER))
    try:
        head = zlib.decompressobj(-15).decompress(packed, LONGEST_HEADER)
    except zlib.error as problem:
        raise DamagedFile(f"{what}: does not unpack: {problem}") from None
    array, _ = read_header(lambda a, b: head[a:b], 0, min(BEST_RATIO * member.size, LONGEST_ARRAY), what)
    if type(array) is not Place:
        return array, 0
    return Place(array.shape, array.dtype, start, find=unpacked, within=member.size), array.start


def unpacked(file: FileId, place: Place) -> Place:
    """A compressed member with its bytes in memory; no more is unpacked than the array and its header need."""
    machine = zlib.decompressobj(-15)
    most = LONGEST_HEADER + place.nbytes
    try:
        data = machine.decompress(read_array(file, place.start, place.within).data, most)
    except zlib.error as problem:
        raise DamagedFile(f"{file.path}: a compressed array does not unpack: {problem}") from None
    array, _ = read_header(lambda a, b: data[a:b], 0, len(data), f"{file.path}: a compressed array")
    if type(array) is not Place:
        raise changed(file.path)
    return replace(array, start=0, inline=data[array.start : array.start + array.nbytes])


FORMAT = Format("npz", matches, open_document)
