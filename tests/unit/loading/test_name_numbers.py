"""Numbers in file names of real trainers."""

import pytest

from smd_analyze.loading.sequences.name_numbers import dates, numbers, paired, serial, template, varying


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


@pytest.mark.parametrize(
    ("names", "values", "word"),
    [
        (["epoch=1-step=8-v1.ckpt", "epoch=3-step=24.ckpt"], [8, 24], "step"),
        (["10epoch", "9epoch"], [10, 9], "epoch"),
        (["ckpt_10_lr_1.2e-3.pt", "ckpt_9_lr_3.1e-04.pt"], [10, 9], ""),
        (["policy_1.5e6.pt", "policy_2e6.pt"], [1500000, 2000000], ""),
        (["model_10_20240301.pt", "model_9_20240302.pt"], [10, 9], ""),
        (["2024-03-01_model_10.pt", "2024-03-02_model_9.pt"], [10, 9], ""),
        (["ckpt_5_1700000000.pt", "ckpt_6_1700000300.pt"], [5, 6], ""),
        (["ckpt_10_dice_87.pt", "ckpt_9_dice_86.pt"], [10, 9], ""),
        (["ckpt_10_reward_187.pt", "ckpt_9_reward_-86.pt"], [10, 9], ""),
        (["ckpt_10_hits@10_87.pt", "ckpt_9_hits@10_86.pt"], [10, 9], ""),
        (["epoch=1.0-step=10.0.ckpt", "epoch=2.0-step=20.0.ckpt"], [10, 20], "step"),
        (["checkpointEpoch5.pth", "checkpointEpoch12.pth"], [5, 12], "epoch"),
        (["UNet_CP_epoch5.pth", "UNet_CP_epoch12.pth"], [5, 12], "epoch"),
        (["epoch-10-of-90.pt", "epoch-9-of-90.pt"], [10, 9], "epoch"),
        (["step1000-tokens4B", "step2000-tokens8B"], [1000, 2000], "step"),
        (["step-1.1M.pt", "step-2.3M.pt", "step-1.15M.pt"], [1100000, 2300000, 1150000], "step"),
        (["ckpt-4B-tokens", "ckpt-8B-tokens"], [4 * 10**9, 8 * 10**9], "tokens"),
        (["network-snapshot-000123.pkl", "network-snapshot-001000.pkl"], [123, 1000], "kimg"),
        (["model.iter5000", "model.iter10000"], [5000, 10000], "step"),
        (["e100000.pt", "e200000.pt"], [100000, 200000], "epoch"),
        (["ba1000000.pt", "ba2000000.pt"], [1000000, 2000000], "step"),
        (["a_epoch_3_87.pt", "a_epoch_9_89.pt", "a_epoch_20_90.pt"], [3, 9, 20], "epoch"),
        (["a_epoch_3_1200.pt", "a_epoch_9_3600.pt", "a_epoch_20_8000.pt"], [1200, 3600, 8000], ""),
        (["m_7_100.pt", "m_3_200.pt", "m_9_300.pt"], [100, 200, 300], ""),
        (["CKPT+2024-01-02+10-11-12+00", "CKPT+2024-01-02+11-11-12+00"], None, None),
        (["run_1/model.pt", "run_2/model.pt"], None, None),
    ],
)
def test_more_names(names: list[str], values: list[int] | None, word: str | None) -> None:
    found = varying(names)
    assert (found and [n.value for n in found]) == values
    assert (found and found[0].word) == word


@pytest.mark.parametrize(
    "names",
    [
        ["ckpt_10_loss_1.2e-05.pt", "ckpt_9_loss_0.0003.pt", "ckpt_11_loss_-2.pt", "ckpt_12_loss_nan.pt"],
        ["m_100-14fe96d1.pt", "m_200-9ab0c2d4.pt"],
        ["step-900k", "step-1.1M", "step-500"],
        ["epoch=1-step=8-v1.ckpt", "epoch=3-step=24.ckpt"],
        ["x_2024-03-01_10.pt", "x_2024-11-21_11.pt"],
    ],
)
def test_names_of_one_sequence_have_one_template(names: list[str]) -> None:
    assert len({template(n) for n in names}) == 1
    assert varying(names) is not None


def test_versions_are_no_steps_but_an_order_if_there_is_nothing_else() -> None:
    assert varying(["model_v2.pt", "model_v10.pt"]) is None
    assert serial(["model_v2.pt", "model_v10.pt"]) == [2, 10]
    assert serial(["rank2.pt", "rank10.pt"]) is None


def test_dates_order_where_no_number_does() -> None:
    assert dates(["a_2024-01-02.pt", "a_2023-11-30.pt"]) == ["2024-01-02", "2023-11-30"]
    assert dates(["a_2024-01-02.pt", "a_2024-01-02.pt"]) is None


def test_steps_that_begin_anew_in_every_epoch_are_pairs() -> None:
    assert paired(["net-1_500.ckpt", "net-1_1000.ckpt", "net-2_500.ckpt"]) == [(1, 500), (1, 1000), (2, 500)]
    assert paired(["net-1_500.ckpt", "net-1_500.ckpt"]) is None
