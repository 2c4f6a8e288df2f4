"""One source of order for a whole sequence."""

import pytest

from smd_analyze.errors import UsageError
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact
from smd_analyze.loading.sequences.step_pattern import number_by, step_pattern_of
from smd_analyze.loading.sequences.steps import Member, order


def members(names: list[str], **facts: list[float]) -> list[Member]:
    units = {"step": STEPS, "epoch": EPOCHS, "tick": TICKS}
    batches = facts.pop("batches", None)
    return [
        Member(
            name,
            tuple(Fact(values[i], units[key], f"{key} in the file") for key, values in facts.items()),
            None if batches is None else int(batches[i]),
            mtime_ns=100 - i,
        )
        for i, name in enumerate(names)
    ]


def test_the_step_inside_wins() -> None:
    found = order(members(["a_1.pt", "a_2.pt"], step=[20, 10]), "run")
    assert (found.steps, found.unit, found.ordered_by) == ((20, 10), STEPS, "step in the file")


def test_a_step_inside_that_repeats_is_not_used() -> None:
    found = order(members(["step_1.pt", "step_2.pt"], step=[20, 20]), "run")
    assert (found.steps, found.ordered_by) == ((1, 2), "step in the file name")


def test_a_step_that_only_some_have_is_not_used() -> None:
    some = [Member("step_1.pt", (Fact(50, STEPS, "step in the file"),)), Member("step_2.pt")]
    assert order(some, "run").steps == (1, 2)


def test_numbers_not_text_order() -> None:
    assert order(members(["epoch_9.pt", "epoch_10.pt"]), "run").steps == (9, 10)


def test_a_name_that_says_another_step_is_a_finding() -> None:
    found = order(members(["step_1.pt", "step_2.pt"], step=[10, 20]), "run")
    assert [f.code for f in found.findings] == ["step-disagreement"]


def test_epochs_become_steps_where_batches_were_counted() -> None:
    """A pretrained backbone's counter starts at 90,090 and advances by 4,030 in ten epochs."""
    found = order(
        members(["net_epoch_10.pth", "net_epoch_20.pth", "net_epoch_40.pth"], batches=[90090, 94120, 102180]), "run"
    )
    assert found.steps == (4030, 8060, 16120)
    assert found.unit == STEPS
    assert found.ordered_by == "epoch in the file name × 403 batches per epoch, counted by num_batches_tracked"
    assert [f.code for f in found.findings] == ["steps-are-batches"]


def test_epochs_counted_from_zero() -> None:
    found = order(members(["epoch_0.pt", "epoch_1.pt"], batches=[5, 10]), "run")
    assert found.steps == (5, 10)


def test_batches_out_of_proportion_leave_epochs() -> None:
    found = order(members(["epoch_1.pt", "epoch_2.pt", "epoch_3.pt"], batches=[5, 10, 16]), "run")
    assert (found.steps, found.unit) == ((1, 2, 3), EPOCHS)


def test_iterations_counted_from_zero_are_kept_and_said() -> None:
    found = order(members(["model_4.pth", "model_9.pth"], step=[4, 9], batches=[5, 10]), "run")
    assert found.steps == (4, 9)
    assert [f.code for f in found.findings] == ["steps-from-zero"]


def test_the_caller_knows_the_steps_per_epoch() -> None:
    found = order(members(["epoch_1.pt", "epoch_2.pt"], batches=[5, 10]), "run", steps_per_epoch=7)
    assert (found.steps, found.unit) == ((7, 14), STEPS)


def test_a_scheduler_that_ticks_per_batch() -> None:
    found = order(members(["a.pt", "b.pt"], tick=[3, 6], batches=[3, 6]), "run")
    assert (found.steps, found.unit) == ((3, 6), STEPS)


