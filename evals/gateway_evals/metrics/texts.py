"""Metrics over texts: equality, overlap, translation, summaries, transcripts, repeated attempts."""

# evaluate, rouge-score and jiwer have no types; `_compute` is meant to be overridden with the metric's own inputs.
# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownMemberType=false
# pyright: reportIncompatibleMethodOverride=false, reportUnknownArgumentType=false

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jiwer
import sacrebleu

from gateway_evals.metrics.choices import BinaryF1
from gateway_evals.metrics.local import (
    NOTHING,
    PROBABILITIES,
    TEXTS,
    LocalMetric,
    References,
    Texts,
    best,
    listed,
    mean,
)

OFFLINE_TOKENIZERS = ("13a", "intl", "char", "zh", "none")
"""sacrebleu's other tokenizers download something."""


class ExactMatch(LocalMetric):
    """Share of answers equal to a right text (`exact_match`), after the same normalising of both."""

    features_ = TEXTS

    def _compute(self, predictions: Texts, references: References, **settings: Any) -> dict[str, float]:
        return {"exact_match": mean(self.each(predictions, references, **settings))}

    def each(
        self,
        predictions: Texts,
        references: References,
        *,
        ignore_case: bool = False,
        ignore_punctuation: bool = False,
        ignore_numbers: bool = False,
        regexes_to_ignore: Sequence[str] = (),
    ) -> list[float]:
        def plain(text: str) -> str:
            for pattern in regexes_to_ignore:
                text = re.sub(pattern, "", text)
            text = text.lower() if ignore_case else text
            text = text.translate(_NO_PUNCTUATION) if ignore_punctuation else text
            return text.translate(_NO_DIGITS) if ignore_numbers else text

        return best(predictions, references, lambda ours, right: float(plain(ours) == plain(right)))


class Contains(LocalMetric):
    """Share of answers in which a right text stands (`contains`), as whole words and whatever the case."""

    features_ = TEXTS

    def _compute(self, predictions: Texts, references: References) -> dict[str, float]:
        return {"contains": mean(self.each(predictions, references))}

    def each(self, predictions: Texts, references: References) -> list[float]:
        return best(
            predictions,
            references,
            lambda ours, right: float(re.search(rf"(?i)(?<!\w){re.escape(right)}(?!\w)", ours) is not None),
        )


class TokenF1(LocalMetric):
    """Overlap of words with a right text (`f1`): case, punctuation and English articles do not count (as for SQuAD)."""

    features_ = TEXTS
    others: ClassVar[Mapping[str, type[LocalMetric]]] = {"multiple_choice": BinaryF1}
    output_types = ("generate_until", "multiple_choice")

    def _compute(self, predictions: Texts, references: References) -> dict[str, float]:
        return {"f1": mean(self.each(predictions, references))}

    def each(self, predictions: Texts, references: References) -> list[float]:
        return best(predictions, references, _overlap)


class Bleu(LocalMetric):
    """Corpus BLEU, 0 to 100 (`bleu`), by sacrebleu; each sample's is its sentence BLEU."""

    features_ = TEXTS
    aggregation = "bleu"
    corpus = True

    def _compute(
        self, predictions: Texts, references: References, tokenize: str = "13a", lowercase: bool = False
    ) -> dict[str, float]:
        _offline(tokenize)
        found = sacrebleu.corpus_bleu(
            list(predictions), _streams(references), tokenize=tokenize, lowercase=lowercase, force=True
        )
        return {"bleu": float(found.score)}

    def each(
        self, predictions: Texts, references: References, tokenize: str = "13a", lowercase: bool = False
    ) -> list[float]:
        _offline(tokenize)
        return [
            float(sacrebleu.sentence_bleu(ours, list(listed(right)), tokenize=tokenize, lowercase=lowercase).score)
            for ours, right in zip(predictions, references, strict=True)
        ]


