"""One tree of errors; each class has an HTTP status and OpenAI's `type` and `code`. Knows nothing of HTTP servers.

GatewayError
├── InvalidRequest          400   the body or a field cannot be understood
│   ├── ContextOverflow     400   context_length_exceeded
│   ├── Unsupported         400   the engine cannot do what was asked, and says which
│   └── AdapterError        400   an adapter cannot be found, verified or loaded, and says why
├── Unauthenticated         401
├── Forbidden               403
├── NotFound                404
│   └── ModelNotFound       404   model_not_found
├── MethodNotAllowed        405   the page exists, but not for this method
├── Conflict                409   it is there already, or is no longer what it was
├── BodyTooLarge            413
├── TooManyRequests         429   carries Retry-After
├── BackendFailed           502   a target answered with something broken
├── Unavailable             503   no target is up
└── ConfigError             500   never sent: raised while a config is read or a gateway starts
    ├── SourceError               weights cannot be found, verified or converted
    └── PluginError               a plugin is missing, broken or offers a name twice
"""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec


class GatewayError(Exception):
    """Root of all errors of ours. `message` is for people and says what to do."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    code: ClassVar[str | None] = None

    def __init__(self, message: str, *, param: str | None = None, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The error in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self.body())

    def headers(self) -> list[tuple[bytes, bytes]]:
        headers = [(b"content-type", b"application/json")]
        if self.retry_after_s is not None:
            headers.append((b"retry-after", str(max(1, round(self.retry_after_s))).encode()))
        if self.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        return headers


class InvalidRequest(GatewayError):
    """The request cannot be understood or asks for something impossible."""

    status = 400
    type = "invalid_request_error"


class ContextOverflow(InvalidRequest):
    """Prompt and answer do not fit the model's context."""

    code = "context_length_exceeded"


class Unsupported(InvalidRequest):
    """The engine cannot do what was asked; the message names the engine and the feature."""

    code = "unsupported_feature"


class AdapterError(InvalidRequest):
    """An adapter cannot be found, verified or loaded; the message lists what is wrong with it."""

    code = "adapter_error"


class Unauthenticated(GatewayError):
    """No key, or one nobody issued."""

    status = 401
    type = "authentication_error"
    code = "invalid_api_key"


class Forbidden(GatewayError):
    """Known, but not allowed."""

    status = 403
    type = "permission_error"
    code = "forbidden"


class NotFound(GatewayError):
    """No such page."""

    status = 404
    type = "invalid_request_error"
    code = "not_found"


class ModelNotFound(NotFound):
    """No model, route or adapter has this name."""

    code = "model_not_found"


class MethodNotAllowed(GatewayError):
    """The page exists, but not for this method."""

    status = 405
    type = "invalid_request_error"
    code = "method_not_allowed"


class Conflict(GatewayError):
    """What is asked does not fit the state of things: it exists already, or is over."""

    status = 409
    type = "invalid_request_error"
    code = "conflict"


class BodyTooLarge(GatewayError):
    """The body is larger than the gateway accepts."""

    status = 413
    type = "invalid_request_error"
    code = "body_too_large"


class TooManyRequests(GatewayError):
    """Over a limit; Retry-After says when to come again."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"


class BackendFailed(GatewayError):
    """A target answered with something broken."""

    status = 502
    code = "backend_failed"


class Unavailable(GatewayError):
    """No target is up."""

    status = 503
    type = "service_unavailable_error"
    code = "unavailable"


class ConfigError(GatewayError):
    """A config or a start that cannot work. The message is one line that says what to do."""

    code = "config_error"


class SourceError(ConfigError):
    """Weights cannot be found, verified or converted."""

    code = "source_error"


class PluginError(ConfigError):
    """A plugin is missing, broken, or offers a name that another one has."""

    code = "plugin_error"
