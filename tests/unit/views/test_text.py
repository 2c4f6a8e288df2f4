import pytest

from smd_analyze.views.kinds import kinds, label
from smd_analyze.views.text import abbreviate, angle_scale, compact, fold, given, interval, number, shorten, size


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), (float("nan"), "–"), (float("inf"), "–"), (1.23456, "1.235"), (0.0, "0.000"), (3, "3"),
     (1.5e-7, "1.500e-7"), (123456.7, "1.235e5"), (-0.25, "-0.2500")],
)  # fmt: skip
def test_four_digits(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [((1.45, 1.42, 1.48), "1.45±0.03"), ((1.45, 1.43, 1.54), "1.45 −0.02 +0.09"), ((1.45, None, 1.5), "1.45"),
     ((1.45, 1.45, 1.45), "1.45"), ((0.01, 0.00999, 0.01001), "0.010000±0.000010"), ((20.0, 14.0, 26.0), "20±6"),
     ((None, 1.0, 2.0), "–")],
)  # fmt: skip
def test_an_interval_has_the_digits_that_it_knows(ends, text):
    assert interval(*ends) == text


@pytest.mark.parametrize(
    ("ends", "text"),
    [((1.45, 1.43, 1.54), "1.45±0.09"), ((8.5e-5, 5.8e-5, 1e-4), "8.5e-5±3e-5"), ((1.45, None, None), "1.45")],
)
def test_a_narrow_column_shows_the_wider_side(ends, text):
    assert compact(*ends) == text


def test_names():
    assert shorten("short", 10) == "short"
    assert shorten("a_very_long_name_indeed", 10) == "a_ve…ndeed"
    assert fold("layer{1..4}.*.conv1", 12) == "layer{1..4}\n.*.conv1"
    assert given(5e-4) == "0.0005"
    assert size(12_345_678) == "12.3 MB"
    assert size(None) == "–"


def test_angles_choose_their_unit():
    assert angle_scale([0.002, None]) == (1e3, "mrad/step")
    assert angle_scale([2e-6, float("nan")]) == (1e6, "µrad/step")
    assert angle_scale([]) == (1e3, "mrad/step")


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.1.conv1"], "layer{1..2}.{0..1}.conv1"),
        (["layer1.0.conv1", "layer2.0.conv1", "layer2.1.conv1"], "layer{1..2}.*.conv1"),
        (["h.0.attn", "h.5.attn"], "h.*.attn"),
        (["only.3.one"], "only.3.one"),
        (["a1.b2", "a1.b3"], "a1.b{2..3}"),
    ],
)
def test_kinds_are_named_after_what_they_share(names, text):
    assert label(names) == text


def test_conv1_and_conv2_are_two_kinds_unless_that_makes_too_many():
    names = [f"layer{i}.{j}.conv{k}" for i in (1, 2) for j in (0, 1) for k in (1, 2)]
    assert list(map(len, kinds(names, 30).values())) == [4, 4]
    assert list(map(len, kinds([f"conv{i}" for i in range(40)], 30).values())) == [40]


def test_abbreviated_names_keep_numbers_and_ends():
    assert abbreviate("model.layers.11.self_attn.k_proj", 40) == "model.layers.11.self_attn.k_proj"
    assert abbreviate("model.layers.11.self_attn.k_proj", 26) == "m.l.11.self_attn.k_proj"
    names = {abbreviate(f"model.layers.{i}.self_attn.{m}_proj", 20) for i in range(40) for m in "qkvo"}
    assert len(names) == 160
    assert max(map(len, names)) <= 20
