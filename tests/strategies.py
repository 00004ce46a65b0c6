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
words = st.text("abcXYZ", min_size=1, max_size=8)
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
        "random_labels": st.one_of(st.none(), st.integers(1, 10**9)),
    },
)
learners = st.one_of(
    st.fixed_dictionaries({"name": st.just("linear")}, optional={"vectorize": vectorize}),
    st.fixed_dictionaries(
        {"name": st.just("mlp")},
        optional={"vectorize": vectorize, "hidden": st.lists(st.integers(1, 65536), max_size=16)},
    ),
    st.fixed_dictionaries(
        {"name": st.just("cnn")},
        optional={"vectorize": vectorize, "channels": st.lists(st.integers(1, 4096), min_size=1, max_size=8)},
    ),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["resnet20", "resnet32", "resnet56"])},
        optional={"shortcuts": st.sampled_from(["A", "B"])},
    ),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["resnet18", "resnet50"])},
        optional={"stem": st.sampled_from(["auto", "small", "large"])},
    ),
    st.fixed_dictionaries(
        {"name": st.sampled_from(["densenet40", "densenet100"])},
        optional={"growth_rate": st.integers(1, 1024), "bottleneck": st.booleans()},
    ),
    st.fixed_dictionaries(
        {"name": st.just("inception")}, optional={"variant": st.sampled_from(["feldman-zhang", "zhang"])}
    ),
    st.fixed_dictionaries(
        {"name": st.builds("{}:{}".format, st.sampled_from(["torchvision", "timm"]), words)},
        optional={"parameters": parameters},
    ),
    st.fixed_dictionaries(
        {"name": st.builds("sklearn:{}{}.{}".format, st.sampled_from(["", "sklearn."]), words, words)},
        optional={"parameters": parameters},
    ),
    st.fixed_dictionaries({"name": attributes}, optional={"parameters": parameters}),
)
TAKES_IMAGES = ("cnn", "resnet", "densenet", "inception", "torchvision:", "timm:")
shares = st.floats(0, 1, exclude_min=True, exclude_max=True)
schedules = st.one_of(
    _section(schedule=st.sampled_from(["constant", "linear", "cosine"])),
    st.fixed_dictionaries(
        {"schedule": st.just("step"), "milestones": st.lists(shares, min_size=1, max_size=4, unique=True).map(sorted)},
        optional={"factor": shares},
    ),
)
recipes = _section(
    epochs=st.integers(1, 10**6),
    batch_size=st.integers(1, 10**6),
    learning_rate=st.floats(0, 1e6, exclude_min=True),
    momentum=st.floats(0, 1, exclude_max=True, exclude_min=True),
    weight_decay=st.floats(0, 1e6),
    nesterov=st.booleans(),
    precision=st.sampled_from(["float32", "bfloat16"]),
    warmup=st.floats(0, 1, exclude_max=True),
)
augmentations: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {"augment": st.permutations(["crop", "flip", "cutout"])}, optional={"crop_padding": st.integers(1, 8)}
    ),
    st.fixed_dictionaries({"augment": st.just(["cutout"])}, optional={"cutout_size": st.integers(1, 1024)}),
)
trainings = st.tuples(recipes, schedules, augmentations).map(lambda parts: {**parts[0], **parts[1], **parts[2]})
subsets = _section(
    num_trials=st.integers(1, 10**7),
    subset_ratio=st.floats(0, 1, exclude_min=True, exclude_max=True),
    seed=st.integers(0, 2**63 - 1),
    block_size=st.integers(1, 65536),
)
outputs = _section(margins=st.booleans(), predictions=st.booleans())
executions = _section(
    executor=st.sampled_from(["ray", "in-process"]),
    num_workers=st.one_of(st.none(), st.integers(1, 100_000)),
    cpus_per_block=st.integers(1, 1024),
    gpus_per_block=st.one_of(st.integers(0, 10_000).map(lambda units: units / 10_000), st.integers(1, 1024).map(float)),
    memory_per_block=st.one_of(
        st.none(), st.builds("{}{}".format, st.integers(1, 999), st.sampled_from(["GB", " GiB", ".5 MiB", "TB"]))
    ),
    resources=st.dictionaries(words, st.one_of(st.floats(0, 1, exclude_min=True), st.integers(1, 100)), max_size=2),
    shared_files=st.booleans(),
    device=st.sampled_from(["auto", "cpu", "cuda", "cuda:1", "mps"]),
    compile=st.booleans(),
    checkpoint_path=st.one_of(st.none(), st.just("/shared/kept")),
    max_attempts=st.integers(1, 100),
    trials=st.one_of(
        st.none(), st.tuples(st.integers(0, 10**6), st.integers(1, 10**6)).map(lambda pair: [pair[0], sum(pair)])
    ),
)


def _augmenting_images_only(document: dict[str, Any]) -> dict[str, Any]:
    """Leave the augmentation out where the learner takes no images."""
    if str(document.get("learner", {}).get("name", "mlp")).startswith(TAKES_IMAGES) or "training" not in document:
        return document
    kept = {key: value for key, value in document["training"].items() if key not in AUGMENTATION_KEYS}
    return {**document, "training": kept}


AUGMENTATION_KEYS = ("augment", "crop_padding", "cutout_size")
documents: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {"dataset": datasets},
    optional={
        "learner": learners,
        "training": trainings,
        "subsets": subsets,
        "outputs": outputs,
        "execution": executions,
    },
).map(_augmenting_images_only)
