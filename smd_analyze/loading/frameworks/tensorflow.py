"""TensorFlow's checkpoints: variables under their own names, slots of the optimizer, steps, constant settings.

TensorFlow 2 keys are paths through objects; the graph of objects gives the variables' names. TensorFlow 1 keys are
names, slots follow their variable's (conv/kernel/Adam, conv/kernel/Adam_1). A learning rate schedule is not saved.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from smd_analyze.loading.dtypes import FLOATING
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import STEPS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.keras_layers import STATISTICS, natural
from smd_analyze.loading.frameworks.keras_names import named_state, slots, with_axes
from smd_analyze.loading.frameworks.keras_training import LAST, told
from smd_analyze.loading.tensors import Place
from smd_analyze.records.run import Setting

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = re.compile(r"^(?P<owner>.+)/\.OPTIMIZER_SLOT/.+/(?P<slot>[^/]+)$")
OPTIMIZER = re.compile(r"(^|/)[^/]*optimi[sz]er[^/]*/(?!_trainable_variables/)")
ONE_SLOTS = {"Momentum": "momentum_buffer", "Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
OTHER_SLOTS = ("RMSProp", "RMSProp_1", "Adagrad", "Ftrl", "Ftrl_1", "Adadelta", "Adadelta_1", "AdamW", "AdamW_1")
AVERAGE = "ExponentialMovingAverage"
STEP_KEYS = ("global_step", "step", "optimizer/iter", "optimizer/_iterations", "optimizer/iterations")
NUMBERS = {
    "learning_rate": "learning_rate", "beta_1": "beta1", "beta_2": "beta2", "momentum": "momentum", "epsilon": "eps",
    "weight_decay": "weight_decay",
}  # fmt: skip
LISTED = re.compile(r"^(.*?)(layer_with_weights-|_operations/|_trainable_variables/|layers/|_layers/)\d+/")


def matches(document: Document) -> bool:
    """Tensor bundles."""
    return document.format == "TensorFlow checkpoint"


def read_parts(document: Document) -> Parts:
    """Two generations of keys, told apart by their endings."""
    found = {k: p for k, p in document.tree["tensors"].items() if type(p) is Place}
    if any(k.endswith(VALUE) for k in found):
        return read_objects({k.removesuffix(VALUE): p for k, p in found.items()}, document)
    return read_names(found)


def read_objects(found: Mapping[str, Place], document: Document) -> Parts:
    """TensorFlow 2: paths through objects."""
    full = {k.removesuffix(VALUE): n for k, n in document.tree["names"].items()}
    uses = Counter(full.get(k, "") for k in found)
    title = {k: full[k] if full.get(k) and uses[full[k]] == 1 and full[k] != "Variable" else k for k in found}
    scalars = {k: p for k, p in found.items() if not p.shape}
    owned = {k: m for k in found if (m := SLOT.match(k))}
    rest = {k: p for k, p in found.items() if k not in owned}
    inside = {k: p for k, p in rest.items() if OPTIMIZER.search(k)}
    outside = {k: p for k, p in rest.items() if k not in inside and k not in (*STEP_KEYS, "save_counter")}
    weights = {title[k]: outside[k] for k in ranked(outside)}
    states: dict[str, dict[str, Place]] = {}
    for key, match in owned.items():
        owner = title.get(match["owner"], match["owner"])
        if owner in weights and weights[owner].shape == found[key].shape:
            states.setdefault(owner, {})[match["slot"]] = found[key]
    named = {n: named_state(s) for n, s in states.items()}
    named = named or slots({title[k]: p for k, p in inside.items() if p.shape}, weights)
    iterations = next((p for k, p in scalars.items() if counts(k) and p.dtype not in FLOATING), None)
    facts = [Fact(p, STEPS, f"{k} in the file") for k, p in scalars.items() if k in ("step", "global_step")]
    if iterations is not None:
        facts.insert(0, Fact(iterations, STEPS, "the optimizer's iterations in the file"))
    settings = scalar_settings({k.rpartition("/")[2].lstrip("_"): p for k, p in scalars.items() if OPTIMIZER.search(k)})
    kind = kind_of(" ".join(full.get(k, "") for k in (*inside, *owned)), named)
    return parts_of(weights, facts, named, settings, kind, iterations)


def counts(key: str) -> bool:
    """An optimizer's count of its updates."""
    return OPTIMIZER.search(key) is not None and key.rpartition("/")[2].lstrip("_") in ("iter", "iterations")


