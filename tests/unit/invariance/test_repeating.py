"""Fused tensors: one row for each slice, with the right index set, whether slices are contiguous or interleaved."""

import numpy as np
import pytest
import torch
from invariance_runs import run_of_model
from torch import nn
from torch.nn import functional

from smd_analyze.invariance.grouping import find_groups
from smd_analyze.invariance.repeating import Stretch, stretches

HEADS, SIZE, WIDTH = 3, 4, 10


def labels(*words):
    """Classes and freedom of an axis: letters are classes, "." is not free."""
    text = "".join(words)
    return np.array([ord(c) for c in text]), np.array([c != "." for c in text])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aa..bb..cc..", [Stretch(0, 2, True, 3, 4, 3), Stretch(2, 4, False, 1, 4, 3)]),
        ("ab..cd..ef..", [Stretch(0, 2, True, 6, 4, 3), Stretch(2, 4, False, 1, 4, 3)]),
        ("aab.aab.aab.", [Stretch(0, 2, True, 1, 4, 3), Stretch(2, 3, True, 1, 4, 3), Stretch(3, 4, False, 1, 4, 3)]),
        ("aa..aa..bb..", []),
        ("aab...aab..b", []),
        ("aaaabbbb....", []),
    ],
)
def test_what_repeats_is_told_by_its_pattern(text, expected):
    classes, free = labels(text)
    assert stretches(classes, free) == expected


class Attention(nn.Module):
    """Fused query, key and value of `HEADS` heads; `interleaved` head by head; queries and keys are normalized."""

    def __init__(self, interleaved, over="head", bias=False):
        super().__init__()
        self.interleaved, self.over = interleaved, over
        self.inside = nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * HEADS * SIZE, bias=bias)
        self.out = nn.Linear(HEADS * SIZE, WIDTH)

    def forward(self, x):
        fused = self.qkv(self.inside(x))
        shape = (*x.shape[:2], HEADS, 3, SIZE) if self.interleaved else (*x.shape[:2], 3, HEADS, SIZE)
        q, k, v = fused.view(shape).unbind(-2 if self.interleaved else -3)
        if self.over == "head":
            q, k = functional.normalize(q, dim=-1), functional.normalize(k, dim=-1)
        elif self.over == "all":
            q, k = (functional.normalize(t.flatten(-2), dim=-1).view_as(t) for t in (q, k))
        y = functional.scaled_dot_product_attention(*(t.transpose(1, 2) for t in (q, k, v)))
        return x + self.out(y.transpose(1, 2).flatten(-2))


def rows_of(model, parameter):
    groups = find_groups(run_of_model(model), lambda: model, (torch.ones(2, 5, WIDTH),))
    return [(r.slice, r.status, r.granularity) for r in groups.parameters if r.parameter == parameter], groups


def test_contiguous_slices():
    rows, _ = rows_of(Attention(False), "qkv.weight")
    assert rows == [("0:24", "invariant", "block"), ("24:36", "not invariant", "")]


def test_interleaved_heads_are_told_by_their_pattern():
    rows, groups = rows_of(Attention(True), "qkv.weight")
    assert rows == [("0:8 of every 12", "invariant", "block"), ("8:12 of every 12", "not invariant", "")]
    free, tied = (g for g in groups.groups if g.name.startswith("qkv["))
    (member,) = free.members
    assert (member.start, member.stop, member.every, free.units, free.numel) == (0, 8, 12, 2 * HEADS, 240)
    assert tied.numel == 120


def test_interleaved_rows_that_are_normalized_together():
    rows, groups = rows_of(Attention(True, over="all"), "qkv.weight")
    assert rows == [
        ("0:4 of every 12", "invariant", "whole"), ("4:8 of every 12", "invariant", "whole"),
        ("8:12 of every 12", "not invariant", ""),
    ]  # fmt: skip
    assert [g.units for g in groups.groups if g.name.startswith("qkv[")] == [1, 1, 12]


def test_the_key_part_of_an_interleaved_bias_is_dead():
    rows, _ = rows_of(Attention(True, over="", bias=True), "qkv.bias")
    assert [(s, status) for s, status, _ in rows] == [
        ("0:4 of every 12", "not invariant"), ("4:8 of every 12", "dead"), ("8:12 of every 12", "not invariant"),
    ]  # fmt: skip
