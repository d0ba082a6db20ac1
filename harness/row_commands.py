"""The commands about rows that are there: made again, evaluated again, compared."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from harness.errors import SpecError

app = typer.Typer()

Row = Annotated[str, typer.Argument(help="Row id, or ROW#seed.", metavar="ROW")]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="WEIGHIN_STORE", help="Directory or fsspec URL.", show_default=".weighin")
]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", envvar="WEIGHIN_MIRROR", help="Local copy of hub repositories, used first.")
]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


@app.command()
def reproduce(
    row: Row,
    store: StoreUrl = ".weighin",
    mirror: Mirror = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the sweep there.")] = None,
    run: Annotated[bool, typer.Option("--run", help="Run it, and compare quality and size with the record.")] = False,
    into: Annotated[str, typer.Option(help="The store to run it in.", metavar="STORE")] = ".weighin-reproduced",
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key, such as a path.")
    ] = None,
    on: Annotated[str, typer.Option(help="Executor: ray or inline.")] = "ray",
    address: Annotated[str | None, typer.Option(help="A Ray cluster to join.")] = None,
    as_json: AsJson = False,
) -> None:
    """The exact sweep that made a row, from its record alone."""
    from harness.boards import deliver, drawn
    from harness.reproduce import Rerun, reproduction, run_again
    from results.reproduction import as_json as to_json
    from results.reproduction import as_terminal, verdict
    from results.store import Store

    source = Store(store)
    found = reproduction(row, source, mirror)
    if output or not run:
        deliver(found.text, output)
    if output and not as_json:
        typer.echo(f"wrote {output}")
    if not run:
        return
    how = Rerun(into=into, mirror=mirror, overrides=sets or (), on=on, address=address)
    lines, different = run_again(found, how, source, quiet=as_json)
    typer.echo(json.dumps(to_json(lines, different), indent=1) if as_json else drawn(as_terminal(lines, different)))
    raise typer.Exit(0 if verdict(lines, different)[0] else 1)


@app.command()
def verify(
    row: Row,
    store: StoreUrl = ".weighin",
    mirror: Mirror = None,
    text: Annotated[Path | None, typer.Option(help="The text of local.* protocols, where it lies elsewhere.")] = None,
    as_json: AsJson = False,
) -> None:
    """Evaluate a row's checkpoint again, and say whether its numbers hold."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from harness.verify import verify_row

    raise typer.Exit(verify_row(row, store, mirror, text=text, as_json=as_json))


@app.command()
def diff(
    a: Annotated[str, typer.Argument(help="Row id, or ROW#seed.")],
    b: Annotated[str, typer.Argument(help="Row id, or ROW#seed.")],
    store: StoreUrl = ".weighin",
    other: Annotated[
        str | None, typer.Option("--other-store", help="Where B is; else where A is.", metavar="STORE")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """What two rows differ in: configuration, code, protocol, hardware, metrics, items."""
    from harness.boards import drawn
    from results.diff import diff as compare
    from results.diff_view import as_json as to_json
    from results.diff_view import as_terminal
    from results.store import Store

    if a == b and other in (None, store):
        raise SpecError(f"diff: {a} twice, in one store")
    found = compare(Store(store), a, Store(other or store), b)
    typer.echo(to_json(found) if as_json else drawn(as_terminal(found)), nl=False)
