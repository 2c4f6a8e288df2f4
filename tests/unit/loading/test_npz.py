"""NumPy archives, folders of arrays, and what MLX and Chainer make of them."""

import io
import zipfile
from typing import Any

import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, UnsafeFile
from smd_analyze.loading.discovery import load_run


def weights(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {"fc.weight": rng.normal(size=(3, 4)).astype("f4"), "fc.bias": rng.normal(size=3).astype("f4")}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_and_step(tmp_path, save):
    for step in (5, 10):
        save(tmp_path / f"w{step}.npz", **weights(step), __step__=np.array(step * 7))
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [35, 70]
    for c in run.checkpoints:
        for name, array in weights(c.step // 7).items():
            np.testing.assert_array_equal(c.parameters[name].read(), array)
            assert (c.parameters[name].extent is not None) == (save is np.savez)
    assert run.checkpoints[0].parameters["fc.weight"].layout == "OI"


def test_odd_arrays(tmp_path):
    kept = {
        "a.weight": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "b.weight": np.arange(6.0).reshape(2, 3).astype(">f4"),
    }
    half = np.array([[1.5, -2.0]], "f4").view("u4") >> 16
    arrays: dict[str, Any] = {**kept, "c.weight": half.astype("u2").view("V2"), "text": np.array(["a"])}
    np.savez(tmp_path / "w.npz", **arrays)
    found = load_run(tmp_path / "w.npz").checkpoints[0].parameters
    assert set(found) == {"a.weight", "b.weight", "c.weight"}
    for name, array in kept.items():
        np.testing.assert_array_equal(found[name].read(), array)
        assert found[name].extent is None
    assert found["c.weight"].dtype == "bfloat16"
    assert found["c.weight"].read().tolist() == [[0x3FC0, 0xC000]]


def test_objects_are_refused_and_not_unpickled(tmp_path):
    class Boom:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    np.savez(tmp_path / "w.npz", params=np.array([Boom()], object))
    with pytest.raises(UnsafeFile, match="refused"):
        load_run(tmp_path / "w.npz")
    assert not (tmp_path / "ran").exists()


def member(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000000,)}",
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        b"__import__('os')",
        b"(" * 5000,
    ],
)
def test_lying_headers(tmp_path, header, compression):
    with zipfile.ZipFile(tmp_path / "w.npz", "w", compression) as archive:
        archive.writestr("a.weight.npy", member(header, bytes(64)))
    with pytest.raises(DamagedFile):
        load_run(tmp_path / "w.npz")


def test_compressed_array_that_ends_early(tmp_path):
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (100,)}"
    with zipfile.ZipFile(tmp_path / "w.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.weight.npy", member(header, bytes(64)))
    tensor = load_run(tmp_path / "w.npz").checkpoints[0].parameters["a.weight"]
    with pytest.raises(DamagedFile):
        tensor.read()


def test_folders_of_arrays(tmp_path):
    for step in (5, 10):
        (tmp_path / f"step_{step}").mkdir()
        for name, array in weights(step).items():
            np.save(tmp_path / f"step_{step}" / f"{name}.npy", array)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [5, 10]
    np.testing.assert_array_equal(run.checkpoints[1].parameters["fc.weight"].read(), weights(10)["fc.weight"])
    extent = run.checkpoints[1].parameters["fc.weight"].extent
    assert extent is not None
    assert extent.path.endswith("step_10/fc.weight.npy")


def test_folder_of_objects_is_left_out(tmp_path):
    for step in (1, 2):
        (tmp_path / f"step_{step}").mkdir()
        np.save(tmp_path / f"step_{step}" / "a.weight.npy", np.eye(2) if step == 2 else np.array([{}], object))
    run = load_run(tmp_path)
    assert len(run.checkpoints) == 1
    assert "unsafe-file" in {f.code for f in run.findings}


def test_mlx_axes(tmp_path):
    kernel = np.arange(3 * 2 * 2 * 5, dtype="f4").reshape(3, 2, 2, 5)
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        for name, array in {"conv.weight": kernel, "fc.weight": np.eye(4, dtype="f4")}.items():
            header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {array.shape}, }}".encode()
            header += b" " * ((len(header) + 10) % 16 == 0)  # MLX does not pad
            archive.writestr(f"{name}.npy", member(header, array.tobytes()))
    found = load_run(tmp_path / "w.npz").checkpoints[0]
    assert (found.framework, found.parameters["conv.weight"].layout) == ("mlx", "OHWI")
    np.testing.assert_array_equal(found.parameters["conv.weight"].read(), kernel)


def test_chainer_snapshot(tmp_path):
    for step in (7, 14):
        data = io.BytesIO()
        np.savez_compressed(
            data,
            **{
                "updater/model:main/l1/W": np.eye(3, 4, dtype="f4") * step,
                "updater/model:main/l1/b": np.zeros(3, "f4"),
                "updater/model:main/bn/avg_mean": np.zeros(3, "f4"),
                "updater/optimizer:main/l1/W/v": np.ones((3, 4), "f4"),
                "updater/optimizer:main/l1/W/t": np.array(step),
                "updater/iteration": np.array(step),
                "trigger/names": np.array([None], object),
            },
        )
        (tmp_path / f"snapshot_iter_{step}").write_bytes(data.getvalue())
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert [c.step for c in run.checkpoints] == [7, 14]
    assert last.framework == "chainer"
    assert (list(last.parameters), list(last.buffers)) == (["l1.W", "l1.b"], ["bn.avg_mean"])
    assert last.parameters["l1.W"].layout == "OI"
    assert "momentum_buffer" in last.optimizer_state["l1.W"]
