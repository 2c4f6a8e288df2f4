"""Where the model comes from, and the sentence for each way that can go wrong."""

import pytest
import torch
from invariance_runs import run_of_model, status_of
from torch import nn

from smd_analyze.errors import UsageError
from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.specs import load_inputs, load_model

SOURCE = """
import torch
from torch import nn

def net():
    return nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

made = net()
number = 3

def inputs():
    return torch.zeros(4, 7)

def fails():
    raise RuntimeError("no data here")

def wrong():
    return 3

class Namespace:
    net = staticmethod(net)
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "my_spec_net.py").write_text(SOURCE)
    (tmp_path / "my_broken_net.py").write_text("import not_a_library_at_all")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def small():
    return nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


@pytest.mark.parametrize(
    "spec", ["my_spec_net.py:net", "my_spec_net:net", "my_spec_net:made", "my_spec_net.py:Namespace.net"]
)
def test_models_from_text(here, spec):
    groups = find_groups(run_of_model(small()), spec)
    assert groups.source == f"graph of {spec}"
    assert status_of(groups, "0.weight") == ("invariant", "unit")
    assert status_of(groups, "0.bias") == ("dead", "")


def test_file_may_lie_elsewhere(here):
    assert isinstance(load_model(f"{here}/my_spec_net.py:net"), nn.Sequential)


@pytest.mark.parametrize(
    "inputs", ["my_spec_net.py:inputs", torch.zeros(4, 7), (torch.zeros(4, 7),), lambda: torch.zeros(4, 7), None]
)
def test_inputs_of_every_kind(here, inputs):
    assert status_of(find_groups(run_of_model(small()), small, inputs), "0.weight") == ("invariant", "unit")


def test_keyword_inputs():
    assert load_inputs({"x": 1}) == ((), {"x": 1})


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("my_spec_net.py", "names no callable"),
        ("my_spec_net.py:nothing", "has no 'nothing'; it has .*net"),
        ("missing.py:net", "there is no file"),
        ("no_such_package.inner:net", "cannot be imported .ModuleNotFoundError"),
        ("my_broken_net.py:net", "not_a_library_at_all"),
        ("my_spec_net.py:fails", "failed when called without arguments .RuntimeError: no data here"),
        ("my_spec_net.py:wrong", "returned a int, not a torch.nn.Module"),
        ("my_spec_net.py:number", "is a int, not callable"),
    ],
)
def test_each_wrong_spec_has_its_sentence(here, spec, words):
    with pytest.raises(UsageError, match=words) as caught:
        load_model(spec)
    assert spec in str(caught.value)


def test_wrong_inputs(here):
    for spec, words in (
        ("my_spec_net.py:wrong", "returned a int"),
        ("my_spec_net.py:fails", "failed"),
        (3, "is a int"),
    ):
        with pytest.raises(UsageError, match=words):
            load_inputs(spec)


def test_inputs_that_do_not_fit_are_named():
    with pytest.raises(UsageError, match=r"\(4, 99\).*--inputs"):
        find_groups(run_of_model(small()), small, torch.zeros(4, 99))


def test_inputs_that_cannot_be_guessed():
    class Bare(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, a, b):
            return a * self.w + b

    with pytest.raises(UsageError, match="no example inputs can be guessed.*--inputs"):
        find_groups(run_of_model(Bare()), Bare)


# ------------------------------------------------------------------ names of the model and of the run


@pytest.mark.parametrize("prefix", ["", "module.", "model.net."])
def test_prefixes_of_wrappers_are_matched(prefix):
    groups = find_groups(run_of_model(small(), prefix=prefix), small)
    assert status_of(groups, f"{prefix}0.weight") == ("invariant", "unit")
    assert groups.findings == ()


def test_a_wrapped_model_matches_bare_names():
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = small()

        def forward(self, x):
            return self.inner(x)

    assert status_of(find_groups(run_of_model(small()), Wrapper), "0.weight") == ("invariant", "unit")


def test_what_does_not_match_is_a_finding_and_keeps_its_guess():
    other = nn.Sequential(nn.Linear(7, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 2))
    groups = find_groups(run_of_model(other), small)
    assert {f.code for f in groups.findings} == {"model-shape-differs", "not-in-model"}
    evidence = {r.parameter: r.evidence for r in groups.parameters}
    assert evidence["0.weight"] == "proved"
    assert evidence["3.weight"] == evidence["4.weight"] == "guessed"
    fewer = find_groups(run_of_model(small()[:2]), small)
    assert [f.code for f in fewer.findings] == ["not-in-run"]


def test_another_model_altogether():
    with pytest.raises(UsageError, match="is not the model of this run"):
        find_groups(run_of_model(small()), lambda: nn.Conv2d(3, 4, 3))
