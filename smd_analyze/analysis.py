"""The whole flow on one page: load → groups → measure → clocks → schedule → angles, predictions, fits → report.

Each stage is a function from records to records, and may be called alone. This is the only file that knows their order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from smd_analyze import __version__, tabulate
from smd_analyze.clocks import search
from smd_analyze.errors import DamagedFile, NothingToAnalyse, UsageError
from smd_analyze.fits import fitting, gradient, per_unit, summary
from smd_analyze.fits.from_report import context_of
from smd_analyze.fits.mixed import mixed_settings
from smd_analyze.invariance import grouping
from smd_analyze.loading import discovery, model_files
from smd_analyze.loading.files import remote_blocks
from smd_analyze.loading.untrained import begins_untrained
from smd_analyze.records.clocks import Clocks
from smd_analyze.records.group import Group, Groups
from smd_analyze.records.report import Report
from smd_analyze.records.run import Run
from smd_analyze.records.schedule import Schedule
from smd_analyze.records.statistics import Statistics, UnitSeries, UnitStore
from smd_analyze.schedule import resolve
from smd_analyze.schedule.account import account
from smd_analyze.schedule.merged import merged
from smd_analyze.schedule.shrinkage import shrinkage_of
from smd_analyze.statistics import streaming
from smd_analyze.statistics.normalizers import normalizers
from smd_analyze.statistics.saved_types import saved_shapes, saved_types
from smd_analyze.storage import hdf5
from smd_analyze.storage.units import open_store
from smd_analyze.theory import angles, lags, orthogonality, prediction
from smd_analyze.theory.stages import stages

STATISTICS, CLOCKS = "statistics", "clocks"
WHY_NO_CLOCK = "why_no_clock"
"""Provenance of a report without a decay clock."""
Progress = Callable[[float, str], None]
SettingsLike = Mapping[str, Any] | str | Path | None

load_run = discovery.load_run
resolve_schedule = resolve.resolve_schedule
predict = prediction.predict
save = hdf5.save
load = hdf5.load


def find_groups(
    run: Run,
    model: Any = None,
    inputs: Any = None,
    *,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    verify: bool = False,
) -> Groups:
    """Account for every parameter of the run and form the groups that are analysed.

    `model` may also be the path of a file that describes it (model.onnx, model.pt2, model.keras, config.json); all
    else is as in `smd_analyze.invariance.grouping.find_groups`.
    """
    described = model_files.hint_of(model) if isinstance(model, str | Path) else None
    chosen: Any = described or model
    return grouping.find_groups(run, chosen, inputs, include=include, exclude=exclude, verify=verify)


def measure(
    run: Run,
    groups: Groups | Sequence[Group],
    device: str = "auto",
    *,
    store: UnitStore | None = None,
    workers: int = 2,
    progress: Progress | None = None,
) -> Statistics:
    """Norms and angles of every group at every checkpoint, in one pass over the bytes. Needs no hyperparameter.

    `store` takes the per-unit series; without it they go to a temporary file that goes with the process.
    """
    chosen = tuple(groups.groups if isinstance(groups, Groups) else groups)
    place = store if store is not None else open_store(None)
    far = remote_blocks.FarFiles()
    return streaming.measure(run, chosen, place, device=device, workers=workers, progress=progress, far=far)


def find_clocks(stats: Statistics, groups: Groups | None = None, *, step_unit: str = search.OPTIMIZER_STEPS) -> Clocks:
    """Decay clocks: directions that feel no gradient, so that their shrinking measures the decay that acted.

    Needs no hyperparameter. `groups` gives what is expected by the network's graph, and the parameters' groups;
    `step_unit` is the run's: rates are per that unit.
    """
    graph = groups is not None and groups.source.startswith("graph")
    return search.find_clocks(
        stats.candidates,
        stats.steps,
        step_unit,
        {p.parameter: p.parameter_group for p in groups.parameters} if groups else {},
        groups.translations if groups and graph else (),
        [p.parameter for p in groups.parameters if p.status != "unknown"] if groups and graph else (),
        {name for types in stats.dtypes.values() for name in types},
    )


def fit(stats: Statistics, schedule: Schedule) -> pl.DataFrame:
    """Estimates with intervals per group: equilibrium index, level, agreement, relaxation rate (the `fits` table)."""
    return fitting.fit(stats, schedule, angles.angular_updates(stats, schedule), prediction.predict(stats, schedule))


def stretches(report: Report) -> pl.DataFrame:
    """The report's schedule with intervals of one rate merged: what the weights say, beside what the files say."""
    return merged(report.schedule)