class Chrf(LocalMetric):
    """Corpus chrF, 0 to 100 (`chrf`), by sacrebleu; `word_order: 2` makes it chrF++."""

    features_ = TEXTS
    aggregation = "chrf"
    corpus = True
    key: ClassVar[str] = "chrf"
    words: ClassVar[int] = 0

    def _compute(self, predictions: Texts, references: References, word_order: int | None = None) -> dict[str, float]:
        words = self.words if word_order is None else word_order
        found = sacrebleu.corpus_chrf(list(predictions), _streams(references), word_order=words)
        return {self.key: float(found.score)}

    def each(self, predictions: Texts, references: References, word_order: int | None = None) -> list[float]:
        words = self.words if word_order is None else word_order
        return [
            float(sacrebleu.sentence_chrf(ours, list(listed(right)), word_order=words).score)
            for ours, right in zip(predictions, references, strict=True)
        ]


class ChrfPlusPlus(Chrf):
    """Corpus chrF++, 0 to 100 (`chrf++`), by sacrebleu."""

    aggregation = "chrf++"
    key = "chrf++"
    words = 2


class TranslationEdits(LocalMetric):
    """Translation edit rate, 0 is best, 100 is as many edits as words (`ter`), by sacrebleu."""

    higher_is_better = False
    features_ = TEXTS
    aggregation = "ter"
    corpus = True

    def _compute(self, predictions: Texts, references: References) -> dict[str, float]:
        return {"ter": float(sacrebleu.corpus_ter(list(predictions), _streams(references)).score)}


class _Rouge(LocalMetric):
    """ROUGE F-measure, 0 to 1, of the best right text, by rouge-score."""

    features_ = TEXTS
    kind: ClassVar[str]

    def _compute(self, predictions: Texts, references: References, use_stemmer: bool = False) -> dict[str, float]:
        return {self.kind.lower(): mean(self.each(predictions, references, use_stemmer))}

    def each(self, predictions: Texts, references: References, use_stemmer: bool = False) -> list[float]:
        # It brings a toolkit of linguistics along.
        from rouge_score.rouge_scorer import RougeScorer

        scorer: Any = RougeScorer([self.kind], use_stemmer=use_stemmer)
        return best(predictions, references, lambda ours, right: float(scorer.score(right, ours)[self.kind].fmeasure))


class Rouge1(_Rouge):
    """Overlap of words (`rouge1`), as F-measure."""

    kind = "rouge1"


class Rouge2(_Rouge):
    """Overlap of pairs of words (`rouge2`), as F-measure."""

    kind = "rouge2"


class RougeL(_Rouge):
    """Longest common subsequence of words (`rougel`), as F-measure."""

    kind = "rougeL"


class RougeLsum(_Rouge):
    """Longest common subsequence line by line (`rougelsum`), as F-measure."""

    kind = "rougeLsum"


class WordErrors(LocalMetric):
    """Word error rate over all words (`wer`), by jiwer: edits per word of the right text; the nearest of several."""

    higher_is_better = False
    features_ = TEXTS
    aggregation = "wer"
    corpus = True
    key: ClassVar[str] = "wer"

    def _compute(
        self, predictions: Texts, references: References, ignore_case: bool = False, ignore_punctuation: bool = False
    ) -> dict[str, float]:
        pairs = self._pairs(predictions, references, ignore_case, ignore_punctuation)
        edits = length = 0
        for found in (self._process(right, ours) for ours, right in pairs):
            edits += found.substitutions + found.deletions + found.insertions
            length += found.hits + found.substitutions + found.deletions
        if not length:
            raise ValueError("the right texts are empty: there is nothing to count errors against")
        return {self.key: edits / length}

    def each(
        self, predictions: Texts, references: References, ignore_case: bool = False, ignore_punctuation: bool = False
    ) -> list[float]:
        pairs = self._pairs(predictions, references, ignore_case, ignore_punctuation)
        return [self._rate(right, ours) for ours, right in pairs]

    def _pairs(
        self, predictions: Texts, references: References, ignore_case: bool, ignore_punctuation: bool
    ) -> list[tuple[str, str]]:
        def plain(text: str) -> str:
            text = text.lower() if ignore_case else text
            return text.translate(_NO_PUNCTUATION) if ignore_punctuation else text

        return [
            (plain(ours), min((plain(text) for text in listed(right)), key=lambda text: self._rate(text, plain(ours))))
            for ours, right in zip(predictions, references, strict=True)
        ]

    def _rate(self, right: str, ours: str) -> float:
        found = self._process(right, ours)
        length = found.hits + found.substitutions + found.deletions
        edits = found.substitutions + found.deletions + found.insertions
        return edits / length if length else float(edits > 0)

    def _process(self, right: str, ours: str) -> Any:
        return jiwer.process_words(right, ours) if right.strip() else _Insertions(len(ours.split()))


