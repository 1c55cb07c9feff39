"""Anthropic's Messages API in terms of chat completions: the same on every engine that has these. Pure translation of
bodies and events: knows no request's way and no Ray."""

from gateway.messages.answer import count_of, error_body, message_of
from gateway.messages.request import chat_of, tokenize_of
from gateway.messages.stream import MessageStream

__all__ = ["MessageStream", "chat_of", "count_of", "error_body", "message_of", "tokenize_of"]
