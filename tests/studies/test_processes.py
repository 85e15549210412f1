"""Models studied at once: the same numbers, mistakes in one line, and no process left behind."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.suites import small_suite, tiny
from tests.tiny import TINY
from tsprune import study
from tsprune.errors import TspruneError
from tsprune.studies import STUDY_SAMPLES, STUDY_STEPWISE_SAMPLES, Study, processes
from tsprune.studies.study_result import results_table
from tsprune.studies.study_settings import StudySettings

SUITE = small_suite().only(["first/D/short"])
NAMES = ("tiny-timesfm", "tiny-moirai")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    found = []
    for name in NAMES:
        path = tmp_path_factory.mktemp(name)
        TINY[name](path)
        found.append(str(path))
    return found


@pytest.fixture(autouse=True)
def _no_process_is_left() -> Iterator[None]:
    yield
    assert multiprocessing.active_children() == []


def studied(models: list[str], **how: object) -> Study:
    return study(models, SUITE, explain=False, device="cpu", **how)  # type: ignore[arg-type]


def copied(directory: str, folder: Path) -> str:
    """A checkpoint again, in a folder: TimesFM's package is the one that processes import quickly."""
    return str(shutil.copytree(directory, folder / "again"))


def assert_same(one: Study, other: Study) -> None:
    """To the last bit, but for how long it took."""
    tables = [results_table(study) for study in (one, other)]
    timed = [name for name in tables[0] if name.startswith("seconds")]
    assert len(tables[0]) > 100
    pd.testing.assert_frame_equal(*(table.drop(columns=timed) for table in tables), check_exact=True)
    assert repr(one.claims) == repr(other.claims)  # some values are NaN


def test_processes_find_what_one_after_the_other_finds(directories: list[str], tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    together = studied(
        directories, jobs=2, store=tmp_path / "s.sqlite", progress=lambda *step: seen.append(step)
    )
    serial = studied(directories)

    assert_same(together, serial)
    assert together.skipped == serial.skipped
    assert [one.name for one in together.models] == directories
    assert together.manifest["arguments"] == {**serial.manifest["arguments"], "jobs": 2}  # type: ignore[dict-item]
    assert together.manifest["scores"] == serial.manifest["scores"]
    for name in directories:
        steps = [
            (stage.removeprefix(f"{name}: "), *counts)
            for stage, *counts in seen
            if stage.startswith(f"{name}: ")
        ]
        assert steps[0] == ("scoring", 0, 0)
        assert steps[-1] == ("done", 1, 1)
        counted = [done for stage, done, _ in steps if stage == "ablating"]
        assert counted == list(range(1, len(counted) + 1))

    # both wrote what they had to the one store: nothing is left to do, here or there
    again: list[tuple[str, int, int]] = []
    resumed = studied(directories, store=tmp_path / "s.sqlite", progress=lambda *step: again.append(step))
    assert [step for step in again if step[0].endswith("ablating")] == []
    assert_same(resumed, serial)


def test_a_wrong_name_is_known_before_any_process_begins(directories: list[str]) -> None:
    seen: list[object] = []
    for jobs in (1, 2):
        with pytest.raises(TspruneError, match="no model 'nonsense'"):
            studied([*directories, "nonsense"], jobs=jobs, progress=lambda *step: seen.append(step))
    assert seen == []


def test_a_model_that_fails_stops_the_study_with_one_line(
    directories: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that is gone when a process looks for it; there is one, which is busy until then."""
    gone = Path(copied(directories[0], tmp_path))
    monkeypatch.setattr(processes, "longest_first", sorted)
    with pytest.raises(TspruneError, match="no model") as error:
        processes.in_processes(
            [directories[0], str(gone)],
            StudySettings(SUITE, explain=False, device="cpu"),
            jobs=1,
            progress=lambda *_: shutil.rmtree(gone, ignore_errors=True),
        )
    assert "\n" not in str(error.value)


def test_an_interrupt_leaves_nothing_running(directories: list[str], tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        studied([directories[0], copied(directories[0], tmp_path)], jobs=2, progress=interrupt)


def test_jobs_must_be_positive(directories: list[str]) -> None:
    with pytest.raises(TspruneError, match="jobs must be at least 1, not 0"):
        studied(directories, jobs=0)


def test_by_default_as_many_as_models_and_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert [processes.jobs_by_default(models, "cpu") for models in (0, 1, 3, 5)] == [1, 1, 3, 4]
    assert processes.jobs_by_default(5, "cuda:1") == 1


def test_longest_first() -> None:
    assert processes.longest_first({0: 2.0, 1: 5.0, 2: 2.0, 3: 9.0}) == [3, 1, 0, 2]


def test_paths_are_fewer_where_each_is_decoded_by_itself() -> None:
    moirai, t5 = tiny("tiny-moirai"), tiny("tiny-chronos-t5")
    before = moirai.samples, t5.samples  # type: ignore[attr-defined]
    try:
        assert StudySettings(SUITE).with_paths(moirai).samples == STUDY_SAMPLES  # type: ignore[attr-defined]
        assert StudySettings(SUITE).with_paths(t5).samples == STUDY_STEPWISE_SAMPLES  # type: ignore[attr-defined]
        assert StudySettings(SUITE, samples=3).with_paths(t5).samples == 3  # type: ignore[attr-defined]
    finally:
        moirai.samples, t5.samples = before  # type: ignore[attr-defined]
    assert STUDY_STEPWISE_SAMPLES % 2 == 1  # the median is a value that was drawn
    assert StudySettings(SUITE, samples=3).with_paths(tiny("tiny-timesfm")) is tiny("tiny-timesfm")
