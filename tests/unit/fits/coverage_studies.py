"""How often the intervals of the fits hold the truth: layers of simulated runs, every schedule and gradient scale.

Each study returns, over its layers (or units), how many intervals claim 95 % and how many of these hold the truth.
Layers are exact chains of SGD with momentum 0.9 (fits_runs.chain), AdamW's are real updates (elementwise_runs).
"""

from dataclasses import dataclass

import numpy as np
from elementwise_runs import norms
from fits_runs import SCALE, chain, group, quantities, schedule, statistics
from fits_runs import angles as angle_rows
from fits_runs import predictions as no_predictions

from smd_analyze.fits.fitting import contexts, fit
from smd_analyze.fits.maps import segment
from smd_analyze.fits.ou import ou_ml
from smd_analyze.fits.scale import gradient_scale

ALPHA = 0.9
STEPS = 6000
DECAY = 2.5e-5  # ηλ of the first stretch: 6 relaxation times of ‖w‖⁴ at a constant learning rate
COUNTS = (5, 10, 30, 100)
SCHEDULES = ("constant", "step", "cosine", "warm-up + cosine")
SCALES = ("constant", "×1.5", "×3", "×0.3", "correlated")
QUANTITIES = ("relaxation_rate_ratio", "gradient_scale", "decay_from_data")


@dataclass
class Tally:
    """Intervals that claim 95 %, those that hold the truth, and all that were asked for."""

    claimed: int = 0
    held: int = 0
    asked: int = 0

    def add(self, low, high, truth, claims=True):
        self.asked += 1
        if claims and low is not None and high is not None:
            self.claimed += 1
            self.held += bool(low <= truth <= high)

    @property
    def coverage(self):
        return self.held / self.claimed if self.claimed else np.nan


