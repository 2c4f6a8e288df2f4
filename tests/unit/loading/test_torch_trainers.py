"""Single files as trainers lay them out: the model, its copies, its optimizer and its step are told apart."""

import argparse
import copy
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.units.twins import torch_twins
from smd_analyze.records.run import Checkpoint, Run

STEPS = (2, 5)
Tree = dict[str, Any]


class Net(nn.Module):
    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.first = nn.Linear(3, width)
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)))


class Held:
    """A model, its average, its optimizer and the number of updates made."""

    def __init__(self, groups: bool = False) -> None:
        torch.manual_seed(0)
        self.net = Net()
        self.average = copy.deepcopy(self.net)
        matrices = [p for p in self.net.parameters() if p.ndim > 1]
        vectors = [p for p in self.net.parameters() if p.ndim < 2]
        split = [{"params": vectors, "weight_decay": 0.0}, {"params": matrices}]
        self.optimizer = torch.optim.AdamW(split if groups else self.net.parameters(), lr=0.01, weight_decay=0.1)
        self.step = 0

    def train(self, to: int) -> None:
        while self.step < to:
            self.optimizer.zero_grad()
            self.net(torch.randn(8, 3)).square().sum().backward()
            self.optimizer.step()
            self.step += 1
            for mean, own in zip(self.average.parameters(), self.net.parameters(), strict=True):
                mean.data.lerp_(own.data, 0.5)


def run_of(folder: Path, save: Callable[[Held], None], groups: bool = False) -> tuple[Run, Held]:
    held = Held(groups)
    for step in STEPS:
        held.train(step)
        save(held)
    return load_run(folder), held


def check(run: Run, held: Held, prefix: str = "", steps: tuple[int, ...] = STEPS) -> Checkpoint:
    """The last checkpoint holds the live weights and their states, whatever else the file holds."""
    assert [c.step for c in run.checkpoints] == list(steps)
    last = run.checkpoints[-1]
    named = {prefix + n: p for n, p in held.net.named_parameters()}
    assert list(last.parameters) == list(named)
    for name, parameter in named.items():
        assert torch.equal(last.parameters[name].load().to(parameter.dtype), parameter.detach())
    for name, state in last.optimizer_state.items():
        assert torch.equal(state["exp_avg"].load(), held.optimizer.state[named[name]]["exp_avg"])
    return last


def check_copy(last: Checkpoint, label: str, model: nn.Module, prefix: str = "") -> None:
    for name, parameter in model.named_parameters():
        assert torch.equal(last.variants[label][prefix + name].load(), parameter.detach())


def under(prefix: str, model: nn.Module) -> Tree:
    return {prefix + n: p for n, p in model.state_dict().items()}


def composer(held: Held) -> Tree:
    names = dict(enumerate(n for n, _ in held.net.named_parameters()))
    own = held.optimizer.state_dict()
    groups = [{**g, "params": [names[i] for i in g["params"]]} for g in own["param_groups"]]
    optimizer = {"state": {names[i]: s for i, s in own["state"].items()}, "param_groups": groups}
    state = {"model": held.net.state_dict(), "optimizers": {"AdamW": optimizer}, "timestamp": {"batch": held.step}}
    return {"state": state, "rng": [{"torch": torch.zeros(8, dtype=torch.uint8)}]}


