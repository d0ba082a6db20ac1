"""The page in a real browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from results.board import board
from results.page import page

pytestmark = pytest.mark.browser

ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@pytest.fixture
def tab(finished: Any, tmp_path: Path) -> Iterator[Any]:
    """The finished board opened from a file; ends with a check that nothing went wrong or out."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        reason = "no Chromium on PATH"
        if "browser" in os.environ.get("WEIGHIN_REQUIRE", ""):
            pytest.fail(f"{reason}, and WEIGHIN_REQUIRE names browser")
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    file = tmp_path / "board.html"
    file.write_text(page(board(finished)), encoding="utf-8")
    problems: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=ARGS)
        opened = browser.new_page()
        opened.on("console", lambda message: problems.append(message.text))
        opened.on("pageerror", lambda error: problems.append(str(error)))
        opened.on("request", lambda sent: problems.append(sent.url) if sent.url != file.as_uri() else None)
        opened.goto(file.as_uri())
        yield opened
        browser.close()
    assert problems == []


def methods(tab: Any) -> list[str]:
    names: list[str] = tab.locator("section:not([hidden]) tbody.row:visible .open").all_inner_texts()
    return names


def test_sorting_stays_within_a_recipe_and_keeps_empty_cells_last(tab: Any) -> None:
    heading = tab.locator("section:not([hidden]) thead th", has_text="word_perplexity").locator("button")
    heading.click()
    assert methods(tab) == ["identity", "low_rank", "kronecker", "prune", "drop_layers", "tensor_train", "low_rank"]
    heading.click()
    assert methods(tab) == ["identity", "prune", "kronecker", "low_rank", "drop_layers", "tensor_train", "low_rank"]


def test_reason_is_visible_and_rows_open(tab: Any) -> None:
    assert tab.get_by_text("loss is not finite at step 17").first.is_visible()
    command = tab.get_by_text("weighin show 31aaaaaa")
    assert not command.is_visible()
    tab.locator(".open", has_text="tensor_train").click()
    assert command.is_visible()


def test_tabs_switch_and_plots_are_drawn(tab: Any) -> None:
    tab.locator("section:not([hidden]) .quality .scatterlayer .trace").first.wait_for()
    tab.get_by_role("tab", name="params=0.33").click()
    assert tab.locator("h2:visible").all_inner_texts() == ["gpt2 at params=0.33"]
    assert tab.locator("section:not([hidden]) .curves .scatterlayer .trace").count() == 6


def test_an_open_row_draws_its_loss_and_parts_in_either_theme(tab: Any) -> None:
    plot = tab.locator("section:not([hidden]) .row", has_text="kronecker").locator(".inside")
    assert plot.locator(".trace").count() == 0
    tab.locator("section:not([hidden]) .open", has_text="kronecker").click()
    plot.locator(".scatterlayer .trace").first.wait_for()
    assert plot.locator(".scatterlayer .trace").count() == 2 * 3
    assert plot.locator(".legendtext").all_text_contents() == ["loss", "ce", "kd"]
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_timeout(200)
        colours.append(plot.locator(".scatterlayer .js-line").first.evaluate("line => getComputedStyle(line).stroke"))
    assert colours == ["rgb(27, 29, 34)", "rgb(231, 233, 238)"]


def test_the_page_itself_never_scrolls_sideways_on_a_phone(tab: Any) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
