"""Pages opened in a headless Chromium that nothing may go wrong in or out of."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from results.model import Board, Column, Cost, Group, Row, Score, Seed, Tab
from results.page import page
from results.record import SizeCard
from results.statistics import Summary

ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
TEACHER = 124_439_808


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        reason = "no Chromium on PATH"
        if "browser" in os.environ.get("WEIGHIN_REQUIRE", ""):
            pytest.fail(f"{reason}, and WEIGHIN_REQUIRE names browser")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=chromium, args=ARGS)
        yield opened
        opened.close()


@pytest.fixture
def open_page(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens HTML, or an address; ends with a check that there was no message, no error and no request.

    `csp=False` for tools that run scripts of their own in the page, `quiet=False` for what is meant to be stopped.
    """
    problems: list[str] = []
    contexts: list[Any] = []

    def opened(html: str = "", *, address: str = "", csp: bool = True, quiet: bool = True) -> Any:
        if html:
            file = tmp_path / f"board-{len(contexts)}.html"
            file.write_text(html, encoding="utf-8")
            address = file.as_uri()
        contexts.append(browser.new_context(bypass_csp=not csp, viewport={"width": 1280, "height": 900}))
        tab = contexts[-1].new_page()
        if quiet:
            tab.on("console", lambda message: problems.append(message.text))
            tab.on("pageerror", lambda error: problems.append(str(error)))
            tab.on("dialog", lambda dialog: problems.append(dialog.message))
            file_of = address.partition("#")[0]
            tab.on("request", lambda sent: problems.append(sent.url) if sent.url.partition("#")[0] != file_of else None)
        tab.goto(address)
        tab.locator("html[data-ready]").wait_for()
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert problems == []


@pytest.fixture(scope="session")
def big_html() -> str:
    """A page of 2,000 rows with three seeds each, five columns and loss curves."""
    draw = random.Random(0)
    names = [
        ("wikitext2.word_ppl.v1", "word_perplexity"),
        *((f"glue.{t}.v1", "accuracy") for t in ("cola", "sst2", "rte", "qnli")),
    ]
    columns = tuple(Column(name, metric, f"sha256:{name}", "", "", metric == "accuracy") for name, metric in names)
    rows = [_row(number, columns, draw) for number in range(2000)]
    groups = [Group(recipe, [row for row in rows if row.recipe == recipe]) for recipe in ("shared", "none")]
    return page(Board("big", (Tab("gpt2", "params=0.66", columns, (), groups, ()),)), ["s3://team/store"])


def _row(number: int, columns: tuple[Column, ...], draw: random.Random) -> Row:
    params = round(TEACHER * draw.uniform(0.65, 0.67))
    scores = {}
    for column in columns:
        middle = draw.uniform(0.4, 0.9) if column.higher_is_better else draw.uniform(20, 60)
        summary = Summary(middle, 0.98 * middle, 1.02 * middle, "seeds and items", 3, 1000)
        scores[column.key] = Score(summary, {0: middle}, rank=(1 + number // 2, 2 + number // 2))
    curve = [{"tokens": 4096.0 * step, "loss": 3 + 5 / (1 + step), "kd": 1 / (1 + step)} for step in range(60)]
    stages = dict.fromkeys(("teacher", "corpus", "compress", "distill", "evaluate"), 64 * "0")
    seeds = [Seed(seed, "complete", "", None, curve, stages, {"commit": "0123abc", "host": "x"}) for seed in range(3)]
    size = SizeCard(
        params=params, params_fraction=params / TEACHER, params_without_embedding=params, params_without_output=params,
        stored_bytes=4 * params, materialised_bytes=4 * TEACHER, macs_per_token=params,
    )  # fmt: skip
    return Row(
        f"{number:08x}", "gpt2", f"method_{number % 17}", {"rank": number}, "params=0.66",
        "none" if number % 3 else "shared",
        "d" * 8, "big", "complete", "", seeds, scores, size, None, Cost(3600, 1e7, 1e15, {"distill": 3600.0}),
    )  # fmt: skip


@pytest.fixture
def big(big_html: str, open_page: Callable[..., Any]) -> Any:
    """The page of 2,000 rows, opened."""
    return open_page(big_html)
