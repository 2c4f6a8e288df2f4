"""What the file system is asked: which files lie where, here or elsewhere. Bytes are the business of sources.py."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from smd_analyze.errors import DamagedFile, Unreachable, UnsafeFile, UsageError
from smd_analyze.loading.files import remote
from smd_analyze.loading.files.file_ids import FileId
from smd_analyze.loading.files.remote_blocks import open_far

LONGEST_JSON = 1 << 27  # bytes
MOST_PAGES = 10_000  # folders of a web server that are looked into
DEEPEST_PAGE = 20
Walk = Iterator[tuple[str, list[str], list[str]]]


def root_of(path: str) -> str:
    """The path as it is used from here on: file:// is taken off, and a slash at its end."""
    protocol, mark, rest = path.partition("://")
    protocol = protocol.lower()
    if mark and "::" in protocol:
        raise UsageError(f"{path}: chains of URLs are not read; copy the files first")
    if not remote.is_remote(path):
        return path.rstrip("/") or path
    if protocol in ("file", "local"):
        return rest.rstrip("/") or rest
    if protocol in ("http", "https") and "huggingface.co/" in path and "/resolve/" not in path:
        raise UsageError(f"{path}: is a page of the Hub; write hf://{rest.partition('/')[2].strip('/')}")
    return protocol + mark + rest.rstrip("/")


def name_of(path: str) -> str:
    """The last part of a path or URL."""
    if not remote.is_remote(path):
        return Path(path).name or Path(path).resolve().name
    parts = urlsplit(path)
    return unquote(parts.path.rstrip("/").rpartition("/")[2]) or parts.netloc or path


def is_far(path: str) -> bool:
    """Every look at the path is a request."""
    return remote.is_remote(path)


def relative(path: str, root: str) -> str:
    """The path within the root; "." for the root itself."""
    return path[len(root) + 1 :] or "." if remote.is_remote(root) else os.path.relpath(path, root)


def kind_of(path: str) -> Literal["file", "folder", ""]:
    """What lies at the path; "" if nothing does."""
    if not remote.is_remote(path):
        return "file" if is_file(path) else "folder" if os.path.exists(path) else ""  # noqa: PTH110 (never raises)
    remote.LISTED.forget(path)
    try:
        if remote.is_http(path):
            try:
                _, _, page = remote.first(path, 512)
            except FileNotFoundError:  # some servers know their folders with a slash only
                _, _, page = remote.first(f"{path}/", 512)
            return "folder" if page else "file"
        filesystem, inside = remote.connect(path)
        filesystem.invalidate_cache()  # another look at a run must see what was saved meanwhile
        found = remote.asked(path, lambda: filesystem.info(inside))
        return "folder" if found.get("type") == "directory" else "file"
    except FileNotFoundError:
        return ""
    except PermissionError as problem:
        raise Unreachable(f"{path}: {problem.strerror}") from None


def is_file(path: str) -> bool:
    """A regular file, itself or behind a link, is there."""
    if not remote.is_remote(path):
        return os.path.isfile(path)  # noqa: PTH113 (never raises)
    try:
        if remote.LISTED.find(path) is None:
            remote.look(path)
    except (FileNotFoundError, IsADirectoryError, PermissionError):  # S3 refuses to say that a file is missing
        return False
    return True


def is_folder(path: str) -> bool:
    """A folder is there; elsewhere, one that was listed."""
    return path in remote.LISTED.folders if remote.is_remote(path) else Path(path).is_dir()


def listed(folder: str) -> tuple[list[str], list[str]]:
    """Regular files and folders in a folder, by name; nothing of one that cannot be read, or elsewhere was not walked.

    Links to folders are left out.
    """
    if remote.is_remote(folder):
        return sorted(remote.LISTED.folders.get(folder, ())), remote.LISTED.below.get(folder, [])
    files: list[str] = []
    below: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.name)
                elif entry.is_file(follow_symlinks=True):
                    files.append(entry.name)
    except OSError:
        return [], []
    return sorted(files), sorted(below)


def identity(path: str) -> FileId:
    """The file as it is now. FileNotFoundError if it is not there, UnsafeFile if it is no regular file."""
    if remote.is_remote(path):
        return remote.look(path)
    found = os.stat(path)  # noqa: PTH116 (a thousand files: pathlib costs more than the call)
    if not stat.S_ISREG(found.st_mode):
        raise UnsafeFile(f"{path}: refused: not a regular file")
    return FileId(path, found.st_size, found.st_mtime_ns)


def real_path(path: str) -> str:
    """Where the path leads when all links are followed; elsewhere there are none."""
    return path if remote.is_remote(path) else os.path.realpath(path)


def lies_in(path: str, folder: str) -> bool:
    """The file lies in the folder, links followed."""
    return remote.is_remote(path) or Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def link_of(path: str) -> str:
    """Where a link leads; "" if the path is none."""
    return os.path.realpath(path) if not remote.is_remote(path) and Path(path).is_symlink() else ""


