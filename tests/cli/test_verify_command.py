"""`tsprune verify`: exit code 0 if published numbers hold, 1 if not, 2 for mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

import tsprune
from tests.shell import Runner, refused
from tsprune.scores import stable_ranks
from tsprune.verification import RANK_COLUMNS


@pytest.fixture
def table(model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "ranks.csv"
    ranks = stable_ranks(tsprune.load(str(model))).assign(checkpoint="owner/" + model.name)
    ranks.loc[:, list(RANK_COLUMNS)].round(4).to_csv(path, index=False)
    return path


def test_exit_codes_and_json(run: Runner, model: Path, table: Path) -> None:
    good = run("verify", model, "--against", table, "--json")
    assert good.code == 0
    assert good.result["holds"] is True
    assert good.result["stable_ranks"]["heads_compared"] == good.result["stable_ranks"]["heads_total"] == 9

    text = table.read_text().splitlines()
    cells = text[5].split(",")
    text[5] = ",".join([*cells[:4], str(2 * float(cells[4]))])
    table.write_text("\n".join(text))
    bad = run("verify", model, "--against", table, "--json")
    assert (bad.code, bad.err) == (1, "")
    ranks = bad.result["stable_ranks"]
    assert ranks["holds"] is False
    assert ranks["heads_wrong"] == 1
    assert ranks["worst"]["address"] == f"stack.{cells[2]}.self.head.{cells[3]}"
    assert ranks["worst"]["difference"] == pytest.approx(0.5, abs=1e-3)
    shown = run("verify", model, "--against", table)
    assert shown.code == 1
    assert "does not hold" in shown.out
    assert ranks["worst"]["address"] in shown.out
    assert run("verify", model, "--against", table, "--tolerance", 0.6).code == 0


def test_scores(run: Runner, gift: Path, tmp_path: Path) -> None:
    frame = tsprune.evaluate("seasonal-naive", tsprune.data.gift_eval(gift)).frame
    published = frame.rename(columns={"configuration": "config"}).assign(model="seasonal_naive")
    path = tmp_path / "scores.csv"
    published[["config", "model", "MASE", "CRPS"]].to_csv(path, index=False)
    good = run("verify", "seasonal-naive", "--scores", path, "--data", gift, "--json")
    assert good.code == 0
    assert good.result["scores"]["configurations"][0]["MASE_difference"] == 0
    assert len(good.json["skipped"]) == 1
    published["CRPS"] *= 1.1
    published[["config", "model", "MASE", "CRPS"]].to_csv(path, index=False)
    bad = run("verify", "seasonal-naive", "--scores", path, "--data", gift)
    assert bad.code == 1
    assert "does not hold" in bad.out


def test_mistakes(run: Runner, model: Path, table: Path, gift: Path, tmp_path: Path) -> None:
    refused(run("verify", model), "--against")
    refused(run("verify", model, "--scores", table), "--data")
    refused(run("verify", model, "--against", tmp_path / "absent.csv"), "absent.csv")
    refused(run("verify", model, "--against", gift), "cannot read")
    refused(run("verify", model, "--against", table, "--model", "x"), "--model: owner/" + model.name)
    refused(run("verify", "seasonal-naive", "--against", table), "no heads")
    refused(run("verify", "nonsense", "--against", table), "nonsense")
