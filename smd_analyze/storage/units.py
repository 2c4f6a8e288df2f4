"""Per-unit series: a file for them while they are made, and their place in the report."""

from __future__ import annotations

import contextlib
import tempfile
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

import h5py
import numpy as np

from smd_analyze.errors import CannotWrite, DamagedFile
from smd_analyze.records.statistics import UnitSeries
from smd_analyze.storage.attributes import attributes
from smd_analyze.storage.columns import plain
from smd_analyze.storage.layout import dimension, variable
from smd_analyze.storage.sink import create

SERIES = ("vv", "dd", "dv", "uu", "wu", "ss")
CHUNK = 1 << 17  # elements of a chunk of the store: 1 MiB


class HDF5Store:
    """A `UnitStore` (records/statistics.py) in a temporary file, one dataset [K, T, units] per kind and group.

    Units that were not put are NaN. The file is gone when the store is closed, is no longer used, or the process ends.
    """

    def __init__(self, folder: Path | None = None) -> None:
        """Open the file in `folder`, or in the system's folder for temporary files.

        Raises:
            CannotWrite: no file can be made there.
        """
        try:
            raw = tempfile.TemporaryFile(prefix=".smd-analyze-", dir=folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise CannotWrite(f"{folder or tempfile.gettempdir()}: no temporary file can be made: {error}") from error
        self._folder = folder or tempfile.gettempdir()
        self._sink, self._file = create(cast(BinaryIO, raw))
        self._data: dict[tuple[str, str], h5py.Dataset] = {}
        self._close = weakref.finalize(self, _close, self._file, raw)

    def put(self, kind: str, group: str, units: int, first_unit: int, sums: np.ndarray) -> None:
        """Keep `sums` [K, T, u] (float64) as units first_unit … first_unit+u of `units`. One thread at a time.

        Raises:
            CannotWrite: the disk is full, or fails.
        """
        series, steps, count = sums.shape
        if (kind, group) not in self._data:
            name = str(len(self._data))  # a "/" in a name would nest
            chunk = max(1, min(units, CHUNK // max(series * steps, 1)))
            shape = (series, steps, units)
            chunks = (series, steps, chunk) if 0 not in shape else None
            self._data[kind, group] = self._file.create_dataset(
                name, shape, np.float64, chunks=chunks, fillvalue=np.nan
            )
        self._data[kind, group][:, :, first_unit : first_unit + count] = sums
        self._check()

    def get(self, kind: str, group: str) -> np.ndarray | None:
        """All that was put, [K, T, units], or None if nothing was."""
        data = self._data.get((kind, group))
        found = None if data is None else data[...]
        self._check()
        return found

    def _check(self) -> None:
        """HDF5 writes late: look after every call whether a write has failed meanwhile."""
        if self._sink.error:
            raise CannotWrite(
                f"{self._folder}: the series of single units do not fit here ({self._sink.error}): free some space, "
                "or set TMPDIR to another folder"
            ) from self._sink.error

    def close(self) -> None:
        """Give the file up; nothing can be put or got any more."""
        self._close()

    def __enter__(self) -> HDF5Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def open_store(path: Path | str | None = None) -> HDF5Store:
    """A store for the time of an analysis.

    `path` is the report that will be written: the series then lie in a temporary file beside it (a report that is
    already there stays as it is). None: in the system's folder for temporary files.

    Raises:
        CannotWrite: no file can be made there.
    """
    return HDF5Store(None if path is None else Path(path).resolve().parent)


def write_units(
    file: h5py.Group, names: Iterable[str], units: Callable[[str], UnitSeries | None], check: Callable[[], None]
) -> None:
    """Write the series of every group that has some as `units/<number>`, one group in memory at a time.

    `check` is called after each, to give up early.
    """
    parent = file.create_group("units", track_order=True)
    parent.attrs["title"] = "sums over each unit alone, at every checkpoint; the attribute `group` names the group"
    for name in names:
        series = units(name)
        if series is None:
            continue
        node = parent.create_group(str(len(parent)), track_order=True)
        node.attrs["group"] = plain(name)
        values = {key: value for key in SERIES if (value := getattr(series, key)) is not None}
        steps = np.asarray(series.steps, dtype=np.int64)
        scales = (
            dimension(node, "step", steps, attributes("units", "step")),
            dimension(node, "unit", np.arange(series.vv.shape[1]), attributes("units", "unit")),
        )
        for key, value in values.items():
            variable(node, "units", key, np.asarray(value, dtype=np.float64), scales, {})
        check()


def read_units(path: Path, name: str) -> UnitSeries | None:
    """The series of one group from the report at `path`, or None where it holds none.

    Raises:
        DamagedFile: the report is no longer there, or cannot be read.
    """
    try:
        with h5py.File(path, "r", locking="best-effort") as file:
            parent: Any = file["units"]
            for node in parent.values():
                if node.attrs["group"] == plain(name):
                    values = {key: node[key][...] for key in SERIES if key in node}
                    return UnitSeries(group=name, steps=node["step"][...], **values)
    except (OSError, KeyError) as error:
        raise DamagedFile(f"{path}: the series of {name} cannot be read: {error}") from error
    return None


def _close(file: h5py.File, raw: IO[bytes]) -> None:
    with contextlib.suppress(RuntimeError):  # at the end of a process HDF5 may have closed it already
        file.close()
    raw.close()  # the system removes it
