"""What can be wrong: how each case comes about, the command that meets it, and what it must say."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.bad_input_exchange import EXCHANGE
from tests.bad_input_setups import (
    Case,
    Setup,
    arrays,
    attributes,
    closed_cifar,
    content,
    cut_cifar,
    cut_data,
    cut_svhn,
    damaged_chunk,
    damaged_other,
    data_in_a_loop,
    data_set,
    edited,
    environment,
    foreign_array,
    foreign_group,
    link_loop,
    malicious_cifar,
    mode,
    moved_data,
    no_held_out_photographs,
    other_bits,
    other_data,
    other_run,
    photographs,
    read_only_folder,
    recorded_arrays,
    recorded_range,
    toml,
    truncated_images,
    without,
)

NEW = "run experiment.toml -o new"
LAYERS = "features experiment.toml -o new"


def case(name: str, command: str, says: str, setup: Setup = lambda folder: None, **more: Any) -> Case:
    return Case(name=name, command=command, says=says, setup=setup, **more)


SOURCES = [
    case("no such file", "run nothing.toml -o new", "'nothing.toml' is neither a preset nor a file"),
    case("preset with a typo", "run digts -o new", "(did you mean 'digits'?)"),
    case("folder for a file", "run done -o new", "'done' is a folder, not an experiment file; to go on with a run use"),
    case("empty name", "run '' -o new", "is a folder"),
    case("name too long", f"run {'x' * 300}.toml -o new", "File name too long"),
    case("not UTF-8", NEW, "not a text file in UTF-8", toml(b"\xff\xfe\0x")),
    case("not TOML", NEW, "is not valid TOML: ", toml("[dataset\n")),
    case("a key twice", NEW, "is not valid TOML: Cannot overwrite a value", toml('[dataset]\nname="a"\nname="b"\n')),
    case("a number too long", NEW, "is not valid TOML: ", toml("[subsets]\nseed = " + "9" * 5000)),
    case("nested too deeply", NEW, "is not valid TOML: ", toml("[learner]\nhidden = " + "[" * 5000 + "]" * 5000)),
    case("empty file", NEW, "dataset: is missing", toml("")),
    case(
        "unreadable file",
        NEW,
        "cannot read experiment.toml: Permission denied",
        mode("experiment.toml", 0),
        unprivileged=True,
    ),
    case(
        "no such preset",
        "presets digit",
        "there is no preset 'digit' (did you mean 'digits'?); there are cifar10-resnet20, ",
    ),
]

FIELDS = [
    case("unknown key", f"{NEW} --set training.epoch=3", "training.epoch: is not a key (did you mean 'epochs'?)"),
    case(
        "unknown section",
        NEW,
        "trainings: is not a key (did you mean 'training'?)",
        edited("[subsets]", "[trainings]\n[subsets]"),
    ),
    case(
        "learner's name as a section", NEW, "mlp: is not a key", edited("[subsets]", "[mlp]\nhidden = [3]\n[subsets]")
    ),
    case("wrong type", f"{NEW} --set training.epochs=many", "training.epochs: must be a valid integer; found 'many'"),
    case("fraction for a count", f"{NEW} --set subsets.num_trials=1e3", "must be a valid integer; found 1000.0"),
    case(
        "out of range", f"{NEW} --set subsets.subset_ratio=1.5", "subsets.subset_ratio: must be less than 1; found 1.5"
    ),
    case("not a number", f"{NEW} --set training.learning_rate=nan", "training.learning_rate: must be"),
    case("value for a section", NEW, "dataset: must be", toml("dataset = 'digits'")),
    case("override without a value", f"{NEW} --set training.epochs", "--set takes section.key=value"),
    case(
        "seed of no random labels",
        f"{NEW} --set dataset.random_labels_seed=1",
        "random_labels_seed says nothing without random_labels; take it out",
    ),
    case(
        "more random labels than examples",
        f"{NEW} --set dataset.random_labels=61",
        "dataset.random_labels = 61, but there are only 60 training examples",
    ),
    case("two stopping rules", f"{NEW} --until-stderr 0.1 --until-jaccard 0.5", "a run stops by one rule"),
    case("no standard error", f"{NEW} --until-stderr 0", "a standard error to stop at lies between 0 and 1; found 0"),
    case(
        "stopping rule of a range",
        f"{NEW} --until-stderr 0.1 --trials 0:8",
        "a stopping rule looks at all trials from the first on",
    ),
    case("tail of no run", "tail nowhere", "'nowhere'"),
    case("tail of a damaged chunk", "tail done", "(1 block: 1; first: ", damaged_chunk, code=1),
    case("tail in no bin", "tail done --bins 0", "Invalid value for '--bins'"),
    case("tail over a file", "tail done -o data.npz", "'data.npz' exists, and nothing is overwritten"),
    case("null of no random labels", "null done", "this run has no random labels; set dataset.random_labels"),
    case("unknown learner", f"{NEW} --set learner.name=mpl", "there is no learner 'mpl' (did you mean 'mlp'?)"),
    case("learner of no module", f"{NEW} --set learner.name=nowhere:learn", "cannot import 'nowhere'"),
    case(
        "learner that a module lacks",
        f"{NEW} --set learner.name=tests.learners:nearest",
        "has no 'nearest' (did you mean",
    ),
    case(
        "learner that is no function",
        f"{NEW} --set learner.name=tests.learners:not_a_function",
        "must be a function; found a int",
    ),
    case(
        "module that fails",
        f"{NEW} --set learner.name=broken:learn",
        "importing 'broken' raised",
        content("broken.py", b"1 / 0"),
    ),
    case("images for a cnn", f"{NEW} --set learner.name=cnn", "needs images [height, width]"),
    case("images for a resnet", f"{NEW} --set learner.name=resnet20", "'resnet20' needs images [height, width]"),
    case(
        "augmentation of no images",
        f"{NEW} --set learner.name=mlp --set 'training.augment=[\"flip\"]'",
        "set augment = []",
    ),
    case(
        "milestones of no schedule",
        f"{NEW} --set 'training.milestones=[0.5]'",
        "says nothing without schedule = 'step'",
    ),
    case(
        "parameter of no forest",
        f"{NEW} --set learner.name=sklearn:ensemble.RandomForestClassifier --set learner.parameters.trees=3",
        "learner.parameters.trees is no parameter of 'sklearn:ensemble.RandomForestClassifier'",
    ),
    case(
        "one random state for all",
        f"{NEW} --set learner.name=sklearn:ensemble.RandomForestClassifier --set learner.parameters.random_state=0",
        "learner.parameters.random_state is not taken",
    ),
    case("no such classifier", f"{NEW} --set learner.name=sklearn:svm.SVM", "has no classifier 'SVM'"),
    case(
        "subset of all",
        f"{NEW} --set subsets.subset_ratio=0.999",
        "must hold at least one example and leave at least one out",
    ),
    case("address and no cluster", f"{NEW} --address 127.0.0.1:6379", "leave --address out"),
    case(
        "cluster that is not there",
        f"{NEW} --set execution.executor=ray --address 127.0.0.1:1",
        "no Ray cluster answers at '127.0.0.1:1'",
    ),
    case(
        "address that is none",
        f"{NEW} --set execution.executor=ray --address head",
        "'head' is no address of a Ray cluster",
    ),
    case(
        "environment that Ray does not take",
        f"{NEW} --set execution.executor=ray --runtime-env env.json",
        "Ray does not take the runtime environment, which has env_vars (TypeError)",
        environment('{"env_vars": 1}'),
    ),
    case(
        "environment and no cluster",
        f"{NEW} --runtime-env env.json",
        "leave --runtime-env out",
        environment('{"env_vars": {"A": "b"}}'),
    ),
    case(
        "environment that is not there",
        f"{NEW} --runtime-env env.json",
        "cannot read --runtime-env env.json: No such file",
    ),
    case(
        "environment that is no JSON", f"{NEW} --runtime-env env.json", "env.json is none, line 1", environment("{env")
    ),
    case(
        "environment that is a list", f"{NEW} --runtime-env env.json", "takes a JSON object, as in", environment("[1]")
    ),
]

DATA = [
    case("unknown data set", f"{NEW} --set dataset.name=mnits", "there is no data set 'mnits' (did you mean 'mnist'?)"),
    case("key of another data set", "run digits -o new --set dataset.path=x.npz", "dataset.path says nothing to"),
    case("no path", NEW, "'arrays' needs dataset.path", edited('path = "data.npz"', "")),
    case("no data", NEW, "data.npz' does not exist", without("data.npz")),
    case("home of nobody", NEW, "dataset.path = '~nobody-at-all/x'", edited("data.npz", "~nobody-at-all/x")),
    case("data under a file", NEW, "does not exist", edited("data.npz", "experiment.toml/data.npz")),
    case("data path too long", NEW, "File name too long", edited("data.npz", "x" * 300)),
    case("data path in a loop", NEW, "does not exist", data_in_a_loop),
    case("unreadable data", NEW, "Permission denied", mode("data.npz", 0), unprivileged=True),
    case("truncated data", NEW, "cannot be read as .npz", cut_data),
    case("data that are no arrays", NEW, "it is not a zip file of arrays", content("data.npz", b"a,b\n1,2\n")),
    case("missing array", NEW, "lacks y_test; it holds", arrays(y_test=None)),
    case(
        "fewer labels than examples",
        NEW,
        "y_train must hold one label an example (60 of them)",
        arrays(y_train=np.arange(59) % 3),
    ),
    case("labels as floats", NEW, "must hold integer labels; found dtype float64", arrays(y_train=np.zeros(60))),
    case(
        "negative label",
        NEW,
        "labels must be 0 .. 2; y_train[0] is -1",
        arrays(y_train=np.arange(60) % 3 - (np.arange(60) == 0)),
    ),
    case("immense label", NEW, "found the label 1000000000000000", arrays(y_test=np.full(30, 10**15))),
    case(
        "empty class",
        NEW,
        "every class needs a training example; class 1 ('1') has none",
        arrays(y_train=np.arange(60) % 2 * 2),
    ),
    case("NaN", NEW, "x_train must be finite; example 0 holds NaN", arrays(x_train=np.full((60, 5), np.nan))),
    case(
        "test of another shape",
        NEW,
        "must have one shape; found (5,) in x_train and (4,)",
        arrays(x_test=np.zeros((30, 4))),
    ),
    case("Python objects", NEW, "it holds Python objects, which are not read", arrays(x_train=np.array([{}] * 60))),
    case(
        "more than there are",
        f"{NEW} --set dataset.num_train=61",
        "dataset.num_train = 61, but there are only 60 examples",
    ),
    case(
        "no image files", "run fashion-mnist -o new --set dataset.root=.", "no fashion-mnist files under dataset.root"
    ),
    case("truncated images", "run mnist.toml -o new", "is not an idx file", truncated_images),
    case(
        "no cifar files", NEW, "no cifar10 files under dataset.root = ", toml(data_set('name = "cifar10"\nroot = "."'))
    ),
    case("root too long", NEW, "cannot look for '/", toml(data_set(f'name = "svhn"\nroot = "{"x" * 300}"'))),
    case("root that is closed", NEW, "Permission denied", closed_cifar, unprivileged=True),
    case(
        "malicious cifar files",
        NEW,
        "it asks for os.system, which no CIFAR file holds and which was not",
        malicious_cifar,
    ),
    case("truncated cifar archive", NEW, "is damaged or cut short", cut_cifar),
    case(
        "labels that cifar100 lacks",
        NEW,
        "cifar100 has no labels 'super'; choose one of fine, coarse",
        toml(data_set('name = "cifar100"\nparameters = {labels = "super"}')),
    ),
    case(
        "parameters of cifar10",
        NEW,
        "dataset.parameters says nothing to the data set 'cifar10'",
        toml(data_set('name = "cifar10"\nparameters = {labels = "coarse"}')),
    ),
    case("no svhn files", NEW, "no svhn files under dataset.root = ", toml(data_set('name = "svhn"\nroot = "."'))),
    case("truncated svhn file", NEW, "train_32x32.mat is no MATLAB file of version 5, damaged or cut short", cut_svhn),
    case(
        "images that are not prepared", NEW, "is a folder of images; make arrays of it once, with `feldman", photographs
    ),
    case(
        "no images at all", NEW, "does not exist; `feldman prepare", toml(data_set('name = "image-folder"\npath = "x"'))
    ),
    case(
        "unknown key of the hub",
        NEW,
        "dataset.parameters.img says nothing to huggingface:mnist",
        toml(data_set('name = "huggingface:mnist"\nparameters = {img = "image"}')),
    ),
    case("prepare nothing", "prepare nowhere -o new", "'nowhere' is no folder; expected one with train/CLASS/*.jpg"),
    case("prepare no images", "prepare . -o new", "'.' has no train/ with a folder a class in it; it holds"),
    case("prepare nothing to hold out", "prepare images -o new", "has neither test/ nor val/", no_held_out_photographs),
    case("prepare into a run", "prepare images -o done", "'done' is not empty (it holds", photographs),
    case("prepare into a file", "prepare images -o data.npz", "is there already and is no folder", photographs),
    case(
        "prepare under a file",
        "prepare images -o data.npz/new",
        "is not a folder, so 'data.npz/new' cannot",
        photographs,
    ),
    case(
        "prepare in a read-only folder",
        "prepare done -o locked/new",
        "no permission to write in ",
        read_only_folder,
        unprivileged=True,
    ),
    case("prepare in no size", "prepare images -o new --size 0", "--size must be 1 .. 4096; found 0", photographs),
    case(
        "prepare a crop of nothing",
        "prepare images -o new --resize-short 63",
        "must be 64 .. 4096; found 63",
        photographs,
    ),
    case("prepare by nobody", "prepare images -o new --workers 0", "Invalid value for '--workers'", photographs),
    case("prepare without names", "prepare images -o new --class-names x", "cannot read x: No such file", photographs),
]

FEATURES = [
    case(
        "features of nothing",
        "features digts -o new",
        "'digts' is neither a preset nor a file (did you mean 'digits'?)",
    ),
    case("features of no run", "features . -o new", "'.' is not a run: it has no trials.zarr"),
    case(
        "features of a run on unknown storage",
        "features ftp://host/run -o new",
        "begins with s3://, gs://, az://, file://",
    ),
    case(
        "features of no network",
        "features done -o new",
        "sees no layers of the learner 'tests.learners:nearest_centroid'",
    ),
    case("features of a linear layer", "features digits -o new --set learner.name=linear", "is a linear layer alone"),
    case("features of a forest", "features digits -o new --set learner.name=sklearn:svm.SVC", "sees no layers of the"),
    case("features of images that are none", f"{LAYERS} --set learner.name=cnn", "needs images [height, width]"),
    case("features without a place", "features experiment.toml", "Missing option '-o' / '--output'"),
    case(
        "features into a run",
        f"{LAYERS.replace('new', 'done')} --set learner.name=mlp",
        "'done' is not empty (it holds",
    ),
    case("features into a file", LAYERS.replace("new", "data.npz"), "is there already and is no folder"),
    case("features under a file", LAYERS.replace("new", "data.npz/new"), "data.npz' is not a folder"),
    case(
        "features on object storage",
        LAYERS.replace("new", "s3://bucket/new"),
        "is a URL, and features are written in local",
    ),
    case(
        "features in a read-only folder",
        LAYERS.replace("new", "locked/new"),
        "no permission to write in",
        read_only_folder,
        unprivileged=True,
    ),
    case("features in nobody's home", LAYERS.replace("new", "'~nobody-at-all/x'"), "-o '~nobody-at-all/x': "),
    case("features of a negative seed", f"{LAYERS} --seed -1", "Invalid value for '--seed'"),
    case(
        "features of other data",
        "features done -o new",
        "is not what 'done' was trained on",
        arrays(x_test=np.zeros((30, 5), np.float32)),
    ),
    case(
        "features over foreign ones",
        LAYERS.replace("new", "foreign"),
        "features.json is not what this version of",
        content("foreign/features.json", b"{}"),
    ),
    case(
        "data with a damaged record",
        f"{NEW} --set dataset.path=folder",
        "features.json is not what this version of",
        recorded_arrays(b"{"),
    ),
]

RUNS = [
    *(
        case(f"{command} of no run", f"{command} nowhere", "'nowhere' is not a run: it has no trials.zarr")
        for command in ("resume", "status", "verify", "estimate", "memorized", "pairs", "report")
    ),
    case("run is a file", "run experiment.toml -o data.npz", "'data.npz' is a file; a run is a folder"),
    case("run under a file", "run experiment.toml -o data.npz/new", "data.npz' is not a folder"),
    case("run in a loop", "run experiment.toml -o loop/new", "loop' is not a folder", link_loop),
    case(
        "run is a link to nothing",
        "run experiment.toml -o link",
        "link' is not a folder",
        lambda f: (f / "link").symlink_to("away"),
    ),
    case("folder with other things", "run experiment.toml -o .", "holds other things"),
    case("run on unknown storage", "run experiment.toml -o ftp://host/run", "begins with s3://, gs://, az://, file://"),
    case(
        "run with a password",
        "run experiment.toml -o s3://key:secret@bucket/run",
        "credentials come from the environment",
    ),
    case(
        "run with a signature",
        "status 's3://bucket/run?X-Amz-Signature=secret'",
        "credentials come from the environment",
    ),
    case("run without a bucket", "status s3:///run", "expected s3://BUCKET/NAME"),
    case("run above its bucket", "status s3://bucket/../run", "expected s3://BUCKET/NAME"),
    case("run of another machine", "status file://host/run", "expected file:///folder"),
    case("run of no account", "status az://container/run", "Account must be specified; look at the environment"),
    case("run without a name", "status ''", "the run directory is an empty text"),
    case("run's name too long", f"status {'x' * 300}", "File name too long"),
    case("run in nobody's home", "status '~nobody-at-all/x'", "cannot look into '~nobody-at-all/x'"),
    case(
        "read-only folder",
        "run experiment.toml -o locked/new",
        "no permission to write in",
        read_only_folder,
        unprivileged=True,
    ),
    case("closed run", "status done", "cannot look into 'done': Permission denied", mode("done", 0), unprivileged=True),
    case("read-only run, read", "resume done --num-trials 8", "only grows; found --num-trials 8", unprivileged=True),
    case(
        "read-only run, resumed",
        "resume done --num-trials 80",
        "Permission denied",
        mode("done/.writer.lock", 0o444),
        code=1,
        unprivileged=True,
    ),
    case(
        "read-only run, estimated",
        "estimate done",
        "Permission denied; what is committed is safe",
        code=1,
        unprivileged=True,
    ),
    case(
        "another experiment's store",
        "run experiment.toml -o done --set subsets.seed=8",
        "subsets.seed: 7 in the store, 8 given",
    ),
    case(
        "another data set's store",
        "run experiment.toml -o done",
        "content of the data set: ",
        arrays(x_test=np.zeros((30, 5), np.float32)),
    ),
    case(
        "data changed since",
        "resume done --num-trials 80",
        "content of the data set: ",
        arrays(x_test=np.zeros((30, 5), np.float32)),
    ),
    case("data gone since", "resume done --num-trials 80", "data.npz' does not exist", without("data.npz")),
    case("foreign Zarr group", "run experiment.toml -o other", "is a Zarr group of another program", foreign_group),
    case("foreign Zarr group, asked", "memorized other", "is a Zarr group of another program", foreign_group),
    case("Zarr array", "status other", "is not a readable Zarr group", foreign_array),
    case("newer format", "status done", "has format version 2; feldman", attributes(format_version=2)),
    case(
        "newer format, resumed",
        "resume done",
        "upgrade feldman, or use the version that wrote it",
        attributes(format_version=2),
    ),
    case(
        "no experiment in the store",
        "status done",
        "is damaged: its attributes lack experiment",
        attributes(experiment=None),
    ),
    case(
        "no data set in the store", "status done", "is damaged: its attributes lack dataset", attributes(dataset=None)
    ),
    case(
        "unknown field in the store",
        "status done",
        "is not a key",
        attributes(experiment={"dataset": {"name": "a"}, "new": 1}),
    ),
    case(
        "metadata that is no JSON",
        "status done",
        "is not a readable Zarr group",
        content("done/trials.zarr/zarr.json", b"{"),
    ),
    case(
        "missing array in the store",
        "verify done",
        "its array 'test_correct' is missing",
        without("done/trials.zarr/test_correct"),
    ),
    case("fewer trials", "resume done --num-trials 8", "has 40 trials and only grows; found --num-trials 8"),
    case(
        "too many trials", "resume done --num-trials 20000000", "at most 10000000 trials; found --num-trials 20000000"
    ),
    case("damaged chunk, estimated", "estimate done", "(1 block: 1; first: ", damaged_chunk, code=1),
    case("damaged labels", "estimate done", "train_label", content("done/trials.zarr/train_label/c/0", b"x"), code=1),
]

RANGES = [
    case(
        "range that is none", f"{NEW} --trials 5", "--trials takes A:B, the trials A to B - 1 (as in 0:1000); found '5'"
    ),
    case("range of negative trials", f"{NEW} --trials=-8:8", "--trials takes A:B"),
    case(
        "range of no trial",
        f"{NEW} --trials 8:8",
        "execution.trials: must be [A, B], the trials A to B - 1, with 0 <= A < B",
    ),
    case("range too far", f"{NEW} --trials 0:10000001", "<= 10000000; found [0, 10000001]"),
    case("range in a file that is a text", NEW, "found '0:8'", edited('"in-process"', '"in-process"\ntrials = "0:8"')),
    case(
        "range that begins inside a block",
        f"{NEW} --trials 10:24",
        "trials 10:24 cut through a block of 8 trials: the first trial must be a multiple of 8 (nearest: 8 or 16)",
    ),
    case(
        "range that ends inside a block",
        f"{NEW} --trials 8:36 --set subsets.num_trials=39",
        "the end must be a multiple of 8, or the plan's end, 39 (nearest: 32 or 39)",
    ),
    case("range of a whole run", "run experiment.toml -o done --trials 0:8", "a range only grows; found 0:8"),
    case(
        "growth of a run with a range",
        "resume done --num-trials 80",
        "a range that ends before the plan does not grow with it, to 80; say which trials to train, as in `feldman run "
        "EXPERIMENT -o done --trials 8:80`",
        recorded_range,
    ),
]

MERGES = [
    case("merge of nothing", "merge -o new", "Missing argument 'RUN...'"),
    case("merge into nothing", "merge done other", "Missing option '-o'", other_run()),
    case("merge of one run", "merge done -o new", "a merge takes two runs or more; found 1"),
    case("merge of one run twice", "merge done ./done -o new", "'done' is given twice; give each run once"),
    case("merge of no run", "merge done nowhere -o new", "'nowhere' is not a run: it has no trials.zarr"),
    case(
        "merge into a run",
        "merge done other -o other",
        "'other' is a run already, and a merge makes a new one",
        other_run(),
    ),
    case("merge into a file", "merge done other -o data.npz", "'data.npz' is a file; a run is a folder", other_run()),
    case("merge into other things", "merge done other -o .", "holds other things", other_run()),
    case("merge into a URL", "merge done other -o s3://a/b", "merge makes runs in local folders only", other_run()),
    case(
        "merge with another seed",
        "merge done other -o new",
        "subsets.seed: 7 in 'done', 8 in 'other'",
        other_run(seed=8),
    ),
    case(
        "merge with other data",
        "merge done other -o new",
        "content of the data set: ",
        other_data,
    ),
    case(
        "merge with an empty run", "merge done other -o new", "'other' has no committed trials to merge", other_run(0)
    ),
    case(
        "merge with other bits",
        "merge done other -o new",
        "'done' and 'other' hold other bits of the same trials (1: 17)",
        other_bits,
    ),
    case(
        "merge with a damaged run",
        "merge done other -o new",
        "chunk test_correct/c/1/0 is missing); `feldman resume other` mends it",
        damaged_other,
        code=1,
    ),
]

QUESTIONS = [
    case(
        "no table yet",
        "memorized done",
        "has no memorization.parquet yet; `feldman estimate done` makes it",
        without("done/memorization.parquet"),
    ),
    case("no pairs yet", "pairs done", "has no influence.parquet yet", without("done/influence.parquet")),
    case(
        "table that is none",
        "pairs done",
        "influence.parquet cannot be read",
        content("done/influence.parquet", b"PAR1"),
        code=1,
    ),
    case("unknown class", "memorized done --label 3", "--label is the number of a class, 0 .. 2; found 3"),
    case("unknown training example", "pairs done --train 60", "--train is an example's index, 0 .. 59; found 60"),
    case("unknown test example", "pairs done --test -1", "--test is an example's index, 0 .. 29; found -1"),
    case("below the table", "pairs done --min-influence 0.1", "make it anew: feldman estimate RUN --min-influence 0.1"),
    case("top and all", "pairs done --top 3 --all", "--all is every row; found --top 3 too: give one of them"),
    case("json and csv", "pairs done --json --format csv", "--json is --format json; found --format csv too"),
    case("unknown format", "pairs done --format xml", "Invalid value for '--format'"),
    case(
        "file that is there", "pairs done -o data.npz", "'data.npz' exists, and nothing is overwritten: remove it, or"
    ),
    case(
        "file of no format", "pairs done -o rows.txt", "'rows.txt' does not tell its format by .json, .csv or .parquet"
    ),
    case("file in no folder", "pairs done -o no/rows.csv", "cannot write 'no/rows.csv': No such file or directory"),
    case("file name too long", f"pairs done -o {'x' * 300}.csv", "File name too long; choose another file"),
    case(
        "expression that breaks out",
        "pairs done --where \"1=1) TO 'x' --\" -o x.csv",
        'syntax error at or near ")". The columns are train_index, test_index, influence',
    ),
    case("two statements", "memorized done --where 'true; DROP VIEW memorized'", "Parser Error"),
    case(
        "another file",
        "memorized done --where \"EXISTS (FROM read_csv('data.npz'))\"",
        "Permission Error: Cannot access",
    ),
    case("unknown column", "memorized done --where 'memorisation > 0'", '"memorisation" not found in FROM clause'),
    case("aggregate", "pairs done --where 'max(influence) > 0'", "WHERE clause cannot contain aggregates"),
    case("no expression", "pairs done --where ''", "--where takes one SQL expression; found '': it is empty"),
    case("no such targets", "pairs done --targets both", "Invalid value for '--targets'"),
    case("no pairs of training examples yet", "pairs done --targets train", "has no influence_train.parquet yet"),
    case("no rows", "memorized done --top 0", "Invalid value for '--top'"),
    case("influence out of range", "estimate done --min-influence 1.5", "Invalid value for '--min-influence'"),
    case("influence that is no number", "estimate done --min-influence nan", "--min-influence"),
    case("memorization that is no number", "pairs done --min-memorization nan", "--min-memorization"),
    case("text for a number", "pairs done --top many", "Invalid value for '--top'"),
    case("unknown option", "status done --jsn", "No such option: --jsn"),
    case("unknown command", "memorised done", "No such command 'memorised'"),
    case("no run at all", "status", "Missing argument 'RUN'"),
    case("an argument too many", "status done new", "unexpected extra argument"),
]

ESTIMATES = [
    case("targets that are none", "estimate done --targets other", "targets are 'test' or 'train'; found 'other'"),
    case("no targets", "estimate done --targets ''", "targets are 'test' or 'train'; found ''"),
    case("device that is none", "estimate done --device tpu", "a device is 'cpu', 'cuda' or 'cuda:N'; found 'tpu'"),
    case("device without a number", "estimate done --device cuda:x", "a device is 'cpu', 'cuda' or 'cuda:N'; found"),
    case("core for a device", "estimate done --device cpu:1", "a device is 'cpu', 'cuda' or 'cuda:N'; found 'cpu:1'"),
    case("no GPU", "estimate done --device cuda:99", "device 'cuda:99' cannot be used ("),
    case("precision that is none", "estimate done --matrix float64", "in float16 or float32; found 'float64'"),
    case(
        "matrix of training examples",
        "estimate done --matrix float32 --targets train",
        "the matrix and kept counts are of test examples; leave them out",
    ),
    case("counts of training examples", "estimate done --keep-counts --targets train", "are of test examples"),
    case("top of nothing", "estimate done --top-per-test 0", "Invalid value for '--top-per-test'"),
    case("top that is negative", "estimate done --top-per-train=-1", "Invalid value for '--top-per-train'"),
    case("top that is no number", "estimate done --top-per-train all", "Invalid value for '--top-per-train'"),
    case(
        "estimate where no cluster is",
        "estimate done --address 127.0.0.1:1",
        "no Ray cluster answers at '127.0.0.1:1'",
    ),
    case("estimate at no address", "estimate done --address head", "'head' is no address of a Ray cluster"),
    case("estimate of no run with extras", "estimate nowhere --keep-counts --matrix float16", "'nowhere' is not a run"),
]

REPORTS = [
    case("report over a file", "report done -o data.npz", "'data.npz' was not made by `feldman report`, and nothing else"),
    case("report over a folder", "report done -o done", "'done' was not made by `feldman report`, and nothing else"),
    case("report into no folder", "report done -o none/page.html", "'none' is no folder to write 'page.html' into"),
    case("report without its data", "report done", "gone.npz' does not exist; put the data set in its place, or make the report "
         "without pictures: feldman report done --no-pictures", moved_data),
    case("report of other data", "report done", "or make the report without pictures: feldman report done --no-pictures",
         arrays(x_test=np.ones((30, 5), np.float32))),
    case("report of tables that are gone", "report done", "'done' has no influence.parquet yet; `feldman estimate done`",
         without("done/influence.parquet")),
    case("report of a cut table", "report done", "influence.parquet cannot be read", content("done/influence.parquet", b"PAR1"),
         code=1),
    case("report too large", "report done --max-megabytes 0.01", "and --max-megabytes allows 0.01; show less with"),
    case("report of no size", "report done --max-megabytes 0", "max_megabytes is the size of a file, more than 0; found 0.0"),
    case("report of no pairs", "report done --top-pairs 0", "Invalid value for '--top-pairs'"),
    case("report where nothing can be written", "report done", "cannot write to done/report.html: Permission denied",
         mode("done", 0o555), code=1, unprivileged=True),
]  # fmt: skip

CASES = [*SOURCES, *FIELDS, *DATA, *FEATURES, *RUNS, *RANGES, *MERGES, *QUESTIONS, *ESTIMATES, *EXCHANGE, *REPORTS]
