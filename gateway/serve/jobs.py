"""Work on a Ray cluster that is not a gateway's: one generator run there, what it yields told here as it comes.

To the cluster each call is a job of its own, and ends with this process.
"""

# Ray's own annotations are partial; what it returns is checked where it is used.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from gateway.errors import ConfigError, GatewayError, Unavailable
from gateway.serve.settings import QUIET

Item = TypeVar("Item")


def stream(
    address: str, work: Callable[..., Iterator[Item]], arguments: Sequence[object], *, cpus: float = 1, gpus: float = 0
) -> Iterator[Item]:
    """Run `work(*arguments)`, a module's function that the cluster's machines can import, on one that has room.

    `address` as Ray writes them: `HOST:6379`, `ray://HOST:10001`, `auto`. Its own errors of ours come back as they are.
    Raises ConfigError where the cluster cannot be reached, Unavailable where it loses the machine.
    """
    os.environ.update({**QUIET, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"})
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except (ConnectionError, RayError, ValueError, TimeoutError, RuntimeError) as error:
        # Ray shows its token to no address that was named, unless it is told to: the cluster may be a stranger's.
        token = "" if "RAY_AUTH_MODE" in os.environ else "; where it asks for a token, set RAY_AUTH_MODE=token"
        raise ConfigError(f"no Ray cluster at {address}: {' '.join(str(error).split())[:300]}{token}") from error
    try:
        task: Any = ray.remote(work)
        # A GPU or a whole machine's cores are booked for as long as the work lasts.
        items = task.options(num_cpus=cpus, num_gpus=gpus, num_returns="streaming", max_retries=0).remote(*arguments)
        for item in items:
            yield ray.get(item)
    except RayTaskError as error:
        cause: object = error.cause
        if isinstance(cause, GatewayError):
            raise cause from None
        raise
    except RayError as error:
        raise Unavailable(f"the cluster at {address} lost the work: {' '.join(str(error).split())[:300]}") from error
    finally:
        ray.shutdown()
