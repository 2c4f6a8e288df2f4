"""Whatever else stands in the names: the number that counts steps is found, and text order never decides."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from smd_analyze.loading.sequences.name_numbers import dates, paired, serial, split_runs, template, varying
from smd_analyze.loading.sequences.name_tokens import tokens
from smd_analyze.loading.sequences.order_sources import Member
from smd_analyze.loading.sequences.steps import order

WORDS = st.sampled_from(["model", "net", "ckpt", "llama", "best", "D", "unet", "agent"])
CONSTANT = st.one_of(
    WORDS,
    st.builds(lambda w, n: f"{w}{n}", st.sampled_from(["resnet", "vgg", "b", "size", "bs"]), st.integers(0, 99)),
    st.builds(lambda n: f"rank{n}", st.integers(0, 63)),
    st.builds(lambda n: f"seed_{n}", st.integers(0, 99)),
    st.builds(lambda n: f"v{n}", st.integers(0, 9)),
    st.builds(lambda n: f"lr{n:g}", st.sampled_from([0.1, 1e-3, 5e-4, 2.5e-6])),
    st.builds(lambda n: f"wd={n:g}", st.sampled_from([0.1, 1e-3, 5e-4])),
    st.sampled_from(["00001-of-00004", "14fe96d1", "a1_0-24fe96d", "2024-03-01", "2024-03-01_10-11-12"]),
    st.sampled_from(["7b", "1.5", "fp16", "20240301-101112", "gpt2-124M", "vit_b16"]),
    st.sampled_from(["1f0e4c3a-11d2-4b5a-9c3e-aa0011223344", "Mar01_10-11-12", "8x8", "run_3", "fold2"]),
)  # fmt: skip
MARK = st.sampled_from(  # what differs from save to save and is no step
    [
        lambda x: f"loss={x:.4f}",
        lambda x: f"val_loss_{x:.3f}",
        lambda x: f"acc{x:.2f}",
        lambda x: f"train-loss={x / 1e9:.3e}",
        lambda x: f"acc_{x:.0f}",
        lambda x: f"reward=-{x:.1f}",
        lambda x: f"2024-01-{1 + int(x) % 28:02d}_10-{int(x) % 60:02d}-00",
        lambda x: f"202401{1 + int(x) % 28:02d}-10{int(x) % 60:02d}00",
        lambda x: f"{int(x * 1e6):08x}a3",
    ]
)
TAGGED = st.sampled_from(
    [
        "step{}",
        "step_{}",
        "step={}",
        "iter-{}",
        "iter_{}",
        "global_step{}",
        "ba{}",
        "{}_steps",
        "it{}",
        "update_{}",
        "{}steps",
    ]
)
EPOCHS = st.sampled_from(["epoch{}", "epoch_{}", "epoch={}", "ep{}", "e{}", "{}epochs", "Epoch-{}"])
BARE = st.sampled_from(["ckpt_{}", "model-{}", "checkpoint{}", "G_{}", "{}"])
STEPS = st.lists(st.integers(0, 10**7), min_size=2, max_size=8, unique=True)
SEPARATORS = st.sampled_from(["_", "-", "/"])
ENDINGS = st.sampled_from(["", ".pt", ".pth.tar", ".ckpt", ".weights.h5", ".safetensors", ".ckpt.index", ".keras"])


def padded(step: int, width: int) -> str:
    return f"{step:0{width}d}"


@st.composite
def names(draw: st.DrawFn, form: st.SearchStrategy[str]) -> tuple[list[str], list[int]]:
    """(names of one sequence, their steps): the step among constants, with a metric that varies."""
    steps, width, form_ = draw(STEPS), draw(st.integers(1, 9)), draw(form)
    before, after = draw(st.lists(CONSTANT, max_size=3)), draw(st.lists(CONSTANT, max_size=3))
    separator, ending, mark = draw(SEPARATORS), draw(ENDINGS), draw(st.none() | MARK)
    values = draw(st.lists(st.floats(0, 99), min_size=len(steps), max_size=len(steps)))
    out = []
    for step, value in zip(steps, values, strict=True):
        own = form_.format(padded(step, width))
        parts = [*before, own, *(["of"] if own.endswith("_steps") else []), *after]  # 10_steps_3: whose are the steps?
        parts += [mark(value)] if mark else []
        out.append(separator.join(parts) + ending)
    return out, steps


@settings(max_examples=150, deadline=None)
@given(names(TAGGED))
def test_a_number_with_a_word_is_found_among_all_others(made: tuple[list[str], list[int]]) -> None:
    found = varying(made[0])
    assert found is not None
    assert [(n.word, n.value) for n in found] == [("step", s) for s in made[1]]


@settings(max_examples=100, deadline=None)
@given(names(EPOCHS))
def test_epochs_are_known_as_such(made: tuple[list[str], list[int]]) -> None:
    assert [(n.word, n.value) for n in varying(made[0]) or []] == [("epoch", s) for s in made[1]]


@settings(max_examples=100, deadline=None)
@given(names(BARE))
def test_a_bare_number_is_found_by_being_the_one_that_varies(made: tuple[list[str], list[int]]) -> None:
    assert [n.value for n in varying(made[0]) or []] == made[1]


@settings(max_examples=60, deadline=None)
@given(
    names(TAGGED | EPOCHS | BARE),
    st.randoms(use_true_random=False),
    st.sampled_from(["run 7/", "2024-05-06/", "a/b/", "é_3/"]),
)
def test_neither_shuffling_nor_another_parent_folder_matters(
    made: tuple[list[str], list[int]], random, parent: str
) -> None:
    files, steps = made
    mixed = list(range(len(files)))
    random.shuffle(mixed)
    here = order([Member(f, mtime_ns=i) for i, f in enumerate(files)], "run")
    there = order([Member(parent + files[i], mtime_ns=i) for i in mixed], "run")
    assert list(here.steps) == steps
    assert [there.steps[mixed.index(i)] for i in range(len(files))] == steps
    assert (here.unit, here.ordered_by) == (there.unit, there.ordered_by)
    assert len({template(f) for f in files}) == 1
    assert split_runs(files) == [list(range(len(files)))]


@settings(max_examples=50, deadline=None)
@given(STEPS, st.integers(1, 9), TAGGED | BARE)
def test_zero_padding_changes_nothing(steps: list[int], width: int, form: str) -> None:
    plain = order([Member(form.format(s) + ".pt") for s in steps], "run")
    wide = order([Member(form.format(padded(s, width)) + ".pt") for s in steps], "run")
    assert plain == wide
    assert list(plain.steps) == steps


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=2, max_size=6, unique=True), st.sampled_from("kKM"), TAGGED)
def test_thousands_and_millions(steps: list[int], factor: str, form: str) -> None:
    if form.startswith("{}steps"):
        return  # 5ksteps is nobody's way to write it
    found = varying([form.format(f"{s}{factor}") + ".pt" for s in steps])
    assert [n.value for n in found or []] == [s * {"k": 1000, "m": 10**6}[factor.lower()] for s in steps]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(0, 9999), min_size=2, max_size=5, unique=True),
    st.sampled_from(["run_{}", "seed{}", "version_{}", "fold-{}"]),
)
def test_runs_with_the_same_steps_are_told_apart_by_what_counts_nothing(steps: list[int], form: str) -> None:
    files = [f"{form.format(r)}/step_{s}.pt" for r in (1, 2, 3) for s in steps]
    size = len(steps)
    assert split_runs(files) == [list(range(r * size, r * size + size)) for r in range(3)]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.from_regex(r"[a-f0-9_\-=./ev]{1,30}"), min_size=1, max_size=4))  # noqa: E501  # fmt: skip
def test_any_name_has_an_answer(files: list[str]) -> None:
    for question in (varying, split_runs, dates, paired, serial):
        question(files)
    members = [Member(f, mtime_ns=i) for i, f in enumerate(files)]
    found = order(members, "run")
    assert len(set(found.steps)) == len(files)
    for name in files:
        spans = [(t.start, t.end) for t in tokens(name)]
        assert all(a < b for a, b in spans)
        assert all(b <= c for (_, b), (c, _) in pairwise(spans))
