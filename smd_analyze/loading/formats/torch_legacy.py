"""torch.save before 1.6, and ever since with `_use_new_zipfile_serialization=False`."""

from __future__ import annotations

from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.pickles.torch_stream import is_stream, read_stream


def open_document(source: Source, previous: Document | None) -> Document:
    """What was saved, with Places for tensors."""
    known = (previous.tree, previous.fingerprint) if previous else None
    tree, fingerprint = read_stream(source, known)
    return Document(source.path, FORMAT.name, tree, (source.file,), fingerprint)


FORMAT = Format("torch legacy", is_stream, open_document)
