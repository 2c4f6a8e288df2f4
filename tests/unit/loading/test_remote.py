"""Checkpoints that lie elsewhere: every family of formats over memory:// and HTTP, few requests, what goes wrong."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from polars.testing import assert_frame_equal
from ranged_server import Handler, Server, serving
from safetensors.torch import save_file

import smd_analyze
from smd_analyze.errors import DamagedFile, MissingLibrary, NothingToAnalyse, Unreachable, UsageError
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files import remote, remote_blocks, remote_http
from smd_analyze.records.run import Run

GOLDEN = Path(__file__).parents[2] / "golden" / "formats"
FAMILIES = (
    "torch_state_dict_zip", "torch_state_dict_legacy", "safetensors_flat", "hf_sharded", "dcp_single",
    "deepspeed_zero2", "megatron_legacy_layout", "numpy_npz", "numpy_npy_dir", "numpy_pickle", "keras_legacy_h5",
    "keras3_dot_keras", "tf_checkpoint_sharded", "flax_msgpack", "mlx_safetensors", "onnx_external_data",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that one test listed or read is known to the next; nobody waits."""
    monkeypatch.setattr(remote, "LISTED", remote.Listed())
    monkeypatch.setattr(remote, "CONNECTED", {})
    monkeypatch.setattr(remote_blocks, "KEPT_PARTS", remote_blocks._Kept(remote_blocks.KEPT))
    monkeypatch.setattr(remote, "PAUSES", (0.0, 0.0))
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.pseudo_dirs[:] = [""]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path) as running:
        yield running


