import gc
import subprocess
import sys

import numpy as np
import pytest

from smd_analyze.errors import CannotWrite
from smd_analyze.storage.units import open_store


def test_parts_that_were_put_come_back_whole(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((3, 5, 10))
    with open_store(tmp_path / "report.h5") as store:
        for first in (6, 0, 3):
            stop = {6: 10, 0: 3, 3: 6}[first]
            store.put("weights", "blocks/0/conv", 10, first, whole[:, :, first:stop])
        store.put("buffer", "blocks/0/conv", 10, 0, whole[:2] + 1)
        np.testing.assert_array_equal(store.get("weights", "blocks/0/conv"), whole)
        np.testing.assert_array_equal(store.get("buffer", "blocks/0/conv"), whole[:2] + 1)
        assert store.get("weights", "blocks/0") is None


def test_what_was_not_put_is_nan():
    store = open_store(None)
    store.put("weights", "a", 4, 1, np.ones((1, 2, 2)))
    found = store.get("weights", "a")
    assert np.isnan(found[:, :, [0, 3]]).all()
    assert (found[:, :, 1:3] == 1).all()


def test_nothing_is_left_in_the_folder(tmp_path):
    store = open_store(tmp_path / "report.h5")
    store.put("weights", "a", 1, 0, np.ones((1, 1, 1)))
    store.close()
    store.close()
    other = open_store(tmp_path / "report.h5")
    del other
    gc.collect()
    assert [p.name for p in tmp_path.iterdir()] == []


def test_nothing_is_left_when_the_process_is_killed(tmp_path):
    code = (
        "import os, signal, numpy as np; from smd_analyze.storage.units import open_store;"
        f"s = open_store({str(tmp_path / 'r.h5')!r}); s.put('w', 'a', 9, 0, np.ones((3, 4, 9)));"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert [p.name for p in tmp_path.iterdir()] == []


def test_an_existing_report_is_left_alone(tmp_path):
    (tmp_path / "report.h5").write_text("old")
    with open_store(tmp_path / "report.h5") as store:
        store.put("weights", "a", 1, 0, np.ones((1, 1, 1)))
    assert (tmp_path / "report.h5").read_text() == "old"


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(CannotWrite, match="missing"):
        open_store(tmp_path / "missing" / "report.h5")


def test_groups_without_steps_or_units():
    store = open_store()
    store.put("weights", "a", 0, 0, np.ones((3, 2, 0)))
    assert store.get("weights", "a").shape == (3, 2, 0)


def test_a_full_disk_is_named(tmp_path):
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    store = open_store(tmp_path / "report.h5")

    def fill():
        for first in range(0, 100_000, 10_000):
            store.put("weights", "a", 100_000, first, np.ones((3, 10, 10_000)))

    resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, hard))
    try:
        with pytest.raises(CannotWrite, match=r"do not fit here .*TMPDIR"):
            fill()
        store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
