"""What each variable of the report file says about itself: unit, meaning, source, and what its table holds."""

from __future__ import annotations

from collections.abc import Sequence

from smd_analyze.records.quantity import quantity

ENDS = ("_low", "_high", "_p10", "_p90")
"""Suffixes of columns that belong to another column: the ends of its interval, or of its spread over units."""

TITLES = {
    "layers": "one row per group: its state against theory, as the command line shows it",
    "checkpoints": "one row per checkpoint, in the order of training",
    "settings": "one row per checkpoint, parameter group and hyperparameter, with where it was found",
    "parameters": "one row per tensor, or slice of a fused tensor: may it be scaled, and why",
    "groups": "one row per thing that is analysed",
    "statistics": "norms and angles of every group at every checkpoint; no hyperparameter enters",
    "clocks": "one row per decay clock and interval: weight decay read off directions that feel no gradient",
    "schedule": "one row per parameter group and interval: the learning rate and decay that acted",
    "stages": "one row per parameter group and stage between learning-rate changes: could the norm equilibrate at all?",
    "lags": "one row per group and pair of checkpoints, near and far: angle and retention, beside zero-mean gradients'",
    "angular_updates": "one row per group, interval and method: angle turned by one optimizer step",
    "predictions": "what theory expects of every group at every checkpoint",
    "fits": "one row per group (or unit) and fitted quantity",
    "findings": "one row per finding about the input",
}  # fmt: skip

WORDS = {
    "group": "name of the group that is analysed as one",
    "parameter": "name of the tensor in the checkpoint",
    "parameter_group": "the optimizer's parameter group",
    "slice": "part of a fused tensor along the units' axis",
    "shape": "shape of the tensor",
    "role": "role of the tensor in its layer",
    "status": "may the weights be scaled without changing the network's output",
    "granularity": "the smallest part that may be scaled alone",
    "evidence": "what the status rests on",
    "reason": "why the status is what it is",
    "members": "parameters of a joint group",
    "state": "state of the layer, in words",
    "advice": "what may be done about it",
    "level_basis": "what the level rests on: theory, extrapolated or measured",
    "norm_basis": "what the equilibrium norm rests on: theory or extrapolated",
    "path": "file or folder of the checkpoint",
    "identity": "name, size and modification time of every file of the checkpoint",
    "note": "assumptions and cautions",
    "format": "file format",
    "framework": "trainer that wrote the checkpoint",
    "name": "name of the hyperparameter",
    "text": "the hyperparameter where it is a word",
    "kind": "in force, configured, or inferred",
    "source": "where the row's numbers come from",
    "applies": "when the hyperparameter acts",
    "optimizer": "optimizer",
    "nesterov": "Nesterov momentum",
    "decoupled": "weight decay acts outside the gradient",
    "learning_rate_changes": "the learning rate changes within the interval",
    "decay_rule": "how weight decay goes with the learning rate",
    "rate_in_velocity": "momentum keeps the learning rate inside the velocity",
    "adjust_lr": "how Muon's learning rate depends on a matrix's shape (torch's adjust_lr_fn)",
    "momentum_assumed": "nothing says the momentum: it is assumed",
    "clock": "name of the decay clock",
    "functional": "which part of the parameter feels no gradient",
    "clocks.kind": "moving, no decay, or at most: only the upper end says something",
    "clocks.evidence": "what the clock's rate rests on",
    "method": "how the row's numbers were obtained",
    "independent": "independent of the theory it is compared with",
    "unit": "output unit",
    "quantity": "name of the fitted quantity",
    "outcome": "how the fit ended",
    "code": "stable word for the finding",
    "severity": "error, warning or note",
    "where": "file, tensor or group that the finding is about",
    "message": "what is the matter",
    "remedy": "what to do about it",
    "low": "lower end of the value's interval",
    "high": "upper end of the value's interval",
    "row": "row of the table",
}  # fmt: skip


def attributes(table: str, column: str, columns: Sequence[str] = ()) -> dict[str, str]:
    """`units`, `long_name`, `source` (and `symbol`, `ancillary_variables` where there are any) of a table's column.

    Numbers have them from QUANTITIES. Words, and numbers that have no unit, have units "1".
    """
    known = quantity(column, table)
    if known is None:
        meaning = WORDS.get(f"{table}.{column}") or WORDS.get(column, column.replace("_", " "))
        found = {"units": "1", "long_name": meaning, "source": "smd-analyze"}
    else:
        end = next((f", {_END_NAMES[e]}" for e in ENDS if column.endswith(e) and column != known.name), "")
        found = {"units": known.unit, "long_name": known.meaning + end, "source": known.source}
        if known.symbol:
            found["symbol"] = known.symbol
    ends = ("low", "high", "p10", "p90") if column == "value" else ()
    tied = [end for end in ends if end in columns] + [column + end for end in ENDS if column + end in columns]
    if tied:
        found["ancillary_variables"] = " ".join(tied)
    return found


_END_NAMES = {
    "_low": "lower end of its interval", "_high": "upper end of its interval",
    "_p10": "10th percentile over the units", "_p90": "90th percentile over the units",
}  # fmt: skip
