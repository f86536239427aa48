"""How well two kinds of samples can be told apart: logistic regression, cross-validated, and the area under the ROC curve (AUC) of
what it says of samples that it was not trained with: 0.5 is chance, 1 is certainty. No library needed."""

import math
import random

FOLDS, STEPS, RATE, RIDGE = 5, 300, 0.5, 1e-3


def auc(positive, negative):
    """The chance that a positive one scores above a negative one; equal ones count half."""
    ranked = sorted([(score, 1) for score in positive] + [(score, 0) for score in negative])
    total, i = 0.0, 0
    while i < len(ranked):
        end = i
        while end < len(ranked) and ranked[end][0] == ranked[i][0]:
            end += 1
        total += (i + end + 1) / 2 * sum(label for _, label in ranked[i:end])  # the mean of their ranks, from 1
        i = end
    return (total - len(positive) * (len(positive) + 1) / 2) / (len(positive) * len(negative))


def expand(sample):
    """Times spread over powers of ten: their logarithms, and squares of these, so that both ends can be told from the middle."""
    logs = [math.log(1e-6 + value) for value in sample]
    return logs + [value * value for value in logs]


def scaler(samples):
    """A function that gives each quantity mean 0 and deviation 1 over these samples; what is the same in all becomes 0."""
    n, columns = len(samples), list(zip(*samples))
    means = [sum(column) / n for column in columns]
    deviations = [math.sqrt(sum((v - m) ** 2 for v in column) / n) for column, m in zip(columns, means)]
    return lambda sample: [(v - m) / d if d > 1e-12 else 0.0 for v, m, d in zip(sample, means, deviations)]


def train(samples, labels):
    """A function that scores a sample."""
    scale = scaler(samples)
    rows = [scale(sample) + [1.0] for sample in samples]
    weights = [0.0] * len(rows[0])
    for _ in range(STEPS):
        slopes = [RIDGE * w for w in weights]
        for row, label in zip(rows, labels):
            z = max(-30.0, min(30.0, sum(w * v for w, v in zip(weights, row))))
            miss = 1 / (1 + math.exp(-z)) - label
            for i, v in enumerate(row):
                slopes[i] += miss * v / len(rows)
        weights = [w - RATE * slope for w, slope in zip(weights, slopes)]
    return lambda sample: sum(w * v for w, v in zip(weights, scale(sample) + [1.0]))


def separability(samples, labels, seed=1):
    """The AUC of a classifier of these samples (each a list of non-negative numbers) that tries to say their labels (0, 1)."""
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    rows = [expand(sample) for sample in samples]
    folds = [order[i::FOLDS] for i in range(FOLDS)]
    areas = []
    for fold in folds:  # scores of two trainings cannot be compared: one area each
        rest = [i for other in folds if other is not fold for i in other]
        score = train([rows[i] for i in rest], [labels[i] for i in rest])
        found = {label: [score(rows[i]) for i in fold if labels[i] == label] for label in (0, 1)}
        if found[0] and found[1]:
            areas.append(auc(found[1], found[0]))
    return sum(areas) / len(areas)
