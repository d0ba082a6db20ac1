"""`weighin export`: a student of the store as the dense model that plain transformers loads."""

from __future__ import annotations

from pathlib import Path

from harness.errors import SpecError
from results.artifacts import Artifacts
from results.record import Record
from results.store import Store


def export_row(row: str, directory: Path, store_url: str) -> Path:
    """Write the materialised student of `ROW` or `ROW#seed` with its tokenizer.

    Raises SpecError when there is no such row, it has no student, or the directory is not empty.
    """
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise SpecError(f"{directory}: exists and is not an empty directory")
    store = Store(store_url)
    record = find_record(row, store)
    stages = record.stages
    stage = "distill" if "distill" in stages else "compress"
    artifacts = Artifacts(store)
    if stage not in stages or not artifacts.manifest(stage, stages[stage]):
        raise SpecError(f"{row}: has no student ({record.status}: {record.reason})")
    import transformers
    from transformers import AutoTokenizer

    from methods import student

    transformers.logging.set_verbosity_error()
    source = artifacts.directory(stage, stages[stage]) / "model"
    student.save(student.materialise(student.load(source)), directory, AutoTokenizer.from_pretrained(source))
    return directory


def find_record(row: str, store: Store) -> Record:
    """The record of `ROW#seed`, or of the first seed of `ROW`; SpecError when there is none."""
    name, _, seed = row.partition("#")
    found = [r for r in store.current().records if r.row == name and (not seed or str(r.cell.seed) == seed)]
    if not found:
        raise SpecError(f"{row}: no such row in store {store.url}; `weighin board` lists them")
    return found[0]
