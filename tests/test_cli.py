"""The command line as a person meets it: right exit codes, one clear sentence, only what was asked for on stdout."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

ROOT = Path(__file__).parents[1]
RESNET = ROOT / "sample_runs" / "resnet_sgdm"


def smd(*words: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", "from smd_analyze.cli import main; main()", *map(str, words)]
    wide = {**os.environ, "COLUMNS": "100" if cwd == ROOT else "300"}  # long temporary paths stay on one line
    return subprocess.run(command, cwd=cwd, env=wide, capture_output=True, text=True, check=False)


def write_run(folder: Path, norms: list[float], nan_at: int | None = None) -> Path:
    """A run of one conv before a BatchNorm, saved as safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((8, 4, 3, 3)).astype(np.float32)
    for i, norm in enumerate(norms):
        weight = weight + 0.01 * rng.standard_normal(weight.shape).astype(np.float32)
        saved = weight * np.float32(norm / np.linalg.norm(weight))
        if i == nan_at:
            saved[0, 0, 0, 0] = np.nan
        gain = {f"layer.bn1.{n}": np.ones(8, np.float32) for n in ("weight", "bias", "running_mean", "running_var")}
        save_file({"layer.conv1.weight": saved, **gain}, folder / f"step_{(i + 1) * 100}.safetensors")
    return folder


def test_the_main_job():
    done = smd(RESNET)
    assert done.returncode == 0, done.stderr
    assert "layer1" in done.stdout
    assert "stationary" in done.stdout
    assert all(len(line) <= 100 for line in done.stdout.splitlines())
    assert "nan" not in done.stdout.lower()


def test_json_is_one_document():
    done = smd(RESNET, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    document = json.loads(done.stdout)
    tables = {"layers", "checkpoints", "settings", "parameters", "groups", "statistics", "schedule", "angular_updates"}
    assert tables | {"predictions", "fits", "findings", "clocks"} <= set(document)
    assert document["statistics"][0].keys() >= {"group", "step", "weight_norm", "angle"}


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("ls", {"checkpoints", "settings", "findings"}),
        ("groups", {"source", "parameters", "groups", "translations", "findings"}),
        ("schedule", {"clocks", "schedule", "findings"}),
    ],
)
def test_sisters_speak_json_too(command, keys):
    done = smd(command, RESNET, "--json")
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)) == keys


def test_a_folder_named_like_a_sister(tmp_path):
    write_run(tmp_path / "ls", [1.0, 1.0, 1.0])
    done = smd("./ls", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "conv" in done.stdout


@pytest.mark.parametrize("words", [("nowhere",), ("empty",), ("texts",)])
def test_nothing_to_analyse_is_exit_3(tmp_path, words):
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "notes.txt").write_text("no checkpoint")
    done = smd(*words, cwd=tmp_path)
    assert done.returncode == 3
    assert done.stderr.startswith("error: ")
    assert words[0] in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("--model", "nowhere.py:net"), "nowhere.py"),
        (("--model", "smd_analyze.errors:Nothing"), "Nothing"),
        (("--weights", "ema"), "ema"),
        (("--device", "cuda"), "cuda"),
        (("--settings", "nowhere.toml"), "nowhere.toml"),
        (("--optimizer", "magic"), "magic"),
        (("--steps", "x:y"), "x:y"),
        (("--explain", "no_such_layer"), "no_such_layer"),
        (("--no-such-option",), "--no-such-option"),
        (("--inputs", "model.py:inputs"), "--model"),
        (("--json", "--explain", "layer.conv1"), "--explain"),
        (("--steps-per-epoch", "0"), "--steps-per-epoch"),
        (("--run", "no_such_run"), "no_such_run"),
    ],
)
def test_a_wrong_call_is_exit_2(tmp_path, words, named):
    run = write_run(tmp_path / "run", [1.0, 1.0, 1.0])
    done = smd(run, *words, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error():
    main = f"{sys.executable} -c 'from smd_analyze.cli import main; main()'"
    line = f"{main} groups {RESNET} -v | head -1; exit ${{PIPESTATUS[0]}}"
    for _ in range(3):
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 128 + signal.SIGPIPE), done.stderr
        assert done.stderr == ""


def test_a_report_is_no_checkpoint(tmp_path):
    run = write_run(tmp_path / "run", [1.0, 1.0])
    assert smd(run, "-o", tmp_path / "r.h5").returncode == 0
    done = smd(tmp_path / "r.h5")
    assert done.returncode == 2
    assert "is a report" in done.stderr


def test_one_of_several_runs(tmp_path):
    for name in ("first", "second"):
        write_run(tmp_path / "runs" / name, [1.0, 1.1, 1.2])
    done = smd("ls", tmp_path / "runs", "--json", "--run", "second", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert all("second" in row["path"] for row in json.loads(done.stdout)["checkpoints"])


def test_an_unwritable_report_is_said_before_the_work(tmp_path):
    run = write_run(tmp_path / "run", [1.0, 1.0, 1.0])
    done = smd(run, "-o", tmp_path / "no" / "such" / "folder" / "r.h5")
    assert done.returncode == 3
    assert "no/such/folder" in done.stderr


def test_missing_hyperparameters_are_said_and_the_rest_is_shown(tmp_path):
    done = smd(write_run(tmp_path / "run", [2.0, 1.5, 1.2, 1.1, 1.0]))
    assert done.returncode == 0, done.stderr
    assert "conv" in done.stdout
    assert "--lr" in done.stderr


def test_one_checkpoint_is_not_identifiable(tmp_path):
    done = smd(write_run(tmp_path / "run", [2.0]))
    assert done.returncode == 0, done.stderr
    assert "not identifiable" in done.stdout


def test_a_truncated_file_in_the_middle_is_a_finding(tmp_path):
    run = write_run(tmp_path / "run", [2.0, 1.8, 1.6, 1.5])
    middle = run / "step_200.safetensors"
    middle.write_bytes(middle.read_bytes()[:-100])
    done = smd(run, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "step_200.safetensors" in done.stderr
    assert "conv" in done.stdout


def test_nan_is_a_finding_not_a_number(tmp_path):
    done = smd(write_run(tmp_path / "run", [2.0, 1.8, 1.6, 1.5], nan_at=1))
    assert done.returncode == 0, done.stderr
    assert "nan" not in done.stdout.lower().replace("nan or inf", "")
    assert "layer.conv1" in done.stderr


def test_flags_win_over_files_and_clocks_over_both(tmp_path):
    done = smd(RESNET, "--weight-decay", "0", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    rows = found["schedule"]
    assert all("caller" in row["source"] for row in rows)
    of_clock = [row for row in rows if "clock of fc.weight" in row["source"]]  # its own group was decayed all the same
    assert of_clock
    assert all(row["sum_decay"] > 0 and row["told_decay"] == 0 for row in of_clock)
    assert {row["sum_decay"] for row in rows if row not in of_clock} == {0.0}
    assert "clock-disagrees" in {f["code"] for f in found["findings"]}
