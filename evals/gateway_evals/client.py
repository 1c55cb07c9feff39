"""Asks a running gateway over HTTP: models, tokens, answers, log-likelihoods. Retries; knows no task and no metric."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp

from gateway_evals.cache import IDENTITY, AnswerCache, cache_key
from gateway_evals.errors import EvaluationError, SampleFailed
from gateway_evals.pacing import BUSY, Pace
from gateway_evals.streamed import BrokenStreamError, StreamedAnswer, can_stream

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""500 is among them because a proxy before a dying replica answers it for 502 to 504."""

LONGEST_WAIT_S = 60.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_KEPT = ("body", "latency_s", "target", "ttft_s", "overhead_ms")
"""Of an answer in the cache."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """One row of `/v1/models`, and where to send its requests."""

    name: str
    url: str
    """The OpenAI root for this model: its fast lane where it has one, else the gateway's `/v1`."""
    facts: Mapping[str, Any]
    """What the gateway says of the model: backend, dtype, digest, …"""
    max_model_len: int | None = None
    """Longest context, in tokens, where the server tells."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response's body and what it cost."""

    body: Mapping[str, Any]
    latency_s: float
    """Of the attempt that succeeded."""
    attempts: int
    target: str
    """`x-gateway-target`, or ""."""
    ttft_s: float | None = None
    """Until the first token, where the answer was streamed."""
    overhead_ms: float | None = None
    """`x-gateway-overhead-ms`: time until the first byte that was not the backend's."""
    cached: bool = False
    """Answered from the cache; times are those of the answer when it was given."""


