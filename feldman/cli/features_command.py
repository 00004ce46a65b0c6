"""`feldman features`."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

from feldman.cli.output import print_json
from feldman.cli.progress import ProgressDisplay
from feldman.errors import DatasetError, InterruptedRunError
from feldman.importing import see_current_folder
from feldman.retrieval.features import FeaturesSummary, features_request, make_features
from feldman.trials.locations import local_path, location_of

__all__ = ["compute_features"]


def compute_features(source: str, output: str, overrides: list[str], seed: int, as_json: bool) -> None:
    """Make the features, and print what they are of."""
    see_current_folder()
    folder = _folder(output)
    try:
        # What a user's own code prints must not get between a script and its JSON.
        with ProgressDisplay() as display, contextlib.redirect_stdout(sys.stderr):
            summary = make_features(features_request(source, overrides, seed), folder, display)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted; no features were written") from None
    if as_json:
        print_json(summary.as_json())
    else:
        _print_summary(summary)


def _folder(output: str) -> Path:
    try:
        return local_path(location_of(output), "features are written")
    except RuntimeError as error:  # '~name' of nobody
        raise DatasetError(f"-o '{output}': {error}") from None


def _print_summary(summary: FeaturesSummary) -> None:
    facts = summary.facts
    there = "" if summary.made else "; they were there already, and nothing was done"
    print(
        f"{summary.folder}: {facts.num_features:,} features of {summary.num_train:,} training and {summary.num_test:,} test "
        f"examples of {facts.source.name}{there}"
    )
    learner = facts.experiment["learner"]["name"]
    print(
        f"  network        {learner}, trained on all training examples, seed {facts.seed}; its last layer is '{facts.layer}'"
    )
    print(
        f"  its accuracy   {100 * facts.test_accuracy:.2f}% on the test examples, {100 * facts.train_accuracy:.2f}% on those "
        "that it learned from"
    )
    print(f'  next           [dataset] name = "arrays", path = "{summary.folder}"; [learner] name = "linear"')
