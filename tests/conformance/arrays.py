"""Which saved tensor is which array of the truth: by name, by name without dress, by content; and in which role."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from smd_analyze.records.run import Checkpoint, LazyTensor

from .truth import Fingerprint, TrueCheckpoint, of_tensor, same

STATISTICS = re.compile(
    r"(running_(mean|var)|moving_(mean|var(iance)?)|num_batches_tracked|(^|[./])_(mean|variance))(:0)?$"
    r"|batch_stats[./].*[./](mean|var)$|[./]bn\w*[./](mean|var)$"
)
DRESS = re.compile(r"^((_orig_mod|module|model|net|params|state|_fsdp_wrapped_module)[./])+|:0$")


@dataclass
class ArraysOutcome:
    """How the arrays of one checkpoint compare. `how` counts by name, clean name, content; `roles` counts live …"""

    how: dict[str, int] = field(default_factory=dict)
    roles: dict[str, int] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    uncounted: list[str] = field(default_factory=list)
    misplaced: list[str] = field(default_factory=list)
    beyond: list[str] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)


def saved_tensors(checkpoint: Checkpoint) -> Iterator[tuple[str, str, LazyTensor]]:
    """(role, name, tensor) for all that a checkpoint holds, in order of trust."""
    yield from (("live", n, t) for n, t in checkpoint.parameters.items())
    yield from (("buffers", n, t) for n, t in checkpoint.buffers.items())
    for label, copy in checkpoint.variants.items():
        yield from ((label, n, t) for n, t in copy.items())
    for parameter, state in checkpoint.optimizer_state.items():
        yield from (("optimizer state", f"{parameter}:{n}", t) for n, t in state.items())


def bare(name: str) -> str:
    """The name with dots for slashes, without wrappers' prefixes and TensorFlow's `:0`."""
    while (shorter := DRESS.sub("", name)) != name:
        name = shorter
    return name.replace("/", ".")


def compare_arrays(checkpoint: Checkpoint, true: TrueCheckpoint) -> ArraysOutcome:
    """Every array of the truth is looked for among the saved tensors of a checkpoint."""
    out = ArraysOutcome()
    saved = list(saved_tensors(checkpoint))
    prints: dict[int, Fingerprint] = {}

    def print_of(index: int) -> Fingerprint:
        if index not in prints:
            prints[index] = of_tensor(saved[index][2])
        return prints[index]

    exact = {name: i for i, (_, name, _) in reversed(list(enumerate(saved)))}
    undressed: dict[str, int] = {bare(name): i for name, i in reversed(list(exact.items()))}
    used: set[int] = set()
    for name, expected in true.arrays.items():
        how, index = "by name", exact.get(name)
        if index is None:
            how, index = "by clean name", undressed.get(bare(name))
        if index is None or not same(print_of(index), expected):
            alike = [i for i in range(len(saved)) if saved[i][2].shape == expected.shape]
            alike = [i for i in alike if same(print_of(i), expected)]
            fresh = next((i for i in alike if i not in used), alike[0] if alike else None)
            if index is not None and fresh is None:
                out.differing.append(describe(name, saved[index][1], print_of(index), expected))
                continue
            if index is not None and fresh is not None:
                out.differing.append(f"{name} has the content of {saved[fresh][1]}")
                continue
            how, index = "tied" if fresh in used else "by content", fresh
        if index is None:
            (out.uncounted if is_counter(expected) else out.missing).append(name)
            continue
        used.add(index)
        role = saved[index][0]
        out.how[how] = out.how.get(how, 0) + 1
        out.roles[role] = out.roles.get(role, 0) + 1
        out.names[name] = saved[index][1]
        wanted = "buffers" if STATISTICS.search(name) or name in true.buffers else "live"
        if name in true.buffers and not checkpoint.optimizer_state:  # nothing else tells what is trained
            continue
        if role != wanted and not (role == "buffers" and not saved[index][2].dtype.startswith(("float", "bfloat"))):
            out.misplaced.append(f"{name} stands among {role}, it belongs to {wanted}")
    out.beyond = [n for i, (role, n, _) in enumerate(saved) if role == "live" and i not in used]
    return out


def compare_copies(checkpoint: Checkpoint, true: TrueCheckpoint, names: dict[str, str]) -> tuple[int, list[str]]:
    """(how many are equal, what differs) of the optimizer's states and the other copies that the truth holds."""
    right, out = 0, []
    wanted = [("state", n, k, t) for n, state in true.optimizer.items() for k, t in state.items()]
    wanted += [(label, n, "", t) for label, copy in true.variants.items() for n, t in copy.items()]
    for label, name, key, expected in wanted:
        here = names.get(name, name)
        held = checkpoint.optimizer_state.get(here, {}) if key else checkpoint.variants.get(label, {})
        found = held.get(key or here)
        if found is None:
            out.append(f"{label} of {name}: {key or 'copy'} is missing")
        elif not same(of_tensor(found), expected):
            out.append(f"{label} {key}: " + describe(name, here, of_tensor(found), expected))
        else:
            right += 1
    return right, out


def is_counter(expected: Fingerprint) -> bool:
    """A single whole number: exporters such as ONNX' leave num_batches_tracked out."""
    return expected.shape == () and expected.first == int(expected.first)


def describe(name: str, found_as: str, found: Fingerprint, true: Fingerprint) -> str:
    """What differs, in numbers."""
    here = name if name == found_as else f"{name} (read as {found_as})"
    if found.shape != true.shape:
        return f"{here}: shape {list(found.shape)}, was {list(true.shape)}"
    return (
        f"{here}: norm {found.norm:.6g}, was {true.norm:.6g}; first {found.first:.6g}, was {true.first:.6g}; "
        f"ordered sum {found.dot:.6g}, was {true.dot:.6g}"
    )


def consistency(checkpoint: Checkpoint) -> list[str]:
    """What must hold of copies and optimizer state without a truth: known parameters, their shapes, squares ≥ 0."""
    out: list[str] = []
    for label, copy in checkpoint.variants.items():
        for name, tensor in copy.items():
            live = checkpoint.parameters.get(name)
            if live is None:
                out.append(f"{label} copy of {name}, which is no parameter")
            elif live.shape != tensor.shape:
                out.append(f"{label} copy of {name}: shape {list(tensor.shape)}, the weights have {list(live.shape)}")
            elif label == "master":
                apart = (live.load().double() - tensor.load().double()).norm()
                if apart > 2**-7 * max(float(tensor.load().double().norm()), 1e-12):
                    out.append(f"master copy of {name} is not the weight before rounding")
    for name, state in checkpoint.optimizer_state.items():
        live = checkpoint.parameters.get(name)
        if live is None:
            out.append(f"optimizer state of {name}, which is no parameter")
            continue
        for key, tensor in state.items():
            full = key in ("exp_avg", "exp_avg_sq", "momentum_buffer", "max_exp_avg_sq")
            if full and tensor.shape != live.shape:
                out.append(f"{key} of {name}: shape {list(tensor.shape)}, the weights have {list(live.shape)}")
            if key == "exp_avg_sq" and tensor.shape and (tensor.load().double() < 0).any():
                out.append(f"{key} of {name} has negative elements: it is no second moment")
    return out
