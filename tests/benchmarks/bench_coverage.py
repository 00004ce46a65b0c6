"""`make bench-coverage`: how often 95% intervals cover, how often chance looks significant; build/bench/coverage.json.

Coverage of the three intervals and sizes of the two tests are exact: binomial probabilities, summed. Then the estimators
themselves, on learners whose truth is known in closed form, with a number of trials that was fixed and with one that a stopping
rule chose, q-values on trials with planted dependence, bands of J and D of two learners, counts of memorized examples and the
accuracy that these carry.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from feldman.estimates.bits import TrialBits, take_trials
from feldman.estimates.influence import estimate_influence, select_pairs
from feldman.estimates.intervals import Difference
from feldman.estimates.memorization import count_memorization, estimate_memorization
from feldman.estimates.packing import count_bits
from feldman.estimates.selection import PairSelection
from feldman.estimates.significance import QValues, num_pairs_tested, pair_p_values
from feldman.studies.carried import carried_accuracy
from feldman.studies.resampling import Resampling
from feldman.studies.stopping import halves_agreement, next_look, reached_stderr
from feldman.studies.tail import TailPlan, measure_tail
from feldman.trials.stopping import StoppingRule
from tests.benchmarks.band_coverage import measured_coverage, two_learners
from tests.benchmarks.coverage import INTERVALS, TESTS, exact_coverage, exact_size
from tests.benchmarks.planted import (
    Planted,
    additive_trials,
    expected_counts,
    memorizing_learner,
    planted_learner,
    quality_trials,
    tail_learner,
)
from tests.benchmarks.report import Row, write_report

NUM_TRIALS = (50, 250, 2_000)
RATES = (
    (0.002, 0.002), (0.02, 0.02), (0.5, 0.5), (0.98, 0.98), (0.998, 0.998),
    (0.5, 0.02), (0.98, 0.5), (0.998, 0.9), (0.998, 0.02),
)  # fmt: skip
LEVELS = (1e-2, 1e-4, 1e-6, 1e-8)
REPEATS = 400
BAND_REPEATS = 100
RULES = (StoppingRule(stderr=0.1), StoppingRule(stderr=0.05), StoppingRule(jaccard=0.4), StoppingRule(jaccard=0.6))
TAILS, TAIL_THRESHOLDS = ("spread", "thin", "wavering", "gap"), (0.1, 0.25, 0.5, 0.75, 0.9)
STOPPED_REPEATS, MOST_TRIALS, BLOCK_SIZE = 200, 2_000, 10
FALSE_SHARE = 0.05
BANDS: tuple[tuple[str, int, float, int], ...] = (
    ("few pairs by chance", 200, 0.3, 300),
    ("many pairs by chance", 300, 0.5, 150),
)
"""Examples, share of test examples that waver, trials."""
ENDS = ("ci_low", "ci_high")


def main() -> None:
    rows = [*coverage_table(), *size_table()]
    for num_trials in (250, 1_000):
        rows += planted_truth(num_trials)
    for rule in RULES:
        rows += stopped_runs(rule)
    rows += stopped_tail(RULES[0])
    rows += false_discoveries()
    for where, num_examples, share_wavering, num_trials in BANDS:
        rows += consistency_bands_cover(where, num_examples, share_wavering, num_trials)
    print(
        "| learner | trials | reach | expected | error (claimed) | covers, classes | truly | covers | corrected | covers |"
    )
    for kind in TAILS:
        rows += counted_tails(kind)
    rows += carried()
    write_report("coverage", rows)


def coverage_table() -> list[Row]:
    """Print how often each interval covers; Newcombe's must do so at least 94 times in 100 everywhere."""
    print("| trials | right with, without | " + " | ".join(f"{name}: covers | width" for name in INTERVALS) + " |")
    print("| --- " * (2 + 2 * len(INTERVALS)) + "|")
    found: dict[str, list[float]] = {name: [] for name in INTERVALS}
    for num_trials in NUM_TRIALS:
        for rates in RATES:
            cells = []
            for name, interval in INTERVALS.items():
                covered, width = exact_coverage(interval, rates, num_trials)
                found[name].append(covered)
                cells.append(f"{covered:.3f} | {width:.3f}")
            print(f"| {num_trials:,} | {rates[0]:g}, {rates[1]:g} | " + " | ".join(cells) + " |")
    for name, values in found.items():
        print(f"{name}: covers {min(values):.3f} to {max(values):.3f}, mean distance from 0.95 {distance(values):.4f}")
    chosen = distance(found["Newcombe"])
    rows = [
        Row(
            name=f"Newcombe nearer to 95% than {other}",
            value=chosen,
            unit="coverage",
            yardstick=distance(found[other]),
            ratio=distance(found[other]) / chosen,
            at_least=1,
            n=len(found[other]),
        )
        for other in ("Wald", "Agresti-Caffo")
    ]
    return [*rows, within("least coverage of Newcombe", min(found["Newcombe"]), 0.94, 1.0, len(found["Newcombe"]))]


