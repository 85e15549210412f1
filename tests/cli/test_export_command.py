"""`tsprune export`, and the commands that take what it wrote."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tests.shell import Runner, refused
from tests.tiny import TINY
from tsprune.models import FAMILIES

pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")


def test_from_a_checkpoint_to_scores_without_torch(run: Runner, tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "exported"
    TINY["tiny-chronos-bolt"](model)
    written = run("export", model, "--out", folder, "--horizon", 4, "--json")
    assert written.code == 0, written.err
    assert written.result["horizon"] == 4
    assert written.result["distance"] < 1e-4
    assert run("verify", folder, "--json").result["holds"]
    timed = run("latency", model, folder, "--batch", 1, "--rounds", 3, "--horizon", 2, "--context", 30)
    assert "as fast." in timed.out, timed.err

    table = tmp_path / "mine.csv"
    rows = [f"a,2024-01-{day:02},{day % 7}" for day in range(1, 32)]
    table.write_text("\n".join(["unique_id,ds,y", *rows]))
    own = ("--data", table, "--horizon", 3)
    assert len(run("forecast", folder, *own, "--json").result["forecasts"]) == 3
    assert run("evaluate", folder, *own).code == 0
    refused(run("forecast", folder, "--data", table, "--horizon", 5), "exported for up to 4 steps, not 5")

    refused(run("rank", folder), "without components")
    refused(run("export", model, "--out", folder), "is not empty")
    (folder / "selftest.safetensors").write_bytes(b"")
    changed = run("verify", folder)
    assert changed.code == 1
    assert "changed or missing: selftest.safetensors" in changed.out


def test_a_family_without_a_graph_is_refused_in_one_line(
    run: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = {**FAMILIES, "toto": dataclasses.replace(FAMILIES["toto"], graph="")}
    monkeypatch.setattr("tsprune.deployment.conversion.FAMILIES", without)
    refused(run("export", "bundled:toto", "--out", tmp_path / "out"), "Toto is not exported yet")
    assert not (tmp_path / "out").exists()


def test_bf16_by_onnx_is_refused_in_one_line(run: Runner, tmp_path: Path) -> None:
    written = run("export", "bundled:chronos-bolt", "--out", tmp_path / "out", "--precision", "bf16")
    refused(written, "export with --format openvino")
    assert not (tmp_path / "out").exists()


def test_a_program_of_torch_is_used_as_other_exports(run: Runner, tmp_path: Path) -> None:
    model, folder = tmp_path / "model", tmp_path / "exported"
    TINY["tiny-chronos-bolt"](model)
    written = run("export", model, "--out", folder, "--horizon", 4, "--format", "torch-export", "--json")
    assert written.code == 0, written.err
    assert (written.result["graph_format"], written.result["distance"] < 1e-4) == ("torch-export", True)
    assert run("verify", folder, "--device", "cpu", "--json").result["holds"]
    timed = run("latency", model, folder, "--batch", 1, "--rounds", 3, "--horizon", 2, "--context", 30)
    assert timed.code == 0, timed.err

    table = tmp_path / "mine.csv"
    rows = [f"a,2024-01-{day:02},{day % 7}" for day in range(1, 32)]
    table.write_text("\n".join(["unique_id,ds,y", *rows]))
    own = ("--data", table, "--horizon", 3)
    found = [
        run("forecast", one, *own, "--device", "cpu", "--json").result["forecasts"] for one in (model, folder)
    ]
    assert [row["predictions"] for row in found[1]] == pytest.approx(
        [row["predictions"] for row in found[0]], rel=1e-4
    )
    assert run("evaluate", folder, *own).code == 0

    (folder / "model.json").write_text("{}")
    refused(run("evaluate", folder, *own), "model.json has another SHA-256")
    assert "changed or missing: model.json" in run("verify", folder).out


def test_int8_of_torch_is_refused_in_one_line(run: Runner, tmp_path: Path) -> None:
    command = ("export", "bundled:chronos-bolt", "--out", tmp_path / "out", "--precision", "int8")
    refused(run(*command, "--format", "torch-export"), "torch-export has no int8")
    assert not (tmp_path / "out").exists()
