"""Open files, their limit, and threads that work ahead."""

import resource
import threading
from pathlib import Path

import pytest

from smd_analyze.statistics import reading
from smd_analyze.statistics.parallel import in_order


def test_the_limit_of_open_files_is_raised_for_the_pass_and_put_back(tmp_path):
    paths = [tmp_path / str(number) for number in range(40)]
    for path in paths:
        path.write_bytes(b"0123456789")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = len(list(Path("/proc/self/fd").iterdir())) + 20
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (low, before[1]))
        with reading.opened({str(path): None for path in paths}) as files:
            assert all(descriptor is not None for descriptor in files.descriptors)
            buffer = memoryview(bytearray(4))
            assert all(files.read(number, 3, buffer) for number in range(40))
            assert bytes(buffer) == b"3456"
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == low
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_reading_beyond_the_end_is_told_once(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(b"0123456789")
    with reading.opened({str(path): None}) as files:
        assert not files.read(0, 8, memoryview(bytearray(4)))
        assert not files.read(0, 0, memoryview(bytearray(4)))
        assert files.problems[0].code == "truncated-file"
        assert "byte 10" in files.problems[0].message


def test_a_folder_in_place_of_a_file_is_a_finding(tmp_path):
    with reading.opened({str(tmp_path): None}) as files:
        assert not files.read(0, 0, memoryview(bytearray(4)))
        assert files.problems[0].code == "unreadable-file"


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_order(workers):
    assert list(in_order(lambda x: x * x, range(50), workers)) == [x * x for x in range(50)]


def test_no_more_than_a_few_results_wait():
    made, lock = [], threading.Lock()

    def work(x):
        with lock:
            made.append(x)
        return x

    for x in in_order(work, range(100), 2):
        assert len(made) <= x + 2 * 2 + 2


def test_an_error_of_a_worker_reaches_the_caller():
    def work(x):
        raise ZeroDivisionError(x)

    with pytest.raises(ZeroDivisionError):
        list(in_order(work, range(10), 2))
