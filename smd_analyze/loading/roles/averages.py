"""Averaged copies of weights (EMA, momentum encoders, target networks) beside the live ones, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

from smd_analyze.loading.tensors.places import Place

PREFIXES = ("ema.", "ema_model.", "model_ema.", "ema_net.", "averaged_model.", "average_model.", "shadow.")
LIVE_PREFIXES = ("", "model.", "net.", "module.", "online_model.", "online.")
DEEPEST = 4  # components of a name that are looked at

# a word of a name → the words that its live counterpart may have
RULES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"(.*)encoder_k", (r"\1encoder_q",)),  # MoCo
    (r"(.*)key_encoder", (r"\1query_encoder",)),
    (r"teacher", ("student",)),
    (r"teacher_(.+)", (r"student_\1", r"\1")),
    (r"(.+)_teacher", (r"\1_student", r"\1")),
    (r"target", ("online", "policy", "student", "local", "main", "source")),
    (r"(?:target|slow)_(?!emb)(.+)", (r"online_\1", r"policy_\1", r"\1", r"q_\1", r"local_\1", r"main_\1", r"eval_\1")),
    (r"(?:ema|swa|avg|averaged?|momentum|shadow)_(.+)", (r"\1", r"online_\1", r"base_\1")),
    (r"(.+)_(?:ema|swa|avg|averaged|momentum|target|old|m|bar)", (r"\1", r"\1_online", r"online_\1")),
    (r"(.+)-(?:ema|target)", (r"\1",)),
)  # fmt: skip


@lru_cache(maxsize=4096)
def live_words(word: str) -> tuple[str, ...]:
    """What the live counterpart of a module of this name may be called; () if the name is not that of an average."""
    out: list[str] = []
    for pattern, others in RULES:
        found = re.fullmatch(pattern, word, re.IGNORECASE)
        if found:
            out += [found.expand(other) for other in others]
    return tuple(dict.fromkeys(w for w in out if w and w != word))


def split_averages(places: Mapping[str, Place]) -> tuple[dict[str, Place], dict[str, Place], str]:
    """(live, averaged under the live names, the averaged module's name): the latter two are empty if there is none.

    Tensors are an average's if their names hold one of its words, and each of them has a live twin of its shape.
    """
    for prefix in PREFIXES:
        averaged = {n[len(prefix) :]: p for n, p in places.items() if n.startswith(prefix)}
        if not averaged:
            continue
        live = {n: p for n, p in places.items() if not n.startswith(prefix)}
        dotless = {n.replace(".", ""): n for n in live}  # latent diffusion's LitEma drops the dots of its names
        for before in LIVE_PREFIXES:
            twins = {before + n: p for n, p in averaged.items() if before + n in live}
            if len(dotless) == len(live):
                flat = ((dotless.get((before + n).replace(".", "")), p) for n, p in averaged.items())
                twins = twins or {n: p for n, p in flat if n is not None}
            if twins and len(twins) >= len(averaged) // 2 and all(live[n].shape == p.shape for n, p in twins.items()):
                return live, twins, prefix[:-1]
    return split_by_words(places)


def split_by_words(places: Mapping[str, Place]) -> tuple[dict[str, Place], dict[str, Place], str]:
    """The same by RULES: a module goes as a whole, or not at all."""
    modules: dict[tuple[str, str], list[str]] = {}  # (what stands before, the word) → names below
    for name in places:
        words = name.split(".")
        for at, word in enumerate(words[:DEEPEST]):
            if live_words(word):
                modules.setdefault((".".join(words[:at]), word), []).append(name)
                break
    averaged: dict[str, Place] = {}
    gone: set[str] = set()
    found: list[str] = []
    for (before, word), names in modules.items():
        head = (before + "." if before else "") + word
        for other in live_words(word):
            twin = (before + "." if before else "") + other
            pairs = {n: twin + n[len(head) :] for n in names}
            if all(t in places and places[t].shape == places[n].shape for n, t in pairs.items()):
                averaged |= {t: places[n] for n, t in pairs.items()}
                gone |= set(names)
                found.append(head)
                break
    return {n: p for n, p in places.items() if n not in gone}, averaged, ", ".join(found)
