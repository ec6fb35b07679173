"""The model among Keras's own tools: each is tested for the answer, not only for running."""

import contextlib
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_finetune import TFBertForSequenceClassification, create_optimizer
from tf_finetune.bert.architecture import BertArchitecture
from tf_finetune.bert.layers import LORA_TARGETS
from tf_finetune.native import compiled
from tf_finetune.runtime import precision_policy

# Keras 3.15 saves variables through a call that NumPy 2 deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

ARCHITECTURE = BertArchitecture(
    vocab_size=30,
    hidden_size=8,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=16,
    max_position_embeddings=20,
    initializer_range=0.5,
    hidden_dropout_prob=0.3,
    attention_probs_dropout_prob=0.3,
    id2label=("bad", "fair", "good"),
)
LABELS = np.array([2, 0, 1, 0])


@pytest.fixture
def model():
    return built()


def built(seed=0):
    keras.utils.set_random_seed(seed)
    model = TFBertForSequenceClassification(ARCHITECTURE)
    model.build()
    return model


@pytest.fixture(scope="module")
def inputs():
    """Four texts of 10, 3, 7 and 5 tokens padded to 10."""
    random = np.random.default_rng(0)
    attention_mask = (np.arange(10) < np.array([[10], [3], [7], [5]])).astype("int32")
    return {
        "input_ids": random.integers(1, 30, (4, 10)).astype("int32") * attention_mask,
        "attention_mask": attention_mask,
        "token_type_ids": random.integers(0, 2, (4, 10)).astype("int32"),
    }


def fit(model, inputs, steps=2):
    model.compile(keras.optimizers.SGD(0.1), model.default_loss())
    return model.fit(inputs, LABELS, batch_size=4, epochs=steps, verbose=0).history["loss"]


def values(variables):
    """By path, the model's own name left out: a second model of a process gets another."""
    return {variable.path.split("/", 1)[1]: variable.numpy() for variable in variables}


def moved(before, after):
    return {path for path, value in after.items() if not np.array_equal(value, before[path])}


class TestSavingAsKerasDoes:
    def test_a_keras_file(self, model, inputs, tmp_path):
        fit(model, inputs)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        np.testing.assert_array_equal(again(inputs), model(inputs))
        assert again.architecture == ARCHITECTURE

    def test_a_keras_file_goes_on_training(self, model, inputs, tmp_path):
        fit(model, inputs)
        model.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert int(again.optimizer.iterations) == 2
        again.fit(inputs, LABELS, batch_size=4, verbose=0)
        assert not np.array_equal(again(inputs), model(inputs))

    def test_a_weights_file(self, model, inputs, tmp_path):
        model.save_weights(tmp_path / "model.weights.h5")
        other = built(seed=1)
        assert not np.array_equal(other(inputs), model(inputs))
        other.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_array_equal(other(inputs), model(inputs))

    def test_get_config_is_json_and_rebuilds_the_model(self, model):
        again = TFBertForSequenceClassification.from_config(json.loads(json.dumps(model.get_config())))
        assert again.architecture == ARCHITECTURE
        assert again.name == model.name

    def test_summary_counts_every_parameter(self, model):
        lines = []
        model.summary(print_fn=lines.append)
        block = 4 * (8 * 8 + 8) + (8 * 16 + 16) + (16 * 8 + 8) + 2 * 16
        total = (30 + 20 + 2) * 8 + 16 + 2 * block + (8 * 8 + 8) + (8 * 3 + 3)
        assert f"Total params: {total:,} " in "\n".join(lines)

    def test_a_saved_model_takes_any_batch_and_length(self, model, inputs, tmp_path):
        model.export(tmp_path / "export", verbose=False)
        exported = tf.saved_model.load(tmp_path / "export")
        for rows, length in ((4, 10), (1, 3)):
            part = {name: value[:rows, :length] for name, value in inputs.items()}
            answer = exported.serve({name: tf.constant(value) for name, value in part.items()})
            np.testing.assert_allclose(answer, model(part), atol=1e-5)

    def test_the_signature_takes_the_inputs_by_name(self, model, inputs, tmp_path):
        model.export(tmp_path / "export", verbose=False)
        exported = tf.saved_model.load(tmp_path / "export")
        answer = exported.signatures["serving_default"](**{name: tf.constant(value) for name, value in inputs.items()})
        np.testing.assert_allclose(next(iter(answer.values())), model(inputs), atol=1e-5)

    def test_a_keras_file_in_a_new_process(self, model, inputs, tmp_path):
        optimizer, _ = create_optimizer(1e-3, 10, 1, weight_decay_rate=0.01)
        model.compile(optimizer, model.default_loss())
        model.save(tmp_path / "model.keras")
        code = (
            "import sys, keras; from tf_finetune import TFBertForSequenceClassification; "
            "print(type(keras.saving.load_model(sys.argv[1]).optimizer).__name__)"
        )
        command = [sys.executable, "-c", code, str(tmp_path / "model.keras")]
        result = subprocess.run(command, capture_output=True, text=True)
        assert result.stdout.strip() == "AdamWeightDecay", result.stderr

    def test_the_older_format_of_keras_is_refused(self, model, tmp_path):
        with pytest.raises(ValueError, match="`filepath` must end in .keras, or use save_pretrained"):
            model.save(tmp_path / "model.h5")


