"""Our SavedModel through TensorFlow's C API: raw text in, no Python TensorFlow in the process."""

from pathlib import Path

import serving_protocol

from tf_finetune.serving import c_api, session


def load(job):
    folder = Path(job["saved_model"])
    # Its tensors by name, which reading the graph would import Python TensorFlow for.
    text, probabilities = job["tensors"]
    libraries = session.libraries()
    tf = c_api.open_c_api(libraries["libraries"])
    for library in libraries["op_libraries"]:
        c_api.checked(tf, tf.TF_LoadLibrary, library.encode())
    opened = c_api.loaded(tf, str(folder))
    graph, running = opened.__enter__()

    def answer(texts, opened=opened):  # which stays open until the process ends
        feeds = {text: {"dtype": "string", "value": texts}}
        return c_api.run(tf, graph, running, feeds, {"probabilities": probabilities})["probabilities"]

    return answer


serving_protocol.serve(load)
