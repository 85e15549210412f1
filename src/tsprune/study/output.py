"""Writing a study: one tidy table of results and the manifest, each complete or absent."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from tsprune.study.result import ModelStudy, Study

TABLES = ("baseline", "layers", "heads", "rank_correlation", "pruning", "heads_at")


def results_table(study: Study) -> pd.DataFrame:
    """Every table of every model below each other; `model` and `experiment` say which is which."""
    parts = [_labelled(one, name) for one in study.models for name in TABLES]
    claims = pd.DataFrame(
        {
            "model": claim.model,
            "experiment": "claims",
            "statement": claim.statement,
            "verdict": claim.verdict,
            "evidence": claim.evidence,
        }
        for claim in study.claims
    )
    return pd.concat([part for part in (*parts, claims) if len(part)], ignore_index=True)


def _labelled(one: ModelStudy, name: str) -> pd.DataFrame:
    table: pd.DataFrame = getattr(one, name).copy()
    table.attrs = {}  # lists of skipped windows would be compared by concat
    table.insert(0, "model", one.name)
    table.insert(1, "experiment", name)
    return table


def write_results(study: Study, directory: Path) -> None:
    """Writes `results.parquet` and `manifest.json` into `directory`, making it if need be."""
    directory.mkdir(parents=True, exist_ok=True)
    table = results_table(study)
    _aside(directory / "results.parquet", lambda path: table.to_parquet(path, index=False))
    text = json.dumps(study.manifest, indent=2) + "\n"
    _aside(directory / "manifest.json", lambda path: path.write_text(text))


def _aside(path: Path, write: Callable[[Path], object]) -> None:
    partial = path.with_name(path.name + ".partial")
    try:
        write(partial)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
