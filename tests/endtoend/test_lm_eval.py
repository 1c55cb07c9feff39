"""`lm_eval` as anybody installs it, against every engine: no tokenizer is named, its numbers are the model's own, and
our own harness finds the same ones from the same files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.running import Gateway

pytestmark = pytest.mark.slow

ENGINES = ("smollm2", "smollm2-onnx", "smollm2-torch")
SAME = "smollm2-torch"
"""Where our harness is held against lm-eval's: one engine, so that the scores must be the same."""

CHOICES = [
    {"question": "The capital of France is", "choices": ["Paris", "Rome", "a banana"], "answer": 0},
    {"question": "Two and two make", "choices": ["seven", "four"], "answer": 1},
    {"question": "The opposite of hot is", "choices": ["cold", "warm and sunny", "Zürich 北京"], "answer": 0},
    {"question": "The sun rises in the", "choices": ["east", "west"], "answer": 0},
    {"question": "Water freezes to", "choices": ["ice", "stone", "fire"], "answer": 0},
]
PAGES = [
    {"page": "The quick brown fox jumps over the lazy dog. It was a warm day in June, and nobody was in a hurry."},
    {"page": "Zürich is the largest city in Switzerland. It lies at the northern end of Lake Zürich. " * 6},
]
QUESTIONS = [
    {"question": "1, 2, 3, 4, 5, 6,", "answer": "7, 8, 9"},
    {"question": "Monday, Tuesday, Wednesday,", "answer": "Thursday, Friday, Saturday"},
]
TASKS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "local_choice": (
        CHOICES,
        {
            "output_type": "multiple_choice",
            "doc_to_text": "{{question}}",
            "doc_to_choice": "{{choices}}",
            "doc_to_target": "{{answer}}",
            "metric_list": [
                {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
                {"metric": "acc_norm", "aggregation": "mean", "higher_is_better": True},
                {"metric": "acc_bytes", "aggregation": "mean", "higher_is_better": True},
            ],
        },
    ),
    "local_pages": (
        PAGES,
        {
            "output_type": "loglikelihood_rolling",
            "doc_to_text": "",
            "doc_to_target": "{{page}}",
            "metric_list": [
                {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
                {"metric": "byte_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False},
                {"metric": "bits_per_byte", "aggregation": "bits_per_byte", "higher_is_better": False},
            ],
        },
    ),
    "local_lists": (
        QUESTIONS,
        {
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": " {{answer}}",
            "generation_kwargs": {"until": ["\n", "!!!"], "max_gen_toks": 12, "do_sample": False, "temperature": 0},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
    ),
}
SHOTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "local_shots": (
        CHOICES,
        {
            "output_type": "multiple_choice",
            "description": "Finish the sentence.\n\n",
            "fewshot_split": "test",
            "num_fewshot": 2,
            "doc_to_text": "{{question}}",
            "doc_to_choice": "choices",
            "doc_to_target": "answer",
        },
    ),
}
"""lm-eval's own draws of examples, and its default metrics."""
TASKS |= SHOTS
Samples = Mapping[str, list[dict[str, Any]]]


def write_tasks(folder: Path) -> None:
    """Three tasks over local lines."""
    for name, (rows, task) in TASKS.items():
        lines = folder / f"{name}.jsonl"
        lines.write_text("".join(json.dumps(row) + "\n" for row in rows))
        whole = {"task": name, "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(lines)}},
                 "test_split": "test", **task}  # fmt: skip
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(whole))


IN_TURN = """
import json, sys
from gateway.importing import importing
with importing():
    from lm_eval.__main__ import cli_evaluate
    from lm_eval.tasks._index import TaskIndex
# It would read its own thousands of task files at every start, eight seconds long; those asked for here come last.
build = TaskIndex.build
TaskIndex.build = staticmethod(lambda paths, **options: build(paths[-1:], **options))
for line in sys.stdin:
    sys.argv = ["lm_eval", *json.loads(line)]
    cli_evaluate()
"""
"""Its command line, once for each line of arguments: most of a short run's time is its imports."""


def evaluate(url: str, tasks: Path, folders: Mapping[str, Path]) -> None:
    """Run `lm_eval` to its end for each model, into its folder."""
    cache = next(iter(folders.values())) / "cache"
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1",
               "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache)}  # fmt: skip
    asked = [
        ["run", "--model", "local-completions", "--model_args",
         f"base_url={url}/v1/completions,model={model},num_concurrent=4,max_retries=2", "--tasks", *TASKS,
         "--include_path", str(tasks), "--output_path", str(folder), "--log_samples", "--seed", "1234"]
        for model, folder in folders.items()
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN], input="".join(json.dumps(each) + "\n" for each in asked),
        capture_output=True, text=True, timeout=280, env={**os.environ, **offline},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]


