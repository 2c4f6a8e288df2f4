import pytest
from schedule_runs import checkpoint, codes, column, run, setting, sgd

from smd_analyze.errors import UsageError
from smd_analyze.records.run import Log
from smd_analyze.schedule.resolve import resolve_schedule
from smd_analyze.schedule.rows import COLUMNS

CALLER = {"optimizer": "SGD", "lr": 0.1, "weight_decay": 5e-4, "momentum": 0.9}


def plain(*steps, **more):
    return run(*(checkpoint(t) for t in steps), **more)


def test_the_callers_word_alone():
    found = resolve_schedule(plain(0, 100, 250), settings=CALLER)
    assert found.table.columns == list(COLUMNS)
    assert column(found, "sum_learning_rate") == pytest.approx([10, 15])
    assert column(found, "sum_decay") == pytest.approx([5e-3, 7.5e-3])
    assert column(found, "source") == ["caller", "caller"]
    assert column(found, "optimizer") == ["sgd", "sgd"]
    assert column(found, "decoupled") == column(found, "nesterov") == [False, False]
    assert found.parameter_group == {"conv.weight": "all", "norm.bias": "all"}
    assert codes(found) == []


def test_a_glob_makes_a_group_of_its_own():
    found = resolve_schedule(plain(0, 100), settings=CALLER | {"groups": {"*.bias": {"weight_decay": 0, "lr": 0.2}}})
    assert found.parameter_group == {"conv.weight": "all", "norm.bias": "*.bias"}
    assert column(found, "sum_decay", "*.bias") == [0.0]
    assert column(found, "sum_learning_rate", "*.bias") == pytest.approx([20])
    assert column(found, "momentum", "*.bias") == [0.9]


def test_the_first_glob_wins_and_an_idle_one_is_named():
    groups = {"norm.*": {"weight_decay": 0}, "*.bias": {"weight_decay": 1}}
    found = resolve_schedule(plain(0, 100), settings=CALLER | {"groups": groups})
    assert found.parameter_group["norm.bias"] == "norm.*"
    assert codes(found) == ["group-matches-nothing"]
    assert "*.bias" not in set(column(found, "parameter_group"))


def test_nothing_known_is_null_and_said_once():
    points = [checkpoint(t, [setting("dampening", 0.0, g) for g in "01"]) for t in (0, 100, 200)]
    found = resolve_schedule(run(*points))
    assert codes(found) == ["missing-learning-rate", "missing-weight-decay", "missing-optimizer"]
    assert column(found, "sum_decay") == [None, None]
    assert set(column(found, "source")) == {"unknown"}
    assert all("--" in f.remedy for f in found.findings)


def test_a_named_optimizer_gets_torchs_defaults_with_a_note():
    found = resolve_schedule(plain(0, 10), settings={"optimizer": "adamw", "lr": 1e-3, "weight_decay": 0.1})
    assert (column(found, "beta1"), column(found, "beta2"), column(found, "decoupled")) == ([0.9], [0.999], [True])
    assert codes(found) == ["default-assumed"]


def test_momentum_is_not_assumed_where_a_buffer_says_that_it_acted():
    state = {"conv.weight": {"momentum_buffer": checkpoint(0).parameters["conv.weight"]}}
    points = [checkpoint(t, state=state) for t in (0, 10)]
    found = resolve_schedule(run(*points), settings={"optimizer": "sgd", "lr": 0.1, "weight_decay": 0.1})
    assert column(found, "momentum") == [None]
    assert codes(found) == ["missing-momentum"]


def test_the_files_alone_with_two_groups():
    points = [checkpoint(t, sgd(0.1, "0") + sgd(0.1, "1", wd=0.0)) for t in (0, 100)]
    found = resolve_schedule(run(*points, groups={"0": ("conv.weight",), "1": ("norm.bias",)}))
    assert found.parameter_group == {"conv.weight": "0", "norm.bias": "1"}
    assert column(found, "sum_decay", "0") == pytest.approx([5e-3])
    assert column(found, "sum_decay", "1") == [0.0]
    assert column(found, "source", "0") == ["opt.pt"]
    assert codes(found) == []


