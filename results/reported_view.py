"""Reported numbers as text: on the board beside what was measured, and as a list of their own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from results.claims import MATCHES, RULES, Against, Claim
from results.model import Tab
from results.reported import Reported

if TYPE_CHECKING:
    from rich.table import Table

HEAD = (
    "reported model",
    "what",
    "reported",
    "measured here",
    "protocol",
    "params as counted there (here)",
    "certainty",
    "source",
)
NUMERIC = ("reported", "measured here")
LEGEND = (
    "Reported numbers are never ranked. Same protocol: measured by the protocol that is named; else the nearest one of "
    "ours is named. ≠ size: the measured row has another number of parameters than the reported model. Certainty: "
    "verified = the source states it itself; second-hand = quoted by another text; unverified = check before use."
)


def number(value: float) -> str:
    """As printed: `40.28`, `687,291`."""
    return f"{value:,.0f}" if value >= 1000 and value == int(value) else f"{value:g}"


def match(each: Reported) -> str:
    """`same protocol: wikitext2.lm_eval.v1`; of another one the nearest of ours."""
    told = MATCHES[each.column.match]
    if each.column.protocol is None:
        return told
    return f"{told}: {each.column.protocol}" if each.column.match == "same" else f"{told}, near {each.column.protocol}"


def params(each: Reported) -> str:
    """`81M = 81,336,388 without an untied output matrix (119,933,764)`."""
    model = each.model
    if model.params is None:
        return "not known"
    told = f"{model.printed} = " if model.printed and not model.printed.isdigit() else ""
    if model.params_paper is None or model.rule is None:
        return f"{told}? ({model.params:,})"
    return f"{told}{model.params_paper:,} {RULES[model.rule]} ({model.params:,})"


def line(claim: Claim) -> list[str]:
    """The cells under `HEAD`."""
    each = claim.reported
    beside = "; ".join(map(_against, claim.measured)) or "–"
    return [*_facts(each)[:3], beside, *_facts(each)[3:]]


def _facts(each: Reported) -> list[str]:
    unit = "" if each.unit == "perplexity" else " %" if each.unit == "percent" else f" {each.unit}"
    cited = each.citation if each.own else f"{each.citation} (others' measurement)"
    return [each.model.name, each.what, f"{number(each.value)}{unit}", match(each), params(each), each.certainty, cited]


def _against(found: Against) -> str:
    interval = f" [{found.low:.4g}–{found.high:.4g}]" if found.low is not None and found.high is not None else ""
    told = f"{found.value:.4g}{interval}".replace("-", "−")
    return f"{told} {found.row}{'' if found.same_size else ' ≠ size'}"


def on_tab(tab: Tab) -> tuple[list[Claim], str]:
    """The reported numbers whose protocol the tab has, and a sentence on the others."""
    measured = {column.protocol for column in tab.columns}
    near = [claim for claim in tab.reported if claim.reported.column.protocol in measured]
    more = len(tab.reported) - len(near)
    rest = f"{more} further numbers are by protocols that are not on this tab (weighin reported). " if more else ""
    return near, rest


def rich_claims(tab: Tab, title: str) -> Table | None:
    """Those of `on_tab`; None where nothing was reported of the tab's teacher."""
    if not tab.reported:
        return None
    near, rest = on_tab(tab)
    return _rich(title, HEAD, map(line, near), rest + LEGEND)


def rich_list(numbers: Iterable[Reported]) -> Table:
    """For `weighin reported`."""
    head = [name for name in HEAD if name != "measured here"]
    return _rich("", head, map(_facts, numbers), LEGEND)


def _rich(title: str, head: Sequence[str], lines: Iterable[Sequence[str]], caption: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=SIMPLE_HEAD, caption_justify="left")
    for name in head:
        table.add_column(name, justify="right" if name in NUMERIC else "left", overflow="fold")
    for cells in lines:
        table.add_row(*map(Text, cells))
    table.caption = Text(caption)
    return table


def beside_rows(tab: Tab) -> dict[tuple[str, str], str]:
    """(Row, column key) -> what was reported of its method by that protocol, of the same size first."""
    found: dict[tuple[str, str], list[tuple[bool, str]]] = {}
    for claim in tab.reported:
        each = claim.reported
        for other in claim.measured:
            size = "same size" if other.same_size else "other size"
            told = f"{number(each.value)} ({each.model.name}, {size}, {claim.match}, {each.certainty}: {each.citation})"
            found.setdefault((other.row, other.column), []).append((not other.same_size, told))
    return {
        place: "; ".join(told for _, told in sorted(texts, key=lambda text: text[0])) for place, texts in found.items()
    }
