"""What numbers of an evaluation are worth: pure functions over values, one for each sample. Knows no task and no file.

`errors`: of a mean. `intervals`: around one. `paired`: of two models on the same samples. `multiple`: of many tests.
Where samples share a source (five questions on one text), `groups` names the source of each: errors and draws are then
over sources, not over questions.
"""

from __future__ import annotations

from gateway_evals.statistics.errors import bootstrap_error, clustered_error, error_of_mean, mean, standard_error
from gateway_evals.statistics.intervals import (
    Interval,
    bootstrap_interval,
    interval_of_mean,
    normal_interval,
    quantile,
    wilson,
)
from gateway_evals.statistics.multiple import holm
from gateway_evals.statistics.paired import (
    PairedResult,
    compare_pairs,
    effect_size,
    mcnemar,
    minimum_detectable_effect,
    paired_bootstrap,
)

__all__ = [
    "Interval",
    "PairedResult",
    "bootstrap_error",
    "bootstrap_interval",
    "clustered_error",
    "compare_pairs",
    "effect_size",
    "error_of_mean",
    "holm",
    "interval_of_mean",
    "mcnemar",
    "mean",
    "minimum_detectable_effect",
    "normal_interval",
    "paired_bootstrap",
    "quantile",
    "standard_error",
    "wilson",
]
