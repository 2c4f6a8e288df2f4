"""Files that hold their own graph, torch.export's, TorchScript's, modules saved whole: verdicts as of the model."""

import json
import re
import warnings
import zipfile

import pytest
import torch
from torch import nn
from zoo import ZOO

from smd_analyze.errors import UsageError
from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.sources.registry import build, known
from smd_analyze.invariance.tracing import trace
from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.pickles import object_trees
from smd_analyze.records.run import GraphHint

UNIT = ("invariant", "unit", "proved")
CASES = ("recurrent", "pre_norm_encoder_layer", "three_embeddings_under_one_norm", "tied_transposed")


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)

    def forward(self, x):
        return torch.relu(x + self.norm(self.conv(x)))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm, self.block = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), Block(8)
        self.drop, self.head = nn.Dropout(0.1), nn.Linear(8, 5)

    def forward(self, x):
        x = self.block(torch.relu_(self.norm(self.stem(x))))
        return self.head(self.drop(x.mean((2, 3))))


class Stopped(Net):
    """Batch normalizations that stay in eval mode, one of them."""

    def forward(self, x):
        self.norm.eval()
        return super().forward(x)


def export(model, inputs, path):
    torch.export.save(torch.export.export(model, inputs, strict=False), path)


def script(model, inputs, path):
    torch.jit.save(torch.jit.script(model), path)


def record(model, inputs, path):
    torch.jit.save(torch.jit.trace(model, inputs, check_trace=False), path)


