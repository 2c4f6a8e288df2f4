"""Decay clocks under test: do the intervals hold, is anything claimed that is none, what breaks a clock?

    python benchmarks/clocks.py coverage [--runs 6] [--seed 0]     intervals against known schedules, per optimizer
    python benchmarks/clocks.py false [--runs 6] [--seed 0]        nets and random walks without any clock
    python benchmarks/clocks.py nearly [--runs 3] [--seed 0]       losses and precisions that keep or break a clock

Each prints a table in Markdown; those of docs/clocks.md were printed so. Nets are trained on scikit-learn's digits (a
second or two each), written to files and read back by the package, as a user's would be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / "unit" / "clocks")]

import trained_nets as nets  # noqa: E402
from clock_studies import Claim, claims, find, found_in, looked_at  # noqa: E402
from safetensors.numpy import save_file  # noqa: E402

from smd_analyze import decay_formulas  # noqa: E402

MOVING = "moving"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    print()


# Coverage: runs with a known schedule


def cosine(number: np.ndarray) -> np.ndarray:
    """Warm-up over a tenth of 600 updates, then half a cosine down to a hundredth."""
    warm = np.minimum((number + 1) / 60, 1.0)
    return warm * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * np.clip((number - 60) / 540, 0, 1))))


def varied(rng: np.random.Generator) -> Iterator[tuple[str, nets.Case]]:
    """One case per optimizer: net, learning rate, decay (ηλ over three decades) and schedule drawn at random."""
    mlp, tokens = (nets.Mlp, nets.SUMS + nets.DEAD), (nets.Tokens, nets.UNUSED + nets.STREAM + nets.HEAD)
    padded = (nets.Padded, (*nets.TAPS, ("c1.bias", "whole")))
    standard = (nets.Standardized, (*nets.FILTERS, ("fc.weight", "sum over units")))
    rates = {"SGD": 0.1, "heavy ball": 0.03, "Nesterov": 0.03, "dampening": 0.05, "velocity form": 0.03,
             "SGDW": 0.02, "AdamW": 3e-3, "Lion": 3e-4, "Muon + AdamW": 0.02}  # fmt: skip
    for rule, rate in rates.items():
        if nets.RULES[rule].decoupled:
            choices = [(nets.Mlp, nets.DEAD), (nets.Tokens, nets.UNUSED), (nets.Padded, nets.TAPS)]
            if rule == "SGDW":
                choices += [mlp, standard]
        else:
            choices = [mlp, tokens, padded, standard]
        net, clocks = choices[rng.integers(len(choices))] if rule != "Muon + AdamW" else (nets.Mlp, nets.DEAD)
        decay = 10 ** rng.uniform(-6, -3.3) / rate
        shape: dict = {"drop": None} if rng.random() < 0.3 else {"drop": int(rng.integers(100, 500))}
        if rng.random() < 0.4:
            shape = {"drop": None, "schedule": cosine}
        yield rule, nets.Case(net, rule, rate * 10 ** rng.uniform(-0.3, 0.1), decay, clocks, batch=16, **shape)


def coverage(runs: int, seed: int) -> None:
    """Nominal 95 %: at least 93 % per optimizer; half-widths against the self-calibrated ones."""
    rng = np.random.default_rng(seed)
    seen: dict[str, list[Claim]] = {}
    candidates = 0
    for number in range(runs):
        for rule, case in varied(rng):
            trained = nets.train(case, seed + 1000 * number)
            found = found_in(trained)
            seen.setdefault(rule, []).extend(claims(trained, found))
            candidates += looked_at(found)
    rows = []
    for rule, of in [*seen.items(), ("all", [c for each in seen.values() for c in each])]:
        rows.append([rule, *_covered([c for c in of if c.exact]), *_covered([c for c in of if not c.exact])[:2]])
    header = ("optimizer", "intervals", "covered", "half-width/rate, median", "half-width in sd, median", "worst error",
              "other claims", "covered")  # fmt: skip
    print(f"{runs} runs per optimizer, seed {seed}; {candidates:,} directions compared\n")
    table(header, rows)
    kinds = [("sums", ("sum", "within")), ("slices", ("unit", "input", "index")), ("vectors", ("whole",))]
    every = [c for each in seen.values() for c in each if c.exact]
    table(("kind", *header[1:6]), [[k, *_covered([c for c in every if c.functional.startswith(w)])] for k, w in kinds])
    for c in [c for each in seen.values() for c in each if not c.covered and c.kind == MOVING][:20]:
        print(f"missed: {c}")


def _covered(of: Sequence[Claim]) -> list[str]:
    moving = [c for c in of if c.kind == MOVING]
    if not moving:
        return ["0", "", "", "", ""]
    half = np.array([(c.high - c.low) / 2 for c in moving])
    floor = np.array([c.calibrated for c in moving])
    truth = np.array([c.truth for c in moving])
    error = np.abs(np.array([c.rate for c in moving]) / truth - 1)
    return [
        f"{len(of)}",
        f"{np.mean([c.covered for c in of]):.1%}",
        f"{np.median(half / truth):.1e}",
        f"{np.median(1.96 * half / np.maximum(floor, 1e-300)):.2f}",
        f"{error.max():.1e}",
    ]


# No clock at all


def noisy(net: nn.Module, x: torch.Tensor, y: torch.Tensor, size: float = 0.05) -> torch.Tensor:
    """The digits with noise: no pixel is dead."""
    return nets.smoothed(net, x + size * torch.randn_like(x), y)


class Vocabulary(nets.Tokens):
    """Every token and position is used."""

    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(17, 24), nn.Embedding(64, 24)


class Rare(Vocabulary):
    """Beside the digit, 32 words at random out of 1024, as often as in Zipf's law: most rows are seldom looked up."""

    def __init__(self):
        super().__init__()
        self.word = nn.Embedding(1024, 24)
        self.often = 1 / torch.arange(1.0, 1025) ** 1.3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.token((x * 16).long()) + self.position(torch.arange(64))
        z = z + self.word(torch.multinomial(self.often, 32 * len(x), True).view(len(x), 32)).mean(1, keepdim=True)
        return self.head(self.n2(z + self.down(F.gelu(self.up(self.n1(z))))).mean(1))


