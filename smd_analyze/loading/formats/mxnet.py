"""MXNet's .params: a list of dense arrays, then their names (mxnet/src/ndarray/ndarray.cc, NDArray::Save)."""

from __future__ import annotations

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.blocks import Cursor
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.tensors.places import Place, placed

MAGIC = (0x112).to_bytes(8, "little") + bytes(8)
VERSIONS = (0xF993FAC9, 0xF993FACA)  # with storage types; with NumPy's shapes
DTYPES = {
    0: "float32", 1: "float64", 2: "float16", 3: "uint8", 4: "int32", 5: "int8", 6: "int64", 7: "bool", 8: "int16",
    9: "uint16", 10: "uint32", 11: "uint64", 12: "bfloat16",
}  # fmt: skip
DENSE = (0, -1)
MOST_AXES = 32


def matches(source: Source) -> bool:
    """The list's magic number and its reserved word."""
    return source.head[:16] == MAGIC


def open_document(source: Source, previous: Document | None) -> Document:
    """{name: Place}, names as saved (also "arg:conv0_weight"). DamagedFile if the lists do not fit the file."""
    walk = Walk(source, len(MAGIC))
    places = [walk.array(number) for number in range(walk.count())]
    names = [walk.text() for _ in range(walk.count())]
    if len(names) != len(places) or len(set(names)) != len(names):
        if names:
            raise DamagedFile(f"{source.path}: holds {len(places)} arrays, but {len(set(names))} names")
        names = [str(i) for i in range(len(places))]
    tree = dict(zip(names, places, strict=True))
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


class Walk(Cursor):
    """A position in the list."""

    def array(self, number: int) -> Place:
        """One array: version, storage type, axes, context, element type, elements."""
        what = f"{self.source.path}: array {number}"
        version, storage, axes = self.numbers("Iii")
        if version not in VERSIONS or storage not in DENSE:
            raise DamagedFile(f"{what}: is sparse, or of an MXNet before 1.0 (version {version:#x}): save it anew")
        if not 0 <= axes <= MOST_AXES:
            raise DamagedFile(f"{what}: claims {axes} axes: damaged?")
        shape = self.numbers(f"{axes}q")
        _, _, kind = self.numbers("iii")
        if kind not in DTYPES:
            raise DamagedFile(f"{what}: its elements are of an unknown type, {kind}")
        place = placed(shape, None, DTYPES[kind], 0, self.at, self.source.size - self.at, what)
        self.at += place.nbytes
        return place


FORMAT = Format("mxnet", matches, open_document)
