"""A study that is killed goes on from where it was, also in its scores and its explanation."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from tests.tiny import TINY

STUDY = """
import os, signal, sys
from tests.suites import small_suite
from tsprune.data import Suite
from tsprune.studies import study
from tsprune.studies.study_result import results_table

model, store, output, stop, after = sys.argv[1:]
seen = []

def look(stage, done, total):
    name = stage.rpartition(": ")[2]
    seen.append((name, done))
    if name == stop and done >= int(after):
        os.kill(os.getpid(), signal.SIGKILL)

suite = small_suite().only(["first/D/short"])
found = study([model], suite, store=store or None, device="cpu", progress=look)
results_table(found).to_parquet(output)
found.models[0].explanation.profile.to_parquet(output + ".profile")
print(*dict.fromkeys(name for name, done in seen if done))
"""


def studied(model: Path, store: str, output: Path, stop: str = "", after: int = 0) -> tuple[int, list[str]]:
    """(exit code, stages with steps) of a study in a process of its own, killed in a stage after a step."""
    done = subprocess.run(
        [sys.executable, "-c", STUDY, str(model), store, str(output), stop, str(after)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    return done.returncode, done.stdout.split()


def test_a_study_killed_in_scores_sweep_and_explanation_ends_as_if_it_was_not(tmp_path: Path) -> None:
    model, store = tmp_path / "model", str(tmp_path / "s")
    TINY["tiny-timesfm"](model)
    for stop, after in (("screening", 1), ("ablating", 5), ("effects", 3), ("chaos", 1)):
        assert studied(model, store, tmp_path / "never", stop, after) == (-9, []), stop
    code, stages = studied(model, store, tmp_path / "resumed")
    assert code == 0
    assert stages == ["chaos", "done"]
    plain, every = studied(model, "", tmp_path / "plain")
    assert plain == 0
    assert {"activations", "screening", "ablating", "attention", "residual", "lens", "effects"} <= {*every}
    one, other = (pd.read_parquet(tmp_path / name) for name in ("resumed", "plain"))
    untimed = [name for name in other if not name.startswith("seconds")]
    assert len(other) > 100
    pd.testing.assert_frame_equal(one[untimed], other[untimed], check_exact=True)
    profiles = (pd.read_parquet(tmp_path / f"{name}.profile") for name in ("resumed", "plain"))
    pd.testing.assert_frame_equal(*profiles, check_exact=True)
