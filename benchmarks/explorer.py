"""A click in the explorer: the forecast of a series without a head or an MLP, with replay and without."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from measure import arguments, machine

import tsprune
from tsprune.cli.explore_command import EXPLORER_SAMPLES, EXPLORER_TOKEN_SAMPLES
from tsprune.data import pocket
from tsprune.explorer import Session
from tsprune.explorer.chosen_series import window_of
from tsprune.explorer.session import finished
from tsprune.hooks.ablation import Ablation
from tsprune.models.forecaster import drawing

SERIES = "city_temperature/H/short"


def milliseconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return 1000 * (time.process_time() - start)


def _of(times: list[float]) -> str:
    """The median and 90 % of times in milliseconds."""
    return f"{np.median(times):.0f} ms (90 % {np.quantile(times, 0.9):.0f})"


def main() -> None:
    options = arguments(__doc__ or "", every=4)
    print(machine())
    for name in options.models:
        loaded = tsprune.load(f"bundled:{name}", device="cpu")
        model = drawing(loaded, None, usual=EXPLORER_SAMPLES, of_tokens=EXPLORER_TOKEN_SAMPLES)
        session = Session(model, pocket())
        series = window_of(session.suite, SERIES, 0, model.context_length)
        session.series_view(series)
        finished(session.losses(Ablation(())))
        quick = session.quick_steps(series)
        clicks, whole, plain, losses = [], [], [], []
        for component in list(session.cells.values())[:: options.every]:
            off = Ablation((component,))
            clicks.append(milliseconds(lambda: session.without(series, off, quick)))  # noqa: B023
            if quick < series.horizon:
                whole.append(milliseconds(lambda: session.without(series, off)))  # noqa: B023
            losses.append(milliseconds(lambda: finished(session.losses(off))))  # noqa: B023
            with tsprune.ablate(model, [component]):
                plain.append(milliseconds(lambda: model.forecast([series.context.copy()], quick)))  # noqa: B023
        found = f"{name}: a click, {quick} of {series.horizon} steps, {_of(clicks)}"
        found += f", all steps {_of(whole)}" if whole else ""
        found += f"; a plain forecast {_of(plain)}; losses {_of(losses)}"
        print(f"{found}; ratio to a plain forecast {np.sum(plain) / np.sum(clicks):.2f}", flush=True)


if __name__ == "__main__":
    main()