def test_bare_numbers_are_epochs_if_the_files_say_the_same_epoch() -> None:
    assert order(members(["ckpt_0.pt", "ckpt_1.pt"], epoch=[1, 2]), "run").unit == EPOCHS
    assert order(members(["ckpt_0.pt", "ckpt_1.pt"]), "run").unit == "saves"


def test_counted_batches_order_what_nothing_else_does() -> None:
    found = order(members(["a.pt", "b.pt"], batches=[30, 10]), "run")
    assert (found.steps, found.unit) == ((30, 10), STEPS)


def test_time_is_the_last_resort_and_is_said() -> None:
    found = order(members(["a.pt", "b.pt"]), "run")
    assert (found.steps, found.unit) == ((1, 0), "saves")
    assert [f.code for f in found.findings] == ["ordered-by-time"]


def test_epochs_of_very_different_length_are_said() -> None:
    names = [f"epoch_{e}.pt" for e in (2, 3, 9, 12, 15)]
    found = order(members(names, step=[114, 171, 513, 3744, 4680]), "run")
    (finding,) = found.findings
    assert (finding.code, finding.severity) == ("epochs-uneven", "warning")
    assert "epoch_12.pt" in finding.where
    assert order(members(names, step=[114, 171, 513, 684, 855]), "run").findings == ()


