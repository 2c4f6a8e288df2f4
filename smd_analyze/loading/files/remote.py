"""Files that lie elsewhere (s3://, gs://, hf://, https://, memory:// …), reached through fsspec: what they are, ranges.

Credentials, proxies and endpoints are those of fsspec's back ends. Every way in which asking can fail becomes one of:
FileNotFoundError, PermissionError, Unreachable, MissingLibrary, UsageError. What may pass is tried again.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import BoundedSemaphore
from typing import Any, TypeVar

from smd_analyze.errors import MissingLibrary, SmdError, Unreachable, UsageError
from smd_analyze.loading.files import remote_http
from smd_analyze.loading.files.file_ids import FileId, changed

URL = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]*)://")
COMMIT = re.compile(r"hf://[^@]+@[0-9a-f]{40}(/|$)")  # what is named by its commit cannot change
PIP = "pip install 'smd-analyze[remote]'"
PAUSES = (0.25, 1.0, 3.0)  # seconds before another try
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP's words for: later
AT_ONCE = 8  # requests
VERSIONS = ("etag", "generation", "versionid", "version_id", "blob_id", "oid", "sha256", "md5hash", "content-md5")
TIMES = ("last-modified", "lastmodified", "last_modified", "mtime", "updated", "modified", "created")

GATE = BoundedSemaphore(2 * AT_ONCE)
CONNECTED: dict[str, Any] = {}
"""Protocol and host (bucket, organisation) → fsspec's file system."""

T = TypeVar("T")


def is_remote(path: str) -> bool:
    """A URL, not a path of this machine."""
    return URL.match(path) is not None


def is_http(url: str) -> bool:
    """Read by HTTP's own ranges."""
    return url.startswith(("http://", "https://"))


def connect(url: str) -> tuple[Any, str]:
    """(fsspec's file system, the path in it). MissingLibrary with the pip line, UsageError for an unknown protocol."""
    protocol, _, rest = url.partition("://")
    place = f"{protocol}://{rest.partition('/')[0]}"
    filesystem = CONNECTED.get(place)  # fsspec itself keeps one for each thread: connections would not be shared
    if filesystem is not None:
        return filesystem, filesystem._strip_protocol(url)
    try:
        from fsspec.core import url_to_fs

        filesystem, path = url_to_fs(url)
        return CONNECTED.setdefault(place, filesystem), path
    except ImportError as problem:
        raise MissingLibrary(f"{url}: reading {protocol}:// needs another library ({problem}): {PIP}") from None
    except ValueError as problem:
        raise UsageError(f"{url}: cannot be read: {problem}") from None
    except Exception as problem:  # whatever a back end says about credentials or configuration
        raise said(url, problem) from problem


class Listed:
    """What the listings of folders told of the files in them: to look at one of those costs no request then."""

    def __init__(self) -> None:
        self.folders: dict[str, Mapping[str, Mapping[str, Any]]] = {}
        self.below: dict[str, list[str]] = {}

    def keep(self, folder: str, files: Mapping[str, Mapping[str, Any]], below: Collection[str]) -> None:
        """What lies in a folder: files, name → what the back end told ({} if nothing), and the names of folders."""
        self.folders[folder] = files
        self.below[folder] = sorted(below)

    def forget(self, root: str) -> None:
        """Before a root is looked at anew: nothing is known of it, of what lies below, or of its neighbours."""
        for folder in [f for f in self.folders if f == root.rpartition("/")[0] or f"{f}/".startswith(f"{root}/")]:
            del self.folders[folder]
            self.below.pop(folder, None)

    def find(self, url: str) -> Mapping[str, Any] | None:
        """What was told of a file; FileNotFoundError if its folder was listed and did not hold it."""
        folder, _, name = url.rpartition("/")
        files = self.folders.get(folder)
        if files is not None and name not in files:
            raise FileNotFoundError(errno.ENOENT, "there is no such file", url)
        return files.get(name) if files is not None else None


LISTED = Listed()


def look(url: str, anew: bool = False) -> FileId:
    """The file as it is, or as it was when its folder was listed; `anew` asks again."""
    anew = anew and not COMMIT.match(url)
    told = None if anew else LISTED.find(url)
    if told:
        return file_of(url, told)
    if is_http(url):
        return asked(url, lambda: remote_http.get(connect(url)[0], url, 0, 1, only_headers=True)).file
    filesystem, path = connect(url)
    if anew:
        filesystem.invalidate_cache(parent_of(filesystem, path))
    return file_of(url, asked(url, lambda: filesystem.info(path)))


def parent_of(filesystem: Any, path: str) -> str:
    """The folder whose listing tells of the file."""
    return filesystem._parent(path)