def read_whole(path: str, most: int) -> bytes:
    """A small file. DamagedFile if it is longer than `most` bytes."""
    if remote.is_remote(path):
        far = open_far(path)
        if far.file.size > most:
            raise DamagedFile(f"{path}: a file of more than {most} bytes")
        return far.pread(far.file.size, 0)
    if Path(path).stat().st_size > most:
        raise DamagedFile(f"{path}: a file of more than {most} bytes")
    return Path(path).read_bytes()


def read_json(path: str, most: int = LONGEST_JSON) -> Any:
    """A JSON file of bounded length; DamagedFile if it is longer, or not sound."""
    try:
        return json.loads(read_whole(path, most))
    except (ValueError, RecursionError) as problem:
        raise DamagedFile(f"{path}: not sound JSON: {problem}") from None


def files_in(path: str) -> list[str]:
    """Names of the regular files right in a folder, sorted; none if it cannot be listed (the walk says so)."""
    if is_folder(path) and remote.is_remote(path):
        return listed(path)[0]
    return sorted(next(walk(path, lambda problem: None), ("", [], []))[2])


def walk(root: str, closed: Callable[[OSError], None]) -> Walk:
    """(folder, folders in it, files in it) from the top down, as os.walk: the folders may be cut while walking."""
    if not remote.is_remote(root):
        return os.walk(root, onerror=closed)
    return walk_pages(root, closed) if remote.is_http(root) else walk_far(root, closed)


def found_far(root: str) -> tuple[str, dict[str, Any]]:
    """(the root as its back end writes it, all files below it with what is told of them)."""
    filesystem, top = remote.connect(root)
    top = top.rstrip("/")
    return top, remote.asked(root, lambda: filesystem.find(top, detail=True))


def walk_far(root: str, closed: Callable[[OSError], None]) -> Walk:
    """One listing of all that lies below, put into folders."""
    try:
        top, found = found_far(root)
    except OSError as problem:
        closed(problem)
        return iter(())
    folders: dict[str, tuple[set[str], dict[str, Any]]] = {"": (set(), {})}
    for name in sorted(found):
        inside = name[len(top) :].lstrip("/") if name.startswith(top) else ""
        if not inside or inside.endswith("/") or found[name].get("type") == "directory":
            continue  # stores without folders may keep an empty object in place of one
        *parts, file = inside.split("/")
        here = ""
        for part in parts:
            folders.setdefault(here, (set(), {}))[0].add(part)
            here = f"{here}/{part}" if here else part
        folders.setdefault(here, (set(), {}))[1][file] = found[name]
    for inside, (below, told) in folders.items():
        remote.LISTED.keep(f"{root}/{inside}" if inside else root, told, below)
    return descend(root, lambda inside: folders[inside])


def descend(root: str, look: Callable[[str], tuple[set[str], Collection[str]]]) -> Walk:
    """Folder after folder; `look(inside)` gives the names of folders and files in one."""
    left = [""]
    while left:
        inside = left.pop()
        folders, files = look(inside)
        below = sorted(folders)
        yield (f"{root}/{inside}" if inside else root), below, sorted(files)
        left += [f"{inside}/{name}" if inside else name for name in reversed(below)]


def walk_pages(root: str, closed: Callable[[OSError], None]) -> Walk:
    """A web server's pages of links (the index that servers make of a folder)."""
    filesystem, _ = remote.connect(root)
    pages = 0

    def look(inside: str) -> tuple[set[str], list[str]]:
        nonlocal pages
        pages += 1
        url = f"{root}/{inside}/" if inside else f"{root}/"
        if pages > MOST_PAGES or inside.count("/") > DEEPEST_PAGE:
            closed(OSError(errno.ELOOP, "too many pages: give a folder below", url))
            return set(), []
        try:
            links: list[str] = remote.asked(url, lambda: [one["name"] for one in filesystem.ls(url, detail=True)])
        except OSError as problem:
            closed(problem)
            return set(), []
        names = {name for link in links if link.startswith(url) and (name := named(link[len(url) :]))}
        files = [n for n in names if not n.endswith("/")]
        folders = {n[:-1] for n in names if n.endswith("/")}
        remote.LISTED.keep(url[:-1], {name: {} for name in files}, folders)
        return folders, files

    return descend(root, look)


def named(link: str) -> str:
    """The name that a link on a page gives to a file or folder (with a slash) beside it; "" for all other links."""
    if "?" in link or "#" in link or link.startswith(("./", "../", "mailto:", "javascript:", "data:")):
        return ""
    name = unquote(link)
    if "/" in name[:-1] or name in ("", "/", ".", ".."):
        return ""
    return "".join(f"%{ord(c):02X}" if c in "%?#" else c for c in name)
