"""`tsprune frontier`: its table, page and JSON."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import tsprune
from tests.shell import Runner, refused


def test_from_a_table_of_ones_own_to_what_to_deploy(
    run: Runner, model: Path, table: Path, gift: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    smaller = tsprune.prune(tsprune.load(model), ["stack.0.mlp"])
    smaller.save(out / "models" / "pruned-10")  # it goes on from there: a search takes seconds
    how = ("--data", table, "--horizon", 3, "--freq", "D", "--runtime", "torch", "--saving", "10%")
    quick = ("--batch", 1, "--rounds", 2, "--out", out)
    found = run("frontier", model, *how, *quick, "--json")
    assert found.code == 0, found.err
    assert [row["weights"] for row in found.result["points"]] == ["original", "pruned 10 %"]
    assert {row["loss"] for row in found.result["advice"]} == {0, 0.01, 0.02, 0.05}
    assert found.result["headline"].startswith("Batch 1, for a loss of at most 0")
    assert pd.read_csv(out / "frontier.csv")["weights"].tolist() == ["original", "pruned 10 %"]
    assert "original by torch" in (out / "frontier.html").read_text()
    shown = run("frontier", model, *how, *quick)
    assert found.result["headline"] in shown.out.replace("\n", " ")
    refused(run("frontier", model, *how, *quick, "--seed", 1), "of another seed; name a new folder")
    refused(run("frontier", model, "--out", out, "--runtime", "tensorrt"), "torch-compiled, onnx-fp32")
    refused(run("frontier", model, "--out", out, "--against", "bundled:none"), "no bundled checkpoint")
    refused(run("frontier", model, "--out", table), "is a file")
    unobserved = ("--data", gift, "--out", tmp_path / "none", "--runtime", "torch", "--saving", "10%")
    refused(run("frontier", model, *unobserved), "no point of the frontier could be measured")
