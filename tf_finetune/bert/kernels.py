"""Fast paths of training on TensorFlow, each beside the keras.ops form that other backends run; tests compare the two.

Each writes its own gradient, with fewer passes over memory than the one TensorFlow derives. Under bfloat16 they compute
in float32 inside: on a CPU that is faster, as TensorFlow has no vector code for most of its bfloat16 functions, and
nothing is rounded between two operations. Those that a block spends its time in (`gelu_product`, `dropout_add_norm`,
`attention`) are compiled operations where native/ has them; their keras.ops form is made of the others here.
Without training the keras.ops forms run: an export then holds plain operations, which TensorFlow fuses.
"""

import math

import keras
from keras import ops

from tf_finetune.native import compiled

# Of 2**16: a dropout's rate is kept to within a hundred-thousandth.
_LANES = 2**16


def _is_fast(training: bool | None) -> bool:
    return bool(training) and keras.backend.backend() == "tensorflow"


def _operations(training: bool | None, dtype):
    """The compiled operations, where they are for this computation; or None."""
    if not _is_fast(training) or keras.backend.standardize_dtype(dtype) not in ("bfloat16", "float32"):
        return None
    return compiled.operations()


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
    bias = ops.cast(bias, x.dtype)
    if not _is_fast(training):
        return ops.add(x, bias)
    import tensorflow as tf

    @tf.custom_gradient
    def fused(x, bias):
        def gradient(upstream):
            ones = tf.ones([1, tf.shape(upstream)[0]], upstream.dtype)
            return upstream, tf.matmul(ones, upstream)[0]

        return tf.nn.bias_add(x, bias), gradient

    return fused(x, bias)


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
    if rate >= 1:
        return ops.zeros_like(x)
    if not _is_fast(training=True):
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


def product(x, factors: tuple):
    """x @ kernel of factors (kernel,), and x @ (kernel + first @ second) of factors (kernel, first, second).

    Args:
        x: (rows, units).
        factors: (units, features); and beside it (units, rank) and (rank, features), by which x is multiplied in turn.
    """
    kernel, *low_rank = factors
    result = ops.matmul(x, kernel)
    if low_rank:
        first, second = low_rank
        result = result + ops.matmul(ops.matmul(x, first), second)
    return result


def gelu_product(x, bias, factors: tuple, *, training: bool | None):
    """product(gelu(x + bias), factors), of x (rows, units) and bias (units,).

    Compiled, the values between GELU and the product are not kept: the pass that needs their gradient makes them again.
    """
    operations = _operations(training, x.dtype)
    if not operations:
        return product(gelu(add_bias(x, bias, training=training), training=training), factors)
    import tensorflow as tf

    @tf.custom_gradient
    def fused(x, bias, kernel, *low_rank):
        def gradient(upstream):
            dy, of_low_rank = tf.matmul(upstream, kernel, transpose_b=True), []
            if low_rank:
                first, second = low_rank
                narrow = tf.matmul(upstream, second, transpose_b=True)
                dy += tf.matmul(narrow, first, transpose_b=True)
            dx, dbias, y = operations.tf_finetune_bias_gelu_grad(x=x, bias=bias, dy=dy)
            if low_rank:
                of_low_rank = [
                    tf.matmul(y, narrow, transpose_a=True),
                    tf.matmul(tf.matmul(y, first), upstream, transpose_a=True),
                ]
            return dx, dbias, tf.matmul(y, upstream, transpose_a=True), *of_low_rank

        y = operations.tf_finetune_bias_gelu(x=x, bias=bias)
        y.set_shape(x.shape)
        return product(y, (kernel, *low_rank)), gradient

    return fused(x, tf.cast(bias, tf.float32), *map(tf.convert_to_tensor, factors))


