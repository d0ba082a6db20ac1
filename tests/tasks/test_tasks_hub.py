from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.hub import HubSplit, check_model, combined, digest, model_directory, model_fingerprint
from tasks.interface import DataError

SPLIT = HubSplit(repo="owner/set", config="plain", split="train", revision="0" * 40)


def cached_snapshot(cache: Path, folder: str, file: str) -> Path:
    """A snapshot as the hub's client leaves it in its cache."""
    path = cache / folder / "snapshots" / ("0" * 40) / file
    path.parent.mkdir(parents=True)
    path.write_bytes(b"{}")
    return path


def test_reads_the_mirrors_parquet_files_in_order(write_split: Callable[..., Path]):
    mirror = write_split("owner/set", "plain", "train", text=["a", "b"])
    first = mirror / "datasets/owner/set/plain/train-0.parquet"
    first.rename(first.with_name("train-00001-of-00002.parquet"))
    write_split("owner/set", "plain", "train", text=["c"])
    first.rename(first.with_name("train-00000-of-00002.parquet"))
    assert SPLIT.column("text", mirror) == ["c", "a", "b"]


def test_reads_what_the_hub_converted(write_split: Callable[..., Path]):
    mirror = write_split("owner/set", "plain/train", "0000", text=["a"])
    assert SPLIT.column("text", mirror) == ["a"]


@pytest.mark.usefixtures("offline")
def test_a_split_of_no_known_revision_is_had_from_a_mirror_alone(write_split: Callable[..., Path]):
    split = HubSplit(repo="owner/set", config="plain", split="train", revision=None)
    for asked in (split.check, split.files):
        with pytest.raises(DataError, match="which commit of it holds this data is not known"):
            asked(None)
    assert split.fingerprint(None) == "hub:owner/set@unknown"
    assert split.column("text", write_split("owner/set", "plain", "train", text=["a"])) == ["a"]


def test_fingerprint_is_the_content_in_the_mirror_else_the_revision(write_split: Callable[..., Path]):
    mirror = write_split("owner/set", "plain", "train", text=["a"])
    before = SPLIT.fingerprint(mirror)
    assert before.startswith("sha256:")
    assert SPLIT.fingerprint(write_split("owner/set", "plain", "train", text=["a"])) == before
    assert SPLIT.fingerprint(write_split("owner/set", "plain", "train", text=["b"])) != before
    assert SPLIT.fingerprint(None) == f"hub:owner/set@{'0' * 40}"


def test_unknown_column_names_the_known_ones(write_split: Callable[..., Path]):
    mirror = write_split("owner/set", "plain", "train", text=["a"], label=[0])
    with pytest.raises(DataError, match=r"no column 'txt' in train-0.parquet; columns: text, label"):
        SPLIT.column("txt", mirror)


@pytest.mark.usefixtures("offline")
def test_missing_data_is_one_line_with_every_name(tmp_path: Path):
    expected = f"data set owner/set, config plain, split train: not in the mirror {tmp_path}, and the hub may not"
    for asked in (SPLIT.check, SPLIT.files):
        with pytest.raises(DataError) as caught:
            asked(tmp_path)
        assert str(caught.value).startswith(expected)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="no mirror given"):
        SPLIT.check(None)


def test_an_unreachable_hub_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/nonexistent")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    start = time.monotonic()
    with pytest.raises(DataError, match="the hub cannot serve it"):
        SPLIT.check(None)
    with pytest.raises(DataError, match=r"model owner/model: no mirror given .* the hub cannot serve it"):
        model_directory("owner/model", "0" * 40, None)
    assert time.monotonic() - start < 5


@pytest.mark.usefixtures("offline")
def test_the_hubs_cache_is_used_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    file = cached_snapshot(tmp_path, "datasets--owner--set", "plain/train-00000-of-00001.parquet")
    SPLIT.check(None)
    assert SPLIT.files(None) == [file]
    with pytest.raises(DataError, match="split test"):
        HubSplit(repo="owner/set", config="plain", split="test", revision="0" * 40).check(None)


@pytest.mark.usefixtures("offline")
def test_model_directory_takes_the_mirror_then_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(DataError, match="model owner/model: not in the mirror"):
        model_directory("owner/model", "0" * 40, tmp_path)
    cached = cached_snapshot(tmp_path / "cache", "models--owner--model", "config.json").parent
    (cached / "model.safetensors").write_bytes(b"")
    assert model_directory("owner/model", "0" * 40, tmp_path) == cached
    mirrored = tmp_path / "models/owner/model"
    mirrored.mkdir(parents=True)
    (mirrored / "config.json").write_text("{}")
    (mirrored / "pytorch_model.bin").write_bytes(b"")
    assert model_directory("owner/model", "0" * 40, tmp_path) == cached
    assert model_directory("owner/model", None, tmp_path, weights=False) == mirrored
    (mirrored / "model.safetensors").write_bytes(b"")
    assert model_directory("owner/model", None, tmp_path) == mirrored


def test_model_fingerprint_is_content_or_revision(tmp_path: Path):
    mirrored = tmp_path / "models/owner/model"
    mirrored.mkdir(parents=True)
    (mirrored / "config.json").write_text("{}")
    assert model_fingerprint("owner/model", "0" * 40, tmp_path) == f"hub:owner/model@{'0' * 40}"
    with pytest.raises(DataError, match="needs a revision"):
        model_fingerprint("owner/model", None, None)
    seen = set()
    for content in (b"1", b"2"):
        (mirrored / "model.safetensors").write_bytes(content)
        seen.add(model_fingerprint("owner/model", None, tmp_path))
    assert len(seen) == 2
    assert all(value.startswith("sha256:") for value in seen)
    check_model("owner/model", None, tmp_path)


def test_a_model_without_revision_is_not_taken_from_the_hub():
    with pytest.raises(DataError, match=r"model owner/model: no mirror given .* needs a revision"):
        model_directory("owner/model", None, None)
    with pytest.raises(DataError, match="needs a revision"):
        check_model("owner/model", None, None)


def test_digest_depends_on_names_contents_and_order(tmp_path: Path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_text("1")
    b.write_text("2")
    before = digest([a, b], tmp_path)
    assert digest([b, a], tmp_path) != before
    b.write_text("3")
    assert digest([a, b], tmp_path) != before


def test_combined_keeps_what_is_shared():
    assert combined(["hub:x@1", "hub:x@1"]) == "hub:x@1"
    assert combined(["sha256:1", "sha256:2"]) != combined(["sha256:2", "sha256:1"])
