"""The real libraries train and write, we read: every array, step, state and hyperparameter as they held them.

Each test is skipped where its library is not installed. Run with: pytest -m frameworks
Here: torch and what is built on it; the others are in test_real_array_frameworks.py.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from .written import STEPS, check, save

pytestmark = [pytest.mark.frameworks, pytest.mark.filterwarnings("ignore")]


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, 3, bias=False)
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(torch.relu(self.bn(self.conv(x))).mean((2, 3)))


def torch_training(adam: bool = True) -> Any:
    """(step, net, optimizer, scheduler) at each of STEPS, while a small net trains."""
    torch.manual_seed(0)
    net = Net()
    split = [{"params": [net.conv.weight, net.fc.weight], "weight_decay": 0.1},
             {"params": [net.bn.weight, net.bn.bias, net.fc.bias], "weight_decay": 0.0}]  # fmt: skip
    kind = torch.optim.AdamW(split, 1e-2, (0.8, 0.95)) if adam else torch.optim.SGD(split, 0.1, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(kind, 20)
    for step in range(1, STEPS[-1] + 1):
        loss = net(torch.randn(8, 3, 8, 8)).square().mean()
        kind.zero_grad()
        loss.backward()
        kind.step()
        schedule.step()
        if step in STEPS:
            yield step, net, kind, schedule


def torch_save(path: str, step: int, net: Net, kind: torch.optim.Optimizer, **copies: Any) -> dict[str, Any]:
    """The truth of a torch run: arrays, the optimizer's states by name, hyperparameters per group."""
    arrays = {n: t.detach().double().numpy().copy() for n, t in net.state_dict().items()}
    states = {
        n: {k: v.double().numpy().copy() for k, v in kind.state[p].items() if torch.is_tensor(v) and k != "step"}
        for n, p in net.named_parameters()
    }
    hyper: dict[str, Any] = {"lr": kind.param_groups[0]["lr"], "weight_decay": [0.1, 0.0]}
    hyper |= {k: list(v) if k == "betas" else v for k, v in kind.param_groups[0].items() if k in ("betas", "momentum")}
    return save(path, step, arrays, hyper, optimizer=states, **copies)


@pytest.mark.parametrize("adam", [True, False])
@pytest.mark.parametrize("new", [True, False])
def test_torch_trainer_with_an_average(tmp_path: Path, adam: bool, new: bool) -> None:
    (tmp_path / "run").mkdir()
    saves, average = [], None
    for step, net, kind, schedule in torch_training(adam):
        average = average or torch.optim.swa_utils.AveragedModel(net, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.5))  # noqa: E501  # fmt: skip
        average.update_parameters(net)
        made = {"model": net.state_dict(), "ema": average.state_dict(), "optimizer": kind.state_dict(),
                "scheduler": schedule.state_dict(), "step": step, "args": {"lr": 7.0}}  # fmt: skip
        torch.save(made, tmp_path / "run" / f"ckpt_{step}.pt", _use_new_zipfile_serialization=new)
        ema = {n: p.detach().numpy().copy() for n, p in average.module.named_parameters()}
        saves.append(torch_save(f"ckpt_{step}.pt", step, net, kind, variants={"ema": ema}))
    found = check(tmp_path, saves, "torch")
    assert found.counts["copies and states equal"] == 3 * (10 if adam else 5) + 3 * 5
    assert found.counts["in a parameter group"] == 15


def test_torch_distributed_checkpoint(tmp_path: Path) -> None:
    from torch.distributed.checkpoint import save as dcp_save
    from torch.distributed.checkpoint.state_dict import get_state_dict

    saves = []
    for step, net, kind, _ in torch_training():
        model, optimizer = get_state_dict(net, kind)
        dcp_save({"model": model, "optimizer": optimizer}, checkpoint_id=str(tmp_path / "run" / f"step-{step}"), no_dist=True)  # noqa: E501  # fmt: skip
        saves.append(torch_save(f"step-{step}", step, net, kind))
    check(tmp_path, saves, "torch")


@pytest.mark.parametrize("kind", ["module", "script", "traced export"])
def test_torch_models_without_an_optimizer(tmp_path: Path, kind: str) -> None:
    (tmp_path / "run").mkdir()
    saves = []
    for step, net, _, _ in torch_training():
        name = f"net_step{step}.{'pt2' if kind == 'traced export' else 'pt'}"
        if kind == "module":
            torch.save(net, tmp_path / "run" / name)
        elif kind == "script":
            torch.jit.save(torch.jit.script(net), tmp_path / "run" / name)
        else:
            torch.export.save(torch.export.export(net, (torch.randn(2, 3, 8, 8),)), tmp_path / "run" / name)
        arrays = {n: t.detach().double().numpy().copy() for n, t in net.state_dict().items()}
        saves.append(save(name, step, arrays))
    check(tmp_path, saves, "torch")


