"""The files a server is started with, read by what reads them: protocol buffers, a shell, JSON and a gRPC server.

The package index has the protocol buffers of models.config in tensorflow-serving-api. The other two are in the server's
source alone, so their messages are put together here as its session_bundle_config.proto and monitoring_config.proto
declare them.
"""

import contextlib
import json
import re
from concurrent import futures

import export_readme
import pytest

from tf_finetune.config import ProblemType
from tf_finetune.serving.server_files import model_name, write_server_files

tf = pytest.importorskip("tensorflow")
grpc = pytest.importorskip("grpc")
pytest.importorskip("tensorflow_serving")

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2  # noqa: E402
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc  # noqa: E402
from tensorflow_serving.config import model_server_config_pb2  # noqa: E402

HOSTILE = ('say "no"', "a\n```\nb", "`rm -rf`", "it's $HOME", "Ünïcode 電影", "<b>&amp;|", "{name} %s \\")
TOKENS = ("input_ids", "attention_mask", "token_type_ids")

# Field name, number and type, as tensorflow/serving 2.12 to 2.20 have them.
INT64, BOOL, STRING = "Int64Value", "BoolValue", "StringValue"
BATCHING_FIELDS = {
    "max_batch_size": (1, INT64),
    "batch_timeout_micros": (2, INT64),
    "max_enqueued_batches": (3, INT64),
    "num_batch_threads": (4, INT64),
    "thread_pool_name": (5, STRING),
    "enable_large_batch_splitting": (8, BOOL),
    "max_execution_batch_size": (9, INT64),
}


class FakeClassifier:
    """Answers every text alike; a token a word."""

    max_length = 128

    def __init__(self, problem_type=ProblemType.SINGLE_LABEL_CLASSIFICATION, label_names=("dull", "great")):
        self.problem_type, self.label_names = problem_type, label_names

    def encode(self, texts, pairs=None):
        ids = [[2, *(5 + len(word) for word in text.split()), 3] for text in texts]
        if pairs is None:
            return ids, None
        return [first + first[1:] for first in ids], [len(first) for first in ids]

    def answers(self, texts, pairs=None):
        p = 1 / len(self.label_names)
        named = dict.fromkeys(self.label_names, p)
        last = self.label_names[-1]
        for _ in texts:
            yield {
                ProblemType.SINGLE_LABEL_CLASSIFICATION: {"label": last, "score": p, "probabilities": named},
                ProblemType.MULTI_LABEL_CLASSIFICATION: {"labels": [last], "probabilities": named},
                ProblemType.REGRESSION: {"score": 3.25},
            }[self.problem_type]


@pytest.fixture
def export(tmp_path):
    (tmp_path / "export" / "1").mkdir(parents=True)
    return tmp_path / "export"


def readme_of(export, classifier=None, *, name="demo", pairs=False):
    write_server_files(export, name, classifier or FakeClassifier(), pairs=pairs)
    return (export / "README.md").read_text(encoding="utf-8")


def batching_parameters():
    message = descriptor_pb2.DescriptorProto(name="BatchingParameters")
    for field, (number, wrapper) in BATCHING_FIELDS.items():
        message.field.add(name=field, number=number, label=1, type=11, type_name=f".google.protobuf.{wrapper}")
    message.field.add(name="allowed_batch_sizes", number=6, label=3, type=3)
    message.field.add(name="pad_variable_length_inputs", number=7, label=1, type=8)
    return built(message)


def monitoring_config():
    prometheus = descriptor_pb2.DescriptorProto(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, label=1, type=8)
    prometheus.field.add(name="path", number=2, label=1, type=9)
    message = descriptor_pb2.DescriptorProto(name="MonitoringConfig")
    type_name = ".tensorflow.serving.PrometheusConfig"
    message.field.add(name="prometheus_config", number=1, label=1, type=11, type_name=type_name)
    return built(prometheus, message)


def built(*messages):
    """An empty message of the last of the types, in a pool of its own."""
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{messages[-1].name}.proto",
        package="tensorflow.serving",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
        message_type=messages,
    )
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tensorflow.serving.{messages[-1].name}"))()


def read(path, message):
    return text_format.Parse(path.read_text(encoding="utf-8"), message)


def models(export):
    return read(export / "models.config", model_server_config_pb2.ModelServerConfig()).model_config_list