class CharacterErrors(WordErrors):
    """Character error rate over all characters (`cer`), by jiwer."""

    aggregation = "cer"
    key = "cer"

    def _process(self, right: str, ours: str) -> Any:
        return jiwer.process_characters(right, ours) if right else _Insertions(len(ours))


class _Insertions:
    """What jiwer would say of a right text without words, which it refuses: all of ours is too much."""

    hits = substitutions = deletions = 0

    def __init__(self, insertions: int) -> None:
        self.insertions = insertions


class PassAtK(LocalMetric):
    """Chance that one of `k` attempts passes, from all `repeats` of them (`pass@k`): 1 - C(n-c, k) / C(n, k)."""

    features_ = PROBABILITIES
    reads = "passed"
    against = NOTHING
    aggregation = "pass_at_k"

    def _compute(
        self, predictions: Sequence[Sequence[float]], references: Any, k: int | Sequence[int] = 1
    ) -> dict[str, float]:
        return {
            f"pass@{wanted}": mean([pass_at(passed, wanted) for passed in predictions])
            for wanted in ([k] if isinstance(k, int) else k)
        }

    def each(self, predictions: Sequence[Sequence[float]], references: Any, k: int | Sequence[int] = 1) -> list[float]:
        first = k if isinstance(k, int) else k[0]
        return [pass_at(passed, first) for passed in predictions]


def pass_at(passed: Sequence[float], wanted: int) -> float:
    """Without bias, from `len(passed)` attempts (Chen et al. 2021, "Evaluating Large Language Models Trained on Code").

    Raises ValueError where there are fewer attempts than wanted.
    """
    count, right = len(passed), sum(value > 0 for value in passed)
    if not 1 <= wanted <= count:
        raise ValueError(f"pass@{wanted} needs {wanted} attempts, there are {count}: set `repeats`")
    return 1.0 - math.comb(count - right, wanted) / math.comb(count, wanted)


_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_NO_DIGITS = str.maketrans("", "", string.digits)


def _offline(tokenize: str) -> None:
    if tokenize not in OFFLINE_TOKENIZERS:
        raise ValueError(f"tokenize: {tokenize!r} needs a download; there are: {', '.join(OFFLINE_TOKENIZERS)}")


def _streams(references: References) -> list[list[str]]:
    """As sacrebleu wants them: the first right text of every sample, then the second, …; shorter lists repeat."""
    texts = [listed(right) for right in references]
    most = max(len(each) for each in texts)
    return [[each[min(place, len(each) - 1)] for each in texts] for place in range(most)]


def _overlap(ours: str, right: str) -> float:
    first, second = _words(ours), _words(right)
    if not first or not second:
        return float(first == second)
    common = sum((Counter(first) & Counter(second)).values())
    return 2 * common / (len(first) + len(second))


def _words(text: str) -> list[str]:
    words = text.lower().translate(_NO_PUNCTUATION).split()
    return [word for word in words if word not in {"a", "an", "the"}]