def saved(folder, save, make, inputs, train, ending="pt"):
    """A run of two checkpoints that differ in weights and running statistics."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in (10, 20):
            torch.manual_seed(step)
            model = make()
            with torch.no_grad():
                model.train()(*inputs)
            save(model.train(train), inputs, folder / f"net-{step}.{ending}")
    return load_run(folder)


def rows(groups):
    return {r.parameter: (r.status, r.granularity, r.evidence) for r in groups.parameters}


def verdicts(graph):
    return {p: [(v.status, v.granularity, v.axis, v.units) for v in found] for p, found in analyse(graph)[0].items()}


@pytest.mark.parametrize("train", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize(
    ("save", "ending"), [(export, "pt2"), (script, "pt"), (record, "pt")], ids=["export", "script", "trace"]
)
def test_a_file_proves_what_its_model_would(tmp_path, save, ending, train):
    run = saved(tmp_path, save, Net, (torch.randn(4, 3, 8, 8),), train, ending)
    found = find_groups(run)
    assert found.source.startswith("graph of ")
    assert rows(found) == rows(find_groups(run, model=Net, inputs=(torch.zeros(4, 3, 8, 8),)))
    assert rows(found)["stem.weight"] == rows(found)["block.conv.weight"] == UNIT
    assert ("read-as-training" in [f.code for f in found.findings]) is not train
    assert ("read as in training" in found.source) is not train
    reason = next(r.reason for r in found.parameters if r.parameter == "block.conv.weight")
    assert "block.norm (BatchNorm2d)" in reason


@pytest.mark.parametrize("name", CASES)
def test_an_exported_program_is_the_model(tmp_path, name):
    torch.manual_seed(0)
    model, inputs, _ = ZOO[name]()
    expected = verdicts(trace(model, inputs, {}, name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        export(model.eval(), inputs, tmp_path / "net-1.pt2")
    (source, hint), *_ = known(load_run(tmp_path).graphs)
    built = build(source, hint, {})
    assert verdicts(trace(built.network, *built.inputs, built.label)) == expected


def test_norms_that_alone_are_in_eval_mode_stay_frozen(tmp_path):
    run = saved(tmp_path, export, Stopped, (torch.randn(4, 3, 8, 8),), True, "pt2")
    found = rows(find_groups(run))
    assert found["stem.weight"][0] == "not invariant"
    assert found["block.conv.weight"] == UNIT


def test_symbolic_sizes_and_tied_weights_are_followed(tmp_path):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.table, self.norm, self.head = nn.Embedding(12, 8), nn.LayerNorm(8), nn.Linear(8, 12, bias=False)
            self.head.weight = self.table.weight

        def forward(self, tokens):
            h = self.norm(self.table(tokens))
            return self.head(h.reshape(tokens.shape[0] * tokens.shape[1], 8))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        free = {"tokens": {0: torch.export.Dim("batch")}}
        program = torch.export.export(Tied(), (torch.zeros(4, 6, dtype=torch.long),), dynamic_shapes=free)
        torch.export.save(program, tmp_path / "net-1.pt2")
    run = load_run(tmp_path)
    groups = find_groups(run)
    assert groups.source.startswith("graph of the program")
    assert rows(groups)["table.weight"][0] == "not invariant"  # as the head it is measured


def test_an_operation_that_is_not_atens_is_refused_by_name(tmp_path):
    run = saved(tmp_path, export, Net, (torch.randn(4, 3, 8, 8),), True, "pt2")
    (source, hint), *_ = known(run.graphs)
    told = json.loads(json.dumps(hint.read()))
    told["program"]["graph_module"]["graph"]["nodes"][0]["target"] = "os.system"
    hint = type(hint)(hint.kind, hint.source, lambda: told)
    with pytest.raises(
        UsageError, match=r"calls os\.system, which is no operation of aten; give the model with --model"
    ):
        build(source, hint, {})


@pytest.mark.parametrize("change", [{"program": 3}, {"program": {"graph_module": {}}}, {}], ids=str)
def test_a_program_that_makes_no_sense_is_a_finding(tmp_path, change):
    run = saved(tmp_path, export, Net, (torch.randn(4, 3, 8, 8),), True, "pt2")
    hint = type(run.graphs[0])("exported program", "a.pt2", lambda: change)
    groups = find_groups(type(run)(run.path, run.checkpoints, "name", "steps", graphs=(hint,)))
    assert groups.source == "names and shapes"
    assert [f.code for f in groups.findings] == ["graph-not-used"]
    assert "cannot be followed" in groups.findings[0].message


def test_branches_that_the_data_decide_are_refused(tmp_path):
    class Branch(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(6, 6)

        def forward(self, x):
            return self.a(x) if bool(x.sum() > 0) else -x

    run = saved(tmp_path, script, Branch, (torch.ones(4, 6),), True)
    groups = find_groups(run)
    assert groups.source == "names and shapes"
    assert any("the data decide" in f.message for f in groups.findings)


def test_loops_over_known_numbers_are_followed(tmp_path):
    class Loop(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Linear(6, 6, bias=False) for _ in range(3))
            self.norm, self.times = nn.LayerNorm(6), 2

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            for _ in range(self.times):
                x = self.norm(x) + x
            return self.norm(x)

    found = rows(find_groups(saved(tmp_path, script, Loop, (torch.ones(4, 6),), True)))
    assert {found[f"layers.{i}.weight"][0] for i in range(3)} == {"not invariant"}


class Lists(nn.Module):
    """Lists that grow, and a shape that is computed."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.norm = nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False), nn.LayerNorm(12)

    def forward(self, x):
        found: list[torch.Tensor] = []
        found.append(self.a(x))
        found.append(self.b(x))
        return self.norm(torch.cat(found, 1).view(x.size(0), x.size(1) * 2))


@pytest.mark.parametrize("save", [script, record])
def test_lists_and_shapes_are_followed(tmp_path, save):
    found = rows(find_groups(saved(tmp_path, save, Lists, (torch.ones(4, 6),), True)))
    assert {found["a.weight"], found["b.weight"]} == {("jointly invariant", "whole", "proved")}


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("return torch.insert([x], 0, x)", r"torch\.insert"),  # what changes a list is followed, or refused
        ("return ops.quantized.add(x, x)", "quantized"),
        ("return torch.system(x)", r"torch\.system"),
        ("return __import__", "__import__"),
        ("return x.__class__", "__class__"),
        ("while torch.eq(1, 1):\n      pass", "does not come to an end"),
        ("return torch.mul([0], 1000000000000)", "a list is repeated"),
        ("import os", "a statement import"),
        ("return (lambda: x)()", "an expression lambda"),
        ("return (self).forward(x)", "without end"),
    ],
)
def test_code_that_is_not_followed_is_refused_by_name(line, why):
    code = (
        f"class Net(Module):\n  __parameters__ = ['w', ]\n  def forward(self: Net, x: Tensor) -> Tensor:\n    {line}\n"
    )
    root = {"object": "__torch__.Net", "fields": {"w": {"tensor": [2], "dtype": "float32", "at": 0}, "training": True}}
    told = {"root": root, "code": {"__torch__.py": code}, "constants": [], "inputs": []}
    hint = GraphHint("torchscript", "net.pt", lambda: told)
    (source, _), *_ = known([hint])
    network = build(source, hint, {}).network
    with pytest.raises(UsageError, match=why):
        trace(network, (torch.ones(2),), {}, "net")


