"""What a library itself gives for one static batch of 16, in a process of its own.

`python -m tests.bench.static_batch --config FILE --model NAME`; prints output tokens per second.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from gateway import plugins
from gateway.backend import silent
from gateway.config import load
from gateway.serve.contexts import context_of

BATCH = 16
TOKENS = 64


def rate(config: Path, model: str) -> float:
    """Output tokens per second, on every core."""
    spec = load(config).models[model]
    context = context_of(model, spec, plugins.load())
    if context.model_path is None:
        raise RuntimeError(f"{model} has no weights")
    if spec.backend == "torch":
        from gateway_torch import reference

        return reference.static_batch_rate(context.model_path, BATCH, TOKENS)
    from gateway_onnx import conversion, options, reference

    folder = conversion.converted(context, options.plan(context), silent)
    return reference.static_batch_rate(folder, BATCH, TOKENS, threads=len(os.sched_getaffinity(0)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--model", required=True)
    arguments = parser.parse_args()
    sys.stdout.write(f"\n{rate(arguments.config, arguments.model):.3f}\n")


if __name__ == "__main__":
    main()
