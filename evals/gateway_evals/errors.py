"""What can go wrong in an evaluation, as branches of the gateway's tree of errors.

GatewayError
├── ConfigError
│   └── SuiteError       a suite, a task or its data cannot be used; names the YAML path
└── EvaluationError      the run as a whole cannot go on
    └── SampleFailed     one sample got no answer: counted and reported, never ends a run
"""

from __future__ import annotations

from gateway.errors import ConfigError, GatewayError


class SuiteError(ConfigError):
    """One problem a line, each with the file and the YAML path."""

    code = "suite_error"


class EvaluationError(GatewayError):
    """The run cannot go on: nothing answers, the key is refused, the model is unknown."""

    code = "evaluation_error"


class SampleFailed(EvaluationError):
    """One sample got no usable answer, after all retries."""

    code = "sample_failed"
