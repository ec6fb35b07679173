"""How long the forms of one model take from token ids to logits: SavedModel, LiteRT int8, ONNX float32 and int8.

    python benchmarks/other_forms.py WORKDIR [--rounds=20] [--threads=2]

WORKDIR has export/1, litert/1 and onnx/1 (`tf-finetune export --config.export.litert=true --config.export.onnx=true`).
All in one process and interleaved; the SavedModel through TensorFlow's C API, without Python TensorFlow.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

# (texts, tokens of the longest)
SHAPES = ((1, 25), (1, 128), (32, 400))


def batch(texts: int, longest: int) -> dict[str, np.ndarray]:
    """Texts of evenly spread lengths from 20 tokens to the longest, padded to it."""
    lengths = np.linspace(min(20, longest), longest, texts).astype(int) if texts > 1 else np.array([longest])
    mask = (np.arange(longest) < lengths[:, np.newaxis]).astype(np.int32)
    ids = np.random.default_rng(0).integers(1000, 28000, mask.shape).astype(np.int32)
    return {"input_ids": ids * mask, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}


def saved_model_logits(folder: Path):
    """The `tokens` signature of a SavedModel as a function of its inputs."""
    from tf_finetune.serving import c_api, session

    signature, libraries = session.signature_tensors(folder)["tokens"], session._libraries()
    tf = c_api.open_c_api(libraries["libraries"])
    for library in libraries["op_libraries"]:
        c_api.checked(tf, tf.TF_LoadLibrary, library.encode())
    loaded = c_api.loaded(tf, str(folder))
    graph, opened = loaded.__enter__()  # until the process ends
    outputs = {"logits": signature.outputs["logits"].name}

    def logits(inputs):
        feeds = {signature.inputs[name].name: {"dtype": "int32", "value": value} for name, value in inputs.items()}
        return c_api.run(tf, graph, opened, feeds, outputs)["logits"]

    logits.loaded = loaded
    return logits


def litert_logits(path: Path, threads: int):
    from tf_finetune.serving.litert import litert_logits

    return litert_logits(path, num_threads=threads)


def onnx_logits(path: Path, threads: int):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(["logits"], inputs)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("workdir", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    os.environ["TF_NUM_INTRAOP_THREADS"] = str(arguments.threads)
    workdir, threads = arguments.workdir, arguments.threads
    forms = {
        "SavedModel": saved_model_logits(workdir / "export" / "1"),
        "LiteRT int8": litert_logits(workdir / "litert" / "1" / "model.tflite", threads),
        "ONNX float32": onnx_logits(workdir / "onnx" / "1" / "model.onnx", threads),
        "ONNX int8": onnx_logits(workdir / "onnx" / "1" / "model_int8.onnx", threads),
    }
    for texts, longest in SHAPES:
        inputs, times = batch(texts, longest), {name: [] for name in forms}
        for form in forms.values():
            form(inputs)  # the first call of a shape also plans
        for _ in range(arguments.rounds):
            for name, form in forms.items():
                wall, processor = time.perf_counter(), time.process_time()
                form(inputs)
                times[name].append((time.perf_counter() - wall, time.process_time() - processor))
        print(f"{texts} x {longest} tokens", flush=True)
        for name, taken in times.items():
            wall, processor = (1e3 * np.array(column) for column in zip(*taken, strict=True))
            quickest = f"quickest {wall.min():8.1f}"
            print(
                f"  {name:14}{np.median(wall):10.1f} ms, {quickest}, processor {np.median(processor):8.1f}", flush=True
            )


if __name__ == "__main__":
    main()
