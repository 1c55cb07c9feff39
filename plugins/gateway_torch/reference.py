"""What the library itself does with one padded batch: the yardstick for the scheduler. Serves nobody."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def static_batch_rate(folder: Path, batch: int, tokens: int, *, prompt_tokens: int = 32) -> float:
    """Output tokens per second of Transformers' `generate` on one batch of equal prompts, greedy, past end tokens.

    Runs in this process with as many threads as it may use cores; float32, on the CPU. The first of two runs is a
    warm-up of a few tokens.
    """
    import torch
    from transformers import AutoModelForCausalLM

    before = torch.get_num_threads()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    try:
        loader: Any = AutoModelForCausalLM
        model: Any = loader.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, trust_remote_code=False, local_files_only=True
        ).eval()
        ids = torch.randint(0, int(model.config.vocab_size), (batch, prompt_tokens))
        mask = torch.ones_like(ids)

        def run(count: int) -> float:
            started = time.perf_counter()
            model.generate(ids, attention_mask=mask, do_sample=False, min_new_tokens=count, max_new_tokens=count)
            return time.perf_counter() - started

        with torch.inference_mode():
            run(4)
            return batch * tokens / run(tokens)
    finally:
        torch.set_num_threads(before)
