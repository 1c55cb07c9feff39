"""Torch's process groups: vLLM makes one for each way in which an engine could be spread over processes, in every
engine, also in one that is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from torch.distributed import distributed_c10d


def share_device() -> None:
    """Let all of this process's Gloo groups stand on one device.

    Each would have a device of its own, whose thread wakes a hundred times a second: eleven of them take a hundredth of
    a core from the threads that compute, which all wait for the one that was interrupted. To be called once, before the
    first group is made. Torch takes a device in private options only.
    """
    whole: Any = distributed_c10d.ProcessGroupGloo
    device = whole.create_default_device()

    class SharedDeviceGroup(whole):
        def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
            options: Any = whole._Options()
            options._timeout = timeout
            options._devices = [device]
            whole.__init__(self, store, rank, size, options)

    distributed_c10d.ProcessGroupGloo = SharedDeviceGroup