def logged(folder: Path) -> Samples:
    """What `lm_eval` logged of each sample, by task."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for name in TASKS:
        (path,) = folder.rglob(f"samples_{name}_*.jsonl")
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        samples[name] = sorted(rows, key=lambda row: row["doc_id"])
    return samples


def log_likelihoods(samples: Samples) -> dict[str, list[float]]:
    """What was scored, by task: each choice of each question, each page."""
    found: dict[str, list[float]] = {}
    for name in ("local_choice", "local_pages"):
        answers = [answer for row in samples[name] for (answer,) in row["resps"]]
        found[name] = [float(one[0] if isinstance(one, list) else one) for one in answers]
    return found


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tasks' files."""
    folder = tmp_path_factory.mktemp("tasks")
    write_tasks(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Where each engine's run writes."""
    return {model: tmp_path_factory.mktemp(model) for model in ENGINES}


@pytest.fixture(scope="module")
def evaluated(gateway: Gateway, tasks: Path, folders: dict[str, Path]) -> dict[str, Samples]:
    """Every engine's samples."""
    evaluate(gateway.url, tasks, folders)
    return {model: logged(folder) for model, folder in folders.items()}


@pytest.fixture(scope="module")
def results(evaluated: dict[str, Samples], folders: dict[str, Path]) -> dict[str, Any]:
    """Every engine's figures, as lm-eval wrote them."""
    found: dict[str, Any] = {}
    for model in evaluated:
        (path,) = folders[model].rglob("results_*.json")
        found[model] = json.loads(path.read_text())["results"]
    return found


@pytest.fixture(scope="module")
def expected(smollm2_folder: Path) -> dict[str, list[float]]:
    """The same numbers from the model's logits, without any of our code."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(smollm2_folder)
    model: Any = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype=torch.float32)

    def score(context: list[int], continuation: list[int]) -> float:
        with torch.inference_mode():
            logits = model(torch.tensor([context + continuation])).logits[0, len(context) - 1 : -1]
        chosen = torch.log_softmax(logits.double(), -1).gather(1, torch.tensor(continuation)[:, None])
        return float(chosen.sum())

    def ids(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False)

    choices: list[float] = []
    for row in CHOICES:
        for choice in row["choices"]:
            begun = len(ids(row["question"]))
            whole = ids(f"{row['question']} {choice}")
            choices.append(score(whole[:begun], whole[begun:]))
    pages = [score([tokenizer.bos_token_id or tokenizer.eos_token_id], ids(row["page"])) for row in PAGES]
    return {"local_choice": choices, "local_pages": pages}


@pytest.mark.parametrize("model", ENGINES)
def test_lm_eval_finds_the_models_own_log_likelihoods(
    evaluated: dict[str, Samples], expected: dict[str, list[float]], model: str
) -> None:
    found = log_likelihoods(evaluated[model])
    for name, values in expected.items():
        assert len(found[name]) == len(values)
        assert sum(found[name]) / len(values) == pytest.approx(sum(values) / len(values), abs=1e-3)
        assert found[name] == pytest.approx(values, abs=5e-3)


def test_the_three_engines_agree(evaluated: dict[str, Samples]) -> None:
    means = {
        model: {name: sum(values) / len(values) for name, values in log_likelihoods(samples).items()}
        for model, samples in evaluated.items()
    }
    for model in ENGINES[1:]:
        assert means[model] == pytest.approx(means[ENGINES[0]], abs=1e-3)


@pytest.fixture(scope="module")
def ours(gateway: Gateway, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Any, Samples]]:
    """What our harness makes of the very same files, in the same words, on one of the engines: results and samples by
    task."""
    folder = tmp_path_factory.mktemp("ours")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "eval", "run", "--tasks", ",".join(TASKS), "--include_path", str(tasks),
         "--model", SAME, "--base_url", gateway.url, "--output_path", str(folder), "--concurrency", "4", "--no-cache"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    (results,) = folder.rglob("results_*.json")
    figures = json.loads(results.read_text())["results"]
    return {name: (figures[name], {name: samples}) for name, samples in logged(folder).items()}


@pytest.mark.parametrize("task", TASKS)
def test_our_harness_gives_lm_evals_scores(
    evaluated: dict[str, Samples], results: dict[str, Any], ours: dict[str, tuple[Any, Samples]], task: str
) -> None:
    figures, samples = ours[task]
    told = {key: value for key, value in results[SAME][task].items() if "," in key and "_stderr" not in key}
    assert told
    assert {key: figures[key] for key in told} == pytest.approx(told, abs=1e-6, rel=1e-6)
    assert len(samples[task]) == len(evaluated[SAME][task])
    for row, other in zip(samples[task], evaluated[SAME][task], strict=True):
        # lm-eval names its contexts by place; what was asked must be the same text, to the blank.
        assert [next(iter(each.values())) for each in row["arguments"].values()] == [
            next(iter(each.values())) for each in other["arguments"].values()
        ]


@pytest.mark.parametrize("model", ENGINES)
def test_lm_eval_generates_until_its_stop_strings(evaluated: dict[str, Samples], model: str) -> None:
    texts = [row["resps"][0][0] for row in evaluated[model]["local_lists"]]
    assert len(texts) == len(QUESTIONS)
    assert texts[0].strip().startswith("7, 8, 9")
    assert all("\n" not in text for text in texts)
    assert texts == [row["resps"][0][0] for row in evaluated[ENGINES[0]]["local_lists"]]
