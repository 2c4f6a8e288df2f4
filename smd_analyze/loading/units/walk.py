"""From a path to units: files and folders that each are one checkpoint, and what is known to be none."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from smd_analyze.errors import NothingToAnalyse
from smd_analyze.loading.files import listing
from smd_analyze.loading.formats.base import FolderFormat
from smd_analyze.loading.formats.registry import folder_format_of
from smd_analyze.loading.formats.tensor_bundle import is_part
from smd_analyze.loading.units import hub
from smd_analyze.loading.units.folders import FURTHER, is_checkpoint_folder, is_state_folder, models_below, of_index
from smd_analyze.loading.units.twins import twins_among
from smd_analyze.loading.units.unfinished import WAIT, finished, is_temporary
from smd_analyze.records.finding import Finding

BESIDE = re.compile(
    r"\.(json|ya?ml|toml|csv|tsv|txt|log|out|err|py|pyc|sh|md|rst|ipynb|png|jpe?g|svg|gif|pdf|lock|html|xml|ini|cfg|patch|diff|gin"
    r"|pbtxt|pb|proto|jinja|pdopt|pdmodel|pdiparams\.info|pdstates|states|solverstate|prototxt|onnx[._]data)$|^(events\.out\.tfevents|\.|checkpoint$|latest(_universal)?$|last_checkpoint$|latest_checkpointed|"
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
)  # fmt: skip
MOST_AHEAD = 16  # files of one checkpoint
FAR_STORE = ("an Orbax or zarr checkpoint, which is not read from elsewhere", "Copy the folder to this machine first.")
STORES = ("_CHECKPOINT_METADATA", "_METADATA", "manifest.ocdbt", ".zarray", ".zgroup", "zarr.json")
NO_RUNS = frozenset(  # folders of tools
    {".git", ".svn", ".hg", ".dvc", "__pycache__", ".ipynb_checkpoints", "node_modules", "site-packages"}
)


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
    kind = "folder" if hub.is_repository(root) else listing.kind_of(root)
    name = listing.name_of(root if kind == "file" else listing.real_path(root))
    if not kind:
        raise NothingToAnalyse(f"{root}: there is no such file or folder")
    if kind == "file":
        folder, files = of_index(root)
        return [Unit(folder, name, files) if files else Unit(root, name)], []
    found = _Found()
    if hub.is_repository(root):
        for revision in hub.hub_revisions(root):
            found.revision(revision, revision.name, "")
    else:
        found.below(root, "", name)
    units, findings, parts, beside = found.units, found.findings, found.parts, found.beside
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


@dataclass
class _Found:
    """What a walk has found: units, findings, and how many files hold a part of an optimizer, or one by itself."""

    units: list[Unit] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    parts: int = 0
    beside: int = 0

    def closed(self, problem: OSError) -> None:
        """A folder that cannot be listed."""
        words = str(problem.strerror)
        where = str(problem.filename)
        self.findings.append(Finding("unreadable-folder", "warning", where, words, "Change its permissions."))

    def below(self, root: str, prefix: str, name: str, home: str = "") -> None:
        """The units below a folder. `prefix` goes before their names, `name` is that of the folder itself.

        `home` is a cached repository out of which no link may lead.
        """
        for folder, below, files in listing.walk(root, self.closed):
            inside = listing.relative(folder, root)
            if hub.is_cache(folder, below):
                shown, findings = hub.cached_revisions(folder)
                self.findings += findings
                for revision in shown:
                    self.revision(revision, prefix + ("" if inside == "." else inside + "/") + revision.name, folder)
                below[:] = []
                continue
            below[:] = [b for b in below if b not in NO_RUNS]
            below[:] = finished(folder, sorted(sound(folder, below, self.findings)), self.findings)
            self.findings += [linked(f"{folder}/{b}", link) for b in below if (link := leads_away(folder, b, root))]
            files = finished(folder, sorted(sound(folder, files, self.findings)), self.findings)
            if home:
                files = hub.in_cache(folder, home, files, self.findings)
            self.folder(folder, below, files, name if inside == "." else prefix + inside, inside == ".", prefix)

    def folder(self, folder: str, below: list[str], files: list[str], title: str, top: bool, prefix: str) -> None:
        """One folder: a unit, or one with units in it; what need not be looked into is taken out of `below`."""
        form, claimed = folder_format_of(folder, files, below)
        store = listing.is_far(folder) and any(name in STORES for name in files)
        known = FAR_STORE if store else known_folder(files, below)
        if form and is_temporary(folder, files):
            words = "says is_temporary: it is kept only until the next save is complete, and is left out"
            self.findings.append(Finding("unfinished-save", "note", folder, words, WAIT))
            below[:] = []
        elif form and not store:
            self.units.append(Unit(folder, title, claimed, form=form))
            below[:] = []
        elif known:
            self.findings.append(Finding("format-not-read", "warning", folder, f"is {known[0]}", known[1]))
            below[:] = []
        elif is_checkpoint_folder(files) and is_one(files):
            self.units.append(Unit(folder, title, (*files, *models_below(folder, files, below))))
            below[:] = [b for b in below if b.startswith("checkpoint")]
        elif inner := models_below(folder, files, below):
            self.units.append(Unit(folder, title, (*files, *inner)))
            below[:] = []
        else:
            twins = twins_among(files)
            self.units += loose_files(folder, prefix if top else title + "/", files, twins)
            partitions = sum(name.endswith("optim_states.pt") for name in files)
            self.parts += partitions
            taken = set(twins.values())
            self.beside += sum(is_optimizer(name) for name in files if name not in taken) - partitions

    def revision(self, revision: hub.Revision, title: str, home: str) -> None:
        """The units of one commit, under the name of its ref; again, as links, under its other refs."""
        before = len(self.units)
        self.below(revision.folder, title + "/", title, home)
        found = self.units[before:]
        if not found:
            words = f"{title}: holds no weights that are read" + (" (not downloaded?)" if home else "")
            self.findings.append(Finding("no-weights", "note", revision.folder, words))
        for other in revision.others:
            for unit in found:
                name = title[: len(title) - len(revision.name)] + other + unit.name[len(title) :]
                self.units.append(replace(unit, name=name, link=listing.real_path(unit.path)))


def leads_away(folder: str, name: str, root: str) -> str:
    """Where a link to a folder leads, if that is not within the root; such links are not followed."""
    link = listing.link_of(f"{folder}/{name}")
    return link if link and not listing.lies_in(link, root) else ""


def linked(path: str, link: str) -> Finding:
    """A finding for such a link."""
    return Finding("link-not-followed", "note", path, f"is a link to a folder elsewhere, {link}: not followed", "Give that folder.")  # noqa: E501  # fmt: skip


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
    beside = ("rng_state", "random_states", "training_args", "custom_checkpoint", "sampler", "dl_state_dict", "scaler")
    several = is_state_folder(files)
    return all(
        is_checkpoint_folder([f]) or f.startswith(beside) or (several and FURTHER.fullmatch(f) is not None)
        for f in others
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


def loose_files(folder: str, inside: str, files: list[str], twins: Mapping[str, str]) -> list[Unit]:
    """Files that may be checkpoints by themselves; what only lies beside one (such as their `twins`) is passed over."""
    out: list[Unit] = []
    taken = set(twins.values())
    for name in files:
        if BESIDE.search(name) or TWIN.search(name) or name in taken or is_part(name, files):
            continue
        path = f"{folder}/{name}"
        link = listing.link_of(path)
        if link and not listing.is_file(link):
            continue
        twin = f"{folder}/{twins[name]}" if name in twins else ""
        out.append(Unit(path, inside + name, link=link, twin=twin))
    return out


def files_of(unit: Unit) -> list[str]:
    """The files that opening a unit is likely to look at first."""
    if not unit.folder:
        return [unit.path]
    named = [f for f in unit.files if re.search(r"\.(safetensors|bin|pt|metadata)$|(index|trainer_state)\.json$", f)]
    return [f"{unit.path}/{name}" for name in named[:MOST_AHEAD]]
