"""Runs whose checkpoints are numbered by epochs: how many updates an epoch holds, by the bits of a clock."""

import numpy as np
import polars as pl
import pytest
from clock_candidates import collect
from clock_runs import codes, train

from smd_analyze.clocks.search import find_clocks

EPOCHS = tuple(range(7))


def found_in(decay, updates, epochs=EPOCHS, change=None):
    saved = train(tuple(e * updates for e in epochs), decay)
    return find_clocks(collect(change(saved) if change else saved), epochs, "epochs")


@pytest.mark.parametrize("updates", [23, 157])
@pytest.mark.parametrize("decay", [3e-4, 2e-6])
def test_the_updates_in_an_epoch_are_counted(updates, decay):
    found = found_in(decay, updates)
    told = [f.message for f in found.findings if f.code == "steps-counted"]
    assert len(told) == 1
    assert f"an epoch is {updates} optimizer steps" in told[0]
    slices = found.table.filter(pl.col("parameter") == "emb")
    exact = -updates * np.log(np.float64(np.float32(1 - decay)))
    assert slices["evidence"].str.contains("reproduced in every bit over").all()
    np.testing.assert_allclose(slices["decay_per_step"].to_numpy(), exact, rtol=1e-9)
    half = (slices["decay_per_step_high"] - slices["decay_per_step_low"]).to_numpy() / 2
    assert (half <= 2.0**-25 * updates).all()


def test_a_rate_of_its_own_in_every_epoch():
    """As schedulers that step once an epoch make it, and a checkpoint is missing."""
    found = found_in(lambda t: 3e-4 * 0.8 ** (t // 40), 40, (0, 1, 2, 4, 5, 6))
    assert any("an epoch is 40 optimizer steps" in f.message for f in found.findings)


def test_saves_are_counted_in_their_own_word():
    saved = train(tuple(range(0, 161, 40)), 3e-4)
    told = [f.message for f in find_clocks(collect(saved), tuple(range(5)), "saves").findings if "hold" not in f.code]
    assert any("a save is 40 optimizer steps" in message for message in told)


@pytest.mark.parametrize("seed", range(2))
def test_no_number_is_made_up(seed):
    """Decay that moves within every epoch, or rounds otherwise: w − ηλ·w, or by chance."""
    rng = np.random.default_rng(seed)
    assert "steps-counted" not in codes(found_in(lambda t: 3e-4 * (1 - t / 300), 40))

    def shaken(saved):
        """Each element one unit in its last place up or down, or not."""
        return [{n: (v * (1 + 2.0**-23 * rng.integers(-1, 2, v.shape))).astype(np.float32) for n, v in s.items()}
                for s in saved]  # fmt: skip

    assert "steps-counted" not in codes(found_in(3e-4, 40, change=shaken))


def test_one_interval_is_too_few():
    assert "steps-counted" not in codes(found_in(3e-4, 40, (0, 1)))
