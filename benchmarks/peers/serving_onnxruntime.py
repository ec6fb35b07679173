"""onnxruntime on an ONNX file, with Hugging Face's tokenizer."""

import onnxruntime
import serving_protocol


def load(job):
    encode = serving_protocol.tokenizer_of(job["checkpoint"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = job["threads"], 3
    session = onnxruntime.InferenceSession(job["model"], options, providers=["CPUExecutionProvider"])
    return lambda texts: serving_protocol.softmax(session.run(["logits"], encode(texts))[0])


serving_protocol.serve(load)
