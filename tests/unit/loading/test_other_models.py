"""Models, optimizers and trainers' options that are less usual: what is which, and along which axis."""

from pathlib import Path

import numpy as np
import pytest
import torch

from smd_analyze.errors import UnsafeFile
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.formats import hdf5
from smd_analyze.loading.frameworks.keras_states import saved_optimizer
from smd_analyze.loading.frameworks.paddle import once
from smd_analyze.loading.frameworks.tensorflow import without_exports
from smd_analyze.loading.roles.names import with_layouts
from smd_analyze.loading.sidecars import csv_log, yaml_settings
from smd_analyze.loading.tensors.inert_objects import Inert
from smd_analyze.loading.tensors.places import Place
from smd_analyze.loading.tensors.trees import tensors, with_places
from smd_analyze.records.run import Run


def place(*shape: int, start: int = 0) -> Place:
    return Place(shape, "float32", start)


def saved(path: Path, **entries: object) -> Run:
    torch.save(entries, path / "step_10.pt")
    return load_run(path / "step_10.pt")


def trained(model: torch.nn.Module, optimizer: torch.optim.Optimizer, shape: tuple[int, ...]) -> None:
    model(torch.randn(shape)).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("kernel", "beside", "layout"),
    [
        ("up.weight", {"up.weight": (12, 6, 2, 2), "up.bias": (6,)}, "IOHW"),
        ("up.weight", {"up.weight": (12, 6, 2, 2), "up.bias": (12,)}, "OIHW"),
        ("up.weight", {"up.weight": (12, 3, 2, 2), "up.bias": (6,)}, "IOHW"),  # two groups
        ("net.0.weight", {"net.0.weight": (100, 64, 4, 4), "net.1.weight": (64,)}, "IOHW"),  # DCGAN
        ("net.0.weight", {"net.0.weight": (64, 3, 4, 4), "net.1.weight": (64,)}, "OIHW"),
        ("net.0.weight", {"net.0.weight": (8, 4, 3, 3), "net.1.weight": (1,)}, "OIHW"),  # PReLU's one slope
        ("deconv1.weight", {"deconv1.weight": (8, 8, 4, 4)}, "IOHW"),
        ("rnn.weight_hh_l0_reverse", {"rnn.weight_hh_l0_reverse": (64, 16)}, "OI"),
        ("fc.parametrizations.weight.original1", {"fc.parametrizations.weight.original1": (10, 7)}, "OI"),
    ],
)
def test_axes_of_torch_kernels(kernel: str, beside: dict[str, tuple[int, ...]], layout: str) -> None:
    assert with_layouts({n: place(*s) for n, s in beside.items()})[kernel].layout == layout


def test_torchscript_names_transposed_convolutions() -> None:
    module = Inert("__torch__.torch.nn.modules.conv.___torch_mangle_3.ConvTranspose2d", ())
    module.state = {"training": False, "weight": place(6, 2, 3, 3)}
    assert tensors({"upg": module})["upg.weight"].layout == "IOHW"


