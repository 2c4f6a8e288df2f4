"""Files that are known but not read: what they are and what to do instead."""

from __future__ import annotations

from smd_analyze.loading.files.sources import Source

NOT_YET = ": this format is not read yet; save the weights as safetensors or with torch.save"

KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"GGUF", "a GGUF file of a version or byte order that is not read"),
    (b"\x93NUMPY", "a single NumPy array: save all arrays of a checkpoint in one safetensors file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\x80\x06", "a pickle of an unknown protocol"),
)  # fmt: skip
NAMES: tuple[tuple[str, str], ...] = ((".pdiparams", "a Paddle inference file" + NOT_YET),)


def describe(source: Source) -> str:
    """What the file is, as far as its first bytes and its name tell, and what to do."""
    head, name = source.head, source.path.rpartition("/")[2].lower()
    if not source.size:
        return "empty; it was never written, remove it or save it again"
    for magic, words in KINDS:
        if head.startswith(magic):
            return words
    if head[:4] == b"PK\x03\x04":
        return "a zip archive without a data.pkl, so no torch file; unpack it, or save with torch.save"
    text = head[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, not a checkpoint: the download went wrong, fetch the file again"
    if name.endswith((".index", ".meta")) or ".data-0" in name:
        return "part of a TensorFlow checkpoint that is not whole: .index and .data-… belong together; copy both"
    for ending, words in NAMES:
        if name.endswith(ending):
            return words
    if name.endswith((".distcp",)):
        return "part of a torch.distributed checkpoint: name its folder, which must hold .metadata"
    if is_text(head):
        return "text, not a checkpoint"
    return "of no format that is read here (torch, safetensors, NumPy, Flax, Keras, TensorFlow, ONNX and other files)"


def is_text(head: bytes) -> bool:
    """No control characters but white space in the first bytes, and sound UTF-8."""
    try:
        sample = head[:512].decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < len(head[:512]) - 3:
            return False
        sample = head[: problem.start].decode("utf-8")
    return all(c >= " " or c in "\t\r\n\f" for c in sample)
