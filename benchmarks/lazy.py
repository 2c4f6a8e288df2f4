"""How little of a checkpoint is read: listing it, then one tensor of it, in every format.

Usage: python benchmarks/lazy.py [FORMAT ...] [--megabytes 256]

Writes one checkpoint of float32 arrays of 8 MB each, then, in a process of its own: lists it (names, shapes, step),
reads one array, and prints how many bytes were read and by how much the peak of resident memory grew. Imports and
caches are warmed on a small checkpoint of the same format, so that what is left is what the checkpoint itself costs.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from lazy_writers import WRITERS

SHAPE = (2048, 1024)
BOUND = 24  # MB that the peak may grow by for one array of 8 MB


def peak() -> float:
    """Largest resident memory since the last reset, MB."""
    words = Path("/proc/self/status").read_text().split("VmHWM:")[1].split()
    return int(words[0]) / 1024


def reset() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


def child(warm: str, path: str) -> None:
    """List and read; print the figures as JSON."""
    from smd_analyze import load_run

    for tensor in load_run(warm).checkpoints[0].parameters.values():
        tensor.read()
    reset()
    base, before, began = peak(), bytes_read(), time.perf_counter()
    run = load_run(path)
    listed = {"list_ms": 1e3 * (time.perf_counter() - began), "list_kB": (bytes_read() - before) / 1e3}
    listed["list_MB"] = peak() - base
    parameters = run.checkpoints[0].parameters
    name = list(parameters)[len(parameters) // 2]
    reset()
    base, before, began = peak(), bytes_read(), time.perf_counter()
    array = parameters[name].read()
    figures = {"one_ms": 1e3 * (time.perf_counter() - began), "one_MB": peak() - base}
    figures["one_read_MB"] = (bytes_read() - before) / 1e6
    assert array.nbytes == SHAPE[0] * SHAPE[1] * 4, "not the array that was written"
    print(json.dumps({**listed, **figures, "tensors": len(parameters)}))


def main() -> None:
    if len(sys.argv) == 4 and sys.argv[1] == "--child":
        return child(sys.argv[2], sys.argv[3])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("formats", nargs="*", help=f"some of: {', '.join(WRITERS)}")
    parser.add_argument("--megabytes", type=int, default=256)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    arrays = {f"layers.{i}.weight": random.standard_normal(SHAPE, np.float32) for i in range(given.megabytes // 8)}
    small = {name: array[:8, :16].copy() for name, array in list(arrays.items())[:3]}
    print(f"{given.megabytes} MB in {len(arrays)} arrays of 8 MB; MB are growth of peak resident memory\n")
    print(f"{'format':26} {'list ms':>8} {'read kB':>8} {'MB':>5}   {'one, ms':>8} {'read MB':>8} {'MB':>5}")
    over = []
    for title in given.formats or WRITERS:
        with tempfile.TemporaryDirectory() as name:
            try:
                (Path(name) / "small").mkdir()
                warm = WRITERS[title](Path(name) / "small", small)
                path = WRITERS[title](Path(name), arrays)
            except ImportError as missing:
                print(f"{title:26} not written: needs {missing.name}")
                continue
            command = [sys.executable, __file__, "--child", str(warm), str(path)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(f"{title:26} {done.stderr.strip().splitlines()[-1]}")
                over.append(title)
                continue
            told = json.loads(done.stdout)
            if told["one_MB"] > BOUND:
                over.append(title)
            listing = f"{told['list_ms']:8.1f} {told['list_kB']:8.0f} {told['list_MB']:5.0f}"
            one = f"{told['one_ms']:8.1f} {told['one_read_MB']:8.1f} {told['one_MB']:5.0f}"
            print(f"{title:26} {listing}   {one}{'  <- above the bound' if title in over else ''}")
    print(f"\nbound: {BOUND} MB for one array of 8 MB")
    sys.exit(f"above it or not read: {', '.join(over)}" if over else 0)


if __name__ == "__main__":
    main()