def test_saves_at_any_time_within_an_epoch_are_no_sign_of_another_run() -> None:
    steps = [50.0 * i for i in range(1, 40)]
    epochs = [float(s // 173) for s in steps]
    assert order(members([f"step_{s:.0f}.pt" for s in steps], step=steps, epoch=epochs), "run").findings == ()


def test_why_a_better_source_was_passed_over_is_said() -> None:
    some = [
        Member("step_1.pt", (Fact(50, STEPS, "global_step in the file"),)),
        Member("step_2.pt"),
        Member("step_3.pt"),
    ]
    (finding,) = order(some, "run").findings
    assert (finding.code, finding.severity) == ("order-not-used", "note")
    assert "stands in 1 of 3 checkpoints only (not in step_2.pt)" in finding.message
    (constant,) = order(members(["step_1.pt", "step_2.pt"], step=[0, 0]), "run").findings
    assert "is 0 in all" in constant.message


def test_a_step_in_the_name_says_more_than_a_scheduler_that_may_tick_per_epoch() -> None:
    found = order(members(["step_100.pt", "step_200.pt"], tick=[1, 2]), "run")
    assert (found.steps, found.unit) == ((100, 200), STEPS)


@pytest.mark.parametrize(
    ("wanted", "steps", "unit"),
    [
        ("inside", (20, 10), STEPS),
        ("scheduler", (4, 3), TICKS),
        ("name", (1, 2), STEPS),
        ("epoch", (6, 5), EPOCHS),
        ("time", (1, 0), "saves"),
    ],
)
def test_the_caller_may_choose_the_source(wanted: str, steps: tuple[int, ...], unit: str) -> None:
    made = members(["step_1.pt", "step_2.pt"], step=[20, 10], tick=[4, 3], epoch=[6, 5])
    found = order(made, "run", wanted=wanted)
    assert (found.steps, found.unit) == (steps, unit)
    assert found.ordered_by.endswith(f"(--order {wanted})")
    assert not any(f.code in ("ordered-by-time", "step-disagreement", "order-not-used") for f in found.findings)


def test_the_optimizers_count_can_be_told_from_the_trainers() -> None:
    facts = [
        (Fact(s, STEPS, "step in the file"), Fact(s // 2, STEPS, "the optimizer's step in the file")) for s in (20, 40)
    ]
    made = [Member(f"{i}.pt", f) for i, f in enumerate(facts)]
    assert order(made, "run").steps == (20, 40)
    assert order(made, "run", wanted="optimizer").steps == (10, 20)


def test_a_choice_that_does_not_order_them_is_one_clear_error() -> None:
    made = members(["step_1.pt", "step_2.pt"], epoch=[3, 3])
    with pytest.raises(UsageError, match=r"--order epoch .*is 3 in all.*Possible here: name, time"):
        order(made, "run", wanted="epoch")
    with pytest.raises(UsageError, match="nothing of the kind stands there. Possible here: name, time"):
        order(made, "run", wanted="optimizer")
    with pytest.raises(UsageError, match="--order is one of auto, inside"):
        order(made, "run", wanted="size")


@pytest.mark.parametrize(
    ("pattern", "name", "word", "value"),
    [
        (r"step(\d+)", "a/step0010.pt", "step", 10),
        (r"ep(?P<epoch>\d+)-(?P<junk>\d+)", "ep3-77.pt", "epoch", 3),
        (r"(?P<step>[\d.]+[kM])", "gpt-1.5M.pt", "step", 1500000),
        (r"-([\d,]+)\.", "gpt-12,000.pt", "step", 12000),
        (r"_(\w+)\.", "x_2e4.pt", "step", 20000),
        (r"^(?:a|b)/(\d+)k?", "c/10", None, None),
    ],
)
def test_a_pattern_finds_the_number(pattern: str, name: str, word: str | None, value: int | None) -> None:
    understood = step_pattern_of(pattern)
    assert understood is not None
    found = number_by(understood, name)
    assert (found and found.word, found and found.value) == (word, value)


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("step(", "no regular expression"),
        (r"step\d+", "has no groups"),
        (r"(\d+)_(\d+)", "has 2 groups, none called step or epoch"),
        (r"(?P<iter>\d+)", "none called step or epoch"),
    ],
)
def test_a_pattern_that_says_no_number_is_refused(pattern: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        step_pattern_of(pattern)


def test_what_a_pattern_finds_must_be_a_whole_number_and_no_other_order_goes_with_it() -> None:
    pattern = step_pattern_of(r"loss_([\d.]+\d)")
    assert pattern is not None
    with pytest.raises(UsageError, match="finds '0.25' in loss_0.25.pt"):
        number_by(pattern, "loss_0.25.pt")
    with pytest.raises(UsageError, match="give one of them"):
        step_pattern_of(r"(\d+)", "time")


def test_a_counter_from_zero_is_kept_and_said() -> None:
    found = order(members(["model_0001999.pth", "model_0003999.pth"], step=[1999, 3999]), "run")
    assert found.steps == (1999, 3999)
    (finding,) = found.findings
    assert finding.code == "steps-from-zero"
    assert "1999 is the state after 2000 updates" in finding.message
    assert order(members(["a_1.pt", "a_2.pt"], step=[2000, 4000]), "run").findings == ()


def test_a_step_out_of_proportion_to_the_number_in_the_name_is_suspect() -> None:
    names = [f"cp-{n:04d}.ckpt.index" for n in (5, 10, 40, 70, 100)]
    found = order(members(names, step=[285, 35250, 141000, 246750, 352500]), "run")
    assert found.suspects == {0}
    assert [f.code for f in found.findings] == ["steps-out-of-proportion"]
    assert order(members(names, step=[17600, 35250, 141000, 246750, 352500]), "run").suspects == frozenset()


def test_dates_come_before_the_time_of_the_files() -> None:
    found = order(members(["CKPT+2024-01-03+10-11-12", "CKPT+2024-01-02+10-11-12"]), "run")
    assert (found.steps, found.ordered_by) == ((1, 0), "date in the file name")


def test_thousands_of_images_are_no_steps() -> None:
    found = order(members(["network-snapshot-000200.pkl", "network-snapshot-001000.pkl"]), "run")
    assert (found.steps, found.unit) == ((200, 1000), "thousands of images")


def test_files_of_one_moment_are_ordered_by_the_numbers_in_their_names_not_as_text() -> None:
    found = order([Member(f"seed{n}.pt", mtime_ns=5) for n in (10, 9, 100)], "run", wanted="time")
    assert (found.steps, found.ordered_by) == ((1, 0, 2), "modification time, then name (--order time)")
