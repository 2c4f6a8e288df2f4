"""Hostile files are refused or read as data: no payload runs, two seconds of CPU and 200 MB are never exceeded."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from .hostile import HOSTILE as ALONE
from .hostile import SECRET, SOUND, WEIGHTS, Maker
from .hostile_beside import MORE

HOSTILE = (*ALONE, *MORE)

SECONDS, MEGABYTES = 2, 200
READ = """
import json, os, resource, signal, sys
from smd_analyze.errors import SmdError
from smd_analyze.loading.discovery import load_run

def examine(path):
    before = resource.getrusage(resource.RUSAGE_SELF)
    out = {"read": {}, "findings": []}
    try:
        run = load_run(path)
        out["findings"] = [f.message for f in run.findings]
        for checkpoint in run.checkpoints:
            for name, tensor in {**checkpoint.buffers, **checkpoint.parameters}.items():
                try:
                    out["read"][name] = tensor.read().reshape(-1)[:64].tolist()
                except SmdError as problem:
                    out["findings"].append(str(problem))
    except SmdError as problem:
        out["refused"] = str(problem)
    after = resource.getrusage(resource.RUSAGE_SELF)
    out["megabytes"] = (after.ru_maxrss - before.ru_maxrss) / 1024
    return out

root = sys.argv[1]
for name in sorted(os.listdir(root)):
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        signal.alarm(60)
        os.write(writing, json.dumps(examine(os.path.join(root, name)), default=str).encode()[:60_000])
        os._exit(0)
    os.close(writing)
    _, status = os.waitpid(child, 0)
    told = os.read(reading, 1 << 16)
    os.close(reading)
    print(json.dumps([name, os.waitstatus_to_exitcode(status), json.loads(told or b"{}")]), flush=True)
"""


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, dict[str, Any], Path]]:
    """name → (exit code or -signal, what came out, the canary): each in a process of its own, forked from one."""
    root, nests = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("canaries")
    for make in HOSTILE:
        (root / make.__name__).mkdir()
        make(root / make.__name__, str(nests / make.__name__))
    code = READ.replace("SECONDS", str(SECONDS))
    done = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {n: (status, told, nests / n) for n, status, told in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize("make", HOSTILE)
def test_a_hostile_file_is_refused_or_read_as_data(outcomes: dict[str, Any], make: Maker) -> None:
    status, told, canary = outcomes[make.__name__]
    assert status == 0, "killed: too much time" if status < 0 else told
    assert not canary.exists()
    assert told["megabytes"] < MEGABYTES
    assert told.get("refused") or told["findings"] or told["read"]
    assert not any(SECRET in values for values in told["read"].values()), "a file outside was read"


@pytest.mark.parametrize("make", SOUND)
def test_weights_beside_a_payload_are_still_read(outcomes: dict[str, Any], make: Maker) -> None:
    _, told, _ = outcomes[make.__name__]
    assert told["read"] == {n: w.reshape(-1).tolist() for n, w in WEIGHTS.items()}


def test_a_folder_full_of_them_is_listed(tmp_path: Path) -> None:
    for make in HOSTILE:
        (tmp_path / "all" / make.__name__).mkdir(parents=True)
        make(tmp_path / "all" / make.__name__, str(tmp_path / "canary"))
    code = "from smd_analyze.cli import main; main()"
    command = [sys.executable, "-c", code, "ls", str(tmp_path / "all")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode in (0, 3), done.stderr[-3000:]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "canary").exists()