class TestConfigurations:
    def test_models(self, export):
        readme_of(export)
        (model,) = models(export).config
        assert (model.name, model.base_path, model.model_platform) == ("demo", "/models/demo", "tensorflow")
        assert not model.HasField("model_version_policy")

    def test_batching(self, export):
        readme_of(export)
        batching = read(export / "batching.config", batching_parameters())
        set_fields = {field.name for field, _ in batching.ListFields()}
        assert set_fields == set(BATCHING_FIELDS) - {"num_batch_threads", "thread_pool_name"}
        assert batching.max_execution_batch_size.value == 64
        assert batching.max_batch_size.value == 1024
        assert batching.enable_large_batch_splitting.value
        assert batching.batch_timeout_micros.value == 0
        assert batching.max_enqueued_batches.value == 100
        assert not batching.pad_variable_length_inputs

    def test_the_largest_request_fits_the_queue(self, export):
        readme_of(export)
        batching = read(export / "batching.config", batching_parameters())
        waiting = batching.max_enqueued_batches.value * batching.max_execution_batch_size.value
        assert batching.max_execution_batch_size.value <= batching.max_batch_size.value <= waiting

    def test_monitoring(self, export):
        readme = readme_of(export)
        prometheus = read(export / "monitoring.config", monitoring_config()).prometheus_config
        assert prometheus.enable
        assert ["curl", f"http://localhost:8501{prometheus.path}"] in export_readme.commands(readme)

    def test_those_that_are_there_stay(self, export):
        readme_of(export)
        for file in ("models.config", "batching.config", "monitoring.config"):
            edited = (export / file).read_text() + "# mine\n"
            (export / file).write_text(edited)
            (export / "README.md").write_text("old")
            assert readme_of(export) != "old"
            assert (export / file).read_text() == edited

    def test_nothing_else_is_left(self, export):
        readme_of(export)
        names = sorted(path.name for path in export.iterdir())
        assert names == ["1", "README.md", "batching.config", "models.config", "monitoring.config"]


class TestName:
    @pytest.mark.parametrize(
        ("run", "name"),
        [
            ("demo", "demo"),
            ("My Run (2)", "My_Run_2"),
            ("v1.2-final", "v1.2-final"),
            ("..", "model"),
            ("電影", "model"),
            ('a"b:c/d\n', "a_b_c_d"),
            ("$(reboot)", "reboot"),
        ],
    )
    def test_is_safe(self, export, run, name):
        assert model_name(run) == name
        readme = readme_of(export, name=run)
        assert f"http://localhost:8501/v1/models/{name}:predict" in readme
        (model,) = models(export).config
        assert (model.name, model.base_path) == (name, f"/models/{name}")

    @pytest.mark.parametrize(
        ("edited", "name"),
        [
            ("model_config_list { config { name: 'mine' base_path: '/models/mine' } }", "mine"),
            ('# name: "not-this"\nmodel_config_list {\n  config {\n    name: "mine"\n  }\n}\n', "mine"),
            ("# nothing is served\n", "demo"),
            ('model_config_list { config { name: "two words" } }', "demo"),
        ],
    )
    def test_the_configuration_that_is_there_decides(self, export, edited, name):
        (export / "models.config").write_text(edited)
        assert f"/v1/models/{name}:predict" in readme_of(export)


