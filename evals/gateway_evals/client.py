"""Asks a running gateway over HTTP: models, tokens, answers, log-likelihoods. Retries; knows no task and no metric."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httpx

from gateway_evals.errors import EvaluationError, SampleFailed

RETRIED = frozenset({408, 429, 500, 502, 503, 504})
"""500 is among them because a proxy before a dying replica answers it for 502 to 504."""

LONGEST_WAIT_S = 60.0
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


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
    ) -> None:
        self.root = base_url.rstrip("/").removesuffix("/v1")
        host = urlsplit(self.root).hostname
        if host is None or urlsplit(self.root).scheme not in {"http", "https"}:
            raise EvaluationError(f"{base_url!r} is no address: expected something like http://127.0.0.1:8000")
        self._max_attempts = max_attempts
        self._first_wait_s = first_wait_s
        self._prefixes: dict[str, int] = {}
        self._http = httpx.AsyncClient(
            headers={"authorization": f"Bearer {api_key}"} if api_key else {},
            timeout=httpx.Timeout(timeout_s, connect=10.0, pool=None),
            limits=httpx.Limits(max_connections=2 * concurrency, max_keepalive_connections=2 * concurrency),
            # A proxy from the environment must not swallow what is meant for this machine.
            trust_env=host not in LOOPBACK,
        )

    async def __aenter__(self) -> GatewayClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def models(self) -> dict[str, ServedModel]:
        """What the gateway serves, by name. Raises EvaluationError that says what to do."""
        try:
            # One attempt: a person is waiting, and "not started yet" is the usual reason.
            response = await self._http.get(f"{self.root}/v1/models", timeout=10.0)
        except httpx.HTTPError as error:
            raise EvaluationError(
                f"nothing answers at {self.root}: start it with `gateway serve`, or name another with --base-url"
            ) from error
        _refuse_run(response)
        body = _json_object(response)
        if response.status_code != 200 or not isinstance(body.get("data"), list):
            raise EvaluationError(
                f"{self.root}/v1/models answered {response.status_code}, not a list of models: is this a gateway?"
            )
        rows = [cast("dict[str, Any]", row) for row in cast("list[Any]", body["data"]) if isinstance(row, dict)]
        return {str(row["id"]): self._served(row) for row in rows if "id" in row}

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
        """Send until answered. Raises SampleFailed after the last attempt, EvaluationError where none can succeed."""
        return await self._send("POST", url, payload)

    async def _send(self, method: str, url: str, payload: Mapping[str, Any] | None) -> Answer:
        problem, wait_s = "", 0.0
        for attempt in range(1, self._max_attempts + 1):
            await asyncio.sleep(wait_s)
            wait_s = self._backoff(attempt)
            started = time.perf_counter()
            try:
                response = await self._http.request(method, url, json=payload)
            except httpx.TimeoutException as error:
                problem = f"no answer in time ({type(error).__name__})"
                continue
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}".rstrip(": ")
                continue
            latency_s = time.perf_counter() - started
            if response.status_code == 200:
                body = _json_object(response)
                if body:
                    return Answer(body, latency_s, attempt, response.headers.get("x-gateway-target", ""))
                problem = "answered 200 without a JSON object"
                continue
            _refuse_run(response)
            problem = f"{response.status_code}: {_message(response)}"
            if response.status_code not in RETRIED:
                raise SampleFailed(problem)
            wait_s = max(wait_s, _retry_after_s(response))
        raise SampleFailed(f"{problem} (after {self._max_attempts} attempts)")

    def _backoff(self, attempt: int) -> float:
        # Spread out, so that requests turned away together do not come back together.
        return min(LONGEST_WAIT_S, self._first_wait_s * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)  # noqa: S311


def _refuse_run(response: httpx.Response) -> None:
    if response.status_code == 401:
        raise EvaluationError(
            f"the gateway wants a key ({_message(response)}): give one with --api-key or in GATEWAY_API_KEY"
        )
    if response.status_code == 403:
        raise EvaluationError(f"the gateway refuses this key: {_message(response)}")


def _retry_after_s(response: httpx.Response) -> float:
    """Seconds; 0 where the header is missing or is a date."""
    try:
        return min(LONGEST_WAIT_S, max(0.0, float(response.headers.get("retry-after", "0"))))
    except ValueError:
        return 0.0


def _json_object(response: httpx.Response) -> dict[str, Any]:
    try:
        body: Any = response.json()
    except ValueError:
        return {}
    return cast("dict[str, Any]", body) if isinstance(body, dict) else {}


def _message(response: httpx.Response) -> str:
    """The error's own words: OpenAI's shape, or the start of whatever came."""
    error: Any = _json_object(response).get("error")
    if isinstance(error, dict):
        return str(cast("dict[str, Any]", error).get("message", ""))[:500]
    return " ".join(response.text.split())[:200] or response.reason_phrase
