import pytest

from smd_analyze.errors import UsageError
from smd_analyze.schedule.settings import read_settings

TOML = """
optimizer = "sgd"
lr = 0.1
weight_decay = 5e-4
momentum = 0.9

[groups."*.bias"]
weight_decay = 0
learning_rate = 0.2
"""


def test_toml_and_mapping_say_the_same(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text(TOML)
    said = read_settings(path)
    assert said.values == {"optimizer": "sgd", "learning_rate": 0.1, "weight_decay": 5e-4, "momentum": 0.9}
    assert said.groups == {"*.bias": {"weight_decay": 0.0, "learning_rate": 0.2}}
    assert said == read_settings(str(path))
    mapping = {**said.values, "groups": said.groups}
    assert read_settings(mapping) == said


def test_options_that_were_not_given_are_skipped():
    assert read_settings({"learning_rate": None, "nesterov": True}).values == {"nesterov": True}
    assert read_settings(None).values == {}


def test_schedule_tables():
    equal = read_settings({"schedule": {"steps": [0, 100], "learning_rate": [0.1, 0.01]}}).schedule
    more = read_settings({"schedule": {"steps": [100], "learning_rate": [0.1, 0.01]}}).schedule
    assert equal is not None
    assert equal == more
    cosine = read_settings({"lr": 1.0, "schedule": {"kind": "cosine", "total_steps": 10, "warmup_steps": 2}}).schedule
    assert cosine is not None
    assert (cosine.total_steps, cosine.warmup_steps) == (10, 2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"learningrate": 0.1}, ["learningrate", "learning_rate"]),
        ({"lr": 0.1, "learning_rate": 0.1}, ["lr", "second time"]),
        ({"lr": "0.1"}, ["lr", "number >= 0"]),
        ({"lr": True}, ["lr", "number"]),
        ({"lr": float("nan")}, ["lr", "number"]),
        ({"momentum": 1.0}, ["momentum", "[0, 1)"]),
        ({"weight_decay": -1}, ["weight_decay", ">= 0"]),
        ({"nesterov": 1}, ["nesterov", "true or false"]),
        ({"optimizer": 3}, ["optimizer", "'sgd'"]),
        ({"optimizer": "adamw", "decoupled": False}, ["decoupled", "adamw"]),
        ({"groups": {"*.bias": {"wd": 0}}}, ["*.bias", "wd", "weight_decay"]),
        ({"groups": [1]}, ["groups", "table"]),
        ({"steps_per_epoch": 0}, ["steps_per_epoch", "> 0"]),
        ({"schedule": {"kind": "wave"}}, ["kind", "cosine"]),
        ({"schedule": {"kind": "cosine", "total_steps": 9}}, ["cosine", "learning_rate"]),
        ({"lr": 1, "schedule": {"kind": "cosine"}}, ["total_steps", "number >= 1"]),
        ({"lr": 1, "schedule": {"kind": "linear", "total_steps": 5, "warmup_steps": 5}}, ["warmup_steps", "less than"]),
        ({"lr": 1, "schedule": {"kind": "linear", "steps": [1], "learning_rate": [1]}}, ["steps", "linear"]),
        ({"lr": 1, "schedule": {"steps": [0], "learning_rate": [1]}}, ["learning_rate", "twice"]),
        ({"schedule": {"steps": [0, 1, 2], "learning_rate": [1]}}, ["3 steps", "1 learning"]),
        ({"schedule": {"steps": [5, 1], "learning_rate": [1, 2]}}, ["steps", "larger"]),
        ({"schedule": {"steps": 5, "learning_rate": [1]}}, ["steps", "list"]),
        ({"schedule": {"step": [5], "kind": "steps"}}, ["'step'", "warmup_steps"]),
    ],
)
def test_what_cannot_be_meant_is_named(settings, words):
    with pytest.raises(UsageError) as error:
        read_settings(settings)
    assert all(word in str(error.value) for word in words)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(UsageError, match="none.toml"):
        read_settings(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("lr = ")
    with pytest.raises(UsageError, match="not valid TOML"):
        read_settings(tmp_path / "bad.toml")
    with pytest.raises(UsageError, match="list"):
        read_settings([1])  # type: ignore[arg-type]
