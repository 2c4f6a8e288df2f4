"""Several files of torch.save that make up one checkpoint: their places count on over all of them."""

from __future__ import annotations

from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import FileId, open_source
from smd_analyze.loading.pickles.torch_archive import read_archive
from smd_analyze.loading.tensors.trees import moved


class TorchFiles:
    """The files that were read so far, numbered from `first` on."""

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
