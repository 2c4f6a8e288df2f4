"""How the norm moves under a whole schedule: interval by interval, and the correction that momentum asks for.

The linear variable Y (‖w‖⁴ for the SGD family, ‖w‖² for AdamW, Lion and Muon) obeys Y_{i+1} = Φ_i Y_i + M B_i in the
mean, M the unit's L = E‖g̃‖² (SGD family) or its number of elements (the others).
"""

import numpy as np

from smd_analyze.theory import sgd
from smd_analyze.theory.autoregression import Floats
from smd_analyze.theory.course import Course
from smd_analyze.theory.laws import Formula, Law

GRID = np.exp(np.linspace(-7, 7, 41))  # starting norms² relative to the run's own scale
WORTHWHILE = 1e-3  # momentum number A from which the linear map of the SGD family is worth correcting
LOOPED = 200_000  # optimizer steps that are followed one by one; beyond, interval formulas alone


def one_step(law: Law, rate: Floats, decay: Floats, momentum: float) -> tuple[Floats, Floats, Floats]:
    r"""Factor f, source b and noise c of one step: Y' = fY + Mb, Var Y' = Vc.

    SGD family, with x_e and η_e = η/(1−α): $q = (1-x_e)^2,\ f = q^2,\ b = \eta_e^2(1+q),\ c = 4q^2\eta_e^4$
    (fixed point exact for α = 0). AdamW, Lion, Muon: $f = (1-x)^2,\ b = \eta^2\Gamma(x)$, c is not used.
    Args: η, x = ηλ [1/step] arrays, α or β₁.
    """
    if law.gain is not None:
        return (1 - decay) ** 2, rate**2 * law.gain(decay, momentum), np.zeros_like(rate)
    slow = decay * law.amplification(momentum)
    fast, q = rate / (1 - momentum), (1 - slow) ** 2
    return q * q, fast**2 * (1 + q), 4 * q * q * fast**4


def interval_map(course: Course, i: int) -> tuple[float, float, float]:
    """Φ, B and C of interval i (see the module), NaN where the schedule or the law is unknown."""
    law = course.laws[i]
    if isinstance(law, str) or course.trouble(i) or np.isnan(course.rate_mean[i] + course.decay[i]):
        return np.nan, np.nan, np.nan
    rates, decays, counts = course.pieces(i)
    factor, source, noise = one_step(law, rates, decays, float(course.momentum[i]))
    phi, b, c = 1.0, 0.0, 0.0
    for f, s, v, k in zip(factor, source, noise, counts, strict=True):
        total = f**k
        b = total * b + s * (k if f == 1 else -np.expm1(k * np.log(f)) / (1 - f))
        c = total**2 * c + v * (k if f == 1 else -np.expm1(2 * k * np.log(f)) / (1 - f * f))
        phi *= total
    return float(phi), float(b), float(c)


def interval_maps(course: Course) -> tuple[Floats, Floats, Floats]:
    """Φ, B, C of all intervals, arrays [T], entry 0 NaN."""
    maps = [(np.nan, np.nan, np.nan)] + [interval_map(course, i) for i in range(1, len(course.steps))]
    phi, b, c = np.array(maps).T
    remembered = _sources_with_memory(course, phi)
    return phi, b if remembered is None else remembered, c


