"""Which format a file has: all are asked, exactly one may answer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec

from smd_analyze.errors import AmbiguousFormat, MissingLibrary, UnknownFormat
from smd_analyze.loading.formats import pickles, safetensors, torch_legacy, torch_zip
from smd_analyze.loading.formats.base import Document, Format
from smd_analyze.loading.formats.kinds import describe
from smd_analyze.loading.sources import Source

FORMATS: tuple[Format, ...] = (safetensors.FORMAT, torch_zip.FORMAT, torch_legacy.FORMAT, pickles.FORMAT)


@cache
def plugins() -> tuple[Format, ...]:
    """Formats of other packages: entry points `smd_analyze.formats`, read only when no built-in one matches."""
    return tuple(entry.load() for entry in entry_points(group="smd_analyze.formats"))


def format_of(source: Source) -> Format:
    """The one format that recognises the file; UnknownFormat or AmbiguousFormat otherwise."""
    found = [f for f in FORMATS if f.matches(source)] or [f for f in plugins() if f.matches(source)]
    if not found:
        raise UnknownFormat(f"{source.path}: {describe(source)}")
    if len(found) > 1:
        names = " and ".join(f.name for f in found)
        raise AmbiguousFormat(f"{source.path}: could be {names}; remove one of these formats or convert the file")
    return found[0]


def open_document(source: Source, previous: Mapping[str, Document] | None = None) -> Document:
    """The file as a Document; the `previous` one of its format is used again where the layout is the same."""
    form = format_of(source)
    missing = [name for name in form.requires if find_spec(name) is None]
    if missing:
        raise MissingLibrary(f"{source.path}: {form.name} files need {missing[0]}: pip install {' '.join(missing)}")
    return form.open(source, (previous or {}).get(form.name))
