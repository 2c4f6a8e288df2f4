"""What becomes a group, how it is called, and that every parameter is accounted for."""

import subprocess
import sys

import pytest
from invariance_runs import norm, run_of, status_of

from smd_analyze.errors import NothingToAnalyse, UsageError
from smd_analyze.invariance.explaining import explain
from smd_analyze.invariance.grouping import find_groups, parameters_of
from smd_analyze.invariance.tables import groups_of
from smd_analyze.invariance.verdicts import Verdict

SHAPES = {"features.0.weight": (8, 3, 3, 3), "features.0.bias": (8,)} | norm("features.1", 8)
SHAPES |= {"fc.weight": (5, 8), "fc.bias": (5,)}


def names(groups):
    return [g.name for g in groups.groups]


def test_every_parameter_has_a_row_and_weights_are_groups():
    groups = find_groups(run_of(SHAPES, groups={"decay": ("features.0.weight", "fc.weight")}))
    assert [r.parameter for r in groups.parameters] == [n for n in SHAPES if "running" not in n]
    assert names(groups) == ["features.0", "fc"]
    conv, fc = groups.groups
    assert (conv.status, conv.granularity, conv.units, conv.numel, conv.role) == ("invariant", "unit", 8, 216, "conv")
    assert (fc.status, fc.granularity, fc.units, fc.role) == ("not invariant", "", 5, "linear")
    assert {g.parameter_group for g in groups.groups} == {"decay"}
    assert {r.evidence for r in groups.parameters} == {"guessed"}
    assert groups.source == "names and shapes"
    assert all(r.reason for r in groups.parameters)


def test_include_and_exclude():
    run = run_of(SHAPES)
    assert names(find_groups(run, include=["features.1.*"])) == ["features.1", "features.1.bias"]
    assert names(find_groups(run, exclude=["fc.*"])) == ["features.0"]
    assert names(find_groups(run, include=["*"], exclude=["features.*"])) == ["fc", "fc.bias"]
    missing = find_groups(run, include=["nothing.*"])
    assert missing.groups == ()
    assert [(f.code, f.where) for f in missing.findings] == [("glob-without-match", "nothing.*")]


def test_a_joint_set_is_included_and_excluded_as_one():
    run = run_of({"0.weight": (8, 7), "0.bias": (8,), "1.weight": (8,), "1.bias": (8,)})
    assert names(find_groups(run, include=["0.weight"])) == ["0+bias"]
    assert names(find_groups(run, exclude=["0.bias"])) == []


def test_names_stay_unique():
    groups = find_groups(run_of({"a.weight": (4, 4), "a.kernel": (4, 4), "a": (4, 4)}))
    assert names(groups) == ["a", "a.kernel", "a (2)"]


def test_the_shape_most_checkpoints_have_counts():
    earlier = [{"a.weight": (133, 4)}, {"a.weight": (133, 4), "b.weight": (2, 2)}]
    run = run_of({"a.weight": (129, 4)}, more=earlier)
    assert {n: t.shape for n, t in parameters_of(run).items()} == {"a.weight": (133, 4), "b.weight": (2, 2)}


def test_a_run_without_parameters():
    with pytest.raises(NothingToAnalyse, match="no checkpoint of the run holds a parameter"):
        find_groups(run_of({}))


def test_slices_of_one_tensor_are_groups_of_their_own():
    run = run_of({"qkv.weight": (12, 4)})
    tensors = parameters_of(run)
    verdicts = [
        Verdict("qkv.weight", "linear", "invariant", "r", "proved", "block", 0, (0, 8), 4),
        Verdict("qkv.weight", "linear", "not invariant", "r", "not proved", "", 0, (8, 12), 4),
    ]
    groups = groups_of(verdicts, tensors, {}, "graph of x")
    assert [(g.name, g.units, g.numel, g.members[0].start, g.members[0].stop) for g in groups.groups] == [
        ("qkv[0:8]", 4, 32, 0, 8),
        ("qkv[8:12]", 4, 16, 8, 12),
    ]
    assert [r.slice for r in groups.parameters] == ["0:8", "8:12"]


def test_explain_gives_verdict_reason_and_evidence():
    groups = find_groups(run_of(SHAPES))
    text = explain(groups, "features.0.weight")
    for word in ("invariant", "8 × 3 × 3 × 3", "unit", "features.1", "guessed", "names and shapes"):
        assert word in text
    assert explain(groups, "features.0") == text
    assert "--include" in explain(groups, "fc.bias")


def test_explain_suggests_close_names():
    groups = find_groups(run_of(SHAPES))
    with pytest.raises(UsageError, match=r"features\.0\.weight"):
        explain(groups, "feature.0.weight")


def test_without_a_model_torch_is_not_imported():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from invariance_runs import run_of;"
        "from smd_analyze.invariance.grouping import find_groups;"
        "find_groups(run_of({'a.weight': (2, 2)})); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(__import__("pathlib").Path(__file__).parent)], check=True)


def test_status_of_a_dead_bias():
    assert status_of(find_groups(run_of(SHAPES)), "features.0.bias") == ("dead", "")