def file_of(url: str, info: Mapping[str, Any]) -> FileId:
    """What a back end tells of a file. IsADirectoryError for folders, Unreachable if it does not tell the length."""
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "is a folder", url)
    told = {str(key).lower(): value for key, value in info.items()}
    size = told.get("size")
    if not isinstance(size, int) or size < 0:
        raise Unreachable(f"{url}: the server does not say how long the file is: copy it first")
    when = next((told[key] for key in TIMES if told.get(key)), None)
    mtime = nanoseconds(when)
    version = next((str(told[key]) for key in VERSIONS if told.get(key)), str(mtime or ""))
    return FileId(url, size, mtime, version.strip('"'))


def nanoseconds(when: Any) -> int:
    """A time as back ends tell it (seconds, datetime, ISO text) as ns since 1970; 0 if it is none."""
    try:
        if isinstance(when, str):
            when = datetime.fromisoformat(when)
        if isinstance(when, datetime):
            when = (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()
        return round(when * 1e6) * 1000
    except (ValueError, TypeError, OverflowError):
        return 0


def first(url: str, count: int) -> tuple[FileId, bytes, bool]:
    """(the file, its first bytes, whether it is a web page). Over HTTP this is a single request."""
    if is_http(url):
        answer = asked(url, lambda: remote_http.get(connect(url)[0], url, 0, count))
        return answer.file, answer.body, answer.page
    file = look(url)
    return file, fetch(file, 0, min(count, file.size)), False


def fetch(file: FileId, start: int, stop: int) -> bytes:
    """Bytes `start` to `stop` in one request. DamagedFile if what comes is visibly of another file or too short."""
    if start >= stop:
        return b""
    filesystem, path = connect(file.path)
    if is_http(file.path):
        answer = asked(file.path, lambda: remote_http.get(filesystem, file.path, start, stop))
        if answer.file != file:
            raise changed(file.path)
        body = answer.body[start - answer.start : stop - answer.start]
    else:
        options = {"cache_type": "none"} if file.path.startswith("hf://") else {}  # it would read megabytes ahead
        body = asked(
            file.path, lambda: whole(filesystem.cat_file(path, start=start, end=stop, **options), stop - start)
        )
    if len(body) < stop - start:
        raise changed(file.path)
    return body


def whole(body: bytes, nbytes: int) -> bytes:
    """The body, if it has that many bytes; asked for again if not."""
    if len(body) != nbytes:
        raise ConnectionError(f"{len(body)} bytes came instead of {nbytes}")
    return body


def fetch_all(file: FileId, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Several ranges, a few requests at a time."""
    if len(ranges) < 2:
        return [fetch(file, *r) for r in ranges]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda r: fetch(file, *r), ranges))


def check_unchanged(file: FileId) -> None:
    """The file is still that of the listing, or DamagedFile."""
    if look(file.path, anew=True) != file:
        raise changed(file.path)


def asked(url: str, call: Callable[[], T]) -> T:
    """What the call gives; tried again where that may help, and every failure said in our own words."""
    for pause in (*PAUSES, None):
        try:
            with GATE:
                return call()
        except SmdError:
            raise
        except Exception as problem:  # back ends have exceptions of their own, and no common kind
            if pause is None or not may_pass(problem):
                raise said(url, problem) from problem
            time.sleep(pause)
    raise AssertionError


def status_of(problem: BaseException | None) -> int | None:
    """HTTP's status, wherever a back end's exception keeps it."""
    while problem is not None:
        answer = getattr(problem, "response", None)
        told: Any = answer.get("ResponseMetadata", {}) if isinstance(answer, dict) else {}
        for value in (
            getattr(problem, "status", None) or getattr(problem, "code", None),  # aiohttp; gcsfs
            told.get("HTTPStatusCode"),  # botocore
            getattr(answer, "status_code", None),  # requests, httpx
        ):
            if str(value).isdigit():
                return int(str(value))
        problem = problem.__cause__
    return None


def may_pass(problem: Exception) -> bool:
    """Another try may help: the server is busy, the connection broke, nothing came in time."""
    status = status_of(problem)
    if status is not None:
        return status in PASSING
    kinds = (TimeoutError, ConnectionError)
    return isinstance(problem, kinds) or type(problem).__module__.partition(".")[0] in ("aiohttp", "httpx")


def said(url: str, problem: Exception) -> Exception:
    """The same failure as one of ours, with what can be done."""
    status = status_of(problem)
    if status in (404, 410) or isinstance(problem, FileNotFoundError):
        return FileNotFoundError(errno.ENOENT, "there is no such file", url)
    if status in (401, 403) or isinstance(problem, PermissionError):
        wanted = "it wants credentials, or lists no folders" if is_http(url) else "give this store's credentials"
        words = f"access is refused{f' (HTTP {status})' if status else ''}: {wanted}"
        return PermissionError(errno.EACCES, words, url)
    text = f"{type(problem).__name__}: {problem}".strip(": ")
    return Unreachable(f"{url}: cannot be reached: {text}")
