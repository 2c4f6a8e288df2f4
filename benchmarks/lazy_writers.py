"""One checkpoint in every format, written without its framework where that takes a few lines.

Arrays are given as name → float32 array. A writer that needs a library which is not installed says which.
"""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import h5py
import numpy as np

Arrays = Mapping[str, np.ndarray]


def torch_zip(folder: Path, arrays: Arrays) -> Path:
    import torch

    torch.save({n: torch.from_numpy(a) for n, a in arrays.items()}, folder / "model_1.pt")
    return folder / "model_1.pt"


def torch_legacy(folder: Path, arrays: Arrays) -> Path:
    import torch

    state = {n: torch.from_numpy(a) for n, a in arrays.items()}
    torch.save(state, folder / "model_1.pth", _use_new_zipfile_serialization=False)
    return folder / "model_1.pth"


def torch_script(folder: Path, arrays: Arrays) -> Path:
    import torch

    net = torch.nn.ParameterDict({n.replace(".", "_"): torch.nn.Parameter(torch.from_numpy(a)) for n, a in arrays.items()})  # noqa: E501  # fmt: skip

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for name, value in net.items():
                self.register_parameter(name, value)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    torch.jit.save(torch.jit.trace(Net(), torch.zeros(1)), folder / "net_1.pt")
    return folder / "net_1.pt"


def torch_dcp(folder: Path, arrays: Arrays) -> Path:
    import torch
    import torch.distributed.checkpoint as dcp

    dcp.save({n: torch.from_numpy(a) for n, a in arrays.items()}, checkpoint_id=folder / "step-1", no_dist=True)
    return folder / "step-1"


def safetensors(folder: Path, arrays: Arrays) -> Path:
    from safetensors.numpy import save_file

    save_file(dict(arrays), folder / "model_1.safetensors")
    return folder / "model_1.safetensors"


def huggingface_shards(folder: Path, arrays: Arrays) -> Path:
    from safetensors.numpy import save_file

    here = folder / "checkpoint-1"
    here.mkdir()
    names = list(arrays)
    table = {}
    for number, part in enumerate((names[::2], names[1::2]), 1):
        shard = f"model-{number:05d}-of-00002.safetensors"
        save_file({n: arrays[n] for n in part}, here / shard)
        table |= dict.fromkeys(part, shard)
    (here / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return here


def keras_weights(target: Path | io.BytesIO, arrays: Arrays, compression: str | None = None) -> None:
    with h5py.File(target, "w") as file:
        for number, array in enumerate(arrays.values()):
            group = file.create_group(f"layers/dense_{number}/vars")
            group.attrs["name"] = f"dense_{number}"
            group.create_dataset("0", data=array, compression=compression)


def keras_h5(folder: Path, arrays: Arrays) -> Path:
    keras_weights(folder / "model_1.weights.h5", arrays)
    return folder / "model_1.weights.h5"


def keras_h5_gzip(folder: Path, arrays: Arrays) -> Path:
    keras_weights(folder / "model_1.weights.h5", arrays, "gzip")
    return folder / "model_1.weights.h5"


def keras_archive(folder: Path, arrays: Arrays) -> Path:
    inner = io.BytesIO()
    keras_weights(inner, arrays)
    with zipfile.ZipFile(folder / "model_1.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.0.0"}))
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": []}}))
        archive.writestr("model.weights.h5", inner.getvalue())
    return folder / "model_1.keras"


def tensor_bundle(folder: Path, arrays: Arrays) -> Path:
    import tensorflow as tf  # pyright: ignore[reportMissingImports]

    held = tf.train.Checkpoint(**{n.replace(".", "_"): tf.Variable(a) for n, a in arrays.items()})
    held.write(str(folder / "ckpt-1"))
    return folder / "ckpt-1.index"


def orbax(folder: Path, arrays: Arrays) -> Path:
    import orbax.checkpoint as ocp  # pyright: ignore[reportMissingImports]

    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((folder / "1").absolute(), {n: np.asarray(a) for n, a in arrays.items()})
    return folder / "1"


def npz(folder: Path, arrays: Arrays) -> Path:
    np.savez(folder / "model_1.npz", **arrays)
    return folder / "model_1.npz"


def npz_deflated(folder: Path, arrays: Arrays) -> Path:
    np.savez_compressed(folder / "model_1.npz", **arrays)
    return folder / "model_1.npz"


def npy_folder(folder: Path, arrays: Arrays) -> Path:
    here = folder / "step_1"
    here.mkdir()
    for name, array in arrays.items():
        np.save(here / f"{name}.npy", array)
    return here


def numpy_pickle(folder: Path, arrays: Arrays) -> Path:
    with (folder / "params_1.pkl").open("wb") as file:
        pickle.dump(dict(arrays), file)
    return folder / "params_1.pkl"


