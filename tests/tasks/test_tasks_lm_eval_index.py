from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tasks import lm_eval_index, lm_eval_metrics, registry
from tasks.interface import DataError, Metric
from tasks.lm_eval_index import find, leaves, read
from tasks.lm_eval_task import LmEvalTask


def test_tasks_groups_and_tags_are_found_by_name():
    assert find("hellaswag").summary == "task, hellaswag/hellaswag.yaml"
    assert find("glue").summary == "tag of 9 tasks"
    assert find("mmlu").kind == "group"
    assert find("squadv2").kind == "python task"
    assert [leaf.name for leaf in leaves(find("ai2_arc"))] == ["arc_challenge", "arc_easy"]


def test_listing_imports_neither_lm_eval_nor_torch():
    code = (
        "import sys; from tasks import lm_eval_index, registry; lm_eval_index.matching('arc_*');"
        "registry.load('lm_eval:mmlu');"
        "sys.exit(', '.join({'torch', 'lm_eval', 'datasets', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_every_name_is_what_lm_eval_says_it_is():
    from lm_eval.tasks import TaskManager

    theirs = TaskManager().task_index
    ours = lm_eval_index.index()
    assert set(ours) == set(theirs)
    for name, entry in theirs.items():
        assert ours[name].kind.replace("python", "py").replace(" ", "_") == entry.kind.name.lower()
        assert ours[name].file == str(entry.yaml_path or "")
        assert entry.kind.name != "TAG" or set(ours[name].members) == entry.tags


def test_a_groups_members_are_configured_as_lm_eval_configures_them():
    """`leaderboard` sets the examples of its members; `mmlusr_answer_only` writes groups out in place."""
    shots = {leaf.name: leaf.config.get("num_fewshot") for leaf in leaves(find("leaderboard"))}
    assert shots["leaderboard_mmlu_pro"] == 5
    assert len(list(leaves(find("mmlusr_answer_only")))) == 57


def test_reading_runs_no_code_and_merges_includes(tmp_path: Path):
    (tmp_path / "base").write_text("task: base\ntag: [a]\ndoc_to_text: one\ntask_list: [x]\n")
    (tmp_path / "own.yaml").write_text("include: base\ntask: own\ndoc_to_target: !function os.abort\n")
    expected = {"task": "own", "tag": ["a"], "doc_to_text": "one", "doc_to_target": "!function os.abort"}
    assert read(tmp_path / "own.yaml") == expected


def test_directions_and_defaults_are_those_of_lm_evals_registry():
    import lm_eval.api.metrics  # noqa: F401
    from lm_eval.api.registry import DEFAULT_METRIC_REGISTRY, is_higher_better

    assert {kind: list(names) for kind, names in lm_eval_metrics.DEFAULTS.items()} == DEFAULT_METRIC_REGISTRY
    for name, direction in lm_eval_metrics.directions().items():
        assert is_higher_better(name) == direction


@pytest.mark.parametrize(
    ("task", "metrics"),
    [
        ("cola", [Metric(name="mcc", unit="correlation", higher_is_better=True)]),
        (
            "lambada_openai",
            [
                Metric(name="perplexity", unit="perplexity per target", higher_is_better=False),
                Metric(name="acc", unit="fraction", higher_is_better=True),
            ],
        ),
        (
            "gsm8k",
            [
                Metric(name="exact_match,strict-match", unit="fraction", higher_is_better=True),
                Metric(name="exact_match,flexible-extract", unit="fraction", higher_is_better=True),
            ],
        ),
        ("mmlu", [Metric(name="acc", unit="fraction", higher_is_better=True)]),
    ],
)
def test_metrics_have_unit_and_direction(task: str, metrics: list[Metric]):
    assert list(LmEvalTask(task=task).metrics) == metrics


def test_names_hold_examples_and_both_versions():
    version = lm_eval_index.installed()
    assert LmEvalTask(task="hellaswag").name == f"lm_eval.hellaswag.0shot.v1+{version}"
    assert LmEvalTask(task="hellaswag", num_fewshot=10).name == f"lm_eval.hellaswag.10shot.v1+{version}"
    assert LmEvalTask(task="gsm8k").name == f"lm_eval.gsm8k.5shot.v3+{version}"
    assert LmEvalTask(task="leaderboard_bbh").name.startswith("lm_eval.leaderboard_bbh.3shot.v")


def test_a_full_name_is_the_task_and_a_tag_is_its_tasks():
    full = f"lm_eval.gsm8k.0shot.v3+{lm_eval_index.installed()}"
    assert registry.load(full).name == full
    assert registry.resolve(full) == registry.resolve("lm_eval:gsm8k") == "tasks.lm_eval_task:LmEvalTask"
    assert registry.expand("lm_eval:gsm8k", 0) == [full]
    glue = registry.expand("lm_eval:glue")
    assert len(glue) == 9
    assert f"lm_eval.qqp.0shot.v2+{lm_eval_index.installed()}" in glue


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("lm_eval:hellaswga", "no task, group or tag called 'hellaswga'; did you mean 'hellaswag'"),
        ("lm_eval:glue", "glue is several tasks without a score of their own"),
        ("lm_eval:squadv2", "squadv2 is a Python class"),
        ("lm_eval:humaneval", "humaneval executes what the model writes"),
        ("lm_eval:mmmu_val_math", "mmmu_val_math is not on text alone"),
        ("lm_eval.hellaswag", "is called lm_eval:<task>"),
        ("lm_eval.hellaswag.0shot.v7+0.4.0", "which is installed here, it is lm_eval.hellaswag.0shot.v1"),
    ],
)
def test_what_cannot_be_measured_is_one_line(name: str, why: str):
    with pytest.raises(DataError, match=why) as caught:
        registry.load(name)
    assert "\n" not in str(caught.value)


def test_a_group_without_a_score_is_what_it_lists_and_one_with_a_score_is_whole():
    names = registry.expand("lm_eval:pythia")
    assert [name.split(".")[1] for name in names[:2]] == ["lambada_openai", "logiqa"]
    assert f"lm_eval.mmlu.0shot.v2+{lm_eval_index.installed()}" in names


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("toksuite_abridged", "group toksuite_abridged leaves tasks without a name of their own"),
        ("tinyBenchmarks", "group tinyBenchmarks has no score and sets up its tasks itself"),
        ("mmlu_flan_n_shot_generative", "reports nothing of which it says whether higher is better"),
    ],
)
def test_groups_that_cannot_be_told_apart_are_refused(name: str, why: str):
    with pytest.raises(DataError, match=why):
        registry.expand(f"lm_eval:{name}")


def test_examples_are_refused_where_there_are_none_to_choose():
    with pytest.raises(DataError, match="has no examples in its prompt, whatever `num_fewshot` says"):
        LmEvalTask(task="truthfulqa_mc1", num_fewshot=5)
    with pytest.raises(DataError, match="`num_fewshot` is for lm-eval's tasks"):
        registry.expand("glue.cola.v1", 5)
