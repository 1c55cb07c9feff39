"""What a model's settings say that its answers depend on."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway.engine import EngineInfo
from gateway.errors import ConfigError
from gateway.openai.calls import FORMATS
from gateway.openai.reasoning import MARKS

if TYPE_CHECKING:
    from gateway.backend import BackendContext


def engine_info(context: BackendContext, engine: str) -> EngineInfo:
    """What `build_app` has to know of a model. Raises ConfigError where its settings name parsers that there are none
    of here."""
    spec = context.spec
    for name, value, known in (
        ("tool_parser", spec.tool_parser, FORMATS),
        ("reasoning_parser", spec.reasoning_parser, MARKS),
    ):
        if value is not None and value not in known:
            where = f"models.{context.name}.{name}"
            raise ConfigError(f"{where}: the {engine} backend knows {', '.join(known)}, not {value!r}")
    return EngineInfo(
        context.name,
        engine,
        created=int(time.time()),
        tool_parser=spec.tool_parser,
        reasoning_parser=spec.reasoning_parser,
    )
