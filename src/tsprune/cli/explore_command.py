"""`tsprune explore`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tsprune.cli.options import ModelArgument, Shared, integer, option, with_shared
from tsprune.cli.output import note, print_json, say
from tsprune.files import check_files

if TYPE_CHECKING:
    from tsprune.explorer import Session

# paths of a forecast of models that sample, and of those that sample tokens: a click is answered soon
EXPLORER_SAMPLES, EXPLORER_TOKEN_SAMPLES = 20, 12


@with_shared(
    "suite",
    "model",
    "batch_size",
    "memory",
    "output",
    samples=f"{EXPLORER_SAMPLES}, of tokens {EXPLORER_TOKEN_SAMPLES}",
)
def explore_command(
    model: ModelArgument,
    output: Annotated[
        Path | None,
        option(
            "Write a page (.html) with every head and MLP ablated alone that needs no Python, and stop.",
            "--out",
        ),
    ] = None,
    port: Annotated[int, integer("Port on 127.0.0.1; 0 takes a free one.", least=0, most=65535)] = 0,
    no_browser: Annotated[bool, option("Do not open a browser.", "--no-browser")] = False,
    *,
    shared: Shared,
) -> None:
    """Click heads and MLPs off on a local page, and see forecasts, losses and attention change."""
    check_files(output)
    shared.check(model)
    from tsprune.http_server import LOOPBACK, listening

    if output is not None:
        _write(model, output, shared)
        return
    with listening(LOOPBACK, port) as where:
        from tsprune.explorer.explorer_server import run_explorer

        session = _session(model, shared)
        url = f"http://{LOOPBACK}:{where.getsockname()[1]}/"

        def ready() -> None:
            if shared.as_json:
                print_json("explore", {"url": url, "model": model})
            else:
                say(f"{model} is at {url} (Ctrl-C stops)")
            if not no_browser and not shared.as_json:
                import webbrowser

                if not webbrowser.open(url) and not shared.quiet:
                    note("No browser could be opened here; open the address yourself.")

        run_explorer(session, where, ready=ready)


def _session(model: str, shared: Shared) -> Session:
    from tsprune.explorer import Session
    from tsprune.models.forecaster import drawing
    from tsprune.run_options import RunOptions

    usual, of_tokens = EXPLORER_SAMPLES, EXPLORER_TOKEN_SAMPLES
    loaded = drawing(shared.load(model), shared.samples, usual=usual, of_tokens=of_tokens)
    options = RunOptions(shared.batch_size, shared.memory_bytes, shared.seed)
    return Session(loaded, shared.suite, options)


def _write(model: str, output: Path, shared: Shared) -> None:
    from tsprune.explorer.static_page import write_explorer

    with shared.running("explore") as options:
        write_explorer(_session(model, shared), output, progress=options["progress"])
    if shared.as_json:
        print_json("explore", {"out": output, "model": model})
    else:
        say(f"{model}: every head and MLP alone, written to {output}")
