"""Where the documents of a task of lm-eval come from: the mirror first, else the hub at one commit.

lm-eval's tasks name a data set of the hub and no revision. What is looked for in the mirror is
`DIR/datasets/<dataset_path>/<dataset_name>/<split>-*.parquet`, for a data set without configurations in `default/`,
`data/` or its own folder. On the hub it is the commit that `main` is at when the sweep is planned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tasks import hub
from tasks.interface import DataError
from tasks.lm_eval_index import Config, Leaf, installed

if TYPE_CHECKING:
    from datasets import DatasetDict

PACKAGED = frozenset({"", "arrow", "csv", "json", "parquet", "text"})
"""Values of `dataset_path` that are a format and not a data set."""
INSTEAD = {"wikitext": "; wikitext2.lm_eval.v1 is the same with its pages rebuilt from Salesforce/wikitext"}


@dataclass(frozen=True, kw_only=True)
class Source:
    """One task's data set."""

    task: str
    repo: str
    """Empty where lm-eval's own code fetches or makes the documents."""
    config: str | None
    splits: Sequence[str]
    """Those that are read: the one that is scored, and the one that the examples of a prompt are from."""
    pinned: str | None = None
    """Commit that the task itself names."""
    own_files: bool = False
    """The task names files of the data set, which a mirror's layout does not tell apart."""

    def mirrored(self, mirror: Path | None) -> Mapping[str, Sequence[Path]]:
        """Split -> files of every split in the mirror; empty unless those that are read are there."""
        if mirror is None or not self.repo or self.own_files:
            return {}
        home = mirror / "datasets" / self.repo
        plain = self.config in (None, "", "default")
        for folder in ("default", "data", ".") if plain else (str(self.config),):
            found: dict[str, list[Path]] = {}
            for file in sorted((home / folder).glob("*.parquet")):
                found.setdefault(file.name.partition("-")[0], []).append(file)
            if found and set(self.splits) <= set(found):
                return found
        return {}

    def revision(self, mirror: Path | None) -> str:
        """The hub's commit, for data that the mirror lacks; `DataError` when the hub cannot be asked."""
        try:
            return self.pinned if self.pinned and not hub.offline() else hub.head_commit(self.repo, mirror)
        except DataError as error:
            raise DataError(f"{self}: {error}{INSTEAD.get(self.task, '')}") from None

    def fingerprint(self, mirror: Path | None) -> str:
        """`sha256:<digest of the mirror's files>`, `hub:<repo>@<commit>`, or lm-eval's version for data by its code."""
        if mirrored := self.mirrored(mirror):
            files = [file for split in self.splits for file in mirrored[split]]
            return f"sha256:{hub.digest(files, files[0].parent)}"
        return f"hub:{self.repo}@{self.revision(mirror)}" if self.repo else f"lm_eval:{installed()}"

    def check(self, mirror: Path | None) -> None:
        """Raise `DataError` unless the mirror has the splits or the hub may be asked for them."""
        if self.mirrored(mirror):
            return
        if self.repo:
            self.revision(mirror)
        elif hub.offline():
            raise DataError(f"{self}: lm-eval's own code fetches the data, and {hub.OFFLINE}")

    def load(self, mirror: Path | None) -> DatasetDict | None:
        """The mirror's splits in memory; None where lm-eval has to load the data itself."""
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Dataset, DatasetDict

        if not (mirrored := self.mirrored(mirror)):
            return None
        tables = {name: pa.concat_tables(map(pq.read_table, files)) for name, files in mirrored.items()}
        return DatasetDict({name: Dataset(table) for name, table in tables.items()})

    def __str__(self) -> str:
        config = f", config {self.config}" if self.config else ""
        what = f"data set {self.repo}{config}, split {' and '.join(self.splits)}" if self.repo else "data"
        return f"{what} of lm-eval's task {self.task}"


def source_of(leaf: Leaf, num_fewshot: int) -> Source:
    """Read from a task's configuration; `DataError` when it has no split to score."""
    config = leaf.config
    scored = config.get("test_split") or config.get("validation_split")
    if not scored:
        raise DataError(f"lm-eval's task {leaf.name} has no split to score")
    kwargs = config.get("dataset_kwargs") or {}
    splits = dict.fromkeys([scored, *([_example_split(config)] if num_fewshot else [])])
    return Source(
        task=leaf.name,
        repo="" if _by_code(config) else config["dataset_path"],
        config=config.get("dataset_name"),
        splits=[each for each in splits if each],
        pinned=kwargs.get("revision"),
        own_files=bool({"data_files", "data_dir"} & set(kwargs)),
    )


def without_splits(config: Config, there: Mapping[str, object]) -> Config:
    """The configuration without the splits that a mirror lacks; those that are read are there."""
    keys = ("training_split", "validation_split", "test_split", "fewshot_split")
    lacking: Config = {key: None for key in keys if config.get(key) and config[key] not in there}
    examples = config.get("fewshot_config")
    if isinstance(examples, dict) and examples.get("split") and examples["split"] not in there:
        lacking["fewshot_config"] = {**examples, "split": None}
    return {**config, **lacking}


def _by_code(config: Config) -> bool:
    return bool(config.get("custom_dataset")) or (config.get("dataset_path") or "") in PACKAGED


def _example_split(config: Config) -> str | None:
    """As lm-eval chooses it: the named one, none where examples are written out, else training before validation."""
    examples = config.get("fewshot_config")
    examples = examples if isinstance(examples, dict) else {}
    if named := examples.get("split") or config.get("fewshot_split"):
        return str(named)
    if examples.get("samples") is not None:
        return None
    return config.get("training_split") or config.get("validation_split") or config.get("test_split")
