"""The groups table as a newcomer sees it: invariant rows first, what repeats stands once, what to do is said."""

import io

import pytest
from rich.console import Console

from smd_analyze import tabulate
from smd_analyze.invariance.explaining import explain
from smd_analyze.records.finding import Finding
from smd_analyze.records.group import Group, Groups, Member, ParameterVerdict
from smd_analyze.views.json import groups_json
from smd_analyze.views.verdicts import print_groups

LAYERS = 28


def verdict(name, role, status, granularity, evidence, reason, part=""):
    shape = (8,) if role in ("norm gain", "bias") else (96, 8)
    return ParameterVerdict(name, part, shape, role, "0", status, granularity, name, evidence, reason)


def transformer(evidence="proved"):
    sure, unsure = (evidence, "not proved") if evidence == "proved" else (evidence, evidence)
    rows = [verdict("model.embed.weight", "embedding", "not invariant", "", unsure, "it reaches the output")]
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        norm = f"{at}.attn.q_norm (RMSNorm) divides its scale out"
        stream = f"on the way to {at}.norm (RMSNorm) it is added to parts; rescaling it (×) with x (÷)"
        rows += [
            verdict(f"{at}.attn.qkv.weight", "linear", "invariant", "block", sure, norm, "0:64 of every 96"),
            verdict(f"{at}.attn.qkv.weight", "linear", "not invariant", "", unsure, stream, "64:96 of every 96"),
            verdict(f"{at}.mlp.weight", "linear", "not invariant", "", unsure, stream),
            verdict(f"{at}.norm.weight", "norm gain", "not invariant", "", unsure, stream),
            verdict(f"{at}.mlp.bias", "bias", "not invariant", "", unsure, stream),
        ]
    member = Member("model.layers.0.attn.qkv.weight", 0, 0, 64, every=96)
    group = Group("qkv", (member,), "invariant", "block", 8, 512, "0", sure, "linear", "")
    return Groups(tuple(rows), (group,), "graph of m:net" if evidence == "proved" else "names and shapes")


def shown(groups, width=100, **options):
    file = io.StringIO()
    print_groups(groups, Console(file=file, width=width), **options)
    return file.getvalue()


@pytest.mark.parametrize("width", [48, 60, 72, 80, 100, 160])
def test_a_transformer_fits_one_screen_at_any_width(width):
    lines = shown(transformer(), width).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) < 60
    assert len(shown(transformer()).splitlines()) < 30


def test_what_is_said_and_in_which_order():
    text = shown(transformer())
    lines = text.splitlines()
    assert lines[0] == "113 parameters, by the graph of m:net"
    assert lines[1].split() == ["28", "invariant", "per", "block;", "proved"]
    assert lines[2].split()[:3] == ["113", "not", "invariant"]
    assert text.index("0:64 of every 96") < text.index("64:96 of every 96")
    assert "q_norm divides its scale out" in text.replace("\n", " ")
    assert "RMSNorm" not in text
    assert "rescaling" not in text
    assert text.count("norm.weight, …") == 1
    assert text.count(".mlp.bias, …") == 1
    assert "--model" not in text
    assert "--why" in text


def test_a_guess_says_what_to_do():
    assert "--model package.module:factory" in shown(transformer("guessed"))


def test_verbose_lists_every_row_with_the_whole_reason():
    text = shown(transformer(), 160, verbose=1)
    assert all(f"model.layers.{i}.mlp.weight" in text for i in range(LAYERS))
    assert text.count("rescaling") == 4 * LAYERS


def test_why_takes_a_glob():
    text = explain(transformer(), "model.layers.?.mlp.weight")
    assert text.count("because") == 10
    many = explain(transformer(), "*")
    assert many.endswith("101 more")


def test_json_holds_the_index_sets():
    groups = transformer()
    found = tabulate.findings({"invariance": [Finding("code", "note", "here", "text", "do")]})
    document = groups_json(groups, tabulate.parameters(groups), tabulate.groups(groups), found)
    (row,) = document["groups"]
    assert row["index_sets"] == [
        {"parameter": "model.layers.0.attn.qkv.weight", "axis": 0, "start": 0, "stop": 64, "shape": [], "every": 96}
    ]
    assert document["source"] == "graph of m:net"
    assert len(document["parameters"]) == 141
    assert document["findings"][0]["code"] == "code"