def to_memory(folder: Path, url: str = "memory://run") -> str:
    """The folder's files in fsspec's memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            fsspec.filesystem("memory").pipe_file(f"/run/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return url


def told(run: Run, root: str) -> dict[str, Any]:
    """All that a run says, without its root: the same wherever it lies."""
    return {
        "order": (run.ordered_by, run.step_unit, {k: v.replace(root, "") for k, v in run.aliases.items()}),
        "findings": sorted((f.code, f.severity, f.message.replace(root, "")) for f in run.findings),
        "checkpoints": [
            (c.step, c.path.replace(root, ""), c.format, c.framework, c.nbytes, c.settings, sorted(c.optimizer_state))
            for c in run.checkpoints
        ],
        "tensors": [
            (n, t.shape, t.dtype, t.layout, t.read().tobytes())
            for c in run.checkpoints
            for n, t in c.parameters.items()
        ],
    }


def save(folder: Path, step: int, width: int = 8, **more: Any) -> Path:
    """A torch file of a small network after some steps."""
    generator = torch.Generator().manual_seed(3)
    weights = {
        f"layers.{i}.weight": torch.randn(width, width, generator=generator) + 0.01 * step * torch.ones(width, width)
        for i in range(4)
    }
    folder.mkdir(exist_ok=True)
    path = folder / f"step_{step:05d}.pt"
    torch.save({"model": weights, "step": step, **more}, path)
    return path


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_read_from_elsewhere_as_from_here(name: str, tmp_path: Path, server: Server) -> None:
    here = tmp_path / "one" / "run"
    shutil.copytree(GOLDEN / name, here)
    expected = told(load_run(here), str(here))
    assert expected["tensors"]
    url = to_memory(here)
    assert told(load_run(url), url) == expected
    url = f"{server.url}/one/run"
    assert told(load_run(url + "/"), url) == expected


def test_listing_a_large_torch_file_costs_few_requests(tmp_path: Path, server: Server) -> None:
    path = save(tmp_path / "run", 10, width=600)  # 4 × 1.4 MB
    run = load_run(f"{server.url}/run/{path.name}")
    assert len(server.requests) <= 4
    assert server.bytes_sent < 400_000
    before = server.bytes_sent
    array = run.checkpoints[0].parameters["layers.2.weight"].read()
    expected = torch.load(path)["model"]["layers.2.weight"].numpy()
    assert np.array_equal(array, expected)
    assert len(server.requests) <= 5
    assert server.bytes_sent - before <= array.nbytes


def test_a_legacy_file_and_an_npz_are_listed_with_requests_side_by_side(tmp_path: Path, server: Server) -> None:
    weights = {f"w{i}": torch.randn(300, 300) for i in range(12)}
    torch.save(weights, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    np.savez(tmp_path / "arrays.npz", **{n: w.numpy() for n, w in weights.items()})
    for name in ("old.pt", "arrays.npz"):
        before, sent = len(server.requests), server.bytes_sent
        run = load_run(f"{server.url}/{name}")
        assert len(server.requests) - before <= 20
        assert server.bytes_sent - sent < 600_000
        found = run.checkpoints[0].parameters
        assert all(np.array_equal(found[n].read(), w.numpy()) for n, w in weights.items())


def test_safetensors_are_listed_in_one_request(tmp_path: Path, server: Server) -> None:
    save_file({f"w{i}": torch.randn(500, 500) for i in range(4)}, tmp_path / "model.safetensors")
    run = load_run(f"{server.url}/model.safetensors")
    assert len(run.checkpoints[0].parameters) == 4
    # what lies there, its first block; the probes of the order of a sequence are not needed for one file
    assert server.bytes_sent < 200_000


def test_headers_of_members_that_are_not_aligned_are_read(tmp_path: Path, server: Server) -> None:
    """A zip that another tool wrote anew: the room between its members says nothing sure."""
    import zipfile

    source = save(tmp_path / "made", 5, width=200)
    (tmp_path / "run").mkdir()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(tmp_path / "run" / "step_5.pt", "w") as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    run = load_run(f"{server.url}/run/step_5.pt")
    expected = torch.load(source)["model"]
    found = run.checkpoints[0].parameters
    assert all(np.array_equal(found[n].read(), w.numpy()) for n, w in expected.items())


def test_the_whole_analysis_reads_every_byte_once(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "run"
    for step in range(0, 60, 10):
        save(folder, step, width=500)
    total = sum(p.stat().st_size for p in folder.iterdir())
    here = smd_analyze.analyze(folder)
    run = load_run(f"{server.url}/run/")
    before = server.bytes_sent
    stats = smd_analyze.measure(run, smd_analyze.find_groups(run))
    assert server.bytes_sent - before <= total
    assert_frame_equal(stats.table, here.statistics, rel_tol=1e-12, abs_tol=1e-15)  # sums of other pieces: last bits
    before = server.bytes_sent
    there = smd_analyze.analyze(f"{server.url}/run/")
    assert server.bytes_sent - before < 2 * total  # what was listed is known; the order is checked on a few tensors
    assert there.layers.height == here.layers.height
    kept = smd_analyze.analyze(to_memory(folder))
    assert_frame_equal(kept.statistics, here.statistics, rel_tol=1e-12, abs_tol=1e-15)


def test_a_report_of_files_elsewhere_is_used_again(tmp_path: Path) -> None:
    for step in (0, 10, 20):
        save(tmp_path / "run", step)
    url = to_memory(tmp_path / "run")
    report = tmp_path / "report.h5"
    first = smd_analyze.analyze(url, output=report)
    seen: list[str] = []
    again = smd_analyze.analyze(url, output=report, progress=lambda _, what: seen.append(what))
    assert again.statistics.equals(first.statistics)
    assert not any("measured" in what for what in seen)
    save(tmp_path / "run", 20, width=8, note="written anew")
    to_memory(tmp_path / "run")
    smd_analyze.analyze(url, output=report, progress=lambda _, what: seen.append(what))
    assert any("measured" in what for what in seen)


@pytest.mark.parametrize("where", ["memory", "http"])
def test_a_file_that_changes_after_it_was_listed_is_damaged(where: str, tmp_path: Path, server: Server) -> None:
    for step in (0, 10):
        save(tmp_path / "run", step, width=300)
    url = to_memory(tmp_path / "run") if where == "memory" else f"{server.url}/run"
    run = load_run(url)
    path = save(tmp_path / "run", 10, width=300, note="another")
    if where == "memory":
        fsspec.filesystem("memory").pipe_file(f"/run/{path.name}", path.read_bytes())
    assert run.checkpoints[0].parameters["layers.1.weight"].read().shape == (300, 300)
    with pytest.raises(DamagedFile, match="changed while it was being read"):
        run.checkpoints[1].parameters["layers.1.weight"].read()
    groups = smd_analyze.find_groups(run)
    stats = smd_analyze.measure(run, groups)
    assert [f.code for f in stats.findings if f.severity == "error"] == ["changed-file"]
    assert stats.table.filter(step=10)["weight_norm"].null_count() == 4
    assert stats.table.filter(step=0)["weight_norm"].null_count() == 0


def test_a_server_without_ranges_gives_small_files_whole_and_refuses_large_ones(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ranges = False
    for step in (0, 10):
        save(tmp_path / "run", step, width=100)
    run = load_run(f"{server.url}/run")
    assert [c.step for c in run.checkpoints] == [0, 10]
    assert smd_analyze.analyze(f"{server.url}/run").statistics["weight_norm"].null_count() == 0
    monkeypatch.setattr(remote_http, "LARGEST_WHOLE", 100_000)
    monkeypatch.setattr(remote_blocks, "KEPT_PARTS", remote_blocks._Kept(remote_blocks.KEPT))
    before = server.bytes_sent
    with pytest.raises(Unreachable, match="no byte ranges, and this one is large: copy it first"):
        load_run(f"{server.url}/run/step_00000.pt")
    assert server.bytes_sent - before < 400_000


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (404, "no such file or folder"),
        (403, "access is refused"),
        (401, "access is refused"),
        (500, "cannot be reached"),
    ],
)
def test_what_a_server_refuses_is_one_sentence(code: int, words: str, tmp_path: Path, server: Server) -> None:
    def refuse(handler: Handler, path: str) -> bool:
        handler.send(code, b"no", "text/plain", True)
        return True

    server.misbehave = refuse
    with pytest.raises((NothingToAnalyse, Unreachable), match=words):
        load_run(f"{server.url}/run")


def test_one_file_that_is_refused_is_a_finding_and_the_rest_goes_on(tmp_path: Path, server: Server) -> None:
    for step in (0, 10, 20):
        save(tmp_path / "run", step)

    def refuse(handler: Handler, path: str) -> bool:
        if "00010" in path:
            handler.send(403, b"no", "text/plain", True)
        return "00010" in path

    server.misbehave = refuse
    run = load_run(f"{server.url}/run")
    assert [c.step for c in run.checkpoints] == [0, 20]
    assert [f.where.rpartition("/")[2] for f in run.findings if f.code == "unreadable-file"] == ["step_00010.pt"]


def test_what_passes_is_tried_again(tmp_path: Path, server: Server) -> None:
    path = save(tmp_path / "run", 10)
    failures = [503, 0, "cut"]

    def stumble(handler: Handler, _: str) -> bool:
        if not failures or handler.command == "HEAD":
            return False
        kind = failures.pop(0)
        if kind == 503:
            handler.send(503, b"later", "text/plain", True)
        elif kind == "cut":  # half of what the header promises, then nothing
            handler.send_response(206)
            handler.send_header("Content-Length", "4096")
            handler.send_header("Content-Range", f"bytes 0-4095/{path.stat().st_size}")
            handler.end_headers()
            handler.wfile.write(b"x" * 100)
            handler.close_connection = True
        else:
            handler.close_connection = True
        return True

    server.misbehave = stumble
    run = load_run(f"{server.url}/run/{path.name}")
    assert run.checkpoints[0].step == 10
    assert not failures


def test_bodies_that_always_break_off_are_an_error(tmp_path: Path, server: Server) -> None:
    path = save(tmp_path / "run", 10)

    def cut(handler: Handler, _: str) -> bool:
        handler.send_response(206)
        handler.send_header("Content-Length", "4096")
        handler.send_header("Content-Range", "bytes 0-4095/10000")
        handler.end_headers()
        handler.wfile.write(b"x" * 100)
        handler.close_connection = True
        return True

    server.misbehave = cut
    with pytest.raises(Unreachable, match="cannot be reached"):
        load_run(f"{server.url}/run/{path.name}")


def test_a_server_that_says_nothing_is_not_waited_for(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(tmp_path / "run", 10)
    monkeypatch.setattr(remote_http, "WAIT", 0.1)
    tries: list[str] = []

    def hang(handler: Handler, _: str) -> bool:
        tries.append(handler.path)
        time.sleep(0.3)
        return False

    server.misbehave = hang
    with pytest.raises(Unreachable, match="cannot be reached.*[Tt]imeout"):
        load_run(f"{server.url}/run/{path.name}")
    assert len(tries) == 3


def test_a_single_file_is_looked_at_anew(tmp_path: Path) -> None:
    path = save(tmp_path / "run", 10)
    url = to_memory(tmp_path / "run")
    assert load_run(url).checkpoints[0].step == 10
    torch.save({"model": {"a": torch.ones(3, 3)}, "step": 11}, path)
    to_memory(tmp_path / "run")
    assert load_run(f"{url}/{path.name}").checkpoints[0].step == 11
    assert load_run(url).checkpoints[0].step == 11


def test_an_index_names_a_checkpoint_where_no_folder_can_be_listed(tmp_path: Path, server: Server) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    save_file({"a.weight": torch.ones(4, 4)}, folder / "model-00001-of-00002.safetensors")
    save_file({"b.weight": torch.ones(4, 4)}, folder / "model-00002-of-00002.safetensors")
    index = {"a.weight": "model-00001-of-00002.safetensors", "b.weight": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 70}))

    def no_listing(handler: Handler, path: str) -> bool:
        if path.endswith("/model") or path.endswith("/"):
            handler.send(403, b"no listing", "text/plain", True)
            return True
        return False

    server.misbehave = no_listing
    run = load_run(f"{server.url}/model/model.safetensors.index.json")
    assert [(c.step, sorted(c.parameters)) for c in run.checkpoints] == [(70, ["a.weight", "b.weight"])]
    assert load_run(folder / "model.safetensors.index.json").checkpoints[0].step == 70


def test_names_that_a_page_writes_in_another_way(tmp_path: Path, server: Server) -> None:
    for epoch in (1, 2):
        path = save(tmp_path / "my run", epoch)
        path.rename(path.with_name(f"epoch={epoch}-100%#{epoch}.ckpt"))
    run = load_run(f"{server.url}/my%20run")
    assert len(run.checkpoints) == 2
    assert all(np.isfinite(t.read()).all() for c in run.checkpoints for t in c.parameters.values())


def test_links_out_of_the_page_are_not_followed(tmp_path: Path, server: Server) -> None:
    save(tmp_path / "run", 10)
    asked: list[str] = []

    def page(handler: Handler, path: str) -> bool:
        asked.append(path)
        if path.rstrip("/") != "/run":
            return False
        links = [
            "step_00010.pt",
            "/etc/passwd",
            "http://127.0.0.1:1/x.pt",
            "../other/",
            "a/b/c.pt",
            "?C=N",
            "mailto:me",
        ]
        body = "".join(f'<a href="{link}">x</a>' for link in links)
        handler.send(200, body.encode(), "text/html", True)
        return True

    server.misbehave = page
    assert len(load_run(f"{server.url}/run").checkpoints) == 1
    assert {path.rstrip("/") for path in asked} == {"/run", "/run/step_00010.pt"}


def test_a_missing_back_end_is_named_with_its_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import fsspec.core

    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    with pytest.raises(MissingLibrary, match=r"s3fs.*pip install 'smd-analyze\[remote\]'"):
        load_run("s3://bucket/run")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("nonsense://x/y", "nonsense"),
        ("simplecache::memory://run", "chains of URLs"),
        ("https://huggingface.co/org/model", "hf://org/model"),
    ],
)
def test_urls_that_cannot_be_read(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        load_run(url)


def test_file_urls_are_local_paths(tmp_path: Path) -> None:
    path = save(tmp_path / "run", 10)
    run = load_run(f"file://{path.parent}")
    assert run.checkpoints[0].path == str(path)


def test_orbax_elsewhere_is_said_to_need_a_copy(tmp_path: Path) -> None:
    (tmp_path / "run" / "10").mkdir(parents=True)
    (tmp_path / "run" / "10" / "_METADATA").write_text("{}")
    with pytest.raises(NothingToAnalyse, match=r"Copy the folder to this machine first"):
        load_run(to_memory(tmp_path / "run"))


def test_requests_side_by_side_are_quicker_than_one_after_the_other(tmp_path: Path, server: Server) -> None:
    """Counts how many are under way at once, not the time."""
    for step in range(0, 80, 10):
        save(tmp_path / "run", step, width=300)
    now, most = [0], [0]

    def slow(handler: Handler, path: str) -> bool:
        now[0] += 1
        most[0] = max(most[0], now[0])
        time.sleep(0.005)
        now[0] -= 1
        return False

    run = load_run(f"{server.url}/run")
    groups = smd_analyze.find_groups(run)
    server.misbehave = slow
    smd_analyze.measure(run, groups)
    assert most[0] > 1


def test_loading_asks_one_room_for_files() -> None:
    """A path may be a URL: only few modules ask the system, among them those that read with tensorstore."""
    rooms = (
        "listing.py",
        "sources.py",
        "hub.py",
        "tensorstore_arrays.py",
        "tensorstore_folder.py",
        "orbax.py",
        "t5x.py",
    )
    asks = re.compile(
        r"os\.(walk|stat|listdir|scandir|open)\(|os\.path\.(exists|isfile|isdir)\("
        r"|Path\([^)]*\)\.(is_file|is_dir|exists|stat|read_\w+|iterdir|open|r?glob)\("
    )
    package = Path(smd_analyze.__file__).parent / "loading"
    found = [
        f"{path.relative_to(package)}:{number}"
        for path in package.rglob("*.py")
        if path.name not in rooms
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if asks.search(line)
    ]
    assert found == []