def units(report: Report, group: str) -> UnitSeries:
    """The per-unit series of one group: squared norms and steps of every unit at every checkpoint."""
    series = report.units(group)
    if series is None:
        known = ", ".join(report.groups["group"].to_list()[:8])
        raise UsageError(f"the report holds no per-unit series of {group!r}; it has groups such as {known}")
    return series


def unit_estimates(report: Report, group: str) -> pl.DataFrame:
    """Estimates of every unit of one group: equilibrium index, gradient scale, rate, level, steps left (95 % each)."""
    return per_unit.unit_estimates(context_of(report, units(report, group)))


def gradient_scale(report: Report, group: str) -> pl.DataFrame:
    """L(t) of one group under SGD, interval by interval (step_from, step_to, value, p10, p90 over units): a picture."""
    return gradient.gradient_picture(context_of(report, units(report, group)))


def analyze(
    path: str | Path,
    model: Any = None,
    inputs: Any = None,
    settings: SettingsLike = None,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    device: str = "auto",
    output: str | Path | None = None,
    progress: bool | Progress = False,
    *,
    run: str | None = None,
    weights: str = "live",
    steps: str | None = None,
    steps_per_epoch: float | None = None,
    order: str = "auto",
    step_pattern: str | None = None,
    verify: bool = False,
    theory: bool = True,
) -> Report:
    """Analyse a folder of checkpoints: has each scale-invariant weight reached the balance that theory predicts?

    Args:
        path: folder (or one file) of checkpoints.
        model: factory of the network, "package.module:callable" or "file.py:callable" or a callable; its graph proves
            which weights are scale-invariant. Without it they are guessed from names and shapes, and marked so.
        inputs: the same, returning the tuple of example inputs that the model is traced with.
        settings: hyperparameters that win over the files': a mapping or the path of a TOML file.
        include, exclude: globs of parameter names.
        device: "auto", "cpu" or "cuda", for the pass over the bytes.
        output: HDF5 file to write the report to. One that already holds the statistics of the same files is not
            measured again.
        progress: True shows a bar on stderr; a function is called with (fraction done, what is being done).
        run: name of one of several sequences in the folder.
        weights: "live", "ema" or "master".
        steps: "A:B", the steps to analyse, both ends included.
        steps_per_epoch: optimizer steps in an epoch, for runs that know only epochs.
        order: what orders the checkpoints: "auto", or "inside", "optimizer", "scheduler", "name", "epoch", "batches",
            "time".
        step_pattern: regular expression on the paths whose group is the step (or, if called so, the epoch).
        verify: check numerically, too, what `model` proves about scale invariance; the model is run for it.
        theory: False leaves out angles, predictions and fits: only the schedule is wanted. A report that is written
            has them all.

    Raises: SmdError and its kinds, each saying what to do next.
    """
    with telling(progress) as tell:
        if output is not None:
            hdf5.check_writable(Path(output))  # before the work, not after it
        if hdf5.is_report(path):
            raise UsageError(f"{path}: is a report, not a checkpoint: read it with smd_analyze.load({str(path)!r})")
        tell(0.0, "finding checkpoints")
        found = load_run(
            path, run=run, weights=weights, steps=steps, steps_per_epoch=steps_per_epoch, order=order,
            step_pattern=step_pattern,
        )  # fmt: skip
        tell(0.05, "finding scale-invariant weights")
        groups = find_groups(found, model, inputs, include=include, exclude=exclude, verify=verify)
        if not groups.groups:
            why = "loosen --include and --exclude" if include or exclude else "vectors are analysed with --include '*'"
            raise NothingToAnalyse(f"{path}: there is no floating-point weight matrix to analyse; {why}")
        told = resolve_schedule(found, settings=settings)  # before the pass: a wrong option should not cost it
        before = measured_before(output, found, groups, weights)
        if before is None:
            stats = measure(found, groups, device, progress=lambda done, what: tell(0.1 + 0.75 * done, what))
            tell(0.85, "looking for decay clocks")
            clocks = find_clocks(stats, groups, step_unit=found.step_unit)
        else:
            stats, clocks = before
        schedule = told
        if clocks.table.height:
            shrinkage, untrained = shrinkage_of(stats), partial(begins_untrained, found)
            schedule = resolve_schedule(found, clocks, settings, shrinkage=shrinkage, untrained=untrained)
        schedule = account(found, schedule, told, clocks)
        tell(0.87, "comparing with theory" if theory else "reading the schedule")
        report = conclude(found, groups, stats, schedule, weights, clocks, theory=theory or output is not None)
        if output is not None:
            tell(0.95, "writing the report")
            save(report, output)
        tell(1.0, "done")
    return report


