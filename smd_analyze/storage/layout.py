"""A table to one HDF5 group, and back: columns along `row`, or matrices over the dimension scales `step` × `group`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
import polars as pl

from smd_analyze.storage.attributes import TITLES, attributes
from smd_analyze.storage.columns import MISSING, decode, encode, text_missing

TEXT = h5py.string_dtype("utf-8")
KEYS = ("step", "group")


def write_columns(file: h5py.Group, table: str, frame: pl.DataFrame) -> None:
    """Write every column of `frame` as a variable along `row`.

    Raises:
        ValueError: the table has a column of the name "row", or one with a space in its name.
        TypeError: a column has a dtype that the report does not hold.
    """
    node = _start(file, table, frame)
    row = dimension(node, "row", np.arange(frame.height), attributes(table, "row"))
    for column in frame.iter_columns():
        extra = text_missing(column)
        for part in [column] if extra is None else [column, extra]:
            coded = encode(part)
            variable(node, table, part.name, coded.values, (row,), coded.attrs, frame.columns)


def write_matrices(file: h5py.Group, table: str, frame: pl.DataFrame) -> None:
    """Write every column of `frame` but `step` and `group` as a matrix step × group.

    The variable `row` says which row of the table a cell is, so that rows that are not there, and the order of rows,
    come back as they were.

    Raises:
        ValueError: a key is missing, or two rows have the same step and group; see also `write_columns`.
    """
    if not frame.height and not set(KEYS) <= set(frame.columns):
        return write_columns(file, table, frame)  # a table that was never filled
    node = _start(file, table, frame)
    if any(frame[key].null_count() for key in KEYS) or frame.select(KEYS).is_duplicated().any():
        raise ValueError(f"table {table}: more than one row for one step and group, or a row without them")
    steps = frame["step"].unique().sort()
    groups = frame["group"].unique(maintain_order=True)
    scales = []
    for key in (steps, groups):
        coded = encode(key)
        scales.append(dimension(node, key.name, coded.values, attributes(table, key.name) | coded.attrs))
    place = {name: index for index, name in enumerate(groups)}
    at = (
        np.searchsorted(steps.to_numpy(), frame["step"].to_numpy()),
        np.array([place[name] for name in frame["group"]], dtype=np.intp),
    )
    shape = (len(steps), len(groups))
    gaps = frame.height < shape[0] * shape[1]
    rows = pl.Series("row", np.arange(frame.height))
    for column in [rows, *frame.drop(KEYS).iter_columns()]:
        extra = text_missing(column)
        for part in [column] if extra is None else [column, extra]:
            coded = encode(part, gaps)
            matrix = np.full(shape, coded.fill, dtype=coded.values.dtype)
            matrix[at] = coded.values
            variable(node, table, part.name, matrix, tuple(scales), coded.attrs, frame.columns)


def read_table(node: Any) -> pl.DataFrame:
    """The table that was written into `node`, by either of the two layouts.

    Raises:
        KeyError: a variable or an attribute is not there.
    """
    names = str(node.attrs["columns"]).split()
    if np.ndim(node["row"]) == 1:
        return pl.DataFrame([_column(node, name, _read(node[name])) for name in names])
    rows = _read(node["row"])
    present = np.flatnonzero(rows.ravel() >= 0)
    order = present[np.argsort(rows.ravel()[present])]  # the table's rows, as cells of the flattened matrices
    cells = np.unravel_index(order, rows.shape)
    keys = dict(zip(KEYS, cells, strict=True))
    columns = []
    for name in names:
        values = _read(node[name])
        columns.append(_column(node, name, values[keys[name]] if name in keys else values[cells], cells))
    return pl.DataFrame(columns)


def _column(node: Any, name: str, values: np.ndarray, cells: tuple[np.ndarray, ...] | None = None) -> pl.Series:
    column = decode(name, values, dict(node[name].attrs))
    if name + MISSING not in node:
        return column
    missing = _read(node[name + MISSING])
    missing = (missing if cells is None else missing[cells]) == 1
    texts = [None if gone else text for gone, text in zip(missing, values, strict=True)]
    return pl.Series(name, texts, dtype=pl.String)


def _read(data: Any) -> np.ndarray:
    return data.asstr()[...] if h5py.check_string_dtype(data.dtype) else data[...]


def dimension(node: h5py.Group, name: str, values: np.ndarray, attrs: dict[str, Any]) -> h5py.Dataset:
    """A coordinate: values [n] along the dimension that they give their own name."""
    data = _dataset(node, name, values)
    data.attrs.update(attrs)
    data.make_scale(name)
    return data


def variable(
    node: h5py.Group,
    table: str,
    name: str,
    values: np.ndarray,
    scales: tuple[h5py.Dataset, ...],
    attrs: dict[str, Any],
    columns: Sequence[str] = (),
) -> None:
    """A variable over `scales`, with unit, meaning and source; `columns` are its table's, to find its interval."""
    data = _dataset(node, name, values)
    data.attrs.update(attributes(table, name, columns) | attrs)
    for axis, scale in enumerate(scales):
        data.dims[axis].attach_scale(scale)


def _dataset(node: h5py.Group, name: str, values: np.ndarray) -> h5py.Dataset:
    dtype = TEXT if values.dtype == object else values.dtype
    # A dimension of length 0 exists in netCDF4 only as an unlimited one.
    maxshape = tuple(n or None for n in values.shape) if 0 in values.shape else None
    return node.create_dataset(name, data=values, dtype=dtype, maxshape=maxshape)


def _start(file: h5py.Group, table: str, frame: pl.DataFrame) -> h5py.Group:
    if "row" in frame.columns or any(" " in name or "/" in name for name in frame.columns):
        raise ValueError(f"table {table}: a column may not be called 'row', nor have a space or a slash in its name")
    node = file.create_group(table, track_order=True)
    node.attrs["title"] = TITLES.get(table, table)
    node.attrs["columns"] = " ".join(frame.columns)
    return node
