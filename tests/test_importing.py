from __future__ import annotations

import gc
import importlib
import importlib.util
import sys

import pytest

from gateway.importing import importing

RARE = "colorsys"
"""A module of Python's own that nothing here needs."""


@pytest.fixture(autouse=True)
def not_yet_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, RARE, raising=False)


def test_cycles_are_looked_for_again_afterwards() -> None:
    with importing():
        assert not gc.isenabled()
        with importing():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_what_is_left_out_counts_as_not_installed_inside_alone() -> None:
    with importing(without=(RARE,)):
        assert importlib.util.find_spec(RARE) is None
        with pytest.raises(ImportError):
            importlib.import_module(RARE)
    assert importlib.import_module(RARE).__name__ == RARE


def test_what_was_imported_before_stays() -> None:
    before = importlib.import_module(RARE)
    with importing(without=(RARE,)):
        assert importlib.import_module(RARE) is before
    assert sys.modules[RARE] is before


def test_an_import_that_fails_leaves_all_as_it_was() -> None:
    with pytest.raises(ZeroDivisionError), importing(without=(RARE,)):
        raise ZeroDivisionError
    assert gc.isenabled() and RARE not in sys.modules
