"""How good the guess by names is: against the verdicts that the model's own graph proves.

Usage: python benchmarks/names.py [timm model names …]      (needs timm; without names: a list of architectures)

For each model, in the order of registration and sorted by name as some formats do: matrices and kernels that the names
call invariant (claimed), those of them that the graph proves at that granularity (right), and those that the graph
proves at all (true). Precision is right/claimed, recall is right/true. Every claim that is not proved is printed.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import timm
import torch

from smd_analyze.invariance.graph import analyse
from smd_analyze.invariance.naming import name_verdicts
from smd_analyze.invariance.tracing import trace
from smd_analyze.invariance.verdicts import Verdict
from smd_analyze.records.run import LazyTensor

MODELS = """
    resnet18 resnext50_32x4d seresnet50 resnetv2_50 densenet121 vgg11_bn mobilenetv2_100 mobilenetv3_small_100
    efficientnet_b0 ghostnet_100 regnetx_002 regnety_002 convnext_atto vit_tiny_patch16_224 swin_tiny_patch4_window7_224
    swinv2_tiny_window8_256 dla34 res2net50_26w_4s darknet53 inception_v3 dpn48b nf_resnet50 repvgg_a0 rexnet_100
    levit_128s mobilevit_xxs poolformer_s12 mobileone_s0 xcit_nano_12_p16_224 mambaout_femto gcresnet50t
"""
FINER = {"": 0, "whole": 1, "block": 2, "unit": 3}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def guessed(entries: Sequence[tuple[str, tuple[int, ...]]], parameters: set[str]) -> dict[str, list[Verdict]]:
    """Verdicts by names alone, of a file that holds these tensors in this order."""
    tensors = {name: LazyTensor(shape, "float32", _never) for name, shape in entries}
    buffers = {name: t for name, t in tensors.items() if name.endswith(STATISTICS)}
    found: dict[str, list[Verdict]] = {}
    for verdict in name_verdicts({n: t for n, t in tensors.items() if n in parameters}, buffers):
        found.setdefault(verdict.parameter, []).append(verdict)
    return found


def compared(guesses: Mapping[str, list[Verdict]], proved: Mapping[str, list[Verdict]]) -> Iterator[tuple[str, str]]:
    """(what it counts as, parameter) for every matrix."""
    for name, rows in guesses.items():
        truth = proved[name]
        true = all(v.status == "invariant" for v in truth)
        if true:
            yield "true", name
        for guess in rows:
            if guess.status == "invariant":
                yield "claimed", name
                finest = max((FINER[v.granularity] for v in truth if v.status == "invariant"), default=0)
                fits = (true or len(rows) > 1) and FINER[guess.granularity] <= finest
                yield ("right" if fits else "false"), f"{name}: {guess.reason}; the graph: {truth[0].reason}"


def main() -> None:
    """Print a row for each model, then the sums."""
    sums: dict[str, Counter[str]] = {"registered": Counter(), "sorted": Counter()}
    for model in sys.argv[1:] or MODELS.split():
        with torch.device("meta"):
            network = timm.create_model(model)
            size = network.default_cfg["input_size"]
            graph = trace(network, (torch.empty(2, *size),), {}, model)
        verdicts, _ = analyse(graph)
        matrices = {n: verdicts[graph.aliases[n]] for n, p in network.named_parameters() if p.ndim > 1}
        parameters = {n for n, _ in network.named_parameters()}
        entries = [(n, tuple(t.shape)) for n, t in network.state_dict().items()]
        told = []
        for order, listed in (("registered", entries), ("sorted", sorted(entries))):
            guesses = {n: v for n, v in guessed(listed, parameters).items() if n in matrices}
            found = list(compared(guesses, matrices))
            counts = Counter(kind for kind, _ in found)
            sums[order] += counts
            told.append(f"{counts['claimed']:5} {counts['right']:5}")
            for kind, text in found:
                if kind == "false":
                    print(f"  {order}, {model}: {text}")
        print(f"{model:32} true {counts['true']:4}   claimed, right {told[0]}   sorted {told[1]}", flush=True)
    for order, c in sums.items():
        print(
            f"{order}: precision {c['right'] / max(1, c['claimed']):.4f}, recall {c['right'] / max(1, c['true']):.3f}"
        )


def _never() -> None:
    raise AssertionError("no tensor is read")


if __name__ == "__main__":
    main()
