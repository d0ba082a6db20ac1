"""The command line. Each command is a few lines; what is heavy is imported inside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from harness import row_commands
from harness.errors import SpecError

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_SWEEP = ROOT / "sweeps" / "demo.yaml"

SweepPath = Annotated[Path, typer.Argument(help="Sweep file (YAML).", metavar="SWEEP")]
SweepOrDemo = Annotated[
    Path, typer.Argument(help="Sweep file (YAML).", metavar="SWEEP", show_default="sweeps/demo.yaml")
]
StoreUrl = Annotated[
    str, typer.Option("--store", envvar="WEIGHIN_STORE", help="Directory or fsspec URL.", show_default=".weighin")
]
StoreUrls = Annotated[
    list[str] | None,
    typer.Option("--store", help="As elsewhere; repeat it for the rows of several.", show_default=".weighin"),
]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", envvar="WEIGHIN_MIRROR", help="Local copy of hub repositories, used first.")
]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one key of the sweep.")]
On = Annotated[str, typer.Option(help="Executor: ray or inline.")]
Address = Annotated[str | None, typer.Option(help="A Ray cluster to join; else one is started here.")]
AsJson = Annotated[bool, typer.Option("--json", help="For scripts.")]


def default_store() -> str:
    """Where no `--store` is given."""
    return os.environ.get("WEIGHIN_STORE") or ".weighin"


@app.command()
def run(
    sweep: SweepOrDemo = DEFAULT_SWEEP,
    store: StoreUrl = ".weighin",
    mirror: Mirror = None,
    sets: Sets = None,
    on: On = "ray",
    address: Address = None,
) -> None:
    """Run a sweep until every cell is done; run it again to resume."""
    from harness.session import run_sweep

    raise typer.Exit(run_sweep(sweep, store, mirror, sets or [], on=on, address=address))


@app.command()
def rerun(
    sweep: SweepOrDemo = DEFAULT_SWEEP,
    store: StoreUrl = ".weighin",
    mirror: Mirror = None,
    sets: Sets = None,
    on: On = "ray",
    address: Address = None,
    failed: Annotated[bool, typer.Option("--failed", help="Try failed stages again.")] = False,
) -> None:
    """Run a sweep and try its failed stages once more."""
    from harness.session import run_sweep

    if not failed:
        raise SpecError("rerun: say what to run again: --failed (`weighin run` resumes everything else)")
    raise typer.Exit(run_sweep(sweep, store, mirror, sets or [], on=on, address=address, retry_failed=True))


@app.command()
def plan(
    sweep: SweepPath, store: StoreUrl = ".weighin", mirror: Mirror = None, sets: Sets = None, as_json: AsJson = False
) -> None:
    """What would run, what is cached, why not, what it costs."""
    from harness.session import show_plan

    show_plan(sweep, store, mirror, sets or [], as_json=as_json)


@app.command()
def board(
    stores: StoreUrls = None,
    sweep: Annotated[str | None, typer.Option(help="Only this sweep's rows (its name).")] = None,
    form: Annotated[str, typer.Option("--format", help="table, md, csv, json, html, latex or badge.")] = "table",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write there instead of printing.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="Draw pareto[-bytes|-macs|...], curves or cost into -o FILE.svg|png|pdf.")
    ] = None,
    serve: Annotated[bool, typer.Option("--serve", help="Serve the page on this machine, read-only.")] = False,
    port: Annotated[int, typer.Option(help="Where --serve listens; 0: any free port.")] = 8765,
    since: Annotated[
        str | None,
        typer.Option(metavar="FILE.json|DATE", help="Say what changed since a board kept as JSON, or a day."),
    ] = None,
) -> None:
    """The leaderboard."""
    from harness.boards import deliver, render

    if plot is not None or serve:
        from harness.board_forms import plot_board, serve_board

        if serve:
            serve_board(stores or default_store(), sweep, port, typer.echo)
        elif plot is not None:
            typer.echo(f"wrote {plot_board(stores or default_store(), sweep, plot, output)}")
        return
    deliver(render(stores or default_store(), sweep, form, since), output)
    if output is not None:
        typer.echo(f"wrote {output}")


@app.command()
def reported(
    method: Annotated[str | None, typer.Option(help="Only this method's.")] = None, as_json: AsJson = False
) -> None:
    """What papers reported, each number with its source, protocol and certainty."""
    from harness.boards import list_reported

    list_reported(method, as_json=as_json)


@app.command()
def view(store: StoreUrl = ".weighin") -> None:
    """Rebuild the Parquet view of a store's records."""
    from harness.boards import rebuild_view

    typer.echo(rebuild_view(store))


