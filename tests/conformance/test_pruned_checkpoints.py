"""Law 7 for pruned models: saved and loaded in a fresh process, by tsprune and by upstream."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from tests.native import forecast_native, open_native
from tests.tiny import TINY, few_samples, ragged, uneven
from tsprune.models import Forecaster, load, load_pipeline
from tsprune.models.forecaster import LEVELS
from tsprune.models.pretrained import quiet_horizon
from tsprune.pruning import prune

MODELS = [name for name in TINY if not name.endswith("cached")]
HORIZON = 11
UPSTREAM_READS = {  # by family: the last layer gone, as many heads gone everywhere
    "chronos-bolt": ["layer", "heads"],
    "chronos-t5": ["layer", "heads"],
    "chronos2": ["layer", "heads"],
    "timesfm": [],  # upstream's size is fixed
    "toto": ["layer"],  # upstream's head dimension is the width divided by the heads
    "moirai": ["layer"],  # upstream's heads are of 64 dimensions
    "moirai2": ["layer"],
    "moirai-moe": ["layer"],
    "t0": [],  # a layer over groups is every n-th
    "timesfm3": ["layer"],  # upstream's head dimension is the width divided by the heads
    "timestral": ["layer"],  # upstream's head dimension is the width divided by the heads
    "toto2": ["heads"],  # a layer that goes leaves its factor of the stream
}


class Case(NamedTuple):
    """A pruned checkpoint and what it forecasts here."""

    family: str
    directory: Path
    pruned: Forecaster
    forecast: np.ndarray
    native: np.ndarray


def removals(model: Forecaster) -> dict[str, list[str]]:
    stacks = model.anatomy.stacks
    return {
        "layer": [f"{stacks[-1].name}.{len(stacks[-1].blocks) - 1}"],
        "heads": [f"{stack.name}.*.*.head.0" for stack in stacks],
        "uneven": uneven(model),
    }


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    work = tmp_path_factory.mktemp("pruned")
    found = {}
    for name in MODELS:
        TINY[name](work / name)
        model = few_samples(load(str(work / name), device="cpu"))
        for kind, patterns in removals(model).items():
            pruned = prune(model, patterns)
            directory = work / f"{name}-{kind}"
            pruned.save(directory)
            forecast = pruned.forecast(ragged(model, 2), HORIZON).quantiles
            native = forecast_native(model.family, pruned.upstream)
            found[directory.name] = Case(model.family, directory, pruned, forecast, native)
    return found


def readable(cases: dict[str, Case]) -> dict[str, Case]:
    """Those that upstream reads."""
    return {
        name: case
        for name, case in cases.items()
        if name.removeprefix("tiny-").rpartition("-")[2] in UPSTREAM_READS[case.family]
    }


FRESH = """
import json, sys
import numpy as np, torch
from tests.native import forecast_native, open_native

torch.set_num_threads(1)
work = json.load(sys.stdin)
for family, directory in work["upstream"]:
    np.save(directory + "-native.npy", forecast_native(family, open_native(family, directory)))
assert not [name for name in sys.modules if name.split(".")[0] == "tsprune"]

import tsprune

for family, directory, series in work["tsprune"]:
    model = tsprune.load(directory, device="cpu")
    if hasattr(model, "samples"):
        model.samples = 6
    contexts = [np.array(x, dtype=np.float32) for x in series]
    np.save(directory + "-ours.npy", model.forecast(contexts, 11).quantiles)
    pipeline = tsprune.load_pipeline(directory, device="cpu")
    np.save(directory + "-pipeline.npy", forecast_native(family, pipeline))
