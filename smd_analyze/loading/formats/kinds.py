"""Files that are known but not read: what they are and what to do instead."""

from __future__ import annotations

from smd_analyze.loading.sources import Source

NOT_YET = ": this format is not read yet; save the weights as safetensors or with torch.save"

KINDS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights?)" + NOT_YET),
    (b"GGUF", "a GGUF file: this format is not read yet; analyse the checkpoint that it was converted from"),
    (b"\x93NUMPY", "a single NumPy array: save all arrays of a checkpoint in one safetensors file"),
    (b"\x1f\x8b", "a gzip archive: unpack it first"),
    (b"(\xb5/\xfd", "a zstd archive: unpack it first"),
    (b"BZh", "a bzip2 archive: unpack it first"),
    (b"\x12\x01\x00\x00\x00\x00\x00\x00", "an MXNet parameter file" + NOT_YET),
    (b"\x80\x06", "a pickle of an unknown protocol"),
)  # fmt: skip
ZIPS: tuple[tuple[str, str], ...] = (
    ("model.weights.h5", "a Keras archive" + NOT_YET),
    ("models/model.json", "a torch.export archive (.pt2)" + NOT_YET),
    ("policy.pth", "a Stable-Baselines3 archive: unpack it; policy.pth and policy.optimizer.pth in it are torch files"),
    (".npy", "a NumPy .npz archive" + NOT_YET),
)  # fmt: skip


NAMES: tuple[tuple[str, str], ...] = (
    (".pdiparams", "a Paddle inference file" + NOT_YET),
    (".caffemodel", "a Caffe model" + NOT_YET),
    (".solverstate", "a Caffe solver's state" + NOT_YET),
    (".onnx", "an ONNX file: this format is not read yet; analyse the checkpoint that it was exported from"),
)


def describe(source: Source) -> str:
    """What the file is, as far as its first bytes and its name tell, and what to do."""
    head, name = source.head, source.path.rpartition("/")[2].lower()
    if not source.size:
        return "empty; it was never written, remove it or save it again"
    for magic, words in KINDS:
        if head.startswith(magic):
            return words
    if head[:4] == b"PK\x03\x04":
        for member, words in ZIPS:
            if member.encode() in head or any(n.endswith(member) for n in source.scratch.get("zip", ())):
                return words
        return "a zip archive without a data.pkl, so no torch file; unpack it, or save with torch.save"
    text = head[:512].lstrip().lower()
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page, not a checkpoint: the download went wrong, fetch the file again"
    if name.endswith((".index", ".meta")) or ".data-0" in name:
        return "part of a TensorFlow checkpoint" + NOT_YET
    if name.endswith(".msgpack") or is_msgpack(head):
        return "a msgpack file (Flax?)" + NOT_YET
    for ending, words in NAMES:
        if name.endswith(ending):
            return words
    if is_mindspore(head):
        return "a MindSpore checkpoint" + NOT_YET
    if name.endswith((".distcp",)):
        return "part of a torch.distributed checkpoint: convert it with torch.distributed.checkpoint.format_utils"
    if is_text(head):
        return "text, not a checkpoint"
    return "of no format that is read here (torch.save files, safetensors, Hugging Face folders, pickles of arrays)"


def is_msgpack(head: bytes) -> bool:
    """A small map whose first key is a short text (msgpack's fixmap and fixstr)."""
    if not head or not (0x81 <= head[0] <= 0x8F or head[0] in (0xDE, 0xDF)):
        return False
    key = {0xDE: 3, 0xDF: 5}.get(head[0], 1)
    length = head[key] & 0x1F if len(head) > key and 0xA1 <= head[key] <= 0xBF else 0
    name = head[key + 1 : key + 1 + length]
    return bool(length) and len(name) == length and name.isascii() and name.decode("ascii").isprintable()


def is_mindspore(head: bytes) -> bool:
    """protobuf: field 1 is a record whose own field 1 is a parameter's name and field 2 its tensor (0a … 0a … 12)."""
    at = 1
    if head[:1] != b"\x0a":
        return False
    while at < len(head) and head[at] & 0x80:
        at += 1
    record = head[at + 1 :]
    if record[:1] != b"\x0a" or len(record) < 2 or record[1] & 0x80:
        return False
    name = record[2 : 2 + record[1]]
    return (
        len(name) > 0
        and name.isascii()
        and name.decode("ascii").isprintable()
        and record[2 + record[1] :][:1] == b"\x12"
    )


def is_text(head: bytes) -> bool:
    """No control characters but white space in the first bytes, and sound UTF-8."""
    try:
        sample = head[:512].decode("utf-8")
    except UnicodeDecodeError as problem:
        if problem.start < len(head[:512]) - 3:
            return False
        sample = head[: problem.start].decode("utf-8")
    return all(c >= " " or c in "\t\r\n\f" for c in sample)
