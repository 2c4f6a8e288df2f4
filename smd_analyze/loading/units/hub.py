"""Runs on the Hugging Face Hub: each checkpoint is a branch or tag of one repository; also as they lie in the cache.

The cache keeps refs/<name>, a text with a commit, and snapshots/<commit>/, whose files are links into blobs/
(huggingface_hub, "Understand caching"). The name of a ref is the name of the checkpoint, so its step is found there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from smd_analyze.errors import MissingLibrary, NothingToAnalyse
from smd_analyze.loading.files import listing, remote
from smd_analyze.records.finding import Finding

COMMIT = re.compile(r"[0-9a-f]{7,64}")
REPOSITORY = re.compile(r"hf://([^/@]+/[^/@]+)")
OTHER_KINDS = ("datasets/", "spaces/", "buckets/")
PULL_REQUEST = re.compile(r"(refs/)?(pr|convert)/")
LONGEST_REF = 200  # bytes
MOST_REFS = 10_000
DOWNLOAD = "Download it again: huggingface_hub.snapshot_download(name, revision=…)."


@dataclass(frozen=True)
class Revision:
    """One commit: the folder that holds its files, the ref that names it, and other refs to the same commit."""

    folder: str
    name: str
    others: tuple[str, ...] = ()


def is_cache(folder: str, below: list[str]) -> bool:
    """A repository's folder in the Hub's cache."""
    return "snapshots" in below and ("refs" in below or "blobs" in below) and not remote.is_remote(folder)


def is_repository(url: str) -> bool:
    """A model's repository on the Hub, of which no revision and no folder is named."""
    found = REPOSITORY.fullmatch(url)
    return found is not None and not found[1].startswith(OTHER_KINDS)


def cached_revisions(folder: str) -> tuple[list[Revision], list[Finding]]:
    """The snapshots of a cached repository that a ref names; findings for what is not there, or not whole."""
    findings: list[Finding] = []
    commits = sorted(p.name for p in Path(folder, "snapshots").iterdir() if COMMIT.fullmatch(p.name))
    refs = {n: c for n, c in read_refs(f"{folder}/refs").items() if not PULL_REQUEST.match(n)}
    for name in sorted(n for n, commit in refs.items() if commit not in commits):
        words = f"the files of its commit {refs[name][:12]} are not in the cache"
        findings.append(Finding("missing-snapshot", "note", f"{folder}/refs/{name}", words, DOWNLOAD))
    nameless = [commit for commit in commits if commit not in refs.values()]
    shown = revisions(refs, {commit: f"{folder}/snapshots/{commit}" for commit in commits})
    for commit in nameless:
        where = f"{folder}/snapshots/{commit}"
        if shown:
            words = "no ref names this snapshot, so its step is not known: left out"
            findings.append(Finding("snapshot-without-ref", "note", where, words, "Analyse it by its own path."))
    if nameless and not shown:
        words = f"no refs: {len(nameless)} snapshots are named by their commits, steps are not known from names"
        findings.append(Finding("snapshot-without-ref", "warning", folder, words, "Download revisions by their names."))
        shown = [Revision(f"{folder}/snapshots/{commit}", commit) for commit in nameless]
    blobs = Path(folder, "blobs")
    broken = sum(p.name.endswith(".incomplete") for p in blobs.iterdir()) if blobs.is_dir() else 0
    if broken:
        findings.append(
            Finding("unfinished-download", "note", folder, f"{broken} downloads were not finished", DOWNLOAD)
        )
    return shown, findings


def read_refs(folder: str) -> dict[str, str]:
    """Name of the branch or tag → commit. Names may hold slashes: they are folders then."""
    found: dict[str, str] = {}
    for inside, _, files in os.walk(folder):
        for name in files:
            path = Path(inside, name)
            if len(found) < MOST_REFS and path.is_file() and path.stat().st_size <= LONGEST_REF:
                commit = path.read_bytes().decode("ascii", "replace").strip()
                if COMMIT.fullmatch(commit):
                    found[path.relative_to(folder).as_posix()] = commit
    return found


def revisions(refs: Mapping[str, str], folders: Mapping[str, str]) -> list[Revision]:
    """One revision per commit that has a folder, by the ref that tells most: a number in it, not `main`."""
    names: dict[str, list[str]] = {}
    for name, commit in refs.items():
        if commit in folders:
            names.setdefault(commit, []).append(name)
    out: list[Revision] = []
    for commit, found in names.items():
        first, *others = sorted(found, key=lambda n: (n in ("main", "master"), not re.search(r"\d", n), len(n), n))
        out.append(Revision(folders[commit], first, tuple(others)))
    return sorted(out, key=lambda r: r.name)


def hub_revisions(url: str) -> list[Revision]:
    """All branches and tags of a repository on the Hub, each at its commit; pull requests are left out."""
    try:
        told = remote.asked(url, lambda: list_refs(url))
    except FileNotFoundError:
        raise NothingToAnalyse(f"{url}: there is no such repository") from None
    except PermissionError:
        words = "there is no such repository, or it is private: log in with `hf auth login`"
        raise NothingToAnalyse(f"{url}: {words}") from None
    refs = {n: c for n, c in told.items() if not PULL_REQUEST.match(n)}
    found = revisions(refs, {commit: f"{url}@{commit}" for commit in refs.values()})
    with ThreadPoolExecutor(remote.AT_ONCE) as pool:  # the back end remembers; what fails will fail, and be told, again
        wait([pool.submit(listing.found_far, revision.folder) for revision in found])
    return found


def list_refs(url: str) -> dict[str, str]:
    """Branch or tag → commit, as the Hub tells."""
    try:
        from huggingface_hub import HfApi  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingLibrary(f"{url}: reading hf:// needs huggingface_hub: {remote.PIP}") from None
    found = REPOSITORY.fullmatch(url)
    answer = HfApi().list_repo_refs(found[1] if found else url)
    return {ref.name: ref.target_commit for ref in (*answer.tags, *answer.branches)}


def in_cache(folder: str, home: str, files: list[str], findings: list[Finding]) -> list[str]:
    """The files of a snapshot that are there and lie in the repository's own folder `home`; a finding for others."""
    kept: list[str] = []
    inside = os.path.realpath(home)
    for name in files:
        path = f"{folder}/{name}"
        target = os.path.realpath(path)
        if os.path.commonpath((inside, target)) != inside:
            words = f"refused: a link out of the cache, to {target}"
            findings.append(Finding("unsafe-file", "warning", path, words, "Copy the file itself there."))
        elif not Path(target).is_file():
            words = "its content is not in the cache: the download was not finished"
            findings.append(Finding("damaged-file", "warning", path, words, DOWNLOAD))
        else:
            kept.append(name)
    return kept
