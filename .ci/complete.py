"""Fail unless every row of a board (`weighin board --format json`) is complete."""

import json
import sys
from pathlib import Path

board = json.loads(Path(sys.argv[1]).read_text())
rows = [row for tab in board["tabs"] for group in tab["groups"] for row in group["rows"]]
rows += [row for tab in board["tabs"] for row in tab["references"]]
unfinished = [
    f"{row['id']} {row['method']}: {row['status']} {row['reason']}" for row in rows if row["status"] != "complete"
]
if not rows or unfinished:
    sys.exit("\n".join(["the board is not complete", *unfinished]))
print(f"{len(rows)} rows, all complete")
