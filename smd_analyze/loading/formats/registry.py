"""Which format a file has: all are asked, exactly one may answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import entry_points
from importlib.util import find_spec

from smd_analyze.errors import AmbiguousFormat, MissingLibrary, UnknownFormat
from smd_analyze.loading.files.sources import Source
from smd_analyze.loading.formats import (
    caffe,
    deepspeed,
    deepspeed_universal,
    equinox,
    gguf,
    hdf5,
    keras_archive,
    megatron_legacy,
    mindspore,
    msgpack,
    mxnet,
    nemo,
    npy_folder,
    npy_objects,
    npz,
    onnx,
    orbax,
    paddle_inference,
    pickles,
    rank_files,
    safetensors,
    safetensors_shards,
    stable_baselines3,
    t5x,
    tensor_bundle,
    tensorstore_folder,
    torch_distributed,
    torch_export,
    torch_legacy,
    torch_zip,
)
from smd_analyze.loading.formats.base import Document, FolderFormat, Format
from smd_analyze.loading.formats.kinds import describe

FORMATS: tuple[Format, ...] = (
    safetensors.FORMAT,
    hdf5.FORMAT,
    keras_archive.FORMAT,
    tensor_bundle.FORMAT,
    torch_zip.FORMAT,
    stable_baselines3.FORMAT,
    nemo.FORMAT,
    torch_export.FORMAT,
    torch_legacy.FORMAT,
    pickles.FORMAT,
    npz.FORMAT,
    npy_objects.FORMAT,
    msgpack.FORMAT,
    mindspore.FORMAT,
    mxnet.FORMAT,
    onnx.FORMAT,
    gguf.FORMAT,
    equinox.FORMAT,
    caffe.FORMAT,
    paddle_inference.FORMAT,
)
FOLDER_FORMATS: tuple[FolderFormat, ...] = (
    torch_distributed.FORMAT,
    deepspeed.FORMAT,
    deepspeed_universal.FORMAT,
    megatron_legacy.FORMAT,
    rank_files.FORMAT,
    safetensors_shards.FORMAT,
    npy_folder.FORMAT,
    orbax.FORMAT,
    t5x.FORMAT,
    tensorstore_folder.FORMAT,
)


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
    check_library(source.path, form)
    return form.open(source, (previous or {}).get(form.name))


def folder_format_of(
    path: str, files: Sequence[str], below: Sequence[str]
) -> tuple[FolderFormat | None, tuple[str, ...]]:
    """The first format that says the folder is one checkpoint of its kind, and the files it consists of."""
    for form in FOLDER_FORMATS:
        claimed = form.claims(path, files, below)
        if claimed:
            return form, claimed
    return None, ()


def check_library(path: str, form: Format | FolderFormat) -> None:
    """MissingLibrary with the pip line if a library that reading needs is not there."""
    missing = [name for name in form.requires if find_spec(name) is None]
    if missing:
        extra = form.extra if isinstance(form, FolderFormat) else ""
        what = f"'smd-analyze[{extra}]'" if extra else " ".join(missing)
        raise MissingLibrary(f"{path}: {form.name} files need {missing[0]}: pip install {what}")
