"""A single .npy file that np.save made of a dict: {name: array}, pickled behind NumPy's header."""

from __future__ import annotations

from smd_analyze.errors import UnsafeFile
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.pickles.numpy_objects import holds_objects, read_objects


def matches(source: Source) -> bool:
    """Called .npy, NumPy's header, and an element type that says objects."""
    return source.path.endswith(".npy") and holds_objects(source.head)


def open_document(source: Source, previous: Document | None) -> Document:
    """The dict; UnsafeFile if the objects are no dict of arrays."""
    tree = read_objects(source, 0, source.size, source.path)
    if not isinstance(tree, dict):
        raise UnsafeFile(
            f"{source.path}: refused: its objects are no dict of arrays; "
            "save the arrays themselves: numpy.savez(path, **{name: array})"
        )
    return Document(source.path, FORMAT.name, tree, (source.file,))


FORMAT = Format("npy objects", matches, open_document)
