"""Files of torch.save inside others, and several of them that make up one checkpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import FileId, Source, open_source, part_of
from smd_analyze.loading.pickles.torch_archive import read_archive
from smd_analyze.loading.pickles.torch_stream import is_stream, read_stream
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import moved, with_places


class TorchFiles:
    """The files that were read so far, numbered from `first` on: their places count on over all of them."""

    def __init__(self, path: str, first: int = 0) -> None:
        self.path = path
        self.first = first
        self.identities: list[FileId] = []

    def read(self, name: str) -> Any:
        """A file's tree."""
        with open_source(f"{self.path}/{name}") as source:
            tree, _ = read_archive(source)
        self.identities.append(source.file)
        return moved(tree, self.first + len(self.identities) - 1)

    def read_dict(self, name: str) -> dict[Any, Any]:
        """The same of a file that must hold a dict."""
        tree = self.read(name)
        if type(tree) is not dict:
            raise DamagedFile(f"{self.path}/{name}: holds no dict")
        return tree


def read_either(source: Source) -> Any:
    """What torch.save wrote, as a zip or as the stream that it wrote before."""
    return (read_stream if is_stream(source) else read_archive)(source)[0]


def read_inside(source: Source, start: int, nbytes: int, what: str) -> Any:
    """The same of a file that lies inside another, uncompressed: its places are places of the whole."""
    part = part_of(source, start, nbytes)
    part.path = what

    def shifted(place: Place) -> Place:
        return place if place.inline is not None else replace(place, start=start + place.start)

    return with_places(read_either(part), shifted)
