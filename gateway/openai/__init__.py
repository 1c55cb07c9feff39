"""The OpenAI surface over a typed engine; runs in the model replica. Knows no Ray and imports no engine."""

from gateway.openai.app import Health, build_app
from gateway.openai.info import engine_info

__all__ = ["Health", "build_app", "engine_info"]