LAYOUTS: dict[str, Callable[[Held], Tree]] = {
    "composer": composer,
    "litgpt": lambda h: {
        "model": h.net.state_dict(),
        "optimizer": h.optimizer.state_dict(),
        "iter_num": 4 * h.step,
        "step_count": h.step,
    },
    "ignite": lambda h: {
        "model": h.net.state_dict(),
        "optimizer": h.optimizer.state_dict(),
        "trainer": {"iteration": h.step, "max_epochs": 2},
    },
    "vits": lambda h: {
        "model": h.net.state_dict(),
        "iteration": h.step // 2,
        "optimizer": h.optimizer.state_dict(),
        "learning_rate": 0.01,
    },
    "nested": lambda h: {
        "models": {"gen": h.net.state_dict(), "dis": Net(5).state_dict()},
        "optimizers": {"gen": h.optimizer.state_dict()},
        "iteration": h.step,
    },
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_trainers_dict(tmp_path: Path, layout: str) -> None:
    run, held = run_of(tmp_path, lambda h: torch.save(LAYOUTS[layout](h), tmp_path / f"file_{h.step}.pt"))
    last = check(run, held)
    assert run.step_unit == "optimizer steps"
    assert len(last.optimizer_state) == 6


COPIES: dict[str, Callable[[Held], Tree]] = {
    "dino": lambda h: {"student": under("module.", h.net), "teacher": h.average.state_dict(), "step": h.step},
    "swa": lambda h: {
        "model": h.net.state_dict(),
        "swa_model": {"n_averaged": torch.tensor(1), **under("module.", h.average)},
        "step": h.step,
    },
    "stylegan2": lambda h: {
        "g": h.net.state_dict(),
        "g_ema": h.average.state_dict(),
        "d": Net(5).state_dict(),
        "step": h.step,
    },
    "ema_pytorch": lambda h: {
        "model": h.net.state_dict(),
        "ema": {"step": torch.tensor(1), **under("online_model.", h.net), **under("ema_model.", h.average)},
        "step": h.step,
    },
    "torch_ema": lambda h: {
        "model": h.net.state_dict(),
        "ema": {"decay": 0.5, "shadow_params": list(h.average.parameters())},
        "step": h.step,
    },
    "dqn": lambda h: {"q_network": h.net.state_dict(), "target_network": h.average.state_dict(), "step": h.step},
}


@pytest.mark.parametrize("layout", COPIES)
def test_an_average_beside_the_model_is_a_copy_of_it(tmp_path: Path, layout: str) -> None:
    run, held = run_of(tmp_path, lambda h: torch.save(COPIES[layout](h), tmp_path / f"file_{h.step}.pt"))
    check_copy(check(run, held), "ema", held.average)


@pytest.mark.parametrize(
    ("live", "average"),
    [("encoder_q.", "encoder_k."), ("online_net.", "target_net."), ("critic.", "critic_target."), ("enc.", "enc_m.")],
)
def test_an_average_within_a_state_dict_is_told_apart_by_its_name(tmp_path: Path, live: str, average: str) -> None:
    def save(held: Held) -> None:
        both = {**under("module." + live, held.net), **under("module." + average, held.average)}
        tree = {"state_dict": both, "optimizer": held.optimizer.state_dict(), "step": held.step}
        torch.save(tree, tmp_path / f"file_{held.step}.pt")

    run, held = run_of(tmp_path, save)
    last = check(run, held, live)
    check_copy(last, "ema", held.average, live)
    assert len(last.optimizer_state) == 6
    assert [(f.code, f.severity) for f in run.findings] == [("averaged-copy", "note")]
    assert average[:-1] in run.findings[0].message


def test_a_source_and_a_target_embedding_are_both_live(tmp_path: Path) -> None:
    torch.save(
        {"embedding.weight": torch.ones(3, 2), "target_embedding.weight": torch.ones(3, 2) * 2}, tmp_path / "a.pt"
    )
    assert len(load_run(tmp_path).checkpoints[0].parameters) == 2


def test_an_average_by_itself_is_said(tmp_path: Path) -> None:
    model = torch.optim.swa_utils.AveragedModel(Net())
    torch.save(model.state_dict(), tmp_path / "swa_1.pt")
    run = load_run(tmp_path)
    assert list(run.checkpoints[0].parameters) == [n for n, _ in Net().named_parameters()]
    assert [f.code for f in run.findings] == ["only-ema"]


def test_lightning_keeps_the_live_weights_beside_an_average(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        tree = {"pytorch-lightning_version": "2.6.0", "global_step": held.step, "epoch": 0,
                "state_dict": held.average.state_dict(), "current_model_state": held.net.state_dict(),
                "optimizer_states": [held.optimizer.state_dict()]}  # fmt: skip
        torch.save(tree, tmp_path / f"epoch=0-step={held.step}.ckpt")

    run, held = run_of(tmp_path, save)
    check_copy(check(run, held), "ema", held.average)


def test_lightnings_global_step_of_several_optimizers_is_no_step_of_one(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        body, head = held.optimizer.state_dict(), torch.optim.SGD(Net(5).parameters(), lr=0.1).state_dict()
        tree = {"pytorch-lightning_version": "2.6.0", "global_step": 2 * held.step, "epoch": 0,
                "state_dict": held.net.state_dict(), "optimizer_states": [body, head]}  # fmt: skip
        torch.save(tree, tmp_path / f"epoch=0-step={2 * held.step}.ckpt")

    run, held = run_of(tmp_path, save)
    check(run, held)


def test_masters_beside_the_optimizer_or_in_its_state(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        half = copy.deepcopy(held.net).bfloat16().state_dict()
        own = held.optimizer.state_dict()
        groups = [[p.detach() for p in g["params"]] for g in held.optimizer.param_groups]
        flat = [p for group in groups for p in group]
        apex = {"optimizer_state_dict": own, "fp32_from_fp16": groups}
        inside = {**own, "state": {i: {**s, "master_param": flat[i]} for i, s in own["state"].items()}}
        for kind, optimizer in (("apex", apex), ("fused", inside)):
            (tmp_path / kind).mkdir(exist_ok=True)
            torch.save({"model": half, "optimizer": optimizer, "step": held.step}, tmp_path / kind / f"{held.step}.pt")

    held = Held(groups=True)
    held.train(3)
    save(held)
    for kind in ("apex", "fused"):
        last = load_run(tmp_path / kind).checkpoints[-1]
        assert last.parameters["first.weight"].dtype == "bfloat16"
        check_copy(last, "master", held.net)


class Trainer:
    """Somebody's own class."""


def pickled(held: Held) -> Any:
    made = Trainer()
    made.model, made.optimizer, made.global_step = held.net, held.optimizer, held.step  # type: ignore[attr-defined]
    return made


@pytest.mark.parametrize(
    "made",
    [pickled, lambda h: (h.net, h.optimizer), lambda h: [h.net.state_dict(), h.optimizer.state_dict()]],
    ids=["object", "tuple", "list"],
)
def test_whole_objects_are_read_without_their_classes(tmp_path: Path, made: Callable[[Held], Any]) -> None:
    run, held = run_of(tmp_path, lambda h: torch.save(made(h), tmp_path / f"all_step{h.step}.pt"), groups=True)
    last = check(run, held)
    assert len(last.optimizer_state) == 6
    assert run.parameter_groups["1"] == ("first.weight", "last.weight")


@pytest.mark.parametrize("what", ["state", "module", "persistent"])
def test_torch_tensors_in_a_plain_pickle(tmp_path: Path, what: str) -> None:
    def save(held: Held) -> None:
        with (tmp_path / f"file_{held.step}.pkl").open("wb") as file:
            pickle.dump({"model": held.net if what == "module" else held.net.state_dict(), "step": held.step}, file)

    run, held = run_of(tmp_path, save)
    check(run, held)


def test_twins_whose_names_differ_in_the_words_for_model_and_optimizer(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        torch.save(held.net.state_dict(), tmp_path / f"model_state_epoch_{held.step}.th")
        state = {"optimizer": held.optimizer.state_dict(), "batch_num_total": held.step, "epoch": held.step}
        torch.save(state, tmp_path / f"training_state_epoch_{held.step}.th")

    run, held = run_of(tmp_path, save)
    assert len(check(run, held).optimizer_state) == 6
    assert run.step_unit == "optimizer steps"
    assert run.findings == ()


def test_names_of_twins() -> None:
    pairs = {
        "model_000100.pt": "optim_000100_rank0.pt",
        "net_G_5.pth": "optimizer_G_5.pth",
        "ckpt_7.pth": "ckpt_7_optim.pth",
    }
    assert (
        torch_twins((*pairs, *pairs.values(), "optimizer_8.pth", "model_9.pth", "params_9.pth", "optim_9.pth")) == pairs
    )


def test_a_generator_is_read_with_the_optimizer_beside_it(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        torch.save({"generator": held.net.state_dict()}, tmp_path / f"g_{held.step:08d}")
        beside = {"mpd": Net(5).state_dict(), "optim_g": held.optimizer.state_dict(), "steps": held.step}
        torch.save(beside, tmp_path / f"do_{held.step:08d}")

    run, held = run_of(tmp_path, save)
    assert len(check(run, held).optimizer_state) == 6


def test_yolo_counts_its_updates(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        tree = {"epoch": held.step // 2, "model": copy.deepcopy(held.net), "ema": held.average, "updates": held.step,
                "opt": {"lr0": 0.01}, "optimizer": held.optimizer.state_dict()}  # fmt: skip
        torch.save(tree, tmp_path / f"epoch{held.step // 2}.pt")

    run, held = run_of(tmp_path, save)
    check_copy(check(run, held), "ema", held.average)
    assert "updates" in run.ordered_by


def test_kohya_tells_what_it_was_told(tmp_path: Path) -> None:
    for epoch in (1, 2):
        tensors = {
            "unet_q.lora_down.weight": torch.randn(2, 5),
            "unet_q.lora_up.weight": torch.randn(5, 2),
            "unet_q.alpha": torch.ones(()),
        }
        metadata = {"ss_steps": str(50 * epoch), "ss_epoch": str(epoch), "ss_learning_rate": "0.0001",
                    "ss_optimizer": "torch.optim.adamw.AdamW(weight_decay=0.1)"}  # fmt: skip
        save_file(tensors, tmp_path / f"style-{epoch:06d}.safetensors", metadata=metadata)
    run = load_run(tmp_path)
    assert [c.step for c in run.checkpoints] == [50, 100]
    assert len(run.checkpoints[0].parameters) == 2
    told = {s.name: (s.text or s.value, s.kind) for s in run.checkpoints[0].settings}
    assert told["learning_rate"] == (0.0001, "configured")
    assert told["weight_decay"] == (0.1, "configured")
    assert told["optimizer"] == ("AdamW", "configured")


class Listed:
    """As fastcore's list class is pickled: an object that holds `items`."""

    def __init__(self, items: list[Any]) -> None:
        self.items = items


@pytest.mark.parametrize("kind", [list, Listed])
def test_fastai_spares_biases_and_norms_from_decay(tmp_path: Path, kind: Callable[[list[Any]], Any]) -> None:
    net = Net()
    states = [
        {
            "grad_avg": torch.randn_like(p),
            "sqr_avg": torch.rand_like(p),
            "step": 7,
            **({"do_wd": False} if p.ndim < 2 else {}),
        }
        for p in net.parameters()
    ]
    hypers = [{"lr": 0.001, "wd": 0.01, "mom": 0.9, "sqr_mom": 0.99}]
    torch.save({"model": net.state_dict(), "opt": {"state": states, "hypers": kind(hypers)}}, tmp_path / "model_0.pth")
    run = load_run(tmp_path)
    assert run.parameter_groups["0"] == ("first.weight", "last.weight")
    decay = {s.parameter_group: s.value for s in run.checkpoints[0].settings if s.name == "weight_decay"}
    assert decay == {"0": 0.01, "0 without decay": 0.0}
    mean = run.checkpoints[0].optimizer_state["norm.bias"]["exp_avg"].load()
    assert torch.equal(mean, torch.as_tensor(states[3]["grad_avg"]))
    assert run.checkpoints[0].step == 7


def test_nemo_is_read_within_its_tar(tmp_path: Path) -> None:
    def save(held: Held) -> None:
        torch.save(held.net.state_dict(), tmp_path / "w")
        with tarfile.open(tmp_path / f"m-step={held.step}.nemo", "w") as tar:
            tar.add(tmp_path / "w", "./model_weights.ckpt")
        (tmp_path / "w").unlink()

    run, held = run_of(tmp_path, save)
    check(run, held)
    whole = (tmp_path / "m-step=5.nemo").read_bytes()  # padded with zeros: half of it may hold all
    (tmp_path / "m-step=5.nemo").write_bytes(whole[:2000])
    assert "damaged-file" in [f.code for f in load_run(tmp_path).findings]


def test_what_is_no_dense_tensor_is_said(tmp_path: Path) -> None:
    tree = {
        "fc.weight": torch.randn(4, 3),
        "sp.weight": torch.eye(4).to_sparse(),
        "z": torch.randn(2, 2, dtype=torch.complex64),
        "q.weight": torch.ones(4, 4, dtype=torch.int8),
        "q.absmax": torch.ones(4),
    }
    torch.save({"model": tree, "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pt")
    run = load_run(tmp_path)
    assert list(run.checkpoints[0].parameters) == ["fc.weight", "z"]
    assert {f.code for f in run.findings} == {"tensor-not-read", "quantised-weights", "complex-weights"}
    assert "sp.weight" in next(f.message for f in run.findings if f.code == "tensor-not-read")


def test_numpy_states_of_a_tuple_of_models(tmp_path: Path) -> None:
    torch.save((Net().state_dict(), Net(5).state_dict()), tmp_path / "td3.cleanrl_model")
    run = load_run(tmp_path)
    assert list(run.checkpoints[0].parameters) == [n for n, _ in Net().named_parameters()]
    assert run.checkpoints[0].parameters["first.weight"].shape == (4, 3)
    assert "several-models" in {f.code for f in run.findings}
    assert np.isfinite(run.checkpoints[0].parameters["first.weight"].read()).all()


def test_a_list_of_tensors_is_no_model_and_another_models_average_no_copy(tmp_path: Path) -> None:
    tree = {
        "netA": Net().state_dict(),
        "netB": Net(3).state_dict(),
        "netB_ema": Net(3).state_dict(),
        "replay": [torch.randn(100, 100)],
        "step": 3,
    }
    torch.save(tree, tmp_path / "a.pt")
    last = load_run(tmp_path).checkpoints[0]
    assert last.parameters["first.weight"].shape == (4, 3)
    assert last.variants == {}