def without() -> dict[str, nets.Case]:
    """Nets without clocks, or only with slices that are nearly dead, or for a while: claims of those must be right."""
    out = {f"rare words, {rule}": nets.Case(Rare, rule, rate, decay, batch=16)
           for rule, rate, decay in (("AdamW", 3e-3, 0.1), ("Adam + L2", 3e-3, 1e-2), ("Lion", 3e-4, 1.0))}  # fmt: skip
    out["rare words, weight decay 0, AdamW"] = nets.Case(Rare, "AdamW", 3e-3, 0.0, batch=16)
    for rule, rate, decay in (("AdamW", 3e-3, 0.1), ("Lion", 3e-4, 1.0), ("Adam + L2", 3e-3, 1e-2)):
        out[f"MLP, no dead pixel, {rule}"] = nets.Case(nets.Mlp, rule, rate, decay, loss=noisy)
        out[f"tokens, all used, {rule}"] = nets.Case(Vocabulary, rule, rate, decay, batch=16)
        out[f"MLP, nearly dead pixels, {rule}"] = nets.Case(nets.Mlp, rule, rate, decay, loss=partial(noisy, size=1e-4))
    out["MLP, Muon + AdamW"] = nets.Case(nets.Mlp, "Muon + AdamW", 0.02, 0.05, loss=noisy)
    out["MLP, dead pixels, Adam + L2"] = nets.Case(nets.Mlp, "Adam + L2", 1e-3, 1e-2)
    out["two classes, Adam + L2"] = nets.Case(
        nets.two_classes,
        "Adam + L2",
        1e-3,
        1e-2,
        loss=lambda n, x, y: nets.parity(n, x + 0.05 * torch.randn_like(x), y),
    )
    return out