def dropout_add_norm(x, bias, residual, gamma, beta, *, rate: float, seed, epsilon: float, training: bool | None):
    """layer_norm(residual + dropout(x + bias)): the end of both halves of a block.

    Args:
        x, residual: (rows, features).
        bias, gamma, beta: float32 (features,).
        rate: of the dropout.
        seed: two integers for it; None drops nothing.
        epsilon: added to the variance.
    """
    operations = _operations(training, x.dtype)
    if not operations or rate >= 1:
        x = add_bias(x, bias, training=training)
        x = x if seed is None else dropout(x, rate, seed)
        return layer_norm(residual + x, gamma, beta, epsilon=epsilon, training=training)
    import tensorflow as tf

    rate, seed = _of_mask(rate, seed)

    @tf.custom_gradient
    def fused(x, bias, residual, gamma, beta):
        y, added, stats = operations.tf_finetune_dropout_add_norm(
            x=x, bias=bias, residual=residual, gamma=gamma, beta=beta, seed=seed, rate=rate, epsilon=epsilon
        )
        y.set_shape(x.shape)

        def gradient(upstream):
            dx, dresidual, sums = operations.tf_finetune_dropout_add_norm_grad(
                added=added, stats=stats, gamma=gamma, dy=upstream, seed=seed, rate=rate
            )
            return dx, sums[2], dresidual, sums[0], sums[1]

        return y, gradient

    gamma, beta = tf.convert_to_tensor(gamma), tf.convert_to_tensor(beta)
    return fused(x, tf.cast(bias, tf.float32), residual, gamma, beta)


def attention(
    qkv, bias, score_bias, *, num_heads: int, rate: float, seed, training: bool | None, first_only: bool = False
):
    """Multi-head attention (Vaswani et al. 2017) of query, key and value that came out of one matrix product.

    Args:
        qkv: (batch * length, 3 * hidden): queries, keys and values of all heads.
        bias: (3 * hidden,), to be added to it.
        score_bias: (batch, 1, 1, length), added to the scores of each key.
        rate: of the dropout of the probabilities.
        seed: two integers for it; None drops nothing.
        first_only: whether only the first token of each text asks.

    Returns:
        The contexts, (batch * length, hidden), or (batch, hidden) where only the first asks.
    """
    operations = _operations(training, qkv.dtype)
    hidden = qkv.shape[-1] // 3
    head_dim, length = hidden // num_heads, ops.shape(score_bias)[-1]
    if operations and rate < 1 and not first_only:
        return _compiled_attention(operations, qkv, bias, score_bias, num_heads, *_of_mask(rate, seed))
    qkv = add_bias(qkv, bias, training=training)
    by_head = (-1, length, num_heads, head_dim)
    query, key, value = (ops.reshape(part, by_head) for part in ops.split(qkv, 3, axis=-1))
    query = query[:, :1] if first_only else query
    query = ops.transpose(query * head_dim**-0.5, (0, 2, 1, 3))  # (batch, heads, length, head_dim)
    key = ops.transpose(key, (0, 2, 3, 1))  # (batch, heads, head_dim, length)
    value = ops.transpose(value, (0, 2, 1, 3))  # (batch, heads, length, head_dim)
    scores = ops.matmul(query, key) + score_bias  # (batch, heads, length or 1, length)
    if first_only:  # so few that float32 costs nothing
        scores = ops.cast(scores, "float32")
    # The softmax of a single token is 1, and Keras would warn that this is surely a mistake.
    probabilities = ops.ones_like(scores) if scores.shape[-1] == 1 else ops.softmax(scores)
    probabilities = probabilities if seed is None else dropout(probabilities, rate, seed)
    context = ops.matmul(ops.cast(probabilities, value.dtype), value)
    return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, hidden))


def _of_mask(rate: float, seed):
    """Rate and seed as the compiled operations take them."""
    import tensorflow as tf

    return (0.0, tf.zeros([2], tf.int64)) if seed is None else (rate, tf.cast(seed, tf.int64))


def _compiled_attention(operations, qkv, bias, score_bias, num_heads: int, rate: float, seed):
    """`attention` whose scores never leave the processor's cache; the backward pass computes them again."""
    import tensorflow as tf

    score_bias, options = tf.stop_gradient(tf.cast(score_bias, tf.float32)), {"rate": rate, "heads": num_heads}

    @tf.custom_gradient
    def fused(qkv, bias):
        context, stats = operations.tf_finetune_attention(qkv=qkv, bias=bias, mask=score_bias, seed=seed, **options)
        context.set_shape([None, qkv.shape[-1] // 3])

        def gradient(upstream):
            return operations.tf_finetune_attention_grad(
                qkv=qkv, bias=bias, mask=score_bias, stats=stats, dy=upstream, seed=seed, **options
            )

        return context, gradient

    return fused(qkv, tf.cast(bias, tf.float32))
