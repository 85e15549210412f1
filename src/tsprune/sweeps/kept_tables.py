"""Tables that a store keeps under everything they depend on: scores, and parts of an explanation.

Sweeps keep every batch of forecasts. Other measurements take one pass or a few, and are kept whole.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd

import tsprune
from tsprune.data.suite import Suite
from tsprune.errors import TspruneError
from tsprune.models.forecaster import Forecaster
from tsprune.models.placement import processor
from tsprune.run_options import RunOptions
from tsprune.sweeps.key import RESULTS_VERSION, checkpoint_digest, settings
from tsprune.sweeps.store import Store

Tables = Mapping[str, pd.DataFrame]


class KeptTables:
    """Measurements of one model, which a store remembers.

    store : None keeps nothing
    options : batch size and seed are part of what results depend on
    """

    def __init__(self, store: Store | None, model: Forecaster, options: RunOptions) -> None:
        self._store, self._model, self._options = store, model, options
        self._base: dict[str, object] = {}
        if store is not None:
            self._base = {
                **settings(model, batch_size=options.batch_size, device=processor(model.device)),
                "checkpoint": checkpoint_digest(model),
                "seed": options.seed,
                "version": [tsprune.__version__, RESULTS_VERSION],
            }

    def get(
        self, name: str, make: Callable[[], Tables], suite: Suite | None = None, **arguments: object
    ) -> Tables:
        """The tables of `make`, or those that it made before.

        name : of the measurement
        suite, arguments : everything else that the tables depend on; arguments are values that JSON can hold
        """
        if self._store is None:
            return make()
        parts = {**self._base, "name": name, "suite": suite.fingerprint if suite else None, **arguments}
        key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
        known = self._store.tables(key)
        if known is not None:
            return _decoded(known, self._store)
        made = make()
        self._store.add_tables(key, f"{self._model.name}: {name}", _encoded(made))
        return made


def _encoded(tables: Tables) -> bytes:
    """Tables as compressed JSON, which keeps every bit of a number."""
    content = {
        name: [[column, str(frame[column].dtype), _values(frame[column])] for column in frame]
        for name, frame in tables.items()
    }
    return zlib.compress(json.dumps(content).encode(), 1)


def _values(column: pd.Series) -> list[Any]:
    return [None if value is pd.NA else value for value in column.tolist()]


def _decoded(content: bytes, store: Store) -> Tables:
    try:
        found = json.loads(zlib.decompress(content))
        return {
            name: pd.DataFrame({column: pd.Series(values, dtype=dtype) for column, dtype, values in columns})
            for name, columns in found.items()
        }
    except (ValueError, TypeError, AttributeError, zlib.error):
        raise TspruneError(
            f"{store.path} is damaged (unreadable tables); move it away to start a new one"
        ) from None
