"""The OpenAI surface over a typed engine, as a plain ASGI app: routes, bodies, errors. Knows no engine, no server."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, NamedTuple, cast

import msgspec

from gateway.attention import Attention
from gateway.engine import EngineInfo, TextEngine
from gateway.errors import GatewayError, InvalidRequest, MethodNotAllowed, ModelNotFound, NotFound
from gateway.openai.answer import JSON, answer_stream, answer_whole, send_body
from gateway.openai.chat import begin_chat, plain_messages, template_kwargs
from gateway.openai.completions import begin_completion
from gateway.openai.prompts import encode
from gateway.openai.requests import ChatRequest, CompletionRequest, DetokenizeRequest, TokenizeRequest, decode
from gateway.openai.tools import offered, told
from gateway.types import ASGIApp, Receive, Scope, Send

log = logging.getLogger("gateway.openai")

Health = Callable[[], Mapping[str, Any]]
Handler = Callable[[Receive, Send], Awaitable[None]]

_chat = msgspec.json.Decoder(ChatRequest)
_completion = msgspec.json.Decoder(CompletionRequest)
_tokenize = msgspec.json.Decoder(TokenizeRequest)
_detokenize = msgspec.json.Decoder(DetokenizeRequest)
_json = msgspec.json.Encoder().encode


class Asked(NamedTuple):
    """Who is to answer a request."""

    name: bytes
    """What the answer says as `model`, as JSON."""
    adapter: str | None
    """Its id; None: the base alone."""


def build_app(engine: TextEngine, info: EngineInfo, *, health: Health | None = None) -> ASGIApp:
    """Dress an engine as OpenAI endpoints. It answers to `info.name` and to the ids in the engine's `adapters`, where
    it has any (`gateway.engine.AdapterEngine`); to any other `model` with 404.

    `health` gives what `GET /health` says beside `status`; it raises a GatewayError where the engine is ill.
    """
    return OpenAIApp(engine, info, health)


class OpenAIApp:
    """One engine's endpoints."""

    def __init__(self, engine: TextEngine, info: EngineInfo, health: Health | None = None) -> None:
        self._engine = engine
        self._info = info
        self._base = Asked(_json(info.name), None)
        self._health = health
        self._routes: dict[str, dict[str, Handler]] = {
            "/v1/chat/completions": {"POST": self._chats},
            "/v1/completions": {"POST": self._completes},
            "/tokenize": {"POST": self._tokenizes},
            "/detokenize": {"POST": self._detokenizes},
            "/tokenizer_info": {"GET": self._tells_tokenizer},
            "/health": {"GET": self._tells_health},
            "/v1/models": {"GET": self._tells_models},
        }

    @property
    def _adapters(self) -> Collection[str]:
        """Ids of what is loaded beside the base now."""
        return getattr(self._engine, "adapters", ())

    def _asked(self, model: str | None) -> Asked:
        """Raises ModelNotFound where nothing here has this name: the base never answers for an adapter."""
        if model is None or model == self._info.name:
            return self._base
        if model in self._adapters:
            return Asked(_json(model), model)
        there = ", ".join(map(repr, (self._info.name, *sorted(self._adapters))))
        raise ModelNotFound(f"no model {model!r}; there is {there}", param="model")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000, "reason": "no WebSocket here"})

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def watched(message: Any) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._handler(scope)(receive, watched)
        except GatewayError as error:
            if started:
                raise
            headers = error.headers()
            if isinstance(error, MethodNotAllowed):
                allowed = self._routes.get(_path(scope), ("GET",))
                headers.append((b"allow", ", ".join(allowed).encode()))
            await send_body(error.status, headers, error.to_json(), send)
        except _LeftError:
            return
        except OSError:
            # `send` failed: nobody is left to be told, and whoever called knows.
            raise
        except Exception:
            if started:
                raise
            log.exception("%s %s failed", scope["method"], scope["path"])
            failure = GatewayError("the server failed; its log says why")
            await send_body(failure.status, failure.headers(), failure.to_json(), send)

    def _handler(self, scope: Scope) -> Handler:
        path = _path(scope)
        methods = self._routes.get(path)
        if methods is None:
            if not path.startswith("/v1/models/"):
                raise NotFound(f"no page {path}")
            asked = self._asked(path.removeprefix("/v1/models/"))
            methods = {"GET": self._tells_model(asked.adapter)}
        handler = methods.get(scope["method"])
        if handler is None:
            raise MethodNotAllowed(f"{path} takes {', '.join(methods)}, not {scope['method']}")
        return handler

    async def _chats(self, receive: Receive, send: Send) -> None:
        request = decode(_chat, await _read(receive))
        run = answer_stream if request.stream else answer_whole
        with Attention(receive):
            asked = self._asked(request.model)
            choices, writer = await begin_chat(request, self._engine, self._info, asked.name, asked.adapter)
            await run(self._engine, choices, writer, send)

    async def _completes(self, receive: Receive, send: Send) -> None:
        request = decode(_completion, await _read(receive))
        run = answer_stream if request.stream else answer_whole
        with Attention(receive):
            asked = self._asked(request.model)
            choices, writer = await begin_completion(request, self._engine, self._info, asked.name, asked.adapter)
            await run(self._engine, choices, writer, send)

    async def _tokenizes(self, receive: Receive, send: Send) -> None:
        request = decode(_tokenize, await _read(receive))
        tokenizer = self._engine.tokenizer
        messages = request.messages
        if messages is None and isinstance(request.prompt, list):
            if not all(isinstance(item, dict) for item in request.prompt):
                raise InvalidRequest("`prompt` must be a string or messages", param="prompt")
            messages = cast(list[dict[str, Any]], request.prompt)
        if messages is not None:
            kwargs = template_kwargs(request.chat_template_kwargs, request.add_generation_prompt)
            tools = offered(request, self._info.engine)
            if tools is not None:
                kwargs["tools"] = tools.given
            plain = plain_messages(messages, self._info.engine)
            text = tokenizer.render_chat(told(plain, tools, tokenizer.chat_template), **kwargs)
            special = bool(request.add_special_tokens)
        elif isinstance(request.prompt, str):
            text, special = request.prompt, request.add_special_tokens is not False
        else:
            raise InvalidRequest("`prompt` or `messages` is needed", param="prompt")
        ids = await encode(tokenizer, text, add_special_tokens=special)
        body: dict[str, Any] = {"tokens": ids, "count": len(ids), "max_model_len": self._engine.max_model_len}
        if request.return_token_strs:
            body["token_strs"] = [tokenizer.token_text(token) for token in ids]
        await _tell(body, send)

    async def _detokenizes(self, receive: Receive, send: Send) -> None:
        tokens = decode(_detokenize, await _read(receive)).tokens
        tokenizer = self._engine.tokenizer
        if tokens and not 0 <= min(tokens) <= max(tokens) < tokenizer.vocab_size:
            raise InvalidRequest(f"token ids must be 0 to {tokenizer.vocab_size - 1}", param="tokens")
        await _tell({"prompt": tokenizer.decode(tokens, skip_special_tokens=False)}, send)

    async def _tells_tokenizer(self, receive: Receive, send: Send) -> None:
        tokenizer = self._engine.tokenizer
        body = {
            "bos_token": tokenizer.bos_token,
            "eos_token": tokenizer.eos_token,
            "pad_token": tokenizer.pad_token,
            "chat_template": tokenizer.chat_template,
            "eos_token_ids": sorted(tokenizer.eos_token_ids),
            "vocab_size": tokenizer.vocab_size,
            "model_max_length": self._engine.max_model_len,
        }
        await _tell(body, send)

    async def _tells_health(self, receive: Receive, send: Send) -> None:
        await _tell({"status": "ok", **(self._health() if self._health else {})}, send)

    async def _tells_models(self, receive: Receive, send: Send) -> None:
        await _tell({"object": "list", "data": [self._row(name) for name in (None, *sorted(self._adapters))]}, send)

    def _tells_model(self, adapter: str | None) -> Handler:
        async def tell(receive: Receive, send: Send) -> None:
            await _tell(self._row(adapter), send)

        return tell

    def _row(self, adapter: str | None) -> dict[str, Any]:
        row = {
            "id": adapter or self._info.name,
            "object": "model",
            "created": self._info.created,
            "owned_by": "model-gateway",
            "root": adapter or self._info.name,
            "parent": adapter and self._info.name,
            "max_model_len": self._engine.max_model_len,
        }
        return row if adapter else {**row, **self._info.extra}


def _path(scope: Scope) -> str:
    """The page that is meant, wherever the app is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    return path[len(root) :] if root and path.startswith(root + "/") else path


class _LeftError(Exception):
    """The client left before its body was read."""


async def _read(receive: Receive) -> bytes:
    """The whole body; a single message where the gateway calls."""
    message = await receive()
    if not message.get("more_body") and message["type"] == "http.request":
        return message.get("body", b"")
    parts: list[bytes] = []
    while message["type"] == "http.request":
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)
        message = await receive()
    raise _LeftError


async def _live(receive: Receive, send: Send) -> None:
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})


async def _tell(data: Mapping[str, Any], send: Send) -> None:
    await send_body(200, [JSON], _json(data), send)
