"""The main module of the processes that an engine spawns."""

from gateway_vllm.library import ENGINE, import_vllm

import_vllm(*ENGINE)
