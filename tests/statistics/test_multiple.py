"""Holm's correction by hand."""

from __future__ import annotations

import numpy as np
import pytest

from tsprune.statistics import holm


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]).tolist() == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]).tolist() == pytest.approx([1.0, 1.0])
    np.testing.assert_allclose(holm([np.nan, 0.02]), [np.nan, 0.02])
    assert len(holm([])) == 0
