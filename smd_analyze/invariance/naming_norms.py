"""A convolution or linear layer and the normalization right after it, found by names, order and sizes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from smd_analyze.invariance.frozen import reason_of
from smd_analyze.invariance.modules import Module, input_size, output_axis, role
from smd_analyze.invariance.verdicts import Verdict

TRANSPOSED_WORD = re.compile(r"deconv|convt|transp|up_?conv|^up", re.IGNORECASE)
STEM_WORD = re.compile(
    r"^(?:conv|convolution|dw_?conv|depthwise|proj|projection|sr|c|fc|lin|linear|dense|layer|h)_?(\d*)$", re.I
)
NORM_STEM_WORD = re.compile(r"^(?:[bgl]n|norm|normalization|layer_?norm|(?:batch|group)_?norm|n)_?(\d*)$", re.I)
FEWEST_VOTES = 3  # modules of one name elsewhere that show which way round they go


@dataclass(frozen=True)
class _Pair:
    """The norm thought to follow a matrix. `doubt` is why the claim cannot be made ("" if it can)."""

    norm: Module
    doubt: str = ""


def norm_verdicts(modules: Sequence[Module], ordered: bool) -> Iterator[Verdict]:
    """Verdicts of matrices with a normalization after them. `ordered`: the modules stand in the order of registration.

    Before a batch normalization each output unit's scale divides out and its bias is subtracted with the mean. Before a
    layer or group normalization only weight and bias together may be scaled, as a whole; how many groups a name hides
    is not known, and the whole is right for any number.
    """
    finder = _Finder(modules, ordered)
    for index, module in enumerate(modules):
        if module.weight is None:
            continue
        pair = finder.norm_after(index)
        if pair is not None:
            yield from _verdicts(module, pair)
        elif reason := finder.shared_with_next(index):
            axis = output_axis(module.weight)
            units = module.weight.shape[axis]
            kind = role(module.weight_name, module.weight)
            yield Verdict(module.weight_name, kind, "unknown", reason, "guessed", "", axis, units=units)


class _Finder:
    """Looks for the norm after a matrix among its siblings."""

    def __init__(self, modules: Sequence[Module], ordered: bool) -> None:
        self.modules, self.ordered = modules, ordered
        self.children: dict[str, dict[str, Module]] = {}
        self.position = {m.path: i for i, m in enumerate(modules)}
        for module in modules:
            self.children.setdefault(module.parent, {})[module.leaf] = module
        self.top = _common_path([m.path for m in modules])
        # of each parent the norms and the others by the number in their names: a parent may have thousands of members
        self.norms: dict[tuple[str, str], list[Module]] = {}
        self.stems: dict[tuple[str, str], list[Module]] = {}
        for module in modules:
            if (match := NORM_STEM_WORD.match(module.leaf)) and module.norm_size:
                self.norms.setdefault((module.parent, match[1]), []).append(module)
            if match := STEM_WORD.match(module.leaf):
                self.stems.setdefault((module.parent, match[1]), []).append(module)
        self.numbers: dict[str, set[int]] = {}
        for module in modules:
            words = re.split(r"[./]", module.path)
            for depth, word in enumerate(words):
                if word.isdigit():
                    self.numbers.setdefault(".".join(words[:depth]), set()).add(int(word))
        self.votes = self._votes(_pattern)
        self.leaf_votes = self._votes(lambda module: module.leaf)

    def norm_after(self, index: int) -> _Pair | None:
        """The normalization that follows module `index`, None if there is no sign of one."""
        module = self.modules[index]
        inner = [m for m in self.children.get(module.path, {}).values() if m.norm_size]
        if len(inner) == 1 and len(self.children[module.path]) == 1:
            return _Pair(inner[0])
        if module.leaf.isdigit():
            return self._in_sequence(module)
        named = self._by_name(module)
        if not self.ordered:
            return named and self._checked_by_votes(module, named)
        following = self.modules[index + 1] if index + 1 < len(self.modules) else None
        if following and following.norm_size and following.parent == module.parent and not following.leaf.isdigit():
            return self._adjacent(index, following, named is following)
        if named and self.position[named.path] > index:
            return self._checked_by_votes(module, named)
        return None

    def _adjacent(self, index: int, norm: Module, same_name: bool) -> _Pair | None:
        """The norm registered right after it in the same module.

        Names that fit count for more at the top level, where the lines of many blocks stand side by side, for linear
        layers, and for norms without statistics.
        """
        module = self.modules[index]
        if norm.norm_size != _out(module) and _unit_axis(module, norm.norm_size) is None:
            return None
        convolution = module.weight is not None and len(module.weight.shape) > 2
        stems = STEM_WORD.match(module.leaf), NORM_STEM_WORD.match(norm.leaf)
        other = stems[0] is not None and stems[1] is not None and stems[0][1] > stems[1][1] == ""  # `conv1`, but `bn`
        if not same_name and (other or not (norm.statistics and convolution and module.parent != self.top)):
            return _Pair(norm, "a residual sum or an activation may stand between it and the norm")
        if not norm.statistics and not convolution:
            return _Pair(norm, "a residual sum or an activation may stand between it and the norm")
        rival = self._rival(index, norm)
        return _Pair(norm, f"{rival} may be what it normalizes" if rival else self._branch(index))

    def _rival(self, index: int, norm: Module) -> str:
        """Another matrix before the norm that fits it by name and size, "" if there is none."""
        match = NORM_STEM_WORD.match(norm.leaf)
        for other in self.stems.get((norm.parent, match[1]), ()) if match else ():
            fits = self.position[other.path] < index and other.weight is not None and _out(other) == norm.norm_size
            if fits and self._by_name(other) is norm:
                return other.path
        return ""

    def _in_sequence(self, module: Module) -> _Pair | None:
        """Numbered members of a Sequential: the next number tells, whatever the file's order."""
        number = int(module.leaf)
        later = [n for n in self.numbers.get(module.parent.replace("/", "."), ()) if n > number]
        following = self.children[module.parent].get(str(min(later))) if later else None
        if following is None or not following.norm_size:
            return None
        gap = min(later) - number > 1
        return _Pair(following, "a layer without parameters stands between it and the norm" if gap else "")

    def _by_name(self, module: Module) -> Module | None:
        """`bn1` for `conv1`, `norm` for `conv`: the one norm of the same parent with the same number."""
        match = STEM_WORD.match(module.leaf)
        if not match or (not self.ordered and module.parent == self.top and not match[1]):
            return None
        found = self.norms.get((module.parent, match[1]), ())
        return found[0] if len(found) == 1 else None

    def _votes(self, pattern: Callable[[Module], str]) -> dict[str, tuple[int, int]]:
        """For each pattern of names, how many norms have the size of the matrix' output, and how many of its input.

        Only matrices whose two sizes differ can vote. Pre-activation blocks show by votes for the input.
        """
        votes: dict[str, tuple[int, int]] = {}
        for module in self.modules:
            norm = self._by_name(module) if module.weight is not None else None
            if norm is not None and module.weight is not None:
                out, into = _out(module), input_size(module.weight)
                a, b = votes.get(pattern(module), (0, 0))
                if into == 1:  # depthwise: as many inputs as outputs
                    continue
                if norm.norm_size == out != into:
                    a += 1
                elif norm.norm_size != out:
                    b += 1
                votes[pattern(module)] = (a, b)
        return votes

    def _checked_by_votes(self, module: Module, norm: Module) -> _Pair | None:
        after, before = self.votes.get(_pattern(module), (0, 0))
        if before:
            return None
        if not after and norm.statistics:  # as all modules of that name do in the model
            likewise, against = self.leaf_votes.get(module.leaf, (0, 0))
            after = likewise if likewise >= FEWEST_VOTES and not against else 0
        weight = module.weight
        if not norm.statistics and (weight is None or len(weight.shape) == 2):
            return _Pair(norm, "a residual sum or an activation may stand between it and the norm")
        return _Pair(norm, "" if after else "names and sizes do not tell whether the norm comes before or after it")

    def shared_with_next(self, index: int) -> str:
        """Why nothing can be said of a matrix whose successor, of the same output size, has a batch norm of its own.

        A list of layers hides which of the two the norm follows, or whether it follows their sum.
        """
        if not self.ordered or index + 1 >= len(self.modules):
            return ""
        module, following = self.modules[index], self.modules[index + 1]
        if following.weight is None or following.parent != module.parent or _out(following) != _out(module):
            return ""
        pair = self.norm_after(index + 1)
        if pair is None or not pair.norm.statistics or pair.norm.norm_size != _out(module):
            return ""
        return f"{pair.norm.path} follows it or {following.path}, or their sum: a list of layers does not tell"

    def _branch(self, index: int) -> str:
        """Doubt where the matrix before this one has no norm of its own: both may be branches of one sum."""
        if index == 0:
            return ""
        module, before = self.modules[index], self.modules[index - 1]
        if before.weight is None or module.weight is None or before.parent != module.parent:
            return ""
        if _out(before) != _out(module) or self.norm_after(index - 1) is not None:
            return ""
        depthwise = input_size(before.weight) == 1 and max(module.weight.shape[2:], default=1) == 1
        return "" if depthwise else f"{before.path} may be added to its output before the norm"


