"""The commands. Everything heavy is imported inside their bodies: `--help` must be instant."""

import json
from typing import Annotated, Any

import typer

from smd_analyze.cli import options as o

EPILOG = """Sister commands: smd-analyze ls CKPTS (what was found) ·
smd-analyze groups CKPTS (which weights are scale-invariant) ·
smd-analyze schedule CKPTS (which learning rate × weight decay was really in force, read off the weights)."""

main_command = typer.Typer(
    add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
)
sisters = typer.Typer(
    add_completion=False, rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]}
)


def version(asked: bool) -> None:
    """Print the version and stop."""
    if asked:
        from smd_analyze import __version__

        typer.echo(f"smd-analyze {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version.", callback=version, is_eager=True, rich_help_panel=o.OUT)
]


@main_command.command(epilog=EPILOG)
def analyze(
    ckpts: o.Ckpts,
    model: o.Model = None,
    inputs: o.Inputs = None,
    verify: o.Verify = False,
    run_name: o.RunName = None,
    weights: o.Weights = "live",
    include: o.Include = None,
    exclude: o.Exclude = None,
    steps: o.Steps = None,
    steps_per_epoch: o.StepsPerEpoch = None,
    order: o.Order = "auto",
    step_pattern: o.StepPattern = None,
    settings: o.SettingsFile = None,
    optimizer: o.Optimizer = None,
    lr: o.Lr = None,
    weight_decay: o.WeightDecay = None,
    momentum: o.Momentum = None,
    dampening: o.Dampening = None,
    nesterov: o.Nesterov = None,
    beta1: o.Beta1 = None,
    beta2: o.Beta2 = None,
    output: o.Output = None,
    plots: o.Plots = None,
    as_json: o.Json = False,
    explain: o.Explain = None,
    device: o.Device = "auto",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    show_version: Version = False,
) -> None:
    """Tell, layer by layer, whether weight decay, learning rate and normalization are in balance.

    Reads a folder of checkpoints that a training run saved and compares norm
    and angular update of each scale-invariant weight with the equilibrium
    that theory predicts. Learning rate × weight decay is read off the weights
    where no file tells it. Nothing in a checkpoint is ever executed.
    """
    from smd_analyze import analysis
    from smd_analyze.errors import UsageError
    from smd_analyze.schedule.settings import merged

    if as_json and explain is not None:
        raise UsageError("--json and --explain both want stdout: give one of them")

    said = o.hyperparameters(
        optimizer=optimizer, learning_rate=lr, weight_decay=weight_decay, momentum=momentum, dampening=dampening,
        nesterov=nesterov, beta1=beta1, beta2=beta2,
    )  # fmt: skip
    report = analysis.analyze(
        ckpts, model, inputs, merged(settings, said), include or (), exclude or (), device, output,
        progress=not (quiet or as_json), run=run_name, weights=weights, steps=steps, steps_per_epoch=steps_per_epoch,
        order=order, step_pattern=step_pattern, verify=verify,
    )  # fmt: skip
    if plots is not None:
        from smd_analyze.views.plots import save_all

        tell(quiet or as_json, f"figures: {', '.join(str(p) for p in save_all(report, plots))}")
    if output is not None:
        tell(quiet or as_json, f"report: {output}")
    if as_json:
        from smd_analyze.views.json import report_json

        show_json(report_json(report))
    elif explain is not None:
        from smd_analyze.views.explain import explain_layer

        typer.echo(explain_layer(report, explain))
    else:
        from smd_analyze.views import tables

        tables.print_report(report, tables.console(), stretches=analysis.stretches(report), verbose=int(verbose))
        if not quiet:
            show_findings(report.findings, report.provenance["path"], verbose)


