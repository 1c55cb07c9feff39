"""One sample as a line of `samples_*.jsonl`, in lm-eval's keys; what is ours stands under `gateway`. Writes no file."""

from __future__ import annotations

from typing import Any

from gateway_evals.asking import Output, choice_delimiter
from gateway_evals.scorers import Score
from gateway_evals.spec import TaskSpec
from gateway_evals.task import Sample, digest

TIMES = ("latency_s", "ttft_s", "overhead_ms")
"""Under `gateway`: all that differs between two runs that were answered the same."""


def sample_entry(spec: TaskSpec, sample: Sample, output: Output, score: Score) -> dict[str, Any]:
    """Without its metrics' values, which are known when all samples are."""
    asked: Any = list(sample.messages) or sample.prompt
    responses: list[Any] = [[[str(each.total), str(each.is_greedy)]] for each in output.choices]
    filtered: list[Any] = [response[0] for response in responses]
    if spec.output_type == "multiple_choice":
        requests = [[asked, choice_delimiter(spec) + choice] for choice in sample.choices]
    elif spec.output_type == "loglikelihood":
        requests = [[asked, sample.targets[0]]]
    elif spec.output_type == "loglikelihood_rolling":
        requests = [[sample.targets[0]]]
        responses = [[str(output.choices[0].total)]]
        filtered = [responses[0][0]]
    else:
        settings = {
            "until": spec.stops,
            "max_gen_toks": spec.generation_kwargs.max_gen_toks,
            "temperature": output.request.get("temperature", 0),
            "do_sample": spec.generation_kwargs.samples,
        }
        requests = [[asked, settings]]
        responses = [list(output.texts or (output.text,))]
        filtered = [score.answers.get("answers", score.answers.get("answer"))]
    return {
        **_question(sample, _target(sample)),
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
            "ttft_s": None if output.ttft_s is None else round(output.ttft_s, 6),
            "overhead_ms": output.overhead_ms,
            **({"said": list(output.said)} if output.said else {}),
            **({"cluster": sample.cluster} if sample.cluster else {}),
        },
    }


def failed_entry(sample: Sample, error: str) -> dict[str, Any]:
    """A sample without an answer: no metric's value, and why."""
    return {
        **_question(sample, _target(sample)),
        "arguments": {},
        "resps": [],
        "filtered_resps": [],
        "filter": "none",
        "metrics": [],
        "gateway": {"error": error},
    }


def _target(sample: Sample) -> str:
    if sample.golds:
        return str(sample.golds[0] if len(sample.golds) == 1 else list(sample.golds))
    return sample.targets[0] if len(sample.targets) == 1 else str(list(sample.targets))


def _question(sample: Sample, target: str) -> dict[str, Any]:
    return {
        "doc_id": sample.doc_id,
        "doc": dict(sample.doc),
        "target": target,
        "doc_hash": digest(sample.doc),
        "prompt_hash": digest(sample.prompt),
        "target_hash": digest(target),
    }
