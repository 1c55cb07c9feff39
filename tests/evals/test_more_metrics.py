"""Every metric on values that are known from its definition, its paper or its library."""

from __future__ import annotations

import math
from typing import Any

import pytest

from gateway_evals.offers import METRICS


def value(name: str, ours: list[Any], right: list[Any], **settings: Any) -> float:
    made: Any = METRICS[name]()
    (found,) = made.compute(predictions=ours, references=right, **settings).values()
    return found


CAT = "the cat sat on the mat"


@pytest.mark.parametrize(
    ("name", "ours", "right", "expected"),
    [
        ("bleu", ["the cat sat on the mat today"], ["the cat sat on the mat today"], 100.0),
        ("chrf", [CAT], [CAT], 100.0),
        ("chrf++", [CAT], [CAT], 100.0),
        ("ter", ["the cat sat on a mat"], [CAT], 100 / 6),
        ("rouge1", ["the cat"], [CAT], 2 * 1 * (2 / 6) / (1 + 2 / 6)),
        ("rouge2", ["the cat"], [CAT], 2 * 1 * (1 / 5) / (1 + 1 / 5)),
        ("rougel", ["the mat"], [CAT], 2 * 1 * (2 / 6) / (1 + 2 / 6)),
        ("rougelsum", [CAT], [CAT], 1.0),
        ("wer", ["the cat sat on mat", "a"], [CAT, "a"], 1 / 7),
        ("wer", ["the cat sat on mat"], [["dogs", CAT]], 1 / 6),
        ("cer", ["abcd", "x"], ["abce", "x"], 1 / 5),
        ("contains", ["It is Paris.", "Parisian"], ["paris", "Paris"], 0.5),
        ("brier_score", [[0.7, 0.3], [0.4, 0.6]], [0, 0], (0.09 + 0.09 + 0.36 + 0.36) / 2),
        ("ece", [[0.95, 0.05], [0.95, 0.05], [0.55, 0.45]], [0, 1, 0], 2 / 3 * 0.45 + 1 / 3 * 0.45),
        ("mcc", [1, 1, 0, 0], [1, 0, 0, 0], 1 * 2 / math.sqrt(2 * 1 * 3 * 2)),
        ("balanced_accuracy", [1, 0, 0, 0], [1, 1, 0, 0], 0.75),
        ("macro_recall", [1, 0, 0, 0], [1, 1, 0, 0], 0.75),
        ("macro_precision", [1, 0, 0, 0], [1, 1, 0, 0], (1 + 2 / 3) / 2),
        ("weighted_f1", [1, 0, 0, 0], [1, 1, 0, 0], (2 / 3 + 4 / 5) / 2),
        ("perplexity", [math.log(0.5), math.log(0.125)], [1, 1], 4.0),
        ("word_perplexity", [10 * math.log(0.5), 2 * math.log(0.5)], [4, 2], 4.0),
        ("byte_perplexity", [8 * math.log(0.5)], [8], 2.0),
        ("token_perplexity", [8 * math.log(0.5)], [4], 4.0),
        ("bits_per_byte", [8 * math.log(0.5)], [4], 2.0),
        ("prompt_strict", [1.0, 0.0], [0, 0], 0.5),
    ],
)
def test_known_values(name: str, ours: list[Any], right: list[Any], expected: float) -> None:
    assert value(name, ours, right) == pytest.approx(expected, abs=1e-9)


def test_bleu_is_sacrebleus_over_the_corpus() -> None:
    import sacrebleu

    ours, right = ["the cat sat on the mat", "hello there friend of mine"], [[CAT, "a cat"], ["hello there my friend"]]
    known = sacrebleu.corpus_bleu(ours, [[CAT, "hello there my friend"], ["a cat", "hello there my friend"]]).score
    assert value("bleu", ours, right) == pytest.approx(known)
    with pytest.raises(ValueError, match="needs a download; there are: 13a"):
        value("bleu", ours, right, tokenize="flores200")


def test_pass_at_k_is_without_bias() -> None:
    made: Any = METRICS["pass_at_k"]()
    tries = [[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]]
    found = made.compute(predictions=tries, references=[0, 0, 0], k=[1, 2])
    assert found == {"pass@1": pytest.approx((0.25 + 0 + 1) / 3), "pass@2": pytest.approx((0.5 + 0 + 1) / 3)}
    with pytest.raises(ValueError, match="pass@5 needs 5 attempts, there are 4"):
        made.compute(predictions=tries, references=[0, 0, 0], k=5)


def test_labels_may_be_texts_and_what_is_none_of_them_is_only_wrong() -> None:
    made: Any = METRICS["macro_f1"]()
    texts = made.others["generate_until"]()
    found = texts.compute(predictions=["yes", "no", "hm"], references=["yes", "no", "no"])
    assert found == {"macro_f1": pytest.approx((1 + 2 / 3) / 2)}


def test_f1_of_choices_is_lm_evals() -> None:
    made: Any = METRICS["f1"]()
    binary = made.others["multiple_choice"]()
    assert binary.compute(predictions=[1, 1, 0], references=[1, 0, 0]) == {"f1": pytest.approx(2 / 3)}


def test_error_rates_of_nothing() -> None:
    made: Any = METRICS["wer"]()
    assert made.each(["", "a b"], ["", ""]) == [0.0, 1.0]
    with pytest.raises(ValueError, match="nothing to count errors against"):
        made.compute(predictions=[""], references=[""])
