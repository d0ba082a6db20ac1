"""The model card of an exported student, as Hugging Face has them: what it is, from what, and how it was measured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, metadata, packages_distributions
from typing import Any

from harness.errors import SpecError
from harness.reproduce import sweep_of
from harness.row_sweep import Input, inputs_of
from harness.yaml_loader import dump
from results.formatting import interval, value
from results.model import Row
from results.plain_text import one_line
from results.record import Record
from results.show import Shown, show
from results.store import Store
from results.table import escape_markdown

UNKNOWN = "unknown"
LICENCES: Mapping[str, str] = {
    "embedded": "PSF-2.0",
    "Salesforce/wikitext": "CC-BY-SA-3.0",
    "openai-community/gpt2": "MIT",
}
"""Of what weighin itself names; a licence that is not here or in a package's metadata is unknown."""
IDENTIFIERS = {"PSF-2.0": "psfl", "CC-BY-SA-3.0": "cc-by-sa-3.0", "MIT": "mit", "Apache-2.0": "apache-2.0"}
"""Of the hub's front matter."""


def model_card(record: Record, store: Store, *, factorised: bool) -> str:
    """README.md of the student of one record; everything that comes from the record is escaped."""
    shown = show(store, record.row)
    parts = [_front_matter(record, shown, factorised=factorised), f"# {_text(_name(record))}", *_intro(record)]
    parts += [*_use(factorised), *_made(record), *_measured(record, shown), *_sizes(record), *_again(record)]
    return "\n\n".join(parts) + "\n"


def _text(value: object) -> str:
    return escape_markdown(one_line(value))


def _name(record: Record) -> str:
    parts = [record.cell.teacher, record.cell.method, record.cell.budget, record.cell.recipe]
    return " ".join(part for part in parts if part)


def _sweep(record: Record) -> Mapping[str, Any]:
    """What the record says of how it was made; nothing where that is no sweep."""
    try:
        return sweep_of([record])
    except SpecError:
        return {}


def teacher_licence(sweep: Mapping[str, Any]) -> str:
    """Of the teacher's weights, as far as it is known."""
    teacher = sweep.get("teacher", {})
    package = (teacher.get("gguf") or {}).get("package")
    return _of_package(package) if package else LICENCES.get(str(teacher.get("model")), UNKNOWN)


def _of_package(module: str) -> str:
    """What an installed package says of itself."""
    try:
        found = metadata(packages_distributions().get(module, [module])[0])
    except PackageNotFoundError:
        return UNKNOWN
    given = [found[name] for name in ("License-Expression", "License") if name in found]
    return one_line(given[0])[:60] if given and given[0] else UNKNOWN


def corpus_licence(sweep: Mapping[str, Any]) -> str:
    """Of the training text, as far as it is known."""
    corpus = sweep.get("corpus", {})
    return LICENCES.get("embedded" if corpus.get("embedded") else str(corpus.get("hub")), UNKNOWN)


def _front_matter(record: Record, shown: Shown, *, factorised: bool) -> str:
    sweep = _sweep(record)
    teacher, corpus = sweep.get("teacher", {}), sweep.get("corpus", {})
    data: dict[str, Any] = {
        "library_name": "weighin" if factorised else "transformers",
        "pipeline_tag": "text-generation",
        "license": IDENTIFIERS.get(teacher_licence(sweep), UNKNOWN),
        "tags": ["weighin", "compressed", one_line(record.cell.method)],
    }
    if teacher.get("model"):
        data["base_model"] = one_line(teacher["model"])
    if corpus.get("hub"):
        data["datasets"] = [one_line(corpus["hub"])]
    results = [
        {
            "task": {"type": "text-classification" if each.settings else "text-generation"},
            "dataset": {"name": one_line(each.protocol), "type": one_line(each.protocol)},
            "metrics": [{"type": one_line(each.metric), "name": one_line(each.metric), "value": each.value}],
        }
        for each in record.measured
        if each.when == "final" and each.main
    ]
    if results:
        data["model-index"] = [{"name": one_line(_name(record)), "results": results}]
    return f"---\n{dump(data)}---"


def _intro(record: Record) -> Iterator[str]:
    cell = record.cell
    control = f", the control {_text(cell.control.kind)} of row {_text(cell.control.of)}" if cell.control else ""
    yield (
        f"The teacher {_text(cell.teacher)}, compressed by {_text(cell.method)} and measured by weighin: "
        f"row {_text(record.row)}, seed {cell.seed}{control}."
    )


def _use(factorised: bool) -> Iterator[str]:
    yield "## Use"
    if factorised:
        yield "The student as compressed, in weighin's factorised layers: smaller on disk, and loaded by weighin."
        yield _code(
            "from pathlib import Path\n\nfrom methods import student\n\nmodel = student.load(Path(DIRECTORY))", "python"
        )
        return
    yield "The student as a dense model: its factors are multiplied out, so that plain transformers loads it."
    yield _code(
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        "model = AutoModelForCausalLM.from_pretrained(DIRECTORY)\n"
        "tokenizer = AutoTokenizer.from_pretrained(DIRECTORY)",
        "python",
    )