@sisters.command("ls")
def ls(
    ckpts: o.Ckpts,
    run_name: o.RunName = None,
    weights: o.Weights = "live",
    steps: o.Steps = None,
    steps_per_epoch: o.StepsPerEpoch = None,
    order: o.Order = "auto",
    step_pattern: o.StepPattern = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Show what was found: steps, formats, hyperparameters and where they stand, stray files."""
    from smd_analyze import analysis, tabulate
    from smd_analyze.views import tables

    run = analysis.load_run(
        ckpts, run=run_name, weights=weights, steps=steps, steps_per_epoch=steps_per_epoch, order=order,
        step_pattern=step_pattern,
    )  # fmt: skip
    if as_json:
        from smd_analyze.views.json import rows

        parts = {"checkpoints": tabulate.checkpoints(run), "settings": tabulate.settings(run)}
        parts["findings"] = tabulate.findings({"loading": run.findings})
        show_json({name: rows(table) for name, table in parts.items()})
        return
    tables.print_run(run, tables.console(), verbose=int(verbose))
    if not quiet:
        show_findings(tabulate.findings({"loading": run.findings}), run.path, verbose)


@sisters.command("groups")
def groups(
    ckpts: o.Ckpts,
    model: o.Model = None,
    inputs: o.Inputs = None,
    why: Annotated[str | None, typer.Option(metavar="NAME", help="The reasoning for a parameter or glob.")] = None,
    verify: o.Verify = False,
    include: o.Include = None,
    exclude: o.Exclude = None,
    run_name: o.RunName = None,
    weights: o.Weights = "live",
    steps: o.Steps = None,
    order: o.Order = "auto",
    step_pattern: o.StepPattern = None,
    as_json: o.Json = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Show which weights are scale-invariant, at which granularity, and why."""
    from smd_analyze import analysis, tabulate
    from smd_analyze.views import tables

    run = analysis.load_run(ckpts, run=run_name, weights=weights, steps=steps, order=order, step_pattern=step_pattern)
    found = analysis.find_groups(run, model, inputs, include=include or (), exclude=exclude or (), verify=verify)
    if as_json:
        from smd_analyze.views.json import groups_json

        every = tabulate.findings({"loading": run.findings, "invariance": found.findings})
        show_json(groups_json(found, tabulate.parameters(found), tabulate.groups(found), every))
        return
    if why is not None:
        from smd_analyze.invariance.explaining import explain

        typer.echo(explain(found, why))
        return
    tables.print_groups(found, tables.console(), verbose=int(verbose))
    if not quiet:
        every = tabulate.findings({"loading": run.findings, "invariance": found.findings})
        show_findings(every, run.path, verbose)


@sisters.command("schedule")
def schedule(
    ckpts: o.Ckpts,
    model: o.Model = None,
    inputs: o.Inputs = None,
    run_name: o.RunName = None,
    weights: o.Weights = "live",
    include: o.Include = None,
    exclude: o.Exclude = None,
    steps: o.Steps = None,
    steps_per_epoch: o.StepsPerEpoch = None,
    order: o.Order = "auto",
    step_pattern: o.StepPattern = None,
    settings: o.SettingsFile = None,
    optimizer: o.Optimizer = None,
    lr: o.Lr = None,
    weight_decay: o.WeightDecay = None,
    momentum: o.Momentum = None,
    dampening: o.Dampening = None,
    nesterov: o.Nesterov = None,
    beta1: o.Beta1 = None,
    beta2: o.Beta2 = None,
    output: o.Output = None,
    plots: o.Plots = None,
    as_json: o.Json = False,
    device: o.Device = "auto",
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
) -> None:
    """Show which learning rate × weight decay was really in force, read off the weights, against what the files say.

    Some directions of a network's weights feel no gradient (decay clocks):
    weight decay alone shrinks them, so that saved weights record it exactly.
    No hyperparameter is needed; those that are known turn the decay into ηλ,
    η or λ.
    """
    from smd_analyze import analysis
    from smd_analyze.schedule.settings import merged

    said = o.hyperparameters(
        optimizer=optimizer, learning_rate=lr, weight_decay=weight_decay, momentum=momentum, dampening=dampening,
        nesterov=nesterov, beta1=beta1, beta2=beta2,
    )  # fmt: skip
    report = analysis.analyze(
        ckpts, model, inputs, merged(settings, said), include or (), exclude or (), device, output,
        progress=not (quiet or as_json), run=run_name, weights=weights, steps=steps, steps_per_epoch=steps_per_epoch,
        order=order, step_pattern=step_pattern, theory=False,
    )  # fmt: skip
    if plots is not None:
        from smd_analyze.views.plots_schedule import save_schedule

        tell(quiet or as_json, f"figure: {save_schedule(report, plots)}")
    if output is not None:
        tell(quiet or as_json, f"report: {output}")
    if as_json:
        from smd_analyze.views.json import rows

        show_json({name: rows(getattr(report, name)) for name in ("clocks", "schedule", "findings")})
        return
    from smd_analyze.views import tables
    from smd_analyze.views.schedule import print_schedule

    print_schedule(report, analysis.stretches(report), tables.console(), verbose=int(verbose))
    if not quiet:
        about = report.findings["stage"].is_in(["loading", "clocks", "schedule"])
        found = report.findings.filter(about | (report.findings["severity"] == "error"))
        show_findings(found, report.provenance["path"], verbose)


def show_findings(found: Any, root: str, verbose: bool) -> None:
    """Findings on stderr, their places as seen from `root`; what the tables say already only if `verbose`."""
    from smd_analyze.views import tables
    from smd_analyze.views.basis import TOLD_ABOVE

    console = tables.console(stderr=True)
    tables.print_findings(found, console, root=root, above=() if verbose else TOLD_ABOVE, verbose=int(verbose))


def tell(silent: bool, text: str) -> None:
    """A word on stderr about what was written."""
    if not silent:
        typer.echo(text, err=True)


def show_json(document: dict[str, Any]) -> None:
    """The one JSON document on stdout; a NaN in it would be a bug of ours and raises."""
    typer.echo(json.dumps(document, ensure_ascii=False, allow_nan=False))
