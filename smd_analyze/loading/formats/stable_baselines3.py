"""Stable-Baselines3: a zip of torch files (policy.pth, policy.optimizer.pth, …) and a JSON member `data`.

Source: stable_baselines3/common/save_util.py, save_to_zip_file. Members are stored, so tensors are read in place; in
a zip that was packed again they are unpacked one at a time. What `data` holds as pickles (":serialized:") is not looked
at.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.files.sources import FileId, Source, read_array
from smd_analyze.loading.files.zip_directory import (
    DEFLATED,
    Member,
    first_name,
    inflated,
    is_zip,
    member_start,
    read_directory,
    read_member,
)
from smd_analyze.loading.formats.base import Document, Format, shared
from smd_analyze.loading.pickles.torch_files import read_either, read_inside
from smd_analyze.loading.tensors.places import Place, read_place
from smd_analyze.loading.tensors.trees import with_places

LONGEST_DATA = 1 << 26  # bytes of the JSON member
LONGEST_MEMBER = 1 << 30  # bytes that a packed member may unpack to


def matches(source: Source) -> bool:
    """A zip that holds policy.pth and no data.pkl of its own."""
    if not is_zip(source):
        return False
    try:
        names = read_directory(source)
    except DamagedFile:
        return first_name(source) == b"data" and b"policy_class" in source.head
    return "policy.pth" in names and "data.pkl" not in names


def open_document(source: Source, previous: Document | None) -> Document:
    """Each torch file under its name without the ending, and the JSON's plain values under "data"."""
    tree: dict[str, Any] = {}
    for name, member in read_directory(source).items():
        if name.endswith((".pth", ".pt")):
            tree[name.rpartition(".")[0]] = torch_member(source, name, member)
        elif name == "data":
            tree["data"] = read_json(source, name)
    return Document(source.path, FORMAT.name, shared(tree, previous), (source.file,))


def torch_member(source: Source, name: str, member: Member) -> Any:
    """One torch file, its tensors as places in the whole one."""
    start = member_start(source, name, member)
    what = f"{source.path}: {name}"
    if member.flags & 1 or member.method not in (0, DEFLATED):
        raise UnsafeFile(f"{what}: refused: encrypted, or compressed in a way that is not read here")
    if member.method == 0:
        return read_inside(source, start, member.size, what)
    data = inflated(source.read(start, start + member.size), what, LONGEST_MEMBER)
    part = Source(what, len(data), source.mtime_ns, lambda count, at: data[at : at + count], head=data)
    return with_places(read_either(part), lambda place: packed(place, start, member.size))


def packed(place: Place, start: int, nbytes: int) -> Place:
    """A tensor of a member that lies compressed at `start`."""
    return place if place.inline is not None else replace(place, read=partial(unpacked, place), start=start, within=nbytes, strides=None)  # noqa: E501  # fmt: skip


def unpacked(inner: Place, file: FileId, place: Place) -> np.ndarray:
    """The elements of `inner`, a place in the unpacked member that lies where `place` says."""
    data = inflated(read_array(file, place.start, place.within).tobytes(), file.path, LONGEST_MEMBER)
    span = inner.nbytes if inner.strides is None else len(data) - inner.start
    return read_place(replace(inner, start=0, inline=data[inner.start : inner.start + span]), file)


def read_json(source: Source, name: str) -> dict[str, Any]:
    """The numbers and words of `data`, without what was pickled into it."""
    try:
        found = json.loads(read_member(source, name, LONGEST_DATA))
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{source.path}: {name} is not sound JSON: {problem}") from None
    return without_pickles(found) if isinstance(found, dict) else {}


def without_pickles(node: Any) -> Any:
    """The same without the entries ":serialized:"."""
    if isinstance(node, dict):
        return {k: without_pickles(v) for k, v in node.items() if k != ":serialized:"}
    return node


FORMAT = Format("Stable-Baselines3 zip", matches, open_document)
