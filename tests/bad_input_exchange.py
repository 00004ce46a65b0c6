"""What can be wrong with files of others, and with where files for others should go: cases for the table of bad input."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np

from tests.bad_input_setups import Case, Setup, attributes, content, damaged_chunk, mode, read_only_folder, without
from tests.exchange.released import arrays_of, random_bits, write_labels, write_pairs, write_released, write_run

PAIRS = "import pairs.npz -o new"
RUNS = "import 0.7 -o new"
COMPARE = "compare done --with pairs.npz"


def pairs(**changes: Any) -> Setup:
    return lambda folder: void(write_pairs(folder / "pairs.npz", **changes))


def named_pairs(folder: Path) -> None:
    write_pairs(folder / "high_infl_pairs_infl0.2_mem0.5.npz")


def tables(folder: Path) -> None:
    """A run of tables alone, as an import leaves it."""
    (folder / "done" / "trials.zarr").rename(folder / "elsewhere")


def released(folder: Path) -> None:
    write_released(folder / "0.7", random_bits(0, num_trials=3))


def labels(**sizes: int) -> Setup:
    def setup(folder: Path) -> None:
        released(folder)
        write_labels(folder / "labels.npz", random_bits(0, **sizes))

    return setup


def names(text: bytes) -> Setup:
    def setup(folder: Path) -> None:
        labels()(folder)
        (folder / "names.txt").write_bytes(text)

    return setup


def released_but(harm: Any) -> Setup:
    """Released runs of which the last is wrong."""

    def setup(folder: Path) -> None:
        released(folder)
        arrays = arrays_of(random_bits(0, num_trials=3), 2)
        harm(arrays)
        write_run(folder / "0.7" / "2", arrays)

    return setup


def two_ratios(folder: Path) -> None:
    for ratio in ("0.5", "0.7"):
        write_released(folder / "cifar" / ratio, random_bits(0, num_trials=1))


def both(*setups: Setup) -> Setup:
    def setup(folder: Path) -> None:
        for each in setups:
            each(folder)

    return setup


def matrix(**changes: Any) -> Setup:
    """A matrix file of the run's 60 and 30 examples."""
    train, test = np.arange(60) % 3, np.arange(30) % 3

    def setup(folder: Path) -> None:
        arrays = {"tr_labels": train, "tt_labels": test, "tr_mem": np.zeros(60)}
        for label in range(3):
            arrays[f"infl_matrix_class{label}"] = np.zeros((20, 10))
            arrays[f"tr_classidx_{label}"] = np.flatnonzero(train == label)
            arrays[f"tt_classidx_{label}"] = np.flatnonzero(test == label)
        arrays |= changes
        np.savez(folder / "pairs.npz", allow_pickle=True, **arrays)

    return setup


def void(_: object) -> None:
    return None


def case(name: str, command: str, says: str, setup: Setup = lambda folder: None, **more: Any) -> Case:
    return Case(name=name, command=command, says=says, setup=setup, **more)


