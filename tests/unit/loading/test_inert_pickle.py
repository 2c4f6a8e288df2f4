"""The pickle reader runs nothing, bounds everything, and reads what pickle writes."""

import collections
import io
import os
import pickle
import pickletools
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.pickles import inert_pickle
from smd_analyze.loading.pickles.inert_pickle import read_pickle
from smd_analyze.loading.tensors.inert_objects import Inert, Span


def load(data: bytes) -> object:
    return read_pickle(lambda a, b: data[a:b], 0, len(data), what="file")[0]


leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(max_size=200)
trees = st.recursive(
    leaves,
    lambda t: st.lists(t, max_size=6) | st.tuples(t, t) | st.dictionaries(st.text() | st.integers(), t, max_size=6),
    max_leaves=12,
)


@given(tree=trees, protocol=st.integers(0, 5))
@settings(max_examples=80, deadline=None)
def test_plain_data_come_back_as_they_were(tree: object, protocol: int) -> None:
    assert load(pickle.dumps(tree, protocol)) == tree


@given(data=st.binary(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_bytes_end_in_data_or_a_named_error(data: bytes) -> None:
    words = "file"
    try:
        load(b"\x80\x02" + data)
    except (DamagedFile, UnsafeFile) as error:
        words = str(error)
    assert "file" in words


def test_arrays_inside_a_pickle_are_stepped_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "WINDOW", 1 << 17)
    data = pickle.dumps([b"a" * 5_000_000, 1, b"b" * 1000, "end"], 4)
    asked: list[int] = []

    def read(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return data[start:stop]

    value, after = read_pickle(read, 0, len(data), what="file")
    assert isinstance(value, list)
    assert isinstance(value[0], Span)
    assert data[value[0].start : value[0].stop] == b"a" * 5_000_000
    assert data[value[2].start : value[2].stop] == b"b" * 1000
    assert (value[1], value[3], after) == (1, "end", len(data))
    assert sum(asked) < 1_000_000


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_call_is_remembered_and_never_made(tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "made"
    value = load(pickle.dumps({"w": 1, "x": Payload(str(target))}, protocol))
    assert isinstance(value, dict)
    assert isinstance(value["x"], Inert)
    assert value["x"].name.endswith(" mkdir")
    assert value["x"].args == (str(target),)
    assert not target.exists()


@pytest.mark.parametrize(
    "code",
    [
        b"(S'/tmp/x'\nios\nmkdir\n.",  # INST
        b"(cos\nmkdir\nS'/tmp/x'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93\x8c\x06/tmp/x\x85R.",  # STACK_GLOBAL, REDUCE
        b"\x80\x02\x82\x01.",  # EXT1
        b"cbuiltins\neval\n(S'1'\ntR}b.",  # BUILD on the result
    ],
)
def test_every_way_to_call_stays_inert(code: bytes) -> None:
    pickletools.dis(code, out=io.StringIO())  # it is a pickle that a loader would run
    assert isinstance(load(code), (Inert, str))


def test_names_that_mean_plain_data_are_read_as_it() -> None:
    made = {"o": collections.OrderedDict([("k", 1)]), "s": {1, 2}, "d": collections.defaultdict(list, {"a": [1]})}
    assert load(pickle.dumps(made, 2)) == {"o": {"k": 1}, "s": {1, 2}, "d": {"a": [1]}}


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", DamagedFile),  # bytes that are not there
        (b"\x80\x02X" + struct.pack("<I", 2**31) + b"a.", DamagedFile),
        (b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x01" * 100_000 + b".", UnsafeFile),  # a long integer
        (b"I" + b"9" * 5000 + b"\n.", UnsafeFile),
        (b"\x80\x05\x97.", UnsafeFile),  # out-of-band buffer
        (b"\x80\x02h\x07.", DamagedFile),  # memo that was never put
        (b"\x80\x02\x85.", DamagedFile),  # tuple of an empty stack
        (b"\x80\x02}(K\x01u.", DamagedFile),  # odd number of items
        (b"\x80\x02\xff.", DamagedFile),  # no such operation
        (b"\x80\x07N.", DamagedFile),
        (b"\x80\x02]q\x00", DamagedFile),  # no STOP
        (b"", DamagedFile),
        (b"0" + b"N" * 100 + b".", DamagedFile),
    ],
)
def test_what_cannot_be_or_asks_too_much_is_refused(code: bytes, error: type[Exception]) -> None:
    with pytest.raises(error, match="file"):
        load(code)


def test_a_huge_memo_index_costs_nothing() -> None:
    assert load(b"\x80\x02Nr\xff\xff\xff\xff.") is None


def test_operations_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MOST_OPERATIONS", 1000)
    with pytest.raises(UnsafeFile, match="more than 1000 operations"):
        load(b"\x80\x02" + b"]" * 5000 + b".")


def test_a_deeply_nested_key_is_not_hashed() -> None:
    nested = b"\x80\x02}N" + b"\x85" * 100_000 + b"K\x01s."
    value = load(nested)
    assert isinstance(value, dict)
    assert len(value) == 1
