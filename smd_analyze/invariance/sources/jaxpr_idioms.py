"""What jax writes out in small steps and the calculus knows as one: means, centring, variances, softmax, NaN fills.

Only a reading that computes the same is put in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isnan, prod

from smd_analyze.invariance.sources.jaxpr_equations import Equation, Literal, Operand

COPIES = ("convert_element_type", "copy", "copy_p", "reduce_precision", "sharding_constraint", "stop_gradient")
SAME = COPIES[:-1]
SPREAD = ("broadcast_in_dim", "reshape", "squeeze", "expand_dims")


class Idioms:
    """Looks equations up by the variables that they make."""

    def __init__(self, equations: Sequence[Equation], shapes: dict[int, tuple[int, ...]]) -> None:
        self.makers = {v: e for e in equations for v in e.outputs}
        self.shapes = shapes

    def maker(self, x: Operand, through: Sequence[str] = SAME) -> Equation | None:
        """The equation that makes x, seen through copies."""
        found = self.makers.get(x) if isinstance(x, int) else None
        while found is not None and found.name in through:
            source = found.inputs[0]
            found = self.makers.get(source) if isinstance(source, int) else None
        return found

    def origin(self, x: Operand) -> Operand:
        """x before copies."""
        while isinstance(x, int) and (made := self.makers.get(x)) is not None and made.name in SAME:
            x = made.inputs[0]
        return x

    def mean(
        self, x: Operand, axes: Sequence[int] = (), like: Sequence[int] = ()
    ) -> tuple[Operand, tuple[int, ...]] | None:
        """(y, axes) if x is the mean of y over them: without those axes, or with `axes` of `like` put back."""
        made = self.maker(x)
        if made is None or made.name not in ("div", "mul"):
            return None
        for total, number in ((0, 1), (1, 0)) if made.name == "mul" else ((0, 1),):
            count = made.inputs[number]
            sums = self.maker(self.spread(made.inputs[total], axes, like) if like else made.inputs[total])
            if not isinstance(count, Literal) or count.value.size != 1 or sums is None or sums.name != "reduce_sum":
                continue
            source, over = sums.inputs[0], tuple(int(a) for a in sums.params["axes"])
            if not isinstance(source, int):
                continue
            wanted = prod(self.shapes[source][a] for a in over)
            told = float(count.value.reshape(-1)[0])
            told = 1 / told if made.name == "mul" and told else told
            if abs(told - wanted) <= 1e-6 * wanted:
                return self.origin(source), over
        return None

    def spread(self, x: Operand, axes: Sequence[int], like: Sequence[int], through: Sequence[str] = SAME) -> Operand:
        """The reduced tensor behind x, if x is it with `axes` of `like` put back (as length 1 or full); else x."""
        start = x
        kept = [a for a in range(len(like)) if a not in axes]
        while isinstance(x, int) and (made := self.makers.get(x)) is not None:
            source = made.inputs[0] if made.inputs else None
            if made.name in through:
                x = made.inputs[0]
                continue
            if made.name not in SPREAD or not isinstance(source, int):
                break
            if made.name == "broadcast_in_dim":
                onto = [int(a) for a in made.params["broadcast_dimensions"]]
                before = self.shapes[source]
                if before == tuple(like[a] for a in kept) and onto == kept and len(made.shapes[0]) == len(like):
                    return source
                if len(before) != len(like) or onto != list(range(len(like))):
                    break
            elif made.shapes[0] == tuple(1 if a in axes else n for a, n in enumerate(like)):
                if self.shapes[source] == tuple(like[a] for a in kept):
                    return source
                if self.shapes[source] != made.shapes[0]:
                    break
            x = source
        return x if isinstance(x, int) and self.shapes.get(x) == tuple(like[a] for a in kept) else start

    def square_of(self, x: Operand) -> Operand | None:
        """y if x is y·y."""
        made = self.maker(x)
        if made is None:
            return None
        if made.name == "square" or (made.name == "integer_pow" and int(made.params["y"]) == 2):
            return self.origin(made.inputs[0])
        if made.name == "mul" and self.origin(made.inputs[0]) == self.origin(made.inputs[1]):
            return self.origin(made.inputs[0])
        return None

    def read(self, e: Equation) -> Equation:
        """The equation in the calculus' words, itself if it is none of the idioms."""
        first = e.inputs[0] if e.inputs else None
        if e.name in ("div", "mul") and (found := self.mean(e.outputs[0])) is not None:
            return replace(e, name="mean", inputs=(found[0],), params={"axes": found[1]})
        if e.name == "sub" and isinstance(first, int):
            return self.difference(e, first)
        if e.name == "div" and isinstance(first, int):
            return self.quotient(e, first)
        if e.name == "select_n" and len(e.inputs) == 3:
            for filler, other in ((1, 2), (2, 1)):
                if self.is_nan(e.inputs[filler]):
                    return replace(e, name="copy", inputs=(e.inputs[other],), params={})
        return e

    def difference(self, e: Equation, first: int) -> Equation:
        """x − mean(x), and mean(x²) − mean(x)²."""
        shape = self.shapes[first]
        for axes in self.candidate_axes(e.inputs[1]):
            found = self.mean(self.spread(e.inputs[1], axes, shape)) or self.mean(e.inputs[1], axes, shape)
            if found is not None and found[1] == axes and found[0] == self.origin(first):
                return replace(e, name="centre", inputs=(first,), params={"axes": axes})
        squares, mean = self.mean(first), self.square_of(e.inputs[1])
        inner = self.mean(mean) if mean is not None else None
        if squares is not None and inner is not None and squares[1] == inner[1]:
            base = self.square_of(squares[0])
            if base is not None and base == inner[0]:
                return replace(e, name="variance", inputs=(base,), params={"axes": inner[1]})
        return e

    def candidate_axes(self, x: Operand) -> list[tuple[int, ...]]:
        """Axes of the reductions that x may be made of."""
        for _ in range(8):
            made = self.makers.get(x) if isinstance(x, int) else None
            if made is None:
                return []
            if made.name in ("reduce_sum", "reduce_max"):
                return [tuple(int(a) for a in made.params["axes"])]
            number = next((i for i in made.inputs if isinstance(i, int)), None)
            if number is None or made.name not in (*COPIES, *SPREAD, "div", "mul", "max"):
                return []
            x = number
        return []

    def quotient(self, e: Equation, first: int) -> Equation:
        """exp(x − max) / Σ exp(x − max) over one axis."""
        above, shape = self.maker(first), self.shapes[first]
        for axes in self.candidate_axes(e.inputs[1]):
            below = self.maker(self.spread(e.inputs[1], axes, shape))
            if below is None or below.name != "reduce_sum" or self.origin(below.inputs[0]) != self.origin(first):
                continue
            if above is None or above.name != "exp" or len(axes) != 1:
                continue
            shifted = self.maker(above.inputs[0])
            if shifted is None or shifted.name != "sub" or not isinstance(shifted.inputs[0], int):
                continue
            reduced = self.spread(shifted.inputs[1], axes, shape, COPIES)
            largest = self.maker(reduced, COPIES)
            if largest is not None and largest.name == "max":  # max(−inf, largest)
                largest = self.maker(next((i for i in largest.inputs if isinstance(i, int)), 0), COPIES)
            source = shifted.inputs[0]
            if largest is None or largest.name != "reduce_max" or largest.params["axes"] != below.params["axes"]:
                continue
            if self.origin(largest.inputs[0]) == self.origin(source):
                return replace(e, name="softmax", inputs=(source,), params={"axis": axes[0]})
        return e

    def is_nan(self, x: Operand) -> bool:
        """A tensor of NaN: what stands where an index is out of bounds."""
        made = self.maker(x, (*SAME, *SPREAD))
        value = x if isinstance(x, Literal) else None
        if isinstance(x, int):
            while made is None and (own := self.makers.get(x)) is not None and own.name in (*SAME, *SPREAD):
                source = own.inputs[0]
                if isinstance(source, Literal):
                    value = source
                    break
                x = source
        return value is not None and value.value.size == 1 and isnan(float(value.value.reshape(-1)[0]))
