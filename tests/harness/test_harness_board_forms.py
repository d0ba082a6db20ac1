"""`weighin board --plot` and `--serve`: a clear line for what cannot be done."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from harness.cli import main


@pytest.fixture
def weighin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command on an empty store; its exit code and what it said on stderr."""

    def run(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            main(["board", "--store", str(tmp_path / "store"), *arguments])
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plot", "paretto", "-o", "x.svg"], "--plot paretto: unknown; did you mean 'pareto'?"),
        (["--plot", "pareto-byte", "-o", "x.svg"], "did you mean 'pareto-bytes'?"),
        (["--plot", "pareto"], "where to? -o FILE.svg"),
        (["--plot", "pareto", "-o", "x.jpg"], "--output x.jpg: plots are drawn as .svg, .png, .pdf"),
        (["--plot", "curves", "-o", "x.svg"], "--plot curves: No results yet. Run: weighin run"),
        (["--plot", "nothing", "-o", "x.svg"], "--plot nothing: unknown; known: cost, curves, pareto, "),
        (["--serve", "--port", "99999"], "--port 99999: a port is 0 to 65535; choose another"),
        (["--format", "latx"], "--format latx: unknown; did you mean 'latex'?"),
    ],
)
def test_a_bad_request_is_one_line(weighin: Any, arguments: list[str], said: str) -> None:
    code, error = weighin(*arguments)
    assert code == 2
    assert said in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(weighin: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, error = weighin("--serve", "--port", str(port))
    assert code == 2
    assert error.startswith(f"error: --port {port}: ")


@pytest.mark.parametrize("form", ["latex", "badge", "html"])
def test_an_empty_store_still_has_a_board(weighin: Any, tmp_path: Path, form: str) -> None:
    output = tmp_path / "board"
    assert weighin("--format", form, "-o", str(output)) == (0, "")
    assert "weighin run" in output.read_text(encoding="utf-8")