def rates(name, total=STEPS):
    """Learning rate of every update."""
    t, top = np.arange(total), DECAY / SCALE
    cosine = 0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * t / total))
    return {
        "constant": np.full(total, top),
        "step": np.where(t < total // 2, top, top / 10),
        "cosine": top * cosine,
        "warm-up + cosine": top * np.where(t < total // 10, (t + 1) / (total // 10), cosine),
    }[name]


def scales(name, layers, units, rng, total=STEPS, shared=True):
    """E‖g̃‖² at unit norm of every update [total, layers × units]; correlated: over 200 updates.

    `shared`: all layers have one correlated path, so that a mean over them is a truth that is conditional on it.
    """
    t = np.arange(total)[:, None] / total
    if name == "correlated":
        paths = 1 if shared else layers
        path, z, keep = np.empty((total, paths)), rng.standard_normal(paths), np.exp(-1 / 200)
        for i in range(total):
            path[i] = z
            z = keep * z + np.sqrt(1 - keep**2) * rng.standard_normal(paths)
        return np.repeat(np.exp(0.3 * path - 0.045), layers * units // paths, axis=1)
    end = {"constant": 1.0, "×1.5": 1.5, "×3": 3.0, "×0.3": 0.3}[name]
    shape = end**t if end < 1 else 1 + (end - 1) * t
    return np.repeat(shape, layers * units, axis=1)


def layers_of(plan, scale, intervals, layers, units, seed, turns=False, start=None):
    """(steps, rates, scale, squared norms) of many layers at once; they start far above, below and at equilibrium."""
    rng = np.random.default_rng(seed)
    eta, size = rates(plan), scales(scale, layers, units, rng)
    steps = np.round(np.linspace(0, STEPS, intervals + 1)).astype(int)
    first = np.repeat(rng.choice([0.1, 1.0, 10.0], layers) if start is None else np.full(layers, start), units)
    noise = 0.7
    found = chain(
        steps, eta, layers * units, ALPHA, scale=size, start=np.sqrt(first), noise=noise, seed=seed, turns=turns
    )
    return steps, eta, size, found


def fits_study(plan, scale, intervals, layers=20, units=16, seed=0):
    """What `fit` prints of whole layers: Tally per quantity."""
    pairs = intervals >= 10
    steps, eta, size, found = layers_of(plan, scale, intervals, layers, units, seed, turns=True)
    vv, inner = found
    later = chain(np.minimum(steps + 1, STEPS), eta, layers * units, ALPHA, scale=size, seed=seed,
                  start=_first(vv[0], eta, size), noise=0.7) if pairs else None  # fmt: skip
    table = schedule(steps, eta, momentum=ALPHA)
    tallies = {name: Tally() for name in QUANTITIES}
    for i in range(layers):
        own = slice(i * units, (i + 1) * units)
        rows = []
        if later is not None:
            for k in range(1, len(steps) - 1):
                cosine = inner[k, own].sum() / np.sqrt(vv[k, own].sum() * later[k, own].sum())
                angle = float(np.arccos(min(cosine, 1.0)))
                rows.append(("conv1", int(steps[k]), int(steps[k]) + 1, "consecutive", 1, angle, None, None, True, ""))
        one = group(units=units)
        got = quantities(fit(statistics(steps, {one: vv[:, own]}), table, angle_rows(rows), no_predictions()))
        _judge(tallies, got, eta, size[:, own])
    return tallies


def _first(n, eta, size):
    """`start` of a chain that begins at squared norms n."""
    return n / np.sqrt(eta[0] / (2 * SCALE * (1 - ALPHA)) * size[0])


def _judge(tallies, got, eta, size):
    """Count what the rows claim."""
    ratio = got.get("relaxation_rate_ratio", {"low": None, "high": None})
    tallies["relaxation_rate_ratio"].add(ratio["low"], ratio["high"], 1.0, ratio.get("level") is not None)
    found = got["gradient_scale"]
    begin = int(np.flatnonzero(eta != eta[-1])[-1]) + 1 if (eta[-1] == eta[-2] and (eta != eta[-1]).any()) else 0
    begin = begin if eta[-1] == eta[-2] else STEPS // 2
    truth = size[begin:].mean()
    tallies["gradient_scale"].add(found["low"], found["high"], truth, found["level"] is not None)
    decay = got.get("decay_from_data", {"low": None, "high": None})
    tallies["decay_from_data"].add(decay["low"], decay["high"], eta[-1] * SCALE)


def index_study(plan, scale, intervals, layers=30, units=16, seed=0, start=1.0):
    """(equilibrium index, level) tallies of whole layers; the truth is the mean over all of them."""
    steps, eta, _, vv = layers_of(plan, scale, intervals, layers, units, seed, start=start)
    table = schedule(steps, eta, momentum=ALPHA)
    mean = np.log(vv).mean(axis=1)
    height = np.sqrt(vv.reshape(len(steps), layers, units).sum(axis=2)).mean(axis=1)
    tallies = Tally(), Tally()
    one = group(units=units)
    for i in range(layers):
        stats = statistics(steps, {one: vv[:, i * units : (i + 1) * units]})
        c = next(contexts(stats, table, angle_rows(), no_predictions()))
        found = c.stationarity
        if found is None:
            continue
        truth = (mean[-1] - mean[found.first]) / (2 * c.regime.decay[found.first :].sum())
        tallies[0].add(*(v if np.isfinite(v) else None for v in (found.low, found.high)), truth)
        if plan == "constant" and c.since is not None:
            level = quantities(fit(stats, table, angle_rows(), no_predictions()))["level"]
            tallies[1].add(level["low"], level["high"], height[c.since :].mean())
    return tallies


def angles_study(plan, scale, intervals, layers=8, units=16, seed=0):
    """(agreement, angle_after_change) tallies of layers that begin at equilibrium, measured at every checkpoint.

    The truth is the rms over all layers at the steps that a layer's row uses, over theory's at equilibrium or after the
    change of plan "step".
    """
    steps, eta, size, (vv, inner) = layers_of(plan, scale, intervals, layers, units, seed, turns=True, start=1.0)
    later = chain(np.minimum(steps + 1, STEPS), eta, layers * units, ALPHA, scale=size, seed=seed,
                  start=_first(vv[0], eta, size), noise=0.7)  # fmt: skip
    inside = np.arange(1, len(steps) - 1)
    shape = len(steps), layers, units
    dots, here, there = (a.reshape(shape)[inside].sum(axis=2) for a in (inner, vv, later))
    angle = np.arccos(np.minimum(dots / np.sqrt(here * there), 1.0))  # [checkpoints, layers]
    rest = np.sqrt(2 * eta * SCALE / (1 + ALPHA))
    passed = np.concatenate([[0.0], np.cumsum(4 * eta * SCALE / (1 - ALPHA) / np.log(2))])
    known = [
        {"group": "conv1", "step": int(t), "equilibrium_angular_update": float(rest[min(t, STEPS) - 1]),
         "equilibrium_norm": None, "norm_basis": "", "half_lives": float(passed[min(t, STEPS)])}
        for t in sorted({*steps[1:].tolist(), *(steps[inside] + 1).tolist()})
    ]  # fmt: skip
    table, one = schedule(steps, eta, momentum=ALPHA), group(units=units)
    tallies = Tally(), Tally()
    mean = np.sqrt((angle**2).mean(axis=1))
    part = 1 / np.sqrt(1 + 9 * 2.0 ** -(passed[steps[inside]] - passed[STEPS // 2]))
    dip = (steps[inside] >= STEPS // 2 + 2 / (1 - ALPHA)) & (np.abs(part - 1) > 0.05)
    for i in range(layers):
        rows = [
            ("conv1", int(steps[k]), int(steps[k]) + 1, "consecutive", 1, float(a), None, None, True, "")
            for k, a in zip(inside, angle[:, i], strict=True)
        ]
        own = statistics(steps, {one: vv[:, i * units : (i + 1) * units]})
        got = quantities(fit(own, table, angle_rows(rows), no_predictions(known)))
        since, agrees = got["stationary_since"]["value"], got["agreement"]
        if since is not None and plan == "constant":
            used = steps[inside] >= since
            truth = np.sqrt(np.mean((mean[used] / rest[-1]) ** 2))
            tallies[0].add(agrees["low"], agrees["high"], truth, agrees["level"] is not None)
        after = got.get("angle_after_change")
        if plan == "step" and after is not None:
            truth = np.sqrt(np.mean((mean[dip] / (part[dip] * rest[-1])) ** 2))
            tallies[1].add(after["low"], after["high"], truth, after["level"] is not None)
    return tallies


def ou_study(scale, intervals, units=300, seed=0, start=10.0):
    """(rate, level) tallies of the Ornstein-Uhlenbeck fit of single units at a constant learning rate."""
    rng = np.random.default_rng(seed)
    x, size = DECAY / (1 - ALPHA), scales(scale, units, 1, rng, shared=False)
    steps = np.round(np.linspace(0, STEPS, intervals + 1)).astype(int)
    vv = chain(steps, np.full(STEPS, x / SCALE), units, 0.0, scale=size, start=np.sqrt(start), noise=0.7, seed=seed)
    found = ou_ml(steps, vv**2)
    rate, level = 4 * x * (1 + 1.5 * x), x / SCALE / (2 * SCALE) * size[-1]
    tallies = Tally(), Tally()
    for u in range(units):
        tallies[0].add(found.low[u], found.high[u], rate)
        tallies[1].add(found.level_low[u], found.level_high[u], level[u])
    return tallies


def scale_study(plan, intervals, units=300, seed=0):
    """Tally of one constant gradient scale per unit, the schedule trusted, without the tests of the layer."""
    steps, eta, _, vv = layers_of(plan, "constant", intervals, units, 1, seed)
    one = group(units=units)
    stats, table = statistics(steps, {one: vv}), schedule(steps, eta, momentum=ALPHA)
    found = next(contexts(stats, table, angle_rows(), no_predictions())).scale
    tally = Tally()
    if found is None:  # too few intervals at the last learning rate
        return tally
    for low, high in zip(found.low, found.high, strict=True):
        tally.add(low, high, 1.0)
    return tally


def adamw_study(scale, intervals, layers=6, units=12, total=3000, seed=0):
    """Tally of ρ across a drop of the learning rate under AdamW."""
    eta = np.where(np.arange(total) < total // 2, 4e-3, 1e-3)
    end = {"constant": 1.0, "×1.5": 1.5, "×3": 3.0, "×0.3": 0.3}[scale]
    steps = np.round(np.linspace(0, total, intervals + 1)).astype(int)
    table = schedule(steps, eta, decay=0.5, momentum=None, optimizer="adamw", beta1=0.9, beta2=0.99)
    size = end ** (np.arange(total) / total)
    vv = norms("adamw", steps, eta, 0.5, units=layers * units, d=48, scale=size, seed=seed)
    tally = Tally()
    for i in range(layers):
        own = {group(units=units): vv[:, i * units : (i + 1) * units]}
        got = quantities(fit(statistics(steps, own), table, angle_rows(), no_predictions()))
        ratio = got.get("relaxation_rate_ratio", {"low": None, "high": None})
        tally.add(ratio["low"], ratio["high"], 1.0)
    return tally


def exact_map_study(intervals, units=2000, seed=0):
    """Tally of the gradient scale on data of its own model: what the interval is worth where nothing is approximate."""
    rng = np.random.default_rng(seed)
    phi, b, c = segment(1.0, 1e-3, np.full(intervals, 300))
    y = np.empty((intervals + 1, units))
    y[0] = 2 * b[0] / (1 - phi[0])
    for i in range(intervals):
        y[i + 1] = phi[i] * y[i] + b[i] + 0.5 * np.sqrt(c[i]) * rng.standard_normal(units)
    found = gradient_scale(y, phi, b, c)
    tally = Tally()
    for low, high in zip(found.low, found.high, strict=True):
        tally.add(low, high, 1.0)
    return tally
