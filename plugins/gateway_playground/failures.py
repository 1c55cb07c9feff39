"""What went wrong, in words for the person in front of the page. Knows HTTP statuses; shows no key and no traceback."""

from __future__ import annotations

from typing import cast

import httpx
import msgspec

from gateway.tabs import AskError


def of_status(status: int, body: bytes, headers: httpx.Headers, *, model: str = "", with_key: bool = False) -> AskError:
    """The failure behind an answer that is not a 200."""
    failure = _of_status(status, told(body), headers, model, with_key)
    failure.status = status
    return failure


def _of_status(status: int, said: str, headers: httpx.Headers, model: str, with_key: bool) -> AskError:
    match status:
        case 401 if with_key:
            return AskError("The gateway does not know this key. Check it under API key.", needs_key=True)
        case 401:
            return AskError("This gateway needs a key. Enter yours under API key.", needs_key=True)
        case 403:
            return AskError(f"Not allowed: {said or 'this key may not do that'}.")
        case 404:
            return AskError(
                said or f"{model or 'This page'} is not served here. Refresh the list and pick another model."
            )
        case 413:
            return AskError("This conversation is too large for the gateway. Clear it and start anew.")
        case 429:
            after = headers.get("retry-after", "")
            when = f"in {after} s" if after.isdigit() else "in a moment"
            return AskError(f"The gateway is busy. Try again {when}.")
        case 503:
            return AskError(
                f"{model or 'The model'} is not up at the moment{_because(said)}. Try again or pick another."
            )
        case _ if status < 500:
            return AskError(f"The gateway refused this: {said or f'status {status}'}")
        case _:
            return AskError(f"The gateway failed to answer (status {status}){_because(said)}.")


def of_transport(error: httpx.HTTPError, base_url: str, *, started: bool = False) -> AskError:
    """The failure behind a connection that could not be made, or was lost."""
    if started:
        return AskError("The connection to the model was lost: the answer is not complete.")
    if isinstance(error, httpx.ReadTimeout):
        return AskError("The model gave no answer in time. Try again, or pick another.")
    return AskError(f"The gateway does not answer at {base_url}. It may be starting, or it has stopped.")


def told(body: bytes) -> str:
    """The message of an error in OpenAI's shape (`{"error": {"message"}}`), or "" where there is none."""
    try:
        data: object = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return ""
    return message_in(data)


def message_in(data: object) -> str:
    """The message of a decoded `{"error": …}`, or ""."""
    error = cast("dict[str, object]", data).get("error") if isinstance(data, dict) else None
    if isinstance(error, dict):
        error = cast("dict[str, object]", error).get("message")
    return error[:600].strip() if isinstance(error, str) else ""


def _because(said: str) -> str:
    return f" ({said.rstrip('.')})" if said else ""
