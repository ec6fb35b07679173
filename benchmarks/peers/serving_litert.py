"""LiteRT's interpreter on an int8 file, with Hugging Face's tokenizer."""

import serving_protocol
from ai_edge_litert.interpreter import Interpreter


def load(job):
    encode = serving_protocol.tokenizer_of(job["checkpoint"])
    interpreter = Interpreter(job["model"], num_threads=job["threads"])
    runner = interpreter.get_signature_runner()
    return lambda texts: serving_protocol.softmax(runner(**encode(texts))["logits"])


serving_protocol.serve(load)
