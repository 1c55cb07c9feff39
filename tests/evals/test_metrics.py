from __future__ import annotations

import math
import random
import statistics as known

import pytest
from sklearn.metrics import accuracy_score, f1_score

from gateway_evals.errors import SuiteError
from gateway_evals.filters import build_chain
from gateway_evals.offers import METRICS, Offers
from gateway_evals.statistics import bootstrap_error, standard_error
from gateway_evals.suite import FilterSpec

DRAW = random.Random(3)
RIGHT = [DRAW.randrange(4) for _ in range(200)]
OURS = [right if DRAW.random() < 0.6 else DRAW.randrange(4) for right in RIGHT]


def metric(name: str) -> object:
    return METRICS[name]()


def test_ours_are_evaluate_metrics_that_keep_data_in_memory() -> None:
    import evaluate

    for name in METRICS:
        made = metric(name)
        assert isinstance(made, evaluate.Metric)
        assert made.keep_in_memory


def test_errors_and_perplexities_are_better_when_lower() -> None:
    lower = {name for name in METRICS if not metric(name).higher_is_better}
    assert lower == {
        "brier_score", "ece", "ter", "wer", "cer",
        "perplexity", "word_perplexity", "byte_perplexity", "token_perplexity", "bits_per_byte",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["acc", "acc_norm"])
def test_accuracy_is_scikit_learns(name: str) -> None:
    made = metric(name)
    assert made.compute(predictions=OURS, references=RIGHT) == {name: accuracy_score(RIGHT, OURS)}
    each = made.each(OURS, RIGHT)
    assert known.mean(each) == pytest.approx(accuracy_score(RIGHT, OURS))


def test_macro_f1_is_scikit_learns() -> None:
    found = metric("macro_f1").compute(predictions=OURS, references=RIGHT)
    assert found == {"macro_f1": pytest.approx(f1_score(RIGHT, OURS, average="macro"))}


def test_exact_match_and_what_it_can_ignore() -> None:
    made = metric("exact_match")
    ours, right = ["Paris", "paris.", "7 pm", "no"], ["Paris", "Paris", "pm", "yes"]
    assert made.compute(predictions=ours, references=right) == {"exact_match": 0.25}
    assert made.each(ours, right, ignore_case=True, ignore_punctuation=True) == [1, 1, 0, 0]
    assert made.each(ours, right, regexes_to_ignore=[r"\d+ "]) == [1, 0, 1, 0]
    assert made.compute(predictions=ours, references=right, ignore_case=True, ignore_punctuation=True) == {
        "exact_match": 0.5
    }


def test_many_right_texts() -> None:
    assert metric("exact_match").compute(predictions=["7", "8"], references=[["seven", "7"], ["9"]]) == {
        "exact_match": 0.5
    }
    assert metric("f1").compute(predictions=["a red car"], references=[["blue", "the red bus"]]) == {"f1": 0.5}
    assert metric("f1").each(["", "x"], ["", ""]) == [1.0, 0.0]


def test_standard_errors_against_known_values() -> None:
    ones = [1.0] * 30 + [0.0] * 20
    assert standard_error(ones) == pytest.approx(math.sqrt(0.6 * 0.4 / 49))
    values = [DRAW.gauss(0, 1) for _ in range(57)]
    assert standard_error(values) == pytest.approx(known.stdev(values) / math.sqrt(57))
    assert standard_error([1.0]) is None
    assert standard_error([1.0, 1.0]) == 0.0


def test_bootstrap_comes_near_the_formula_and_is_seeded() -> None:
    values = [float(ours == right) for ours, right in zip(OURS, RIGHT, strict=True)]

    def mean(places: list[int]) -> float:
        return known.mean(values[place] for place in places)

    found = bootstrap_error(mean, len(values), seed=1, rounds=1000)
    assert found == pytest.approx(standard_error(values), rel=0.1)
    assert found == bootstrap_error(mean, len(values), seed=1, rounds=1000)
    assert found != bootstrap_error(mean, len(values), seed=2, rounds=1000)
    assert bootstrap_error(mean, 1, seed=1) is None


def test_filters_say_where_no_answer_was_found() -> None:
    chain = build_chain(
        FilterSpec.model_validate(
            {"name": "n", "filter": [{"function": "regex", "regex_pattern": r"(\d+)|(none)", "group_select": -1}]}
        ),
        "at",
    )
    assert chain.extract("1 or 22") == ("22", True)
    assert chain.extract("none") == ("none", True)
    assert chain.extract("who knows") == ("[invalid]", False)
    lower = build_chain(
        FilterSpec.model_validate(
            {"name": "n", "filter": [{"function": "remove_whitespace"}, {"function": "lowercase"}]}
        ),
        "at",
    )
    assert lower.extract(" Yes \n") == ("yes", True)
    assert lower.extract(" \n") == ("", False)


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ({"function": "wish"}, "no filter 'wish'; there are: lowercase"),
        ({"function": "regex", "regex_pattern": "("}, "regex_pattern: missing"),
        ({"function": "regex", "regexp": "x"}, "unknown setting regexp"),
    ],
)
def test_filters_that_do_not_exist(step: dict[str, str], expected: str) -> None:
    with pytest.raises(SuiteError, match=r"at\.filter_list") as caught:
        build_chain(FilterSpec.model_validate({"name": "n", "filter": [step]}), "at")
    assert expected in caught.value.message


def test_ours_come_by_the_hooks() -> None:
    offers = Offers()
    assert set(METRICS) <= set(offers.metrics.offers)
    assert offers.metrics.brought_by["acc"] == "evals"
    assert {"choice", "text"} <= set(offers.scorers.offers)