def _out(module: Module) -> int:
    return module.weight.shape[output_axis(module.weight)] if module.weight is not None else 0


def _pattern(module: Module) -> str:
    return re.sub(r"\d+", "#", module.path)


def _common_path(paths: Sequence[str]) -> str:
    """The path that all share: the model itself, under whatever wrapper's prefix."""
    words = [re.split(r"[./]", p)[:-1] for p in paths]
    common = []
    for level in zip(*words, strict=False):
        if len(set(level)) > 1:
            break
        common.append(level[0])
    return ".".join(common)


def _unit_axis(module: Module, size: int) -> int | None:
    """Axis of the output units: the one that fits the norm; None if it is not clear or does not fit."""
    weight = module.weight
    if weight is None:
        return None
    axis = output_axis(weight)
    if weight.layout or len(weight.shape) == 2:
        return axis if weight.shape[axis] == size else None
    fits = [a for a in (0, 1) if weight.shape[a] == size]
    if len(fits) == 2 and TRANSPOSED_WORD.search(module.leaf):
        return None
    return fits[0] if fits else None


def _verdicts(module: Module, pair: _Pair) -> Iterator[Verdict]:
    weight, norm = module.weight, pair.norm
    if weight is None:
        return
    kind = role(module.weight_name, weight)
    axis = _unit_axis(module, norm.norm_size)
    if axis is None and norm.norm_size not in weight.shape[:2]:
        return
    if pair.doubt or axis is None:
        doubt = pair.doubt or "it may be a transposed convolution: which axis is the output is not known"
        reason = f"{norm.path} has its size, but {doubt}"
        axis = output_axis(weight) if axis is None else axis
        yield Verdict(module.weight_name, kind, "unknown", reason, "guessed", "", axis, units=weight.shape[axis])
        return
    if norm.frozen:
        reason, units = reason_of(norm.path, norm.frozen), weight.shape[axis]
        yield Verdict(module.weight_name, kind, "not invariant", reason, "guessed", "", axis, units=units)
        if module.bias_name:
            yield Verdict(module.bias_name, "bias", "not invariant", reason, "guessed")
        return
    where = f"{norm.path} normalizes its output"
    bias = module.bias_name
    if norm.statistics:
        units = weight.shape[axis]
        if math.prod(weight.shape) == units:
            reason = f"{where}; a unit is one number here: only its sign is left"
            yield Verdict(module.weight_name, kind, "dead", reason, "guessed", "", axis, units=units)
        else:
            yield Verdict(
                module.weight_name, kind, "invariant", where, "guessed", "unit", axis, units=units, norm=norm.path
            )
        if bias:
            yield Verdict(bias, "bias", "dead", f"{norm.path} subtracts the mean", "guessed")
    elif bias:
        reason = f"{where}; the bias must be scaled with the weight"
        joint = f"{module.path}+bias"
        yield Verdict(module.weight_name, kind, "jointly invariant", reason, "guessed", "whole", axis, joint=joint)
        yield Verdict(bias, "bias", "jointly invariant", reason, "guessed", "whole", joint=joint)
    else:
        yield Verdict(module.weight_name, kind, "invariant", where, "guessed", "whole", axis)