def _sources_with_memory(course: Course, phi: Floats) -> Floats | None:
    r"""B of all intervals for updates of known autocovariance (Lion, Muon), with the learning rates that they remember.

    $$ b_t = \eta_t^2\gamma_0 + 2\eta_t\sum_{j\ge1}(1-x)^j\eta_{t-j}\gamma_j $$

    At the start of a run there are no updates to remember; later checkpoints take the first η for those before.
    None where another law acts, step counts are unknown or there are more than LOOPED steps.
    """
    laws, total = set(course.laws[1:]), course.lengths[1:].sum()
    law = course.laws[1] if len(course.laws) > 1 else ""
    if isinstance(law, str) or law.gamma is None or len(laws) > 1 or not total <= LOOPED or np.isnan(phi[1:]).any():
        return None
    steps = [[np.repeat(v, _whole(p[2])) for v in p[:2]] for p in map(course.pieces, range(1, len(course.steps)))]
    rates, decays = (np.concatenate(v) for v in zip(*steps, strict=True))
    gamma = law.gamma(float(course.momentum[1]))
    kernel = gamma * np.exp(np.arange(len(gamma)) * np.log1p(-float(decays.mean())))
    before = np.zeros(len(gamma)) if course.steps[0] == 0 else np.full(len(gamma), rates[0])
    past = np.concatenate([before, rates])
    length = len(past) + len(kernel)
    heard = np.fft.irfft(np.fft.rfft(past, length) * np.fft.rfft(kernel, length), length)[len(before) : len(past)]
    source = rates * (2 * heard - rates * gamma[0])
    out, t = [np.nan], 0
    for rate, _ in steps:
        part = slice(t, t + len(rate))
        left = 2 * np.log1p(-decays[part])
        after = np.exp(np.cumsum(left[::-1])[::-1] - left)  # what the later steps of the interval leave of a source
        out.append(float((source[part] * after).sum()))
        t += len(rate)
    return np.array(out)


def sgd_moments(
    law: Law, pieces: list[tuple[Floats, Floats, Floats]], momenta: Floats, start: Floats, fresh: bool,
    in_velocity: bool = False,
) -> Floats:  # fmt: skip
    r"""Three-moment mean map: ‖w‖² after each interval, for starts `start` (array) and L = 1.

    State n = ‖w‖², p = ⟨w,v⟩, s = ‖v‖²; with ‖g‖² = L/n and ⟨g,v⟩ = 0,
    $\langle w,v'\rangle = \alpha p+\lambda n,\ s' = \alpha^2 s + 1/n + \lambda^2 n + 2\alpha\lambda p,\
    n' = n - 2\eta\langle w,v'\rangle + \eta^2 s',\ p' = \langle w,v'\rangle - \eta s'$; Nesterov and decoupled alike.
    L ≠ 1: n/√L is a function of n₀/√L. `fresh`: buffers empty at the start, else quasi-static. `in_velocity`: the
    buffer holds the learning rate (v ← αv − ηg', w ← w + v in Keras, TF, Caffe): when η changes, v/η changes with it.
    Returns: [intervals, starts]. Within 0.5 % of simulation up to A = 0.1.
    """
    n = np.array(start, np.float64)
    a = float(momenta[0])
    rates, decays, _ = pieces[0]
    lam = float(decays[0] / rates[0]) if law.coupled and rates[0] > 0 else 0.0
    s = np.zeros_like(n) if fresh else 1 / (n * (1 - a * a))
    stretch = 1 - a * a + a if law.nesterov else 1.0
    p = np.zeros_like(n) if fresh else (lam * n - rates[0] * s * stretch) / (1 - a)
    held, out = 0.0, []
    for (rates, decays, counts), alpha in zip(pieces, momenta, strict=True):
        a = float(alpha)
        for rate, decay, count in zip(rates, decays, _whole(counts), strict=True):
            eta = float(rate)
            lam = float(decay) / eta if law.coupled and eta > 0 else 0.0
            keep = 1.0 if law.coupled else 1 - float(decay)
            if in_velocity and eta > 0 and count:
                ratio = held / eta if held else 1.0
                held, p, s = eta, p * ratio, s * ratio**2
            for _ in range(count):
                gg = 1 / n + lam * lam * n
                wv = a * p + lam * n
                gv = a * lam * p + gg
                s = a * a * s + gg + 2 * a * lam * p
                if law.nesterov:
                    wd, dd, dv = (
                        -eta * (lam * n + a * wv),
                        eta * eta * (gg + a * a * s + 2 * a * gv),
                        -eta * (gv + a * s),
                    )
                else:
                    wd, dd, dv = -eta * wv, eta * eta * s, -eta * s
                n = keep * keep * n + 2 * keep * wd + dd
                p = keep * wv + dv
        out.append(n)
    return np.array(out)


