import stat
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import polars as pl
import pytest
from synthetic_report import empty_report, make_report

from smd_analyze.errors import CannotWrite, DamagedFile, NothingToAnalyse, UnknownFormat
from smd_analyze.records.report import TABLES
from smd_analyze.storage.hdf5 import check_writable, load, save


def assert_same(left, right):
    assert left.verdict == right.verdict
    assert dict(left.provenance) == dict(right.provenance)
    for name in TABLES:
        a, b = getattr(left, name), getattr(right, name)
        assert list(a.schema.items()) == list(b.schema.items()), name
        assert a.equals(b, null_equal=True), name


@pytest.mark.parametrize("layers", [3, 20])
def test_what_was_saved_is_loaded(tmp_path, layers):
    report = make_report(layers)
    save(report, tmp_path / "report.h5")
    assert_same(load(tmp_path / "report.h5"), report)


def test_tables_without_rows_keep_their_columns(tmp_path):
    report = empty_report()
    save(report, tmp_path / "report.h5")
    assert_same(load(tmp_path / "report.h5"), report)
    bare = replace(report, predictions=pl.DataFrame(), statistics=pl.DataFrame(), clocks=pl.DataFrame())
    save(bare, tmp_path / "report.h5")
    assert_same(load(tmp_path / "report.h5"), bare)


def test_rows_of_a_matrix_table_keep_their_order_and_their_gaps(tmp_path):
    report = make_report(8)
    shuffled = report.statistics.sample(fraction=0.7, shuffle=True, seed=3)
    report = replace(report, statistics=shuffled)
    save(report, tmp_path / "report.h5")
    assert_same(load(tmp_path / "report.h5"), report)


def test_per_unit_series_come_back(tmp_path):
    report = make_report(5)
    save(report, tmp_path / "report.h5")
    loaded = load(tmp_path / "report.h5")
    for name in report.groups["group"]:
        before, after = report.units(name), loaded.units(name)
        assert after.group == name
        for field in ("steps", "vv", "dd", "dv", "uu", "wu"):
            a, b = getattr(before, field), getattr(after, field)
            assert (a is None) == (b is None)
            if a is not None:
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
    assert loaded.units("no such layer") is None


def test_a_loaded_report_can_be_saved_over_itself(tmp_path):
    save(make_report(4), tmp_path / "report.h5")
    loaded = load(tmp_path / "report.h5")
    save(loaded, tmp_path / "report.h5")
    again = load(tmp_path / "report.h5")
    assert_same(again, loaded)
    assert again.units("fc") is not None


def test_only_types_that_netcdf_holds(tmp_path):
    save(make_report(8), tmp_path / "report.h5")
    kinds = set()

    def look(_, node):
        if isinstance(node, h5py.Dataset):
            assert h5py.check_enum_dtype(node.dtype) is None
            text = h5py.check_string_dtype(node.dtype)
            assert text is None or (text.encoding == "utf-8" and text.length is None)
            assert text is not None or (node.dtype.kind in "iuf" and node.dtype != np.float16)
            assert node.dtype.names is None
            kinds.add(node.dtype.kind)

    with h5py.File(tmp_path / "report.h5") as file:
        file.visititems(look)
    assert kinds == set("Oif")


def test_every_variable_explains_itself(tmp_path):
    save(make_report(8), tmp_path / "report.h5")
    bare = []

    def look(name, node):
        if isinstance(node, h5py.Dataset) and not all(node.attrs.get(a) for a in ("units", "long_name", "source")):
            bare.append(name)

    with h5py.File(tmp_path / "report.h5") as file:
        file.visititems(look)
        assert bare == []
        layers = file["layers"]
        assert layers["measured"].attrs["ancillary_variables"] == "measured_low measured_high"
        assert layers["level"].attrs["units"] == "weight"
        assert file["fits"]["level"].attrs["units"] == "1"
        assert file["fits"]["value"].attrs["ancillary_variables"] == "low high"
        assert file["statistics"]["weight_norm"].attrs["source"] == "measured from the saved weights"
        assert file["schedule"]["nesterov"].dtype == np.int8
        assert "_FillValue" in file["schedule"]["decoupled"].attrs  # one is missing
        assert "_FillValue" not in file["schedule"]["nesterov"].attrs


