"""Byte ranges over HTTP, through fsspec's own session (so its proxies, headers and credentials are in force).

fsspec's `cat_file` would take a whole file from a server that knows no ranges, and hides what the answer says of the
file: its length and its version come with every range, so that no request is spent on asking for them.
Source: RFC 9110, sections 8.8 (ETag, Last-Modified), 14 (ranges).
"""

from __future__ import annotations

from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

from smd_analyze.errors import Unreachable
from smd_analyze.loading.files.file_ids import FileId

LARGEST_WHOLE = 1 << 24  # bytes of a file that is taken whole from a server that knows no ranges
PIECE = 1 << 16
WAIT = 60.0  # seconds until a server that sends nothing is asked again


@dataclass(frozen=True)
class Answer:
    """What a server sent: `body` begins at byte `start` of the file; `page` tells that it is a web page."""

    file: FileId
    start: int
    body: bytes
    page: bool = False


def get(filesystem: Any, url: str, start: int, stop: int, only_headers: bool = False) -> Answer:
    """Bytes `start` to `stop`, or the whole of a small file if the server knows no ranges: then Unreachable for others.

    `only_headers`: the body is not wanted (HEAD is not allowed everywhere, for example by signed URLs). A body that
    breaks off raises what aiohttp raises, as does a status of 400 and more.
    """
    from fsspec.asyn import sync

    answer: Any = sync(filesystem.loop, _get, filesystem, url, start, stop, only_headers)
    return answer


async def _get(filesystem: Any, url: str, start: int, stop: int, only_headers: bool) -> Answer:
    from aiohttp import ClientTimeout

    session = await filesystem.set_session()
    options = dict(filesystem.kwargs)
    headers = {**options.pop("headers", {}), "Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
    if "timeout" not in filesystem.client_kwargs:
        options.setdefault("timeout", ClientTimeout(total=None, sock_connect=WAIT, sock_read=WAIT))
    async with session.get(filesystem.encode_url(url), headers=headers, **options) as response:
        if response.status == 416 and start == 0:  # the file is empty
            return Answer(file_of(url, 0, response.headers), 0, b"")
        response.raise_for_status()
        page = response.headers.get("Content-Type", "").startswith("text/html")
        if response.status == 206:
            place, _, total = response.headers.get("Content-Range", "").partition("/")
            if not total.isdigit() or not place.startswith(f"bytes {start}-"):
                raise Unreachable(f"{url}: the server does not say which part of the file it sends: copy it first")
            body = await bounded(response, stop - start)
            if body is None or len(body) < min(stop, int(total)) - start:
                raise ConnectionError("another number of bytes came than was asked for")
            return Answer(file_of(url, int(total), response.headers), start, body, page)
        length = response.headers.get("Content-Length", "")
        if only_headers and length.isdigit():
            response.close()
            return Answer(file_of(url, int(length), response.headers), 0, b"", page)
        body = await bounded(response, LARGEST_WHOLE)
        if body is None:
            raise Unreachable(
                f"{url}: the server gives whole files only, no byte ranges, and this one is large: copy it first"
            )
        return Answer(file_of(url, len(body), response.headers), 0, body, page)


async def bounded(response: Any, most: int) -> bytes | None:
    """The body; None if it is longer than `most`, of which then little is read."""
    length = response.headers.get("Content-Length", "")
    if length.isdigit() and int(length) > most:
        return None
    parts: list[bytes] = []
    held = 0
    while part := await response.content.read(PIECE):
        parts.append(part)
        held += len(part)
        if held > most:
            return None
    return b"".join(parts)


def file_of(url: str, size: int, headers: Any) -> FileId:
    """What the headers tell. A weak ETag may differ between two servers of one file: the date counts then."""
    date = headers.get("Last-Modified", "")
    etag = headers.get("ETag", "")
    try:
        mtime = int(parsedate_to_datetime(date).timestamp() * 1e9) if date else 0
    except ValueError:
        mtime = 0
    return FileId(url, size, mtime, date if etag.startswith("W/") or not etag else etag.strip('"'))