def packed_text(text: bytes) -> bytes:
    return bytes([0xA0 | len(text)]) + text  # up to 31 bytes


def flax_msgpack(folder: Path, arrays: Arrays) -> Path:
    """{"params": {name: {"kernel": extension 1 of [shape, dtype, bytes]}}}, as flax.serialization packs it."""
    with (folder / "state_1.msgpack").open("wb") as file:
        file.write(b"\x81" + packed_text(b"params") + b"\xde" + struct.pack(">H", len(arrays)))
        for name, array in arrays.items():
            shape = b"".join(b"\xce" + struct.pack(">I", n) for n in array.shape)
            head = b"\x93" + bytes([0x90 | array.ndim]) + shape + packed_text(array.dtype.name.encode())
            body = head + b"\xc6" + struct.pack(">I", array.nbytes)
            file.write(packed_text(name.encode()) + b"\x81" + packed_text(b"kernel"))
            file.write(b"\xc9" + struct.pack(">I", len(body) + array.nbytes) + b"\x01" + body + array.tobytes())
    return folder / "state_1.msgpack"


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def onnx(folder: Path, arrays: Arrays) -> Path:
    """ModelProto: ir_version 1, graph 7. GraphProto: initializer 5. TensorProto: dims 1, type 2, name 8, raw 9."""
    graph = b""
    for name, array in arrays.items():
        dims = b"".join(field(1, n) for n in array.shape)
        graph += field(5, dims + field(2, 1) + field(8, name.encode()) + field(9, array.tobytes()))
    (folder / "model_1.onnx").write_bytes(field(1, 8) + field(7, graph))
    return folder / "model_1.onnx"


def mindspore(folder: Path, arrays: Arrays) -> Path:
    """Checkpoint: value = 1. Value: tag = 1, tensor = 2. Tensor: dims = 1, type = 2, content = 3."""
    with (folder / "net-1_10.ckpt").open("wb") as file:
        for name, array in arrays.items():
            tensor = b"".join(field(1, n) for n in array.shape) + field(2, b"Float32") + field(3, array.tobytes())
            file.write(field(1, field(1, name.encode()) + field(2, tensor)))
    return folder / "net-1_10.ckpt"


def mxnet(folder: Path, arrays: Arrays) -> Path:
    """Magic, reserved, count; per array: magic 0xF993FAC9, storage type, ndim, dims (int64), device, dtype; names."""
    with (folder / "net-0001.params").open("wb") as file:
        file.write(struct.pack("<QQQ", 0x112, 0, len(arrays)))
        for array in arrays.values():
            file.write(struct.pack(f"<Iii{array.ndim}qiii", 0xF993FAC9, 0, array.ndim, *array.shape, 1, 0, 0))
            file.write(array.tobytes())
        file.write(struct.pack("<Q", len(arrays)))
        for name in arrays:
            file.write(struct.pack("<Q", len(name)) + name.encode())
    return folder / "net-0001.params"


def equinox(folder: Path, arrays: Arrays) -> Path:
    with (folder / "model_1.eqx").open("wb") as file:
        for array in arrays.values():
            np.save(file, array)
    return folder / "model_1.eqx"


def gguf(folder: Path, arrays: Arrays) -> Path:
    """Version 3, no keys but the architecture; float32 tensors (type 0), aligned to 32 bytes, dimensions reversed."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    head = b"GGUF" + struct.pack("<IQQ", 3, len(arrays), 1) + text("general.architecture") + struct.pack("<I", 8)
    head += text("llama")
    start = 0
    for name, array in arrays.items():
        head += text(name) + struct.pack(f"<I{array.ndim}QIQ", array.ndim, *array.shape[::-1], 0, start)
        start += array.nbytes
    with (folder / "model-1.gguf").open("wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for array in arrays.values():
            file.write(array.tobytes())
    return folder / "model-1.gguf"


WRITERS: dict[str, Callable[[Path, Arrays], Path]] = {
    "torch zip": torch_zip, "torch legacy": torch_legacy, "TorchScript": torch_script, "torch DCP": torch_dcp,
    "safetensors": safetensors, "safetensors shards": huggingface_shards, "Keras .weights.h5": keras_h5,
    "Keras .weights.h5, gzip": keras_h5_gzip, "Keras .keras": keras_archive, "TensorFlow checkpoint": tensor_bundle,
    "Orbax (OCDBT)": orbax, "npz": npz, "npz, deflated": npz_deflated, "npy folder": npy_folder,
    "numpy pickle": numpy_pickle, "Flax msgpack": flax_msgpack, "ONNX": onnx, "MindSpore": mindspore, "MXNet": mxnet,
    "Equinox": equinox, "GGUF": gguf,
}  # fmt: skip