class TestFreezing:
    def test_a_frozen_layer_stays_as_it_is(self, model, inputs):
        model.bert.embeddings.trainable = False
        model.bert.encoder[0].trainable = False
        before = values(model.weights)
        fit(model, inputs)
        still = {
            path for path in before if path.startswith(("bert/embeddings/", "bert/layer_0/")) and "seed" not in path
        }
        after = {path: value for path, value in values(model.weights).items() if "seed" not in path}
        assert moved(before, after) == set(after) - still

    def test_the_gradients_of_the_rest_are_those_of_the_whole(self, model, inputs):
        whole = gradients(model, inputs)
        model.bert.encoder[0].trainable = False
        rest = gradients(model, inputs)
        assert set(whole) - set(rest) == {path for path in whole if path.startswith("bert/layer_0/")}
        for path, gradient in rest.items():
            np.testing.assert_allclose(gradient, whole[path], atol=1e-6)


def gradients(model, inputs, *, training=False):
    """Of the loss with respect to every trainable weight, by path."""
    loss, variables = model.default_loss(), model.trainable_variables
    with tf.GradientTape() as tape:
        value = loss(LABELS, model(inputs, training=training))
    found = tape.gradient(value, [variable.value for variable in variables])
    return {
        variable.path.split("/", 1)[1]: tf.convert_to_tensor(gradient).numpy()
        for variable, gradient in zip(variables, found, strict=True)
    }


class TestGradientCheckpointing:
    def test_the_gradients_are_the_same_dropout_included(self, inputs):
        kept, computed_again = built(), built()
        computed_again.gradient_checkpointing_enable()
        expected = gradients(kept, inputs, training=True)
        got = gradients(computed_again, inputs, training=True)
        assert set(got) == set(expected)
        for path, gradient in got.items():
            np.testing.assert_allclose(gradient, expected[path], atol=1e-6, err_msg=path)

    def test_so_is_training(self, inputs):
        kept, computed_again = built(), built()
        computed_again.gradient_checkpointing_enable()
        np.testing.assert_allclose(fit(computed_again, inputs, steps=3), fit(kept, inputs, steps=3), atol=1e-5)
        np.testing.assert_allclose(computed_again(inputs), kept(inputs), atol=1e-4)

    def test_it_can_be_disabled(self, model):
        model.gradient_checkpointing_enable()
        assert model.bert.gradient_checkpointing
        model.gradient_checkpointing_disable()
        assert not model.bert.gradient_checkpointing


@pytest.mark.parametrize("change", [lambda m: m.enable_lora(2), lambda m: m.gradient_checkpointing_enable()])
def test_what_changes_training_asks_for_compile(model, inputs, change):
    """The step that was compiled before would go on as it was."""
    fit(model, inputs)
    change(model)
    with pytest.raises(ValueError, match="compile"):
        model.fit(inputs, LABELS, verbose=0)
    fit(model, inputs)