def size_table() -> list[Row]:
    """Print how often a test calls chance significant, as a multiple of what it says; Fisher's must never say too little."""
    print("| trials | right | p-value at most | " + " | ".join(f"{name}: times as often" for name in TESTS) + " |")
    print("| --- " * (3 + len(TESTS)) + "|")
    most = 0.0
    for num_trials in (250, 4_000):
        for rate in (0.5, 0.9, 0.99):
            for level in LEVELS:
                sizes = {name: exact_size(test, rate, num_trials, level) / level for name, test in TESTS.items()}
                most = max(most, sizes["Fisher"])
                cells = " | ".join(f"{size:.2g}" for size in sizes.values())
                print(f"| {num_trials:,} | {rate:g} | {level:g} | {cells} |")
    return [within("most often for its p-value: Fisher", most, 0, 1, 24)]


def planted_truth(num_trials: int) -> list[Row]:
    """Estimate a known truth many times over: the mean error beside its own noise, and how often intervals cover."""
    learner, where = planted_learner(), f"{num_trials} trials"
    rows = []
    for name, (error, noise, covered) in repeated(
        learner, REPEATS, lambda seed: learner.trials(num_trials, seed)
    ).items():
        print(f"{where}, {name}: mean error {error:+.5f} (noise {noise:.5f}), covered {covered:.4f}")
        rows += [
            within(f"{name}, {where}: |bias| / noise", abs(error) / noise, 0, 3, REPEATS),
            within(f"{name}, {where}: covered", covered, 0.94, 0.97, REPEATS),
        ]
    return rows


def stopped_runs(rule: StoppingRule) -> list[Row]:
    """The same when the trials themselves say when to stop: a rule must not choose moments at which estimates are wrong."""
    learner = planted_learner()
    lengths: list[int] = []

    def trials(seed: int) -> TrialBits:
        stopped = until_met(rule, learner.trials(MOST_TRIALS, seed))
        lengths.append(stopped.num_trials)
        return stopped

    found = repeated(learner, STOPPED_REPEATS, trials)
    low, median, high = np.quantile(lengths, [0.05, 0.5, 0.95])
    print(f"{rule.in_words()}: stopped at {low:.0f} to {high:.0f} trials, median {median:.0f}; longest {max(lengths)}")
    rows = [within(f"{rule.in_words()}: longest", max(lengths), 0, MOST_TRIALS - 1, STOPPED_REPEATS)]
    for name, (error, noise, covered) in found.items():
        print(f"  {name}: mean error {error:+.5f} (noise {noise:.5f}), covered {covered:.4f}")
        rows.append(within(f"{name}, {rule.in_words()}: covered", covered, 0.94, 0.97, STOPPED_REPEATS))
    return rows


