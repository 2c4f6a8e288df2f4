"""Keras' files: names, order, steps, settings, and what an HDF5 file must not do. Written with h5py, without Keras."""

import json
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from smd_analyze.errors import DamagedFile, NothingToAnalyse, UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files.sources import open_source
from smd_analyze.loading.formats.registry import open_document
from smd_analyze.loading.frameworks.keras_names import layout_of
from smd_analyze.rate_formulas import rate_after as rate_at

RNG = np.random.default_rng(0)
SHAPES = {
    "conv_b": {"kernel": (3, 3, 2, 4)},
    "norm_a": {"gamma": (4,), "beta": (4,), "moving_mean": (4,), "moving_variance": (4,)},
    "top": {"kernel": (4, 5), "bias": (5,)},
}
CLASSES = {"conv_b": "Conv2D", "norm_a": "BatchNormalization", "top": "Dense"}
GROUPS = {"conv_b": "conv2d", "norm_a": "batch_normalization", "top": "dense"}


def arrays() -> dict[str, dict[str, np.ndarray]]:
    return {
        layer: {n: RNG.standard_normal(s).astype(np.float32) for n, s in own.items()} for layer, own in SHAPES.items()
    }


def trained(model: dict[str, dict[str, np.ndarray]]) -> list[tuple[str, np.ndarray]]:
    return [(f"{k}/{n}", a) for k, own in model.items() for n, a in own.items() if not n.startswith("moving")]


def config(c: float = 0.0) -> dict[str, object]:
    layers = []
    for name, kind in CLASSES.items():
        own: dict[str, object] = {"name": name, "trainable": True}
        if c and kind == "Conv2D":
            own["kernel_regularizer"] = {"class_name": "L1L2", "config": {"l1": 0.0, "l2": c}}
        layers.append({"class_name": kind, "config": own})
    return {"class_name": "Functional", "config": {"name": "net", "layers": layers}}


def write_legacy(path: Path, step: int, optimizer: dict[str, object], c: float = 0.0) -> dict[str, np.ndarray]:
    model = arrays()
    with h5py.File(path, "w") as f:
        f.attrs["keras_version"] = "2.2.4"
        f.attrs["model_config"] = json.dumps(config(c))
        f.attrs["training_config"] = json.dumps({"optimizer_config": optimizer})
        weights = f.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([k.encode() for k in model])
        for layer, own in model.items():
            group = weights.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{layer}/{n}:0".encode() for n in own])
            for n, a in own.items():
                group.create_dataset(f"{layer}/{n}:0", data=a)
        names = ["Adam/iterations:0"]
        states = f.create_group("optimizer_weights")
        states.create_dataset(names[0], data=np.int64(step))
        for k in range(2):
            for i, (_, a) in enumerate(trained(model)):
                names.append(f"training/Adam/Variable_{k * 10 + i}:0")
                states.create_dataset(names[-1], data=a * a + k)
        states.attrs["weight_names"] = np.array([n.encode() for n in names])
    return {f"{k}/{n}": a for k, own in model.items() for n, a in own.items()}


def write_vars(path: Path, step: int, rate: float, chunked: bool = False) -> dict[str, np.ndarray]:
    model = arrays()
    with h5py.File(path, "w") as f:
        for layer, own in model.items():
            group = f.create_group(f"layers/{GROUPS[layer]}/vars")
            group.attrs["name"] = layer
            for i, a in enumerate(own.values()):
                group.create_dataset(str(i), data=a, compression="gzip" if chunked and a.ndim else None)
        group = f.create_group("optimizer/vars")
        group.attrs["name"] = "adam_w"
        group.create_dataset("0", data=np.int64(step))
        group.create_dataset("1", data=np.float32(rate))
        for i, (_, a) in enumerate(trained(model)):
            group.create_dataset(str(2 + 2 * i), data=-a)
            group.create_dataset(str(3 + 2 * i), data=a * a)
    return {f"{k}/{n}": a for k, own in model.items() for n, a in own.items()}


ADAM = {"class_name": "Adam", "config": {"lr": 0.0010000000474974513, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}}


