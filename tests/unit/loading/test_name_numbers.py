"""Numbers in file names of real trainers."""

import pytest

from smd_analyze.loading.name_numbers import numbers, template, varying


@pytest.mark.parametrize(
    ("names", "values", "word"),
    [
        (["epoch=9-step=900.ckpt", "epoch=10-step=1000-v1.ckpt"], [900, 1000], "step"),
        (["epoch=9-step=900.ckpt", "epoch=10-step=1000.ckpt"], [900, 1000], "step"),
        (["ep0-ba1000-rank0.pt", "ep0-ba2000-rank0.pt"], [1000, 2000], "step"),
        (["a-val_loss=0.32-step=1000-epoch=3.ckpt", "a-val_loss=0.31-step=2000-epoch=4.ckpt"], [1000, 2000], "step"),
        (["TinyLlama-1.1B-step-1195k-2.5T", "TinyLlama-1.1B-step-955k-2T"], [1195000, 955000], "step"),
        (["rl_model_20000_steps.zip", "rl_model_5000_steps.zip"], [20000, 5000], "step"),
        (["model_0001999.pth", "model_0003999.pth"], [1999, 3999], ""),
        (["mobilenet0.25_epoch_20.pth", "mobilenet0.25_epoch_100.pth"], [20, 100], "epoch"),
        (["weights.02-2.45.keras", "weights.10-1.45.keras"], [2, 10], ""),
        (["model_state_epoch_4.th", "model_state_epoch_10.th"], [4, 10], "epoch"),
        (["checkpoint_3_12000.pt", "checkpoint_4_16000.pt"], [12000, 16000], ""),
        (["run/global_step500/x.pt", "run/global_step1000/x.pt"], [500, 1000], "step"),
        (["seed1-step=400.pt", "seed1-step=500.pt"], [400, 500], "step"),
        (["net-00001-of-00004.bin", "net-00002-of-00004.bin"], None, None),
        (["resnet-14fe96d1.pth", "resnet-24fe96d1.pth"], None, None),
        (["same_1.pt", "other_1.pt"], None, None),
    ],
)
def test_the_number_that_tells_members_apart(names: list[str], values: list[int] | None, word: str | None) -> None:
    found = varying(names)
    if values is None:
        assert found is None
    else:
        assert found is not None
        assert [n.value for n in found] == values
        assert found[0].word == word


def test_metrics_and_dates_are_no_steps() -> None:
    assert [n.value for n in numbers("epoch_2-loss_0.123.pt")] == [2]
    assert numbers("CKPT+2024-01-02+10-00-00+00.pt") == ()


def test_template_hides_every_number() -> None:
    assert template("a/epoch=1-loss=0.5.ckpt") == template("a/epoch=12-loss=11.25.ckpt")