IMPORTS = [
    case("import of nothing", "import nowhere -o new", "'nowhere' does not exist; give an .npz file of the authors"),
    case("import of a name too long", f"import {'x' * 300} -o new", "File name too long"),
    case("import from nobody's home", "import '~nobody-at-all/x' -o new", "SOURCE '~nobody-at-all/x'"),
    case("import to nowhere said", "import data.npz", "Missing option '-o' / '--output'"),
    case("import of other arrays", "import data.npz -o new", "is no file of the authors: expected tr_idx, tt_idx"),
    case("import of a text", "import experiment.toml -o new", "it is not a zip file of arrays"),
    case("import of a pickle", PAIRS, "it is not a zip file of arrays", content("pairs.npz", pickle.dumps({"a": 1}))),
    case("import of Python objects", PAIRS, "infl in it holds Python objects", pairs(infl=np.array([{}] * 3))),
    case("import of a damaged zip", PAIRS, "cannot be read as .npz", content("pairs.npz", b"PK\x03\x04 cut")),
    case(
        "unreadable import",
        PAIRS,
        "cannot read pairs.npz: Permission denied",
        both(pairs(), mode("pairs.npz", 0), mode(".", 0o777)),
        unprivileged=True,
    ),
    case("pairs with two values of mem", PAIRS, "two values of mem", pairs(mem=np.array([0.75, 0.5, 0.5]))),
    case("pairs beyond one", PAIRS, "must be differences of two rates", pairs(infl=np.array([1.5, 0.2, 0.2]))),
    case(
        "thresholds below the file's",
        "import high_infl_pairs_infl0.2_mem0.5.npz -o new --min-influence 0.1",
        "holds pairs with influence >= 0.2, as its name says; found --min-influence 0.1",
        named_pairs,
    ),
    case("import threshold that is no number", f"{PAIRS} --min-influence nan", "--min-influence", pairs()),
    case("import over a run", "import pairs.npz -o done", "'done' is not empty", pairs()),
    case("import over a file", "import pairs.npz -o data.npz", "'data.npz' is there already and is no folder", pairs()),
    case("import under a file", "import pairs.npz -o data.npz/new", "data.npz' is not a folder", pairs()),
    case("import to a URL", "import pairs.npz -o s3://bucket/run", "import makes runs in local folders only", pairs()),
    case(
        "import where nothing may be written",
        "import pairs.npz -o locked/new",
        "no permission to write in",
        both(pairs(), read_only_folder),
        unprivileged=True,
    ),
    case(
        "matrix with labels from outside",
        "import pairs.npz -o new --labels labels.npz",
        "has labels of its own",
        both(matrix(), labels()),
    ),
    case(
        "matrix of a class that is not there", PAIRS, "infl_matrix_class7", matrix(infl_matrix_class7=np.zeros((1, 1)))
    ),
    case(
        "class names of no labels",
        f"{PAIRS} --class-names names.txt",
        "here are none: give --labels too",
        both(pairs(), names(b"a\nb\nc\n")),
    ),
    case(
        "class names of unlabelled runs",
        f"{RUNS} --class-names names.txt",
        "here are none: give --labels too",
        names(b"a\nb\nc\n"),
    ),
    case(
        "too few class names",
        f"{RUNS} --labels labels.npz --class-names names.txt",
        "3 of them; found 2 lines",
        names(b"a\nb\n"),
    ),
    case(
        "class without a name",
        f"{RUNS} --labels labels.npz --class-names names.txt",
        "some of them empty",
        names(b"a\n\nc\n"),
    ),
    case(
        "class names not UTF-8",
        f"{RUNS} --labels labels.npz --class-names names.txt",
        "is not a text file in UTF-8",
        names(b"\xff\n"),
    ),
    case(
        "class names that are not there",
        f"{RUNS} --labels labels.npz --class-names no.txt",
        "cannot read no.txt",
        labels(),
    ),
    case("labels that are not there", f"{RUNS} --labels no.npz", "cannot read no.npz: No such file", released),
    case("labels that are none", f"{RUNS} --labels data.npz", "lacks tr_labels, tt_labels; it holds", released),
    case(
        "labels of others",
        f"{RUNS} --labels labels.npz",
        "--labels has 21 training and 10 test labels",
        labels(num_train=21),
    ),
    case(
        "labels too few for pairs",
        f"{PAIRS} --labels labels.npz",
        "they are of another data set",
        both(labels(num_train=6), pairs()),
    ),
    case("no released runs", "import done -o new", "holds no released runs: expected RATIO/RUN/aux_arrays.npz"),
    case(
        "the file of one run",
        "import 0.7/1/aux_arrays.npz -o new",
        "is the file of one released run; give the folder",
        released,
    ),
    case(
        "several ratios", "import cifar -o new", "holds runs of 2 subset ratios: 0.5, 0.7; give one of them", two_ratios
    ),
    case(
        "run folder without its file",
        RUNS,
        "1 of 3 run folders have no aux_arrays.npz (1)",
        both(released, without("0.7/1/aux_arrays.npz")),
    ),
    case(
        "run that lacks an array",
        RUNS,
        "0.7/2/aux_arrays.npz lacks index_test",
        released_but(lambda a: a.pop("index_test")),
    ),
    case(
        "run that is no permutation",
        RUNS,
        "index_test must hold every example",
        released_but(lambda a: a.update(index_test=np.zeros(10, int))),
    ),
    case(
        "run of another size",
        RUNS,
        "share a data set and a subset ratio",
        released_but(lambda a: a.update(arrays_of(random_bits(0, num_train=30), 0))),
    ),
    case(
        "run with another subset",
        RUNS,
        "subsample_idx and index_train must hold the same",
        released_but(lambda a: a.update(subsample_idx=np.arange(3))),
    ),
]

