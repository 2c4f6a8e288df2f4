"""Hugging Face's config.json: the architecture it names, built by transformers without weights (on the meta device).

Only classes of transformers itself are used: code that a repository brings along (auto_map) is never fetched or run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from smd_analyze.errors import UsageError
from smd_analyze.invariance.sources.base import Built, GraphSource
from smd_analyze.records.finding import Finding
from smd_analyze.records.run import GraphHint, LazyTensor

if TYPE_CHECKING:
    from torch import nn

NOT_OURS = ("auto_map", "torch_dtype", "dtype", "quantization_config")
RANDOM = ("layerdrop", "encoder_layerdrop", "decoder_layerdrop")
SAID = {"Infinity": float("inf"), "-Infinity": float("-inf"), "NaN": float("nan")}


def build(hint: GraphHint, tensors: Mapping[str, LazyTensor]) -> Built:
    """The model of `architectures` and `model_type`; UsageError if this transformers has no such class."""
    import torch
    import transformers  # pyright: ignore[reportMissingImports]

    from smd_analyze.invariance.sources.huggingface_names import as_saved

    described = hint.read()
    if not isinstance(described, dict):
        raise UsageError(f"{hint.source}: is no JSON object; give the model with --model")
    refuse_others(described, hint.source)
    kind = class_of(transformers, described, hint.source)
    label = f"{kind.__name__} of {PurePosixPath(hint.source).name}"
    names: dict[str, str] = {}

    def made() -> nn.Module:
        with quiet(transformers):
            network = kind(configured(kind, described))
            names.update(as_saved(network, tensors))
        return network

    try:
        with torch.device("meta"):
            network = made()
    except Exception as problem:  # transformers raises whatever its code meets in a config
        lines = [line.strip() for line in str(problem).splitlines() if line.strip()]
        reason = " ".join(lines[:2]) or type(problem).__name__
        raise UsageError(
            f"{hint.source}: transformers {transformers.__version__} cannot build {kind.__name__} from it "
            f"({reason[:300]}); give the model with --model"
        ) from problem
    return Built(network, label, names=names, findings=tuple(custom(described, kind.__name__, hint)), real=made)


def configured(kind: Any, described: Mapping[str, Any]) -> Any:
    """The configuration, with operations that the graph can show and without what drops whole layers at random."""
    config = kind.config_class.from_dict({k: plain(v) for k, v in described.items() if k not in NOT_OURS})
    for part in parts(config):
        part._attn_implementation = "eager"
        if hasattr(part, "_experts_implementation"):
            part._experts_implementation = "batched_mm"
        for name in RANDOM:
            if getattr(part, name, None):
                setattr(part, name, 0.0)
    return config


def parts(config: Any) -> Iterator[Any]:
    """A configuration and those within it, of models of several."""
    yield config
    for name in getattr(config, "sub_configs", {}):
        part = getattr(config, name, None)
        if part is not None and not isinstance(part, dict):
            yield from parts(part)


def plain(value: Any) -> Any:
    """Numbers that JSON cannot say, as transformers writes them: {"__float__": "Infinity"}."""
    if isinstance(value, dict):
        return (
            SAID.get(value["__float__"]) if value.keys() == {"__float__"} else {k: plain(v) for k, v in value.items()}
        )
    return [plain(v) for v in value] if isinstance(value, list) else value


def refuse_others(described: Mapping[str, Any], where: str) -> None:
    """UsageError for what is no configuration of a model of transformers, though it lies where one would."""
    if "peft_type" in described:
        base = described.get("base_model_name_or_path")
        raise UsageError(
            f"{where}: holds an adapter ({described['peft_type']}); the model that it adapts ({base}) is not in the "
            "run; give both together with --model: a function that returns get_peft_model(…)"
        )
    if "architecture" in described and "pretrained_cfg" in described:
        raise UsageError(
            f"{where}: is timm's configuration of a {described['architecture']}, which is not built from it; give the "
            "model with --model: a function that returns timm.create_model(…)"
        )
    if "_class_name" in described:
        raise UsageError(
            f"{where}: is diffusers' configuration of a {described['_class_name']}, which is not built from it; give "
            "the model with --model: a function that returns it from diffusers, and its inputs with --inputs"
        )


def class_of(transformers: Any, described: Mapping[str, Any], where: str) -> Any:
    """The model class that the config names, if it is one of transformers' own."""
    named = described.get("architectures")
    for name in named if isinstance(named, list) else ():
        kind = getattr(transformers, name, None) if isinstance(name, str) and name.isidentifier() else None
        if isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel):
            return kind
    listed = ", ".join(str(n) for n in named) if isinstance(named, list) and named else "no architecture"
    own = "; it comes with code of its own (auto_map), which is never fetched or run" * ("auto_map" in described)
    raise UsageError(
        f"{where}: names {listed}, which transformers {transformers.__version__} does not have "
        f"(model_type {described.get('model_type')!r}){own}; give the model with --model"
    )


def custom(described: Mapping[str, Any], name: str, hint: GraphHint) -> Iterator[Finding]:
    """A warning where the run may have used other code than transformers' own."""
    if "auto_map" in described:
        yield Finding(
            "custom-code-not-run", "warning", hint.source,
            f"names code of its own (auto_map), which is never fetched or run: transformers' own {name} was read, and "
            "the verdicts hold only if the run's code computes the same",
            "If it does not, give the model with --model.",
        )  # fmt: skip


@contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """transformers' remarks about a configuration are not about the run."""
    log = transformers.utils.logging
    before = log.get_verbosity()
    log.set_verbosity_error()
    try:
        yield
    finally:
        log.set_verbosity(before)


SOURCE = GraphSource("huggingface config", build, requires=("transformers",), extra="transformers")
