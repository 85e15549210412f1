"""SIGKILL at random times: of a sweep with a store, of a pruning, of a recovery. Is anything lost?

    python benchmarks/kills.py --kills 100

Each work is first done without interruption. Then, kill by kill, it is begun anew in a process of its own,
killed, looked at, and done again to the end. What counts as a fault:

torn     something that is there is not complete: a store that cannot be read, a folder with a part of its
         files, a state that cannot be gone on from
lost     a batch that was stored before the second run is not there after it
doubled  a cell or a batch is there twice, or there are more than without interruption
other    the end is not, to the last bit, that of the uninterrupted run

Half of the times are drawn over the whole run, the others over what follows the first byte on the disk (a
store's first batch, for a sweep). Imports are done once, in the process that forks the others, so that a kill
hits the work and not the start of Python. `left` counts hidden files and folders that remain beside the
result of the second run; they are no fault, but should be few.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # of the repository, for `pretrain`

import tsprune
from pretrain.families import timesfm
from tsprune.cli import main as command_line
from tsprune.data import Suite, pocket
from tsprune.pruning.recovery import optimizers
from tsprune.sweeps.cell_bytes import from_bytes

CONFIGURATION = "us_finance/M/short"
SIZE = timesfm.Size(
    width=24, layers=3, heads=3, hidden=40, context=128
)  # random weights: a forecast is quick
STEPS = 5
Digests = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Work:
    """What is killed.

    run : does it in a folder, from the beginning or from where it was; in a forked process
    begun : whether what counts as its first trace is in the folder
    kept : what is in the folder and must not get lost, name -> digest; raises if something is torn
    end : the same of a finished run
    """

    name: str
    run: Callable[[Path], None]
    begun: Callable[[Path], bool]
    kept: Callable[[Path], Digests]
    end: Callable[[Path], Digests]


def write_model(directory: Path) -> None:
    """A tiny TimesFM with random weights, none of them at a trivial value."""
    torch.manual_seed(0)
    objective = timesfm.TimesFMObjective(SIZE)
    model = objective.build()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".scale"):
                parameter.uniform_(0.5, 1.5)
    objective.export(model, directory)


def _model(folder: Path) -> str:
    return str(folder.parent / "model")


def import_everything(root: Path) -> None:
    """Has this process import what works import while they run: the forked ones find it there.

    No gradient is computed here, as torch's autograd cannot go on in a forked process.
    """
    model = tsprune.load(str(root / "pruned"))
    tsprune.evaluate(model, _short())
    for optimizer in optimizers(model, "float32"):
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()


# --- the three -----------------------------------------------------------------------------------


def sweep(folder: Path) -> None:
    options = ["--configs", CONFIGURATION, "--batch-size", "4", "--quiet", "--json"]
    _command("sweep", _model(folder), *options, "--store", str(folder / "store"))


def _command(*arguments: str) -> None:
    sys.argv = ["tsprune", *arguments]
    command_line()


def _rows(folder: Path, table: str) -> list[tuple[str, bytes]]:
    """(name, scores) of a store's cells or batches, read without tsprune's own reader."""
    if not (folder / "store").exists():
        return []
    names = {"cells": "key", "parts": "key || ' ' || batch"}
    with closing(sqlite3.connect(folder / "store")) as database:
        if not database.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'cells'").fetchone()[0]:
            return []
        if database.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            raise ValueError("the database is damaged")
        return database.execute(f"SELECT {names[table]}, scores FROM {table}").fetchall()


def _digest(scores: bytes) -> str:
    """Of everything but the seconds it took."""
    cell = from_bytes(scores)
    arrays = [cell.rows, cell.scores.spearman, *dataclasses.asdict(cell.scores.statistics).values()]
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def _cells(folder: Path) -> Digests:
    rows = _rows(folder, "cells")
    if len(dict(rows)) < len(rows):
        raise ValueError("a cell is there twice")
    return {name: _digest(scores) for name, scores in rows}


def _batches_or_cells(folder: Path) -> Digests:
    """Finished cells as they are; of a batch of another one, the cell that it will be in."""
    return {name.partition(" ")[0]: "" for name, _ in _rows(folder, "parts")} | dict.fromkeys(
        _cells(folder), ""
    )


def _finished_store(folder: Path) -> Digests:
    if parts := _rows(folder, "parts"):
        raise ValueError(f"{len(parts)} batches of finished cells are left")
    return _cells(folder)


def prune(folder: Path) -> None:
    if not (folder / "small").exists():
        _command("prune", _model(folder), "--remove", "stack.1.mlp", "--out", str(folder / "small"))


def _files(directory: Path) -> Digests:
    found = directory.rglob("*") if directory.exists() else ()
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in found if path.is_file()}


def recover(folder: Path) -> None:
    if (folder / "recovered").exists():
        return
    small, teacher = tsprune.load(str(folder.parent / "pruned")), tsprune.load(_model(folder))
    state = folder / "state"
    model = tsprune.recover(
        small, teacher, suite=_short(), steps=STEPS, histories=2, history=32, patience=99, state=state
    )
    model.save(folder / "recovered", evidence={})


def _short() -> Suite:
    """Few short series, so that a score takes no longer than a step."""
    (one,) = pocket().only([CONFIGURATION]).configurations
    chosen = one.select(np.arange(len(one)) % 3 == 0)
    return Suite("short", (dataclasses.replace(chosen, contexts=[x[-64:] for x in chosen.contexts]),))


def _state(folder: Path) -> Digests:
    """A state can be read; that nothing in it is lost shows at the end, which is the same to the bit."""
    if (folder / "state").exists():
        torch.load(folder / "state", weights_only=True)
    return {}


WORKS = (
    Work("sweep --store", sweep, lambda folder: bool(_stored(folder)), _batches_or_cells, _finished_store),
    Work(
        "prune --out",
        prune,
        lambda folder: any(folder.iterdir()),
        lambda folder: _files(folder / "small"),
        lambda folder: _files(folder / "small"),
    ),
    Work(
        "recover --resume",
        recover,
        lambda folder: any(folder.iterdir()),
        lambda folder: _state(folder) | _files(folder / "recovered"),
        lambda folder: _files(folder / "recovered"),
    ),
)


def _stored(folder: Path) -> int:
    """Batches and cells that a store holds by now."""
    try:
        return len(_rows(folder, "parts")) + len(_rows(folder, "cells"))
    except sqlite3.OperationalError:  # being made
        return 0


# --- kills ---------------------------------------------------------------------------------------


def forked(work: Work, folder: Path) -> int:
    """Begins the work in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        log = os.open(folder.parent / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        work.run(folder)
        code = 0
    except SystemExit as stop:
        code = int(stop.code or 0)
    finally:
        sys.stderr.flush()
        os._exit(code)


def to_the_end(work: Work, folder: Path) -> None:
    _, status = os.waitpid(forked(work, folder), 0)
    if status:
        log = (folder.parent / "log").read_text().strip().splitlines()
        raise ValueError(f"a run ended with {os.waitstatus_to_exitcode(status)}: {log[-1:]}")


def killed(work: Work, folder: Path, after: float, *, late: bool) -> bool:
    """Whether the work was killed before it was done.

    after : seconds from its beginning; if `late`, from its first trace
    """
    child = forked(work, folder)
    while late and not work.begun(folder):
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.001)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def times(work: Work, folder: Path) -> tuple[float, float]:
    """Seconds to the first trace of a run, and to its end."""
    start = time.monotonic()
    child, first = forked(work, folder), 0.0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if not first and work.begun(folder):
            first = time.monotonic() - start
        time.sleep(0.005)
    return first, time.monotonic() - start


