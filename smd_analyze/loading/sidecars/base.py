"""What a reader of sidecars is, and the one way to their bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS
from smd_analyze.records.run import Applies

__all__ = ["EPOCHS", "STEPS", "Noted", "Reader", "Sidecar", "lines_of", "text_of_file"]

LONGEST = 1 << 20  # bytes of a file of settings
LONGEST_LINE = 1 << 20
BLOCK = 1 << 20
MOST_POINTS = 1 << 21  # of one series


@dataclass(frozen=True)
class Noted:
    """A hyperparameter as a file logged it, at the file's own count: `unit` STEPS, EPOCHS, or "" where it is not said.

    `applies` as in records.run.Log; `mean`: the values are means over an epoch.
    """

    name: str
    key: str
    unit: str
    at: tuple[float, ...]
    values: tuple[float, ...]
    applies: Applies | None = None
    mean: bool = False


@dataclass(frozen=True)
class Sidecar:
    """What one file says: a tree of settings, series that were logged, and a remark if there is more that is not read.

    `settings` are dicts, lists, numbers, words, as text-based formats know them.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    logs: tuple[Noted, ...] = ()
    remark: str = ""


@dataclass(frozen=True)
class Reader:
    """One kind of file. `matches` sees its name only, relative to the folder that is looked at ("vis_data/x.json").

    `known` tells the names that a trainer writes from those that merely look like settings.
    """

    name: str
    matches: Callable[[str], bool]
    read: Callable[[str], Sidecar]
    known: Callable[[str], bool] = lambda name: True


def text_of_file(path: str) -> str:
    """A small file as text; DamagedFile if it is larger than any file of settings, or not UTF-8."""
    with open_source(path) as source:
        if source.size > LONGEST:
            raise DamagedFile(f"{path}: {source.size} bytes are more than a file of settings has; not read")
        try:
            return source.read(0, source.size).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise DamagedFile(f"{path}: not UTF-8 text") from None


def lines_of(path: str) -> Iterator[str]:
    """The lines of a text file of any size, without their ends; one that is not whole yet is the last.

    DamagedFile at a line longer than any log has.
    """
    with open_source(path) as source:
        rest = b""
        for start in range(0, source.size, BLOCK):
            *whole, rest = (rest + source.read(start, min(start + BLOCK, source.size))).split(b"\n")
            if len(rest) > LONGEST_LINE:
                raise DamagedFile(f"{path}: a line of more than {LONGEST_LINE} bytes; not read")
            for line in whole:
                yield line.decode("utf-8-sig", "replace").rstrip("\r")
        if rest:
            yield rest.decode("utf-8-sig", "replace").rstrip("\r")
