"""Numbers in one file name and what they count, by the words around them. Metrics, ranks, dates count nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache

FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
STEP_WORDS = "globalstep|steps?|iter(?:ation)?s?|it|its|ba|batch(?:es)?|updates?"
EPOCH_WORDS = "epochs?|ep|e"
KINDS = {  # what a word beside a number says that it counts
    "step": re.compile(f"{STEP_WORDS}|.*(?:step|steps|iteration|iterations|updates)"),
    "epoch": re.compile(f"{EPOCH_WORDS}|.*epochs?"),
    "kimg": re.compile("kimg"),
    "tokens": re.compile("tokens?"),
}
NOTHING = re.compile(  # words whose number is a place, a trial or a setting
    "rank|shard|mp|tp|pp|dp|zero|node|gpu|gpus|host|process|proc|worker|part|split|fold|cv|seed|version|ver|v|run|runs"
    "|exp|experiment|trial|attempt|job|jobid|pid|slurm|port|lr|wd|bs|batchsize|size|dim|dims|hidden|width|depth"
    "|layers?|heads?|blocks?|beta|alpha|gamma|lambda|tau|sigma|momentum|dropout|warmup|maxlen|len"
    "|res|resolution|scale|bits?|fp|bf|int|top|"
    # and words whose number is a measurement
    ".*(?:acc|accuracy|loss|score|reward|return|error|err|recall|precision|metric|perplexity)|m?iou|m?ap|psnr|ssim|auc"
    "|auroc|fid|kid|bleu|rouge|wer|cer|ppl|bpb|bpc|mae|mse|rmse|nll|elbo|kl|dice"
)
MEASURED = re.compile(
    r"(?<![a-z])(?:f1|r2|top[-_]?[15]|(?:acc|hits|recall|prec|p|ndcg|m?ap)@?\d{1,3})[=_:]$", re.IGNORECASE
)
LATER = re.compile(
    "seed|fold|gpus?|layers?|heads?|bits?|px|d|dim|h|hours?|min|minutes?|s|sec|ms|mb|gb|params?|shot|way"
)
MONTH, DAY, HOUR, SIXTY = "(?:0[1-9]|1[0-2])", r"(?:0[1-9]|[12]\d|3[01])", r"(?:[01]\d|2[0-3])", r"[0-5]\d"
DATE = (
    rf"(?:19|20)\d\d([-_.]){MONTH}\1{DAY}|{DAY}[-.]{MONTH}[-.](?:19|20)\d\d"
    r"|(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*[-_ ]?[0-3]\d(?:[-_ ](?:19|20)\d\d)?"
)
CLOCK = rf"{HOUR}[-_:.h]{SIXTY}(?:[-_:.]{SIXTY})?(?:\.\d+)?(?:Z|\+\d\d(?::?\d\d)?|-\d\d:\d\d)?"
DENSE = rf"{HOUR}{SIXTY}(?:{SIXTY})?Z?"
MOMENT = re.compile(
    rf"(?<![\d.])(?:{DATE})(?:[-_+T@ ]{CLOCK}|T{DENSE})?(?!\d)"  # 2024-03-01_10-11-12
    rf"|(?<![\d.])(?:19|20)\d\d{MONTH}{DAY}(?:[-_T]?{DENSE}|[-_T]{CLOCK})?(?!\d)"  # 20240301-101112
    rf"|(?<![\d.]){HOUR}([-:]){SIXTY}\2{SIXTY}(?![\d.])"
    r"|(?<![\d.])1[4-9]\d{8}(?:\d{3})?(?!\d)",  # the last: seconds or milliseconds since 1970
    re.IGNORECASE,
)
HASH = re.compile(
    r"(?<![0-9a-z])(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
    r"|(?=\d*[a-f])(?=[a-f]*\d)(?!(?:ba|[a-f])\d+(?![0-9a-f]))(?!\d+(?:[a-f]|e\d+)(?![0-9a-f]))[0-9a-f]{7,64})(?![0-9a-z])",
    re.IGNORECASE,
)
OF = re.compile(r"(?<!\d)\d+[-_]?of[-_]?\d+(?!\d)", re.IGNORECASE)
NUMBER = re.compile(
    r"(?P<sign>(?<=[=_:~(\[])-|(?<=[a-z]-)-)?(?P<digits>\d+(?:\.\d+)?)(?P<exponent>e[+-]?\d+(?![a-z\d]))?"
    r"(?P<factor>[kmb](?![a-z0-9]))?|(?<=[=_])(?P<none>nan|-?inf)(?![a-z])",
    re.IGNORECASE,
)
BEFORE = re.compile(r"(?P<word>[^\W\d_]+)[=_\-.:(\[# @~]{0,2}$")
AFTER = re.compile(r"[_\- ]?(?P<word>[a-z]+)(?P<next>[=_\-.:]?\d)?", re.IGNORECASE)
ENDING = re.compile(
    r"\.(pth\.tar|weights\.h5|ckpt\.index|(?!(?:steps?|iter|it|ep|epoch|e)\d)[a-z][a-z_]{0,11}\d?)$", re.IGNORECASE
)
VERSION = re.compile(r"(?<=\d)-v\d+$")  # Lightning's, where a file of this name was there already
LONGEST = 15  # digits
HALF = Decimal("0.5")  # no whole number


@dataclass(frozen=True)
class Number:
    """A number in a name and what it counts: step, epoch, kimg, tokens, or "" where no such word stands beside it."""

    word: str
    value: int


@dataclass(frozen=True)
class Token:
    """Something in a name that may differ within a sequence, from `start` to `end`.

    `number` is None for what counts nothing; `moment` tells dates and times.
    """

    start: int
    end: int
    text: str
    number: Number | None
    moment: bool = False


@lru_cache(maxsize=1 << 16)  # names are asked for again by every question about their sequence
def tokens(name: str) -> tuple[Token, ...]:
    """Numbers, dates, hashes in a path relative to the run's folder, from left to right; its ending has none."""
    stem = stem_of(name, versions=False)
    taken = [(m.start(), m.end(), True) for m in MOMENT.finditer(stem) if kind_before(stem, m.start()) in ("", "-")]
    taken += [
        (m.start(), m.end(), False)
        for m in HASH.finditer(stem)
        if not any(m.start() < b and a < m.end() for a, b, _ in taken)
    ]
    out = [Token(a, b, stem[a:b], None, moment) for a, b, moment in taken]
    parts = [m.span() for m in OF.finditer(stem)]
    for match in NUMBER.finditer(stem):
        start, end = match.span()
        if not any(start < b and a < end for a, b, _ in taken):
            out.append(Token(start, end, match[0], counted(match, stem, any(a <= start < b for a, b in parts))))
    return tuple(sorted(out, key=lambda t: t.start))


