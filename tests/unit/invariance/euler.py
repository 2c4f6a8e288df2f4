"""The numerical oracle: by Euler's theorem y(w) is invariant under w → a·w exactly if Σ w·∂y/∂w = 0 everywhere.

float64, eps → 0, training mode (dropout draws its masks), at random points in weight space (zero biases, unit gains and
dead units fake invariances at initialisation).
"""

import re

import torch

POINTS = 4
PROJECTIONS = 2
INVARIANT = 1e-9  # relative residuals of invariant parts were below 1e-13, of others above 1e-3


def products(build) -> dict[str, torch.Tensor]:
    """w·∂y/∂w of every parameter at POINTS random points for PROJECTIONS random projections of y: [K, *shape]."""
    torch.manual_seed(1)
    model, inputs = build()[:2]
    model = model.double().train()
    for module in model.modules():
        for name, value in list(vars(module).items()) + [("eps", getattr(type(module), "eps", None))]:
            if isinstance(value, float) and re.search(r"(^|_)eps$", name):
                setattr(module, name, 1e-30)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    parameters = dict(model.named_parameters())
    start = {n: p.detach().clone() for n, p in parameters.items()}
    rows: dict[str, list[torch.Tensor]] = {n: [] for n in parameters}
    for point in range(POINTS):
        with torch.no_grad():
            for n, p in parameters.items():
                p.copy_(start[n] + 0.4 * torch.randn(p.shape, dtype=torch.float64))
        fresh = tuple(torch.randn_like(x) if x.is_floating_point() else x.roll(point, 0) for x in inputs)
        y = model(*fresh)
        if isinstance(y, tuple):
            y = torch.cat([part.flatten() for part in y])
        for _ in range(PROJECTIONS):
            gradients = torch.autograd.grad(
                y, list(parameters.values()), torch.randn_like(y), retain_graph=True, allow_unused=True
            )
            for (n, p), g in zip(parameters.items(), gradients, strict=True):
                rows[n].append(torch.zeros_like(p) if g is None else (g * p).detach())
    return {n: torch.stack(r) for n, r in rows.items()}


def residual(parts: list[torch.Tensor]) -> float:
    """Largest |Σ w·g| over Σ |w·g|, of the parts scaled together; each part is [K, …]."""
    total = sum(p.reshape(len(p), -1).sum(1) for p in parts)
    size = sum(p.reshape(len(p), -1).abs().sum(1) for p in parts)
    return float(total.abs().max() / size.max().clamp_min(1e-300))


def is_dead(part: torch.Tensor, everything: dict[str, torch.Tensor]) -> bool:
    """No gradient, against the largest product of the model."""
    return float(part.abs().max()) < 1e-12 * max(float(p.abs().max()) for p in everything.values())