def test_unmapped_parameters_are_all_where_the_groups_agree():
    points = [checkpoint(t, sgd(0.1, "0") + sgd(0.1, "1")) for t in (0, 100)]
    found = resolve_schedule(run(*points))
    assert set(found.parameter_group.values()) == {"all"}
    assert column(found, "sum_decay") == pytest.approx([5e-3])


def test_unmapped_parameters_have_no_numbers_where_the_groups_differ():
    points = [checkpoint(t, sgd(0.1, "0") + sgd(0.1, "1", wd=0.0)) for t in (0, 100)]
    found = resolve_schedule(run(*points))
    assert set(found.parameter_group.values()) == {""}
    assert column(found, "sum_decay") == [None]
    assert column(found, "sum_learning_rate") == pytest.approx([10])  # they agree on it
    assert codes(found) == ["parameter-groups-differ"]


def test_a_callers_glob_settles_what_the_files_leave_open():
    points = [checkpoint(t, sgd(0.1, "0") + sgd(0.1, "1", wd=0.0)) for t in (0, 100)]
    groups = {"conv*": {"weight_decay": 5e-4}, "*.bias": {"weight_decay": 0}}
    found = resolve_schedule(run(*points), settings={"groups": groups})
    assert column(found, "sum_decay", "conv*") == pytest.approx([5e-3])
    assert column(found, "sum_decay", "*.bias") == [0.0]
    assert codes(found) == ["conflict"] * len(codes(found))


def test_next_and_last_update_differ_by_one():
    following = run(*(checkpoint(t, [setting("learning_rate", lr)]) for t, lr in ((0, 1.0), (1, 2.0), (2, 4.0))))
    assert column(resolve_schedule(following), "learning_rate_first") == [1.0, 2.0]
    past = [
        checkpoint(t, [setting("learning_rate", lr, applies="last update")]) for t, lr in ((0, 1.0), (1, 2.0), (2, 4.0))
    ]
    found = resolve_schedule(run(*past))
    assert column(found, "learning_rate_last") == column(found, "sum_learning_rate") == [2.0, 4.0]


def test_logged_rates_refine_the_curve():
    log = Log(
        "learning_rate", "learning_rate", (10, 20, 30, 40, 50, 60), (0.1,) * 6, "trainer_state.json", "last update"
    )
    points = [checkpoint(0, sgd(0.1)), checkpoint(100, sgd(0.01))]
    low = column(resolve_schedule(run(*points, logs=(log,))), "sum_learning_rate_low")[0]
    assert low == pytest.approx(60 * 0.1 + 40 * 0.01, rel=1e-6)
    wide = column(resolve_schedule(run(*points)), "sum_learning_rate_low")[0]
    assert wide == pytest.approx(100 * 0.01)  # 0.1 was only meant for the next update


def test_a_changing_decay_is_summed_with_the_rate():
    found = resolve_schedule(run(checkpoint(0, sgd(0.1, wd=1e-3)), checkpoint(100, sgd(0.1, wd=2e-3))))
    low, best, high = (column(found, f"sum_decay{end}")[0] for end in ("_low", "", "_high"))
    assert 0.01 <= low < best < high <= 0.02
    assert best == pytest.approx(0.015, rel=0.01)


def test_conflicts_say_who_won():
    found = resolve_schedule(run(checkpoint(0, sgd(0.1)), checkpoint(10, sgd(0.1))), settings={"weight_decay": 1e-4})
    (conflict,) = found.findings
    assert conflict.code == "conflict"
    assert conflict.severity == "note"
    assert "caller's word is used" in conflict.message
    assert "weight_decay" in conflict.message
    assert column(found, "weight_decay") == [1e-4]


