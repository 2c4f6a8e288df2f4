"""Where sidecars are looked for: beside the checkpoints, in their parents up to the folder that was given.

One level above that only if the given folder is called checkpoints or the like. In each of these also in the subfolders
that loggers make; never in one where another run may lie.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from smd_analyze.loading import listing
from smd_analyze.loading.sidecars.registry import reader_of

STORE = re.compile(
    r"(.*[_\-.])?(checkpoints?|ckpts?|ckps?|weights|models?|snapshots?|saved?|saved_models?|states?|params)([_\-.].*)?",
    re.IGNORECASE,
)
RUNS = re.compile(r"version_\d+|(offline-)?run-\d.*|latest-run|\d{8}_\d{6}")
LOGS = re.compile(
    r"\.hydra|vis_data|(tensorboard|tb|tf|csv|lightning|train|training|event|wandb)?[_\-]?(logs?|events?|runs?)|tensorboard"
    r"|tb|summar(y|ies)|train|wandb|files|.*(lr|learning_rate).*",
    re.IGNORECASE,
)
ANY_BELOW = re.compile(r"(tensorboard|tb|tf|lightning|csv)?[_\-]?(logs?|runs?)|tensorboard|tb", re.IGNORECASE)
DEEPEST = 4
MOST_FOLDERS = 48
MOST_FILES = 400


def levels(path: str, folder: bool, root: str) -> list[str]:
    """The folders that are looked at for one checkpoint, the nearest first."""
    home = path if folder else os.path.dirname(path) or "."  # noqa: PTH120 - paths are text throughout loading
    base = root if listing.is_folder(root) else os.path.dirname(root) or "."  # noqa: PTH120
    out = [home]
    while out[-1].rstrip("/") != base.rstrip("/") and len(out) < 32:
        above = os.path.dirname(out[-1].rstrip("/"))  # noqa: PTH120
        if not above or above == out[-1] or not inside(above, base):
            break
        out.append(above)
    if not listing.is_far(base) and inside(home, base) and path != base and is_store(Path(base).resolve()):
        out.append(str(Path(base).resolve().parent))
    return out


def is_store(folder: Path) -> bool:
    """A run's folder for its checkpoints: called so, or in part if no sister is, for then they are several runs'."""
    if not STORE.fullmatch(folder.name):
        return False
    words = re.sub(r"[_\-.\d]+", "", folder.name.lower())
    sisters = (name for name in listing.listed(str(folder.parent))[1] if name != folder.name)
    return bool(STORE.fullmatch(words)) or not any(STORE.fullmatch(name) for name in sisters)


def inside(path: str, base: str) -> bool:
    """The same folder, or one below it."""
    return (path.rstrip("/") + "/").startswith(base.rstrip("/") + "/") or base == "."


def files_of(folder: str, came_from: str) -> Iterator[tuple[str, str]]:
    """(name relative to the folder, path) of files with a reader, the folder's own first.

    `came_from` is the name of the subfolder in which the checkpoints lie: if it is one run of several, its sisters are
    other runs.
    """
    waiting = [("", folder)]
    looked = given = 0
    while waiting and looked < MOST_FOLDERS:
        prefix, here = waiting.pop(0)
        looked += 1
        files, below = listing.listed(here)
        for name in files:
            if reader_of(prefix + name) is not None and given < MOST_FILES:
                given += 1
                yield prefix + name, f"{here.rstrip('/')}/{name}"
        depth = prefix.count("/")
        if {"params", "metrics"} <= set(below):
            waiting += [(f"{name}/", f"{here.rstrip('/')}/{name}") for name in ("params", "metrics") if not prefix]
        if depth >= DEEPEST:
            continue
        parent = prefix.rstrip("/").rpartition("/")[2]
        for name in below:
            one_of_many = RUNS.fullmatch(name) and not (depth == 0 and RUNS.fullmatch(came_from))
            if name == came_from and depth == 0:
                continue
            if one_of_many or LOGS.fullmatch(name) or (parent and ANY_BELOW.fullmatch(parent)):
                waiting.append((f"{prefix}{name}/", f"{here.rstrip('/')}/{name}"))
