"""Finished runs for tests of what reads them: real ones against the echo backend, and long ones in the same layout."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

WORDS = [
    "river",
    "stone",
    "light",
    "seven",
    "because",
    "yellow",
    "never",
    "under",
    "mountain",
    "quick",
    "paper",
    "winter",
]


def write_long_run(
    folder: Path,
    model: str,
    count: int,
    seed: int,
    *,
    tasks: int = 2,
    memory: int | None = 2**30,
    share: float = 0.6,
    slowest_s: float = 1.0,
) -> Path:
    """Results and samples of `count` questions, `share` of them right, as `gateway eval run` writes them. Returns the
    results file."""
    generator = random.Random(seed)
    stamp = f"2026-01-0{seed}T00-00-00.000000"
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"task_{number}" for number in range(tasks)]
    body: dict[str, Any] = {
        "results": {}, "versions": {}, "n-shot": {}, "higher_is_better": {}, "model_name": model,
        "config": {"random_seed": 1234, "limit": None}, "total_evaluation_time_seconds": "100.0",
        "gateway": {
            "suite": "long", "memory_bytes": memory, "tasks": {},
            "model": {"backend": "echo", "dtype": "none", "digest": "0" * 64},
        },
    }  # fmt: skip
    for name in names:
        right = 0
        with (folder / f"samples_{name}_{stamp}.jsonl").open("w", encoding="utf-8") as file:
            for doc_id in range(count // tasks):
                question = " ".join(random.Random(f"{name}{doc_id}").choices(WORDS, k=30)) + f" number {doc_id}?"
                correct = generator.random() < share
                right += correct
                words = generator.choices(WORDS, k=20)
                row = {
                    "doc_id": doc_id,
                    "doc": {},
                    "target": str(doc_id),
                    "arguments": {"gen_args_0": {"arg_0": question}},
                    "resps": [[f"{' '.join(words)} {doc_id if correct else -doc_id}"]],
                    "filtered_resps": [str(doc_id if correct else -doc_id)],
                    "filter": "none",
                    "metrics": ["exact_match"],
                    "exact_match": float(correct),
                    "gateway": {
                        "extracted": True,
                        "latency_s": generator.random() * slowest_s,
                        "prompt_tokens": 40,
                        "completion_tokens": 25,
                        "finish_reason": "stop",
                    },
                }  # fmt: skip
                file.write(json.dumps(row) + "\n")
        asked = count // tasks
        body["results"][name] = {"alias": name, "exact_match,none": right / asked, "exact_match_stderr,none": 0.01}
        body["versions"][name], body["n-shot"][name] = 1, 0
        body["higher_is_better"][name] = {"exact_match": True}
        body["gateway"]["tasks"][name] = {"asked": asked, "answered": asked, "failed": 0, "no_answer": {"none": 0}}
    path = folder / f"results_{stamp}.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    return path