class GatewayClient:
    """One connection pool to one gateway. Use as an async context manager."""

    def __init__(
        self,
        base_url: str,
        api_key: str | None = None,
        *,
        concurrency: int = 16,
        timeout_s: float = 120.0,
        max_attempts: int = 6,
        first_wait_s: float = 0.5,
        stream: bool = False,
        cache: Path | None = None,
    ) -> None:
        """`stream`: texts are streamed, so that the time of their first token is known. `cache`: where answers are kept
        and looked up. Raises EvaluationError for an address or a cache that cannot be used."""
        self.root = base_url.rstrip("/").removesuffix("/v1")
        host = urlsplit(self.root).hostname
        if host is None or urlsplit(self.root).scheme not in {"http", "https"}:
            raise EvaluationError(f"{base_url!r} is no address: expected something like http://127.0.0.1:8000")
        self.pace = Pace(concurrency, timeout_s / 2)
        self._max_attempts = max_attempts
        self._first_wait_s = first_wait_s
        self._stream = stream
        self._cache = AnswerCache(cache) if cache is not None else None
        self._identities: dict[str, Mapping[str, Any]] = {}
        self._prefixes: dict[str, int] = {}
        self._headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
        self._timeout = aiohttp.ClientTimeout(total=timeout_s, connect=min(10.0, timeout_s))
        # A proxy from the environment must not swallow what is meant for this machine.
        self._trust_env = host not in LOOPBACK
        self._opened: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> GatewayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._opened is not None:
            await self._opened.close()
        if self._cache is not None:
            self._cache.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        # Made inside the loop that uses it. The pace bounds connections, not the pool.
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                headers=self._headers,
                timeout=self._timeout,
                trust_env=self._trust_env,
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=15),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._opened

    async def models(self) -> dict[str, ServedModel]:
        """What the gateway serves, by name. Raises EvaluationError that says what to do."""
        try:
            # One attempt: a person is waiting, and "not started yet" is the usual reason.
            async with self._http.get(f"{self.root}/v1/models", timeout=aiohttp.ClientTimeout(total=10.0)) as response:
                content = await response.read()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise EvaluationError(
                f"nothing answers at {self.root}: start it with `gateway serve`, or name another with --base-url"
            ) from error
        _refuse_run(response.status, content)
        body = _json_object(content)
        if response.status != 200 or not isinstance(body.get("data"), list):
            raise EvaluationError(
                f"{self.root}/v1/models answered {response.status}, not a list of models: is this a gateway?"
            )
        rows = [cast("dict[str, Any]", row) for row in cast("list[Any]", body["data"]) if isinstance(row, dict)]
        served = {str(row["id"]): self._served(row) for row in rows if "id" in row}
        for row in rows:
            self._know(row, served)
        return served

    def _served(self, row: Mapping[str, Any]) -> ServedModel:
        told = row.get("gateway")
        facts = cast("dict[str, Any]", told) if isinstance(told, dict) else {}
        lane = facts.get("url")
        url = f"{self.root}/v1"
        if isinstance(lane, str) and lane:
            # Only the lane's path counts: the gateway knows itself as 127.0.0.1, we may have come through a tunnel, and
            # a key goes to no other host than the one it was given for.
            origin = urlsplit(self.root)
            url = f"{origin.scheme}://{origin.netloc}{urlsplit(lane).path.rstrip('/')}"
        length = row.get("max_model_len")
        return ServedModel(
            str(row["id"]),
            url,
            {key: value for key, value in facts.items() if key != "url"},
            length if isinstance(length, int) else None,
        )

    def _know(self, row: Mapping[str, Any], served: Mapping[str, ServedModel]) -> None:
        """What decides this model's answers. An adapter's are its own digest's and its base's together."""
        model = served.get(str(row.get("id")))
        if model is None or "targets" in model.facts:
            return
        parent = row.get("parent")
        if not parent:
            self._identities[model.name] = model.facts
        elif (base := served.get(str(parent))) is not None and base.facts.get("digest"):
            told = {name: base.facts.get(name) for name in IDENTITY}
            self._identities[model.name] = {**model.facts, "base": told}

    async def memory_bytes(self, model: ServedModel) -> int | None:
        """Resident memory of one replica and of the processes it started: the largest one's, as the gateway sees it.
        None for a route and for a server that does not tell. An adapter's is its base's."""
        try:
            async with self._http.get(f"{self.root}/status", timeout=aiohttp.ClientTimeout(total=10.0)) as response:
                body = _json_object(await response.read()) if response.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError):
            return None
        name = model.name.partition(":")[0]
        rows = [row for row in _objects(body.get("models")) if row.get("id") == name]
        told = [replica.get("memory_bytes") for row in rows for replica in _objects(row.get("replicas"))]
        return max((value for value in told if isinstance(value, int)), default=None)

    async def tokenize(self, model: ServedModel, text: str) -> list[int]:
        """Token ids of a text, without special tokens. Raises SampleFailed."""
        payload = {"model": model.name, "prompt": text, "add_special_tokens": False}
        answer = await self.post(f"{self.root}/tokenize", payload)
        tokens = answer.body.get("tokens")
        if not isinstance(tokens, list):
            raise SampleFailed(f"/tokenize of {model.name} answered without `tokens`")
        return cast("list[int]", tokens)

    async def prefix_token(self, model: ServedModel) -> int:
        """What a text without context stands after: the tokenizer's BOS or EOS token. Raises SampleFailed."""
        if model.name not in self._prefixes:
            told = (await self._send("GET", f"{model.url.removesuffix('/v1')}/tokenizer_info", None)).body
            text = told.get("bos_token") or told.get("eos_token")
            tokens = await self.tokenize(model, text) if isinstance(text, str) else []
            if len(tokens) != 1:
                raise SampleFailed(f"{model.name} names no BOS or EOS token that is one token: {text!r}")
            self._prefixes[model.name] = tokens[0]
        return self._prefixes[model.name]

    async def post(self, url: str, payload: Mapping[str, Any]) -> Answer:
        """Send until answered, or answer from the cache. Raises SampleFailed after the last attempt, EvaluationError
        where none can succeed."""
        key = None
        if self._cache is not None:
            identity = self._identities.get(str(payload.get("model")))
            key = cache_key(identity, url.rpartition("/v1/")[2], payload)
            if key is not None and (kept := self._cache.get(key)) is not None:
                return Answer(**kept, cached=True)
        if self._stream and can_stream(payload):
            payload = {**payload, "stream": True, "stream_options": {"include_usage": True}}
        answer = await self._send("POST", url, payload)
        if self._cache is not None and key is not None:
            kept = {name: getattr(answer, name) for name in _KEPT}
            self._cache.put(key, {**kept, "attempts": 1})
        return answer

    async def _send(self, method: str, url: str, payload: Mapping[str, Any] | None) -> Answer:
        wait_s = 0.0
        content = None if payload is None else json.dumps(payload, ensure_ascii=False).encode()
        result: Answer | _Refusal = _Refusal("not asked")
        for attempt in range(1, self._max_attempts + 1):
            if wait_s:
                await asyncio.sleep(wait_s)
            number = await self.pace.enter()
            started = time.perf_counter()
            busy = False
            try:
                result = await self._attempt(method, url, content, attempt)
                busy = isinstance(result, _Refusal) and result.busy
            finally:
                self.pace.leave(number, busy=busy, latency_s=time.perf_counter() - started)
            if isinstance(result, Answer):
                return result
            if result.final:
                raise SampleFailed(result.message)
            wait_s = max(self._backoff(attempt), result.retry_after_s)
        raise SampleFailed(f"{result.message} (after {self._max_attempts} attempts)")  # pyright: ignore

    async def _attempt(self, method: str, url: str, content: bytes | None, attempt: int) -> Answer | _Refusal:
        """Raises EvaluationError where no request can succeed."""
        started = time.perf_counter()
        headers = {"content-type": "application/json"} if content is not None else {}
        first_s = None
        try:
            async with self._http.request(method, url, data=content, headers=headers) as response:
                if response.content_type == "text/event-stream" and response.status == 200:
                    streamed = StreamedAnswer()
                    async for data in response.content.iter_any():
                        streamed.feed(data)
                        if first_s is None and streamed.begun:
                            first_s = time.perf_counter() - started
                    body = streamed.body()
                else:
                    whole = await response.read()
                    body = _json_object(whole)
                    if response.status != 200:
                        return _refused(response, whole)
        except TimeoutError:
            return _Refusal("no answer in time", busy=True)
        except BrokenStreamError as error:
            return _Refusal(str(error))
        except aiohttp.ClientError as error:
            return _Refusal(f"{type(error).__name__}: {error}".rstrip(": "))
        if not body:
            return _Refusal("answered 200 without a JSON object")
        told = response.headers
        return Answer(
            body,
            latency_s=time.perf_counter() - started,
            attempts=attempt,
            target=told.get("x-gateway-target", ""),
            ttft_s=first_s,
            overhead_ms=_number(told.get("x-gateway-overhead-ms")),
        )

    def _backoff(self, attempt: int) -> float:
        # Spread out, so that requests turned away together do not come back together.
        return min(LONGEST_WAIT_S, self._first_wait_s * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311


@dataclass(frozen=True, slots=True)
class _Refusal:
    """An attempt without an answer."""

    message: str
    final: bool = False
    """Asking again would change nothing."""
    busy: bool = False
    """The server has more to do than it can: fewer requests at once would help."""
    retry_after_s: float = 0.0


def _refused(response: aiohttp.ClientResponse, content: bytes) -> _Refusal:
    _refuse_run(response.status, content)
    return _Refusal(
        f"{response.status}: {_message(content) or response.reason}",
        final=response.status not in RETRIED,
        busy=response.status in BUSY,
        retry_after_s=min(LONGEST_WAIT_S, max(0.0, _number(response.headers.get("retry-after")) or 0.0)),
    )


def _refuse_run(status: int, content: bytes) -> None:
    if status == 401:
        raise EvaluationError(
            f"the gateway wants a key ({_message(content)}): give one with --api-key or in GATEWAY_API_KEY"
        )
    if status == 403:
        raise EvaluationError(f"the gateway refuses this key: {_message(content)}")


def _number(text: str | None) -> float | None:
    """None where a header is missing or is something else (a date)."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return None


def _json_object(content: bytes) -> dict[str, Any]:
    try:
        body: Any = json.loads(content)
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list; none where it is something else."""
    rows = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", row) for row in rows if isinstance(row, dict)]


def _message(content: bytes) -> str:
    """The error's own words: OpenAI's shape, or the start of whatever came."""
    error: Any = _json_object(content).get("error")
    if isinstance(error, dict):
        return str(cast("dict[str, Any]", error).get("message", ""))[:500]
    return " ".join(content.decode(errors="replace").split())[:200]
