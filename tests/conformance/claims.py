"""Is every file and every folder claimed by at most one format, and belongs every file to at most one checkpoint?"""

from __future__ import annotations

import os
from collections.abc import Sequence

from smd_analyze.errors import SmdError
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import FOLDER_FORMATS, FORMATS
from smd_analyze.loading.units.folders import is_checkpoint_folder
from smd_analyze.records.run import Checkpoint


def doubly_claimed(root: str) -> list[str]:
    """Files that several formats recognise, folders that several folder formats claim."""
    out: list[str] = []
    for folder, below, files in os.walk(root):
        claims = [f.name for f in FOLDER_FORMATS if f.claims(folder, sorted(files), sorted(below))]
        claims += ["Hugging Face folder"] if is_checkpoint_folder(files) else []
        if len(claims) > 1:
            out.append(f"{folder} is claimed by {' and '.join(claims)}")
        if claims:  # one checkpoint: nobody is asked about its parts
            below.clear()
        for name in files:
            found = claims_of(f"{folder}/{name}")
            if len(found) > 1:
                out.append(f"{folder}/{name} is claimed by {' and '.join(found)}")
    return out


def claims_of(path: str) -> list[str]:
    """The formats that recognise a file; none if it cannot be opened, e.g. because it is empty."""
    try:
        with open_source(path) as source:
            return [f.name for f in FORMATS if f.matches(source)]
    except SmdError:
        return []


def shared_files(checkpoints: Sequence[Checkpoint]) -> list[str]:
    """Files that two checkpoints of one run are made of."""
    owner: dict[str, str] = {}
    out: list[str] = []
    for checkpoint in checkpoints:
        for path in checkpoint.identity:
            if owner.setdefault(path, checkpoint.path) != checkpoint.path:
                out.append(f"{path} belongs to {owner[path]} and to {checkpoint.path}")
    return out
