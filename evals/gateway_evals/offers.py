"""What this package offers by hook, and what all plugins together offer. Heavy imports wait in factories."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from gateway.errors import PluginError
from gateway.importing import importing
from gateway.plugins import Plugins, Shelf, load
from gateway_evals.errors import SuiteError
from gateway_evals.scorers import (
    ChoiceScorer,
    ContinuationScorer,
    DocumentScorer,
    Scorer,
    TextScorer,
    default_scorer,
)
from gateway_evals.spec import MetricSpec, TaskSpec
from gateway_evals.task import Task


class Metric(Protocol):
    """What is used of an `evaluate.Metric`. Optional beside it: `reads: str` and `each(predictions, references, …)`."""

    def compute(self, *, predictions: Sequence[Any], references: Sequence[Any], **settings: Any) -> dict[str, Any]: ...


def _metric(room: str, name: str, *arguments: str) -> Callable[[], object]:
    def make() -> object:
        # Nothing an evaluation does may ask a hub; the libraries read these when they are imported.
        for variable in ("HF_EVALUATE_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
            os.environ.setdefault(variable, "1")
        # `evaluate` would load Transformers, and torch with it, for pipelines that no metric uses: 8 of its 11 seconds
        # and more than half of its memory.
        with importing(without=("transformers",)):
            module = importlib.import_module(f"gateway_evals.metrics.{room}")
        return getattr(module, name)(*arguments)

    return make


SHARES = (
    "score",
    "prompt_strict",
    "prompt_loose",
    "instruction_strict",
    "instruction_loose",
    "resisted",
    "passed_first",
    "preference",
    "agreement",
    "similarity",
)
"""Numbers that scorers give each sample; their mean is the metric."""

METRICS: Mapping[str, Callable[[], object]] = {
    "acc": _metric("choices", "Accuracy"),
    "acc_norm": _metric("choices", "AccuracyNorm"),
    "acc_bytes": _metric("choices", "AccuracyBytes"),
    "brier_score": _metric("choices", "BrierScore"),
    "ece": _metric("choices", "CalibrationError"),
    "macro_f1": _metric("choices", "MacroF1"),
    "weighted_f1": _metric("choices", "WeightedF1"),
    "macro_precision": _metric("choices", "MacroPrecision"),
    "macro_recall": _metric("choices", "MacroRecall"),
    "balanced_accuracy": _metric("choices", "BalancedAccuracy"),
    "mcc": _metric("choices", "Matthews"),
    "exact_match": _metric("texts", "ExactMatch"),
    "contains": _metric("texts", "Contains"),
    "f1": _metric("texts", "TokenF1"),
    "bleu": _metric("texts", "Bleu"),
    "chrf": _metric("texts", "Chrf"),
    "chrf++": _metric("texts", "ChrfPlusPlus"),
    "ter": _metric("texts", "TranslationEdits"),
    "rouge1": _metric("texts", "Rouge1"),
    "rouge2": _metric("texts", "Rouge2"),
    "rougel": _metric("texts", "RougeL"),
    "rougelsum": _metric("texts", "RougeLsum"),
    "wer": _metric("texts", "WordErrors"),
    "cer": _metric("texts", "CharacterErrors"),
    "pass_at_k": _metric("texts", "PassAtK"),
    "perplexity": _metric("numbers", "Perplexity"),
    "word_perplexity": _metric("numbers", "WordPerplexity"),
    "byte_perplexity": _metric("numbers", "BytePerplexity"),
    "token_perplexity": _metric("numbers", "TokenPerplexity"),
    "bits_per_byte": _metric("numbers", "BitsPerByte"),
    **{name: _metric("numbers", "Share", name) for name in SHARES},
}


def _scorer(room: str, name: str) -> Callable[..., object]:
    def make(task: Task) -> object:
        return getattr(importlib.import_module(f"gateway_evals.{room}"), name)(task)

    return make


SCORERS: Mapping[str, Callable[..., object]] = {
    "choice": ChoiceScorer,
    "continuation": ContinuationScorer,
    "document": DocumentScorer,
    "text": TextScorer,
    "instructions": _scorer("checks.scorers", "InstructionScorer"),
    "injection": _scorer("checks.scorers", "InjectionScorer"),
    "code": _scorer("checks.scorers", "CodeScorer"),
    "judge": _scorer("checks.judge", "JudgeScorer"),
    "embedding": _scorer("checks.embedding", "EmbeddingScorer"),
}


@dataclass(frozen=True, slots=True)
class Judge:
    """A task's scorer and metrics, made."""

    scorer: Scorer
    metrics: Mapping[str, Metric]


