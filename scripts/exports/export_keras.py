"""Writes models of Keras and functions of TensorFlow with tf2onnx, by itself and as Keras calls it.

    python scripts/exports/export_keras.py FOLDER
"""

import os
import sys

os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from case import Case, export, numbers, rows
from keras import layers as L

WIDTH, HEADS = 32, 4
X, PICTURE = {"x": rows(2, 5, WIDTH)}, {"x": rows(2, 12, 12, 8)}


def model(f, inputs):
    """A Keras model of the layers `f`, whose batch is open."""
    ins = [keras.Input(v.shape[1:], name=n, dtype=str(v.dtype)) for n, v in inputs.items()]
    m = keras.Model(ins, f(*ins))
    rng = np.random.default_rng(0)
    m.set_weights([np.abs(0.3 * rng.standard_normal(w.shape)) + 0.1 if w.ndim == 1 else 0.3 * rng.standard_normal(w.shape) for w in m.get_weights()])
    # Keras exports what it has been called with.
    m(list(inputs.values()))
    return m


def of(name, f, inputs=X, wants="", most=0):
    return Case(name, lambda: model(f, inputs), inputs, wants, most)


def cases():
    acts = {a: a for a in ("gelu", "silu", "hard_swish", "hard_sigmoid", "mish", "relu6", "elu", "softplus", "selu", "leaky_relu")}
    acts["gelu_tanh"] = lambda x: keras.activations.gelu(x, approximate=True)
    acts["swish_written"] = lambda x: x * keras.ops.sigmoid(x)
    for name, a in acts.items():
        yield of(f"dense_{name}", lambda x, a=a: L.Activation(a)(L.Dense(WIDTH)(x)), X, "", 2 if a in ("softplus", "selu") else 1)
    for name in ("silu", "hard_swish", "gelu", "relu6"):
        yield of(f"conv_{name}", lambda x, a=name: L.Activation(a)(L.Conv2D(8, 3, padding="same")(x)), PICTURE, "Conv 1", 3)
    yield of("norm_layer", lambda x: L.LayerNormalization()(x), X, "LayerNormalization 1", 1)
    yield of("norm_layer_no_shift", lambda x: L.LayerNormalization(center=False)(x), X, "LayerNormalization 1", 1)
    yield of("norm_layer_two_axes", lambda x: L.LayerNormalization(axis=(1, 2))(x), X, "LayerNormalization 1", 1)
    yield of("norm_rms", lambda x: L.RMSNormalization()(x), X, "RMSNormalization 1", 1)
    yield of("norm_group", lambda x: L.GroupNormalization(4)(x), PICTURE, "GroupNormalization 1", 3)
    yield of("norm_group_rows", lambda x: L.GroupNormalization(4)(x), X, "GroupNormalization 1", 3)
    yield of("norm_instance", lambda x: L.GroupNormalization(-1)(x), PICTURE, "", 3)
    yield of("conv_batch_relu", lambda x: L.ReLU()(L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))), PICTURE, "Conv 1", 3)
    yield of("conv_batch_residual", lambda x: L.ReLU()(x + L.BatchNormalization()(L.Conv2D(8, 3, padding="same")(x))), PICTURE, "Conv 1", 3)

    def excite(x):
        y = L.Activation("silu")(L.BatchNormalization()(L.DepthwiseConv2D(3, padding="same")(x)))
        s = L.Reshape((1, 1, 8))(L.GlobalAveragePooling2D()(y))
        s = L.Conv2D(8, 1, activation="sigmoid")(L.Conv2D(2, 1, activation="silu")(s))
        return L.BatchNormalization()(L.Conv2D(8, 1)(y * s)) + x

    def inverted(x):
        y = L.ReLU(6.0)(L.BatchNormalization()(L.Conv2D(16, 1, use_bias=False)(x)))
        y = L.ReLU(6.0)(L.BatchNormalization()(L.DepthwiseConv2D(3, strides=2, padding="valid")(L.ZeroPadding2D(((0, 1), (0, 1)))(y))))
        return L.BatchNormalization()(L.Conv2D(8, 1, use_bias=False)(y))

    def classifier(x):
        y = L.MaxPooling2D(3, 2, padding="same")(L.Conv2D(8, 3, strides=2, padding="same", activation="relu")(x))
        return L.Dense(5, activation="softmax")(L.Dense(16, activation="relu")(L.Flatten()(y)))

    yield of("block_efficientnet", excite, PICTURE, "Conv 4", 8)
    yield of("block_inverted", inverted, PICTURE, "Conv 3", 6)
    yield of("block_classifier", classifier, PICTURE, "Conv 1, MaxPool 1", 7)
    yield of("block_separable", lambda x: L.SeparableConv2D(8, 3, padding="same", activation="relu")(x), PICTURE, "Conv 2", 4)
    yield of("block_transposed", lambda x: L.Conv2DTranspose(8, 3, strides=2, padding="same")(x), PICTURE, "ConvTranspose 1", 3)
    yield of("block_upsampled", lambda x: L.Conv2D(8, 3, padding="same")(L.UpSampling2D(2, interpolation="bilinear")(x)), PICTURE, "Conv 1", 4)
    yield of("lstm", lambda x: L.LSTM(8, return_sequences=True)(x), X, "LSTM 1", 4)
    yield of("bidirectional", lambda x: L.Bidirectional(L.LSTM(8))(x), X, "LSTM 1", 7)

    mha = lambda **how: L.MultiHeadAttention(HEADS, WIDTH // HEADS, **how)
    square = {"mask": np.tril(np.ones((2, 5, 5), np.float32))}
    yield of("attention_mha", lambda x: mha()(x, x), X, "Attention 1", 3)
    yield of("attention_mha_causal", lambda x: mha()(x, x, use_causal_mask=True), X, "Attention 1", 3)
    yield of("attention_mha_mask", lambda x, m: mha()(x, x, attention_mask=m > 0.5), X | square, "Attention 1", 5)
    yield of("attention_mha_cross", lambda x, y: mha()(x, y), X | {"y": rows(2, 7, WIDTH, seed=2)}, "Attention 1", 4)
    memory, keep = {"y": rows(2, 7, WIDTH, seed=2)}, np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    yield of("attention_mha_causal_mask", lambda x, m: mha()(x, x, attention_mask=m > 0.5, use_causal_mask=True), X | square, "Attention 1", 6)
    yield of("attention_mha_padding", lambda x, m: mha()(x, x, query_mask=m, value_mask=m), X | {"mask": keep}, "Attention 1", 6)
    yield of("attention_mha_value_dim", lambda x: mha(value_dim=12)(x, x), X, "Attention 1", 3)
    yield of("attention_mha_wide", lambda x, y: mha(output_shape=20)(x, y, key=y * 0.5), X | memory, "Attention 1", 6)
    yield of("attention_mha_axes", lambda x: mha(attention_axes=(1, 2))(x, x), {"x": rows(2, 3, 4, WIDTH)}, "Attention 1", 3)
    yield of("attention_mha_inner_axis", lambda x: mha(attention_axes=(2,))(x, x), {"x": rows(2, 3, 4, WIDTH)}, "Attention 1", 3)
    yield of("attention_gqa_causal", lambda x: L.GroupQueryAttention(8, HEADS, 2)(x, x, use_causal_mask=True), X, "Attention 1", 3)
    yield of("attention_layer_mask", lambda x, m: L.Attention(use_scale=True)([x, x], mask=[m, m]), X | {"mask": keep}, "Attention 1", 5)
    yield of("attention_layer_causal", lambda x: L.Attention()([x, x], use_causal_mask=True), X, "Attention 1", 2)
    yield of("attention_gqa", lambda x: L.GroupQueryAttention(8, HEADS, 2)(x, x), X, "Attention 1", 3)
    yield of("attention_plain", lambda x: L.Attention(use_scale=False)([x, x]), X, "Attention 1", 1)
    sdpa = lambda q, k, v: keras.ops.dot_product_attention(q, k, v)
    cut = lambda x: L.Reshape((5, HEADS, WIDTH // HEADS))(L.Dense(WIDTH)(x))
    yield of("attention_ops", lambda x: sdpa(cut(x), cut(x), cut(x)), X, "Attention 1", 3)
    masked = lambda x, m, **how: keras.ops.dot_product_attention(cut(x), cut(x), cut(x), mask=m[:, None] > 0.5, **how)
    yield of("attention_ops_mask", masked, X | square, "Attention 1", 6)
    yield of("attention_ops_causal", lambda x: keras.ops.dot_product_attention(cut(x), cut(x), cut(x), is_causal=True), X, "Attention 1", 3)

    def encoder(x):
        x = L.LayerNormalization()(x + mha()(x, x))
        return L.LayerNormalization()(x + L.Dense(WIDTH)(L.Dense(48, activation="gelu")(x)))

    def pre(x):
        y = L.LayerNormalization()(x)
        x = x + mha()(y, y)
        return x + L.Dense(WIDTH)(L.Dense(48, activation="gelu")(L.LayerNormalization()(x)))

    def patches(x):
        y = L.Reshape((16, 32))(L.Conv2D(32, 3, strides=3)(x))
        return L.Dense(4)(L.GlobalAveragePooling1D()(pre(y)))

    def embedded(x):
        return encoder(L.Embedding(50, WIDTH)(x))

    yield of("encoder_post", encoder, X, "Attention 1", 7)
    yield of("encoder_pre", pre, X, "Attention 1", 7)
    yield of("vit", patches, PICTURE, "Attention 1, Conv 1", 12)
    yield of("encoder_embedded", embedded, {"x": numbers(2, 5, below=50).astype(np.int32)}, "Attention 1", 8)


def spread(*shape, seed=9):
    return 0.3 * rows(*shape, seed=seed)


def functions():
    """As models of TensorFlow 1 and 2 write them without Keras."""
    w = {k: spread(WIDTH, WIDTH, seed=i) for i, k in enumerate("qkvo")}
    g, b = np.abs(rows(WIDTH, seed=4)), spread(WIDTH, seed=5)
    kernels = {k: spread(WIDTH, HEADS, 8, seed=i) for i, k in enumerate("qkv")}

    def bert(x, mask=None):
        n, s = tf.shape(x)[0], tf.shape(x)[1]
        cut = lambda t: tf.transpose(tf.reshape(t, [n, s, HEADS, 8]), [0, 2, 1, 3])
        q, k, v = (cut(tf.matmul(x, w[i])) for i in "qkv")
        scores = tf.multiply(tf.matmul(q, k, transpose_b=True), 1.0 / np.sqrt(8.0))
        if mask is not None:
            scores += (1.0 - tf.cast(mask, tf.float32)[:, None, None, :]) * -10000.0
        y = tf.transpose(tf.matmul(tf.nn.softmax(scores), v), [0, 2, 1, 3])
        return tf.matmul(tf.reshape(y, [n, s, WIDTH]), w["o"])

    def einsum(x):
        q, k, v = (tf.einsum("abc,cde->abde", x, kernels[i]) for i in "qkv")
        p = tf.nn.softmax(tf.einsum("aecd,abcd->acbe", k, q) * 8**-0.5)
        return tf.einsum("acbe,aecd->abcd", p, v)

    def gpt2(x, past):
        """OpenAI's: a triangle that multiplies, past keys and values in one tensor."""
        n, s = tf.shape(x)[0], tf.shape(x)[1]
        cut = lambda t: tf.transpose(tf.reshape(t, [n, s, HEADS, 8]), [0, 2, 1, 3])
        q, k, v = (cut(tf.matmul(x, w[i])) for i in "qkv")
        pk, pv = past[:, 0], past[:, 1]
        k, v = tf.concat([pk, k], axis=-2), tf.concat([pv, v], axis=-2)
        p = tf.matmul(q, k, transpose_b=True) * tf.math.rsqrt(8.0)
        nd, ns = tf.shape(p)[2], tf.shape(p)[3]
        b = tf.cast(tf.range(nd)[:, None] >= tf.range(ns) - ns + nd, p.dtype)[None, None]
        p = tf.nn.softmax(p * b - 1e4 * (1 - b))
        y = tf.transpose(tf.matmul(p, v), [0, 2, 1, 3])
        return tf.matmul(tf.reshape(y, [n, s, WIDTH]), w["o"]), tf.stack([k, v], axis=1)

    def t5(x, bias, mask):
        n, s = tf.shape(x)[0], tf.shape(x)[1]
        cut = lambda t: tf.transpose(tf.reshape(t, [n, -1, HEADS, 8]), [0, 2, 1, 3])
        q, k, v = (cut(tf.matmul(x, w[i])) for i in "qkv")
        p = tf.einsum("bnqd,bnkd->bnqk", q, k) + bias + (1.0 - tf.cast(mask, tf.float32)[:, None, None, :]) * -1e9
        y = tf.einsum("bnqk,bnkd->bnqd", tf.nn.softmax(p), v)
        return tf.matmul(tf.reshape(tf.transpose(y, [0, 2, 1, 3]), [n, s, WIDTH]), w["o"])

    def grouped(x):
        """Heads of keys that groups of query heads share: products of five axes."""
        n, s = tf.shape(x)[0], tf.shape(x)[1]
        q = tf.transpose(tf.reshape(tf.matmul(x, w["q"]), [n, s, 2, 2, 8]), [0, 2, 3, 1, 4])
        k, v = (tf.transpose(tf.reshape(tf.matmul(x, w[i][:, :16]), [n, s, 2, 1, 8]), [0, 2, 3, 1, 4]) for i in "kv")
        p = tf.nn.softmax(tf.matmul(q, k, transpose_b=True) * 8**-0.5)
        y = tf.transpose(tf.matmul(p, v), [0, 3, 1, 2, 4])
        return tf.matmul(tf.reshape(y, [n, s, WIDTH]), w["o"])

    def fake_quant(x):
        """Trained for quantisation: a step of 8 bits on each way, of each channel's own in weights."""
        limit = lambda t: tf.quantization.fake_quant_with_min_max_args(t, -2.0, 2.0)
        first, deep = spread(3, 3, 8, 8, seed=6), spread(3, 3, 8, 1, seed=7)
        most = np.abs(first).max((0, 1, 2))
        first = tf.quantization.fake_quant_with_min_max_vars_per_channel(first, -most, most, narrow_range=True)
        deep = tf.quantization.fake_quant_with_min_max_args(deep, -1.0, 1.0, narrow_range=True)
        y = tf.nn.relu6(tf.nn.bias_add(tf.nn.conv2d(limit(x), first, 1, "SAME"), b[:8]))
        y = tf.quantization.fake_quant_with_min_max_args(y, 0.0, 6.0)
        z = limit(tf.nn.depthwise_conv2d(y, deep, [1, 1, 1, 1], "SAME"))
        return limit(tf.nn.relu(y + z))

    def moments(x):
        mean, variance = tf.nn.moments(x, [-1], keepdims=True)
        return tf.nn.batch_normalization(x, mean, variance, b, g, 1e-5)

    def by_hand(x):
        mean = tf.reduce_mean(x, -1, keepdims=True)
        return g * (x - mean) * tf.math.rsqrt(tf.reduce_mean(tf.square(x - mean), -1, keepdims=True) + 1e-6) + b

    rms = lambda x: x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), -1, keepdims=True) + 1e-6) * g
    gelu = lambda x: 0.5 * x * (1.0 + tf.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * tf.pow(x, 3))))
    erf = lambda x: x * 0.5 * (1.0 + tf.math.erf(x / tf.cast(tf.sqrt(2.0), x.dtype)))
    dense = lambda f: lambda x: f(tf.matmul(x, w["q"]) + b)
    mask = {"mask": np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)}
    open_x = {"x": {0: None, 1: None}}
    for name, f, inputs, wants, most in (
        ("attention_bert", bert, X, "Attention 1", 3),
        ("attention_bert_mask", bert, X | mask, "Attention 1", 4),
        ("attention_einsum", einsum, X, "Attention 1", 2),
        ("attention_gpt2", gpt2, X | {"past": rows(2, 2, HEADS, 3, 8, seed=6)}, "Attention 1", 6),
        ("attention_t5", t5, X | {"bias": rows(1, HEADS, 5, 5, seed=7)} | mask, "Attention 1", 4),
        ("attention_grouped", grouped, X, "Attention 1", 3),
        ("norm_moments", moments, X, "LayerNormalization 1", 1),
        ("norm_by_hand", by_hand, X, "LayerNormalization 1", 1),
        ("norm_rms", rms, X, "RMSNormalization 1", 1),
        ("norm_l2", lambda x: tf.math.l2_normalize(x, -1), X, "LpNormalization 1", 1),
        ("gelu_new", dense(gelu), X, "", 1),
        ("gelu_erf", dense(erf), X, "", 1),
        ("gelu", dense(tf.nn.gelu), X, "", 1),
        ("silu", dense(tf.nn.silu), X, "", 1),
        ("hard_swish", dense(lambda x: x * tf.nn.relu6(x + 3.0) / 6.0), X, "", 1),
        ("mish", dense(lambda x: x * tf.tanh(tf.nn.softplus(x))), X, "", 1),
        ("log_softmax", dense(tf.nn.log_softmax), X, "LogSoftmax 1", 2),
    ):
        yield Case(name, f, inputs, wants, most, open_x)
    # tf2onnx folds the weights into floats.
    yield Case("fake_quant", fake_quant, PICTURE, "Conv 2", 11, only=(13, 18))


def by_keras(case, opset, path):
    keras.utils.set_random_seed(0)
    case.make().export(str(path), format="onnx", verbose=False, opset_version=int(opset))


def by_tf2onnx(case, opset, path):
    spec = [tf.TensorSpec([None] * min(v.ndim, 2) + list(v.shape[2:]), v.dtype, name=n) for n, v in case.inputs.items()]
    tf2onnx.convert.from_function(tf.function(case.make), spec, opset=int(opset), output_path=str(path))


def main():
    export(sys.argv[1], "keras", ["keras", "tf2onnx"], list(cases()), (13, 18), by_keras)
    export(sys.argv[1], "tf2onnx", ["tf2onnx", "tensorflow-cpu"], list(functions()), (11, 13, 18), by_tf2onnx)


main()
