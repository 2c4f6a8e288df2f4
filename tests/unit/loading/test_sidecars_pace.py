"""How many optimizer steps an epoch has and how many tokens a step, where checkpoints count both."""

import json

import pytest
import torch

from smd_analyze.loading.discovery import load_run
from smd_analyze.loading.sidecars.pace import slope


@pytest.fixture
def trainer(tmp_path):
    """Two Hugging Face checkpoints; epochs are fractions, tokens vary with padding."""

    def make(tokens=(20_480, 41_200), epochs=(20 / 48, 40 / 48)):
        safetensors = pytest.importorskip("safetensors.torch")
        for step, seen, epoch in zip((20, 40), tokens, epochs, strict=True):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            safetensors.save_file({"layer.weight": torch.randn(4, 4) * step}, folder / "model.safetensors")
            state = {"global_step": step, "epoch": epoch, "num_input_tokens_seen": seen, "log_history": []}
            (folder / "trainer_state.json").write_text(json.dumps(state))
            (folder / "config.json").write_text("{}")
        return load_run(tmp_path)

    return make


def test_steps_per_epoch_and_tokens_per_step(trainer):
    run = trainer()
    assert [c.step for c in run.checkpoints] == [20, 40]
    assert run.steps_per_epoch == pytest.approx(48)
    assert run.tokens_per_step == pytest.approx(1036)


def test_tokens_that_were_not_counted_are_not_told(trainer):
    run = trainer(tokens=(0, 0))
    assert run.tokens_per_step is None


def test_a_pace_must_be_even():
    assert slope((10.0, 20.0, 30.0), (1.0, 2.0, 3.0), 1e-6) == pytest.approx(0.1)
    assert slope((10.0, 20.0, 30.0), (1.0, 2.5, 3.0), 0.1) is None
    assert slope((10.0, None, 30.0), (1.0, 2.0, 3.0), 0.1) is None
    assert slope((10.0, 10.0), (1.0, 2.0), 0.1) is None
    assert slope((10.0,), (1.0,), 0.1) is None
    assert slope((10.0, 20.0), (3.0, 1.0), 0.1) is None