def adamw_moments(
    gain: Formula, pieces: list[tuple[Floats, Floats, Floats]], beta1: Floats, beta2: Floats, start: Floats, fresh: bool
) -> Floats:
    r"""Two-state mean map of AdamW: ‖w‖²/d after each interval, for starts `start` = n₀/d (array).

    $V \leftarrow \beta_2 V + (1-\beta_2)/n,\ n \leftarrow (1-x)^2 n + \eta^2\Gamma/(nV)$ per element, V in units of the
    unit gradient's second moment, `gain(x, β₁)` = Γ. `fresh`: v̂ starts empty and is bias-corrected, else V starts at
    1/n.
    Returns: [intervals, starts]. 0.5 % after a drop of the learning rate; it misses the norm that the first 3/(1−β₁)
    steps of a run add.
    """
    n = np.array(start, np.float64)
    v, weight = 1 / n, 0.0 if fresh else 1.0  # weight: 1 − β₂ᵗ of the bias correction
    out = []
    for (rates, decays, counts), b1, b2 in zip(pieces, beta1, beta2, strict=True):
        gains = rates**2 * gain(decays, b1)
        for added, decay, count in zip(gains, decays, _whole(counts), strict=True):
            keep = (1 - float(decay)) ** 2
            for _ in range(count):
                inverse = 1 / n
                weight = 1 - b2 * (1 - weight)
                v = v + (1 - b2) / weight * (inverse - v)
                n = keep * n + added * inverse / v
        out.append(n)
    return np.array(out)


def _whole(counts: Floats) -> list[int]:
    """Fractional step counts as whole ones with the same total."""
    edges = np.rint(np.concatenate([[0.0], np.cumsum(counts)])).astype(int)
    return [int(k) for k in np.diff(edges)]


def correction(course: Course, phi: Floats, b: Floats) -> tuple[Floats, Floats] | None:
    """What the linear map misses: ratio of the moment maps' Y to the linear map's, for a grid of starting norms.

    Returns (grid of ‖w₀‖²/√L or ‖w₀‖²/d [G], ratio [T, G]), or None where it is not worth it (no decay, A small) or not
    possible (unknown intervals or β₂, step counts unknown, changing optimizer, more than LOOPED steps).
    """
    laws, total = set(course.laws[1:]), course.lengths[1:].sum()
    law = course.laws[1] if len(course.laws) > 1 else ""
    if isinstance(law, str) or len(laws) > 1 or not total <= LOOPED or np.isnan(phi[1:]).any():
        return None
    if not (course.decay[1:] > 0).any():
        return None
    pieces = [course.pieces(i) for i in range(1, len(course.steps))]
    scale = 0.0
    for f, s in zip(phi[1:], b[1:], strict=True):
        scale = f * scale + s
    if scale <= 0:
        return None
    grid = GRID * scale ** (2 / law.power)
    fresh = bool(course.steps[0] == 0)
    if law.gamma is not None:
        return None  # interval_maps hold it already
    if law.gain is not None:
        if not law.lagging or np.isnan(course.beta2[1:]).any():
            return None
        followed = adamw_moments(law.gain, pieces, course.momentum[1:], course.beta2[1:], grid, fresh)
    else:
        number = sgd.momentum_number(course.decay[1:] / course.lengths[1:], course.momentum[1:])
        held = bool(course.in_velocity[1:].all())
        if number.max() < WORTHWHILE and not (held and course.changes[1:].any()):
            return None
        followed = sgd_moments(law, pieces, course.momentum[1:], grid, fresh, held)
    linear = grid ** (law.power / 2)
    ratios = [np.ones_like(grid)]
    for f, s, y in zip(phi[1:], b[1:], followed, strict=True):
        linear = f * linear + s
        ratios.append(y ** (law.power / 2) / linear)
    return grid, np.array(ratios)
