"""More hostile files: what lies beside checkpoints, and containers that hold other files."""

from __future__ import annotations

import base64
import io
import json
import pickle
import shutil
import struct
import tarfile
from pathlib import Path

import torch
from safetensors.numpy import save

from .hostile import WEIGHTS, Maker, members, touch

GOLDEN = Path(__file__).parents[1] / "golden" / "formats"


def weights(folder: Path) -> None:
    for step in (1, 2):
        (folder / f"step_{step}.safetensors").write_bytes(save({n: w.numpy() for n, w in WEIGHTS.items()}))


def payload_in_sidecars(folder: Path, canary: str) -> None:
    weights(folder)
    call = f'lr: !!python/object/apply:os.system ["touch {canary}"]\n'
    for name in ("config.yaml", "args.yaml", "hparams.yaml"):
        (folder / name).write_text(call)
    (folder / ".hydra").mkdir()
    (folder / ".hydra" / "config.yaml").write_text(f"optimizer:\n  {call}")
    (folder / "config.py").write_text(f"import os\nlr = os.system('touch {canary}')\nopen({canary!r}, 'w')\n")
    (folder / "config.gin").write_text(f"import os\nos.system.command = 'touch {canary}'\nlr = @os.system()\n")
    (folder / "training_args.bin").write_bytes(pickle.dumps(touch(canary)))


def bombs_in_sidecars(folder: Path, canary: str) -> None:
    """Anchors that unfold, brackets without end, records longer than the file."""
    weights(folder)
    laughs = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    (folder / "config.yaml").write_text("\n".join(laughs))
    (folder / "hparams.yaml").write_text("[" * 200_000)
    (folder / "args.yaml").write_text("a: " * 100_000)
    (folder / "config.json").write_text('{"lr":' * 100_000)
    (folder / "args.json").write_text("9" * 1_000_000)
    (folder / "config.toml").write_text("lr = " + "[" * 100_000)
    (folder / "train_config.toml").write_text(".".join(["a"] * 50_000) + " = 1")
    (folder / "config.py").write_text("lr = " + "(" * 50_000 + "-" * 50_000)
    (folder / "metrics.csv").write_text("step,lr\n" + "," * 2_000_000)
    (folder / "log.jsonl").write_text('{"step": 1, "lr": ' + "[" * 500_000)
    (folder / "events.out.tfevents.1.host").write_bytes(struct.pack("<QI", 1 << 60, 0) + b"x" * 64)


def payload_in_stable_baselines3(folder: Path, canary: str) -> None:
    held = base64.b64encode(pickle.dumps(touch(canary))).decode()
    data = json.dumps({"policy_class": {":type:": "x", ":serialized:": held}, "learning_rate": 0.1, "_n_updates": 5})
    policy = io.BytesIO()
    torch.save({**WEIGHTS, "extra": touch(canary)}, policy)
    members(folder / "rl_model_5_steps.zip", ("data", data.encode()), ("policy.pth", policy.getvalue()))


def payload_in_a_tar(folder: Path, canary: str) -> None:
    """NeMo's archive; a member's name leads out of it, another is a link to a device."""
    inner = io.BytesIO()
    torch.save({**WEIGHTS, "extra": touch(canary)}, inner)
    with tarfile.open(folder / "step_1.nemo", "w") as archive:
        for name in ("./model_weights.ckpt", f"../../..{canary}"):
            entry = tarfile.TarInfo(name)
            entry.size = len(inner.getvalue())
            archive.addfile(entry, io.BytesIO(inner.getvalue()))
        link = tarfile.TarInfo("model_config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/dev/zero"
        archive.addfile(link)


def zarr_claims(folder: Path, canary: str) -> None:
    """An array of 4 TB with no chunk, a chunk of 4 TB, and metadata without end, in Orbax' folders."""
    for number, change in enumerate(({"shape": [1 << 20] * 2}, {"shape": [1 << 20] * 2, "chunks": [1 << 20] * 2}), 1):
        shutil.copytree(GOLDEN / "orbax_zarr_no_ocdbt" / "5", folder / str(number))
        place = folder / str(number) / "params.fc.kernel" / ".zarray"
        place.write_text(json.dumps({**json.loads(place.read_text()), **change}))
    shutil.copytree(GOLDEN / "orbax_zarr_no_ocdbt" / "5", folder / "3")
    (folder / "3" / "_METADATA").write_text('{"tree_metadata": ' + '{"a": ' * 50_000)


MORE: tuple[Maker, ...] = (
    payload_in_sidecars, bombs_in_sidecars, payload_in_stable_baselines3, payload_in_a_tar, zarr_claims,
)  # fmt: skip
