"""Report to HDF5 and back (docs/report-format.md). h5netcdf, netCDF4 and xarray read the file too."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import h5py

from smd_analyze.errors import CannotWrite, DamagedFile, NothingToAnalyse, UnknownFormat
from smd_analyze.records.report import TABLES, Report
from smd_analyze.storage.columns import plain
from smd_analyze.storage.layout import read_table, write_columns, write_matrices
from smd_analyze.storage.sink import create
from smd_analyze.storage.units import read_units, write_units

SCHEMA = 1
FILE_TYPE = "smd-analyze report"
MATRICES = ("statistics", "predictions")
LATER = ("stages", "lags")  # tables that reports of this schema may lack
OWN = ("file_type", "schema_version", "verdict")  # root attributes that are not provenance


def save(report: Report, path: str | os.PathLike[str]) -> None:
    """Write a report: beside its place first, then renamed, so that whoever reads sees the old one or the new one.

    Raises:
        CannotWrite: `path` cannot be written (no folder, no permission, no space), or a table does not fit the format.
    """
    place, beside = _places(path)
    try:
        with beside.open("x+b", buffering=0) as raw:
            sink, file = create(raw)
            with file:
                _write(report, file, sink.check)
            sink.sync()
        os.replace(beside, place)  # noqa: PTH105  (atomic on every system)
        if os.name == "posix":
            _sync_folder(place.parent)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise CannotWrite(f"{path}: the report cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def is_report(path: str | os.PathLike[str]) -> bool:
    """Whether a report of this schema lies here, whole or not."""
    place = Path(path)
    try:
        if not place.is_file() or not h5py.is_hdf5(place):
            return False
        with h5py.File(place, "r", locking="best-effort") as file:
            return file.attrs.get("file_type") == FILE_TYPE and file.attrs.get("schema_version") == SCHEMA
    except OSError:  # it cannot be opened: whatever it is, there is nothing to take from it
        return False


def check_writable(path: str | os.PathLike[str]) -> None:
    """Find out before the work, not after it, that a report can be written here; leaves nothing behind.

    A file that is there already is replaced only if it is a report: nobody's weights are overwritten by a slip.

    Raises:
        CannotWrite: it cannot.
    """
    place, beside = _places(path)
    if place.exists() and place.stat().st_size and not is_report(place):
        raise CannotWrite(f"{path}: is there already and is no report: name another file, or remove it")
    try:
        beside.touch(exist_ok=False)
    except OSError as error:
        raise CannotWrite(f"{path}: the report cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def load(path: str | os.PathLike[str]) -> Report:
    """Read a report. Its per-unit series stay in the file until they are asked for.

    Raises:
        NothingToAnalyse: there is no such file.
        UnknownFormat: it is no report, or one of another schema.
        DamagedFile: a part of it is missing.
    """
    place = Path(path).resolve()
    if not place.is_file():
        raise NothingToAnalyse(f"{path}: no such file; `smd-analyze CKPTS -o {path}` writes a report")
    if not h5py.is_hdf5(place):
        raise UnknownFormat(f"{path}: is not a report of smd-analyze (no HDF5 file)")
    try:
        with h5py.File(place, "r", locking="best-effort") as file:
            _check(file.attrs, str(path))
            tables = {name: read_table(file[name]) for name in TABLES if name in file or name not in LATER}
            words = {name: str(value) for name, value in file.attrs.items() if name not in OWN}
            verdict = str(file.attrs["verdict"])
    except (OSError, KeyError, RuntimeError) as error:
        raise DamagedFile(f"{path}: the report is damaged, write it anew: {error}") from error
    return Report(verdict=verdict, **tables, provenance=words, units=partial(read_units, place))


def _places(path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Where the report will be (a link keeps pointing at its file), and where it is written until it is complete."""
    place = Path(path).resolve()
    beside = place.with_name(f".{place.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        taken = place.exists() and not place.is_file()
    except OSError as error:
        raise CannotWrite(f"{path}: the report cannot be written: {error}") from error
    if taken:
        raise CannotWrite(f"{path}: is not a file: name a file for the report, for example {place / 'report.h5'}")
    return place, beside


def _check(attrs: Mapping[str, object], path: str) -> None:
    if attrs.get("file_type") != FILE_TYPE:
        raise UnknownFormat(f"{path}: is an HDF5 file, but not a report of smd-analyze")
    schema = attrs.get("schema_version")
    if schema != SCHEMA:
        raise UnknownFormat(
            f"{path}: the report has schema {schema}, this smd-analyze reads schema {SCHEMA}: "
            "use the version that wrote it (root attribute `version`), or analyse the checkpoints anew"
        )


def _write(report: Report, file: h5py.File, check: Callable[[], None]) -> None:
    file.attrs["file_type"] = FILE_TYPE
    file.attrs["schema_version"] = SCHEMA
    file.attrs["verdict"] = plain(report.verdict)
    for name, value in report.provenance.items():
        if name not in OWN:
            file.attrs[name] = plain(str(value))
    for name in TABLES:
        write = write_matrices if name in MATRICES else write_columns
        write(file, name, getattr(report, name))
        check()
    groups = report.groups["group"].drop_nulls() if "group" in report.groups.columns else ()
    write_units(file, groups, report.units, check)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
