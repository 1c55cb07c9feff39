"""For plugin authors: a contract every backend keeps, and a client that drives its ASGI app without a server.

Only this room imports pytest. In your conftest.py: `pytest.register_assert_rewrite("gateway.testing")`.
"""

from gateway.testing.client import Answer, AppClient, Exchange
from gateway.testing.contract import BackendContract

__all__ = ["Answer", "AppClient", "BackendContract", "Exchange"]
