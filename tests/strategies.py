"""Hypothesis strategies of documents that describe an experiment, section by section."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

# TOML is UTF-8: every text but lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
scalars = st.one_of(
    st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False, allow_infinity=False), text
)
parameters = st.dictionaries(text, st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=4)
attributes = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.]{0,9}:[A-Za-z_][A-Za-z0-9_]{0,9}", fullmatch=True)
vectorize = st.one_of(st.just("auto"), st.booleans())


def _section(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the optional fields, or none."""
    return st.fixed_dictionaries({}, optional=fields)


datasets = st.fixed_dictionaries(
    {"name": text},
    optional={
        "root": st.one_of(st.none(), text),
        "path": st.one_of(st.none(), text),
        "num_train": st.one_of(st.none(), st.integers(2, 10**9)),
        "num_test": st.one_of(st.none(), st.integers(1, 10**9)),
        "parameters": parameters,
    },
)
learners = st.one_of(
    st.fixed_dictionaries({"name": st.just("linear")}, optional={"vectorize": vectorize}),
    st.fixed_dictionaries(
        {"name": st.just("mlp")},
        optional={"vectorize": vectorize, "hidden": st.lists(st.integers(1, 65536), max_size=16)},
    ),
    st.fixed_dictionaries(
        {"name": st.just("cnn")}, optional={"channels": st.lists(st.integers(1, 4096), min_size=1, max_size=8)}
    ),
    st.fixed_dictionaries({"name": attributes}, optional={"parameters": parameters}),
)
trainings = _section(
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    learning_rate=st.floats(0, 1e6, exclude_min=True),
    momentum=st.floats(0, 1, exclude_max=True, exclude_min=True),
    weight_decay=st.floats(0, 1e6),
    nesterov=st.booleans(),
    schedule=st.sampled_from(["constant", "linear", "cosine"]),
)
subsets = _section(
    num_trials=st.integers(1, 10**7),
    subset_ratio=st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
    block_size=st.integers(1, 65536),
)
executions = _section(
    executor=st.sampled_from(["ray", "in-process"]),
    num_workers=st.one_of(st.none(), st.integers(1, 100_000)),
    cpus_per_block=st.integers(1, 1024),
    gpus_per_block=st.floats(0, 1024),
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"]),
    max_attempts=st.integers(1, 100),
    trials=st.one_of(
        st.none(), st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(lambda pair: [pair[0], sum(pair)])
    ),
)
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"dataset": datasets},
    optional={"learner": learners, "training": trainings, "subsets": subsets, "execution": executions},
)