def stopped_tail(rule: StoppingRule, repeats: int = 1_000, num_memorized: int = 4) -> list[Row]:
    """The same where a few memorized examples alone decide when to stop: coverage of just these, the worst case for a rule."""
    learner = tail_learner(num_memorized=num_memorized)
    truth, covered, lengths, errors = learner.memorization[:num_memorized], [], [], []
    for seed in range(repeats):
        bits = until_met(rule, learner.trials(600, seed))
        found = estimate_memorization(bits)
        low, high = found.ci_low[:num_memorized], found.ci_high[:num_memorized]
        covered.append(float(np.mean((low <= truth) & (truth <= high))))
        errors.append(float((found.memorization[:num_memorized] - truth).mean()))
        lengths.append(bits.num_trials)
    ends, noise = np.quantile(lengths, [0.05, 0.95]), float(np.std(errors, ddof=1)) / repeats**0.5
    print(f"{rule.in_words()}, decided by {num_memorized} of 120: stopped at {ends[0]:.0f} to {ends[1]:.0f} trials")
    print(
        f"  their memorization: mean error {np.mean(errors):+.5f} (noise {noise:.5f}), covered {np.mean(covered):.4f}"
    )
    return [
        within(
            "memorization of the few that decide when to stop: covered", float(np.mean(covered)), 0.94, 0.97, repeats
        )
    ]


def until_met(rule: StoppingRule, bits: TrialBits) -> TrialBits:
    """Return the first trials, up to where a run of blocks of 10 would have stopped."""
    last, labels = 0, (np.zeros(len(bits.subset_mask), np.int64), np.zeros(len(bits.test_correct), np.int64))
    for end in range(BLOCK_SIZE, bits.num_trials + 1, BLOCK_SIZE):
        if end < next_look(rule, last):
            continue
        last, first = end, take_trials(bits, np.arange(end))
        value = reached_stderr(count_memorization(first), end) if rule.stderr else halves_agreement(first, labels)
        if rule.is_met_by(value):
            return first
    return bits


def repeated(
    learner: Planted, repeats: int, trials: Callable[[int], TrialBits]
) -> dict[str, tuple[float, float, float]]:
    """Estimate many times; return, of each kind of estimate, the mean error, its own noise and the share that is covered."""
    truths = {
        "memorization": learner.memorization,
        "influence of the key": learner.memorization,
        "influence of others": learner.influence[~np.eye(len(learner.rate_in), dtype=bool)],
    }
    errors: dict[str, list[float]] = {name: [] for name in truths}
    covered: dict[str, list[float]] = {name: [] for name in truths}
    for seed in range(repeats):
        for name, found in estimates(trials(seed)).items():
            errors[name].append(
                float((found.value - truths[name]).mean())
            )  # repeats are independent, examples are not quite
            covered[name].append(float(np.mean((found.ci_low <= truths[name]) & (truths[name] <= found.ci_high))))
    return {
        name: (float(np.mean(means)), float(np.std(means, ddof=1)) / repeats**0.5, float(np.mean(covered[name])))
        for name, means in errors.items()
    }


def estimates(bits: TrialBits) -> dict[str, Difference]:
    """Estimate with the functions that tables are made with."""
    found = estimate_memorization(bits)
    pairs = estimate_influence(bits, np.arange(len(bits.subset_mask)))
    same = np.eye(len(bits.subset_mask), dtype=bool)
    return {
        "memorization": Difference(found.memorization, found.stderr, found.ci_low, found.ci_high),
        "influence of the key": Difference(*(values[same] for values in pairs)),
        "influence of others": Difference(*(values[~same] for values in pairs)),
    }