def test_the_root_says_where_the_numbers_come_from(tmp_path):
    save(make_report(3), tmp_path / "report.h5")
    with h5py.File(tmp_path / "report.h5") as file:
        for name in ("version", "schema_version", "command", "path", "device", "time", "step_unit", "verdict"):
            assert name in file.attrs
        assert list(file) == [*TABLES, "units"]  # in the order of the specification, not by name
        assert list(file["checkpoints"])[:3] == ["row", "step", "path"]


def test_a_failed_save_leaves_the_old_report_and_no_litter(tmp_path):
    path = tmp_path / "report.h5"
    save(make_report(3), path)
    before = path.read_bytes()
    broken = replace(make_report(3), layers=pl.DataFrame({"group": [object()]}))
    with pytest.raises(CannotWrite, match=r"report\.h5"):
        save(broken, path)
    twice = make_report(3)
    twice = replace(twice, statistics=pl.concat([twice.statistics, twice.statistics]))
    with pytest.raises(CannotWrite, match="more than one row"):
        save(twice, path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report.h5"]


def test_places_that_cannot_be_written_are_named(tmp_path):
    report = make_report(3)
    for path in (tmp_path / "missing" / "report.h5", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(CannotWrite, match=str(path)[-20:]):
            save(report, path)
        with pytest.raises(CannotWrite, match=str(path)[-20:]):
            check_writable(path)
    check_writable(tmp_path / "report.h5")
    assert [p.name for p in tmp_path.iterdir()] == []


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from synthetic_report import make_report
from smd_analyze.errors import CannotWrite
from smd_analyze.storage.hdf5 import save
report = make_report(8)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
try:
    save(report, sys.argv[2])
except CannotWrite as problem:
    print(problem)
"""


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path):
    """In a process of its own: HDF5 is not sound any more in one whose disk was full."""
    pytest.importorskip("resource")
    call = [sys.executable, "-c", FULL_DISK, str(Path(__file__).parents[1]), str(tmp_path / "report.h5")]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert "report.h5" in done.stdout, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == []


def test_a_link_keeps_pointing_and_rights_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    (tmp_path / "link.h5").symlink_to(tmp_path / "real.h5")
    save(make_report(3), tmp_path / "link.h5")
    assert (tmp_path / "link.h5").is_symlink()
    assert load(tmp_path / "real.h5").layers.height == 3
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "real.h5")]
    assert modes[0] == modes[1]


def test_files_that_are_not_reports(tmp_path):
    with pytest.raises(NothingToAnalyse, match="no such file"):
        load(tmp_path / "missing.h5")
    (tmp_path / "text.h5").write_text("no report")
    with pytest.raises(UnknownFormat, match="no HDF5"):
        load(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.ones(3)
    with pytest.raises(UnknownFormat, match="not a report"):
        load(tmp_path / "other.h5")


def test_another_schema_and_a_damaged_report_are_told_apart(tmp_path):
    path = tmp_path / "report.h5"
    save(make_report(3), path)
    with h5py.File(path, "a") as file:
        del file["fits"]
    with pytest.raises(DamagedFile, match="damaged"):
        load(path)
    with h5py.File(path, "a") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(UnknownFormat, match="schema 99"):
        load(path)
    save(make_report(3), path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises((DamagedFile, UnknownFormat), match=r"report\.h5"):
        load(path)


def test_text_that_hdf5_cannot_hold_is_spelt_out(tmp_path):
    report = make_report(3)
    report = replace(report, verdict="a\0b", provenance={"path": "caf\udce9", "version": ""})
    save(report, tmp_path / "report.h5")
    loaded = load(tmp_path / "report.h5")
    assert loaded.verdict == "a\\0b"
    assert loaded.provenance == {"path": "caf\\udce9", "version": ""}
