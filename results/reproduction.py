"""A row made twice: which numbers are equal to the bit, and by how much the others differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from results.load import choose
from results.record import Record

if TYPE_CHECKING:
    from rich.console import RenderableType

LOOSE = 1e-5
"""Relative; what equal work at another execution (threads, workers, micro-batch) agrees to."""
CIRCUMSTANCES = ("commit", "dirty", "python", "versions", "hardware", "execution")
"""Parts of the provenance that bits may depend on."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One number of a row, as recorded and as made again."""

    record: str
    """`ROW#seed`."""
    what: str
    """`wikitext2.lm_eval.v1 word_ppl`, or `size params`."""
    recorded: float | str | None
    again: float | str | None
    """None: it was not made again."""

    @property
    def equal(self) -> bool:
        return self.recorded == self.again and type(self.recorded) is type(self.again)

    @property
    def relative(self) -> float | None:
        """(again - recorded) / |recorded|, where both are numbers and the division exists."""
        if isinstance(self.recorded, int | float) and isinstance(self.again, int | float) and self.recorded:
            return (self.again - self.recorded) / abs(self.recorded)
        return None


def compare_results(recorded: Iterable[Record], made: Iterable[Record]) -> list[Compared]:
    """Quality and size of each record beside those of the same cell made elsewhere; speed and cost are left out."""
    again = {record.id: record for record in choose(made)}
    return [line for record in recorded for line in _lines(record, again.get(record.id))]


def _lines(record: Record, again: Record | None) -> Iterator[Compared]:
    mine, theirs = _numbers(record), _numbers(again) if again else {}
    for what in dict.fromkeys([*mine, *theirs]):
        yield Compared(record=record.id, what=what, recorded=mine.get(what), again=theirs.get(what))


def _numbers(record: Record) -> Mapping[str, float | str]:
    found: dict[str, float | str] = {"status": record.status}
    for each in record.measured:
        before = " before training" if each.when == "before_training" else ""
        found[f"{each.protocol} {each.metric}{before}"] = each.value
        found[f"{each.protocol} data{before}"] = each.data
    if record.size:
        found |= {f"size {name}": value for name, value in record.size.model_dump().items()}
    return found


def circumstances(recorded: Iterable[Record], made: Iterable[Record]) -> list[str]:
    """What differs between the two occasions that bits may depend on, by name."""
    again = {record.id: record for record in choose(made)}
    found: list[str] = []
    for record in recorded:
        if other := again.get(record.id):
            found += [name for name in CIRCUMSTANCES if record.provenance.get(name) != other.provenance.get(name)]
            found += ["stage keys"] if _keys(record) != _keys(other) else []
    return list(dict.fromkeys(found))


def _keys(record: Record) -> dict[str, str]:
    return {label: key for label, key in record.stages.items() if label != "profile"}


def verdict(lines: Sequence[Compared], different: Sequence[str]) -> tuple[bool, str]:
    """Whether the row was reproduced, in a sentence.

    Equal to the bit always is. Where circumstances differ, 1e-5 relative is, as for any change of execution.
    """
    unequal = [line for line in lines if not line.equal]
    named = f" (not the same: {', '.join(different)})" if different else ""
    if not unequal:
        return True, f"reproduced: all {len(lines)} quality and size figures are equal bit for bit{named}"
    within = all(line.relative is not None and abs(line.relative) <= LOOSE for line in unequal)
    count = f"{len(unequal)} of {len(lines)} figures are not equal"
    if within and different:
        return True, f"reproduced to {LOOSE:g} relative: {count} bit for bit{named}"
    return False, f"not reproduced: {count}{named or ', at equal code, versions, hardware and execution'}"


def as_json(lines: Sequence[Compared], different: Sequence[str]) -> dict[str, Any]:
    """For scripts."""
    reproduced, sentence = verdict(lines, different)
    figures = [vars(line) | {"equal": line.equal, "relative": line.relative} for line in lines]
    return {"reproduced": reproduced, "verdict": sentence, "differ": list(different), "figures": figures}


def as_terminal(lines: Sequence[Compared], different: Sequence[str]) -> RenderableType:
    """The figures that differ, or the quality alone where none does; the verdict below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for name in ("record", "figure", "recorded", "again", ""):
        table.add_column(name, justify="right" if name in ("recorded", "again") else "left", overflow="fold")
    for line in lines:
        if line.equal and (line.what == "status" or " data" in line.what):
            continue
        how = "equal" if line.equal else "differs" if line.relative is None else f"{line.relative:+.3g} relative"
        values = ("–" if each is None else str(each) for each in (line.recorded, line.again))
        table.add_row(*(Text(text) for text in (line.record, line.what, *values, how)))
    return Group(table, Text(verdict(lines, different)[1], style="bold"))
