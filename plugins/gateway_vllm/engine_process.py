"""The main module of the processes that an engine spawns."""

from gateway_vllm.library import ENGINE, import_vllm

import_vllm(*ENGINE)

from gateway_vllm import groups  # noqa: E402 (imports torch, which only import_vllm may be the first to do)

groups.share_device()
