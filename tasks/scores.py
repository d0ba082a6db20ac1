"""Scores of predictions against labels; a score that is undefined because everything is one value is 0."""

from __future__ import annotations

from collections.abc import Sequence

Numbers = Sequence[float]


def accuracy(predictions: Numbers, labels: Numbers) -> float:
    """Fraction predicted right."""
    from sklearn.metrics import accuracy_score

    return float(accuracy_score(labels, predictions))


def f1(predictions: Numbers, labels: Numbers) -> float:
    """Harmonic mean of precision and recall of label 1."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predictions, zero_division=0))


def matthews(predictions: Numbers, labels: Numbers) -> float:
    """Correlation of predicted and true classes. Matthews, BBA 405 (1975)."""
    from sklearn.metrics import matthews_corrcoef

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(matthews_corrcoef(labels, predictions))


def pearson(predictions: Numbers, labels: Numbers) -> float:
    """Linear correlation."""
    from scipy.stats import pearsonr

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(pearsonr(predictions, labels).statistic)


def spearman(predictions: Numbers, labels: Numbers) -> float:
    """Correlation of ranks."""
    from scipy.stats import spearmanr

    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(spearmanr(predictions, labels).statistic)


def _constant(values: Numbers) -> bool:
    return len(set(values)) < 2
