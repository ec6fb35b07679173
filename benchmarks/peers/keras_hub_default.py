"""keras-hub as its guides show it: the preprocessor pads every text to the longest there may be; float32."""

import keras_hub_peer
import protocol

if __name__ == "__main__":
    keras_hub_peer.run(protocol.read_job(), tight=False, jit_compile="auto")
