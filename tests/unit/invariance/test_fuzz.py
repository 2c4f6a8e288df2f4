"""Random programs: nothing is claimed that their numbers deny, and next to nothing is missed.

More of them: `python benchmarks/confusion_fuzz.py 0 1000`, which also takes `--mutants`.
"""

import fuzz_programs
import pytest

RECORDED, EXPORTED = range(30), range(30, 32)


@pytest.mark.parametrize("seed", [*RECORDED, *EXPORTED])
def test_nothing_false_is_claimed_of_a_random_program(seed):
    case = fuzz_programs.program(seed, exported=seed in EXPORTED)
    assert case is not None
    assert case.false_claims() == []
    assert case.missed() == []