def walks(rng: np.random.Generator) -> Iterator[tuple[str, list[nets.Weights]]]:
    """Weights that move at random: how, and 12 checkpoints each."""
    shapes = {"w": (96, 64), "k": (32, 16, 3, 3), "e": (200, 24), "b": (64,)}
    for name, size, pull in (("steps of 1e-2", 1e-2, 0.0), ("steps of 1e-2, decay", 1e-2, 1e-2),
                             ("steps of 1e-5, decay", 1e-5, 1e-4), ("steps at rounding", 3e-8, 0.0),
                             ("steps at rounding, decay", 3e-8, 1e-7)):  # fmt: skip
        yield name, [*_walk(rng, shapes, lambda w, s=size, p=pull: -p * w + s * rng.standard_normal(w.shape))]
    for size in (1e-2, 1e-5):
        yield f"low-rank steps of {size:g}, decay", [*_walk(rng, shapes, partial(_low_rank, rng, size))]
        yield f"steps of {size:g} over six decades of rows", [*_walk(rng, shapes, partial(_uneven, rng, size))]
        yield (
            f"drift of {size:g} in one direction",
            [*_walk(rng, shapes, partial(_drift, np.random.default_rng(1), size))],
        )


def _walk(
    rng: np.random.Generator, shapes: dict[str, tuple[int, ...]], move: Callable[[np.ndarray], np.ndarray]
) -> Iterator[nets.Weights]:
    w = {n: 0.1 * rng.standard_normal(s) for n, s in shapes.items()}
    for _ in range(12):
        yield {n: v.astype(np.float32) for n, v in w.items()}
        w = {n: v + move(v) for n, v in w.items()}


def _low_rank(rng: np.random.Generator, size: float, w: np.ndarray) -> np.ndarray:
    flat = w.reshape(len(w), -1)
    return (size * np.outer(rng.standard_normal(len(flat)), rng.standard_normal(flat.shape[1])) - 1e-3 * flat).reshape(
        w.shape
    )


def _uneven(rng: np.random.Generator, size: float, w: np.ndarray) -> np.ndarray:
    """Rows that move by six decades more or less than others, all under decay: a continuum of nearly dead ones."""
    sizes = size * np.geomspace(1, 1e-6, len(w)).reshape(-1, *[1] * (w.ndim - 1))
    return sizes * rng.standard_normal(w.shape) - 1e-4 * w


def _drift(seed: int, size: float, w: np.ndarray) -> np.ndarray:
    return size * np.random.default_rng(seed).standard_normal(w.shape) - 1e-3 * w


def false_claims(runs: int, seed: int) -> None:
    """How many candidates, how many claims; a claim is false if its interval misses the decay that acted."""
    rng = np.random.default_rng(seed)
    rows, total = [], 0
    for name, case in without().items():
        seen, wrong, many = 0, 0, 0
        for number in range(runs):
            trained = nets.train(case, seed + 1000 * number)
            found = found_in(trained)
            of = [c for c in claims(trained, found) if c.kind == MOVING]
            seen, wrong, many = seen + len(of), wrong + sum(not c.covered for c in of), many + looked_at(found)
            print(*[f"claimed in {name}: {c}" for c in of[:3]], sep="\n", end="\n" * bool(of), file=sys.stderr)
        rows.append([name, f"{many:,}", seen, wrong])
        total += many
    decays = {"steps of 1e-2, decay": 1e-2, "steps of 1e-5, decay": 1e-4, "steps at rounding, decay": 1e-7}
    for number in range(runs):
        for name, checkpoints in walks(rng):
            with tempfile.TemporaryDirectory() as folder:
                for step, weights in enumerate(checkpoints):
                    save_file(weights, Path(folder) / f"step_{step}.safetensors")
                found = find(Path(folder))
            of = found.table.filter(found.table["kind"] == MOVING)
            pull = decays.get(name, 1e-4 if "decades" in name else 1e-3 if "decay" in name or "drift" in name else 0.0)
            truth = -np.log1p(-pull)
            held = (of["decay_per_step_low"] <= truth) & (of["decay_per_step_high"] >= truth)
            print(*of.rows()[:2], sep="\n", end="\n" * bool(of.height), file=sys.stderr)
            if number == 0:
                rows.append([f"random walk, {name}", 0, 0, 0])
            row = next(r for r in rows if r[0] == f"random walk, {name}")
            row[1:] = [row[1] + looked_at(found), row[2] + of.height, row[3] + int((~held).sum())]
            total += looked_at(found)
    print(f"{total:,} directions compared; {runs} runs each, seed {seed}\n")
    table(("run", "directions compared", "intervals claimed", "of which wrong"), rows)