EXPORTS = [
    case("export of no run", "export nowhere --format datamodels", "'nowhere' is not a run: it has no trials.zarr"),
    case("authors' export of no run", "export nowhere --format authors", "has no memorization.parquet yet"),
    case("export in no format", "export done", "Missing option '--format'"),
    case("export in an unknown format", "export done --format csv", "Invalid value for '--format'"),
    case("export over a folder", "export done --format datamodels -o done", "'done' is not empty (it holds"),
    case("export over a file", "export done --format authors -o data.npz", "is there already and is no folder"),
    case("export to nobody's home", "export done --format authors -o '~nobody-at-all/x'", "-o '~nobody-at-all/x'"),
    case(
        "export into a read-only run",
        "export done --format authors",
        "no permission to write in",
        mode("done", 0o555),
        unprivileged=True,
    ),
    case(
        "export without tables",
        "export done --format authors",
        "has no influence.parquet yet",
        without("done/influence.parquet"),
    ),
    case("export of a damaged block", "export done --format datamodels", "(1 block: 1; first: ", damaged_chunk, code=1),
    case(
        "authors' export of a damaged block",
        "export done --format authors",
        "(1 block: 1; first: ",
        damaged_chunk,
        code=1,
    ),
    case(
        "authors' export of a damaged accuracy",
        "export done --format authors",
        "(1 block: 2; first: ",
        content("done/trials.zarr/test_accuracy/c/2", b"x"),
        code=1,
    ),
    case("export of tables as trials", "export done --format datamodels", "'done' holds tables and no trials", tables),
]

COMPARISONS = [
    case(
        "comparison with nothing said",
        "compare done",
        "two runs or more are compared, or one with a file (--with FILE)",
    ),
    case("comparison with no other run", "compare done nowhere", "'nowhere' is not a run"),
    case("comparison of runs with a file", "compare done done --with pairs.npz", "--with compares one run with a file"),
    case("comparison of runs into a file that is there", "compare done other -o data.npz", "nothing is overwritten"),
    case("comparison with no file", "compare done --with no.npz", "cannot read no.npz: No such file"),
    case("comparison of no run", "compare nowhere --with pairs.npz", "has no memorization.parquet yet", pairs()),
    case("comparison with other arrays", "compare done --with data.npz", "is no file of the authors"),
    case(
        "comparison with other labels",
        COMPARE,
        "the labels of 60 of 60 training examples differ",
        matrix(tr_labels=(np.arange(60) + 1) % 3),
        code=1,
    ),
    case(
        "comparison with another order",
        COMPARE,
        "every class has as many in both: the order differs?",
        matrix(tt_labels=(np.arange(30) + 1) % 3),
        code=1,
    ),
    case(
        "comparison of damaged labels",
        COMPARE,
        "train_label",
        both(pairs(), content("done/trials.zarr/train_label/c/0", b"x")),
        code=1,
    ),
    case(
        "comparison of a damaged block",
        COMPARE,
        "(1 block: 1; first: ",
        both(matrix(), damaged_chunk),
        code=1,
    ),
    case(
        "comparison with more examples",
        COMPARE,
        "the run has 30 test examples and pairs.npz at least 41",
        pairs(tt_idx=np.array([4, 40, 1])),
        code=1,
    ),
    case(
        "comparison with a matrix of objects",
        COMPARE,
        "tr_mem in it holds Python objects",
        matrix(tr_mem=np.array([{}] * 60)),
    ),
]

IMPORTED = [
    case(
        "tail of pairs that a file lacks",
        "tail done --min-influence 0.1",
        "the table holds pairs with influence >=",
        tables,
    ),
    *(
        case(
            f"{command} of tables",
            f"{command} done",
            "'done' holds tables and no trials (it has no trials.zarr)",
            tables,
        )
        for command in ("resume", "verify", "estimate")
    ),
    *(
        case(
            f"{command} of imported trials",
            f"{command} done",
            "'done' was imported from /there: its trials were trained elsewhere, and there is nothing to train",
            attributes(subset_plan="imported", imported_from="/there"),
        )
        for command in ("resume", "run experiment.toml -o", "resume --num-trials 50")
    ),
]

EXCHANGE = [*IMPORTS, *EXPORTS, *COMPARISONS, *IMPORTED]
