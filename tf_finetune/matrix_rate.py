"""How fast a device multiplies matrices: what a step's arithmetic is compared with."""

import time

from tf_finetune import devices

# Rows of the product, as many tokens as a batch has, roughly.
ROWS = 2048
SECONDS = 0.2


def measured(dtype: str, *, hidden_size: int, intermediate_size: int) -> float:
    """Operations a second that a device reaches in the largest matrix product of a model's layers, the best of a few.

    It takes SECONDS, or three products where those take longer.

    Args:
        dtype: "float32" or "bfloat16".
        hidden_size: columns of the left matrix, which has ROWS rows.
        intermediate_size: columns of the right one.
    """
    sizes = (ROWS, hidden_size), (hidden_size, intermediate_size)
    multiplied = _multiplied_by_jax if devices.keras_backend() == "jax" else _multiplied_by_tensorflow
    multiply, first_value = multiplied(dtype, *sizes)

    def seconds(products: int) -> float:
        began = time.perf_counter()
        for _ in range(products):
            product = multiply()
        first_value(product)  # a device may have taken all of them on before it finished the first
        return (time.perf_counter() - began) / products

    began = time.perf_counter()
    seconds(1)  # the first one also sets the libraries up
    best = seconds(1)
    together = min(max(int(SECONDS / 10 / best), 1), 100)
    while time.perf_counter() - began < SECONDS:
        best = min(best, seconds(together))
    return 2 * ROWS * hidden_size * intermediate_size / best


def _multiplied_by_tensorflow(dtype: str, *sizes: tuple[int, int]):
    """A product of two random matrices, and what waits for it."""
    import tensorflow as tf

    left, right = (
        tf.cast(tf.random.stateless_normal(size, seed=(0, number)), dtype) for number, size in enumerate(sizes)
    )
    return lambda: tf.linalg.matmul(left, right), lambda product: product[0, 0].numpy()


def _multiplied_by_jax(dtype: str, *sizes: tuple[int, int]):
    """The same on JAX."""
    import jax

    left, right = (jax.random.normal(jax.random.key(number), size, dtype) for number, size in enumerate(sizes))
    multiply = jax.jit(jax.numpy.matmul)
    return lambda: multiply(left, right), lambda product: product.block_until_ready()
