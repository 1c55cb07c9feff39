"""Importing what is large: Ray Serve, torch, Transformers, vLLM, Gradio. Most of a model's start is that."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Collection, Generator
from contextlib import contextmanager
from typing import Any


@contextmanager
def importing(*, without: Collection[str] = ()) -> Generator[None]:
    """Import large libraries inside this block: a quarter of the time less, and more with names in `without`.

    Python looks for cycles each time that objects have become more. While modules are loaded they only become more, and
    no cycle among them ends: the search is put off until the block ends. `without` names libraries that count as not
    installed inside the block, for those who would load them, large as they are, for things that nothing here does. A
    library that was imported before stays; one that needs a name in `without` raises ImportError.

    The search and the names belong to the whole process: use it where a process starts, not where it answers.
    """
    hidden = [name for name in without if name not in sys.modules]
    searched = gc.isenabled()
    gc.disable()
    for name in hidden:
        sys.modules[name] = None  # pyright: ignore[reportArgumentType] (the import system's own sign for "not here")
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
        if searched:
            gc.enable()


def import_transformers() -> Any:
    """Transformers, with all that loads a language model; without what it would load for assisted generation and for
    the losses of image models."""
    with importing(without=("sklearn", "scipy")):
        # It loads its parts when they are first asked for.
        importlib.import_module("transformers.models.auto.modeling_auto")
    return importlib.import_module("transformers")
