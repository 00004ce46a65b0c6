"""How well additive influence predicts trials that it was not estimated from: the linear datamodeling score."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray
from scipy.stats import rankdata

from feldman.errors import QueryError, listed
from feldman.estimates.bits import TrialBits, unpack_trials
from feldman.estimates.intervals import proportion_difference
from feldman.studies.halves import generator

__all__ = ["LDS_SCHEMA", "Estimator", "LdsPlan", "column_spearman", "default_train_sizes", "measure_lds"]

Estimator = Literal["difference", "ridge", "lasso"]

LDS_SCHEMA = pa.schema(
    [
        ("num_trials", pa.int64()),
        ("estimator", pa.string()),
        *((name, pa.float64()) for name in ("lds", "stderr", "lds_chance")),
        *((name, pa.int64()) for name in ("num_test", "num_held_out")),
    ]
)

_FEWEST = 20
"""Trials to estimate from, or held out: with fewer a rank correlation says nothing."""

_SMALLEST_DEFAULT = 50
_RIDGE_PENALTIES = np.logspace(0, 5, 11)
_LASSO_PENALTIES, _LASSO_FOLDS = 12, 3

Predict = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, kw_only=True)
class LdsPlan:
    """What is measured.

    Attributes
    ----------
    sizes
        From how many trials, each.
    num_held_out
        Trials that are predicted, the same ones always.
    num_test
        Test examples whose predictions are predicted: drawn from those that the trials do not agree about.
    estimators
        ``"difference"``: the difference of means, which the tables hold. ``"ridge"``, ``"lasso"``: linear models of the subset's
        indicator, penalties chosen by cross-validation for each test example; the lasso takes seconds for each of them.
    seed
        Of what is drawn.
    """

    sizes: tuple[int, ...]
    num_held_out: int
    num_test: int = 100
    estimators: tuple[Estimator, ...] = ("difference", "ridge")
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        unknown = set(self.estimators) - set(get_args(Estimator))
        if unknown or not self.estimators:
            raise QueryError(f"estimators are {listed(get_args(Estimator))}; found '{listed(sorted(unknown))}'")
        if self.num_held_out < _FEWEST or min(self.sizes, default=0) < _FEWEST or self.num_test < 1:
            raise QueryError(
                f"a score takes {_FEWEST} trials to estimate from, {_FEWEST} held out and a test example; found sizes "
                f"{listed(map(str, self.sizes))}, {self.num_held_out} held out, {self.num_test} test examples"
            )


def default_train_sizes(num_trials: int) -> tuple[int, ...]:
    """Return all, half of them, and so on, while there are 50; ascending."""
    sizes = [num_trials]
    while sizes[-1] // 2 >= _SMALLEST_DEFAULT:
        sizes.append(sizes[-1] // 2)
    return tuple(reversed(sizes))


def measure_lds(
    bits: TrialBits, plan: LdsPlan, on_fit: Callable[[int, int], None] = lambda done, total: None
) -> pa.Table:
    r"""Predict which held-out trials get test examples right, from their subsets alone.

    An additive model predicts of a subset S that test example j is right by :math:`\sum_{i \in S} \tau_{ij}`. Its score is
    Spearman's rank correlation of prediction and truth over the held-out trials, a mean over test examples.

    S. M. Park, K. Georgiev, A. Ilyas, G. Leclerc, A. Madry, "TRAK: Attributing Model Behavior at Scale" (2023), section 2. There
    the truth is a margin, a mean of several models of a subset; here it is one trial's bit, whose own noise keeps scores low.

    Parameters
    ----------
    bits
        Of all trials.
    plan
        What to measure.
    on_fit
        Told how many models have been fitted, and how many there are.

    Returns
    -------
    pyarrow.Table
        `LDS_SCHEMA`: a row a size and estimator, with the standard error over test examples, and the score after the held-out
        subsets were shuffled: chance. Test examples about which the held-out trials agree are left out of the mean; a prediction
        that is the same for all subsets scores 0.

    Raises
    ------
    QueryError
        If there are not so many trials, or trials agree about all test examples.
    """
    most = bits.num_trials - plan.num_held_out
    if max(plan.sizes) > most:
        raise QueryError(
            f"of {bits.num_trials:,} trials {plan.num_held_out:,} are held out: estimates can be made from {most:,} at most; "
            f"found {max(plan.sizes):,}"
        )
    random = generator(plan.seed, 0)
    order = random.permutation(bits.num_trials)
    held_out, rest = order[: plan.num_held_out], order[plan.num_held_out :]
    mask, test = unpack_trials(bits.subset_mask, bits.num_trials), _drawn_tests(bits, plan, random)
    correct = unpack_trials(bits.test_correct[test], bits.num_trials)
    shuffled = random.permutation(plan.num_held_out)
    rows = []
    for size in plan.sizes:
        for estimator in plan.estimators:
            predict = _FITS[estimator](mask[rest[:size]], correct[rest[:size]])
            predicted, truth = predict(mask[held_out].astype(np.float64)), correct[held_out].astype(np.float64)
            scores, chance = (
                np.nan_to_num(column_spearman(values, truth)) for values in (predicted, predicted[shuffled])
            )
            defined = (truth != truth[0]).any(axis=0)
            num = int(defined.sum())
            rows.append(
                {
                    "num_trials": size,
                    "estimator": estimator,
                    "lds": float(scores[defined].mean()) if num else float("nan"),
                    "stderr": float(scores[defined].std(ddof=1) / np.sqrt(num)) if num > 1 else float("nan"),
                    "lds_chance": float(chance[defined].mean()) if num else float("nan"),
                    "num_test": num,
                    "num_held_out": plan.num_held_out,
                }
            )
            on_fit(len(rows), len(plan.sizes) * len(plan.estimators))
    return pa.Table.from_pylist(rows, schema=LDS_SCHEMA)


def column_spearman(
    first: Float64[np.ndarray, "value column"], second: Float64[np.ndarray, "value column"]
) -> Float64[np.ndarray, " column"]:
    """Return the rank correlation of each column with its counterpart; NaN where either is constant."""
    ranks = [rankdata(np.round(values, 9), axis=0) for values in (first, second)]
    centred = [values - values.mean(axis=0) for values in ranks]
    spread = np.sqrt((centred[0] ** 2).sum(axis=0) * (centred[1] ** 2).sum(axis=0))
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation: NDArray[np.float64] = np.where(spread > 0, (centred[0] * centred[1]).sum(axis=0) / spread, np.nan)
    return correlation


def _drawn_tests(bits: TrialBits, plan: LdsPlan, random: np.random.Generator) -> Int64[np.ndarray, " test"]:
    right = unpack_trials(bits.test_correct, bits.num_trials).mean(axis=0)
    differing = np.flatnonzero((right > 0) & (right < 1))
    if not len(differing):
        raise QueryError("all trials agree about every test example: there is nothing to predict")
    return np.sort(random.permutation(differing)[: plan.num_test]).astype(np.int64)


def _fit_difference(mask: Bool[np.ndarray, "trial train"], correct: Bool[np.ndarray, "trial test"]) -> Predict:
    """Add up the differences of means of a subset's examples; of those in all trials or in none nothing is known: 0."""
    # In float32 the product is exact, and four times as fast: counts are far below 2**24.
    joint = (mask.T.astype(np.float32) @ correct.astype(np.float32)).astype(np.float64)
    num_in, right = mask.sum(axis=0)[:, None], correct.sum(axis=0)[None]
    influence = np.nan_to_num(proportion_difference(joint, num_in, right - joint, len(mask) - num_in).value)
    return lambda subsets: subsets @ influence


