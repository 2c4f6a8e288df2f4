"""Every threshold of the search for clocks, with its reason. They decide what is claimed, so they stand in one place.

"Chosen on data" means: on 65 sequences of checkpoints of 61 independently trained public runs (242,135 candidate
directions, 4.1 million intervals), where no claim that could be checked was false.
"""

from __future__ import annotations

from dataclasses import dataclass

DIRECTIONS = 8  # elements of a vector: with fewer, that it keeps its direction proves little
EFFECTIVE = 4.0  # (Σs²)²/Σs⁴: elements that carry the length; one large element keeps any vector's direction
MOST_DECAY = 8.0  # of ln(c/c') in one interval: ResNets saved every twenty epochs reach 4; beyond, little is left
TURNING = 1e-6  # of 1 − cos between checkpoints: rounding stays below it, whatever the interval
SPENT_TURNING = 1e-4  # of sums that decay has made small: rounding turns them more, but always by as much as it can …
SPENT_ROUNDINGS = 30.0  # … so that their turning is 5 times k roundings, whatever is left of them
PERPENDICULAR = 1e-4  # of the motion across, against chance. Class sums stay below 1.4e-4, all other sums above 7e-3
SURE = 0.05  # sd of ln(c/c') against itself: a rate is known to 5 % at least
STILL = 4.0  # |ln(c/c')| in sd below which a sum is said not to move
APART = 4.0  # sd between two rates that are said to differ
ROUNDINGS_SUM = 100.0  # 1 − cos of a sum against k independent roundings: room for one that is one hundredfold
ROUNDINGS_SLICE = 3.0  # 1 − cos of a slice against k equal roundings: the same element rounds the same way each step
SPENT = 1e-5  # ‖sum‖/‖W‖ below which a sum is only rounding
COLLAPSED = 1e-12  # largest |element| below which a vector was driven to zero by Adam with L2: nothing is left to read
ALIKE = 1e-3  # spread of |elements| against their size: equal elements keep their direction whatever moves them
FRESH = 0.5  # 1 − cos that is another vector: other runs are at about 1, the same run below 1e-6
FIRM = 1e-2  # 1 − cos that rounding alone may make of a vector that is asked whether it is another one

SD_FACTOR_SUM = 1.1  # measured over predicted sd, worst run of nine: 1.07
SD_FACTOR_SLICE = 1.25  # 34,631 intervals of slices: 1.12 on average
FLOOR_SUM = 1e-13  # of the log ratio: what float64 sums are good for
FLOOR_SLICE = 2.0**-30  # per step: bias of roundings that repeat, and are different in each element
FLOOR_VECTOR = 2.0**-25  # per step: the same where elements may be alike, and round alike (half an ulp)
RESOLUTION = 3e-8  # per step, 2^-25: half an ulp of 1. A true rate of 2e-8 reads 0.95 of it, one of 2e-9 reads 0.4
NORMAL_95 = 1.959963984540054


def within_95(freedom: int) -> float:
    """Student's t: half-width of a 95 % interval in sd, if the sd is itself measured along `freedom` directions.

    Cornish–Fisher's expansion; to 1 % from 5 on.
    """
    z, n = NORMAL_95, max(freedom, 1)
    first, second = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / n + second / n**2


NO_DECAY = 1e-7  # per step: a sum that does not move is "no decay" if it excludes more than that, else "at most"
UNKNOWN_MOST = 10_000.0  # updates in an epoch or between two saves, where the files know only those: seldom more …
UNKNOWN_LEAST = 100.0  # … and seldom fewer

COPY_PERPENDICULAR = 1e-2  # as PERPENDICULAR, for 16-bit copies of weights that are trained in fp32
COPY_PERPENDICULAR_SLICE = 1e-3  # slices are a continuum of nearly dead ones: rates are right up to 3e-4
COPY_ROUNDINGS = 10.0  # 1 − cos against that of two roundings: the copies', whatever the interval
COPY_TURNING = 1e-3  # as TURNING

GRID_BITS = 16.0  # binary digits of a sum below its smallest term: fp32 has 24, float16 11, bfloat16 8
GRID_BITS_COARSE = 9.5


@dataclass(frozen=True)
class Precision:
    """`rounding`: relative rounding error of a saved tensor (0.2125 ulp); `copy`: coarser than what is trained."""

    rounding: float
    copy: bool


PRECISIONS = {
    "float64": Precision(2.5e-8, copy=False),  # most often fp32 weights, widened
    "float32": Precision(2.5e-8, copy=False),
    "float16": Precision(2.08e-4, copy=True),
    "bfloat16": Precision(1.66e-3, copy=True),
}
