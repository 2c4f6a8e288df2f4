"""Runs on the Hugging Face Hub: refs of one repository, in the cache of this machine and over hf://."""

import json
from pathlib import Path

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem
from safetensors.torch import save, save_file

from smd_analyze.errors import MissingLibrary, NothingToAnalyse
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.files import remote, remote_blocks
from smd_analyze.loading.units import hub


def commit(number: int) -> str:
    return f"{number:x}".rjust(40, "a")


def weights(step: float) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"layers.{i}.weight": torch.randn(16, 16, generator=generator) + 0.001 * step for i in range(2)}


class Cache:
    """One repository as huggingface_hub lays it out: blobs, snapshots that link to them, refs."""

    def __init__(self, home: Path, name: str = "models--org--tiny") -> None:
        self.folder = home / name
        (self.folder / "blobs").mkdir(parents=True)
        (self.folder / ".no_exist" / commit(1)).mkdir(parents=True)
        self.count = 0

    def snapshot(self, number: int, files: dict[str, bytes]) -> Path:
        folder = self.folder / "snapshots" / commit(number)
        for name, data in files.items():
            blob = self.folder / "blobs" / f"{hash((name, data)) & 0xFFFFFFFFFFFF:064x}"
            blob.write_bytes(data)
            link = folder / name
            link.parent.mkdir(parents=True, exist_ok=True)
            up = "../" * (2 + name.count("/"))
            link.symlink_to(f"{up}blobs/{blob.name}")
        return folder

    def ref(self, name: str, number: int) -> None:
        path = self.folder / "refs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit(number))


def model(step: float) -> dict[str, bytes]:
    return {"model.safetensors": save(weights(step)), "config.json": b"{}"}


