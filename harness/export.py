"""`weighin export`: a student of the store with its model card, dense for plain transformers or as compressed."""

from __future__ import annotations

import shutil
from pathlib import Path

from harness.errors import SpecError
from harness.model_card import model_card
from results.artifacts import Artifacts
from results.record import Record
from results.store import Store


def export_row(row: str, directory: Path, store_url: str, *, factorised: bool = False) -> Path:
    """Write the student of `ROW` or `ROW#seed` with its tokenizer and a model card; materialised, or `factorised`.

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
    if factorised:
        shutil.copytree(source, directory, dirs_exist_ok=True)
    else:
        student.save(student.materialise(student.load(source)), directory, AutoTokenizer.from_pretrained(source))
    (directory / "README.md").write_text(model_card(record, store, factorised=factorised), encoding="utf-8")
    return directory


def find_record(row: str, store: Store) -> Record:
    """The record of `ROW#seed`, or of the first seed of `ROW`; SpecError when there is none."""
    name, _, seed = row.partition("#")
    found = [r for r in store.current().records if r.row == name and (not seed or str(r.cell.seed) == seed)]
    if not found:
        raise SpecError(f"{row}: no such row in store {store.url}; `weighin board` lists them")
    return found[0]
