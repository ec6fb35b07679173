"""Fast paths of training on TensorFlow, each beside the keras.ops form that other backends run; tests compare the two.

Each writes its own gradient, with fewer passes over memory than the one TensorFlow derives. Under bfloat16 they compute
in float32 inside: on a CPU that is faster, as TensorFlow has no vector code for most of its bfloat16 functions, and
nothing is rounded between two operations. Without training the keras.ops forms run: an export then holds plain
operations, which TensorFlow fuses.
"""

import math

import keras
from keras import ops

# Of 2**16: a dropout's rate is kept to within a hundred-thousandth.
_LANES = 2**16


def _is_fast(training: bool | None) -> bool:
    return bool(training) and keras.backend.backend() == "tensorflow"


def gelu(x, *, training: bool | None):
    """x * Phi(x), Phi the normal distribution (Hendrycks and Gimpel 2016): Hugging Face's "gelu", of any shape."""
    if not _is_fast(training):
        return ops.gelu(x, approximate=False)
    import tensorflow as tf

    @tf.custom_gradient
    def fused(x):
        wide = tf.cast(x, tf.float32)
        share = 0.5 * tf.math.erf(wide * math.sqrt(0.5)) + 0.5
        result, share = tf.cast(wide * share, x.dtype), tf.cast(share, x.dtype)

        def gradient(upstream):
            wide = tf.cast(x, tf.float32)
            density = tf.exp(tf.square(wide) * -0.5 - 0.5 * math.log(2 * math.pi))
            slope = tf.cast(share, tf.float32) + wide * density
            return tf.cast(tf.cast(upstream, tf.float32) * slope, x.dtype)

        return result, gradient

    return fused(tf.convert_to_tensor(x))


def add_bias(x, bias, *, training: bool | None):
    """x (rows, units) + bias (units,); the sum over the rows in the gradient is a matrix product."""
    if not _is_fast(training):
        return ops.add(x, bias)
    import tensorflow as tf

    @tf.custom_gradient
    def fused(x, bias):
        def gradient(upstream):
            ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
            return upstream, tf.matmul(ones, upstream)[0]

        return tf.nn.bias_add(x, bias), gradient

    return fused(x, tf.convert_to_tensor(bias))


def layer_norm(x, gamma, beta, *, epsilon: float, training: bool | None):
    """Normalises x (rows, features) over its features, in float32 (Ba et al. 2016).

    Args:
        x: of any float type; the result has it too.
        gamma, beta: float32 (features,).
        epsilon: added to the variance.
    """
    if not _is_fast(training):
        return ops.cast(ops.layer_normalization(x, gamma, beta, axis=-1, epsilon=epsilon), x.dtype)
    import tensorflow as tf

    features = x.shape[-1]

    @tf.custom_gradient
    def fused(x, gamma, beta):
        # Means over the features, and sums over the rows, are matrix products: those run on all cores.
        mean = tf.fill([features, 1], 1.0 / features)
        wide = tf.cast(x, tf.float32)
        centred = wide - tf.matmul(wide, mean)
        scale = tf.math.rsqrt(tf.matmul(tf.square(centred), mean) + epsilon)
        normal = centred * scale

        def gradient(upstream):
            wide = tf.cast(upstream, tf.float32)
            ones, weights = tf.ones([1, tf.shape(wide)[0]]), gamma[:, tf.newaxis] / features
            product = wide * normal
            inner = wide * gamma - tf.matmul(wide, weights) - normal * tf.matmul(product, weights)
            return tf.cast(scale * inner, x.dtype), tf.matmul(ones, product)[0], tf.matmul(ones, wide)[0]

        return tf.cast(normal * gamma + beta, x.dtype), gradient

    return fused(x, tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta))


def dropout(x, rate: float, seed):
    """Sets values to 0 with probability `rate` and divides the others by 1 - rate (Srivastava et al. 2014).

    On TensorFlow four values share one random number of 64 bits, so that the rate is a multiple of 2**-16.

    Args:
        x: of any shape.
        rate: above 0, at most 1.
        seed: two integers, as keras.random.SeedGenerator.next() gives them.
    """
    if not _is_fast(training=True) or rate >= 1:
        return keras.random.dropout(x, rate, seed=seed)
    import tensorflow as tf

    size = tf.size(x)
    key = tf.cast(seed, tf.uint64)
    bits = tf.raw_ops.StatelessRandomUniformFullIntV2(
        shape=[(size + 3) // 4], key=key[:1], counter=tf.stack([key[1], tf.zeros_like(key[1])]), alg=1, dtype=tf.uint64
    )
    lanes = tf.reshape(tf.reshape(tf.bitcast(bits, tf.uint16), [-1])[:size], tf.shape(x))
    dropped = round(rate * _LANES)
    kept = tf.where(lanes >= dropped, tf.constant(_LANES / (_LANES - dropped), x.dtype), tf.constant(0, x.dtype))
    return x * kept
