"""YAML read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.errors import SpecError
from harness.yaml_loader import dump, parse, read


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-4", 1e-4),
        ("1E4", 10000.0),
        ("-.5", -0.5),
        ("3.", 3.0),
        ("010", 10),
        ("-7", -7),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("True", True),
        ("false", False),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("0x10", "0x10"),
        ("2020-01-01", "2020-01-01"),
        ("600k", "600k"),
        ("1.2.3", "1.2.3"),
        ("~", None),
        ("null", None),
        ("'1e-4'", "1e-4"),
    ],
)
def test_a_scalar_is_what_yaml_1_2_says(text: str, expected: Any) -> None:
    found = parse(f"x: {text}", "here")["x"]
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "here: line 4, column 3: repeated key 'c'"),
        ("a: 1\n2: x\n", "here: line 2, column 1: key 2 is not a word"),
        ("a: 1\ntrue: x\n", "here: line 2, column 1: key True is not a word"),
        ("a: [1,\n", "here: line 2, column 1: expected the node content"),
        ("a: !!python/object:os.system x\n", "here: line 1, column 4: could not determine a constructor"),
        ("a: *missing\n", "here: line 1, column 4: found undefined alias"),
        ("a: !!set {x}\n", "here: Object of type set is not JSON serializable"),
    ],
)
def test_a_mistake_has_its_line_and_column(text: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(text, "here")
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "a list"), ("", "empty"), ("# only a comment\n", "empty"), ("word", "a str")]
)
def test_a_file_that_is_not_a_mapping_is_refused(tmp_path: Path, text: str, kind: str) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    with pytest.raises(SpecError, match=f"sweep.yaml: a sweep is a YAML mapping .*; this file is {kind}"):
        read(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"absent.yaml: cannot be read: No such file"):
        read(tmp_path / "absent.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(SpecError, match=r"latin.yaml: cannot be read: .*utf-8"):
        read(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    "text", ["1e-4", "010", "no", "~", "a: b", "# x", "x\n# y", "[1", "1_0", "2026-01-01", "\x1b[31m"]
)
def test_yaml_is_read_back_as_it_was(text: str) -> None:
    data = {"key": [text, {text: text}], "numbers": [1e-5, 6e-3, 1, 0.66, True, None]}
    assert parse(dump(data), "") == data
    assert yaml.safe_load(dump(data))["key"] == data["key"]
