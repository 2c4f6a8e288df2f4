"""A polars column to an array that HDF5 and netCDF4 can both hold, and back, exactly.

Missing numbers become NaN, missing integers and booleans a `_FillValue`, missing text the empty string; booleans are
int8; lists are JSON text. The attribute `table_dtype` keeps the column's polars dtype, `table_missing` is 1 where the
column misses something: without it a `_FillValue` fills only cells that belong to no row, and "" is a text.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

INTEGERS = {str(t): t for t in (pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64)}
FLOATS = {str(t): t for t in (pl.Float32, pl.Float64)}
SCALARS = INTEGERS | FLOATS | {str(t): t for t in (pl.Boolean, pl.String)}
LISTS = {str(pl.List(t)): pl.List(t) for t in SCALARS.values()}
DTYPES: dict[str, Any] = SCALARS | LISTS | {str(pl.Null): pl.Null}

MISSING = "_missing"
"""Suffix of the int8 variable that tells missing text from empty text, written only where a column holds both."""


@dataclass(frozen=True)
class Encoded:
    """`values` [rows]; `fill` is what a cell without a row holds; `attrs` belong to the variable."""

    values: np.ndarray
    fill: Any
    attrs: dict[str, Any]


def encode(column: pl.Series, gaps: bool = False) -> Encoded:
    """The array of a column. `gaps`: the variable will have cells that belong to no row.

    Raises:
        TypeError: the column's dtype has no place in a report.
    """
    name = str(column.dtype)
    attrs: dict[str, Any] = {"table_dtype": name}
    if column.null_count():
        attrs["table_missing"] = np.int8(1)
    holes = gaps or column.null_count() > 0
    if name == str(pl.Null):
        return Encoded(np.full(len(column), np.nan), np.nan, attrs)
    if name in FLOATS:
        dtype = np.float32 if column.dtype == pl.Float32 else np.float64
        return Encoded(column.fill_null(float("nan")).to_numpy().astype(dtype), np.nan, attrs)
    if name in INTEGERS or column.dtype == pl.Boolean:
        if column.dtype == pl.Boolean:
            column = column.cast(pl.Int8)
            attrs |= {"flag_values": np.array([0, 1], np.int8), "flag_meanings": "false true"}
        dtype = np.dtype(str(column.dtype).lower())
        fill = dtype.type(_free(column, dtype))
        if holes:
            attrs["_FillValue"] = fill
        return Encoded(column.fill_null(int(fill)).to_numpy().astype(dtype), fill, attrs)
    if name in LISTS or name == str(pl.String):
        items = column.to_list()
        if name in LISTS:
            items = [None if item is None else json.dumps(item, ensure_ascii=False) for item in items]
        return Encoded(np.array([plain(item or "") for item in items], dtype=object), "", attrs)
    raise TypeError(f"column {column.name!r} has the dtype {name}, which a report does not hold")


def decode(name: str, values: np.ndarray, attrs: dict[str, Any]) -> pl.Series:
    """The column that `encode` was given. `values` [rows] are as they lie in the file."""
    wanted = str(attrs["table_dtype"])
    dtype = DTYPES[wanted]
    if wanted == str(pl.Null):
        return pl.Series(name, [None] * len(values), dtype=pl.Null)
    if wanted in FLOATS:
        return pl.Series(name, values, dtype=dtype, nan_to_null=True)
    if wanted in INTEGERS or dtype == pl.Boolean:
        column = pl.Series(name, values)
        if "table_missing" in attrs:
            missing = pl.Series(values == np.asarray(attrs["_FillValue"]).reshape(-1)[0])
            column = column.to_frame().select(pl.when(~missing).then(pl.col(name)).alias(name)).to_series()
        return column.cast(dtype)
    texts = [str(value) for value in values]
    empty_is_missing = "table_missing" in attrs
    items: list[Any] = [None if empty_is_missing and not text else text for text in texts]
    if wanted in LISTS:
        items = [None if item is None else json.loads(item) for item in items]
    return pl.Series(name, items, dtype=dtype)


def _free(column: pl.Series, dtype: np.dtype[Any]) -> int:
    """A value of an integer column that stands for none: the least (unsigned: the greatest) that the column lacks."""
    info = np.iinfo(dtype)
    ends = [info.min, info.max] if info.min else [info.max, info.min]
    free = next((end for end in ends if not (column == end).any()), None)
    if free is not None:
        return free
    used = set(column.drop_nulls().unique())
    found = next((value for value in range(info.min, info.max) if value not in used), None)
    if found is None and column.null_count():
        raise TypeError(
            f"column {column.name!r} holds every {column.dtype}, and misses some: no value is left for that"
        )
    return ends[0] if found is None else found


def text_missing(column: pl.Series) -> pl.Series | None:
    """Which texts are missing, where the column holds missing and empty ones both: else None, nothing to tell apart."""
    if column.dtype != pl.String or not column.null_count() or not bool((column == "").any()):
        return None
    return column.is_null().alias(column.name + MISSING)


def plain(text: str) -> str:
    """Text that HDF5 can hold: no NUL, and file names that are not UTF-8 with their bytes spelt out."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
