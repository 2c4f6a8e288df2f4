"""TensorFlow's checkpoints: variables under their own names, slots of the optimizer, steps, constant settings.

TensorFlow 2 keys are paths through objects; the graph of objects gives the variables' names. TensorFlow 1 keys are
names, slots follow their variable's (conv/kernel/Adam, conv/kernel/Adam_1). A learning rate schedule is not saved.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import nan

from smd_analyze.loading.files.sources import FileId
from smd_analyze.loading.formats.base import Document
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS, Fact, Framework, Parts
from smd_analyze.loading.frameworks.keras_layers import STATISTICS
from smd_analyze.loading.frameworks.keras_names import averages, named_state, slots, with_axes
from smd_analyze.loading.frameworks.keras_training import LAST, told
from smd_analyze.loading.roles.names import natural
from smd_analyze.loading.tensors.dtypes import FLOATING
from smd_analyze.loading.tensors.places import Place, read_tensor
from smd_analyze.records.run import Setting

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
SLOT = re.compile(r"^(?P<owner>.+)/\.OPTIMIZER_SLOT/(?P<root>.+)/(?P<slot>[^/]+)$")
OPTIMIZER = re.compile(r"(^|/)[^/]*optimi[sz]er[^/]*/(?!_trainable_variables/)")
ONE_SLOTS = {"Momentum": "momentum_buffer", "Adam": "exp_avg", "Adam_1": "exp_avg_sq"}
OTHER_SLOTS = ("RMSProp", "RMSProp_1", "Adagrad", "Ftrl", "Ftrl_1", "Adadelta", "Adadelta_1", "AdamW", "AdamW_1")
AVERAGE = "ExponentialMovingAverage"
STEP_WORDS = ("step", "global_step", "train_step", "current_step", "steps", "iteration", "iterations", "train_iter")
EPOCH_WORDS = ("epoch", "epochs", "current_epoch")
ITERATIONS = ("iter", "_iterations", "iterations")
OF_OPTIMIZERS = ("learning_rate", "_learning_rate", "decay", "beta_1", "momentum", "rho", "_current_learning_rate")
EPSILON = 1e-7
AVERAGED = re.compile(r"^(.+)/ExponentialMovingAverage(?:_\d+)?$")
NO_WEIGHTS = re.compile(r"^keras_api/|(^|/)(_?metrics|keras_metrics|_compile_metrics|_loss_tracker)/")
NUMBERS = {
    "learning_rate": "learning_rate", "current_learning_rate": "learning_rate", "beta_1": "beta1",
    "beta_2": "beta2", "momentum": "momentum", "epsilon": "eps",
    "weight_decay": "weight_decay",
}  # fmt: skip
EXPORTED = re.compile(r"(non_trainable_|trainable_)?variables/\d+$")
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
    found = without_exports(found, full)
    uses = Counter(full.get(k, "") for k in found)
    title = {k: full[k] if full.get(k) and uses[full[k]] == 1 and full[k] != "Variable" else k for k in found}
    roots = optimizers_in(found)
    owned = {k: m for k in found if (m := SLOT.match(k))}
    inside = {k: r for k in found if k not in owned and (r := root_of(k, roots))}
    averaged = {k: m[1] for k in found if (m := AVERAGED.match(full.get(k, "")))}
    counts = {k: p for k, p in found.items() if not p.shape and p.dtype not in FLOATING and k not in inside}
    outside = {
        k: p
        for k, p in found.items()
        if k not in owned and k not in inside and k not in averaged and k not in counts and not NO_WEIGHTS.search(k)
    }
    weights = {title[k]: outside[k] for k in ranked(outside)}
    states: dict[str, dict[str, Place]] = {}
    groups: dict[str, list[str]] = {}
    for key, match in owned.items():
        owner = title.get(match["owner"], match["owner"])
        if owner in weights and weights[owner].shape == found[key].shape:
            states.setdefault(owner, {})[match["slot"]] = found[key]
            groups.setdefault(match["root"].rpartition("/")[2], []).append(owner)
    named = {n: named_state(s) for n, s in states.items()}
    average = averages_of(averaged, full, title, found, weights)
    kinds: dict[str, str] = {}
    for root in roots:
        own = {title[k]: found[k] for k, r in inside.items() if r == root and found[k].shape}
        slotted = slots(own, weights)
        named |= {n: s for n, s in slotted.items() if n not in named}
        average |= averages(own, weights)
        trained = [title[k] for k in outside if k.startswith(f"{root}/_trainable_variables/")]
        groups.setdefault(root, []).extend(trained or slotted)
        names = " ".join(full.get(k, "") for k in (*(k for k, r in inside.items() if r == root), *owned))
        kinds[root] = kind_of(names, {n: named[n] for n in groups[root] if n in named})
    many = sum(bool(n) for n in groups.values()) > 1
    kept = {r: tuple(dict.fromkeys(n)) for r, n in groups.items() if n} if many else {}
    unread: dict[Setting, Place] = {}
    for root in roots:
        scalars = {k.rpartition("/")[2].lstrip("_"): found[k] for k, r in inside.items() if r == root}
        unread |= scalar_settings({k: p for k, p in scalars.items() if not p.shape}, root if many else "")
    iterations = next((found[k] for k in inside if k.rpartition("/")[2] in ITERATIONS and not found[k].shape), None)
    return parts_of(weights, step_facts(counts, iterations), named, unread, kinds, iterations, average, kept)


def without_exports(found: Mapping[str, Place], full: Mapping[str, str]) -> dict[str, Place]:
    """Keras' model.export writes every variable once more into a list, under the same name in memory."""
    known = {(full.get(k), p.shape) for k, p in found.items() if not EXPORTED.match(k)}
    return {k: p for k, p in found.items() if not (EXPORTED.match(k) and full.get(k) and (full[k], p.shape) in known)}