class TestReadme:
    def test_docker_finds_its_files(self, export):
        docker = export_readme.commands(readme_of(export))[0]
        assert docker[:2] == ["docker", "run"]
        volume = docker[docker.index("-v") + 1]
        assert volume == "$PWD:/models/demo:ro"
        flags = dict(word.removeprefix("--").split("=") for word in docker if word.startswith("--") and "=" in word)
        files = {flag: path.replace("/models/demo", str(export)) for flag, path in flags.items() if "/" in path}
        assert set(files) == {"model_config_file", "batching_parameters_file", "monitoring_config_file"}
        for path in files.values():
            assert (export / path).is_file()
        assert "--enable_batching" in docker
        assert [docker[i + 1] for i, word in enumerate(docker) if word == "-p"] == ["8500:8500", "8501:8501"]
        assert any(re.fullmatch(r"tensorflow/serving:\d+\.\d+\.\d+", word) for word in docker)

    @pytest.mark.parametrize("pairs", [False, True])
    def test_requests_are_for_the_signatures(self, export, pairs):
        row, columns, tokens = export_readme.requests(readme_of(export, pairs=pairs))
        keys = ["text", "text_pair"] if pairs else ["text"]
        assert export_readme.inputs_of(row[1], keys) == export_readme.inputs_of(columns[1], keys)
        signature, inputs = export_readme.inputs_of(row[1], keys)
        assert signature == "serving_default"
        assert all(isinstance(text, str) for texts in inputs.values() for text in texts)
        signature, inputs = export_readme.inputs_of(tokens[1], TOKENS)
        assert signature == "tokens"
        arrays = {key: tf.constant(values, tf.int32) for key, values in inputs.items()}  # all rows of one length
        assert len({tuple(array.shape) for array in arrays.values()}) == 1
        assert bool(tf.reduce_any(arrays["token_type_ids"] == 1)) == pairs

    def test_a_regression_answers_numbers(self, export):
        readme = readme_of(export, FakeClassifier(ProblemType.REGRESSION, ("stars",)))
        answers = [json.loads(block) for block in export_readme.blocks(readme, "json")]
        assert answers == [{"predictions": [3.25, 3.25]}, {"outputs": [3.25, 3.25]}]

    def test_several_labels_are_named_by_class(self, export):
        readme = readme_of(export, FakeClassifier(ProblemType.MULTI_LABEL_CLASSIFICATION))
        row, columns, names = (json.loads(block) for block in export_readme.blocks(readme, "json"))
        assert row["predictions"] == [{"labels": ["", "great"], "probabilities": [0.5, 0.5]}] * 2
        assert columns["outputs"]["labels"] == [["", "great"]] * 2
        assert names == ["dull", "great"]

    @pytest.mark.parametrize(
        "problem_type", [ProblemType.SINGLE_LABEL_CLASSIFICATION, ProblemType.MULTI_LABEL_CLASSIFICATION]
    )
    def test_hostile_labels_break_nothing(self, export, problem_type):
        plain = readme_of(export)
        readme = readme_of(export, FakeClassifier(problem_type, HOSTILE))
        row, columns, names = (json.loads(block) for block in export_readme.blocks(readme, "json"))
        assert tuple(names) == HOSTILE
        if problem_type is ProblemType.SINGLE_LABEL_CLASSIFICATION:
            assert (
                [answer["label"] for answer in row["predictions"]] == columns["outputs"]["label"] == [HOSTILE[-1]] * 2
            )
        headings = [line for line in readme.splitlines() if line.startswith("#")]
        assert headings == [line for line in plain.splitlines() if line.startswith("#")]
        assert export_readme.commands(readme) == export_readme.commands(plain)

    def test_going_back_is_a_configuration(self, export):
        (policy,) = export_readme.blocks(readme_of(export), "text")
        edited = (export / "models.config").read_text().replace("    model_platform", f"{policy}\n    model_platform")
        (export / "models.config").write_text(edited)
        (model,) = models(export).config
        assert list(model.model_version_policy.specific.versions) == [1]


class Server(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answers what it was told to, and remembers what it was asked."""

    def __init__(self, outputs):
        self.outputs, self.asked = outputs, None

    def Predict(self, request, context):  # noqa: N802, gRPC's own name
        self.asked = request
        outputs = {key: tf.make_tensor_proto(values) for key, values in self.outputs.items()}
        return predict_pb2.PredictResponse(outputs=outputs)


@contextlib.contextmanager
def listening(server):
    """The port of a gRPC server on this machine."""
    listener = grpc.server(futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(server, listener)
    port = listener.add_insecure_port("127.0.0.1:0")
    listener.start()
    try:
        yield port
    finally:
        listener.stop(None).wait()


@pytest.mark.parametrize(
    ("problem_type", "pairs", "outputs", "printed"),
    [
        (
            ProblemType.SINGLE_LABEL_CLASSIFICATION,
            True,
            {"label": ["gréat", "dull"], "score": [0.75, 0.5], "probabilities": [[0.25, 0.75], [0.5, 0.5]]},
            "gréat 0.75\ndull 0.5\n",
        ),
        (
            ProblemType.MULTI_LABEL_CLASSIFICATION,
            False,
            {"labels": [["dull", ""], ["", ""]], "probabilities": [[0.5, 0.25], [0.0, 0.0]]},
            "['dull']\n[]\n",
        ),
        (ProblemType.REGRESSION, False, {"score": [3.25, 1.5]}, "[3.25, 1.5]\n"),
    ],
    ids=["pairs", "several labels", "regression"],
)
def test_the_grpc_example_asks_and_prints(export, capsys, problem_type, pairs, outputs, printed):
    readme = readme_of(export, FakeClassifier(problem_type), pairs=pairs)
    (example,) = export_readme.blocks(readme, "python")
    server = Server(outputs)
    with listening(server) as port:
        exec(example.replace("localhost:8500", f"127.0.0.1:{port}"), {})
    assert capsys.readouterr().out == printed
    assert server.asked.model_spec.name == "demo"
    row, *_ = export_readme.requests(readme)
    _, inputs = export_readme.inputs_of(row[1], ["text", "text_pair"] if pairs else ["text"])
    asked = {key: [text.decode() for text in tf.make_ndarray(proto)] for key, proto in server.asked.inputs.items()}
    assert asked == inputs
