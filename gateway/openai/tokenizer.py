"""A Hugging Face folder's tokenizer, by the `tokenizers` library alone: imports neither torch nor transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import msgspec
from tokenizers import Tokenizer as RustTokenizer

from gateway.engine import DecodeStream
from gateway.errors import SourceError, Unsupported
from gateway.openai.chat_template import ChatTemplate
from gateway.openai.decoding import ByteStream, WindowStream, decoder_kinds, piece_bytes
from gateway.openai.guidance import Guidance, of_tokenizer_json

_SPECIAL_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class _TokenizerFile(msgspec.Struct):
    """The one part of `tokenizer.json` that the library does not tell."""

    decoder: dict[str, Any] | None = None


class HuggingFaceTokenizer:
    """`gateway.engine.Tokenizer` from `tokenizer.json` and the files beside it."""

    def __init__(self, folder: Path) -> None:
        """Raises SourceError, naming the file, where one is missing or broken."""
        path = folder / "tokenizer.json"
        try:
            content = path.read_bytes()
            self._tokenizer = RustTokenizer.from_buffer(content)
            kinds = decoder_kinds(msgspec.json.decode(content, type=_TokenizerFile).decoder)
        except OSError as error:
            raise SourceError(f"{path}: cannot be read: {error.strerror}") from error
        except Exception as error:  # the library raises bare Exceptions
            raise SourceError(f"{path}: is no tokenizer: {error}") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        added = self._tokenizer.get_added_tokens_decoder()
        self._special = frozenset(token_id for token_id, token in added.items() if token.special)
        self._pieces = _Pieces(self._tokenizer, kinds, frozenset(added))
        self._shown = _Shown(self._pieces, self._special)
        self._byte_level = "ByteLevel" in kinds
        settings = _read(folder / "tokenizer_config.json")
        tokens = {name: text for name in _SPECIAL_TOKENS if (text := _token_text(settings.get(name))) is not None}
        self.bos_token: str | None = tokens.get("bos_token")
        self.eos_token: str | None = tokens.get("eos_token")
        self.pad_token: str | None = tokens.get("pad_token")
        vocabulary = self._tokenizer.get_vocab(with_added_tokens=True)
        self.vocab_size = max(vocabulary.values(), default=-1) + 1
        self.longest_token = max(map(len, vocabulary), default=1)
        """In characters: a text of more than so many for each token of a context cannot fit it."""
        self.eos_token_ids = self._end_ids(folder)
        self.chat_template: str | None = _template_text(folder, settings)
        self._template = None if self.chat_template is None else ChatTemplate(self.chat_template, tokens)
        self.guidance: Guidance = of_tokenizer_json(self._tokenizer.to_str, sorted(self.eos_token_ids))
        """Grammars over this vocabulary."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids

    def decode(self, token_ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=skip_special_tokens)

    def token_text(self, token_id: int) -> str:
        return self._pieces[token_id].decode(errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        return self._pieces[token_id]

    def decode_stream(self) -> DecodeStream:
        if self._byte_level:
            return ByteStream(self._shown.__getitem__)
        return WindowStream(self._tokenizer.decode, self._is_text)

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **template_kwargs: Any) -> str:
        if self._template is None:
            raise Unsupported("this model has no chat template: use /v1/completions", param="messages")
        return self._template.render(messages, **template_kwargs)

    def _is_text(self, token_id: int) -> bool:
        return token_id not in self._special

    def _end_ids(self, folder: Path) -> frozenset[int]:
        """The generation settings' end tokens (the model's own where there are none), and the tokenizer's."""
        generation = _read(folder / "generation_config.json", needed=False)
        model = _read(folder / "config.json", needed=False)
        named = generation.get("eos_token_id")
        if named is None:
            named = model.get("eos_token_id")
        listed = cast(list[Any], named) if isinstance(named, list) else [named]
        ends = {token_id for token_id in listed if isinstance(token_id, int)}
        if self.eos_token is not None and (own := self._tokenizer.token_to_id(self.eos_token)) is not None:
            ends.add(own)
        return frozenset(ends)


class _Pieces(dict[int, bytes]):
    """The bytes of each token, found when first asked for."""

    def __init__(self, tokenizer: RustTokenizer, kinds: frozenset[str], added: frozenset[int]) -> None:
        super().__init__()
        self._tokenizer = tokenizer
        self._kinds = kinds
        self._added = added

    def __missing__(self, token_id: int) -> bytes:
        piece = self._tokenizer.id_to_token(token_id)
        # A model may have more rows than its tokenizer has tokens: these are no text.
        found = b"" if piece is None else piece.encode() if token_id in self._added else piece_bytes(piece, self._kinds)
        self[token_id] = found
        return found


class _Shown(dict[int, bytes]):
    """The same, with nothing for special tokens."""

    def __init__(self, pieces: _Pieces, special: frozenset[int]) -> None:
        super().__init__()
        self._pieces = pieces
        self._special = special

    def __missing__(self, token_id: int) -> bytes:
        shown = self[token_id] = b"" if token_id in self._special else self._pieces[token_id]
        return shown


def _read(path: Path, *, needed: bool = True) -> dict[str, Any]:
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except FileNotFoundError as error:
        if not needed:
            return {}
        raise SourceError(f"{path}: is missing") from error
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}: cannot be read: {error}") from error


def _token_text(token: Any) -> str | None:
    """A special token as settings hold it: its text, or an object with its text."""
    if isinstance(token, dict):
        token = cast(dict[str, Any], token).get("content")
    return token if isinstance(token, str) else None


def _template_text(folder: Path, settings: Mapping[str, Any]) -> str | None:
    """The chat template: a file of its own, or a setting; of several named ones, the default."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):
        named = {entry.get("name"): entry.get("template") for entry in cast(list[dict[str, Any]], template)}
        template = named.get("default")
    return template if isinstance(template, str) else None