class Offers:
    """Metrics and scorers of all installed plugins. Raises PluginError where two plugins offer one name."""

    def __init__(self, plugins: Plugins | None = None) -> None:
        self._plugins = plugins or load()
        self.metrics: Shelf[Callable[..., object]] = Shelf("metric")
        self.scorers: Shelf[Callable[..., object]] = Shelf("scorer")
        manager = self._plugins.manager
        for name, plugin in manager.list_name_plugin():
            if plugin is None:
                continue
            others = [other for _, other in manager.list_name_plugin() if other is not None and other is not plugin]
            manager.subset_hook_caller("register_metrics", others)(register=_putter(self.metrics, name))
            manager.subset_hook_caller("register_scorers", others)(register=_putter(self.scorers, name))

    def judge(self, task: Task) -> Judge:
        """Raises SuiteError, with the YAML path, for names and settings that do not exist."""
        metrics: dict[str, Metric] = {}
        for index, spec in enumerate(task.spec.metrics):
            where = f"{task.where}.metric_list[{index}]"
            metric = _fitting(self._get(self.metrics, spec.metric, f"{where}.metric")(), spec, task.spec, where)
            _check_settings(metric, spec.settings, where)
            metrics[spec.metric] = metric
        name = task.spec.scorer or default_scorer(task.spec.output_type)
        scorer = cast("Scorer", self._get(self.scorers, name, f"{task.where}.scorer")(task))
        return Judge(scorer, metrics)

    def _get(self, shelf: Shelf[Any], name: str, where: str) -> Any:
        try:
            return shelf.get(name, self._plugins.broken)
        except PluginError as error:
            raise SuiteError(f"{where}: {error.message}") from error


def _fitting(metric: object, spec: MetricSpec, task: TaskSpec, where: str) -> Metric:
    """The metric, or what stands under its name for this output type. Raises SuiteError where it cannot read that, or
    knows no such aggregation."""
    others = cast("Mapping[str, Callable[[], object]]", getattr(metric, "others", {}))
    if task.output_type in others:
        metric = others[task.output_type]()
    readable = cast("Sequence[str] | None", getattr(metric, "output_types", None))
    if task.scorer is None and readable is not None and task.output_type not in readable:
        raise SuiteError(
            f"{where}.metric: {spec.metric!r} reads {', '.join(readable)}, and the task's output_type is "
            f"{task.output_type}"
        )
    known = getattr(metric, "aggregation", None)
    if known is not None and spec.aggregation not in {None, known}:
        raise SuiteError(f"{where}.aggregation: {spec.metric!r} knows {known}, not {spec.aggregation!r}")
    return cast("Metric", metric)


def _putter(shelf: Shelf[Callable[..., object]], plugin: str) -> Callable[[str, Callable[..., object]], None]:
    return lambda name, factory: shelf.put(name, factory, plugin)


def _check_settings(metric: object, settings: Mapping[str, Any], where: str) -> None:
    known: set[str] = set()
    for method in (getattr(metric, "_compute", None), getattr(metric, "each", None)):
        if method is None:
            continue
        known |= {
            name
            for name, parameter in inspect.signature(method).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        }
    known -= {"predictions", "references"}
    unknown = [name for name in settings if name not in known]
    if unknown:
        raise SuiteError(
            f"{where}: unknown setting {', '.join(unknown)}; there are: {', '.join(sorted(known)) or 'none'}"
        )
