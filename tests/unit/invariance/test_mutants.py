"""Every planted bug is caught: the calculus then claims what some model's numbers deny, or misses what they show."""

import pytest
from cases import zoo_case
from mutants import MUTANTS


@pytest.mark.parametrize("description", MUTANTS)
def test_a_planted_bug_is_caught(description, monkeypatch):
    plant, entries = MUTANTS[description]
    cases = [zoo_case(name) for name in entries]
    assert [(c.false_claims(), c.missed()) for c in cases] == [([], [])] * len(cases)
    plant(monkeypatch)
    assert any(c.false_claims() or c.missed() for c in cases)
