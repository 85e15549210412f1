"""`tsprune serve`."""

from __future__ import annotations

from typing import Annotated

import typer

from tsprune.cli.options import Shared, decimal, integer, option, with_shared
from tsprune.cli.output import note, print_json, say
from tsprune.files import user_path


@with_shared("device", "batch_size", "output")
def serve_command(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", help="An exported model (tsprune export MODEL --out FOLDER).")
    ],
    host: Annotated[
        str, option("Address to listen on; anything but the default is reachable by others.")
    ] = "127.0.0.1",
    port: Annotated[int, integer("Port to listen on; 0 takes a free one.", least=0, most=65535)] = 8000,
    threads: Annotated[int | None, integer("Threads of the runtime; by default one a core.", most=1024)] = (
        None
    ),
    window: Annotated[
        float, decimal("Most milliseconds that a request waits for others, if others are about.", most=10_000)
    ] = 5.0,
    most_series: Annotated[int, integer("Series in one request.")] = 256,
    most_history: Annotated[int, integer("Steps of history of one series.")] = 2**16,
    most_body: Annotated[float, decimal("Size of a request.", metavar="MIB", most=1024)] = 8.0,
    most_waiting: Annotated[int, integer("Series that wait; beyond, the answer is 503.")] = 4096,
    *,
    shared: Shared,
) -> None:
    """Answer forecasts of an exported model over HTTP: POST /forecast, GET /health."""
    from tsprune.deployment.description import read_description
    from tsprune.deployment.exported import load_exported
    from tsprune.deployment.forecast_requests import Limits
    from tsprune.deployment.server import Serving, serve
    from tsprune.http_server import LOOPBACK, listening

    about = read_description(user_path(folder))
    with listening(host, port) as where:
        model = load_exported(folder, threads=threads, device=shared.device)
        limits = Limits(
            horizon=model.horizon,
            body=round(most_body * 2**20),
            series=most_series,
            history=most_history,
        )
        address, number, *_ = where.getsockname()
        url = f"http://{f'[{address}]' if ':' in address else address}:{number}"

        def ready() -> None:
            if shared.as_json:
                print_json("serve", {"url": url, "model": about.name, "limits": limits})
            else:
                say(f"{folder} ({about.name}, {about.precision}) answers on {url} (Ctrl-C stops)")
            if address not in (LOOPBACK, "::1") and not shared.quiet:
                note("Others can reach this address; nothing here asks who they are.")

        serving = Serving(limits, window / 1000, shared.batch_size, most_waiting)
        serve(model, serving, where, ready=ready)
