import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_analyze.storage.layout import read_table, write_columns, write_matrices


def frames():
    texts = st.none() | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=4)
    columns = {
        "words": (pl.String, texts),
        "numbers": (pl.Float64, st.none() | st.floats(allow_nan=False)),
        "counts": (pl.Int64, st.none() | st.integers(-(2**63) + 1, 2**63 - 1)),
        "small": (pl.UInt8, st.none() | st.sampled_from([0, 7, 255])),
        "flags": (pl.Boolean, st.none() | st.booleans()),
        "single": (pl.Float32, st.none() | st.floats(width=32, allow_nan=False)),
        "lists": (pl.List(pl.String), st.none() | st.lists(st.text("ab/,\"'", max_size=3), max_size=3)),
        "shapes": (pl.List(pl.Int64), st.none() | st.lists(st.integers(0, 9), max_size=3)),
        "nothing": (pl.Null, st.none()),
    }
    return st.integers(0, 4).flatmap(
        lambda rows: st.fixed_dictionaries(
            {name: st.lists(values, min_size=rows, max_size=rows) for name, (_, values) in columns.items()}
        ).map(lambda data: pl.DataFrame(data, schema={name: dtype for name, (dtype, _) in columns.items()}))
    )


@settings(max_examples=30, deadline=None)
@given(frame=frames())
def test_any_column_comes_back_as_it_was_in_both_layouts(frame):
    keyed = frame.with_columns(
        pl.Series("group", [f"g{i % 2}" for i in range(frame.height)], dtype=pl.String),
        pl.Series("step", [100 - i // 2 for i in range(frame.height)], dtype=pl.Int64),
    )
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        write_columns(file, "columns", frame)
        write_matrices(file, "matrices", keyed)
        for table, name in ((frame, "columns"), (keyed, "matrices")):
            found = read_table(file[name])
            assert list(found.schema.items()) == list(table.schema.items())
            assert found.equals(table, null_equal=True)


def test_missing_and_empty_text_are_told_apart():
    frame = pl.DataFrame({"mixed": ["", None, "a"], "missing": [None, None, "a"], "empty": ["", "", "a"]})
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        write_columns(file, "table", frame)
        assert file["table/mixed"].asstr()[...].tolist() == ["", "", "a"]
        assert file["table/mixed_missing"][...].tolist() == [0, 1, 0]
        assert "missing_missing" not in file["table"]
        assert "empty_missing" not in file["table"]
        assert read_table(file["table"]).equals(frame, null_equal=True)


def test_nan_on_disk_is_missing_in_the_table():
    frame = pl.DataFrame({"x": [1.0, float("nan"), None, float("inf")]})
    with h5py.File("memory.h5", "w", driver="core", backing_store=False) as file:
        write_columns(file, "table", frame)
        assert np.isnan(file["table/x"][...]).tolist() == [False, True, True, False]
        assert read_table(file["table"])["x"].to_list() == [1.0, None, None, float("inf")]


@pytest.mark.parametrize("name", ["row", "two words", "a/b"])
def test_names_that_the_layout_needs_are_refused(name):
    file = h5py.File("memory.h5", "w", driver="core", backing_store=False)
    with file, pytest.raises(ValueError, match="column"):
        write_columns(file, "table", pl.DataFrame({name: [1]}))
