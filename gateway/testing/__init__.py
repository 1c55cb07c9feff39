"""For plugin authors: a contract every backend keeps, a client that drives its ASGI app without a server, and
`conformance`, which asks a running server. Only the contract imports pytest, and only where it is asked for.

In your conftest.py: `pytest.register_assert_rewrite("gateway.testing")`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gateway.testing.client import Answer, AppClient, Exchange

if TYPE_CHECKING:
    from gateway.testing.contract import BackendContract

__all__ = ["Answer", "AppClient", "BackendContract", "Exchange"]


def __getattr__(name: str) -> Any:
    # `gateway conformance` runs where no pytest is installed.
    if name == "BackendContract":
        from gateway.testing.contract import BackendContract

        return BackendContract
    raise AttributeError(name)
