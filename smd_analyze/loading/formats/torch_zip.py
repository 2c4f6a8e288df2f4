"""torch.save since 1.6, and TorchScript: a zip that holds data.pkl and one stored member per storage."""

from __future__ import annotations

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.files.zip_directory import first_name, is_zip
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.pickles.torch_archive import read_archive, root_of


def matches(source: Source) -> bool:
    """A zip with exactly one data.pkl at its top; a zip that is cut short counts if data.pkl is its first member."""
    if not is_zip(source):
        return False
    try:
        return root_of(source) is not None
    except DamagedFile:
        return first_name(source).endswith(b"data.pkl")


def open_document(source: Source, previous: Document | None) -> Document:
    """What was saved, with Places for tensors. Nothing of it is run; compressed members are refused."""
    known = (previous.tree, previous.fingerprint) if previous else None
    tree, fingerprint = read_archive(source, known)
    return Document(source.path, FORMAT.name, tree, (source.file,), fingerprint)


FORMAT = Format("torch zip", matches, open_document)