def _code(text: str, language: str = "") -> str:
    return f"```{language}\n{text}\n```"


def _made(record: Record) -> Iterator[str]:
    cell, sweep = record.cell, _sweep(record)
    data = record.provenance.get("data")
    fingerprints = data if isinstance(data, Mapping) else {}
    fields = ", ".join(f"{name}={each}" for name, each in sorted(cell.fields.items()))
    lines = {
        "teacher": f"{_text(cell.teacher)}: {_origin(sweep, fingerprints)}",
        "licence of the teacher": _text(teacher_licence(sweep)),
        "training text": _corpus(sweep, fingerprints),
        "licence of the text": _text(corpus_licence(sweep)),
        "method": _text(f"{cell.method} ({fields})" if fields else cell.method),
        "budget": _text(cell.budget or "none"),
        "recipe": _text(f"{cell.recipe} {cell.recipe_digest}"),
    }
    yield "## How it was made"
    yield _table(("", ""), list(lines.items()))
    yield (
        "A licence that says unknown is not known to weighin: ask whoever owns the teacher or the text before passing "
        "this model on. No licence of the student itself follows from this card."
    )
    for each in sweep.get("recipes", ()) if isinstance(sweep.get("recipes"), list) else ():
        if isinstance(each, Mapping):
            yield "The recipe:"
            yield _code(_fenced(dump(dict(each)).rstrip()), "yaml")


def _fenced(text: str) -> str:
    """Nothing that a fence holds may close it."""
    return text.replace("```", "'''")


def _teachers(sweep: Mapping[str, Any]) -> list[Input]:
    return [each for each in inputs_of(sweep) if each.data == "teacher"]


def _origin(sweep: Mapping[str, Any], fingerprints: Mapping[str, Any]) -> str:
    teacher = sweep.get("teacher", {})
    if teacher.get("pretrain"):
        config = teacher["pretrain"].get("config", {})
        return _text(f"pretrained from scratch by the sweep ({', '.join(f'{k} {v}' for k, v in config.items())})")
    places = ["a local directory or file" if each.local else each.place for each in _teachers(sweep)]
    return _text(", ".join([*places, str(fingerprints.get("teacher", ""))]) if places else UNKNOWN)


def _corpus(sweep: Mapping[str, Any], fingerprints: Mapping[str, Any]) -> str:
    corpus = sweep.get("corpus", {})
    if not corpus:
        return "none, or not in the record"
    if corpus.get("embedded"):
        place = "the manual and the docstrings of the Python that ran it"
    else:
        place = str(corpus.get("hub") or "a local directory of texts")
    return _text(f"{place} {fingerprints.get('corpus', '')}")


def _measured(record: Record, shown: Shown) -> Iterator[str]:
    row: Row = shown.row
    seeds = len(row.seeds)
    lines = []
    for column in shown.columns:
        score = row.scores[column.key]
        own = score.by_seed.get(record.cell.seed)
        summary = score.summary
        mean = f"{value(summary)} [{interval(summary)}]"
        lines.append(
            (_text(column.protocol), _text(f"{column.metric} {column.arrow} {column.unit}"),
             "–" if own is None else f"{own:.6g}", _text(mean), _text(f"{summary.basis}, {summary.items} items"),
             _text(column.data))
        )  # fmt: skip
    yield "## How it was measured"
    if not lines:
        yield f"It was not: the row is {_text(row.status)}."
        return
    head = ("protocol", "metric", "this model", f"row, {seeds} seed{'s' * (seeds > 1)} [95 %]", "interval over", "data")
    yield _table(head, lines)
    yield (
        "`weighin tasks PROTOCOL` says what a protocol measures. An interval marked i is over the test items of one "
        "training seed and says nothing about another training."
    )
    yield f"Verification: {_text(row.verified.text if row.verified else 'claimed; nobody has evaluated it again')}."


def _sizes(record: Record) -> Iterator[str]:
    if record.size:
        card = record.size.model_dump()
        fraction = card.pop("params_fraction")
        yield "## Size"
        yield _table(("", ""), [(_text(name), f"{number:,}") for name, number in card.items()])
        yield f"{fraction:.4f} of the teacher's parameters. All are counted on the student as compressed."


def _again(record: Record) -> Iterator[str]:
    provenance = record.provenance
    commit = f"{provenance.get('commit') or UNKNOWN}{' with uncommitted changes' if provenance.get('dirty') else ''}"
    yield "## Again"
    yield f"Made by weighin at commit {_text(commit)} on {_text(provenance.get('hardware', UNKNOWN))}."
    name = one_line(record.id).replace("`", "")
    yield _code(f"weighin reproduce '{name}' > sweep.yaml    # the exact sweep\nweighin verify '{name}'", "")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Cells are escaped already."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