@dataclasses.dataclass
class Tally:
    """kills : that hit; begun : of these after the first trace; left : hidden entries beside the result."""

    kills: int = 0
    begun: int = 0
    left: int = 0
    torn: int = 0
    lost: int = 0
    doubled: int = 0
    other: int = 0

    @property
    def faults(self) -> int:
        return self.torn + self.lost + self.doubled + self.other


def trial(work: Work, root: Path, expected: Digests, after: float, tally: Tally, *, late: bool) -> None:
    """One kill, and the run that follows it; a run that was done before it could be killed does not count."""
    folder = root / "trial"
    folder.mkdir()
    try:
        if not killed(work, folder, after, late=late):
            return
        tally.kills += 1
        tally.begun += work.begun(folder)
        try:
            before = work.kept(folder)
            to_the_end(work, folder)
            end = work.end(folder)
        except Exception as error:
            print(f"{work.name}, killed after {after:.3f} s: {error}", file=sys.stderr)
            tally.torn += 1
            return
        tally.lost += not before.keys() <= end.keys()
        tally.doubled += len(end) > len(expected)
        tally.other += end != expected
        tally.left += sum(path.name.startswith(".") for path in folder.iterdir())
    finally:
        shutil.rmtree(folder)


def kill(work: Work, root: Path, count: int, rng: random.Random) -> tuple[Tally, float]:
    """What `count` kills found, and the seconds that the work takes without one."""
    reference = root / "reference"
    reference.mkdir()
    to_the_end(work, reference)
    expected = work.end(reference)
    shutil.rmtree(reference)
    reference.mkdir()
    first, whole = times(work, reference)
    if work.end(reference) != expected:
        raise SystemExit(f"{work.name}: two uninterrupted runs differ")
    shutil.rmtree(reference)
    tally = Tally()
    while tally.kills < count:
        late = tally.begun < (tally.kills + 1) / 2
        after = rng.uniform(0.0, whole - first if late else whole)
        trial(work, root, expected, after, tally, late=late)
    return tally, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=10, help="of each work (default: 10)")
    parser.add_argument("--seed", type=int, default=0, help="of the times")
    parser.add_argument(
        "--works", nargs="*", default=["sweep", "prune", "recover"], help="which of the three"
    )
    asked = parser.parse_args()
    torch.set_num_threads(1)  # what is forked may have no threads
    print(f"{'work':18}{'seconds':>9}" + "".join(f"{f.name:>9}" for f in dataclasses.fields(Tally)))
    faults = 0
    for work in WORKS:
        if work.name.split()[0] in asked.works:
            with tempfile.TemporaryDirectory() as name:
                root = Path(name)
                write_model(root / "model")
                tsprune.prune(tsprune.load(str(root / "model")), "stack.1.mlp").save(root / "pruned")
                import_everything(root)
                tally, seconds = kill(work, root, asked.kills, random.Random(asked.seed))
            row = "".join(f"{count:>9}" for count in dataclasses.astuple(tally))
            print(f"{work.name:18}{seconds:>9.2f}{row}", flush=True)
            faults += tally.faults
    print(
        "ratio of kills after which nothing was lost, doubled or half-written: "
        f"{1 - faults / max(1, asked.kills * len(asked.works)):.3f}"
    )
    sys.exit(faults > 0)


if __name__ == "__main__":
    main()
