"""A traced model with its numbers at random points: whatever the calculus claims of it can be tried at once."""

from functools import cache

import torch
from zoo import ZOO

from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.tracing import trace
from smd_analyze.invariance.verifying_outcomes import NOT_ZERO
from smd_analyze.invariance.verifying_points import POINTS, Probe
from smd_analyze.invariance.verifying_residuals import Sums, claims_of, scale_of


class Case:
    """`graph` of the model, and w·∂y/∂w of its parameters at good points."""

    def __init__(self, model, inputs, graph):
        self.graph = graph
        self.probe = Probe(model, (inputs, {}), {})
        self.points = []
        for number in range(12):
            if len(self.points) < len(POINTS):
                self._try(number)

    def _try(self, number):
        """Points where a norm sees a constant depend on how small eps is, and are no points."""
        point = POINTS[number % len(POINTS)]
        try:
            found, other = (self.probe.products(point, number, eps) for eps in (1e-30, 1e-24))
        except ValueError:
            return
        if all(torch.allclose(found[n].abs().sum(), other[n].abs().sum(), rtol=1e-3, atol=1e-9) for n in found):
            self.points.append(found)

    def false_claims(self):
        """What the calculus claims of this graph now, and the numbers deny: (parameter, status, violation)."""
        found = []
        for claim in claims_of(analyse(self.graph)[0], self.probe.parameters):
            for products in self.points:
                claim.add(products, scale_of(products))
            if claim.violation() > NOT_ZERO:
                first = claim.members[0]
                found.append((first.parameter, "rescaling" if claim.exponents else first.status, claim.violation()))
        return found

    def missed(self):
        """Parameters that are invariant as a whole, although the calculus does not say so."""
        rows = [v for found in analyse(self.graph)[0].values() for v in found if v.status == "not invariant"]
        sums = [Sums((v,)) for v in rows]
        for products in self.points:
            for s in sums:
                s.add(products, scale_of(products))
        return [v.parameter for v, s in zip(rows, sums, strict=True) if (s.residuals()[1] < 1e-9).all()]


@cache
def zoo_case(name):
    torch.manual_seed(0)
    model, inputs = ZOO[name]()[:2]
    return Case(model, inputs, trace(model, inputs, {}, name))
