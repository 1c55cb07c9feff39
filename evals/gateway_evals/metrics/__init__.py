"""Metrics as `evaluate.Metric` subclasses, thin over scikit-learn, sacrebleu, rouge-score and jiwer. No hub.

Imported only by the factories in `offers`: heavy. What a metric tells of itself stands in `metrics.local`.
"""
