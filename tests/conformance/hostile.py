"""Hostile checkpoints, made on demand: payloads that would touch a canary file, and claims that would eat the machine.

Every maker gets a folder of its own and the path of the canary. Nothing of this is ever opened by anything but ours.
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import torch
from safetensors.numpy import save

Maker = Callable[[Path, str], None]
SECRET = 4242.5  # what lies in files that may not be read
WEIGHTS = {"conv.weight": torch.arange(54.0).reshape(2, 3, 3, 3)}


class Call:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


def touch(canary: str) -> Call:
    return Call(os.system, f"touch {canary}")


def text(words: str) -> bytes:
    """A BINUNICODE op."""
    raw = words.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def members(path: Path, *pairs: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    """A zip archive; two members may have one name."""
    with zipfile.ZipFile(path, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, data in pairs:
            archive.writestr(zipfile.ZipInfo(name), data, compression)


def payload_beside_weights(folder: Path, canary: str) -> None:
    torch.save({"state_dict": WEIGHTS, "extra": touch(canary)}, folder / "step_1.pt")


def payload_alone(folder: Path, canary: str) -> None:
    torch.save(touch(canary), folder / "step_1.pt")


def eval_in_a_legacy_file(folder: Path, canary: str) -> None:
    saved = {"state_dict": WEIGHTS, "args": Call(eval, f"open({canary!r}, 'w').close()")}
    torch.save(saved, folder / "step_1.pth", _use_new_zipfile_serialization=False)


def payload_as_metadata(folder: Path, canary: str) -> None:
    (folder / ".metadata").write_bytes(pickle.dumps(touch(canary), 4))
    (folder / "__0_0.distcp").write_bytes(b"")


def payload_in_an_optimizer_file(folder: Path, canary: str) -> None:
    here = folder / "checkpoint-5"
    here.mkdir()
    (here / "model.safetensors").write_bytes(save({n: w.numpy() for n, w in WEIGHTS.items()}))
    torch.save(touch(canary), here / "optimizer.pt")
    (here / "training_args.bin").write_bytes(pickle.dumps(touch(canary)))
    (here / "trainer_state.json").write_text("[" * 100_000)


def payload_in_setstate(folder: Path, canary: str) -> None:
    state = b"}" + text("__setstate__") + b"cos\nsystem\nsb" + text(f"touch {canary}") + b"b."
    (folder / "a.pkl").write_bytes(b"\x80\x02ccollections\nOrderedDict\n)R" + state)


def payload_by_getattr(folder: Path, canary: str) -> None:
    method = b"cbuiltins\ngetattr\n(cpathlib\nPath\n" + text("touch") + b"tR"
    (folder / "a.pkl").write_bytes(b"\x80\x02" + method + b"cpathlib\nPath\n" + text(canary) + b"\x85R\x85R.")


def payload_by_inst(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"(S'touch " + canary.encode() + b"'\nios\nsystem\n.")


def payload_by_obj(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02(cos\nsystem\nS'touch " + canary.encode() + b"'\no.")


def payload_without_a_stop(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02cos\nsystem\n" + text(f"touch {canary}") + b"\x85R")


def payload_in_a_second_pickle(folder: Path, canary: str) -> None:
    first = pickle.dumps({"w": np.ones((2, 2), np.float32)}, 4)
    (folder / "a.pkl").write_bytes(first + pickle.dumps(touch(canary), 4))


def payload_by_dotted_name(folder: Path, canary: str) -> None:
    dotted = b"\x8c\x08builtins\x8c\x0beval.__call__\x93"
    (folder / "a.pkl").write_bytes(b"\x80\x04" + dotted + text(f"open({canary!r}, 'w')") + b"\x85R.")


def payload_in_an_object_array(folder: Path, canary: str) -> None:
    array = np.array([touch(canary)], dtype=object)
    np.save(folder / "w.npy", array, allow_pickle=True)
    np.savez(folder / "step_1.npz", w=array, good=np.ones((2, 2)))


def payload_as_a_keras_lambda(folder: Path, canary: str) -> None:
    code = f"lambda x: open({canary!r}, 'w')"
    layer = {"class_name": "Lambda", "module": "keras.layers", "config": {"function": {"config": {"code": code}}}}
    config = json.dumps({"class_name": "Functional", "config": {"layers": [layer]}}).encode()
    weights = io.BytesIO()
    with h5py.File(weights, "w") as file:
        file["layers/dense/vars/0"] = np.ones((2, 3), np.float32)
    pairs = ("config.json", config), ("metadata.json", b"{}"), ("model.weights.h5", weights.getvalue())
    members(folder / "model_1.keras", *pairs)


def extension_code(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02\x82\x01.")


def billion_laughs(folder: Path, canary: str) -> None:
    data = b"\x80\x02]q\x00"
    for i in range(40):
        data += b"](" + b"h" + bytes([i]) + b"h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1])
    (folder / "a.pkl").write_bytes(data + b".")


def deep_tuple(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02)" + b"\x85" * 1_000_000 + b".")


def many_digits(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02I" + b"9" * 1_000_000 + b"\n.")
    (folder / "b.pkl").write_bytes(b"\x80\x02\x8b" + struct.pack("<i", 500_000) + b"\x7f" * 500_000 + b".")


def long_bytes_claimed(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x04\x8e" + struct.pack("<Q", 1 << 62) + b"x.")
    (folder / "b.pkl").write_bytes(b"\x80\x05\x96" + struct.pack("<Q", 1 << 62) + b"x.")


def memo_far_out(folder: Path, canary: str) -> None:
    (folder / "a.pkl").write_bytes(b"\x80\x02Nr\xff\xff\xff\xff0N.")


def two_members_of_one_name(folder: Path, canary: str) -> None:
    good, bad = pickle.dumps({"w": 1}, 2), pickle.dumps(touch(canary), 2)
    members(folder / "step_1.pt", ("archive/data.pkl", good), ("archive/data.pkl", bad), ("archive/version", b"3\n"))


def compressed_bomb(folder: Path, canary: str) -> None:
    data = pickle.dumps({"w": b"\0" * 60_000_000}, 2)
    pairs = ("archive/data.pkl", data), ("archive/version", b"3\n")
    members(folder / "step_1.pt", *pairs, compression=zipfile.ZIP_DEFLATED)


def npz_bomb(folder: Path, canary: str) -> None:
    """A header that promises 2^40 elements, and one whose zeros deflate 1000 to 1."""
    np.savez_compressed(folder / "step_1.npz", w=np.zeros(10_000_000, np.float32))
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (128 - 10 - len(header) - 1) + b"\n"
    data = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    members(folder / "other_1.npz", ("w.npy", data), compression=zipfile.ZIP_DEFLATED)


def strides_out_of_bounds(folder: Path, canary: str) -> None:
    """A tensor of four elements whose shape was rewritten to 2^30."""
    made = io.BytesIO()
    torch.save({"w": torch.zeros(4)}, made)
    with zipfile.ZipFile(made) as archive:
        pairs = [(name, archive.read(name)) for name in archive.namelist()]
    shape = b"K\x04\x85"  # (4,), the shape of the one tensor
    assert sum(data.count(shape) for name, data in pairs if name.endswith("data.pkl")) == 1
    longer = b"J" + struct.pack("<i", 1 << 30) + b"\x85"
    swapped = [(n, d.replace(shape, longer) if n.endswith("data.pkl") else d) for n, d in pairs]
    members(folder / "step_1.pt", *swapped)


def safetensors_claims(folder: Path, canary: str) -> None:
    """Headers longer than the file, tensors beyond it, shapes that overflow, JSON without end."""
    for number, header in enumerate(
        (
            {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
            {"w": {"dtype": "F32", "shape": [1 << 62, 1 << 62, 4], "data_offsets": [0, 16]}},
            {"w": {"dtype": "F32", "shape": [-1, -4], "data_offsets": [0, 16]}},
            {"w": {"dtype": "F32", "shape": [4], "data_offsets": [-16, 0]}},
        ),
        1,
    ):
        raw = json.dumps(header).encode()
        (folder / f"step_{number}.safetensors").write_bytes(struct.pack("<Q", len(raw)) + raw + b"\0" * 16)
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    (folder / "deep_1.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)
    (folder / "long_1.safetensors").write_bytes(struct.pack("<Q", 1 << 60) + b"{")


def shard_outside(folder: Path, canary: str) -> None:
    secret = Path(canary).parent / "secret.safetensors"
    secret.write_bytes(save({"w": np.full((2, 2), SECRET, np.float32)}))
    here = folder / "checkpoint-1"
    here.mkdir()
    index = {"weight_map": {"w": os.path.relpath(secret, here)}}
    (here / "model.safetensors.index.json").write_text(json.dumps(index))


def hdf5_outside(folder: Path, canary: str) -> None:
    """Datasets whose bytes lie in another file, an external link, a virtual dataset, and a claim of 4 TB."""
    secret = folder / "secret.bin"
    secret.write_bytes(np.full(4, SECRET, np.float32).tobytes())
    with h5py.File(folder / "other.hdf", "w") as file:
        file["w"] = np.full(4, SECRET, np.float32)
    with h5py.File(folder / "step_1.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group.create_dataset("0", (4,), "f4", external=[(str(secret), 0, 16)])
        group["1"] = h5py.ExternalLink(str(folder / "other.hdf"), "w")
        source = h5py.VirtualSource(str(folder / "other.hdf"), "w", (4,))
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = source
        group.create_virtual_dataset("2", layout)
        group.create_dataset("3", (1 << 20, 1 << 20), "f4", chunks=(1 << 10, 1 << 10))


def hdf5_loop(folder: Path, canary: str) -> None:
    """A group that holds itself."""
    with h5py.File(folder / "step_1.weights.h5", "w") as file:
        group = file.create_group("layers/dense/vars")
        group["0"] = np.ones((2, 2), np.float32)
        group["again"] = file["layers"]
        group["soft"] = h5py.SoftLink("/layers")


def msgpack_claims(folder: Path, canary: str) -> None:
    """Four thousand million entries, nesting without end, an array of another size than its bytes."""
    (folder / "state_1.msgpack").write_bytes(b"\x81\xa6params\xdf\xff\xff\xff\xff\xa1w")
    (folder / "state_2.msgpack").write_bytes(b"\x81\xa6params" + b"\x91" * 500_000 + b"\x01")
    array = b"\x93\xce\x7f\xff\xff\xff\xa7float32\xc4\x04abcd"
    (folder / "state_3.msgpack").write_bytes(b"\x81\xa6params\x81\xa1w\xc7" + bytes([len(array)]) + b"\x01" + array)


def protobuf_claims(folder: Path, canary: str) -> None:
    """An ONNX tensor outside its folder, and lengths beyond the file."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2]) + varint(len(data)) + data

    def varint(value: int) -> bytes:
        out = b""
        while value > 127:
            out += bytes([value & 127 | 128])
            value >>= 7
        return out + bytes([value])

    (folder / "secret.bin").write_bytes(np.full(4, SECRET, np.float32).tobytes())
    here = folder / "models"
    here.mkdir()
    location = field(13, field(1, b"location") + field(2, b"../secret.bin"))
    tensor = b"\x08\x04\x10\x01" + field(8, b"w") + location + b"\x70\x01"
    graph = field(2, b"g") + field(5, tensor)
    (here / "model_1.onnx").write_bytes(b"\x08\x08" + field(2, b"pytorch") + field(7, graph))
    (here / "model_2.onnx").write_bytes(b"\x08\x08" + field(2, b"pytorch") + b"\x3a" + varint(1 << 50) + b"x" * 64)


