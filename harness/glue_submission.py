"""`weighin glue-submission`: a row's test predictions as the zip file that the GLUE server takes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile, ZipInfo

import pyarrow.parquet as pq

from harness.errors import SpecError
from harness.export import find_record
from results.artifacts import Artifacts
from results.record import Record
from results.store import Store
from tasks.glue_server import FILES

PREDICTIONS = "test_predictions.parquet"
EPOCH = (1980, 1, 1, 0, 0, 0)
"""Of every file in the archive, so that equal predictions are equal bytes."""


def write_submission(row: str, output: Path, store_url: str, *, fill_missing: bool = False) -> tuple[Record, list[str]]:
    """Write the archive for `ROW` (its first seed) or `ROW#seed`; return whose it is, and the files that were filled.

    The server wants every file. With `fill_missing`, one without predictions says class 0 (STS-B: 0) throughout.

    Raises:
        SpecError: there is no such row, predictions are missing or not as many as the server expects, or the archive
            cannot be written.
    """
    store = Store(store_url)
    record = find_record(row, store)
    found = {name: _predictions(name, record, Artifacts(store)) for name in FILES}
    missing = [name for name, predictions in found.items() if predictions is None]
    if missing and not fill_missing:
        raise SpecError(
            f"{record.id}: no test predictions for {', '.join(missing)}; run the tasks with `predict_test: true`, or "
            "give --fill-missing"
        )
    try:
        with ZipFile(output, "w") as archive:
            for name, predictions in found.items():
                lines = FILES[name].lines([0] * FILES[name].rows if predictions is None else predictions)
                archive.writestr(ZipInfo(f"{name}.tsv", EPOCH), "\n".join([*lines, ""]), ZIP_DEFLATED)
    except OSError as error:
        raise SpecError(f"--output {output}: cannot be written: {error.strerror or error}") from error
    return record, missing


def _predictions(name: str, record: Record, artifacts: Artifacts) -> Sequence[float] | None:
    """Of one of the server's files; None where the task was not measured or did not predict its test sets."""
    key = record.stages.get(FILES[name].protocol)
    manifest = artifacts.manifest("finetune", key) if key else None
    if manifest is None or PREDICTIONS not in manifest.files:
        return None
    table = pq.read_table(artifacts.directory("finetune", manifest.key) / PREDICTIONS, filters=[("set", "=", name)])
    predictions: list[float] = table.column("prediction").to_pylist()
    if len(predictions) != FILES[name].rows:
        raise SpecError(
            f"{record.id}: {len(predictions)} test predictions for {name}; the server expects {FILES[name].rows}"
        )
    return predictions
