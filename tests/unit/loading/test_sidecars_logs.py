"""Logs beside checkpoints: which number is a learning rate, of which step or epoch, and whose."""

import json
import struct

import pytest

from smd_analyze.errors import DamagedFile
from smd_analyze.loading.frameworks.base import EPOCHS, STEPS
from smd_analyze.loading.settings.key_words import hyperparameter
from smd_analyze.loading.sidecars.crc32c import masked
from smd_analyze.loading.sidecars.registry import reader_of


def read(path, name=None):
    reader = reader_of(name or path.name)
    assert reader is not None, path.name
    return {s.key: s for s in reader.read(str(path)).logs}


def written(tmp_path, name, text):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lr", "learning_rate"), ("train/lr", "learning_rate"), ("lr-AdamW/pg1", "learning_rate"),
        ("LearningRate", "learning_rate"), ("epoch_learning_rate", "learning_rate"), ("x/lr0", "learning_rate"),
        ("lr/pg2", "learning_rate"), ("train_lr", "learning_rate"), ("optim/lr_backbone", "learning_rate"),
        ("lr_step", "learning_rate"), ("lr-SGD-momentum", "momentum"), ("lr-SGD-weight_decay", "weight_decay"),
        ("wd", "weight_decay"), ("train_wd", "weight_decay"), ("momentum", "momentum"),
        ("min_lr", None), ("lr_scale", None), ("ema/momentum", None), ("teacher_momentum", None), ("loss", None),
        ("lr_decay", None), ("color", None), ("bn/momentum", None), ("lr_warmup_steps", None), ("", None),
    ],
)  # fmt: skip
def test_what_a_key_means(key, name):
    assert hyperparameter(key) == name


def test_lightnings_table(tmp_path):
    text = "epoch,lr-SGD,lr-SGD-momentum,step,train_loss\n0,0.1,0.9,0,\n0,,,0,2.5\n0,0.2,0.9,1,\n1,0.3,0.9,2,\n"
    found = read(written(tmp_path, "metrics.csv", text))
    assert set(found) == {"lr-SGD", "lr-SGD-momentum"}
    log = found["lr-SGD"]
    assert (log.name, log.unit, log.at, log.values, log.applies) == (
        "learning_rate", STEPS, (0, 1, 2), (0.1, 0.2, 0.3), "next update",
    )  # fmt: skip


def test_yolos_table_counts_epochs_as_the_files_names_do(tmp_path):
    found = read(written(tmp_path, "results.csv", " epoch, loss, lr/pg0, lr/pg1\n 1, 3, 0.1, 0.2\n 2, 2, 0.05, 0.1\n"))
    assert [(s.unit, s.at, s.values) for s in found.values()] == [
        (EPOCHS, (0, 1), (0.1, 0.05)), (EPOCHS, (0, 1), (0.2, 0.1)),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["summary.csv", "training.log", "history.tsv"])
def test_tables_by_epoch(tmp_path, name):
    mark = "\t" if name.endswith("tsv") else ","
    text = "epoch,loss,learning_rate\n0,3,0.1\n1,2,0.05\n2,half,".replace(",", mark)
    (log,) = read(written(tmp_path, name, text)).values()
    assert (log.unit, log.at, log.values) == (EPOCHS, (0, 1), (0.1, 0.05))


def test_a_table_without_a_count_or_a_rate_is_nothing(tmp_path):
    assert not read(written(tmp_path, "a.csv", "lr,loss\n0.1,2\n"))
    assert not read(written(tmp_path, "b.csv", "epoch,loss\n1,2\n"))
    assert not read(written(tmp_path, "c.csv", ""))
    assert not read(written(tmp_path, "d.csv", "\0\0\0,\0\nepoch"))


def test_a_line_without_end_is_refused(tmp_path):
    with pytest.raises(DamagedFile, match="line of more than"):
        read(written(tmp_path, "metrics.csv", "epoch,lr\n" + "1" * (1 << 22)))


def test_lines_of_json(tmp_path):
    rows = [{"lr": 0.1 / i, "data_time": 0.1, "epoch": 1, "iter": 10 * i, "step": 10 * i} for i in (1, 2, 3)]
    rows.insert(1, {"accuracy": 0.5, "step": 1})
    text = "\n".join(json.dumps(r) for r in rows) + '\n{"lr": 0.'
    (log,) = read(written(tmp_path, "vis_data/scalars.json", text), "vis_data/scalars.json").values()
    assert (log.at, log.values, log.applies) == ((10, 20, 30), (0.1, 0.05, 0.1 / 3), "last update")


