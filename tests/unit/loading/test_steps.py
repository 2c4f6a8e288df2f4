"""One source of order for a whole sequence."""

from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, TICKS, Fact
from smd_analyze.loading.steps import Member, order


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
    steps = [50 * i for i in range(1, 40)]
    epochs = [float(s // 173) for s in steps]
    assert order(members([f"step_{s}.pt" for s in steps], step=steps, epoch=epochs), "run").findings == ()
