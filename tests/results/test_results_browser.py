"""The page in a real browser: what a reader does with it, by mouse, keyboard, phone and printer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from results.board import board
from results.page import page

pytestmark = pytest.mark.browser

TABLE = "#table tr.row .open"


def methods(tab: Any) -> list[str]:
    names: list[str] = tab.locator(TABLE).all_inner_texts()
    return names


@pytest.fixture
def tab(finished: Any, open_page: Callable[..., Any]) -> Any:
    """The finished board, opened from a file."""
    return open_page(page(board(finished), ["/team/store"]))


def heading(tab: Any, text: str) -> Any:
    return tab.locator("#table thead .sort", has_text=text)


def sorted_as(tab: Any) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = tab.locator("#table thead th[aria-sort]").evaluate_all(
        "heads => heads.map(head => [head.dataset.column, head.getAttribute('aria-sort')])"
    )
    return found


def test_sorting_stays_within_a_recipe_and_keeps_empty_cells_last(tab: Any) -> None:
    usual = methods(tab)
    heading(tab, "word_perplexity").click()
    assert methods(tab) == ["identity", "low_rank", "kronecker", "prune", "drop_layers", "tensor_train", "low_rank"]
    heading(tab, "word_perplexity").click()
    assert methods(tab) == ["identity", "prune", "kronecker", "low_rank", "drop_layers", "tensor_train", "low_rank"]
    assert [direction for _, direction in sorted_as(tab)] == ["descending"]
    heading(tab, "word_perplexity").click()
    assert (methods(tab), sorted_as(tab)) == (usual, [])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("kron", ["kronecker"]),
        ("low_rank -mlp", ["low_rank"]),
        ("failed", ["tensor_train"]),
        ("step 17", ["tensor_train"]),
        ("params>100M", ["identity"]),
        ("seeds>=2 params<90M", ["low_rank", "kronecker", "prune"]),
        ("<img src=x onerror=alert(1)>", []),
    ],
)
def test_the_filter_takes_words_and_bounds(tab: Any, words: str, expected: Sequence[str]) -> None:
    tab.locator("#filter").fill(words)
    assert methods(tab) == list(expected)
    assert tab.locator("#count").inner_text() == f"{len(expected)} of 7 rows"


def test_a_row_opens_and_closes_by_keyboard(tab: Any) -> None:
    assert tab.get_by_text("loss is not finite at step 17").first.is_visible()
    tab.locator(TABLE).first.focus()
    for _ in range(1 + methods(tab)[1:].index("kronecker")):
        tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Enter")
    command = tab.get_by_text("weighin reproduce 01aaaaaa --store /team/store")
    assert command.is_visible()
    assert tab.locator(TABLE + "[aria-expanded=true]").inner_text() == "kronecker"
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.getAttribute('aria-label')").startswith(
        "Copy: weighin reproduce 01aaaaaa"
    )
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Space")
    assert command.count() == 0


def test_the_filter_and_the_tabs_are_reached_by_keyboard(tab: Any) -> None:
    tab.keyboard.press("/")
    assert tab.evaluate("document.activeElement.id") == "filter"
    tab.get_by_role("tab", name="params=0.66").focus()
    tab.keyboard.press("ArrowRight")
    assert tab.locator("h2").inner_text() == "gpt2 at params=0.33"
    assert tab.evaluate("document.activeElement.textContent") == "params=0.33"


def test_the_reader_chooses_columns(tab: Any) -> None:
    assert heading(tab, "stored bytes").count() == 0
    tab.get_by_text("Columns", exact=True).click()
    tab.get_by_label("stored bytes").check()
    tab.get_by_label("latency").uncheck()
    assert (heading(tab, "stored bytes").count(), heading(tab, "latency").count()) == (1, 0)
    widths = tab.locator("#table tr.row").evaluate_all("rows => new Set(rows.map(row => row.cells.length)).size")
    assert widths == 1
    tab.get_by_role("button", name="Usual columns").click()
    assert (heading(tab, "stored bytes").count(), heading(tab, "latency").count()) == (0, 1)


def seen(tab: Any) -> dict[str, Any]:
    return {
        "title": tab.locator("h2").inner_text(),
        "rows": methods(tab),
        "sort": sorted_as(tab),
        "filter": tab.locator("#filter").input_value(),
        "columns": tab.locator("#table thead th").all_inner_texts(),
        "open": tab.locator(TABLE + "[aria-expanded=true]").all_inner_texts(),
        "commands": tab.locator(".command code").all_inner_texts(),
    }


def test_the_address_carries_what_the_reader_chose(tab: Any, open_page: Callable[..., Any]) -> None:
    tab.get_by_role("tab", name="params=0.33").click()
    heading(tab, "params").click()
    heading(tab, "word_perplexity").click(modifiers=["Shift"])
    tab.locator("#filter").fill("-prune")
    tab.get_by_text("Columns", exact=True).click()
    tab.get_by_label("stored bytes").check()
    tab.keyboard.press("Escape")
    tab.locator(TABLE, has_text="kronecker").click()
    chosen = seen(tab)
    assert (chosen["open"], len(chosen["sort"]), len(chosen["commands"])) == (["kronecker"], 2, 3)
    assert seen(open_page(address=tab.url)) == chosen
    tab.go_back()
    assert tab.locator("h2").inner_text() == "gpt2 at params=0.66"


def test_an_address_that_names_nothing_known_shows_the_board(tab: Any, open_page: Callable[..., Any]) -> None:
    address = (
        tab.url.partition("#")[0] + "#tab=x&view=y&sort=-z&open=q&column=w&metric=__proto__&axis=constructor&filter=%"
    )
    other = open_page(address=address)
    assert other.locator("h2").inner_text() == "gpt2 at params=0.66"
    assert other.locator("#table thead th").count() > 4


def test_every_view_is_drawn(tab: Any) -> None:
    for view in ("Quality against cost", "Loss curves", "GLUE by task", "Perplexity by protocol"):
        tab.get_by_role("tab", name=view).click()
        tab.locator("#plot .scatterlayer .trace").first.wait_for()
        assert tab.locator("#plot-hint").inner_text() != ""
    tab.get_by_role("tab", name="Quality against cost").click()
    ticks = tab.locator("#plot .xtitle").text_content()
    tab.locator("#axis").select_option("macs")
    assert (ticks, tab.locator("#plot .xtitle").text_content()) == ("parameters", "multiply-adds per token")
    assert tab.locator("#plot .errorbar").count() > 3
    tab.get_by_role("tab", name="Cost by stage").click()
    tab.locator("#plot .barlayer .point").first.wait_for()


def test_the_answer_names_the_best_of_each_recipe_and_whether_it_is_real(tab: Any, finished: Any) -> None:
    told = {
        each.locator("h3").inner_text().partition(",")[0]: each.inner_text() for each in tab.locator(".answer").all()
    }
    assert list(told) == ["Recipe: shared", "Recipe: none"]
    group = board(finished).tabs[0].groups[0]
    key = board(finished).tabs[0].columns[0].key
    best = next(row for row in group.rows if row.scores[key].rank and row.scores[key].rank[0] == 1)
    tied = len(best.scores[key].tied)
    assert best.label in told["Recipe: shared"]
    assert (f"Not separable from {tied} of 2" if tied else "Separable from all 2 others") in told["Recipe: shared"]
    assert "One seed: another training run may differ" in told["Recipe: none"]


def test_an_open_row_draws_its_loss_and_parts_in_either_theme(tab: Any) -> None:
    tab.locator(TABLE, has_text="kronecker").click()
    plot = tab.locator(".inside")
    plot.locator(".scatterlayer .trace").first.wait_for()
    assert plot.locator(".scatterlayer .trace").count() == 2 * 3
    assert plot.locator(".legendtext").all_text_contents() == ["loss", "ce", "kd"]
    colours = []
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        tab.wait_for_timeout(200)
        colours.append(plot.locator(".scatterlayer .js-line").first.evaluate("line => getComputedStyle(line).stroke"))
    assert colours == ["rgb(26, 28, 32)", "rgb(231, 233, 238)"]


def test_the_theme_follows_the_system_until_it_is_chosen(tab: Any) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(ground)
    tab.emulate_media(color_scheme="dark")
    dark = tab.evaluate(ground)
    assert light != dark
    for expected in (light, dark, dark):
        tab.locator("#theme").click()
        assert tab.evaluate(ground) == expected


def test_the_page_itself_never_scrolls_sideways_on_a_phone(tab: Any) -> None:
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.locator(TABLE).nth(1).click()
    for view in tab.locator("[aria-label=Views] [role=tab]").all():
        view.click()
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth"), view.inner_text()


def test_print_has_every_row_and_no_controls(big: Any) -> None:
    assert big.locator("#table tr.row").count() < 2000
    big.evaluate("dispatchEvent(new Event('beforeprint'))")
    big.emulate_media(media="print")
    assert big.locator("#table tr.row").count() == 2000
    assert not big.locator("#filter").is_visible()
    assert not big.locator("#theme").is_visible()
    assert big.locator(".scroll").evaluate("box => getComputedStyle(box).maxHeight") == "none"


def test_a_printed_table_is_not_cut_off(tab: Any) -> None:
    tab.set_viewport_size({"width": 1032, "height": 700})  # A4 across, without its margins
    tab.emulate_media(media="print")
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_whiskers_of_a_column_stand_on_one_axis(tab: Any) -> None:
    starts = "rows => rows.map(row => row.querySelector('.whisker')?.getBoundingClientRect().left).filter(left => left)"
    assert len(set(tab.locator("#table tr.row").evaluate_all(starts))) == 1


def test_what_a_row_opens_to_is_as_wide_as_what_is_seen_of_the_table(tab: Any) -> None:
    tab.set_viewport_size({"width": 800, "height": 900})
    tab.locator(TABLE).nth(1).click()
    width = "box => box.getBoundingClientRect().width"
    assert tab.locator(".inner").evaluate(width) <= tab.locator(".scroll").evaluate(width)


def test_two_thousand_rows_are_drawn_as_they_are_needed(big: Any, tab: Any) -> None:
    """The table stands before the plot library and the rows' details have been read; times beside seven rows' own."""
    loaded = "performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart"
    drawn, seconds = (
        [each.evaluate(script) / 1e3 for each in (big, tab)]
        for script in ("+document.documentElement.dataset.ready", loaded)
    )
    print(f"\n2,000 rows: table after {drawn[0]:.2f} s, all read after {seconds[0]:.2f} s", end="; ")
    print(f"7 rows: {drawn[1]:.2f} s, {seconds[1]:.2f} s")
    assert drawn[0] < seconds[0]
    assert big.locator("#table tr.row").count() <= 200
    assert big.evaluate("window.Plotly === undefined")
    assert big.locator("#count").inner_text() == "2000 rows"
    shown = big.locator("#table tr.row").count()
    big.locator("#further").scroll_into_view_if_needed()
    big.locator("#table tr.row").nth(shown).wait_for()
    big.locator("#filter").fill("method_7 params<85M")
    assert (
        0 < big.locator("#table tr.row").count() <= 118
    )  # All that match: more than a hundred when the end is in view.


def test_a_link_to_a_row_far_down_shows_it(big: Any, open_page: Callable[..., Any]) -> None:
    other = open_page(address=big.url + "#open=000005dc")
    assert other.get_by_text("weighin show 000005dc").is_visible()


def violations(tab: Any) -> list[str]:
    """What axe-core finds, by WCAG and by its own best practices."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(tab).response["violations"]
    return [f"{each['id']}: {node['html'][:200]} {node['failureSummary']}" for each in found for node in each["nodes"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(finished: Any, sweep: Any, open_page: Callable[..., Any], scheme: str) -> None:
    from results.record import Control

    twin = sweep.add("99aaaaaa", "kronecker", quality=0.4)
    cell = twin.cell.model_copy(update={"control": Control(kind="no_teacher", of="01aaaaaa")})
    finished.replace(twin, twin.model_copy(update={"cell": cell}))
    tab = open_page(page(board(finished)), csp=False)
    tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    tab.locator(TABLE, has_text="kronecker").click()
    tab.locator(TABLE, has_text="tensor_train").click()
    tab.locator(".inner summary").last.click()
    tab.get_by_text("Columns", exact=True).click()
    assert violations(tab) == []
    for view in tab.locator("[aria-label=Views] [role=tab]").all()[1:]:
        view.click()
        assert violations(tab) == [], view.inner_text()
    tab.set_viewport_size({"width": 360, "height": 740})
    tab.get_by_role("tab", name="Table").click()
    assert violations(tab) == []


def test_hostile_texts_run_nothing_anywhere(reader: Any, sweep: Any, open_page: Callable[..., Any]) -> None:
    evil = "</script><img src=//evil.example/x onerror=hit=1><svg onload=hit=1><a href='javascript:hit=1'>x</a>{{7*7}}"
    first = sweep.add("aaaaaaaa", "x", quality=0.2)
    cell = first.cell.model_copy(update={"teacher": evil, "method": evil, "fields": {evil: evil}})
    measured = [
        m.model_copy(update={"protocol": evil + m.protocol, "data": evil, "unit": evil}) for m in first.measured
    ]
    reader.clear()
    sweep.add("bbbbbbbb", "x", cell=cell, measured=measured, provenance={evil: evil})
    sweep.add("cccccccc", "x", cell=cell, status="failed", reason=evil, log_tail=evil)
    tab = open_page(page(board(reader), [evil]))
    for opener in tab.locator(TABLE).all():
        opener.click()
    for view in tab.locator("[aria-label=Views] [role=tab]").all():
        view.click()
    assert tab.locator("img, a[href^=javascript], svg[onload]").count() == 0
    assert tab.evaluate("window.hit === undefined")
    assert evil in tab.locator("h2").inner_text()


def test_the_policy_stops_what_would_have_slipped_through(finished: Any, open_page: Callable[..., Any]) -> None:
    tab = open_page(page(board(finished)), quiet=False)
    tab.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=data:, onerror=\"window.hit = 1\">')")
    tab.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.hit = 1'}))"
    )
    reached = tab.evaluate("fetch('https://evil.example/').then(() => 'reached', () => 'stopped')")
    tab.wait_for_timeout(100)
    assert (tab.evaluate("window.hit === undefined"), reached) == (True, "stopped")
