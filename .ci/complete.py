"""Fail unless every row of a board (`weighin board --format json`) is complete."""

import json
import sys
from pathlib import Path

rows = json.loads(Path(sys.argv[1]).read_text())["rows"]
unfinished = [f"{row['row']} {row['method']}: {row['status']}" for row in rows if row["status"] != "complete"]
if not rows or unfinished:
    sys.exit("\n".join(["the board is not complete", *unfinished]))
print(f"{len(rows)} rows, all complete")