@app.command()
def show(
    row: Annotated[str, typer.Argument(help="Row id, or ROW#seed.")],
    store: StoreUrl = ".weighin",
    as_json: AsJson = False,
    curve: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Draw the training loss there: .svg, .png, .pdf.")
    ] = None,
) -> None:
    """One row: cell, size, measurements, cost, provenance, failure."""
    from harness.board_forms import draw_curve
    from harness.boards import show_row

    if curve is None:
        show_row(row, store, as_json=as_json)
        return
    draw_curve(row, store, curve)
    typer.echo(f"wrote {curve}")


@app.command()
def export(
    row: Annotated[str, typer.Argument(help="Row id, or ROW#seed.")],
    directory: Annotated[Path, typer.Argument(help="Where to write the model.")],
    store: StoreUrl = ".weighin",
    factorised: Annotated[bool, typer.Option("--factorised", help="As compressed; weighin loads it.")] = False,
) -> None:
    """Write a student and its model card, as a dense model that plain transformers loads."""
    from harness.export import export_row

    typer.echo(f"wrote {export_row(row, directory, store, factorised=factorised)}")


app.add_typer(row_commands.app)


@app.command("glue-submission")
def glue_submission(
    row: Annotated[str, typer.Argument(help="Row id, or ROW#seed.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="The archive.")] = Path("glue.zip"),
    store: StoreUrl = ".weighin",
    fill_missing: Annotated[
        bool, typer.Option("--fill-missing", help="A constant where there are no predictions.")
    ] = False,
) -> None:
    """Write a row's test predictions as the GLUE server takes them."""
    from harness.glue_submission import write_submission

    record, filled = write_submission(row, output, store, fill_missing=fill_missing)
    constant = f"; a constant in {', '.join(filled)}" if filled else ""
    typer.echo(f"wrote {output}: predictions of {record.id}{constant}")


@app.command()
def methods(
    as_json: AsJson = False,
    presets: Annotated[bool, typer.Option("--presets", help="Published configurations and their counts.")] = False,
) -> None:
    """The methods there are."""
    from methods import registry

    if presets:
        _list_presets(as_json)
        return
    _list({name: registry.summary(name) for name in registry.names()}, as_json)


@app.command()
def tasks(
    name: Annotated[
        str | None, typer.Argument(help="Say all about this one; with --lm-eval part of a name, or a pattern with *.")
    ] = None,
    lm_eval: Annotated[bool, typer.Option("--lm-eval", help="lm-eval's own tasks, groups and tags.")] = False,
    as_json: AsJson = False,
) -> None:
    """The tasks and protocols there are; what one of them measures."""
    from tasks import lm_eval_index, registry

    if lm_eval:
        _list({f"lm_eval:{entry.name}": entry.summary for entry in lm_eval_index.matching(name or "")}, as_json)
    elif name is not None:
        _list(registry.load(name).describe(), as_json)
    else:
        _list({name: registry.summary(name) for name in registry.names()}, as_json)
        if not as_json:
            version = lm_eval_index.installed()
            typer.echo(f"lm_eval:NAME: any task of lm-eval {version}; `weighin tasks --lm-eval` lists them")


@app.command()
def measure(
    model: Annotated[str, typer.Argument(help="Directory (Hugging Face's or a student's) or hub id.")],
    protocols: Annotated[
        list[str] | None, typer.Option("--protocol", metavar="NAME", help="By this one; may be repeated.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="By every perplexity whose data can be had.")] = False,
    text: Annotated[Path | None, typer.Option(help="File or directory for local.* protocols.")] = None,
    revision: Annotated[str | None, typer.Option(help="Commit of a hub id.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Windows per forward pass.")] = None,
    mirror: Mirror = None,
    as_json: AsJson = False,
) -> None:
    """Measure one model, without a sweep."""
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
    from harness.measure import Asked
    from harness.measure import measure as measure_model

    asked = Asked(
        model=model, revision=revision, protocols=protocols or (), all_perplexities=everything, text=text, batch=batch,
        mirror=mirror,
    )  # fmt: skip
    raise typer.Exit(measure_model(asked, as_json=as_json))


@app.command()
def check(
    name: Annotated[str, typer.Argument(help="Method.")],
    teachers: Annotated[
        list[str] | None,
        typer.Option("--teacher", metavar="LABEL|DIR", help="A tiny teacher or a local model; may be repeated."),
    ] = None,
    fields: Annotated[
        list[str] | None, typer.Option("--field", metavar="KEY=VALUE", help="Check the method with this field.")
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Seconds instead of half a minute.")] = False,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write there instead of printing.")] = None,
) -> None:
    """Check a method against the contract on tiny models."""
    from harness.authoring import check_method

    raise typer.Exit(
        check_method(name, fast=fast, as_json=as_json, teachers=teachers or (), fields=fields or (), output=output)
    )


@app.command("new-method")
def new_method(name: Annotated[str, typer.Argument(help="Name of the method and its file.")]) -> None:
    """Write methods/NAME.py, a working starting point."""
    from harness.authoring import write_new_method

    typer.echo(f"wrote {write_new_method(name)}; next: weighin check {name}")


@app.command("check-task")
def check_task(
    name: Annotated[str, typer.Argument(help="Task or protocol.")],
    mirror: Mirror = None,
    golden: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Compare the output with the one kept there; a new task's is added."),
    ] = None,
    as_json: AsJson = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write there instead of printing.")] = None,
) -> None:
    """Check a task against the contract on tiny models."""
    from harness.task_authoring import check_task as check_it

    raise typer.Exit(check_it(name, mirror=mirror, as_json=as_json, golden=golden, output=output))


@app.command("new-task")
def new_task(name: Annotated[str, typer.Argument(help="Name of its file.")]) -> None:
    """Write tasks/NAME.py, a working starting point."""
    from harness.task_authoring import write_new_task

    path, task = write_new_task(name)
    typer.echo(f"wrote {path}; next: weighin check-task {task}")


@app.command()
def schema(record: Annotated[bool, typer.Option("--record", help="A record's instead.")] = False) -> None:
    """The sweep file's JSON Schema, for editors."""
    import json

    if record:
        from results.record_schema import dumps

        typer.echo(dumps(), nl=False)
        return

    from harness.spec import Sweep

    typer.echo(json.dumps(Sweep.model_json_schema(), indent=2))


def _list_presets(as_json: bool) -> None:
    import json

    from harness.boards import drawn
    from harness.preset_table import as_data, as_table, preset_counts

    lines = preset_counts()
    typer.echo(json.dumps(as_data(lines), indent=2) if as_json else drawn(as_table(lines)), nl=as_json)


def _list(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        import json

        typer.echo(json.dumps(found, indent=2))
        return
    width = max(map(len, found))
    for name, summary in found.items():
        typer.echo(f"{name:{width}}  {summary}")


def _user_errors() -> tuple[type[Exception], ...]:
    """What a user can cause; imported when it happens, since a board needs no methods and no tasks."""
    from methods.interface import MethodError
    from results.errors import StoreError
    from tasks.interface import DataError

    return SpecError, MethodError, DataError, StoreError


def main(arguments: list[str] | None = None) -> Any:
    """Exit code 0: done; 1: some cells failed; 2: a request that cannot be carried out; 130: interrupted."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        app(arguments)
    except SystemExit:
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted; run it again to go on from here", err=True)
        raise SystemExit(130) from None
    except _user_errors() as error:
        typer.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
