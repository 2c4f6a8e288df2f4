"""smd-analyze: is weight decay in balance? The public names; each is imported when it is first used."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smd_analyze.analysis import (
        analyze,
        find_clocks,
        find_groups,
        fit,
        gradient_scale,
        load,
        load_run,
        measure,
        predict,
        resolve_schedule,
        save,
        unit_estimates,
        units,
    )
    from smd_analyze.views import plots

__version__ = "0.1.0"

_ANALYSIS = (
    "analyze", "find_clocks", "find_groups", "fit", "gradient_scale", "load", "load_run", "measure", "predict",
    "resolve_schedule", "save", "unit_estimates", "units",
)  # fmt: skip

__all__ = [
    "analyze", "find_clocks", "find_groups", "fit", "gradient_scale", "load", "load_run", "measure", "plots", "predict",
    "resolve_schedule", "save", "unit_estimates", "units",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _ANALYSIS:
        return getattr(import_module("smd_analyze.analysis"), name)
    if name == "plots":
        return import_module("smd_analyze.views.plots")
    raise AttributeError(f"module 'smd_analyze' has no attribute {name!r}")
