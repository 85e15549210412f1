"""Data by name: suites of this package and of plug-ins, a user's own tables, or a copy of GIFT-Eval."""

from __future__ import annotations

import dataclasses
import stat
from collections.abc import Callable, Sequence
from typing import Literal, Unpack

from tsprune.arguments import shown
from tsprune.data.chaos import chaos
from tsprune.data.gift_eval import gift_eval, is_copy
from tsprune.data.own.own_options import DataOptions, OwnOptions
from tsprune.data.pocket import pocket, pocket_large
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.files import status, user_path
from tsprune.plugins import Registry


@dataclasses.dataclass(frozen=True)
class DataSource:
    """A suite with a name, by which `--data` and `open_suite` find it.

    load : returns the suite
    about : its content, in a line

    Packages add data sources by the entry point group `tsprune.data`.
    """

    name: str
    load: Callable[[], Suite]
    about: str = ""


SOURCES: Registry[DataSource] = Registry(
    "tsprune.data",
    DataSource,
    (
        DataSource("pocket", pocket, "real series of 15 datasets, hourly to yearly, embedded in the package"),
        DataSource("pocket-large", pocket_large, "pocket and 17 more configurations, for small differences"),
        DataSource("chaos", chaos, "trajectories of chaotic systems, embedded in the package"),
    ),
    noun="data source",
)


def data_kind(data: str, **own: Unpack[DataOptions]) -> Literal["source", "own", "gift-eval"]:
    """The kind of data that `data` names: a name in `SOURCES`, a user's file or folder, or a GIFT-Eval copy.

    own : options of a user's own data, which others do not take

    Raises TspruneError if `data` is nothing of these, or for an option that it does not take.
    """
    kind = _kind(data)
    given = [name for name, value in own.items() if value is not None and value not in ([], ())]
    if given and kind != "own":
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        where = f"{data} has its own windows" if kind == "source" else "GIFT-Eval has its own rules"
        raise TspruneError(f"{options} belongs to a table of your own (--data FILE); {where}")
    if kind == "own":
        OwnOptions(**own)
    return kind


def _kind(data: str) -> Literal["source", "own", "gift-eval"]:
    if data in SOURCES:
        return "source"
    path = user_path(data)
    found = status(path)
    if found is None:
        raise TspruneError(
            f"no data source, file or directory {path}; sources: {', '.join(SOURCES)}; or pass a file with "
            "your own series, or the directory of a copy of GIFT-Eval"
        )
    if stat.S_ISDIR(found.st_mode):
        from tsprune.data.own.readers import holds_tables  # imports pyarrow, 0.15 s

        return "own" if not is_copy(path) and holds_tables(path) else "gift-eval"
    return "own"


def open_suite(data: str, configs: Sequence[str] | None = None, **own: Unpack[DataOptions]) -> Suite:
    """The suite of a data source, of a user's own data, or of a copy of GIFT-Eval.

    data : a name in `SOURCES`, a file or folder that `from_file` reads, or the directory of the copy
    configs : names or glob patterns of configurations; None takes all
    own : the options of `from_frame`, for a user's own data only

    Raises TspruneError if `data` is nothing of these, or if a pattern matches no configuration.
    """
    kind = data_kind(data, **own)
    if kind == "gift-eval":
        return gift_eval(data, configs)
    if kind == "own":
        from tsprune.data.own.user_data import from_file

        suite = from_file(data, **own)
    else:
        suite = SOURCES[data].load()
    if not isinstance(suite, Suite):
        raise TspruneError(f"the data source {data} returned {shown(suite)} instead of a Suite")
    return suite.only(configs) if configs else suite