def false_discoveries(repeats: int = 200) -> list[Row]:
    """Select pairs as an estimate does, and look which of those with a low q-value depend on nothing."""
    selection = PairSelection(min_influence=0.05, min_memorization=0.25)
    false, small, of = [], 0, 0
    for seed in range(repeats):
        bits, dependent = quality_trials(600, 100, 30, seed)
        memorization = estimate_memorization(bits).memorization
        pairs = select_pairs(bits, memorization, selection)
        labels = np.zeros(100, int)
        tested = num_pairs_tested(selection, labels[memorization >= selection.min_memorization], labels)
        low = QValues.of(pairs.p_value, tested)(pairs.p_value) <= FALSE_SHARE
        named = dependent[pairs.train_index[low], pairs.target_index[low]]
        false.append(float(np.mean(~named)) if len(named) else 0.0)
        # Pairs without dependence, of the memorized examples alone: does the filter spoil their p-values?
        rows, columns = np.nonzero((memorization >= selection.min_memorization)[:, None] & ~dependent)
        mask, correct = bits.subset_mask[rows], bits.test_correct[columns]
        p_value = pair_p_values(
            count_bits(mask, correct), count_bits(mask, mask), count_bits(correct, correct), num_trials=600
        )
        small, of = small + int((p_value <= 0.01).sum()), of + len(p_value)
    print(f"q <= {FALSE_SHARE}: {np.mean(false):.4f} of the pairs depend on nothing, a mean of {repeats} repeats")
    print(f"p <= 0.01 of pairs that depend on nothing, of memorized examples: {small / of:.4f} of {of:,}")
    return [
        within(f"false share of pairs with q <= {FALSE_SHARE}", float(np.mean(false)), 0, FALSE_SHARE, repeats),
        within("share of chance with p <= 0.01", small / of, 0, 0.01, of),
    ]


def consistency_bands_cover(where: str, num_examples: int, share_wavering: float, num_trials: int) -> list[Row]:
    """Print how often bands of J and D hold what runs of two learners give on average, beside what else resamples could tell."""
    plan = Resampling(
        memorization=np.array([0.05, 0.25, 0.5, 0.75]),
        influence=np.array([0.1, 0.15, 0.2, 0.3, 0.4]),
        min_memorization=0.25,
        num_resamples=50,
        seed=0,
    )
    learners = two_learners(num_examples, share_wavering)
    found = measured_coverage(learners, num_trials, num_truth=200, num_repeats=BAND_REPEATS, plan=plan, beside=True)
    names = {"jaccard": "J", "mean_difference": "D"}
    columns = ("width", "covered", "plain_width", "plain_covered", "percentiles_covered")
    print(f"{where}: {num_examples} examples, {num_trials} trials")
    print("| figure | at least | selected | mean | spread | " + " | ".join(columns) + " |")
    print("| --- " * (5 + len(columns)) + "|")
    for row in found:
        cells = " | ".join(f"{row[name]:.2f}" for name in columns)
        print(
            f"| {names[str(row['figure'])]} of {row['estimate']} | {row['threshold']:g} | {row['num_either']:.0f} | "
            f"{row['expected']:.3f} | {row['spread']:.4f} | {cells} |"
        )
    rows = []
    for figure, name in names.items():
        covered = [float(row["covered"]) for row in found if row["figure"] == figure and row["num_bands"]]
        rows += [
            within(f"bands of {name}, {where}: covered, mean", float(np.mean(covered)), 0.9, 1.0, BAND_REPEATS),
            within(f"bands of {name}, {where}: covered, least", min(covered), 0.8, 1.0, BAND_REPEATS),
        ]
    return rows