def whole(model, inputs, path):
    torch.save(model, path)


def stack():
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Sequential(nn.Conv2d(8, 8, 3), nn.GroupNorm(8, 8), nn.Flatten()), nn.Linear(128, 4),
    )  # fmt: skip


def test_torchs_own_modules_saved_whole_are_put_together_again(tmp_path):
    run = saved(tmp_path, whole, stack, (torch.randn(4, 3, 8, 8),), True)
    groups = find_groups(run, inputs=(torch.zeros(4, 3, 8, 8),))
    assert groups.source.startswith("graph of the Sequential")
    assert rows(groups) == rows(find_groups(run, model=stack, inputs=(torch.zeros(4, 3, 8, 8),)))
    assert rows(groups)["0.weight"] == rows(groups)["3.0.weight"] == UNIT


def test_an_encoder_of_torchs_own_is_one_too(tmp_path):
    def encoder():
        return nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), 1)

    run = saved(tmp_path, whole, encoder, (torch.randn(4, 5, 16),), True)
    assert find_groups(run).source.startswith("graph of the TransformerEncoder")


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (Net, "stands in the code of .*Net, .*Block, which is never run"),
        (lambda: nn.Sequential(nn.Linear(4, 4), Block(2)), "the code of .*Block"),
        (lambda: nn.ModuleList([nn.Linear(4, 4)]), "a ModuleList is a list of layers"),
        (lambda: nn.utils.spectral_norm(nn.Linear(4, 4)), "the hooks on a Linear"),
    ],
    ids=["own class", "own class within", "list", "hooks"],
)
def test_modules_of_other_code_prove_nothing(tmp_path, make, why):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for step in (1, 2):
            torch.save(make(), tmp_path / f"net-{step}.pt")
    groups = find_groups(load_run(tmp_path))
    assert groups.source == "names and shapes"
    assert {r.evidence for r in groups.parameters} == {"guessed"}
    (finding,) = [f for f in groups.findings if f.code == "graph-not-used"]
    assert re.search(why, finding.message)
    assert "--model" in finding.message


def test_a_forward_put_on_an_instance_is_not_overlooked(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    model[0].forward = torch.relu
    torch.save(model, tmp_path / "net-1.pt")
    groups = find_groups(load_run(tmp_path))
    assert groups.source == "names and shapes"
    assert "forward of a Linear" in groups.findings[-1].message


def test_code_of_an_archive_is_bounded(tmp_path, monkeypatch):
    run = saved(tmp_path, script, Net, (torch.randn(4, 3, 8, 8),), True)
    monkeypatch.setattr(object_trees, "MOST_CODE", 100)
    groups = find_groups(run)
    assert groups.source == "names and shapes"
    assert "bytes of code" in groups.findings[-1].message


def test_the_graph_is_read_only_when_it_is_asked_for(tmp_path):
    run = saved(tmp_path, export, Net, (torch.randn(4, 3, 8, 8),), True, "pt2")
    for file in tmp_path.iterdir():
        damaged(file)
    groups = find_groups(run)
    assert groups.source == "names and shapes"
    assert "not sound JSON" in groups.findings[-1].message


def damaged(file):
    """The same archive with another first byte of its graph."""
    with zipfile.ZipFile(file) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("models/model.json")]
        start = archive.getinfo(name).header_offset
    raw = bytearray(file.read_bytes())
    at = raw.index(b"{", start + 30)
    raw[at : at + 1] = b"]"
    file.write_bytes(raw)