def _fit_ridge(mask: Bool[np.ndarray, "trial train"], correct: Bool[np.ndarray, "trial test"]) -> Predict:
    from sklearn.linear_model import RidgeCV

    model = RidgeCV(alphas=_RIDGE_PENALTIES, alpha_per_target=True)
    model.fit(mask.astype(np.float64), correct.astype(np.float64))
    return lambda subsets: model.predict(subsets).reshape(len(subsets), -1)


def _fit_lasso(mask: Bool[np.ndarray, "trial train"], correct: Bool[np.ndarray, "trial test"]) -> Predict:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LassoCV

    # Column by column in memory, as coordinate descent reads it.
    x, models = np.asfortranarray(mask, np.float64), []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the smallest penalties, which are not the ones chosen
        for column in correct.T:
            model = LassoCV(alphas=_LASSO_PENALTIES, eps=0.05, cv=_LASSO_FOLDS, max_iter=300, tol=1e-3)
            models.append(model.fit(x, column.astype(np.float64)))
    return lambda subsets: np.stack([model.predict(subsets) for model in models], axis=1)


_FITS: dict[Estimator, Callable[[NDArray[np.bool_], NDArray[np.bool_]], Predict]] = {
    "difference": _fit_difference,
    "ridge": _fit_ridge,
    "lasso": _fit_lasso,
}
