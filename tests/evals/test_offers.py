from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gateway_evals
from gateway.errors import PluginError
from gateway.hookspecs import hookimpl
from gateway.plugins import Plugins
from gateway_evals.errors import SuiteError
from gateway_evals.evaluation import EvaluationPlan, prepare
from gateway_evals.offers import Offers
from gateway_evals.suite_file import load_suite


class Strangers:
    """A plugin of somebody else's, with a metric that only knows the whole."""

    @staticmethod
    @hookimpl
    def register_metrics(register: Callable[[str, Callable[[], object]], None]) -> None:
        def make() -> object:
            import datasets
            import evaluate

            class Longest(evaluate.Metric):
                def _info(self) -> evaluate.MetricInfo:
                    text = datasets.Value("string")
                    features = datasets.Features({"predictions": text, "references": text})
                    return evaluate.MetricInfo(description="", citation="", features=features)

                def _compute(self, predictions: list[str], references: list[str], floor: int = 0) -> dict[str, float]:
                    return {"longest": max(floor, *map(len, predictions)), "shortest": min(map(len, predictions))}

            return Longest(keep_in_memory=True)

        register("longest", make)

    @staticmethod
    @hookimpl
    def register_scorers(register: Callable[[str, Callable[..., object]], None]) -> None:
        from gateway_evals.scorers import Score

        def make(task: Any) -> object:
            async def score(sample: Any, output: Any) -> list[Score]:
                return [Score({"answer": output.text[::-1]}, list(sample.targets))]

            return score

        register("backwards", make)


def offers(*more: object) -> Offers:
    return Offers(Plugins([("evals", gateway_evals), *((f"other{n}", plugin) for n, plugin in enumerate(more))]))


def test_two_plugins_that_offer_one_name_are_both_named() -> None:
    with pytest.raises(PluginError, match=r"metric 'longest' is offered by 'other0' and by 'other1'"):
        offers(Strangers(), Strangers())


def test_unknown_names_and_settings_name_the_yaml_path(suite_file: Any) -> None:
    def problem(**changes: Any) -> str:
        task = {"task": "t", "dataset_path": "json", "dataset_kwargs": {"data_files": "t.jsonl"}, "doc_to_text": "q"}
        path: Path = suite_file(task | {"doc_to_target": "a"} | changes, rows={"t.jsonl": [{"q": "x", "a": "y"}]})
        with pytest.raises(SuiteError) as caught:
            prepare(EvaluationPlan(load_suite(path), ()), offers())
        return caught.value.message

    assert "tasks[0].metric_list[0].metric: no metric 'rouge'; there are: acc, " in problem(
        metric_list=[{"metric": "rouge"}]
    )
    assert "tasks[0].metric_list[0]: unknown setting ignore_cas; there are: ignore_case" in problem(
        metric_list=[{"metric": "exact_match", "ignore_cas": True}]
    )
    assert "tasks[0].scorer: no scorer 'jury'; there are: choice, " in problem(scorer="jury")


async def test_metrics_and_scorers_of_others_are_used(suite_file: Any, echo_url: str, tmp_path: Path) -> None:
    from gateway_evals.client import GatewayClient
    from gateway_evals.evaluation import evaluate_suite
    from tests.evals.conftest import generation

    task = generation(scorer="backwards", metric_list=[{"metric": "longest", "floor": 2}, {"metric": "exact_match"}])
    rows = [{"text": "abc", "target": "cba"}, {"text": "hello", "target": "olle"}, {"text": "x", "target": "x"}]
    plan = EvaluationPlan(
        load_suite(suite_file(task, rows={"repeat.jsonl": rows})), ["echo"], echo_url, output=tmp_path
    )
    async with GatewayClient(echo_url) as client:
        _, (result,) = await evaluate_suite(plan, client, prepare(plan, offers(Strangers())))
    figures = {figure.key: figure for figure in result.tasks[0].figures}
    assert figures["longest,none"].value == 5
    assert figures["shortest,none"].value == 1
    assert figures["exact_match,none"].value == pytest.approx(2 / 3)
    assert figures["longest,none"].stderr > 0, "by bootstrap"


def test_the_package_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys, typer, gateway_evals; cli = typer.Typer(); gateway_evals.register_commands(cli);"
        "gateway_evals.register_metrics(lambda *_: None); gateway_evals.register_scorers(lambda *_: None);"
        "heavy = {'evaluate', 'datasets', 'sklearn', 'numpy', 'torch', 'transformers'} & set(sys.modules);"
        "print(*heavy)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "\n"


def test_the_list_of_suites_imports_nothing_heavy() -> None:
    """It answers within a second (`make bench` measures that): these would take longer by themselves."""
    import subprocess
    import sys

    heavy = "{'aiohttp', 'evaluate', 'datasets', 'sklearn', 'scipy', 'pandas', 'numpy', 'torch', 'transformers', 'ray'}"
    code = (
        "import sys, typer, gateway_evals; cli = typer.Typer(); cli.callback()(lambda: None);"
        "gateway_evals.register_commands(cli); cli(['eval', 'ls', '--json'], standalone_mode=False);"
        f"print(*({heavy} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "\n")
    assert '"name": "smoke"' in done.stdout


@pytest.mark.slow
def test_a_metric_brings_no_model_library(tmp_path: Path) -> None:
    import os
    import subprocess
    import sys

    code = (
        "import sys; from gateway_evals.offers import METRICS; METRICS['acc']();"
        "print(*({'torch', 'transformers'} & set(sys.modules)))"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "HF_HOME": ""}
    environment.pop("HF_HOME")
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("\n", 0), done.stderr
    assert list(tmp_path.rglob("metrics")) == []