class TestLora:
    def test_nothing_changes_before_training(self, model, inputs):
        before = model(inputs)
        model.enable_lora(2)
        np.testing.assert_array_equal(model(inputs), before)

    def test_only_the_factors_and_the_head_train(self, model, inputs):
        model.enable_lora(2, targets=("attention/qkv", "output_dense"))
        before = values(model.weights)
        fit(model, inputs)
        after = {path: value for path, value in values(model.weights).items() if "seed" not in path}
        factors = {
            f"bert/layer_{index}/{target}/lora_kernel_{factor}"
            for index in (0, 1)
            for target in ("attention/qkv", "output_dense")
            for factor in "ab"
        }
        head = {f"{layer}/{weight}" for layer in ("bert/pooler", "classifier") for weight in ("kernel", "bias")}
        assert moved(before, after) == factors | head

    def test_gradients_are_those_of_the_merged_kernel(self, model, inputs):
        """With W + s A B for a kernel, the chain rule gives s G B^T for A and s A^T G for B."""
        model.enable_lora(2, lora_alpha=3.0, targets=LORA_TARGETS)
        fit(model, inputs)  # B starts at zero
        full = gradients(model.merge_lora(), inputs)
        factored, weights = gradients(model, inputs), values(model.weights)
        for path in (f"bert/layer_{index}/{target}" for index in (0, 1) for target in LORA_TARGETS):
            first, second = (weights[f"{path}/lora_kernel_{factor}"] for factor in "ab")
            gradient = 3.0 / 2 * full[f"{path}/kernel"]
            np.testing.assert_allclose(factored[f"{path}/lora_kernel_a"], gradient @ second.T, atol=1e-5)
            np.testing.assert_allclose(factored[f"{path}/lora_kernel_b"], first.T @ gradient, atol=1e-5)

    def test_blocks_that_are_computed_again_have_the_same_gradients(self, inputs):
        kept, computed_again = built(), built()
        for model in (kept, computed_again):
            model.enable_lora(2, targets=LORA_TARGETS)
            for weight in model.trainable_variables:
                weight.assign(np.full(weight.shape, 0.02))
        computed_again.gradient_checkpointing_enable()
        expected = gradients(kept, inputs, training=True)
        for path, gradient in gradients(computed_again, inputs, training=True).items():
            np.testing.assert_allclose(gradient, expected[path], atol=1e-6, err_msg=path)

    @pytest.fixture
    def tuned(self, model, inputs):
        model.enable_lora(2, lora_alpha=4.0, targets=LORA_TARGETS)
        fit(model, inputs)
        return model

    def test_a_saved_folder_has_it_merged(self, tuned, inputs, tmp_path):
        tuned.save_pretrained(tmp_path)
        again = TFBertForSequenceClassification.from_pretrained(tmp_path)
        assert not any("lora" in weight.path for weight in again.weights)
        np.testing.assert_allclose(again(inputs), tuned(inputs), atol=1e-5)

    def test_pytorch_opens_the_saved_folder(self, tuned, inputs, tmp_path):
        torch = pytest.importorskip("torch", reason="the comparison with PyTorch needs the `parity` extra")
        import transformers

        tuned.save_pretrained(tmp_path)
        reference = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
        with torch.no_grad():
            expected = reference(**{name: torch.tensor(value).long() for name, value in inputs.items()}).logits
        np.testing.assert_allclose(tuned(inputs), expected, atol=1e-5)

    def test_a_keras_file_has_it_merged(self, tuned, inputs, tmp_path):
        tuned.save(tmp_path / "model.keras")
        again = keras.saving.load_model(tmp_path / "model.keras")
        assert not any("lora" in weight.path for weight in again.weights)
        np.testing.assert_allclose(again(inputs), tuned(inputs), atol=1e-5)

    def test_a_weights_file_has_it_merged(self, tuned, inputs, tmp_path):
        tuned.save_weights(tmp_path / "model.weights.h5")
        plain = built(seed=1)
        plain.load_weights(tmp_path / "model.weights.h5")
        np.testing.assert_allclose(plain(inputs), tuned(inputs), atol=1e-5)

    def test_an_export_has_it_merged(self, tuned, inputs, tmp_path):
        tuned.export(tmp_path / "export", verbose=False)
        exported = tf.saved_model.load(tmp_path / "export")
        assert not any("lora" in variable.name for variable in exported.variables)
        answer = exported.serve({name: tf.constant(value) for name, value in inputs.items()})
        np.testing.assert_allclose(answer, tuned(inputs), atol=1e-5)

    def test_merged_trains_whole_again(self, tuned, inputs):
        merged = tuned.merge_lora()
        np.testing.assert_allclose(merged(inputs), tuned(inputs), atol=1e-5)
        assert len(merged.trainable_variables) == len(built().trainable_variables)

    def test_under_mixed_precision_the_merged_kernel_is_not_rounded(self, inputs, tmp_path):
        with precision_policy("mixed_bfloat16"):
            model = built()
            model.enable_lora(2)
            fit(model, inputs)
        qkv = model.bert.encoder[0].attention.qkv
        kernel = values(model.weights)["bert/layer_0/attention/qkv/kernel"]
        expected = kernel + qkv.lora_kernel_a.numpy() @ qkv.lora_kernel_b.numpy()
        assert not np.array_equal(expected, kernel)
        model.save_pretrained(tmp_path)
        again = TFBertForSequenceClassification.from_pretrained(tmp_path)
        np.testing.assert_allclose(again.bert.encoder[0].attention.qkv.kernel.numpy(), expected, atol=1e-7)

    def test_a_kernel_it_does_not_know_is_refused(self, model):
        with pytest.raises(ValueError, match=r"`targets` must be of \('attention/qkv', .*Received: \['query'\]"):
            model.enable_lora(2, targets=("query",))

    @pytest.mark.parametrize("rank", [0, -1, 1.5, True])
    def test_a_rank_that_is_none_is_refused(self, model, rank):
        with pytest.raises(ValueError, match="`rank` must be a whole number above 0"):
            model.enable_lora(rank)


def test_xla_learns_what_the_step_without_it_learns(inputs):
    """Both with the same dropout; XLA takes the plain operations, and the sparse gradient of the table."""
    losses, weights = {}, {}
    for with_xla in (False, True):
        model = built()
        optimizer, _ = create_optimizer(1e-2, 10, 2, weight_decay_rate=0.1, adam_global_clipnorm=1.0)
        model.compile(optimizer, model.default_loss(), jit_compile=with_xla)
        with contextlib.nullcontext() if with_xla else compiled.unused():
            losses[with_xla] = model.fit(inputs, LABELS, batch_size=4, epochs=3, verbose=0).history["loss"]
        weights[with_xla] = model.get_weights()
        assert model.jit_compile is with_xla
    np.testing.assert_allclose(losses[True], losses[False], rtol=1e-4)
    for with_xla, without in zip(weights[True], weights[False], strict=True):
        # Biases of the keys have no gradient but what rounding leaves, and Adam makes steps of a size of that, too.
        np.testing.assert_allclose(with_xla, without, atol=1e-3)