def gguf_claims(folder: Path, canary: str) -> None:
    """2^60 tensors, and a text of 2^60 bytes."""
    (folder / "model-step1.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 0))
    (folder / "model-step2.gguf").write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 1 << 60) + b"name" * 8)


def mxnet_claims(folder: Path, canary: str) -> None:
    (folder / "net-0001.params").write_bytes(struct.pack("<QQQ", 0x112, 0, 1 << 60) + b"\0" * 64)


def links_outside(folder: Path, canary: str) -> None:
    """Links to devices and pipes never end."""
    (folder / "step_1.pt").symlink_to("/dev/zero")
    os.mkfifo(folder / "step_2.pt")


HOSTILE: tuple[Maker, ...] = (
    payload_beside_weights, payload_alone, eval_in_a_legacy_file, payload_as_metadata, payload_in_an_optimizer_file,
    payload_in_setstate, payload_by_getattr, payload_by_inst, payload_by_obj, payload_without_a_stop,
    payload_in_a_second_pickle, payload_by_dotted_name, payload_in_an_object_array, payload_as_a_keras_lambda,
    extension_code, billion_laughs, deep_tuple, many_digits, long_bytes_claimed, memo_far_out, two_members_of_one_name,
    compressed_bomb, npz_bomb, strides_out_of_bounds, safetensors_claims, shard_outside, hdf5_outside, hdf5_loop,
    msgpack_claims, protobuf_claims, gguf_claims, mxnet_claims, links_outside,
)  # fmt: skip
SOUND = (payload_beside_weights, eval_in_a_legacy_file, payload_in_an_optimizer_file)  # their weights are read
