"""Where sidecars are looked for: beside the checkpoints, in their parents up to the folder that was given.

One level above that only if the given folder is called checkpoints or the like. In each of these also in the subfolders
that loggers make; never in one where another run may lie.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from smd_analyze.loading.files import listing
from smd_analyze.loading.sidecars.registry import reader_of

RUNS = re.compile(r"version_\d+|(offline-)?run-\d.*|latest-run|\d{8}_\d{6}")
LOGS = re.compile(
    r"\.hydra|vis_data|(tensorboard|tb|tf|csv|lightning|train|training|event|wandb)?[_\-]?(logs?|events?|runs?)|tensorboard"
    r"|tb|summar(y|ies)|train|wandb|files",
    re.IGNORECASE,
)
RATES = re.compile(r".*(lr|learning_rate).*", re.IGNORECASE)
ANY_BELOW = re.compile(r"(tensorboard|tb|tf|lightning|csv)?[_\-]?(logs?|runs?)|tensorboard|tb", re.IGNORECASE)
DEEPEST = 4
MOST_FOLDERS = 48
MOST_FILES = 400


def files_of(folder: str, came_from: str, alone: bool = True) -> Iterator[tuple[str, str]]:
    """(name relative to the folder, path) of files with a reader, the folder's own first.

    `came_from` is the name of the subfolder in which the checkpoints lie: if it is one run of several, its sisters are
    other runs. If the folder is not this run's alone, what lies deeper is read below folders of this name only.
    """
    waiting = [("", folder)]
    looked = given = 0
    while waiting and looked < MOST_FOLDERS:
        prefix, here = waiting.pop(0)
        looked += 1
        files, below = listing.listed(here)
        parts = prefix.split("/")
        rates_only = any(RATES.fullmatch(p) and not LOGS.fullmatch(p) and p != came_from for p in parts)
        meant = alone or not prefix or came_from in parts
        for name in files if meant else ():
            if rates_only and "tfevents" not in name:  # add_scalars' folder, or another run's: lr0.1
                continue
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
            if one_of_many or LOGS.fullmatch(name) or RATES.fullmatch(name) or (parent and ANY_BELOW.fullmatch(parent)):
                waiting.append((f"{prefix}{name}/", f"{here.rstrip('/')}/{name}"))
