"""A study that is killed goes on from where it was, also in its scores and its explanation."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import torch

from tests.tiny import TINY

STUDIES = """
import json, os, signal, sys
from tests.suites import small_suite
from tsprune.studies import study
from tsprune.studies.study_result import results_table

def studied(model, store, output, stop, after):
    seen = []

    def look(stage, done, total):
        name = stage.rpartition(": ")[2]
        seen.append((name, done))
        if name == stop and done >= after:
            os.kill(os.getpid(), signal.SIGKILL)

    suite = small_suite().only(["first/D/short"])
    found = study([model], suite, store=store or None, device="cpu", progress=look)
    results_table(found).to_parquet(output)
    found.models[0].explanation.profile.to_parquet(output + ".profile")
    return list(dict.fromkeys(name for name, done in seen if done))

for arguments in json.loads(sys.argv[1]):
    child = os.fork()  # each study in a process of its own, which imports nothing again
    if child:
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        print(json.dumps(code), flush=True)
        continue
    print(json.dumps(studied(*arguments)), flush=True)
    os._exit(0)
"""


def answers(*studies: tuple[str, str, str, str, int]) -> list[object]:
    """Of studies in turn: stages with steps, unless it is killed in one after a step, and exit codes."""
    done = subprocess.run(
        [sys.executable, "-c", STUDIES, json.dumps(studies)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_study_killed_in_scores_sweep_and_explanation_ends_as_if_it_was_not(tmp_path: Path) -> None:
    model, store, never = (str(tmp_path / name) for name in ("model", "s", "never"))
    resumed, plain = str(tmp_path / "resumed"), str(tmp_path / "plain")
    TINY["tiny-timesfm"](Path(model))
    stops = (("screening", 1), ("ablating", 5), ("effects", 3), ("chaos", 1))
    *killed, stages, code, every, last = answers(
        *((model, store, never, *stop) for stop in stops),
        (model, store, resumed, "", 0),
        (model, "", plain, "", 0),
    )
    assert killed == [-signal.SIGKILL] * len(stops)
    assert (code, last) == (0, 0)
    assert stages == ["chaos", "done"]
    assert isinstance(every, list)
    assert {"activations", "screening", "ablating", "attention", "residual", "lens", "effects"} <= {*every}
    one, other = (pd.read_parquet(path) for path in (resumed, plain))
    untimed = [name for name in other if not name.startswith("seconds")]
    assert len(other) > 100
    pd.testing.assert_frame_equal(one[untimed], other[untimed], check_exact=True)
    profiles = (pd.read_parquet(f"{path}.profile") for path in (resumed, plain))
    pd.testing.assert_frame_equal(*profiles, check_exact=True)
