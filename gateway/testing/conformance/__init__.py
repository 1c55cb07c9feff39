"""What a server in front of a model promises its clients, checked over HTTP: `gateway conformance`. Knows no engine.

Each check asks for one feature and looks at what the answer means. A feature passes, is refused (a 400 that names the
engine and the feature), or fails.
"""

from gateway.testing.conformance.check import Check, Outcome, Result
from gateway.testing.conformance.run import GROUPS, run

__all__ = ["GROUPS", "Check", "Outcome", "Result", "run"]