def test_safetensors_and_numpy_files(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    for kind in ("safetensors", "npz", "packed.npz", "pkl"):
        folder = tmp_path / kind
        (folder / "run").mkdir(parents=True)
        saves = []
        for step, net, _, _ in torch_training():
            path = folder / "run" / f"step_{step}.{kind}"
            arrays = {n: t.detach().numpy().copy() for n, t in net.state_dict().items()}
            if kind == "safetensors":
                save_file(net.state_dict(), path, {"format": "pt"})
            elif kind == "pkl":
                path.write_bytes(pickle.dumps({"params": arrays, "step": step}))
            else:
                (np.savez if kind == "npz" else np.savez_compressed)(path, **arrays)
            saves.append(save(path.name, step, arrays))
        check(folder, saves, "torch")


def test_lightning(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    from lightning.pytorch.callbacks import ModelCheckpoint

    saves: list[dict[str, Any]] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any) -> Any:
            return self.net(batch[0]).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.AdamW(self.parameters(), 1e-2, weight_decay=0.1)

        def on_save_checkpoint(self, checkpoint: Any) -> None:
            step = self.trainer.global_step
            arrays = {n: t.detach().double().numpy().copy() for n, t in self.state_dict().items()}
            kind = self.trainer.optimizers[0]
            states = {n: {k: kind.state[p][k].numpy().copy() for k in ("exp_avg", "exp_avg_sq")} for n, p in self.named_parameters()}  # noqa: E501  # fmt: skip
            hyper = {"lr": 1e-2, "weight_decay": 0.1, "betas": [0.9, 0.999]}
            saves.append(save(f"e=0-step={step}.ckpt", step, arrays, hyper, optimizer=states))

    keep = ModelCheckpoint(tmp_path / "run", "e={epoch}-step={step}", every_n_train_steps=5, save_top_k=-1, auto_insert_metric_name=False)  # noqa: E501  # fmt: skip
    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(60, 3, 8, 8)), 4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    lightning.Trainer(max_epochs=1, callbacks=[keep], **quiet).fit(Module(), data)
    check(tmp_path, list({s["path"]: s for s in saves}.values()), "torch")


def test_transformers_trainer(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    saves = []
    size = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 32, "n_positions": 8}
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**size))
    said = transformers.TrainingArguments(
        tmp_path / "run", max_steps=15, save_steps=5, per_device_train_batch_size=2, learning_rate=1e-3, use_cpu=True,
        weight_decay=0.1, report_to=[], disable_tqdm=True, lr_scheduler_type="cosine",
    )  # fmt: skip

    class Keep(transformers.TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            group = more["optimizer"].param_groups
            hyper = {"lr": group[0]["lr"], "weight_decay": [g["weight_decay"] for g in group]}
            hyper["betas"] = list(group[0]["betas"])
            arrays = {n: t.detach().double().numpy().copy() for n, t in model.state_dict().items()}
            saves.append(save(f"checkpoint-{state.global_step}", state.global_step, arrays, hyper))

    data = [{"input_ids": torch.arange(8) + i, "labels": torch.arange(8) + i} for i in range(20)]
    transformers.Trainer(model, said, train_dataset=data, callbacks=[Keep()]).train()
    check(tmp_path, saves, "torch", "transformers")


def test_onnx(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    (tmp_path / "run").mkdir()
    saves = []
    for step, net, _, _ in torch_training():
        arrays = {n: t.detach().numpy().copy() for n, t in net.named_parameters()}
        made = [onnx.numpy_helper.from_array(a, n) for n, a in arrays.items()]
        conv = onnx.helper.make_node("Conv", ["x", "conv.weight"], ["y"])
        dense = onnx.helper.make_node("Gemm", ["y", "fc.weight", "fc.bias"], ["z"], transB=1)
        graph = onnx.helper.make_graph([conv, dense], "net", [], [], made)
        onnx.save(onnx.helper.make_model(graph, producer_name="pytorch"), tmp_path / "run" / f"net_step{step}.onnx")
        saves.append(save(f"net_step{step}.onnx", step, arrays))
    check(tmp_path, saves, "onnx")
