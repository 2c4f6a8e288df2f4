"""Folders that belong to a checkpoint: its own, its parents up to the folder that was given, perhaps one above.

The one above only if the folder that was given is a run's store of checkpoints and all else there is what trainers put
beside it: a project's folder, with data, code and other runs, says nothing about this one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from smd_analyze.loading.files import listing

STORE = re.compile(
    r"(.*[_\-.])?(checkpoints?|ckpts?|ckps?|weights|models?|snapshots?|saved?|saved_models?|states?|params)([_\-.].*)?",
    re.IGNORECASE,
)
BESIDE = re.compile(
    r"\..*|__pycache__|(.*[_\-])?(logs?|events?|runs?|summar(y|ies)|tensorboard|tb|wandb|mlruns|params|metrics|tags|vis\w*"
    r"|plots?|figures?|images?|samples?|media|videos?|results?|eval\w*|predictions?|generated)([_\-].*)?",
    re.IGNORECASE,
)


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
    """A run's folder for its checkpoints: called so, and its sisters hold logs, pictures and the like only."""
    sisters = (name for name in listing.listed(str(folder.parent))[1] if name != folder.name)
    return bool(STORE.fullmatch(folder.name)) and all(BESIDE.fullmatch(name) for name in sisters)


def left_behind(level: str, root: str, mine: Sequence[str], others: Sequence[str]) -> bool:
    """Another run's checkpoints lie right in this folder and none of this run's: the files there are that run's.

    `mine` and `others` are the checkpoints' paths as seen from the root.
    """
    prefix = seen_from(level, root)
    return any("/" not in n for n in under(prefix, others)) and not any("/" not in n for n in under(prefix, mine))


def shared(level: str, root: str, mine: Sequence[str], others: Sequence[str]) -> bool:
    """Other runs lie in folders of their own below this one."""
    prefix = seen_from(level, root)
    own, strange = ({n.partition("/")[0] for n in under(prefix, names) if "/" in n} for names in (mine, others))
    return bool(strange - own)


def seen_from(level: str, root: str) -> str:
    """What the paths of checkpoints in this folder begin with."""
    way = os.path.relpath(level, root if listing.is_folder(root) else os.path.dirname(root) or ".")  # noqa: PTH120
    return "" if way == "." else f"{way}/"


def under(prefix: str, names: Sequence[str]) -> Iterator[str]:
    """The names that begin so, without it."""
    return (n.removeprefix(prefix) for n in names if n.startswith(prefix))


def inside(path: str, base: str) -> bool:
    """The same folder, or one below it."""
    return (path.rstrip("/") + "/").startswith(base.rstrip("/") + "/") or base == "."