def counted_tails(kind: str, repeats: int = 200) -> list[Row]:
    """Count the memorized examples of many planted truths: their expected number, and the true one, beside intervals of both."""
    plan, group = TailPlan(thresholds=TAIL_THRESHOLDS, num_resamples=100), np.arange(400) % 4
    rows = []
    for num_trials in (100, 300, 1_000):
        tails, expected, planted = [], [], []
        for seed in range(repeats):
            learner = memorizing_learner(kind, 400, seed)
            tails.append(measure_tail(learner.trials(num_trials, seed), group, plan))
            reaching = expected_counts(learner, num_trials, TAIL_THRESHOLDS)
            expected.append([reaching.sum(axis=0), *(reaching[group == one].sum(axis=0) for one in range(4))])
            planted.append([(learner.memorization >= at - 1e-12).sum() for at in TAIL_THRESHOLDS])
        count, stderr, low, high = (
            np.array([getattr(tail.reaching, name) for tail in tails]) for name in ("count", "stderr", *ENDS)
        )
        true, true_low, true_high = (
            np.array([getattr(tail.true, name) for tail in tails]) for name in ("count", *ENDS)
        )
        means, truths = np.array(expected), np.array(planted)
        held, naive = (low <= means) & (means <= high), (low[:, 0] <= truths) & (truths <= high[:, 0])
        for place, at in enumerate(TAIL_THRESHOLDS):
            if means[:, 0, place].mean() < 1:
                continue
            where, error = f"{kind}, {num_trials} trials, >= {at:g}", (count - means)[:, 0, place].std()
            cells = [
                f"{means[:, 0, place].mean():.1f}",
                f"{error:.1f} ({np.sqrt((stderr[:, 0, place] ** 2).mean()):.1f})",
                f"{held[:, 0, place].mean():.2f}, {held[:, 1:, place].mean():.2f}",
                f"{truths[:, place].mean():.1f}",
                f"{naive[:, place].mean():.2f}",
            ]
            rows.append(within(f"expected count, {where}: covered", held[:, 0, place].mean(), 0.85, 1, repeats))
            if np.isnan(true[:, place]).any():
                cells += ["-", "-"]
            else:
                found = (true_low[:, place] <= truths[:, place]) & (truths[:, place] <= true_high[:, place])
                cells += [f"{true[:, place].mean():.1f}", f"{found.mean():.2f}"]
                rows.append(within(f"true count, {where}: covered", float(found.mean()), 0.92, 1, repeats))
            print(f"| {kind} | {num_trials:,} | {at:g} | " + " | ".join(cells) + " |")
    return rows


def carried(repeats: int = 400) -> list[Row]:
    """Say what memorized examples add to accuracy where some trials are better at everything; and plain sums of influences."""
    rows = []
    for num_trials in (100, 400):
        errors, covered, plain = [], [], []
        for seed in range(repeats):
            bits, effect = additive_trials(num_trials, 150, seed)
            (found,) = carried_accuracy(bits, (0.25,))
            memorized = estimate_memorization(bits).memorization >= 0.25
            truth = memorized.sum() * (effect[memorized].mean() - effect[~memorized].mean())
            errors.append((found.carried - truth) / found.stderr)
            covered.append(found.ci_low <= truth <= found.ci_high)
            below = memorized.sum() * (effect[memorized].mean() - effect.mean())
            plain.append((found.influence_sum - below) / found.below_random_stderr)
        share, where = float(np.mean(covered)), f"{num_trials} trials"
        print(
            f"carried accuracy, {where}: mean error {np.mean(errors):+.3f} standard errors (noise {repeats**-0.5:.3f}), spread "
            f"{np.std(errors, ddof=1):.3f}, covered {share:.3f}; of the plain sum {np.mean(plain):+.3f}"
        )
        rows.append(within(f"carried accuracy, {where}: covered", share, 0.92, 0.98, repeats))
        rows.append(
            within(f"carried accuracy, {where}: |bias| / noise", abs(np.mean(errors)) * repeats**0.5, 0, 3, repeats)
        )
    return rows


def distance(coverages: list[float]) -> float:
    return float(np.mean(np.abs(np.array(coverages) - 0.95)))


def within(name: str, value: float, low: float, high: float, n: int) -> Row:
    """A figure that must lie in a range; beyond it the ratio is 0."""
    return Row(
        name=name,
        value=value,
        unit=f"{low:g}..{high:g}",
        yardstick=high,
        ratio=float(low <= value <= high),
        at_least=1,
        n=n,
    )


if __name__ == "__main__":
    main()