"""


@pytest.fixture(scope="module")
def fresh(cases: dict[str, Case]) -> Callable[[Case, str], np.ndarray]:
    """What a fresh process forecasts: upstream alone, before it imports tsprune, and then tsprune."""
    work = {
        "upstream": [(case.family, str(case.directory)) for case in readable(cases).values()],
        "tsprune": [
            (case.family, str(case.directory), [x.astype(float).tolist() for x in ragged(case.pruned, 2)])
            for case in cases.values()
        ],
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FRESH],
        input=json.dumps(work),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return lambda case, how: np.load(f"{case.directory}-{how}.npy")  # type: ignore[no-any-return]


def test_a_fresh_process_forecasts_the_same(
    cases: dict[str, Case], fresh: Callable[[Case, str], np.ndarray]
) -> None:
    for name, case in cases.items():
        np.testing.assert_array_equal(fresh(case, "ours"), case.forecast, err_msg=name)
        np.testing.assert_array_equal(fresh(case, "pipeline"), case.native, err_msg=name)


def test_upstream_alone_reads_what_its_config_can_say(
    cases: dict[str, Case], fresh: Callable[[Case, str], np.ndarray]
) -> None:
    for name, case in cases.items():
        stated = json.loads((case.directory / "tsprune.json").read_text())["upstream_reads_it"]
        assert stated == (name in readable(cases)), name
    for name, case in readable(cases).items():
        np.testing.assert_array_equal(fresh(case, "native"), case.native, err_msg=name)


def test_upstream_alone_refuses_what_it_would_read_wrongly(cases: dict[str, Case]) -> None:
    """Some of its loaders fill in missing weights at random."""
    for name, case in cases.items():
        if json.loads((case.directory / "tsprune.json").read_text())["upstream_reads_it"]:
            continue
        if case.family == "timesfm" and not name.endswith("uneven"):
            continue  # upstream builds its full size before it compares
        with pytest.raises((ValueError, TypeError, RuntimeError, AssertionError)):
            open_native(case.family, case.directory)


def test_the_pipeline_forecasts_what_the_forecaster_does(cases: dict[str, Case]) -> None:
    """For models that do not sample, so that no draws come between them."""
    compared = set()
    for case in cases.values():
        if case.family not in ("chronos-bolt", "chronos2"):
            continue
        pipeline = load_pipeline(str(case.directory), device="cpu")
        assert type(pipeline) is type(case.pruned.upstream)
        series = [torch.tensor(x) for x in ragged(case.pruned, 2)]
        with quiet_horizon():
            if case.family == "chronos-bolt":
                quantiles = pipeline.predict(series, prediction_length=HORIZON).numpy()
            else:
                found, _ = pipeline.predict_quantiles(series, HORIZON, quantile_levels=list(LEVELS))
                quantiles = np.stack([x[0].T.numpy() for x in found])
        np.testing.assert_array_equal(quantiles, case.forecast)
        compared.add(case.family)
    assert len(compared) == 2


def test_everything_is_as_it_was_saved(cases: dict[str, Case]) -> None:
    for name, case in cases.items():
        state = torch.get_rng_state()
        loaded = load(str(case.directory), device="cpu")
        assert torch.equal(torch.get_rng_state(), state), name
        assert loaded.anatomy == case.pruned.anatomy
        assert loaded.origin == case.pruned.origin
        assert loaded.family == case.family
        assert loaded.parameter_count == case.pruned.parameter_count
        assert loaded.context_length == case.pruned.context_length
        for tensor, expected in zip(
            loaded.module.state_dict().values(), case.pruned.module.state_dict().values(), strict=True
        ):
            assert torch.equal(tensor, expected)


def test_a_loaded_pruned_model_can_be_pruned_and_saved_again(cases: dict[str, Case], tmp_path: Path) -> None:
    for name, case in cases.items():
        if not name.endswith("uneven"):
            continue
        again = prune(
            few_samples(load(str(case.directory), device="cpu")), case.pruned.anatomy.components("mlp")[-1]
        )
        again.save(tmp_path / name)
        loaded = few_samples(load(str(tmp_path / name), device="cpu"))
        assert loaded.origin is not None
        assert case.pruned.origin is not None
        assert loaded.origin.name == case.pruned.origin.name
        assert loaded.origin.components[:-1] == case.pruned.origin.components
        contexts = ragged(loaded, 2)
        np.testing.assert_array_equal(
            loaded.forecast(contexts, 5).quantiles, again.forecast(contexts, 5).quantiles
        )


def test_other_precisions(cases: dict[str, Case]) -> None:
    directory = cases["tiny-chronos-bolt-uneven"].directory
    half = load(str(directory), device="cpu", dtype=torch.bfloat16)
    assert {p.dtype for p in half.module.parameters()} == {torch.bfloat16}
    full = load(str(directory), device="cpu")
    contexts = ragged(full, 1)
    expected = full.forecast(contexts, 4).quantiles
    np.testing.assert_allclose(
        half.forecast(contexts, 4).quantiles, expected, rtol=0, atol=0.05 * np.abs(expected).max()
    )
