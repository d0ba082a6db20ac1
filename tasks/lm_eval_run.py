"""Runs a task of lm-eval through `lm_eval.evaluator.evaluate` on a loaded model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.interface import DataError, Measurement
from tasks.lm_eval_index import Config, Leaf, installed, leaves
from tasks.lm_eval_items import check_samples, items_of
from tasks.lm_eval_metrics import full_name
from tasks.lm_eval_model import quiet, scorer, seeded
from tasks.lm_eval_source import Source, without_splits

if TYPE_CHECKING:
    from datasets import DatasetDict
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tasks.lm_eval_task import LmEvalTask

BATCH = {"cpu": 4, "cuda": 16}
"""Requests per forward pass, by device: execution. lm-eval holds batch x length x vocabulary logits."""
NOT_METRICS = frozenset({"name", "alias", "sample_len", "sample_count"})


def run(
    task: LmEvalTask, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, mirror: Path | None
) -> Measurement:
    """As `lm_eval run` with this one task: its seeds, its batches by length, its averages."""
    from lm_eval.evaluator import evaluate

    with quiet(), seeded(model):
        lm = scorer(task.name, model, tokenizer, task.batch_requests or BATCH.get(model.device.type, 4))
        built = {leaf.name: _build(task, leaf, source, mirror) for leaf, source in _planned(task)}
        loaded = {"tasks": built, "groups": _groups(task, built)}
        try:
            found: Any = evaluate(lm=lm, task_dict=loaded, bootstrap_iters=0, log_samples=True)
        except DataError:
            raise
        except (AssertionError, OverflowError, ValueError) as error:
            raise DataError(f"{task.name}: lm-eval says: {error or 'a request that it cannot take'}") from error
    for name, each in built.items():
        check_samples(name, each.OUTPUT_TYPE, found["samples"][name])
    return Measurement(
        metrics=_metrics(task, found["results"]),
        items=items_of(found["samples"]),
        details={
            "lm_eval": installed(),
            "num_fewshot": found["n-shot"],
            "context": lm.max_length,
            "requests_cut": lm.truncated,
            "tasks": {name: _numbers(found["results"][name]) for name in built},
        },
    )


def functions_of(task: LmEvalTask) -> None:
    """Import the Python that the tasks' files name; `DataError` when a package that it needs is missing."""
    if any("!function" in repr(leaf.config) for leaf in task.leaves):
        list(_planned(task))


def _planned(task: LmEvalTask) -> list[tuple[Leaf, Source]]:
    """The tasks with their functions in place of text."""
    from lm_eval.tasks._yaml_loader import load_yaml

    try:
        return list(zip(leaves(task.entry, load_yaml), task.sources, strict=True))
    except ImportError as error:
        raise DataError(f"{task.name}: lm-eval's code for it does not import: {error}") from error


def _build(task: LmEvalTask, leaf: Leaf, source: Source, mirror: Path | None) -> Any:
    """lm-eval's object for a task, with its documents; `DataError` when it cannot make sense of them."""
    from lm_eval.api.task import ConfigurableTask
    from lm_eval.defaults import DEFAULT_OTHER_SEED

    data = source.load(mirror)
    config = leaf.config if data is not None else _pinned(leaf.config, task.revision(source, mirror))

    class Redirected(ConfigurableTask):  # type: ignore[misc]
        def download(self, *args: Any, **kwargs: Any) -> None:
            if data is None:
                super().download(*args, **kwargs)
            else:
                self.dataset = data
            _check_rows(source, self.dataset)

    try:
        built = Redirected(config=config if data is None else without_splits(config, data))
    except DataError:
        raise
    except Exception as error:
        reason = f"{error}".partition("\n")[0]
        raise DataError(f"{source}: lm-eval cannot use it: {type(error).__name__}: {reason}") from error
    built.set_config("num_fewshot", task.shots(leaf))
    built.set_fewshot_seed(DEFAULT_OTHER_SEED)
    return built


def _pinned(config: Config, revision: str | None) -> Config:
    if revision is None:
        return config
    return {**config, "dataset_kwargs": {**(config.get("dataset_kwargs") or {}), "revision": revision}}


def _check_rows(source: Source, data: DatasetDict) -> None:
    for split in source.splits if isinstance(data, Mapping) else ():
        if split not in data:
            raise DataError(f"{source}: there is no such split; there are {', '.join(data)}")
        if len(data[split]) == 0:
            raise DataError(f"{source}: split {split} is empty")


def _groups(task: LmEvalTask, built: Mapping[str, Any]) -> dict[str, Any]:
    """The group with all tasks below it as its children: it averages over them, whatever groups are in between."""
    if task.group is None:
        return {}
    from lm_eval.api.group import Group
    from lm_eval.config.group import GroupConfig

    own = ("group", "group_alias", "aggregate_metric_list", "metadata")
    group = Group.from_config(GroupConfig(**{key: task.group[key] for key in own if key in task.group}))
    for each in built.values():
        group.add(each)
    return {group.name: group}


def _metrics(task: LmEvalTask, results: Mapping[str, Any]) -> dict[str, float]:
    numbers = _numbers(results[task.entry.name])
    if missing := [metric.name for metric in task.metrics if metric.name not in numbers]:
        raise DataError(f"{task.name}: lm-eval reports no {missing[0]}; it reports {', '.join(numbers) or 'nothing'}")
    return {metric.name: numbers[metric.name] for metric in task.metrics}


def _numbers(result: Mapping[str, Any]) -> dict[str, float]:
    """lm-eval's `metric,filter` -> value, without its error estimates."""
    found = {}
    for key, value in result.items():
        metric, _, filter_ = key.partition(",")
        if key not in NOT_METRICS and not metric.endswith("_stderr") and hasattr(value, "__float__"):
            found[full_name(metric, filter_)] = float(value)
    return found