def stem_of(name: str, versions: bool = True) -> str:
    """The path without its ending; without Lightning's -v1 as well if `versions` is False."""
    stem = ENDING.sub("", name)
    return VERSION.sub("", stem) if not versions and "=" in stem else stem


def counted(match: re.Match[str], stem: str, of_parts: bool) -> Number | None:
    """What the number counts; None for a metric, a rank, a seed, ….

    A word before it says more than one after it. A fraction is a metric, unless it is 1.5M or epoch=3.0.
    """
    digits, exponent, factor = match["digits"], match["exponent"], match["factor"]
    if digits is None or match["sign"] or len(digits) > LONGEST:
        return None
    kind = kind_before(stem, match.start())
    exact = Decimal(digits + (exponent or "")) * FACTORS[(factor or "").lower()] if len(exponent or "") < 4 else HALF
    fraction = "." in digits and not exponent and not factor and not (kind not in ("", "-") and exact == int(exact))
    if fraction or exact != int(exact) or exact > 10**LONGEST:
        return None
    if kind in ("", "-"):
        kind = kind_after(stem, match.end()) or kind
    if kind == "-" or (of_parts and not kind):
        return None
    return Number(kind, int(exact))


def kind_before(stem: str, at: int) -> str:
    """step, epoch, … by the word before a number, "-" if that word says that it counts nothing, "" otherwise."""
    found = BEFORE.search(stem, max(0, at - 40), at)
    if not found:
        return "-" if MEASURED.search(stem, max(0, at - 40), at) else ""
    word = found["word"]
    if stem[found.start() - 1 : found.start()].isdigit() and word.lower().endswith("s"):
        return ""  # 1000steps_3: the word is the other number's
    if re.fullmatch(r"(?s).*network[-_]snapshot-", stem[:at]):
        return "kimg"  # StyleGAN
    if re.search(r"global[-_]?step$", stem[: found.end("word")], re.IGNORECASE):
        return "step"
    piece = re.split(r"(?<=[a-z])(?=[A-Z])", word)[-1].lower()  # checkpointEpoch5
    if stem[: found.start()].lower().endswith(("batch_", "batch-")) and piece == "size":
        return "-"
    for kind, words in KINDS.items():
        if words.fullmatch(piece):
            return kind
    return "-" if NOTHING.fullmatch(piece) else ""


def kind_after(stem: str, at: int) -> str:
    """The same by the word after it, unless that word belongs to the next number."""
    found = AFTER.match(stem, at)
    if not found or (found["next"] and found.start("word") > at):
        return ""
    word = found["word"].lower()
    for kind, words in KINDS.items():
        if words.fullmatch(word):
            return kind
    glued = found.start("word") == at
    return "-" if glued and LATER.fullmatch(word) else ""


@lru_cache(maxsize=1 << 16)
def template(name: str) -> str:
    """The path with everything that may differ as '#': files of one template are candidates for one sequence."""
    return with_tokens(name, ["#"] * len(tokens(name)))


def with_tokens(name: str, by: Sequence[str]) -> str:
    """The path with its tokens replaced, and without Lightning's -v1."""
    stem = stem_of(name, versions=False)
    out, at = [], 0
    for token, text in zip(tokens(name), by, strict=True):
        out += [stem[at : token.start], text]
        at = token.end
    return "".join(out) + stem[at:] + name[len(stem_of(name)) :]