@pytest.mark.parametrize(
    ("pattern", "numbers"),
    [
        ("step{}", (1, 8, 1000)),
        ("step-{:06d}-{}BT", (1000, 2000, 10000)),
        ("step{}-tokens{}B", (1000, 2000, 10000)),
        ("global_step{}", (500, 5000, 10000)),
    ],
)
def test_refs_name_the_checkpoints_and_their_steps(pattern: str, numbers: tuple[int, ...], tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for index, number in enumerate(reversed(numbers)):
        cache.snapshot(index + 1, model(number))
        cache.ref(pattern.format(number, 2 * number // 1000), index + 1)
    run = load_run(cache.folder)
    assert [c.step for c in run.checkpoints] == list(numbers)
    assert run.ordered_by.startswith("number in the name") or "name" in run.ordered_by
    for checkpoint, number in zip(run.checkpoints, numbers, strict=True):
        assert torch.equal(checkpoint.parameters["layers.1.weight"].load(), weights(number)["layers.1.weight"])


def test_main_is_a_label(tmp_path: Path) -> None:
    """As pythia has it: `main` is another commit than the last step, with the same weights."""
    cache = Cache(tmp_path)
    for number, step in enumerate((1000, 2000, 3000)):
        cache.snapshot(number + 1, model(step))
        cache.ref(f"step{step}", number + 1)
    cache.snapshot(9, {**model(3000), "README.md": b"the last one"})
    cache.ref("main", 9)
    run = load_run(cache.folder)
    assert [c.step for c in run.checkpoints] == [1000, 2000, 3000]
    assert run.aliases == {"main": run.checkpoints[-1].path}


def test_two_refs_to_one_commit_are_one_checkpoint(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, step in enumerate((1000, 2000, 3000)):
        cache.snapshot(number + 1, model(step))
        cache.ref(f"step{step}", number + 1)
    cache.ref("main", 3)
    cache.ref("pr/1", 2)  # a pull request is no checkpoint
    run = load_run(cache.folder)
    assert [c.step for c in run.checkpoints] == [1000, 2000, 3000]
    assert run.aliases == {"main": run.checkpoints[-1].path}


def test_shards_with_their_index_and_the_trainers_folders_in_a_snapshot(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, step in enumerate((10, 20)):
        tensors = weights(step)
        index = {name: f"model-0000{i + 1}-of-00002.safetensors" for i, name in enumerate(tensors)}
        files = {shard: save({name: tensors[name]}) for name, shard in index.items()}
        files["model.safetensors.index.json"] = json.dumps({"weight_map": index}).encode()
        cache.snapshot(number + 1, files)
        cache.ref(f"step{step}", number + 1)
    run = load_run(cache.folder)
    assert [(c.step, c.format, len(c.parameters)) for c in run.checkpoints] == [
        (10, "safetensors shards", 2),
        (20, "safetensors shards", 2),
    ]


def test_what_is_not_whole_is_said(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number, step in enumerate((1000, 2000, 3000)):
        cache.snapshot(number + 1, model(step))
        cache.ref(f"step{step}", number + 1)
    cache.snapshot(7, model(7))  # no ref
    cache.ref("step4000", 8)  # no snapshot
    cache.snapshot(10, {"config.json": b"{}"})
    cache.ref("step5000", 10)  # no weights
    folder = cache.snapshot(11, model(6000))
    cache.ref("step6000", 11)
    (folder / "model.safetensors").resolve().unlink()  # its blob is not there
    (cache.folder / "blobs" / "abc.incomplete").write_bytes(b"x")
    run = load_run(cache.folder)
    assert [c.step for c in run.checkpoints] == [1000, 2000, 3000]
    found = {(f.code, Path(f.where).name) for f in run.findings}
    assert {
        ("snapshot-without-ref", commit(7)),
        ("missing-snapshot", "step4000"),
        ("no-weights", commit(10)),
        ("damaged-file", "model.safetensors"),
        ("unfinished-download", "models--org--tiny"),
    } <= found


def test_a_link_out_of_the_cache_is_refused(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "hub")
    for number, step in enumerate((1000, 2000)):
        cache.snapshot(number + 1, model(step))
        cache.ref(f"step{step}", number + 1)
    save_file(weights(3000), tmp_path / "elsewhere.safetensors")
    folder = cache.folder / "snapshots" / commit(3)
    folder.mkdir()
    (folder / "model.safetensors").symlink_to(tmp_path / "elsewhere.safetensors")
    cache.ref("step3000", 3)
    run = load_run(cache.folder)
    assert [c.step for c in run.checkpoints] == [1000, 2000]
    assert [f.code for f in run.findings if "link out of the cache" in f.message] == ["unsafe-file"]


def test_snapshots_without_any_ref_are_read_by_their_commits(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for number in (1, 2):
        cache.snapshot(number, model(number))
    run = load_run(cache.folder)
    assert len(run.checkpoints) == 2
    assert any(f.code == "snapshot-without-ref" and f.severity == "warning" for f in run.findings)


def test_a_model_that_has_only_main(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.snapshot(1, model(5))
    cache.ref("main", 1)
    run = load_run(cache.folder)
    assert [c.path for c in run.checkpoints] == [str(cache.folder / "snapshots" / commit(1))]


def test_one_snapshot_is_an_ordinary_folder(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    folder = cache.snapshot(1, model(5))
    run = load_run(folder)
    assert len(run.checkpoints) == 1
    assert torch.equal(run.checkpoints[0].parameters["layers.0.weight"].load(), weights(5)["layers.0.weight"])


def test_the_whole_cache_holds_several_runs(tmp_path: Path) -> None:
    for name in ("models--org--one", "models--org--two"):
        cache = Cache(tmp_path, name)
        for number, step in enumerate((10, 20, 30)):
            cache.snapshot(number + 1, model(step))
            cache.ref(f"step{step}", number + 1)
    run = load_run(tmp_path, run="models--org--two")
    assert [c.step for c in run.checkpoints] == [10, 20, 30]
    assert all("models--org--two" in c.path for c in run.checkpoints)


class FakeHub(MemoryFileSystem):
    """hf://org/tiny@revision/file in memory. The store is its own, as are the paths: without a slash in front."""

    protocol = "hf"
    store: dict = {}
    pseudo_dirs: list = [""]

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.removeprefix("hf://"))


@pytest.fixture
def fake_hub(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A Hub with one repository; returns its refs, name → commit."""
    fsspec.register_implementation("hf", FakeHub, clobber=True)
    refs: dict[str, str] = {}
    monkeypatch.setattr(hub, "list_refs", lambda url: refs)
    monkeypatch.setattr(remote, "LISTED", remote.Listed())
    monkeypatch.setattr(remote, "CONNECTED", {})
    monkeypatch.setattr(remote_blocks, "KEPT_PARTS", remote_blocks._Kept(remote_blocks.KEPT))
    FakeHub.store.clear()
    return refs


def push(revision: str, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        fsspec.filesystem("hf").pipe_file(f"org/tiny@{revision}/{name}", data)


def test_branches_and_tags_of_a_repository(fake_hub: dict[str, str]) -> None:
    for number, step in enumerate((1000, 2000, 3000)):
        push(commit(number), model(step))
        fake_hub[f"step{step}"] = commit(number)
    fake_hub["main"] = commit(2)
    fake_hub["refs/pr/4"] = commit(1)
    run = load_run("hf://org/tiny")
    assert [c.step for c in run.checkpoints] == [1000, 2000, 3000]
    assert run.aliases == {"main": f"hf://org/tiny@{commit(2)}"}
    assert torch.equal(run.checkpoints[1].parameters["layers.0.weight"].load(), weights(2000)["layers.0.weight"])


def test_branches_with_slashes_and_one_revision(fake_hub: dict[str, str]) -> None:
    push(commit(1), model(10))
    push(commit(2), model(20))
    push("stage1%2Fstep10", model(10))
    fake_hub |= {"stage1/step10": commit(1), "stage1/step20": commit(2)}
    assert [c.step for c in load_run("hf://org/tiny").checkpoints] == [10, 20]
    assert len(load_run("hf://org/tiny@stage1%2Fstep10").checkpoints) == 1


def test_a_repository_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(url: str) -> dict[str, str]:
        raise FileNotFoundError(url)

    monkeypatch.setattr(hub, "list_refs", refused)
    with pytest.raises(NothingToAnalyse, match="no such"):
        load_run("hf://org/absent")


def test_the_refs_are_asked_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    api = pytest.importorskip("huggingface_hub")

    class Ref:
        def __init__(self, name: str, target_commit: str) -> None:
            self.name, self.target_commit = name, target_commit

    class Answer:
        branches = (Ref("main", "c2"),)
        tags = (Ref("step1", "c1"),)

    asked: list[str] = []
    monkeypatch.setattr(api.HfApi, "list_repo_refs", lambda self, name: asked.append(name) or Answer)
    assert hub.list_refs("hf://org/tiny") == {"main": "c2", "step1": "c1"}
    assert asked == ["org/tiny"]


def test_without_the_library_the_pip_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingLibrary, match=r"pip install 'smd-analyze\[remote\]'"):
        hub.list_refs("hf://org/tiny")