def measured_before(
    output: str | Path | None, run: Run, groups: Groups, weights: str
) -> tuple[Statistics, Clocks] | None:
    """Statistics and clocks in the report at `output`, if this version made them of the same weights and groups."""
    if output is None or not hdf5.is_report(output):
        return None
    try:
        before = load(output)
    except DamagedFile:  # nothing is lost: it is about to be written anew
        return None
    same = (
        before.provenance.get("version") == __version__
        and before.provenance.get("weights") == weights
        and before.clocks.schema == tabulate.CLOCKS
        and before.lags.schema == lags.SCHEMA
        and before.checkpoints.equals(tabulate.checkpoints(run))
        and before.settings.equals(tabulate.settings(run))
        and before.parameters.equals(tabulate.parameters(groups))
        and before.groups.equals(tabulate.groups(groups))
    )
    if not same:
        return None
    steps = tuple(c.step for c in run.checkpoints)
    found = tabulate.findings_of(before.findings, STATISTICS)
    made_on = before.provenance.get("device", "cpu")
    types = saved_types(run, groups.groups)
    stats = Statistics(
        steps, groups.groups, before.statistics, partial(units, before), found, made_on, types,
        shapes=saved_shapes(run, groups.groups), lags=before.lags, normalizers=normalizers(run, groups.groups),
    )  # fmt: skip
    told = tabulate.findings_of(before.findings, CLOCKS)
    return stats, Clocks(before.clocks, told, why_none=before.provenance.get(WHY_NO_CLOCK, ""))


@contextmanager
def telling(progress: bool | Progress) -> Iterator[Progress]:
    """The caller's own progress function, a bar on stderr, or silence."""
    if progress is True:
        from smd_analyze.views.progress import bar

        with bar() as tell:
            yield tell
    else:
        yield progress or (lambda _done, _what: None)


def conclude(
    run: Run,
    groups: Groups,
    stats: Statistics,
    schedule: Schedule,
    weights: str = "live",
    clocks: Clocks | None = None,
    *,
    theory: bool = True,
) -> Report:
    """What follows from the statistics: angles, predictions, fits and the table that a person reads.

    `weights` names the copy of the weights that `run` was loaded with. Without `theory` these tables are empty.
    """
    verdict = ""
    layers = angular = predicted = fitted = staged = lagged = pl.DataFrame()
    if theory:
        angular = angles.angular_updates(stats, schedule)
        predicted = prediction.predict(stats, schedule)
        lagged = lags.lagged(stats, schedule)
        fitted = fitting.fit(stats, schedule, angular, predicted, tabulate.settings(run), lagged)
        verdict, layers = summary.summarise(stats, schedule, angular, predicted, fitted, groups)
        staged = stages(schedule, stats.steps, run.steps_per_epoch, run.tokens_per_step)
    last = run.checkpoints[-1]
    return Report(
        verdict=verdict,
        layers=layers,
        checkpoints=tabulate.checkpoints(run),
        settings=tabulate.settings(run),
        parameters=tabulate.parameters(groups),
        groups=tabulate.groups(groups),
        statistics=stats.table,
        clocks=clocks.table if clocks else pl.DataFrame(schema=tabulate.CLOCKS),
        schedule=schedule.table,
        stages=staged,
        lags=lagged,
        angular_updates=angular,
        predictions=predicted,
        fits=fitted,
        findings=tabulate.findings(
            {
                "loading": run.findings,
                "invariance": groups.findings,
                "schedule": schedule.findings,
                STATISTICS: stats.findings,
                CLOCKS: clocks.findings if clocks else (),
                "theory": orthogonality.check_orthogonality(stats, schedule) if theory else (),
                "fits": mixed_settings(stats.groups, stats.steps, schedule) if theory else (),
            }
        ),
        provenance={
            "version": __version__,
            "command": " ".join(sys.argv),
            "path": run.path,
            "framework": last.framework,
            "device": stats.device,
            "weights": weights,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step_unit": schedule.step_unit,
            "ordered_by": run.ordered_by,
            "groups_source": groups.source,
            **({WHY_NO_CLOCK: clocks.why_none} if clocks and clocks.why_none else {}),
        },
        units=lambda name: stats.units(name) if any(g.name == name for g in stats.groups) else None,
    )
