"""NeMo's .nemo: a tar with model_weights.ckpt, a torch file, and model_config.yaml; the tensors are read in place.

Format of tar: POSIX.1-1988 ustar, blocks of 512 bytes; GNU's and pax' headers for long names are stepped over.
"""

from __future__ import annotations

from collections.abc import Iterator

from smd_analyze.errors import DamagedFile, UnknownFormat
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.pickles.torch_files import read_inside

BLOCK = 512
WEIGHTS = "model_weights.ckpt"
MOST_MEMBERS = 100_000


def matches(source: Source) -> bool:
    """A tar that is called .nemo, or begins with one of NeMo's members."""
    return source.head[257:262] == b"ustar" and (
        source.path.endswith(".nemo") or b"model_weights" in source.head[:100] or b"model_config" in source.head[:100]
    )


def open_document(source: Source, previous: Document | None) -> Document:
    """The state dict in model_weights.ckpt. UnknownFormat if the tar holds the weights in another way."""
    names: list[str] = []
    for name, start, size in members(source):
        names.append(name)
        if name.rpartition("/")[2] == WEIGHTS:
            tree = read_inside(source, start, size, source.path)
            return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))
    if any("model_weights/" in n for n in names):
        raise UnknownFormat(f"{source.path}: holds a distributed checkpoint: unpack it with tar and name the folder")
    raise UnknownFormat(f"{source.path}: a tar archive without {WEIGHTS}: unpack it")


def members(source: Source) -> Iterator[tuple[str, int, int]]:
    """(name, first byte, bytes) of every file in the tar. DamagedFile if a header is not sound."""
    at = 0
    for _ in range(MOST_MEMBERS):
        if at + BLOCK > source.size:
            raise DamagedFile(f"{source.path}: a tar archive that is cut short")
        head = source.read(at, at + BLOCK)
        if not any(head):
            return
        size = number(head[124:136], source.path)
        start = at + BLOCK
        if start + size > source.size:
            raise DamagedFile(f"{source.path}: a member of the tar leaves the file: truncated")
        if head[156:157] in (b"0", b"\0"):
            yield head[:100].rstrip(b"\0").decode("utf-8", "replace"), start, size
        at = start + -(-size // BLOCK) * BLOCK
    raise DamagedFile(f"{source.path}: a tar archive of more than {MOST_MEMBERS} members")


def number(field: bytes, what: str) -> int:
    """A size in octal digits, or, above 8 GB, in base 256."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        return int(field.rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise DamagedFile(f"{what}: not a sound tar archive") from None


FORMAT = Format("NeMo tar", matches, open_document)