def test_configured_against_in_force():
    configured = [setting("weight_decay", 1e-4, kind="configured", source="args.weight_decay")]
    found = resolve_schedule(run(*(checkpoint(t, sgd(0.1) + configured) for t in (0, 10))))
    assert codes(found) == ["conflict"]
    assert column(found, "weight_decay") == [5e-4]
    exempt = [checkpoint(t, sgd(0.1, "0", wd=1e-4) + sgd(0.1, "1", wd=0.0) + configured) for t in (0, 10)]
    assert codes(resolve_schedule(run(*exempt, groups={"0": ("conv.weight",), "1": ("norm.bias",)}))) == []


def test_a_configured_rate_is_used_only_without_a_schedule():
    told = [setting("learning_rate", 0.1, kind="configured", applies="whole run", source="args.lr")]
    found = resolve_schedule(run(*(checkpoint(t, told) for t in (0, 10))))
    assert column(found, "sum_learning_rate") == pytest.approx([1.0])
    assert "configured-learning-rate" in codes(found)
    moving = [*told, setting("schedule", "cosine", kind="configured")]
    found = resolve_schedule(run(*(checkpoint(t, moving) for t in (0, 10))))
    assert column(found, "sum_learning_rate") == [None]
    assert "missing-learning-rate" in codes(found)


def test_epochs_have_no_sums_without_their_length():
    found = resolve_schedule(plain(1, 2, unit="epochs"), settings=CALLER)
    assert column(found, "sum_learning_rate") == column(found, "sum_decay") == [None]
    assert column(found, "learning_rate_last") == [0.1]
    assert codes(found) == ["steps-unknown"]
    found = resolve_schedule(plain(1, 2, unit="epochs"), settings=CALLER | {"steps_per_epoch": 50})
    assert column(found, "sum_learning_rate") == pytest.approx([5.0])
    assert codes(found) == []


@pytest.mark.parametrize(
    ("schedule", "sums"),
    [
        ({"steps": [0, 150], "learning_rate": [0.1, 0.01]}, [10, 5.5]),
        ({"kind": "linear", "total_steps": 200}, [7.525, 2.525]),
        ({"kind": "cosine", "total_steps": 200}, [8.208, 1.842]),
        ({"kind": "cosine", "total_steps": 200, "warmup_steps": 100}, [4.95, 5.05]),
    ],
)
def test_the_callers_schedule(schedule, sums):
    base = {} if "steps" in schedule else {"lr": 0.1}
    found = resolve_schedule(
        plain(0, 100, 200), settings=base | {"weight_decay": 1.0, "optimizer": "sgdw", "schedule": schedule}
    )
    assert column(found, "sum_learning_rate") == pytest.approx(sums, rel=1e-3)
    assert column(found, "decoupled") == [True, True]


def test_a_callers_schedule_must_begin_in_time():
    with pytest.raises(UsageError, match="begin at 50"):
        resolve_schedule(plain(0, 100), settings={"schedule": {"steps": [50], "learning_rate": [0.1]}})


@pytest.mark.parametrize(
    ("said", "switch", "name", "decoupled"),
    [
        ("adamw_torch_fused", None, "adamw", True), ("torch.optim.Adam", 1.0, "adamw", True),
        ("AdamWeightDecay", None, "adamw", True), ("Adam", 0.0, "adam", False), ("Momentum", None, "sgd", False),
        ("SGD", 1.0, "sgdw", True), ("Lion", None, "lion", True), ("RMSprop", None, "rmsprop", False),
    ],
)  # fmt: skip
def test_optimizers_have_one_name(said, switch, name, decoupled):
    told = [setting("optimizer", said)] + ([setting("decoupled_weight_decay", switch)] if switch is not None else [])
    found = resolve_schedule(run(*(checkpoint(t, told) for t in (0, 10))))
    assert (column(found, "optimizer"), column(found, "decoupled")) == ([name], [decoupled])


def test_one_checkpoint_or_none_has_no_interval():
    lone = resolve_schedule(plain(5)).table.row(0, named=True)
    assert (lone["step_from"], lone["step_to"], lone["sum_learning_rate"], lone["sum_decay"]) == (5, 5, None, None)
    assert resolve_schedule(run()).table.height == 0
