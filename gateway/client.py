"""What commands ask of a running gateway over HTTP, with errors that say what to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from gateway.errors import ConfigError


def get_json(address: str, api_key: str, accept: Sequence[int] = (200,)) -> Any:
    """GET a JSON page. Raises ConfigError where nothing answers, or where the answer's status is not in `accept`."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        # trust_env off: a proxy of the environment must not stand between a person and their own machine.
        answer = httpx.get(address, headers=headers, timeout=15, trust_env=False)
    except httpx.TransportError as error:
        raise ConfigError(f"nothing answers at {address} ({error}): start a gateway with `gateway serve`") from error
    if answer.status_code == 401 and 401 not in accept:
        raise ConfigError(f"{address} needs a key: give --api-key or set GATEWAY_API_KEY")
    if answer.status_code not in accept:
        raise ConfigError(f"{address} answers {answer.status_code}: {answer.text[:500]}")
    try:
        return answer.json()
    except ValueError as error:
        raise ConfigError(f"{address} is no gateway: its answer is not JSON") from error
