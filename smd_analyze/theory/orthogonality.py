"""Is the gradient orthogonal to the weights? Under SGD two checkpoints one step apart tell."""

from collections.abc import Iterator
from math import sqrt

import numpy as np

from smd_analyze.records.finding import Finding
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries
from smd_analyze.theory.course import Course
from smd_analyze.theory.diffusion import first_from_buffer
from smd_analyze.theory.geometry import unit_angle
from smd_analyze.theory.laws import Law
from smd_analyze.theory.of_group import INVARIANT, courses
from smd_analyze.theory.rounding import copied

SEEN = 0.02
"""Cosine of gradient and weights from which they are not orthogonal: rounding of float32 makes about 1e-5, the ε of a
normalization layer up to 1e-3, a random direction 1/√d."""
SHOWN = 5
REMEDY = (
    "prove the verdict with --model, or let `smd-analyze groups --why NAME` say what it rests on; a learning rate, "
    "decay or momentum other than recorded would look the same"
)


def check_orthogonality(stats: Statistics, schedule: Schedule) -> tuple[Finding, ...]:
    r"""What steps between neighbouring checkpoints say about ⟨w, g⟩ = 0 of the groups taken to be scale-invariant.

    $$ \frac{\langle w, w'-w\rangle}{n} + x + \eta\alpha\frac{\langle w, v\rangle}{n}
       = -\eta\frac{\langle w, g\rangle}{n} $$

    must be 0: plain SGD needs the weights alone (there it says cos θ₁ = (1−x)√(n/n′)), momentum the buffer saved at the
    earlier checkpoint. Over the size of the step this is the cosine of gradient and weights, root mean square over
    units. Nesterov, Adam, Lion and Muon are not tested: their updates are not the gradient.
    Returns: a note if all is well, a warning with names if not, nothing where no pair of checkpoints allows the test.
    """
    course_of_group = courses(stats, schedule)
    good, bad = [], []
    for group in stats.groups:
        course = course_of_group(group)
        if group.status not in INVARIANT or course is None or copied(stats.dtypes.get(group.name, ())):
            continue
        found = list(_cosines(stats.units(group.name), course))
        if found:
            cosine, step = max(found)
            (good if cosine < SEEN else bad).append((cosine, step, group.name))
    findings = []
    if bad:
        names = ", ".join(f"{name} ({cosine:.2g})" for cosine, _, name in sorted(bad, reverse=True)[:SHOWN])
        more = f" and {len(bad) - SHOWN} more" if len(bad) > SHOWN else ""
        message = (
            "the gradient is not orthogonal to weights taken to be scale-invariant, cosine over one step up to: "
            f"{names}{more}"
        )
        findings.append(Finding("gradient-along-weights", "warning", f"step {bad[0][1]}", message, REMEDY))
    if good:
        message = (
            f"checkpoints one step apart test {len(good)} of the groups taken to be scale-invariant: their gradient is "
            f"orthogonal to the weights (cosine below {max(good)[0]:.1g})"
        )
        findings.append(Finding("gradient-orthogonal", "note", f"step {good[0][1]}", message))
    return tuple(findings)


def _cosines(series: UnitSeries, course: Course) -> Iterator[tuple[float, int]]:
    """Cosine of gradient and weights, root mean square over units, and the step, of every testable step of a group."""
    for i in np.flatnonzero(course.lengths == 1) if course.direct else ():
        law = course.laws[i]
        if not isinstance(law, Law) or law.power != 4 or law.nesterov or course.trouble(int(i)):
            continue
        x, a = float(course.decay[i]), float(course.momentum[i])
        first = 1 - x if a == 0 else first_from_buffer(series, course, int(i))
        if first is None or np.isnan(x):
            continue
        n, alive = series.vv[i - 1], (series.vv[i - 1] > 0) & (series.dd[i] > 0)
        if not alive.any():
            continue
        along = ((series.dv[i] - series.dd[i]) / np.where(alive, n, 1.0) - (first - 1))[alive]
        angles = unit_angle(series.vv[i], series.dd[i], series.dv[i])[alive]
        size = (1 - a * a) * float(np.mean(angles**2))  # (η‖g‖/‖w‖)²: past gradients make up the rest of the step
        if size > 0 and np.isfinite(along).all():
            yield min(sqrt(float(np.mean(along**2)) / size), 1.0), int(course.steps[i])
