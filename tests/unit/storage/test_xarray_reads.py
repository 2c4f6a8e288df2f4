"""The report is read by xarray's two engines, without help from us."""

import numpy as np
import pytest
import xarray as xr
from synthetic_report import empty_report, make_report

from smd_analyze.records.report import TABLES
from smd_analyze.storage.hdf5 import save

ENGINES = ["h5netcdf", "netcdf4"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.h5"
    save(make_report(8), path)
    return path


@pytest.mark.parametrize("engine", ENGINES)
def test_statistics_are_matrices_over_step_and_group(place, engine):
    report = make_report(8)
    with xr.open_dataset(place, group="statistics", engine=engine) as data:
        norm = data["weight_norm"].sel(group="layer1.0.conv1")
        assert norm.dims == ("step",)
        expected = report.statistics.filter(group="layer1.0.conv1")
        np.testing.assert_array_equal(norm.values, expected["weight_norm"].to_numpy())
        np.testing.assert_array_equal(norm.step.values, expected["step"].to_numpy())
        assert norm.attrs["units"] == "weight"
        assert np.isnan(data["weight_norm"].sel(group="layer1.0.conv2", step=2000))
        assert data["nonfinite"].dtype == np.int64


@pytest.mark.parametrize("engine", ENGINES)
def test_predictions_hold_words_as_matrices_too(place, engine):
    with xr.open_dataset(place, group="predictions", engine=engine) as data:
        assert data["expected_norm"].dims == ("step", "group")
        assert str(data["norm_basis"].sel(group="conv1", step=0).values) == "extrapolated"
        assert data["expected_norm"].attrs["ancillary_variables"] == "expected_norm_low expected_norm_high"


@pytest.mark.parametrize("engine", ENGINES)
def test_the_whole_tree_opens_and_loads(place, engine):
    with xr.open_datatree(place, engine=engine) as tree:
        assert set(tree.children) == {*TABLES, "units"}
        for node in tree.subtree:
            node.load()
        first = tree["units/0"]
        assert first.attrs["group"] == "conv1"
        assert first["vv"].dims == ("step", "unit")
        assert tree.attrs["step_unit"] == "optimizer steps"
        assert tree["schedule"]["decoupled"].isnull().sum() == 1


def test_tables_without_rows_open(tmp_path):
    save(empty_report(), tmp_path / "empty.h5")
    with xr.open_datatree(tmp_path / "empty.h5", engine="netcdf4") as tree:
        for node in tree.subtree:
            node.load()
        assert tree["statistics"]["weight_norm"].shape == (0, 0)
    for table in ("layers", "predictions"):
        with xr.open_dataset(tmp_path / "empty.h5", group=table, engine="h5netcdf") as data:
            assert data.load().sizes["row" if table == "layers" else "step"] == 0
