"""Archives that torch compressed inside a file (its ZStandard extension): unpacked whole, when they are asked for.

Python unpacks this from 3.14 on; before, the library zstandard does.
"""

from __future__ import annotations

import io
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from typing import IO

from smd_analyze.errors import DamagedFile, MissingLibrary, UnsafeFile
from smd_analyze.loading.files.sources import FileId, Source, changed, open_source, part_of
from smd_analyze.loading.pickles.torch_archive import read_archive
from smd_analyze.loading.tensors.places import Place

AROUND = 1 << 16  # bytes that an archive has beyond its tensor's


def find_packed(file: FileId, place: Place) -> Place:
    """The one tensor of the compressed archive at byte `place.start`, `place.within` bytes long, with its bytes."""
    with open_source(file.path) as source:
        if source.file != file:
            raise changed(file.path)
        part = unpacked(part_of(source, place.start, place.within), place.nbytes + AROUND)
    found, _ = read_archive(part)
    if type(found) is not Place or found.inline is not None or found.strides is not None:
        raise DamagedFile(f"{file.path}: no plain tensor lies at byte {place.start}, where the index says one does")
    return replace(found, start=0, inline=part.head[found.start : found.start + found.nbytes])


def unpacked(part: Source, most: int) -> Source:
    """The part's content as a source in memory; UnsafeFile if it unfolds to more than `most` bytes."""
    try:
        content = opened(io.BytesIO(part.read(0, part.size)), part.path).read(most + 1)
    except MissingLibrary:
        raise
    except Exception as problem:  # each library has errors of its own
        raise DamagedFile(f"{part.path}: a compressed part is not sound: {problem}") from None
    if len(content) > most:
        raise UnsafeFile(f"{part.path}: refused: a compressed part unfolds to more than {most} bytes")
    return Source(part.path, len(content), part.mtime_ns, part.pread, head=content)


def opened(packed: IO[bytes], path: str) -> IO[bytes]:
    """The content of a stream, to be read from its start."""
    if find_spec("compression") is not None:
        return import_module("compression.zstd").ZstdFile(packed)
    if find_spec("zstandard") is not None:
        return import_module("zstandard").ZstdDecompressor().stream_reader(packed)
    raise MissingLibrary(f"{path}: its parts are compressed: pip install zstandard")
