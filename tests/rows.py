"""What tests that run beside each other share out. `make test` runs two rows of them on two cores."""

from __future__ import annotations

import os

from gateway.config import ResourceSpec

SHARE = ResourceSpec(threads=1 if "PYTEST_XDIST_WORKER" in os.environ else None)
"""Of one engine: two that each compute with every core wait for each other at every step."""
