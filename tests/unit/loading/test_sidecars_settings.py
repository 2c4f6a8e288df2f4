"""Files of settings beside checkpoints: every kind is read as data, nothing is guessed, nothing is run."""

import json

import pytest

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.settings.configured import configured_settings
from smd_analyze.loading.sidecars.registry import reader_of


def said(path):
    """Name → value or text of what a file configures."""
    reader = reader_of(path.name)
    assert reader is not None, path.name
    found = configured_settings(reader.read(str(path)).settings, path.name)
    return {s.name: s.text if s.value is None else s.value for s in found}


def written(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text)
    return path


SGD = {"learning_rate": 0.05, "weight_decay": 5e-4, "momentum": 0.9}
FILES = {
    "hparams.yaml": "lr: 0.05\nweight_decay: 5e-4\nmomentum: 0.9\nwidth: 8\n",
    "args.yaml": "lr0: 0.05\nweight_decay: 0.0005\nmomentum: 0.9\nlr: null\n",
    "config.yaml": "lr: {desc: null, value: 0.05}\nmomentum: {value: 0.9}\nwd: {value: 0.0005}\n_wandb: {value: {}}\n",
    "args.json": json.dumps({"lr": 0.05, "wd": 5e-4, "momentum": 0.9, "seed": 3}),
    "config.json": json.dumps({"optimizer": {"type": "SGD", "lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}}),
    "ds_config.json": json.dumps(
        {"optimizer": {"type": "SGD", "params": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}}}
    ),
    "params.json": json.dumps(
        {"train": {"optimizer": {"kwargs": {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}}}}
    ),
    "train_config.toml": "[optimizer]\nlr = 0.05\nmomentum = 0.9\nweight_decay = 5e-4\n",
    "args.txt": (
        "Namespace(lr=0.05, name='a) lr=9, \\'b', momentum=0.9, weight_decay=0.0005, device=device(type='cpu'))"
    ),
    "opt.txt": "---- Options ----\n  lr: 0.05 [default: 0.1]\n momentum: 0.9\n weight_decay: 0.0005\n--- End ---\n",
    "command.txt": "python train.py --lr 0.05 --momentum=0.9 --weight-decay 5e-4 --amp\n",
    "config.py": "LR = 0.05\nmomentum = 0.9\nweight_decay = 5e-4\nimport os\nos.system('touch ran')\n",
    "20260101_101010.py": (
        "optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.5 / 10, momentum=0.9, "
        "weight_decay=5e-4), paramwise_cfg=dict(norm_decay_mult=0.0))\nmodel = dict(norm=dict(eps=1e-3))\n"
    ),
    "operative_config.gin": (
        "# comment\nRATE = 0.05\ntrain.lr = %RATE\ntrain.momentum = 0.9\ntrain.weight_decay = 5e-4\n"
        "train.optimizer = @SGD\n"
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_every_kind_of_file(tmp_path, name):
    found = said(written(tmp_path, name, FILES[name]))
    assert {k: found.get(k) for k in SGD} == SGD
    assert "eps" not in found  # a norm's is nobody's optimizer's
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["config.json", "ds_config.json", "20260101_101010.py", "operative_config.gin"])
def test_the_class_of_the_optimizer(tmp_path, name):
    assert said(written(tmp_path, name, FILES[name]))["optimizer"] == "SGD"


def test_tags_of_python_objects_are_data(tmp_path):
    text = (
        "!!python/object:argparse.Namespace\nlr: 0.1\n"
        "run: !!python/object/apply:os.system ['touch ran']\npath: !!python/object/apply:pathlib.PosixPath [/, tmp]\n"
        "betas: !!python/tuple [0.9, 0.98]\nweight_decay: !Special 0.1\n"
    )
    found = said(written(tmp_path, "hparams.yaml", text))
    assert found == {"learning_rate": 0.1, "weight_decay": 0.1, "beta1": 0.9, "beta2": 0.98}
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hparams.yaml", "a: [1, 2"), ("hparams.yaml", "[" * 600), ("config.json", "{"),
        ("config.json", "[" * 100_000), ("config.toml", "lr = "), ("config.py", "lr = ("),
        ("args.txt", "Namespace(lr=0.1, " + "(" * 5000),
        ("config.yaml", "x" * (1 << 21)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_one_clear_error(tmp_path, name, text):
    path = written(tmp_path, name, text)
    with pytest.raises(DamagedFile, match=name):
        reader_of(name).read(str(path))


def test_aliases_that_unfold_without_end_are_bounded(tmp_path):
    lines = ["a0: &a0 {lr: 0.1}"] + [f"a{i}: &a{i} {{x: *a{i - 1}, y: *a{i - 1}, z: *a{i - 1}}}" for i in range(1, 30)]
    assert said(written(tmp_path, "hparams.yaml", "\n".join(lines)))["learning_rate"] == 0.1


def named(tree):
    return {s.name: s.text if s.value is None else s.value for s in configured_settings(tree, "config.yaml")}


def test_several_learning_rates_are_told_under_their_keys_and_none_is_chosen():
    found = named({"lr": 1e-4, "lr_backbone": 1e-5, "weight_decay": 0.1})
    assert found == {"lr": 1e-4, "lr_backbone": 1e-5, "weight_decay": 0.1}
    gan = {"generator": {"optimizer": {"lr": 1e-4, "betas": [0, 0.9]}}, "discriminator": {"optimizer": {"lr": 4e-4}}}
    found = named(gan)
    assert "learning_rate" not in found
    assert found["discriminator.optimizer.lr"] == 4e-4
    assert named({"g": {"lr": 2e-4}, "d": {"lr": 2e-4}})["learning_rate"] == 2e-4


def test_a_block_is_chosen_by_the_optimizers_name():
    assert named({"optimizer": "adam", "sgd": {"lr": 0.1}, "adam": {"lr": 1e-3}})["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    "tree",
    [
        {"lr_scheduler": {"lr": 0.5}}, {"min_lr": 0.1}, {"warmup_lr": 0.1}, {"lr_decay": 0.1}, {"lr_mult": 2},
        {"finder": {"lr": 0.1}}, {"sweep": {"lr": [0.1, 0.2]}}, {"lr": True}, {"lr": "auto"}, {"color": 1},
    ],
)  # fmt: skip
def test_what_is_no_learning_rate(tree):
    assert "learning_rate" not in named(tree)


@pytest.mark.parametrize(
    ("tree", "schedule"),
    [
        ({"lr": 0.1, "scheduler": {"_target_": "torch.optim.lr_scheduler.StepLR", "step_size": 3}}, "StepLR"),
        ({"lr": 0.1, "lr_scheduler_type": "cosine"}, "cosine"),
        ({"lr": 0.1, "param_scheduler": [{"type": "LinearLR"}, {"type": "StepLR"}]}, "LinearLR, StepLR"),
        ({"lr": 0.1, "lr_config": {"policy": "step", "step": [8, 11]}}, "step"),
        ({"lr": 0.1, "warmup_steps": 100}, "not named, but warmup_steps is set"),
        ({"lr": 0.1, "warmup_steps": 0}, None),
        ({"lr": 0.1, "scheduler": None}, None),
    ],
)  # fmt: skip
def test_a_schedule_is_named_or_at_least_noticed(tree, schedule):
    assert named(tree).get("schedule") == schedule


def test_fairseqs_lists_and_pairs_in_words():
    tree = {
        "optimization": {"lr": [5e-4]},
        "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)", "weight_decay": 0.01},
    }
    found = named(tree)
    assert (found["learning_rate"], found["beta2"], found["weight_decay"]) == (5e-4, 0.98, 0.01)
