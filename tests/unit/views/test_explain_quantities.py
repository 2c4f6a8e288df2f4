"""Every quantity of `fits` has its row in records/quantity.py and in the page about the report."""

import re
from pathlib import Path

import pytest

import smd_analyze.fits
from smd_analyze.records.quantity import QUANTITIES, quantity

SOURCES = sorted(Path(smd_analyze.fits.__file__).parent.glob("*.py"))
NAMED = re.compile(
    r'\brow\(\s*"([a-z_]+)"|\bname(?:, \w+)* = "([a-z_]+)"|^NAME = "([a-z_]+)"|\bnames = ((?:"[a-z_]+"(?:, )?)+)'
    r'|for q in \(((?:"[a-z_]+"(?:, )?)+)\)', re.MULTILINE,
)  # fmt: skip
PAGE = (Path(__file__).parents[3] / "docs" / "report-format.md").read_text()


def in_the_code() -> list[str]:
    found = [part for path in SOURCES for groups in NAMED.findall(path.read_text()) for part in groups if part]
    return sorted({name.strip('" ') for part in found for name in part.split(",")})


def test_the_search_finds_what_there_is():
    assert {"agreement", "level", "stationary_since", "norm_fluctuation", "displacement_exponent_zero_mean"} <= set(
        in_the_code()
    )
    assert len(in_the_code()) >= 18


@pytest.mark.parametrize("name", in_the_code())
def test_a_quantity_has_symbol_unit_meaning_and_source(name):
    found = quantity(name, "fit")
    assert found is not None
    assert found.unit
    assert found.meaning
    assert found.source
    assert f"fit.{name}" in QUANTITIES or name in (
        "relaxation_rate",
        "relaxation_rate_ratio",
        "effective_learning_rate",
    )


@pytest.mark.parametrize("name", in_the_code())
def test_the_page_lists_it(name):
    row = next(line for line in PAGE.split("\n") if line.startswith(f"| `{name}` |"))
    found = quantity(name, "fit")
    assert found is not None
    assert found.unit.partition(",")[0] in row
