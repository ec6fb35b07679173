"""keras-hub at its best: mixed bfloat16, padded to the longest text there is (its preprocessor knows one length).

XLA where there is a GPU; on CPUs it makes bfloat16 slower.
"""

import keras_hub_peer
import protocol

if __name__ == "__main__":
    has_gpu = bool(keras_hub_peer.tf.config.list_physical_devices("GPU"))
    keras_hub_peer.run(protocol.read_job(), tight=True, jit_compile=has_gpu)
