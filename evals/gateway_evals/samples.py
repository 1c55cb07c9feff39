"""One sample as a line of `samples_*.jsonl`, in lm-eval's keys; what is ours stands under `gateway`. Writes no file."""

from __future__ import annotations

from typing import Any

from gateway_evals.asking import Output
from gateway_evals.scorers import Score
from gateway_evals.suite import TaskSpec
from gateway_evals.task import Sample, digest


def sample_entry(spec: TaskSpec, sample: Sample, output: Output, score: Score) -> dict[str, Any]:
    """Without its metrics' values, which are known when all samples are."""
    if spec.output_type == "multiple_choice":
        requests = [[sample.prompt, spec.target_delimiter + choice] for choice in sample.choices]
        responses: list[Any] = [[[str(each.total), str(each.is_greedy)]] for each in output.choices]
        filtered: list[Any] = [response[0] for response in responses]
        target = str(sample.gold)
    else:
        settings = {
            "until": spec.stops,
            "max_gen_toks": spec.generation_kwargs.max_gen_toks,
            "temperature": output.request.get("temperature", 0),
            "do_sample": spec.generation_kwargs.do_sample,
        }
        requests = [[sample.prompt, settings]]
        responses = [[output.text]]
        filtered = [score.answers.get("answer")]
        target = sample.targets[0] if len(sample.targets) == 1 else str(list(sample.targets))
    return {
        **_question(sample, target),
        "arguments": {
            f"gen_args_{index}": {f"arg_{place}": part for place, part in enumerate(request)}
            for index, request in enumerate(requests)
        },
        "resps": responses,
        "filtered_resps": filtered,
        "filter": score.filter,
        "gateway": {
            "extracted": score.extracted,
            "answers": dict(score.answers),
            "finish_reason": output.finish_reason,
            "target": output.target,
            "attempts": output.attempts,
            "prompt_tokens": output.prompt_tokens,
            "completion_tokens": output.completion_tokens,
            "latency_s": round(output.latency_s, 6),
        },
    }


def failed_entry(sample: Sample, error: str) -> dict[str, Any]:
    """A sample without an answer: no metric's value, and why."""
    target = str(sample.gold) if sample.gold is not None else sample.targets[0]
    return {
        **_question(sample, target),
        "arguments": {},
        "resps": [],
        "filtered_resps": [],
        "filter": "none",
        "metrics": [],
        "gateway": {"error": error},
    }


def _question(sample: Sample, target: str) -> dict[str, Any]:
    return {
        "doc_id": sample.doc_id,
        "doc": dict(sample.doc),
        "target": target,
        "doc_hash": digest(sample.doc),
        "prompt_hash": digest(sample.prompt),
        "target_hash": digest(target),
    }
