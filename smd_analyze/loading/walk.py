"""From a path to units: files and folders that each are one checkpoint, and what is known to be none."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from smd_analyze.loading.folders import is_checkpoint_folder
from smd_analyze.loading.formats.base import FolderFormat
from smd_analyze.loading.formats.registry import folder_format_of
from smd_analyze.loading.formats.tensor_bundle import is_part
from smd_analyze.loading.twins import twin_of
from smd_analyze.records.finding import Finding

BESIDE = re.compile(
    r"\.(json|ya?ml|toml|csv|tsv|txt|log|out|err|py|pyc|sh|md|rst|ipynb|png|jpe?g|svg|gif|pdf|lock|html|xml|ini|cfg|patch|diff|gin"
    r"|pbtxt|pb|proto|jinja|pdopt|pdstates|states|solverstate|prototxt|onnx[._]data)$|^(events\.out\.tfevents|\.|checkpoint$|latest$|last_checkpoint$|latest_checkpointed|"
    r"README|LICENSE|commit_success)",
    re.IGNORECASE,
)
TWIN = re.compile(
    r"(^|[._\-])(optim|optimizer|optim_states|scheduler|sched|scaler|rng|rng_state(_\d+)?|random_states(_\d+)?|training_args)"
    r"([._\-].*)?\.(pt|pth|bin|pkl|safetensors|npz)$",
    re.IGNORECASE,
)
FOLDERS: tuple[tuple[str, str, str], ...] = (
    (r".*\.distcp", "a torch.distributed checkpoint without its .metadata (unfinished?)", "Wait until the save is complete, or remove the folder."),  # noqa: E501
    (r"_CHECKPOINT_METADATA|_METADATA|manifest\.ocdbt", "an Orbax checkpoint", "This format is not read yet; save the parameters as safetensors."),  # noqa: E501
    (r".*zero_pp_rank_.*model_states\.pt", "a DeepSpeed ZeRO-3 checkpoint without its ranks' optim_states.pt, or with a model that is cut as well", "Copy the whole folder, or join the parts with DeepSpeed's zero_to_fp32.py."),  # noqa: E501
)  # fmt: skip


@dataclass(frozen=True)
class Unit:
    """One candidate: `name` is relative to the run's folder; `files` are the folder's files if it is a folder.

    `form` is the format of a folder that is one checkpoint, None for Hugging Face's. `twin` is the path of the
    file that holds the optimizer's state of a file's weights.
    """

    path: str
    name: str
    files: tuple[str, ...] = ()
    link: str = ""
    form: FolderFormat | None = None
    twin: str = ""

    @property
    def folder(self) -> bool:
        """A folder that is one checkpoint."""
        return bool(self.files)


def find_units(root: str) -> tuple[list[Unit], list[Finding]]:
    """All units below a folder (or the file itself), in the order of their names."""
    if Path(root).is_file():
        return [Unit(root, Path(root).name)], []
    units: list[Unit] = []
    findings: list[Finding] = []
    parts = beside = 0

    def closed(problem: OSError) -> None:
        where = str(problem.filename)
        findings.append(
            Finding("unreadable-folder", "warning", where, str(problem.strerror), "Change its permissions.")
        )

    for folder, below, files in os.walk(root, onerror=closed):
        below[:] = sorted(sound(folder, below, findings))
        files = sorted(sound(folder, files, findings))
        inside = os.path.relpath(folder, root)
        form, claimed = folder_format_of(folder, files, below)
        known = known_folder(files, below)
        if form:
            units.append(Unit(folder, inside if inside != "." else Path(root).resolve().name, claimed, form=form))
            below[:] = []
        elif known:
            findings.append(Finding("format-not-read", "warning", folder, f"is {known[0]}", known[1]))
            below[:] = []
        elif is_checkpoint_folder(files) and is_one(files):
            units.append(Unit(folder, inside if inside != "." else Path(root).resolve().name, tuple(files)))
            below[:] = [b for b in below if b.startswith("checkpoint")]
        else:
            units += loose_files(folder, "" if inside == "." else inside + "/", files)
            partitions = sum(name.endswith("optim_states.pt") for name in files)
            parts += partitions
            taken = {twin_of(name, files) for name in files}
            beside += sum(is_optimizer(name) for name in files if name not in taken) - partitions
    if parts:
        words = (
            f"{parts} DeepSpeed optimizer partitions (ZeRO) are not read: learning rate and decay in them stay unknown"
        )
        findings.append(
            Finding("optimizer-not-read", "note", root, words, "Give them with --settings, --lr, --weight-decay.")
        )
    if beside and units:
        words = f"{beside} files that seem to hold an optimizer's state of their own are not read, e.g. learning rates"
        remedy = "Save model and optimizer in one file, or give --settings, --lr, --weight-decay."
        findings.append(Finding("optimizer-not-read", "note", root, words, remedy))
    return units, findings


def is_optimizer(name: str) -> bool:
    """A file of an optimizer's state, by its name."""
    return TWIN.search(name) is not None and "optim" in name.lower()


def sound(folder: str, names: list[str], findings: list[Finding]) -> list[str]:
    """The names that are text; the others can be written into no table: a finding each."""
    kept: list[str] = []
    for name in names:
        try:
            name.encode()
            kept.append(name)
        except UnicodeEncodeError:
            where = f"{folder}/{name}".encode("utf-8", "backslashreplace").decode()
            words = "its name is not valid UTF-8: left out"
            findings.append(Finding("unreadable-name", "warning", where, words, "Rename it."))
    return kept


def is_one(files: list[str]) -> bool:
    """A folder of a Hugging Face checkpoint, not a folder in which somebody collects step-numbered files."""
    others = [f for f in files if re.search(r"\.(safetensors|bin|pt|pth|ckpt)$", f) and not TWIN.search(f)]
    return all(
        is_checkpoint_folder([f]) or f.startswith(("rng_state", "random_states", "training_args")) for f in others
    )


def known_folder(files: list[str], below: list[str]) -> tuple[str, str] | None:
    """(what it is, what to do) for folders that are one checkpoint in a format that is not read."""
    for pattern, words, remedy in FOLDERS:
        if any(re.fullmatch(pattern, name) for name in files):
            return words, remedy
    ranks = [b for b in below if re.fullmatch(r"mp_rank_\d+(_\d+)?", b)]
    if len(ranks) > 1:
        return f"a Megatron checkpoint cut into {len(ranks)} ranks", "Join the ranks with Megatron's checkpoint tools."
    return None


def loose_files(folder: str, inside: str, files: list[str]) -> list[Unit]:
    """Files that may be checkpoints by themselves; what only lies beside one is passed over."""
    out: list[Unit] = []
    taken = {twin_of(name, files) for name in files}
    for name in files:
        if BESIDE.search(name) or TWIN.search(name) or name in taken or is_part(name, files):
            continue
        path = f"{folder}/{name}"
        link = os.path.realpath(path) if Path(path).is_symlink() else ""
        if link and not is_regular(link):
            continue
        twin = twin_of(name, files)
        out.append(Unit(path, inside + name, link=link, twin=twin and f"{folder}/{twin}"))
    return out


def is_regular(path: str) -> bool:
    """An ordinary file: not a folder, a pipe or a device, and there."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116
    except OSError:
        return False