def test_legacy_file(tmp_path: Path) -> None:
    true = {step: write_legacy(tmp_path / f"m.{e:03d}.h5", step, ADAM, 1e-4) for e, step in ((1, 313), (10, 3130))}
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [313, 3130]
    assert run.step_unit == "optimizer steps"
    last = run.checkpoints[-1]
    assert list(last.parameters) == ["conv_b/kernel", "norm_a/gamma", "norm_a/beta", "top/kernel", "top/bias"]
    assert set(last.buffers) == {"norm_a/moving_mean", "norm_a/moving_variance"}
    for name, tensor in {**last.parameters, **last.buffers}.items():
        np.testing.assert_array_equal(tensor.read(), true[3130][name])
        extent = tensor.extent
        assert extent is not None
        raw = np.fromfile(extent.path, np.float32, extent.nbytes // 4, offset=extent.offset)
        np.testing.assert_array_equal(raw, true[3130][name].ravel())
    assert (last.parameters["conv_b/kernel"].layout, last.parameters["top/kernel"].layout) == ("HWIO", "IO")
    state = last.optimizer_state["top/kernel"]
    np.testing.assert_array_equal(state["exp_avg_sq"].read(), true[3130]["top/kernel"] ** 2 + 1)
    assert state["step"].read() == 3130
    found = {(s.name, s.parameter_group): s.value if s.value is not None else s.text for s in last.settings}
    assert found["learning_rate", ""] == 0.001
    assert found["optimizer", ""] == "Adam"
    assert found["weight_decay", "l2(0.0001)"] == pytest.approx(2e-4)
    assert found["decoupled_weight_decay", "l2(0.0001)"] == 0
    assert found["weight_decay", "no regularizer"] == 0
    assert run.parameter_groups["l2(0.0001)"] == ("conv_b/kernel",)


@pytest.mark.parametrize("chunked", [False, True])
def test_numbered_variables(tmp_path: Path, chunked: bool) -> None:
    true = [write_vars(tmp_path / f"ckpt-{i}.weights.h5", 10 * i, 0.1 / i, chunked) for i in (1, 2)][-1]
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert last.step == 20
    assert list(last.parameters)[:2] == ["conv_b/kernel", "norm_a/gamma"]  # from the states' shapes: the order is known
    for name, tensor in {**last.parameters, **last.buffers}.items():
        np.testing.assert_array_equal(tensor.read(), true[name])
        assert (tensor.extent is None) == chunked
    np.testing.assert_array_equal(last.optimizer_state["top/bias"]["exp_avg"].read(), -true["top/bias"])
    rate = next(s for s in last.settings if s.name == "learning_rate")
    assert (rate.value, rate.kind) == (0.05, "in force")


def test_archive_is_read_in_place(tmp_path: Path) -> None:
    schedule = {"class_name": "CosineDecay", "config": {"initial_learning_rate": 0.05, "decay_steps": 40, "alpha": 0.0}}
    told = {"class_name": "SGD", "config": {"learning_rate": schedule, "momentum": 0.9, "weight_decay": 1e-4}}
    for step in (5, 10):
        path = tmp_path / "model.weights.h5"
        true = write_vars(path, step, 0.1)
        with h5py.File(path, "a") as f:
            del f["optimizer/vars/1"]  # a schedule leaves no learning rate
        with zipfile.ZipFile(tmp_path / f"model_{step}.keras", "w") as z:
            z.writestr("metadata.json", '{"keras_version": "3.15.1"}', zipfile.ZIP_DEFLATED)
            z.writestr("config.json", json.dumps(config() | {"compile_config": {"optimizer": told}}))
            z.write(path, "model.weights.h5")
        path.unlink()
    run = load_run(tmp_path)
    last = run.checkpoints[-1]
    assert (last.step, last.format) == (10, "Keras archive")
    kernel = last.parameters["conv_b/kernel"]
    assert kernel.extent is not None
    assert kernel.extent.path.endswith("model_10.keras")
    np.testing.assert_array_equal(kernel.read(), true["conv_b/kernel"])
    found = {(s.name, s.applies): s.value for s in last.settings}
    assert found["learning_rate", "next update"] == pytest.approx(0.04267767, rel=1e-6)
    assert found["learning_rate", "last update"] == pytest.approx(0.025 * (1 + np.cos(np.pi * 9 / 40)), rel=1e-6)
    assert found["weight_decay", "last update"] == 1e-4
    assert found["decoupled_weight_decay", "whole run"] == 1.0


def test_rates_of_schedules() -> None:
    assert rate_at("PiecewiseConstantDecay", {"boundaries": [10, 20], "values": [1.0, 0.5, 0.1]}, 10) == 1.0
    assert rate_at("PiecewiseConstantDecay", {"boundaries": [10, 20], "values": [1.0, 0.5, 0.1]}, 21) == 0.1
    steps = {"initial_learning_rate": 1.0, "decay_steps": 10, "decay_rate": 0.5}
    assert rate_at("ExponentialDecay", steps | {"staircase": True}, 25) == 0.25
    assert rate_at("InverseTimeDecay", steps, 20) == 0.5
    assert rate_at("PolynomialDecay", steps | {"end_learning_rate": 0.2, "power": 1.0}, 5) == pytest.approx(0.6)
    assert rate_at("MySchedule", steps, 5) is None
    assert rate_at("CosineDecay", {}, 5) is None


@pytest.mark.parametrize(
    ("name", "axes", "kind", "layout"),
    [
        ("conv2d_3/kernel", 4, "", "HWIO"),
        ("conv2d_transpose/kernel", 4, "", "HWOI"),
        ("up/kernel", 4, "Conv2DTranspose", "HWOI"),
        ("depthwise_conv2d_1/depthwise_kernel", 4, "", "HWOO"),
        ("attention/query/kernel", 3, "", "IOO"),
        ("attention/query/bias", 2, "", "OO"),
        ("attention/attention_output/kernel", 3, "", "IIO"),
        ("embedding/embeddings", 2, "", None),
        ("dense/kernel", 2, "", "IO"),
        ("dense/bias", 1, "", None),
    ],
)
def test_layouts(name: str, axes: int, kind: str, layout: str | None) -> None:
    assert layout_of(name, axes, kind) == layout


def opened(path: Path) -> None:
    with open_source(str(path)) as source:
        open_document(source)


def test_what_leaves_the_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"0" * 64)
    path = tmp_path / "a.h5"
    for kind in ("external link", "soft link", "other file", "virtual", "claims"):
        with h5py.File(path, "w") as f:
            group = f.create_group("layers/dense/vars")
            if kind == "external link":
                group["0"] = h5py.ExternalLink("secret", "/x")
            elif kind == "soft link":
                group["0"] = h5py.SoftLink("/elsewhere")
            elif kind == "other file":
                group.create_dataset("0", (4,), "f4", external=[(str(tmp_path / "secret"), 0, 16)])
            elif kind == "virtual":
                layout = h5py.VirtualLayout((4,), "f4")
                layout[:] = h5py.VirtualSource(str(tmp_path / "secret"), "x", (4,))
                group.create_virtual_dataset("0", layout)
            else:
                group.create_dataset("0", (1 << 20, 1 << 20), "f4", chunks=(1 << 10, 1 << 10))
        with pytest.raises(UnsafeFile, match="layers/dense/vars/0"):
            opened(path)


def test_truncated_and_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "a.weights.h5"
    write_vars(path, 1, 0.1)
    data = path.read_bytes()
    for length in (20, 600, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedFile, match=r"a\.weights\.h5"):
            opened(path)
    path.unlink()
    with h5py.File(tmp_path / "table.h5", "w") as f:
        f["x"] = np.ones(3)
    with pytest.raises(NothingToAnalyse, match="neither Keras nor Caffe wrote"):
        load_run(tmp_path)


def test_parts_of_a_cut_checkpoint_are_not_taken_for_checkpoints(tmp_path: Path) -> None:
    for part in (0, 1):
        write_vars(tmp_path / f"ckpt_{part:05d}.weights.h5", 1, 0.1)
    (tmp_path / "ckpt.weights.json").write_text("{}")
    with pytest.raises(NothingToAnalyse, match="one part of a cut checkpoint"):
        load_run(tmp_path)
