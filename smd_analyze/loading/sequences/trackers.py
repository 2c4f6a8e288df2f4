"""Small text files in which trainers note their newest checkpoint. They go stale: what they say is only compared."""

from __future__ import annotations

import re
from collections.abc import Sequence

from smd_analyze.errors import SmdError
from smd_analyze.loading.files import listing
from smd_analyze.loading.sequences.aliases import is_label
from smd_analyze.loading.sequences.opened import Opened
from smd_analyze.records.finding import Finding

TRACKERS = ("latest", "checkpoint", "last_checkpoint", "latest_checkpoint", "latest_checkpointed_iteration.txt", "latest.txt")  # noqa: E501  # fmt: skip
MOST_FOLDERS = 4
LONGEST = 1 << 16


def tracked(root: str, ordered: Sequence[Opened]) -> list[Finding]:
    """A note for every tracker beside the members (in the order of training) that does not name the last of them."""
    folders = dict.fromkeys([root, *(one.unit.path.rpartition("/")[0] for one in ordered)])
    if len(ordered) < 2:
        return []
    out: list[Finding] = []
    if listing.is_far(root):  # a folder that was not listed would cost a request for every name
        folders = {f: None for f in folders if listing.is_folder(f)}
    for folder in list(folders)[:MOST_FOLDERS]:
        for name in TRACKERS:
            path = f"{folder}/{name}"
            said = newest_said(path) if listing.is_file(path) else ""
            if said:
                out += [f for f in [disagreement(path, said, ordered)] if f]
    return out


def newest_said(path: str) -> str:
    """The name or number in a tracker; "" if it is none, or says `release` (Megatron's word for converted weights)."""
    try:
        text = listing.read_whole(path, LONGEST).decode()
    except (SmdError, OSError, UnicodeDecodeError):
        return ""
    found = re.search(r'^model_checkpoint_path: "([^"]+)"', text)  # TensorFlow's
    line = found[1] if found else text.strip()
    named = line.replace("\\", "/").rstrip("/").rpartition("/")[2]
    if "\n" in line or len(line) > 500 or line == "release" or is_label(named):  # labels are looked at by themselves
        return ""
    return named


def disagreement(path: str, said: str, ordered: Sequence[Opened]) -> Finding | None:
    """A note if what it names is not there, or is not the last."""
    where = [i for i, one in enumerate(ordered) if names(said, one.unit.name)]
    if where and where[-1] == len(ordered) - 1:
        return None
    last = ordered[-1].unit.name
    if not where:
        words = f"names {said}, which is not among the checkpoints of this sequence; the last of them is {last}"
        return Finding("tracker-disagrees", "note", path, words, "Was it removed, or its save not finished?")
    words = f"names {said}, but {last} is later: out of date, or training went back to it"
    return Finding("tracker-disagrees", "note", path, words)


def names(said: str, name: str) -> bool:
    """A part of the path is what the tracker says, but for its ending, or the number it says."""
    parts = name.split("/")
    if said.isdigit():
        return any(re.fullmatch(rf"\D*0*{int(said)}(\D.*)?", part) for part in parts)
    return any(part == said or part.startswith(said + ".") for part in parts)
