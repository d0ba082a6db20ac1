"""The page of 300 hostile record files in a real browser: no script of theirs runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hostile_records import hostile_files

from harness import boards
from results.board import board
from results.store import Store

pytestmark = pytest.mark.browser

TRAP = (
    "window.ran = 0; for (const name of ['alert', 'confirm', 'prompt', 'open']) window[name] = () => { window.ran++ };"
)
"""What the hostile texts would call, counted."""
CLICK_ALL = """selector => {
  const found = [...document.querySelectorAll(selector)];
  found.forEach(each => each.click());
  return found.length;
}"""
ATTRIBUTES = """() => [...document.querySelectorAll('*')].flatMap(e => [...e.attributes])
  .filter(a => /^on/i.test(a.name) || /^\\s*javascript:/i.test(a.value)).length"""


def opened(browser: Any, file: Path) -> tuple[Any, list[str]]:
    """The page with its trap, and what went wrong or out."""
    tab, problems = browser.new_page(), []
    tab.add_init_script(TRAP)
    tab.on("dialog", lambda dialog: (problems.append(dialog.message), dialog.dismiss()))
    tab.on("pageerror", lambda error: problems.append(str(error)))
    tab.on("popup", lambda popup: problems.append(popup.url))
    tab.on("request", lambda sent: None if sent.url.partition("#")[0] == file.as_uri() else problems.append(sent.url))
    tab.goto(file.as_uri())
    return tab, problems


def test_nothing_hostile_runs(finished: Any, tmp_path: Path, browser: Any) -> None:
    store = Store(str(tmp_path / "store"))
    store.create()
    for name, data in hostile_files([r for r in finished.records() if r.measured]).items():
        store.write(f"records/{name}", data)
    found = board(store)
    assert sum(len(tab.rows) for tab in found.tabs) > 30
    file = tmp_path / "board.html"
    file.write_text(boards.in_form(found, "html"), encoding="utf-8")
    tab, problems = opened(browser, file)
    scripts, rows = tab.locator("script").count(), 0
    for budget in range(tab.locator("nav [role=tab]").count()):
        tab.locator("nav [role=tab]").nth(budget).click()
        tab.get_by_role("tab", name="Table").click()
        tab.evaluate(CLICK_ALL, ".choices summary")
        rows += tab.evaluate(CLICK_ALL, ".open")
        tab.evaluate(CLICK_ALL, ".sort, .inner summary")
        for view in tab.locator("[aria-label=Views] [role=tab]").all():
            view.click()
    assert rows > 30
    assert tab.evaluate("window.ran") == 0
    assert tab.evaluate(ATTRIBUTES) == 0
    assert tab.locator("script").count() - scripts in (0, 1)  # Plotly's, once something is drawn.
    assert tab.locator("iframe, object, embed, img[src=x]").count() == 0
    assert problems == []


def test_the_trap_counts(tmp_path: Path, browser: Any) -> None:
    file = tmp_path / "bad.html"
    file.write_text("<script>alert(1)</script><img src=x onerror=alert(2)>")
    tab, problems = opened(browser, file)
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.ran") == 2
    assert tab.evaluate(ATTRIBUTES) == 1
    assert problems