def optimizers_in(found: Mapping[str, Place]) -> list[str]:
    """Paths of the optimizers: they count their iterations, beside a rate or under a name that says so."""
    roots: dict[str, None] = {}
    for key, place in found.items():
        root, _, leaf = key.rpartition("/")
        if not root or place.shape or place.dtype in FLOATING or leaf not in ITERATIONS:
            continue
        if leaf == "_iterations" or OPTIMIZER.search(key) or any(f"{root}/{w}" in found for w in OF_OPTIMIZERS):
            roots[root] = None
    for key in found:
        match = OPTIMIZER.search(key)
        if match and not any(key.startswith(r + "/") for r in roots) and SLOT.match(key) is None:
            roots[key[: match.end()].rstrip("/")] = None
    return sorted(roots, key=len, reverse=True)


def root_of(key: str, roots: list[str]) -> str:
    """The optimizer that a variable is of, "" if of none: those that it trains are no variables of its own."""
    root = next((r for r in roots if key.startswith(r + "/")), "")
    return "" if root and key.startswith(f"{root}/_trainable_variables/") else root


def averages_of(
    averaged: Mapping[str, str],
    full: Mapping[str, str],
    title: Mapping[str, str],
    found: Mapping[str, Place],
    weights: Mapping[str, Place],
) -> dict[str, Place]:
    """Weight → its shadow of tf.train.ExponentialMovingAverage, where name and shape fit one weight only."""
    out: dict[str, Place] = {}
    for key, name in averaged.items():
        fit = [title[k] for k in found if full.get(k) == name and found[k].shape == found[key].shape]
        if len(fit) == 1 and fit[0] in weights:
            out[fit[0]] = found[key]
    return out


@dataclass(frozen=True)
class UserStep:
    """Reads the user's own count and the optimizer's; NaN unless they go along (one may have begun at 1)."""

    step: Place
    iterations: Place

    def __call__(self, file: FileId, place: Place) -> Place:
        """The user's count as a number in place."""
        step, made = (int(read_tensor(p, (file,) * (p.file + 1)).reshape(-1)[0]) for p in (self.step, self.iterations))
        return Place((), "float64", 0, inline=struct.pack("<d", step if abs(step - made) <= 1 else nan))


def step_facts(counts: Mapping[str, Place], iterations: Place | None) -> list[Fact]:
    """Where the step stands: the user's own variable if it goes along with the optimizer's iterations, then these.

    A variable called step may count epochs or saves; what the optimizer counts are updates.
    """
    facts: list[Fact] = []
    for key, place in counts.items():
        if key.rpartition("/")[2] in STEP_WORDS and key.count("/") <= 1:
            told = place
            if iterations is not None:
                if place.file != iterations.file:  # they cannot be read together
                    continue
                told = Place((), "float64", place.start, file=place.file, find=UserStep(place, iterations))
            facts.append(Fact(told, STEPS, f"the variable {key} in the file"))
    if iterations is not None:
        facts.append(Fact(iterations, STEPS, "the optimizer's iterations in the file"))
    epochs = [k for k in counts if k.rpartition("/")[2] in EPOCH_WORDS and k.count("/") <= 1]
    return facts + [Fact(counts[k], EPOCHS, f"the variable {k} in the file") for k in epochs]


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
    return parts_of(weights, facts, states, {}, {"": kind}, step, average, {})


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


def scalar_settings(scalars: Mapping[str, Place], group: str) -> dict[Setting, Place]:
    """Settings that are variables of the optimizer: their values are read when the checkpoint is opened."""
    return {
        Setting(NUMBERS[k], None, None, group, "in force", f"the optimizer's variable {k}", LAST): p
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
    kinds: Mapping[str, str],
    iterations: Place | None,
    average: Mapping[str, Place],
    groups: Mapping[str, tuple[str, ...]],
) -> Parts:
    """The parts; layouts are Keras'. `kinds`: parameter group → optimizer."""
    settings = [*unread]
    for group, kind in kinds.items():
        if kind:
            source = "names of the optimizer's variables"
            home = group if groups else ""
            settings.append(Setting("optimizer", None, kind, home, "inferred", source))
            if kind.startswith("Adam") and any(s.name == "beta1" for s in unread):  # Keras 2 keeps all but this one
                settings.append(Setting("eps", EPSILON, None, home, "inferred", "Keras' default: a bundle has none"))
    sorted_names = list(weights) == sorted(weights)
    named = {n: p if p.layout else replace(p, layout=usual_axes(n, p)) for n, p in with_axes(weights, {}).items()}
    return Parts(
        weights=dict(sorted(named.items())) if sorted_names else named,
        where="weights",
        variants={"ema": average} if average else {},
        facts=tuple(facts),
        told=told(groups, states, settings, unread, (), iterations),
    )


def usual_axes(name: str, place: Place) -> str | None:
    """Variables under names of their own: tf.matmul takes (in, out), tf.nn.conv2d (height, width, in, out)."""
    leaf = name.rpartition("/")[2]
    if re.search(r"embed|lookup|table|position|bias|gamma|beta", name, re.IGNORECASE) or leaf in ("kernel", "b"):
        return None
    return {2: "IO", 4: "HWIO"}.get(len(place.shape))


FRAMEWORK = Framework("tensorflow", matches, read_parts)
