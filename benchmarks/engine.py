"""How close the pass over the bytes comes to reading them at all. One command: python benchmarks/engine.py [a d]

Generates the sequences (seeded, in a temporary folder, deleted afterwards), runs every row in turn a few times, and
prints medians as ratios to `cat files > /dev/null` of the same run, with peak memory. docs/benchmarks.md explains the
rows.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parent
WORKERS = 2
TITLES = {
    "a": "A: ResNet-50 × 20, fp32, torch.save",
    "d": "D: 80 k parameters × 2000, fp32, safetensors",
}


@dataclass
class Row:
    """One line of the result: seconds (of the stage itself, where the child tells them), CPU seconds, peak memory."""

    title: str
    command: list[str]
    tells: bool = False
    seconds: list[float] = field(default_factory=list)
    processor: list[float] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)

    def run(self) -> None:
        """Run the child once; its own usage, not that of all children, is read from wait4."""
        began = time.perf_counter()
        child = subprocess.Popen(
            self.command, stdout=subprocess.PIPE if self.tells else subprocess.DEVNULL, env=ENVIRONMENT
        )
        told = child.stdout.read() if child.stdout else b""
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - began
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            sys.exit(f"{' '.join(self.command)}: exit code {child.returncode}")
        self.seconds.append(float(told.split()[-1]) if self.tells else wall)
        self.processor.append(usage.ru_utime + usage.ru_stime)
        self.memory.append(usage.ru_maxrss / 1024)


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": str(WORKERS)}


def rows_of(folder: Path, results: Path) -> list[Row]:
    """Everything that is compared, for one sequence."""
    python = sys.executable
    files = [str(path) for path in sorted(folder.iterdir())]
    stage, many = [python, str(HERE / "stage.py")], str(WORKERS)
    one, two, script = (str(results / f"{name}.npz") for name in ("one", "two", "script"))
    made = [
        Row("cat files > /dev/null", ["cat", *files]),
        Row("python -c 'import numpy'", [python, "-c", "import numpy"]),
        Row("python -c 'import torch'", [python, "-c", "import torch"]),
        Row(f"reading alone, {WORKERS} threads", [*stage, "read", str(folder), many, ""], tells=True),
        Row("statistics stage, 1 worker", [*stage, "measure", str(folder), "1", one], tells=True),
        Row(f"statistics stage, {many} workers", [*stage, "measure", str(folder), many, two], tells=True),
        Row("the same, again in one process", [*stage, "again", str(folder), many, two], tells=True),
        Row("smd-analyze DIR -q", [python, "-c", "from smd_analyze.cli import main; main()", str(folder), "-q"]),
        Row("the script people write", [python, str(HERE / "script.py"), str(folder), script]),
    ]  # fmt: skip
    return made


def bench(case: str, rounds: int, place: str | None) -> None:
    with tempfile.TemporaryDirectory(dir=place) as name:
        folder, results = Path(name) / "run", Path(name) / "results"
        folder.mkdir()
        results.mkdir()
        subprocess.run([sys.executable, str(HERE / "cases.py"), case, str(folder)], check=True, env=ENVIRONMENT)
        size = sum(path.stat().st_size for path in folder.iterdir())
        rows = rows_of(folder, results)
        for number in range(rounds + 1):
            for row in rows:
                row.run()
                if number == 0:  # warms the page cache and the compiled kernels
                    row.seconds.clear(), row.processor.clear(), row.memory.clear()
        print(f"\n{TITLES[case]} ({size / 1e9:.2f} GB), {rounds} rounds, medians")
        print(f"{'':34} {'seconds':>8} {'× cat':>7} {'CPU s':>7} {'peak MB':>8}")
        unit = statistics.median(rows[0].seconds)
        for row in rows:
            wall, processor = statistics.median(row.seconds), statistics.median(row.processor)
            print(f"{row.title:34} {wall:8.2f} {wall / unit:7.1f} {processor:7.2f} {max(row.memory):8.0f}")
        subprocess.run([sys.executable, str(HERE / "check.py"), str(results)], check=True)
        shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=["a", "d"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="where to put the sequences (2 GB); default: the system's temporary folder")
    given = parser.parse_args()
    for case in given.cases:
        bench(case, given.rounds, given.folder)


if __name__ == "__main__":
    main()
