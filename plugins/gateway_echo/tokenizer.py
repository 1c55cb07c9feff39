"""A tokenizer without a vocabulary file: a token is a byte; three more mark a text's start, its echo and its end."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping, Sequence
from typing import Any

START, ECHO, END = 256, 257, 258
SPECIAL = {"<|start|>": START, "<|echo|>": ECHO, "<|end|>": END}
_TEXT = {token: text for text, token in SPECIAL.items()}
_Utf8Reader = codecs.getincrementaldecoder("utf-8")
_SPLIT = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")


class ByteTokenizer:
    """`gateway.engine.Tokenizer` over UTF-8 bytes."""

    bos_token: str | None = None
    eos_token: str | None = _TEXT[END]
    pad_token: str | None = _TEXT[END]
    # The last user message stands last, where the model looks for what to repeat.
    chat_template: str | None = (
        "{% for message in messages %}<|start|>{{ message.content }}{% endfor %}"
        "{% set users = messages | selectattr('role', 'equalto', 'user') | list %}"
        "{% if users and messages[-1].role != 'user' %}<|start|>{{ users[-1].content }}{% endif %}"
        "{% if add_generation_prompt is not defined or add_generation_prompt %}<|echo|>{% endif %}"
    )
    eos_token_ids = frozenset({END})
    vocab_size = 259

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """Bytes of the text. With special tokens, ECHO closes it: the model then knows what to repeat."""
        ids: list[int] = []
        for part in _SPLIT.split(text) if "<|" in text else (text,):
            ids.extend((SPECIAL[part],) if part in SPECIAL else part.encode())
        if add_special_tokens:
            ids.append(ECHO)
        return ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        known = [token for token in token_ids if token < 256] if skip_special_tokens else token_ids
        return b"".join([self.token_bytes(token) for token in known]).decode(errors="replace")

    def token_text(self, token_id: int) -> str:
        return self.token_bytes(token_id).decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return bytes((token_id,)) if token_id < 256 else _TEXT[token_id].encode()

    def decode_stream(self) -> ByteStream:
        return ByteStream()

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **template_kwargs: Any) -> str:
        """What `chat_template` gives, without the cost of a template."""
        texts = [f"<|start|>{message['content']}" for message in messages]
        if messages[-1]["role"] != "user":
            texts += [f"<|start|>{message['content']}" for message in messages if message["role"] == "user"][-1:]
        return "".join(texts) + ("<|echo|>" if template_kwargs.get("add_generation_prompt", True) else "")


class ByteStream:
    """`gateway.engine.DecodeStream` over bytes."""

    def __init__(self) -> None:
        self._reader = _Utf8Reader("replace")

    def step(self, token_ids: Sequence[int]) -> str:
        if token_ids and token_ids[-1] > 255:
            # The usual place for a special token, which has no text.
            token_ids = token_ids[:-1]
        try:
            return self._reader.decode(bytes(token_ids))
        except ValueError:
            return self._reader.decode(bytes([token for token in token_ids if token < 256]))

    def flush(self) -> str:
        return self._reader.decode(b"", final=True)
