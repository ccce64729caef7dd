"""What a complete table costs: reading it, importing it from CSV, and knowing which cells are the same network.

    python bench/tables.py [--table TABLE] [--repeats 15] [--json]

CPU milliseconds of this process, median over repeats (files are in the system's cache), and the memory that reading
adds to a fresh process at its peak, in MB (median of 5; needs Linux). Without --table: all 15,625 cells of
NAS-Bench-201 with 12 columns of random numbers, of 4 decimals, which are imported from a CSV file first.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from archgrad.api import import_table
from archgrad.benchmarks import read_table
from archgrad.spaces.nasbench201 import NasBench201

COLUMNS = 12
PEAK = """
import re, sys
from pathlib import Path
from archgrad.benchmarks import read_table
def of(name): return int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
Path("/proc/self/clear_refs").write_text("5")  # what importing torch took is over, the peak begins anew
before = of("VmRSS")
table = read_table(sys.argv[1])
print(of("VmHWM") - before)
"""


def csv_file(path: Path) -> list[str]:
    """Writes a table of random numbers; its columns' meanings."""
    numbers = 100 * torch.rand(15_625, COLUMNS, generator=torch.Generator().manual_seed(0))
    names = [f"column{c}" for c in range(COLUMNS)]
    lines = [",".join(["ops", *names])]
    for cell, row in zip(itertools.product("01234", repeat=6), numbers.tolist(), strict=True):
        lines.append(",".join(["".join(cell), *(f"{x:.4f}" for x in row)]))
    path.write_text("\n".join(lines))
    return [f"{name}=valid@12" for name in names]


def cpu_ms(work: Callable[[], object], repeats: int) -> float:
    """Median CPU milliseconds of a call, after one that is not counted."""
    work()
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        taken.append(1e3 * (time.process_time() - start))
    return statistics.median(taken)


def peak_mb(table: Path) -> float:
    """What reading the table adds to a fresh process at its peak, median of 5."""
    command = [sys.executable, "-c", PEAK, str(table)]
    found = [int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) for _ in range(5)]
    return statistics.median(found) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        table = options.table
        if table is None:
            table, source = Path(folder) / "table", Path(folder) / "table.csv"
            meanings = csv_file(source)
            few = max(3, options.repeats // 5)
            rows["import from CSV, CPU ms"] = cpu_ms(lambda: import_table(source, "nasbench201", meanings, table), few)
        read = read_table(table)
        rows["read, CPU ms"] = cpu_ms(lambda: read_table(table), options.repeats)
        rows["read, peak MB"] = peak_mb(table)
        rows["file, MB"] = table.stat().st_size / 1024**2
    rows["classes of NAS-Bench-201, CPU ms"] = cpu_ms(lambda: NasBench201().classes, 3)
    h = read.space.uniform(16, torch.Generator().manual_seed(0))
    loss = read.columns[0].loss
    rows["f at 16 architectures, CPU ms"] = cpu_ms(lambda: loss[read.space.index(h)], 100 * options.repeats)
    if options.json:
        found = {"architectures": read.space.size, "columns": len(read.columns), "repeats": options.repeats}
        print(json.dumps(found | {"costs": rows}))
        return
    print(f"{read.space.size:,} architectures, {len(read.columns)} columns")
    for name, number in rows.items():
        print(f"{name:36} {number:10.3f}")


if __name__ == "__main__":
    main()