def read_names(found: Mapping[str, Place]) -> Parts:
    """TensorFlow 1: names, in alphabetical order."""
    weights: dict[str, Place] = {}
    states: dict[str, dict[str, Place]] = {}
    average: dict[str, Place] = {}
    for name, place in found.items():
        owner, slot = owner_of(name, found)
        if owner is None:
            weights[name] = place
        elif slot == AVERAGE:
            average[owner] = place
        elif slot in ONE_SLOTS:
            states.setdefault(owner, {})[ONE_SLOTS[slot]] = place
    weights = {n: p for n, p in weights.items() if p.shape or n not in ("beta1_power", "beta2_power", "global_step")}
    step = found.get("global_step")
    facts = [Fact(step, STEPS, "global_step in the file")] if step is not None and not step.shape else []
    kind = "Adam" if any("exp_avg_sq" in s for s in states.values()) else "Momentum" if states else ""
    return parts_of(weights, facts, states, {}, kind, step, {"ema": average} if average else {})


def owner_of(name: str, found: Mapping[str, Place]) -> tuple[str | None, str]:
    """(the variable that a slot belongs to, the slot's name); the optimizer's scope may stand before it."""
    owner, _, slot = name.rpartition("/")
    if slot not in (*ONE_SLOTS, *OTHER_SLOTS, AVERAGE):
        return None, ""
    while owner:
        if owner in found and found[owner].shape == found[name].shape:
            return owner, slot
        owner = owner.partition("/")[2]
    return None, ""


def ranked(found: Mapping[str, Place]) -> list[str]:
    """Keys in the layers' order if lists number them, else in the order of the file, which is alphabetical."""
    starts = {m[0].rpartition("/")[0].rstrip("0123456789") if (m := LISTED.match(k)) else k for k in found}
    kinds = {m[2] for k in found if (m := LISTED.match(k))}
    loose = [k for k in found if LISTED.match(k) is None]
    if loose or len(kinds) != 1 or len(starts) != 1:
        trained = [k for k in found if "_trainable_variables/" in k]
        rest = [k for k in found if k not in set(trained)]
        statistics = all(k.rpartition("/")[2] in STATISTICS or found[k].dtype not in FLOATING for k in rest)
        if not (trained and statistics):
            return sorted(found)
        return [*sorted(trained, key=natural), *sorted(rest, key=natural)]
    return sorted(found, key=natural)


def scalar_settings(scalars: Mapping[str, Place]) -> dict[Setting, Place]:
    """Settings that are variables of the optimizer: their values are read when the checkpoint is opened."""
    return {
        Setting(NUMBERS[k], None, None, "", "in force", f"the optimizer's variable {k}", LAST): p
        for k, p in scalars.items()
        if k in NUMBERS and p.dtype in FLOATING
    }


def kind_of(names: str, states: Mapping[str, Mapping[str, Place]]) -> str:
    """The optimizer, from its variables' names and slots."""
    found = re.search(r"(?:^|[ /])(adamw|adam_w|adam|sgd|rmsprop|nadam|lion)(?:_\d+)?/", names, re.IGNORECASE)
    word = found[1].lower().replace("_", "") if found else ""
    if not word and any("exp_avg_sq" in s for s in states.values()):
        return "Adam"
    return {"adam": "Adam", "adamw": "AdamW", "sgd": "SGD", "rmsprop": "RMSprop", "nadam": "Nadam", "lion": "Lion"}.get(
        word, ""
    )


def parts_of(
    weights: Mapping[str, Place],
    facts: list[Fact],
    states: Mapping[str, Mapping[str, Place]],
    unread: Mapping[Setting, Place],
    kind: str,
    iterations: Place | None,
    variants: Mapping[str, Mapping[str, Place]] | None = None,
) -> Parts:
    """The parts; layouts are Keras'."""
    settings = [*unread]
    if kind:
        source = "names of the optimizer's variables"
        settings.append(Setting("optimizer", None, kind, "", "inferred", source))
    sorted_names = list(weights) == sorted(weights)
    named = with_axes(weights, {})
    named = dict(sorted(named.items())) if sorted_names else named
    return Parts(
        weights={n: replace(p) for n, p in named.items()},
        where="weights",
        variants=variants or {},
        facts=tuple(facts),
        told=told({}, states, settings, unread, (), iterations),
    )


FRAMEWORK = Framework("tensorflow", matches, read_parts)