def test_an_average_keeps_no_buffers(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    model.register_buffer("pixel_mean", torch.ones(3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    trained(model, optimizer, (4, 3))
    run = saved(tmp_path, model=model.state_dict(), ema=model.state_dict(), optimizer=optimizer.state_dict())
    assert run.checkpoints[0].variants["ema"].keys() == {"weight", "bias"} == run.checkpoints[0].parameters.keys()


def test_adafactor_of_torch_is_matched_by_its_rows_and_columns(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.LayerNorm(5), torch.nn.Linear(5, 5))
    split = [[p for p in model.parameters() if (p.ndim > 1) is wide] for wide in (True, False)]
    optimizer = torch.optim.Adafactor([{"params": p} for p in split], 0.01)
    trained(model, optimizer, (4, 3))
    run = saved(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
    assert run.parameter_groups == {"0": ("0.weight", "2.weight"), "1": ("0.bias", "1.weight", "1.bias", "2.bias")}
    assert run.checkpoints[0].optimizer_state["0.weight"]["row_var"].shape == (5, 1)


def test_two_models_whose_optimizers_have_short_names(tmp_path: Path) -> None:
    nets = {"G": torch.nn.Linear(3, 2), "D": torch.nn.Linear(3, 2)}
    own = {n: torch.optim.Adam(m.parameters(), 0.1 if n == "G" else 0.2) for n, m in nets.items()}
    for name, model in nets.items():
        trained(model, own[name], (4, 3))
    states = {f"opt{n}": o.state_dict() for n, o in own.items()}
    run = saved(tmp_path, **{n: m.state_dict() for n, m in nets.items()}, **dict(reversed(states.items())))
    checkpoint = run.checkpoints[0]
    assert [s.value for s in checkpoint.settings if s.name == "learning_rate"] == [0.1]
    assert torch.equal(
        checkpoint.optimizer_state["weight"]["exp_avg"].load(), own["G"].state[nets["G"].weight]["exp_avg"]
    )


def test_spectral_norms_vectors_and_frozen_layers_are_not_trained(tmp_path: Path) -> None:
    model = torch.nn.Sequential(
        torch.nn.Linear(3, 4), torch.nn.utils.parametrizations.spectral_norm(torch.nn.Linear(4, 2))
    )
    model[0].weight.requires_grad_(False)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 0.1)
    trained(model, optimizer, (4, 3))
    checkpoint = saved(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict()).checkpoints[0]
    assert checkpoint.parameters.keys() == {"0.bias", "1.bias", "1.parametrizations.weight.original"}
    assert checkpoint.optimizer_state.keys() == checkpoint.parameters.keys()


def test_groups_of_layers_and_a_group_per_parameter(tmp_path: Path) -> None:
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(12)))
    layers = [
        {"params": [getattr(m, k) for m in model[i : i + 2]], "weight_decay": 0.05 * (k == "weight")}
        for i in range(0, 12, 2)
        for k in ("bias", "weight")
    ]
    optimizer = torch.optim.AdamW(layers)
    trained(model, optimizer, (4, 4))
    run = saved(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
    assert run.parameter_groups["0"] == ("0.bias", "1.bias")
    assert run.parameter_groups["11"] == ("10.weight", "11.weight")
    model.register_buffer("shift", torch.ones(7))
    single = torch.optim.AdamW([{"params": [p]} for p in model.parameters()])
    trained(model, single, (4, 4))
    checkpoint = saved(tmp_path, model=model.state_dict(), optimizer=single.state_dict()).checkpoints[0]
    assert "shift" in checkpoint.buffers
    assert checkpoint.optimizer_state["11.bias"]["exp_avg"].shape == (4,)


def test_a_rate_beside_the_arrays_of_an_npz(tmp_path: Path) -> None:
    np.savez(tmp_path / "step_10.npz", w=np.ones((2, 2)), lr=0.05, step=10)
    checkpoint = load_run(tmp_path / "step_10.npz").checkpoints[0]
    assert checkpoint.parameters.keys() == {"w"}
    assert [s.value for s in checkpoint.settings if s.name == "learning_rate"] == [0.05]


def test_npy_files_in_the_folders_of_a_save(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"iter{step}" / "enc").mkdir(parents=True)
        np.save(tmp_path / f"iter{step}" / "out.npy", np.full((2, 2), step))
        np.save(tmp_path / f"iter{step}" / "enc" / "w.npy", np.full((3, 2), float(step)))
    (tmp_path / "iter3" / "step_1").mkdir(parents=True)  # saves of its own, not parts
    np.save(tmp_path / "iter3" / "step_1" / "w.npy", np.ones((3, 2)))
    found = {c.path.removeprefix(f"{tmp_path}/"): c for c in load_run(tmp_path).checkpoints}
    assert found["iter2"].parameters["enc/w"].read().tolist() == [[2.0, 2.0]] * 3
    assert "iter3" not in found


def test_exported_models_hold_every_variable_once() -> None:
    found = {"_all_variables/0": place(2, 3), "variables/0": place(2, 3, start=9), "variables/1": place(4)}
    names = {"_all_variables/0": "fc/kernel", "variables/0": "fc/kernel", "variables/1": "other"}
    assert without_exports(found, names).keys() == {"_all_variables/0", "variables/1"}


def test_a_loss_scale_that_compile_added() -> None:
    group = "optimizer/inner_optimizer/vars"
    tree = {"datasets": {f"{group}/0": Place((), "int64", 0), "optimizer/vars/0": place()}, "texts": {}}
    made = saved_optimizer(tree, {"class_name": "AdamW", "config": {"weight_decay": 0.02}})
    assert (made.kind, made.config["weight_decay"]) == ("AdamW", 0.02)


def test_paddles_recurrent_weights_stand_under_two_names() -> None:
    found = {"rnn.weight_ih_l0": place(20, 6), "rnn.0.cell.weight_ih": place(20, 6, start=9)}
    assert once(found, dict.fromkeys(found, "lstm_cell_0.w_0")) == {"rnn.0.cell.weight_ih": "rnn.weight_ih_l0"}


def test_what_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    node: object = ()
    for _ in range(100_000):
        node = (node,)
    with pytest.raises(UnsafeFile, match="nested"):
        with_places(node, lambda found: found)
    (tmp_path / "config.yaml").write_text("a: " + "[" * 1000)
    with pytest.raises(Exception, match="brackets within each other"):
        yaml_settings.read(str(tmp_path / "config.yaml"))
    (tmp_path / "metrics.csv").write_text("x" * 200_000 + "\n1\n")
    assert csv_log.read(str(tmp_path / "metrics.csv")) == csv_log.Sidecar()


def test_keras_writes_bfloat16_as_opaque_bytes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "step_1.weights.h5", "w") as file:
        kept = file.create_dataset("layers/dense/vars/0", data=np.array([0x3F80, 0xC000], "<u2").view("V2"))
        kept.attrs["dtype"] = "bfloat16"
    checkpoint = load_run(tmp_path / "step_1.weights.h5").checkpoints[0]
    assert hdf5.FORMAT.name == checkpoint.format
    assert next(iter(checkpoint.parameters.values())).load().tolist() == [1.0, -2.0]
