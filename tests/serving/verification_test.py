"""Every promise is kept by a whole export, and each kind of damage breaks the one it should."""

import shutil
from pathlib import Path

import pytest
import sabotage
from sabotage import SABOTAGES
from tensorflow.core.framework import types_pb2

from tf_finetune.errors import InputError
from tf_finetune.serving import answers, clients, served_ops, session, verification
from tf_finetune.serving.questions import Questions, Task, hostile_texts

TEXTS = ["a good film", "bad plot " * 30, "", "short"]


@pytest.fixture
def copy(exported, tmp_path):
    return Path(shutil.copytree(exported, tmp_path / "1"))


def broken(folder, task, hostile):
    return {check.promise: check.detail for check in verification.verify(folder, task, hostile) if not check.kept}


def test_a_whole_export_keeps_all(exported, classifier, task, hostile):
    test = Questions.of(classifier, (TEXTS,))
    checks = verification.verify(exported, task, hostile, test)
    unseen = [check.promise for check in checks if check.kept is None]
    assert [check for check in checks if not check.kept and check.promise not in unseen] == []
    assert unseen in ([], [clients.GRPC])  # the latter where the `serving` extra is not installed
    promises = "\n".join(check.promise for check in checks)
    for part in ("sha256", "signatures", "operations", "C API", "REST", "warmup", "scan", "4 more texts", "alone"):
        assert part in promises + "".join(check.detail for check in checks)
    assert verification.IN_PYTHON in promises
    assert verification.THROUGH_C_API in promises


class TestSabotage:
    def test_a_flipped_byte_in_a_shard(self, copy, task, hostile):
        SABOTAGES["a flipped byte in a shard"](copy)
        found = broken(copy, task, hostile)
        assert "missing or altered" in found["files are as they were exported"]
        assert "Checksum does not match" in found[verification.THROUGH_C_API]

    def test_a_flipped_byte_that_the_manifest_hides(self, copy, task, hostile):
        SABOTAGES["a flipped byte that the manifest hides"](copy)
        assert "Checksum does not match" in broken(copy, task, hostile)[verification.THROUGH_C_API]

    def test_a_missing_shard(self, copy, task, hostile):
        SABOTAGES["a missing shard"](copy)
        found = broken(copy, task, hostile)
        assert "variables.data-00000-of-00001" in found["files are as they were exported"]
        assert "variables" in found[verification.THROUGH_C_API]

    @pytest.mark.parametrize("operation", sabotage.OPERATIONS)
    def test_an_operation_outside_of_the_list(self, copy, operation):
        sabotage.add_operation(copy, operation)
        check = served_ops.check(copy)
        assert not check.kept
        assert f"{operation}, as sabotage in " in check.detail

    def test_the_savers_operations_elsewhere(self, copy):
        sabotage.edit(copy, lambda graph: graph.graph_def.node.add(name="reader", op="RestoreV2"))
        assert "RestoreV2, as reader in the graph" in served_ops.check(copy).detail

    def test_swapped_label_names(self, copy, task, hostile):
        SABOTAGES["swapped label names"](copy)
        names, answered = broken(copy, task, hostile)
        assert names == "label names are in the graph, in their order"
        assert answered == "labels are the checkpoint's"

    @pytest.mark.parametrize(("what", "signature"), [("batch", "serving_default"), ("length", "tokens")])
    def test_a_frozen_batch_or_length(self, copy, task, hostile, what, signature):
        SABOTAGES[f"a frozen {what}"](copy)
        (promise, detail), *_ = broken(copy, task, hostile).items()
        assert promise.startswith("signatures are those promised")
        assert detail == f"{signature} has a fixed batch or length"

    def test_a_signature_of_another_type(self, copy, task, hostile):
        def change(graph):
            graph.signature_def["tokens"].inputs["input_ids"].dtype = types_pb2.DT_INT64

        sabotage.edit(copy, change)
        assert "input_ids of tokens is int64 where int32" in broken(copy, task, hostile).popitem()[1]

    def test_a_type_that_there_is_not(self, copy, task, hostile):
        def change(graph):
            graph.signature_def["tokens"].inputs["input_ids"].dtype = 99

        sabotage.edit(copy, change)
        with pytest.raises(InputError, match="not a signature"):
            verification.verify(copy, task, hostile)

    def test_a_signature_that_is_missing(self, copy, task, hostile):
        sabotage.edit(copy, lambda graph: graph.signature_def["tokens"].Clear())
        assert "tokens is missing or has other inputs" in broken(copy, task, hostile).popitem()[1]

    def test_warmup_that_is_damaged(self, copy, task, hostile):
        sabotage.flip(copy / "assets.extra" / "tf_serving_warmup_requests")
        found = broken(copy, task, hostile)
        assert "missing, damaged or empty" in found["warmup requests are answered"]

    def test_another_model(self, exported, task, hostile):
        other = Questions(hostile.sides, hostile.token_ids, None, hostile.logits[:, ::-1] + 1)
        found = broken(exported, task, other)
        assert "raw text answers as the checkpoint does" in found
        assert "logits are the checkpoint's" in found


def test_another_label_on_the_way_is_noticed():
    sent, came = {"label": ["good", "bad"]}, {"label": ["good", "good"]}
    assert answers.same("they are the same", sent, dict(sent)).kept
    assert "label: ['good', 'good'] where ['good', 'bad']" in answers.same("they are the same", sent, came).detail
    assert not answers.same("they are the same", sent, came).kept


class TestQuestions:
    def test_come_back_from_json(self, hostile, task):
        kept = Questions.from_json(hostile.to_json())
        assert kept.to_json() == hostile.to_json()
        assert Task.from_json(task.to_json()) == task

    def test_pairs_stand_on_either_side_once(self):
        first, second = hostile_texts(pairs=True)
        assert sorted(first) == sorted(second)
        assert all(one != other for one, other in zip(first, second, strict=True))


class TestAnyClient:
    """What a client may send: a clean answer or a clean error."""

    @pytest.mark.parametrize("texts", [[], ["good"], ["good", "bad " * 40] * 500])
    def test_batches(self, exported, texts):
        (answer,) = session.run_in_c_api(exported, [("serving_default", {"text": texts})])
        assert len(answer["label"]) == len(answer["score"]) == len(answer["probabilities"]) == len(texts)

    def test_a_megabyte(self, exported, classifier, task):
        text = "good " * 200_000
        (answer,) = session.run_in_c_api(exported, [("serving_default", {"text": [text, "bad"]})])
        assert all(check.kept for check in answers.of_texts(answer, Questions.of(classifier, ([text, "bad"],)), task))

    def test_another_type(self, exported):
        name = session.signature_tensors(exported)["serving_default"].inputs["text"].name
        fed, outputs = {name: {"dtype": "int32", "value": [1]}}, {"label": "StatefulPartitionedCall:0"}
        request = {"saved_model": str(exported), "runs": [{"inputs": fed, "outputs": outputs}]}
        with pytest.raises(RuntimeError, match=r"int32|Expects arg\[0\] to be string"):
            session._ask(session.C_API, session.libraries() | request, timeout=60)

    def test_shapes_that_do_not_fit(self, exported):
        inputs = {"input_ids": [[1, 2]], "attention_mask": [[1]], "token_type_ids": [[0, 0]]}
        with pytest.raises(RuntimeError, match="the inputs must have the same shape"):
            session.run_in_c_api(exported, [("tokens", inputs)])