def test_means_over_an_epoch(tmp_path):
    text = "\n".join(json.dumps({"train_lr": 0.1 / (e + 1), "train_loss": 1.0, "epoch": e}) for e in range(3))
    (log,) = read(written(tmp_path, "log.txt", text)).values()
    assert (log.unit, log.at, log.mean) == (EPOCHS, (0, 1, 2), True)


def test_a_step_that_counts_within_the_epoch_is_none(tmp_path):
    """mmcv's iter starts again in every epoch: only the epoch tells."""
    rows = [{"mode": "train", "epoch": e, "iter": i, "lr": 0.1 / e} for e in (1, 2) for i in (50, 100)]
    (log,) = read(written(tmp_path, "x.log.json", "\n".join(map(json.dumps, rows)))).values()
    assert (log.unit, log.at, log.values) == (EPOCHS, (1, 2), (0.1, 0.05))


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path):
    rows = [(1, 0.1), (2, 0.1), (3, 0.1), (2, 0.5), (3, 0.6)]
    text = "\n".join(json.dumps({"step": s, "lr": v}) for s, v in rows)
    (log,) = read(written(tmp_path, "stats.jsonl", text)).values()
    assert list(zip(log.at, log.values, strict=True)) == [(1, 0.1), (2, 0.5), (3, 0.6)]


def test_keras_history_and_other_text(tmp_path):
    (log,) = read(written(tmp_path, "history.json", json.dumps({"loss": [3, 2], "lr": [0.1, 0.05]}))).values()
    assert (log.unit, log.at, log.values) == (EPOCHS, (0, 1), (0.1, 0.05))
    assert not read(written(tmp_path, "log.txt", "training began\n" * 50))


def test_mlflows_files(tmp_path):
    path = written(tmp_path, "metrics/lr", "1700 0.1 0\n1701 0.05 10\n")
    (log,) = read(path, "metrics/lr").values()
    assert (log.unit, log.at, log.values) == ("", (0, 10), (0.1, 0.05))
    path = written(tmp_path, "params/lr", "0.1")
    assert reader_of("params/lr").read(str(path)).settings == {"lr": "0.1"}


def varint(n):
    out = b""
    while n > 127:
        out += bytes([n & 127 | 128])
        n >>= 7
    return out + bytes([n])


def field(number, wire, payload):
    return varint(number << 3 | wire) + (varint(len(payload)) + payload if wire == 2 else payload)


def event(tag, value, step, tensor=False):
    if tensor:
        shape = field(8, 2, field(1, 0, varint(1)) + field(4, 2, struct.pack("<f", value)))
    else:
        shape = field(2, 5, struct.pack("<f", value))
    inner = field(1, 2, tag.encode()) + shape
    return field(1, 1, struct.pack("<d", 1.7e9)) + field(2, 0, varint(step)) + field(5, 2, field(1, 2, inner))


def record(payload):
    head = struct.pack("<Q", len(payload))
    return head + struct.pack("<I", masked(head)) + payload + struct.pack("<I", masked(payload))


def events(tmp_path, *payloads, tail=b""):
    path = tmp_path / "events.out.tfevents.1700000000.host.1.0"
    path.write_bytes(b"".join(map(record, [field(3, 2, b"brain.Event:2"), *payloads])) + tail)
    return path


def test_event_files(tmp_path):
    image = field(5, 2, field(1, 2, field(1, 2, b"lr image") + field(4, 2, b"\0" * 100_000)))
    path = events(
        tmp_path, event("loss", 2.0, 1), event("train/lr", 0.1, 1), image, event("train/lr", 0.05, 300),
        event("epoch_learning_rate", 0.3, 0, tensor=True), event("lr-SGD", 0.2, 7), tail=record(b"x")[:-3],
    )  # fmt: skip
    found = read(path)
    assert {k: (s.unit, s.at, s.values, s.applies) for k, s in found.items()} == {
        "train/lr": ("", (1, 300), (0.1, 0.05), None),
        "epoch_learning_rate": (EPOCHS, (0,), (0.3,), None),
        "lr-SGD": ("", (7,), (0.2,), "next update"),
    }


def test_a_damaged_record_ends_the_event_file(tmp_path):
    path = events(tmp_path, event("lr", 0.1, 1), event("lr", 0.2, 2), event("lr", 0.3, 3))
    data = bytearray(path.read_bytes())
    data[-6] ^= 1  # inside the last record
    path.write_bytes(data)
    assert read(path)["lr"].at == (1, 2)
    data[31] ^= 1  # a length
    path.write_bytes(data)
    assert read(path) == {}


def test_the_checksum_is_the_published_one():
    """CRC-32C of nine digits is 0xE3069283 (RFC 3720 uses the same polynomial)."""
    value = (masked(b"123456789") - 0xA282EAD8) & 0xFFFFFFFF
    assert (value << 15 | value >> 17) & 0xFFFFFFFF == 0xE3069283
