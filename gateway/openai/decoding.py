"""Tokens to text as they come, by the kind of decoder a tokenizer has. A stream gives what decoding the whole would."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Any

_Utf8Reader = codecs.getincrementaldecoder("utf-8")
_BYTE_PIECE = re.compile(r"^<0x([0-9A-Fa-f]{2})>$")
_REPLACEMENT = "\ufffd"
_LONGEST_WAIT = 16
"""Tokens that a window may hold back: a character of four byte tokens, and room for a run of them."""


def _byte_characters() -> dict[str, int]:
    """How byte-level tokenizers spell bytes: printable ones as themselves, the rest from U+0100 on (GPT-2's table)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    spelled = {chr(byte): byte for byte in plain}
    rest = [byte for byte in range(256) if byte not in set(plain)]
    return {**spelled, **{chr(0x100 + position): byte for position, byte in enumerate(rest)}}


_BYTE_OF = _byte_characters()


def decoder_kinds(decoder: dict[str, Any] | None) -> frozenset[str]:
    """The names of a `tokenizer.json`'s decoder and of those inside it."""
    if decoder is None:
        return frozenset()
    kinds = {str(decoder.get("type", ""))}
    for part in decoder.get("decoders", ()):
        kinds |= decoder_kinds(part)
    return frozenset(kinds)


def byte_level_bytes(piece: str) -> bytes:
    """The bytes of a byte-level piece; a piece that is spelled otherwise (an added token) is its own text."""
    try:
        return bytes([_BYTE_OF[character] for character in piece])
    except KeyError:
        return piece.encode()


def piece_bytes(piece: str, kinds: frozenset[str]) -> bytes:
    """The bytes of one vocabulary piece, as a tokenizer with these decoders means them."""
    if "ByteLevel" in kinds:
        return byte_level_bytes(piece)
    if "ByteFallback" in kinds and (byte := _BYTE_PIECE.match(piece)):
        return bytes([int(byte[1], 16)])
    if "WordPiece" in kinds:
        return piece.removeprefix("##").encode()
    return piece.replace("\u2581", " ").encode()


class ByteStream:
    """For byte-level tokenizers: each token is some bytes, and text is their UTF-8."""

    __slots__ = ("_bytes_of", "_reader")

    def __init__(self, bytes_of: Callable[[int], bytes]) -> None:
        """`bytes_of` gives b"" for tokens that are not text."""
        self._bytes_of = bytes_of
        self._reader = _Utf8Reader("replace")

    def step(self, token_ids: Sequence[int]) -> str:
        return self._reader.decode(b"".join(map(self._bytes_of, token_ids)))

    def flush(self) -> str:
        return self._reader.decode(b"", final=True)


class WindowStream:
    """For all others: what a token adds to the text of the few before it, since spaces depend on neighbours."""

    __slots__ = ("_decode", "_is_text", "_settled", "_window")

    def __init__(self, decode: Callable[[Sequence[int]], str], is_text: Callable[[int], bool]) -> None:
        self._decode = decode
        self._is_text = is_text
        self._window: list[int] = []
        self._settled = 0
        """How many of the window's tokens have been shown; they are kept for what they mean to the next."""

    def step(self, token_ids: Sequence[int]) -> str:
        return "".join([self._one(token) for token in token_ids if self._is_text(token)])

    def _one(self, token_id: int) -> str:
        self._window.append(token_id)
        shown, text = self._texts()
        incomplete = text.endswith(_REPLACEMENT) and len(self._window) - self._settled < _LONGEST_WAIT
        if incomplete or len(text) <= len(shown):
            return ""
        self._window = self._window[self._settled :]
        self._settled = len(self._window)
        return text[len(shown) :]

    def flush(self) -> str:
        shown, text = self._texts()
        self._window, self._settled = [], 0
        return text[len(shown) :]

    def _texts(self) -> tuple[str, str]:
        return self._decode(self._window[: self._settled]), self._decode(self._window)
