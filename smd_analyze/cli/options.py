"""The options that several commands share, each declared once."""

from pathlib import Path
from typing import Annotated, Any

import typer

FILES, OUT = "Which files and weights", "Output"
HYPER = "Hyperparameters of every parameter group (what you say wins over the files)"

Ckpts = Annotated[str, typer.Argument(metavar="CKPTS", help="Folder, file or URL of checkpoints.", show_default=False)]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="Model factory, package.module:callable or file.py:callable (torch, or jax with --inputs), or a file that"
        " describes it (.onnx, .pt2, .keras, config.json): its graph proves invariance. Without it the graph is that of"
        " a description beside the checkpoints, if there is one; none: by names only, which is faster.",
    ),
]
Inputs = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Callable that returns the tuple of example inputs for --model.")
]
Verify = Annotated[
    bool,
    typer.Option("--verify", help="Check every verdict numerically too, by running --model at random weights."),
]
Weights = Annotated[
    str, typer.Option(metavar="live|ema|master", help="Which copy of the weights.", rich_help_panel=FILES)
]
Include = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Only these parameters (repeatable).", rich_help_panel=FILES)
]
Exclude = Annotated[
    list[str] | None, typer.Option(metavar="GLOB", help="Not these parameters (repeatable).", rich_help_panel=FILES)
]
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="NAME", help="One of several sequences in the tree.", rich_help_panel=FILES),
]
Steps = Annotated[
    str | None, typer.Option(metavar="A:B", help="Only these steps, both ends included.", rich_help_panel=FILES)
]
Order = Annotated[
    str,
    typer.Option(
        metavar="SOURCE",
        help="What orders the checkpoints: auto, or only inside (a step in the file), optimizer (its count of updates),"
        " scheduler (its count), name (a number in the path), epoch (in the file), batches (counted by BatchNorm),"
        " time (of modification).",
        rich_help_panel=FILES,
    ),
]
StepPattern = Annotated[
    str | None,
    typer.Option(
        metavar="REGEX",
        help=r"Where the step stands in the paths: 'step_(\d+)', or 'ep(?P<epoch>\d+)' for epochs; 50k is 50000."
        " Files without it are left out.",
        rich_help_panel=FILES,
    ),
]
StepsPerEpoch = Annotated[
    float | None,
    typer.Option(
        min=1, metavar="N", help="Optimizer steps in an epoch, if files tell epochs only.", rich_help_panel=FILES
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option(
        "--settings", metavar="TOML", help="Hyperparameters per parameter group, and a schedule.", rich_help_panel=HYPER
    ),
]
Optimizer = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="sgd, sgdw, adam (coupled), adamw, lion or muon.", rich_help_panel=HYPER),
]
Lr = Annotated[float | None, typer.Option(metavar="η", help="Learning rate.", rich_help_panel=HYPER)]
WeightDecay = Annotated[float | None, typer.Option(metavar="λ", help="Weight decay.", rich_help_panel=HYPER)]
Momentum = Annotated[float | None, typer.Option(metavar="α", help="Momentum.", rich_help_panel=HYPER)]
Dampening = Annotated[float | None, typer.Option(metavar="τ", help="Dampening of the gradient.", rich_help_panel=HYPER)]
Nesterov = Annotated[
    bool | None, typer.Option("--nesterov/--no-nesterov", help="Nesterov momentum.", rich_help_panel=HYPER)
]
Beta1 = Annotated[float | None, typer.Option(metavar="β₁", help="Adam's first decay.", rich_help_panel=HYPER)]
Beta2 = Annotated[float | None, typer.Option(metavar="β₂", help="Adam's second decay.", rich_help_panel=HYPER)]
Output = Annotated[
    Path | None, typer.Option("-o", "--output", metavar="H5", help="Write the report here.", rich_help_panel=OUT)
]
Plots = Annotated[Path | None, typer.Option(metavar="DIR", help="Write the figures here.", rich_help_panel=OUT)]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout, nothing else.", rich_help_panel=OUT)]
Explain = Annotated[
    str | None, typer.Option(metavar="LAYER", help="Inputs → formula → number, for one layer.", rich_help_panel=OUT)
]
Quiet = Annotated[
    bool, typer.Option("-q", "--quiet", help="Neither progress nor findings on stderr.", rich_help_panel=OUT)
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show all, summarise nothing.", rich_help_panel=OUT)]
Device = Annotated[str, typer.Option(metavar="auto|cpu|cuda", help="Where norms and angles are computed.")]


def hyperparameters(**said: Any) -> dict[str, Any]:
    """The hyperparameters that were given, by the names of a settings file."""
    return {name: value for name, value in said.items() if value is not None}
