"""The page of supported formats, made from the registries: `python -m smd_analyze.loading.catalogue`.

What it says of a format or trainer is what its own file says of itself in its first lines.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import Any

from smd_analyze.loading.formats.kinds import KINDS
from smd_analyze.loading.formats.registry import FOLDER_FORMATS, FORMATS
from smd_analyze.loading.frameworks import plain
from smd_analyze.loading.frameworks.registry import FRAMEWORKS
from smd_analyze.loading.sidecars.registry import READERS

HEAD = """\
# Formats

Made from the registries by `python -m smd_analyze.loading.catalogue > docs/formats.md`; a test keeps it so.

Two questions are asked of every file. Which *format* have its bytes? That gives names, shapes and places of tensors;
no tensor is read. Which *framework or trainer* laid it out? That tells parameters from buffers, averages and optimizer
state, and gives step and hyperparameters. No library is needed to read what it wrote, but for those under "needs".
Nothing in a file is ever executed.
"""


def page() -> str:
    """The whole page, as Markdown."""
    files = [(f.name, about(f.open), needs(f)) for f in FORMATS]
    folders = [("Hugging Face folder", about("smd_analyze.loading.units.folders"), "")]
    folders += [(f.name, about(f.open), needs(f)) for f in FOLDER_FORMATS]
    trainers = [(f.name, about(f.parts)) for f in (*FRAMEWORKS, plain.FRAMEWORK)]
    beside = [(r.name, about(r.read)) for r in READERS]
    unread = [(words.partition(":")[0], words.partition(":")[2].strip() or "–") for _, words in KINDS]
    return "\n".join(
        (
            HEAD,
            "## Formats of files\n", table(("format", "what it is", "needs"), files),
            "## Folders that are one checkpoint\n", table(("format", "what it is", "needs"), folders),
            "## Frameworks and trainers\n", table(("framework", "where things are"), trainers),
            "## Read beside the checkpoints: configurations and logs\n", table(("kind", "what is read"), beside),
            "## Recognised, not read\n", table(("file", "what to do"), unread),
        )
    )  # fmt: skip


def about(owner: Callable[..., Any] | str) -> str:
    """What the file of a function says of itself, in one line; sources of a format stand apart."""
    name = owner if isinstance(owner, str) else getattr(owner, "func", owner).__module__
    __import__(name)
    words = " ".join((sys.modules[name].__doc__ or "").split())
    return words.replace("|", "\\|").replace("*", "\\*").replace("<", "&lt;")


def needs(form: Any) -> str:
    """The libraries, and the extra that brings them."""
    libraries = ", ".join(n for n in form.requires if n != "h5py")  # always installed
    return f"{libraries} (`smd-analyze[{form.extra}]`)" if getattr(form, "extra", "") else libraries


def table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


if __name__ == "__main__":
    sys.stdout.write(page())