# What keeps a clock, and what breaks it


def _on_logits(change: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> Callable[..., torch.Tensor]:
    return lambda net, x, y: change(net(x), y)


def _mixup(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    share, order = float(torch.distributions.Beta(0.4, 0.4).sample()), torch.randperm(len(x))
    z = net(share * x + (1 - share) * x[order])
    return share * F.cross_entropy(z, y) + (1 - share) * F.cross_entropy(z, y[order])


def _autocast(net: nn.Module, x: torch.Tensor, y: torch.Tensor, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    with torch.autocast("cpu", dtype=dtype):
        z = net(x)
    return F.cross_entropy(z.float(), y, label_smoothing=0.1)


def _focal(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    log = F.log_softmax(z, -1).gather(1, y[:, None])
    return (-((1 - log.exp()) ** 2) * log).mean()


def _one_against_all(z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(z, F.one_hot(y, z.shape[1]).float())


class Tied(nets.Tokens):
    """The head shares the embedding's rows: 32 classes, of which ten occur."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        z = self.token((x * 16).long()) + self.position(torch.arange(64))
        z = z + self.down(F.gelu(self.up(self.n1(z))))
        return self.n2(z).mean(1) @ self.token.weight.T


LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "cross-entropy": _on_logits(F.cross_entropy),
    "label smoothing": nets.smoothed,
    "mixup": _mixup,
    "focal loss": _on_logits(_focal),
    "z-loss 1e-4": _on_logits(lambda z, y: F.cross_entropy(z, y) + 1e-4 * z.logsumexp(-1).square().mean()),
    "z-loss 1e-8": _on_logits(lambda z, y: F.cross_entropy(z, y) + 1e-8 * z.logsumexp(-1).square().mean()),
    "logit penalty 1e-4": _on_logits(lambda z, y: F.cross_entropy(z, y) + 1e-4 * z.square().mean()),
    "logits bounded, 30 tanh(z/30)": _on_logits(lambda z, y: F.cross_entropy(30 * torch.tanh(z / 30), y)),
    "one class against all (BCE)": _on_logits(_one_against_all),
    "autocast to bfloat16": _autocast,
    "autocast to float16": partial(_autocast, dtype=torch.float16),
}


def rounded_gradients(net: nn.Module, dtype: torch.dtype) -> None:
    """Gradients pass through a 16-bit type, as in a compressed all-reduce."""
    for p in net.parameters():
        p.register_hook(lambda g: g.to(dtype).to(g.dtype))


def _with_hook(make: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    net = make()
    rounded_gradients(net, dtype)
    return net


class Clamped(nets.Mlp):
    """Every element of the gradient is clipped on its own, at a value that bites."""

    def __init__(self):
        super().__init__()
        for p in self.parameters():
            p.register_hook(lambda g: g.clamp(-3e-3, 3e-3))


def nearly(runs: int, seed: int) -> None:
    """Which clocks are found, and whether their rates are right, per loss and precision; heavy ball if not said."""
    base = nets.CASES["MLP, heavy ball, clipped"]
    plain = replace(base, clip=None)
    cases = {name: replace(plain, loss=loss) for name, loss in LOSSES.items()}
    cases["clipping by norm"] = base
    cases["clipping by value"] = replace(plain, net=Clamped)
    for dtype in (torch.bfloat16, torch.float16):
        cases[f"gradients rounded to {str(dtype).removeprefix('torch.')}"] = replace(
            plain, net=partial(_with_hook, nets.Mlp, dtype)
        )
    rows = [_kept(name, case, runs, seed) for name, case in cases.items()]
    tied = nets.Case(Tied, "AdamW", 3e-3, 0.1, nets.UNUSED, batch=16)
    rows.append(_kept("weight tying, AdamW", tied, runs, seed))
    rows.append(_kept("weight tying, heavy ball", replace(tied, rule="heavy ball", rate=0.05, decay=4e-3), runs, seed))
    rows.append(_kept("AdamW, autocast to bfloat16", replace(nets.CASES["tokens, AdamW"], loss=_autocast), runs, seed))
    for dtype in ("bfloat16", "float16"):
        rows.append(_kept(f"saved in {dtype}", base, runs, seed, dtype))
        rows.append(_kept(f"AdamW, saved in {dtype}", nets.CASES["tokens, AdamW"], runs, seed, dtype))
    rows.append(_averaged("EMA 0.99 of the weights", base, runs, seed))
    header = (
        "training",
        "class sum",
        "sums before LayerNorm",
        "dead slices",
        "other intervals",
        "worst error",
        "covered",
    )
    table(header, rows)


GROUPS = (
    ("c.weight sum",),
    ("a.weight sum", "b.weight sum"),
    ("a.weight input", "token.weight unit", "position.weight unit"),
)


def _kept(name: str, case: nets.Case, runs: int, seed: int, dtype: str = "float32") -> list[str]:
    of: list[Claim] = []
    for number in range(runs):
        trained = nets.train(case, seed + 1000 * number)
        of += claims(trained, found_in(trained, dtype))
    return _row(name, case, of, runs)


def _row(name: str, case: nets.Case, of: Sequence[Claim], runs: int) -> list[str]:
    """Intervals claimed of those that could be, per kind of clock; how far off the worst is; how many hold."""
    moving = [c for c in of if c.kind == MOVING]
    cells = []
    for words in GROUPS:
        there = [c for c in case.clocks if " ".join(c).startswith(words)]
        claimed = [c for c in moving if c.exact and f"{c.parameter} {c.functional}".startswith(words)]
        tensors = {p: sum(c[0] == p for c in there) for p, _ in there}
        most = sum(min(many, 8) for many in tensors.values()) * (case.steps // case.every) * runs
        cells.append(f"{len(claimed) / most:.0%}" if there else "–")
    others = sum(not c.exact for c in moving)
    if not moving:
        return [name, *cells, f"{others}", "", ""]
    worst = max(abs(c.rate / c.truth - 1) for c in moving)
    return [name, *cells, f"{others}", f"{worst:.1e}", f"{np.mean([c.covered for c in moving]):.0%}"]


def _averaged(name: str, case: nets.Case, runs: int, seed: int) -> list[str]:
    """An exponential average of the weights runs the same clock, late: its own decay is the average's."""
    of: list[Claim] = []
    for number in range(runs):
        mean: nets.Weights = {}
        kept: list[nets.Weights] = []

        def keep(net: nn.Module, t: int, mean: nets.Weights = mean, kept: list[nets.Weights] = kept) -> None:
            for n, p in net.named_parameters():
                w = p.detach().numpy().astype(np.float32)
                mean[n] = w.copy() if t == 0 else mean[n] + np.float32(0.01) * (w - mean[n])
            if (t + 1) % case.every == 0:
                kept.append({n: w.copy() for n, w in mean.items()})

        trained = nets.train(case, seed + 1000 * number, keep)
        averaged = replace(trained, steps=trained.steps[1:], weights=tuple(kept))
        matrices = decay_formulas.step_matrices(case.rates(), case.decay, **nets.RULES[case.rule].form)
        course = np.exp(-np.cumsum(decay_formulas.log_ratios(matrices, np.arange(case.steps + 1))[0]))
        late = [course[0]]
        for c in course[1:]:
            late.append(late[-1] + 0.01 * (c - late[-1]))
        truth = -np.diff(np.log(np.array(late)[case.every - 1 :: case.every]))
        of += claims(averaged, found_in(averaged), truth)
    return _row(name, case, of, runs)


STUDIES = {"coverage": coverage, "false": false_claims, "nearly": nearly}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    STUDIES[chosen.study](chosen.runs, chosen.seed)
