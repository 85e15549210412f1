"""Commands with odd arguments: they end with 0, 1 or 2, and an error is one printable line."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tsprune import cli

OPTIONS = (
    *(
        "--out",
        "--store",
        "--resume",
        "--export",
        "--leaderboard",
        "--curve",
        "--picture",
        "--plan",
        "--against",
    ),
    *(
        "--scores",
        "--data",
        "--configs",
        "--where",
        "--components",
        "--dtype",
        "--mode",
        "--by",
        "--kind",
        "--metric",
    ),
    *(
        "--device",
        "--ray",
        "--memory",
        "--seed",
        "--samples",
        "--batch-size",
        "--save-dtype",
        "--jobs",
        "--steps",
    ),
    *(
        "--max-loss",
        "--saving",
        "--remove",
        "--head",
        "--json",
        "--quiet",
        "--nonsense",
        "--context",
        "--batch",
    ),
)
COMMANDS = ("study", "evaluate", "anatomy", "rank", "sweep", "results", "explain", "heads-at", "prune")
MORE = ("recover", "latency", "verify", "nonsense", "")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Paths at which nothing can be read or written, and words of all kinds."""
    root = tmp_path_factory.mktemp("places")
    (root / "file").write_text("text")
    os.mkfifo(root / "pipe")
    (root / "dangling").symlink_to(root / "nothing")
    names = ("file", "pipe", "dangling", "file/below", "x" * 256, "[bold]", "[/x]", "\x1b[31m", "\u202e")
    return [
        *(str(root / name) for name in names),
        *("~nosuchuser/x", "/dev/full", "/dev/zero", "", "-", "--", "no/such/model", "bundled:no", "meta"),
        *("0", "-1", "nan", "inf", "1e400", "9" * 5000, "*" * 10_000, "a b" * 3000, "\ud800", "a\nb", "50%"),
    ]


@settings(
    max_examples=400,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    st.sampled_from(COMMANDS + MORE),
    st.integers(0, 10**6),
    st.lists(st.tuples(st.sampled_from(OPTIONS), st.integers(0, 10**6)), max_size=4),
)
def test_odd_arguments(
    places: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    command: str,
    first: int,
    options: list[tuple[str, int]],
) -> None:
    words = [f"{option}={places[value % len(places)]}" for option, value in options]
    # a model is always named: the bundled ones would be studied for minutes
    monkeypatch.setattr(sys, "argv", ["tsprune", command, places[first % len(places)] or "x", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as stop:
        code = int(stop.code or 0)
    out, err = capfd.readouterr()
    assert code in (0, 1, 2)
    if code == 2:
        assert out == ""
        assert err.startswith("error: ")
        assert err.count("\n") == 1
        assert err[:-1].isprintable()


def test_nothing_was_written(places: list[str]) -> None:
    root = Path(places[0]).parent
    assert (root / "file").read_text() == "text"
    assert not (root / "nothing").exists()
