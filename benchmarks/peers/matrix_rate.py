"""The rate of a large bfloat16 matrix product by this environment's library, PyTorch or TensorFlow: what a step's
arithmetic is compared with. Takes a job like every peer, of which it reads nothing."""

import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import protocol  # noqa: E402

SIZE = 4096
REPEATS = 9


def product():
    """A function that computes one product and waits for it."""
    try:
        import torch
    except ImportError:
        return product_of_tensorflow()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    left, right = (torch.randn(SIZE, SIZE, device=device).to(torch.bfloat16) for _ in range(2))
    return lambda: float(torch.matmul(left, right)[0, 0])


def product_of_tensorflow():
    import tensorflow as tf

    left, right = (tf.cast(tf.random.normal((SIZE, SIZE)), tf.bfloat16) for _ in range(2))
    return lambda: float(tf.linalg.matmul(left, right)[0, 0])


def main() -> None:
    multiply, times = product(), []
    multiply()
    for _ in range(REPEATS):
        began = time.perf_counter()
        multiply()
        times.append(time.perf_counter() - began)
    protocol.print_result({"flops_per_second": 2 * SIZE**3 / sorted(times)[len(times) // 2]})


if __name__ == "__main__":
    main()
