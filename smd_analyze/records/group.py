"""Group: what is analysed as one (a tensor, a slice of one, a joint set), and what was decided about each parameter."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from smd_analyze.records import display
from smd_analyze.records.finding import Finding

Status = Literal["invariant", "jointly invariant", "not invariant", "dead", "unknown"]
Granularity = Literal["unit", "block", "whole", ""]
Evidence = Literal["proved", "confirmed", "proved and confirmed", "refuted", "not proved", "guessed"]


@dataclass(frozen=True)
class Member:
    """The part of one tensor that belongs to a group: indices `start` to `stop` of `axis`, the units' axis.

    `every` > 0: the same indices of each `every` consecutive ones (heads that interleave query, key and value). The
    indices are cut into the group's `units` equal blocks, in order. With one unit the axis does not matter.
    `shape` is the one that `axis` is an axis of, if neighbouring axes are seen as one; () for the tensor's own.
    """

    parameter: str
    axis: int
    start: int
    stop: int
    shape: tuple[int, ...] = ()
    every: int = 0


@dataclass(frozen=True)
class Group:
    """One row of the `groups` table.

    `units` is the number of parts that may each be scaled alone (output units, heads, 1 for the whole tensor);
    the norm of unit u is that of its blocks in all members together. A group that is not invariant still has the
    output units as `units`, for the picture. `numel` counts elements. `role`: conv, linear, embedding, norm gain, bias,
    other. `normalizer`: path of the normalization that divides its scale out, `epsilon` what that adds to the variance.
    """

    name: str
    members: tuple[Member, ...]
    status: Status
    granularity: Granularity
    units: int
    numel: int
    parameter_group: str
    evidence: Evidence
    role: str
    reason: str
    normalizer: str = ""
    epsilon: float | None = None


@dataclass(frozen=True)
class ParameterVerdict:
    """One row of the `parameters` table: a tensor, or a slice of a fused one ("", "0:64" or "0:64 of every 192"
    along the units' axis)."""

    parameter: str
    slice: str
    shape: tuple[int, ...]
    role: str
    parameter_group: str
    status: Status
    granularity: Granularity
    group: str
    evidence: Evidence
    reason: str


@dataclass(frozen=True)
class Translation:
    """A sum over elements of a parameter that feels no gradient: weight decay alone moves it, so it is a clock.

    `functional` is that of the `clocks` table: "sum over units" (one sum for each index of the other axes), "within
    unit" (one for each unit), "whole" (every element by itself). `axes` are those that are summed over, of the tensor
    as saved. `assumed` says what must be true besides the graph ("" if nothing).
    """

    parameter: str
    functional: str
    axes: tuple[int, ...]
    reason: str
    assumed: str = ""


@dataclass(frozen=True)
class Groups:
    """Every tensor of the run accounted for, and the groups that are analysed.

    `source` says what the verdicts rest on: "graph of model.py:net" or "names and shapes". `translations`: sums that
    feel no gradient, as far as the graph tells.
    """

    parameters: tuple[ParameterVerdict, ...]
    groups: tuple[Group, ...]
    source: str
    findings: tuple[Finding, ...] = ()
    translations: tuple[Translation, ...] = ()

    def __repr__(self) -> str:
        counts = Counter(group.status for group in self.groups)
        kinds = ", ".join(f"{n} {status}" for status, n in counts.most_common())
        head = f"{len(self.groups)} groups of {len(self.parameters)} parameters, by {self.source}: {kinds or 'none'}"
        return display.with_findings(f"Groups: {head}", self.findings)
