"""What the library itself gives for one static batch: the yardstick for our own batching. Serves nobody."""

from __future__ import annotations

import json
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np


def static_batch_rate(folder: Path, batch: int, tokens: int, *, threads: int | None = None) -> float:
    """Output tokens per second of onnxruntime-genai's Generator: `batch` equal greedy sequences of `tokens` each.

    `folder`: a converted one (`conversion.converted`). The prompt's step is not counted. `threads`: None leaves the
    library its default, which is one thread; to compare engines alike, give it theirs. Blocks.
    """
    library: Any = import_module("onnxruntime_genai")
    library.disable_telemetry_events()
    config: Any = library.Config(str(folder))
    if threads is not None:
        config.overlay(json.dumps({"model": {"decoder": {"session_options": {"intra_op_num_threads": threads}}}}))
    model: Any = library.Model(config)
    prompt = np.tile(np.arange(100, 120, dtype=np.int32), (batch, 1))
    length = prompt.shape[1] + tokens + 1
    search: Any = library.GeneratorParams(model)
    search.set_search_options(batch_size=batch, max_length=length, min_length=length, do_sample=False)
    generator: Any = library.Generator(model, search)
    generator.append_tokens(prompt if batch > 1 else prompt[0])
    generator.generate_next_token()
    begin = time.perf_counter()
    for _ in range(tokens):
        generator.generate_next_token()
    return batch * tokens / (time.perf_counter() - begin)
