"""A board of many records against plain pandas on the same files: `python tests/bench/bench_records.py`.

A nightly sweep: 200 rows of 5 seeds over 100 nights are 100,000 records of 8 KB, half of them with a loss curve. Each
figure is a whole process with its imports. *cold*: no Parquet view, every file is read and validated, and the view is
written; *view*: the view is there. pandas reads the same JSON, or the same view, validates nothing, and takes of each
cell the newest complete record and of each row and metric the mean over seeds. Printed: seconds of wall clock and of
processor, the least of some rounds, and pandas' over ours.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from record_stores import fill

from results.view import NAME

ROOT = Path(__file__).resolve().parents[2]
PANDAS = """
import json, sys
from pathlib import Path
import pandas as pd

store, how = Path(sys.argv[1]), sys.argv[2]
if how == "cold":
    data = [json.loads(path.read_bytes()) for path in sorted((store / "records").iterdir())]
else:
    view = pd.read_parquet(store / "views/records.parquet", columns=["record"])
    data = [json.loads(text) for text in view["record"].dropna()]
frame = pd.DataFrame(data)
frame["seed"] = frame["cell"].str["seed"]
frame["created"] = frame["provenance"].str["created_at"]
frame["complete"] = frame["status"] == "complete"
best = frame.sort_values(["complete", "created"]).drop_duplicates(["row", "seed"], keep="last")
measured = best[best["complete"]].explode("measured", ignore_index=True)
for name in ("protocol", "metric", "when", "value"):
    measured[name] = measured["measured"].str[name]
final = measured[measured["when"] == "final"]
final.pivot_table(index="row", columns=["protocol", "metric"], values="value").to_csv(sys.argv[3])
"""


def timed(command: list[str]) -> tuple[float, float]:
    """Wall clock and processor seconds of a process and those it starts."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--outcomes", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--format", default="table")
    parser.add_argument("--store", type=Path, help="Keep the records there, and use those that are there.")
    arguments = parser.parse_args()
    store = arguments.store or Path(tempfile.mkdtemp()) / "store"
    if not (store / "records").exists():
        size = fill(store, arguments.rows, arguments.seeds, arguments.outcomes)
        print(f"{arguments.rows} rows x {arguments.seeds} seeds x {arguments.outcomes} outcomes, {size / 1e6:.0f} MB")
    output = str(store.parent / "board.out")
    ours = [sys.executable, "-m", "harness", "board", "--store", str(store), "--format", arguments.format, "-o", output]
    for how in ("cold", "view"):
        found: dict[str, list[tuple[float, float]]] = {"weighin": [], "pandas": []}
        for _ in range(arguments.rounds):
            if how == "cold":
                (store / NAME).unlink(missing_ok=True)
            found["weighin"].append(timed(ours))
            found["pandas"].append(timed([sys.executable, "-c", PANDAS, str(store), how, output]))
        wall, cpu = ({name: min(each[kind] for each in rounds) for name, rounds in found.items()} for kind in (0, 1))
        for name in found:
            print(f"{how:5} {name:8} {wall[name]:6.2f} s wall {cpu[name]:6.2f} s processor")
        print(f"{how:5} pandas / weighin: {wall['pandas'] / wall['weighin']:.2f} wall, ", end="")
        print(f"{cpu['pandas'] / cpu['weighin']:.2f} processor", flush=True)
    if arguments.store is None:
        shutil.rmtree(store.parent)


if __name__ == "__main__":
    main()
