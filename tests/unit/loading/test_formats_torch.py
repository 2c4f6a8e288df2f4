"""torch.save files, new and old: where elements lie, and what hostile or damaged ones end in."""

import os
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from smd_analyze.errors import DamagedFile, SmdError, UnknownFormat, UnsafeFile
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.tensors.places import Place, lazy_tensor
from smd_analyze.loading.tensors.trees import tensors


def opened(path: Path, previous: Document | None = None) -> Document:
    with open_source(str(path)) as source:
        return open_document(source, {previous.format: previous} if previous else None)


def read(path: Path) -> dict[str, np.ndarray]:
    document = opened(path)
    return {n: lazy_tensor(p, document.files).read() for n, p in tensors(document.tree).items()}


@pytest.mark.parametrize("new", [True, False])
def test_views_scalars_and_empty_tensors(tmp_path: Path, new: bool) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    made = {
        "transposed": base.t(),
        "slice": base[1:3, ::2],
        "row": base[2],
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "one axis of one": torch.ones(1, 5).t(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "complex": torch.tensor([1 + 2j]),
        "bool": torch.tensor([True, False]),
    }
    torch.save(made, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    found = read(tmp_path / "a.pt")
    for name, tensor in made.items():
        np.testing.assert_array_equal(found[name], tensor.detach().numpy(), err_msg=name)
        assert found[name].flags.owndata or found[name].base is not None
        assert found[name].flags.writeable


def test_files_of_one_layout_share_one_tree(tmp_path: Path) -> None:
    for step in (1, 2):
        torch.save({"w": torch.full((3, 3), float(step))}, tmp_path / f"step_{step}.pt")
    torch.save({"w": torch.full((3, 4), 1.0)}, tmp_path / "step_3.pt")
    first = opened(tmp_path / "step_1.pt")
    second = opened(tmp_path / "step_2.pt", first)
    third = opened(tmp_path / "step_3.pt", second)
    assert second.tree is first.tree
    assert third.tree is not first.tree
    assert lazy_tensor(second.tree["w"], second.files).read()[0, 0] == 2.0


def test_numpy_scalars_and_arrays_inside_a_torch_file(tmp_path: Path) -> None:
    made = {
        "loss": np.float64(0.25),
        "n": np.int32(7),
        "a": np.arange(6.0).reshape(2, 3),
        "big": np.arange(3, dtype=">f4"),
    }
    torch.save(made, tmp_path / "a.pt")
    document = opened(tmp_path / "a.pt")
    assert document.tree["loss"] == 0.25
    assert document.tree["n"] == 7
    found = read(tmp_path / "a.pt")
    np.testing.assert_array_equal(found["a"], made["a"])
    np.testing.assert_array_equal(found["big"], made["big"])


def repack(source: Path, target: Path, change: dict[str, bytes], compress: str = "") -> None:
    """The same archive with other contents for some members, one of them compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            short = info.filename.partition("/")[2]
            method = zipfile.ZIP_DEFLATED if short == compress else zipfile.ZIP_STORED
            new.writestr(info.filename, change.get(short, old.read(info)), method)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    torch.save({"w": torch.arange(64.0)}, tmp_path / "good.pt")
    return tmp_path / "good.pt"


def test_compressed_tensors_are_refused(good: Path, tmp_path: Path) -> None:
    repack(good, tmp_path / "bomb.pt", {}, compress="data/0")
    with pytest.raises(UnsafeFile, match="compressed"):
        opened(tmp_path / "bomb.pt")


def test_two_members_of_one_name_are_refused(good: Path) -> None:
    with zipfile.ZipFile(good, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("good/data.pkl", pickle.dumps({}, 2))
    with pytest.raises(UnsafeFile, match="two members"):
        opened(good)


def test_a_storage_shorter_than_its_tensor_is_damage(good: Path, tmp_path: Path) -> None:
    repack(good, tmp_path / "short.pt", {"data/0": b"\0" * 100})
    with pytest.raises(DamagedFile, match="leaves its storage"):
        opened(tmp_path / "short.pt")


def test_a_missing_storage_is_damage(good: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(tmp_path / "m.pt", "w") as new:
        for info in old.infolist():
            if not info.filename.endswith("data/0"):
                new.writestr(info.filename, old.read(info))
    with pytest.raises(DamagedFile, match="storage 0 is missing"):
        opened(tmp_path / "m.pt")


@pytest.mark.parametrize("new", [True, False])
def test_every_truncation_is_noticed(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(64.0), "v": torch.ones(3)}, path, _use_new_zipfile_serialization=new)
    data = path.read_bytes()
    for length in [*range(0, len(data) - 1, 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises((DamagedFile, UnknownFormat), match=r"a\.pt"):
            opened(path)


@pytest.mark.parametrize("new", [True, False])
def test_any_flipped_byte_ends_in_data_or_a_named_error(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save({"w": torch.arange(8.0), "n": 3}, path, _use_new_zipfile_serialization=new)
    data = bytearray(path.read_bytes())
    for position in range(0, len(data), 11):
        broken = bytes(data[:position]) + bytes([data[position] ^ 0xFF]) + bytes(data[position + 1 :])
        path.write_bytes(broken)
        words = "a.pt"
        try:
            document = opened(path)
            for place in tensors(document.tree).values():
                lazy_tensor(place, document.files).read()
        except SmdError as error:
            words = str(error)
        assert "a.pt" in words


class Payload:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("new", [True, False])
def test_a_payload_beside_weights_is_not_run(tmp_path: Path, new: bool) -> None:
    made = {"state_dict": {"w": torch.ones(2, 2)}, "args": Payload(str(tmp_path / "made"))}
    torch.save(made, tmp_path / "a.pt", _use_new_zipfile_serialization=new)
    assert set(read(tmp_path / "a.pt")) == {"state_dict.w"}
    assert not (tmp_path / "made").exists()


def test_an_expanded_tensor_cannot_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1).expand(1 << 40)}, tmp_path / "a.pt")
    with pytest.raises(DamagedFile, match="unfold"):
        opened(tmp_path / "a.pt")


def test_shared_lists_do_not_unfold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smd_analyze.loading.tensors.trees.MOST_NODES", 10_000)
    tree: list[object] = ["x"]
    for _ in range(40):
        tree = [tree, tree]
    (tmp_path / "laughs.pkl").write_bytes(pickle.dumps({"w": tree}, 2))
    assert tensors(opened(tmp_path / "laughs.pkl").tree) == {}
    array: list[object] = [np.ones(3)]
    for _ in range(40):
        array = [array, array]
    (tmp_path / "more.pkl").write_bytes(pickle.dumps(array, 2))
    with pytest.raises(UnsafeFile, match="unfolds"):
        tensors(opened(tmp_path / "more.pkl").tree)


def test_places_know_no_path(good: Path) -> None:
    place = opened(good).tree["w"]
    assert isinstance(place, Place)
    assert good.read_bytes()[place.start : place.start + place.nbytes] == np.arange(64, dtype="<f4").tobytes()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "web page"),
        (b"GGUF" + b"\0" * 50, "GGUF"),
        (b"hello\n", "text"),
        (bytes(range(7, 200)), "no format that is read"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UnknownFormat, match=words):
        opened(tmp_path / "a.pth")
