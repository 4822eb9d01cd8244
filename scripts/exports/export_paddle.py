"""Writes layers of Paddle with paddle2onnx.

    python scripts/exports/export_paddle.py FOLDER
"""

import sys

import numpy as np
import paddle
import paddle.nn.functional as F
from case import Case, export, numbers, rows
from paddle import nn

WIDTH, HEADS, SIZE = 32, 4, 8
X, PICTURE = {"x": rows(2, 5, WIDTH)}, {"x": rows(2, 8, 12, 12)}


class Fn(nn.Layer):
    """A function with parameters."""

    def __init__(self, f, **layers):
        super().__init__()
        self.f = f
        for name, layer in layers.items():
            setattr(self, name, layer)
        for p in self.parameters():
            # Variances among them.
            p.set_value(0.3 * paddle.randn(p.shape) if p.ndim > 1 else paddle.rand(p.shape) + 0.1)

    def forward(self, *args):
        return self.f(self, *args)


class Fn2(Fn):
    def forward(self, x, y):
        return self.f(self, x, y)


class Fn1(Fn):
    def forward(self, x):
        return self.f(self, x)


class Fn3(Fn):
    def forward(self, x, y, z):
        return self.f(self, x, y, z)


class Fn4(Fn):
    def forward(self, x, y, z, w):
        return self.f(self, x, y, z, w)


def of(name, f, inputs, wants, most, **layers):
    kind = (Fn1, Fn2, Fn3, Fn4)[len(inputs) - 1]
    return Case(name, lambda: kind(f, **{k: make() for k, make in layers.items()}), inputs, wants, most)


def linear():
    return nn.Linear(WIDTH, WIDTH)


def conv(k=3, **how):
    return lambda: nn.Conv2D(8, 8, k, padding=k // 2, **how)


def cases():
    acts = dict(
        gelu=nn.GELU(), gelu_tanh=nn.GELU(True), silu=nn.Silu(), swish=nn.Swish(), hardswish=nn.Hardswish(),
        hardsigmoid=nn.Hardsigmoid(), mish=nn.Mish(), relu6=nn.ReLU6(), elu=nn.ELU(), leaky_relu=nn.LeakyReLU(0.1),
    )
    # Softplus is not here: paddle2onnx 2.1 aborts at it.
    for name, a in acts.items():
        yield of(f"linear_{name}", lambda m, x, a=a: a(m.a(x)), X, "", 1, a=linear)
    for name in ("silu", "hardswish", "mish", "relu6"):
        yield of(f"conv_{name}", lambda m, x, a=acts[name]: a(m.a(x)), PICTURE, "Conv 1", 1, a=conv())
    by_hand = lambda m, x: x / 2 * (1 + paddle.erf(x * 2**-0.5))
    yield of("gelu_by_hand", lambda m, x: by_hand(m, m.a(x)), X, "", 1, a=linear)
    relu6 = lambda m, x: (lambda y: y * F.relu6(y + 3.0) / 6.0)(m.a(x))
    yield of("hardswish_by_hand", relu6, PICTURE, "Conv 1", 1, a=conv())

    norm = lambda m, x: m.n(x)
    yield of("norm_layer", norm, X, "LayerNormalization 1", 1, n=lambda: nn.LayerNorm(WIDTH))
    yield of("norm_layer_two_axes", norm, X, "LayerNormalization 1", 1, n=lambda: nn.LayerNorm([5, WIDTH]))
    yield of("norm_group", norm, PICTURE, "GroupNormalization 1", 1, n=lambda: nn.GroupNorm(4, 8))
    yield of("norm_instance", norm, PICTURE, "InstanceNormalization 1", 1, n=lambda: nn.InstanceNorm2D(8))
    rms = lambda m, x: x * paddle.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * m.a.weight
    yield of("norm_rms", rms, X, "RMSNormalization 1", 1, a=lambda: nn.LayerNorm(WIDTH, bias_attr=False))
    yield of("normalize", lambda m, x: F.normalize(m.a(x), axis=-1), X, "LpNormalization 1", 2, a=linear)
    yield of("conv_batch_hardswish", lambda m, x: F.hardswish(m.n(m.a(x))), PICTURE, "Conv 1", 1, a=conv(bias_attr=False), n=lambda: nn.BatchNorm2D(8))
    yield of("softmax", lambda m, x: F.softmax(m.a(x), -1), X, "Softmax 1", 2, a=linear)

    def attention(m, x, mask=None):
        qkv = m.qkv(x).reshape([0, -1, 3, HEADS, SIZE]).transpose([2, 0, 3, 1, 4])
        q, k, v = qkv[0] * SIZE**-0.5, qkv[1], qkv[2]
        p = q.matmul(k.transpose([0, 1, 3, 2]))
        if mask is not None:
            p = p + mask
        return m.o(F.softmax(p, -1).matmul(v).transpose([0, 2, 1, 3]).reshape([0, -1, WIDTH]))

    three = dict(qkv=lambda: nn.Linear(WIDTH, 3 * WIDTH), o=linear)
    added = {"y": rows(2, 1, 5, 5)}
    yield of("attention_svtr", attention, X, "Attention 1", 3, **three)
    yield of("attention_svtr_mask", attention, X | added, "Attention 1", 4, **three)
    mha = lambda: nn.MultiHeadAttention(WIDTH, HEADS)
    yield of("attention_mha", lambda m, x: m.a(x), X, "Attention 1", 3, a=mha)
    yield of("attention_mha_mask", lambda m, x, y: m.a(x, x, x, y), X | added, "Attention 1", 4, a=mha)
    yield of("attention_mha_cross", lambda m, x, y: m.a(x, y, y), X | {"y": rows(2, 7, WIDTH, seed=1)}, "Attention 1", 4, a=mha)

    def cached(m, x, k, v):
        y, cache = m.a(x, x, x, None, nn.MultiHeadAttention.Cache(k, v))
        return y, cache.k, cache.v

    past = {n: rows(2, HEADS, 3, SIZE, seed=i) for i, n in enumerate("kv")}
    yield of("attention_mha_past", cached, X | past, "Attention 1", 3, a=mha)
    cut = lambda t: t.reshape([0, -1, HEADS, SIZE])
    sdpa = lambda m, x: m.o(F.scaled_dot_product_attention(cut(m.q(x)), cut(m.k(x)), cut(m.v(x))).reshape([0, -1, WIDTH]))
    yield of("attention_sdpa", sdpa, X, "Attention 1", 3, q=linear, k=linear, v=linear, o=linear)
    layer = lambda **how: lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 48, dropout=0.0, **how)
    yield of("encoder_post", lambda m, x: m.a(x), X, "Attention 1", 7, a=layer())
    yield of("encoder_pre", lambda m, x: m.a(x), X, "Attention 1", 7, a=layer(normalize_before=True, activation="gelu"))

    grid, memory = lambda *shape: np.where(np.tril(np.ones(shape)) > 0, 0, -1e9).astype(np.float32), {"memory": rows(2, 7, WIDTH, seed=1)}
    decoder = lambda **how: lambda: nn.TransformerDecoderLayer(WIDTH, HEADS, 48, dropout=0.0, **how)
    yield of("decoder", lambda m, x, memory: m.a(x, memory), X | memory, "Attention 2", 12, a=decoder())
    yield of("decoder_masks", lambda m, x, memory, s, c: m.a(x, memory, s, c), X | memory | {"s": grid(5, 5), "c": grid(2, 1, 5, 7)}, "Attention 2", 12, a=decoder())

    def excite(m, x):
        s = F.relu(m.down(F.adaptive_avg_pool2d(x, 1)))
        return x * F.hardsigmoid(m.up(s), slope=0.2, offset=0.5)

    def lcnet(m, x):
        y = F.hardswish(m.n(m.depth(x)))
        return F.hardswish(m.p(m.point(excite(m, y))))

    depth = lambda: nn.Conv2D(8, 8, 3, padding=1, groups=8, bias_attr=False)
    yield of(
        "block_lcnet", lcnet, PICTURE, "Conv 4", 6, depth=depth, point=conv(1, bias_attr=False), n=lambda: nn.BatchNorm2D(8),
        p=lambda: nn.BatchNorm2D(8), down=lambda: nn.Conv2D(8, 4, 1), up=lambda: nn.Conv2D(4, 8, 1),
    )
    fpn = lambda m, x: m.b(m.a(x) + F.interpolate(m.c(F.max_pool2d(x, 2)), scale_factor=2.0, mode="nearest"))
    yield of("block_db_neck", fpn, PICTURE, "Conv 3", 5, a=conv(1), b=conv(), c=conv(1))
    head = lambda m, x: F.sigmoid(m.b(F.relu(m.n(m.a(x)))))
    up = lambda: nn.Conv2DTranspose(8, 8, 2, stride=2)
    yield of("block_db_head", head, PICTURE, "ConvTranspose 2", 2, a=up, b=lambda: nn.Conv2DTranspose(8, 1, 2, stride=2), n=lambda: nn.BatchNorm2D(8))
    ctc = lambda m, x: F.softmax(m.d(m.l(F.avg_pool2d(x, [12, 1]).squeeze(2).transpose([0, 2, 1]))[0]), 2)
    yield of("block_ctc", ctc, PICTURE, "LSTM 1, Softmax 1", 7, l=lambda: nn.LSTM(8, 8, direction="bidirect"), d=lambda: nn.Linear(16, 10))
    yield of("block_embedding", lambda m, x: m.n(m.a(x)), {"x": numbers(2, 5, below=50)}, "", 2, a=lambda: nn.Embedding(50, WIDTH), n=lambda: nn.LayerNorm(WIDTH))


def write(case, opset, path):
    paddle.seed(0)
    layer = case.make()
    layer.eval()
    spec = [paddle.static.InputSpec([None] + list(v.shape[1:]), str(v.dtype), n) for n, v in case.inputs.items()]
    paddle.onnx.export(layer, str(path).removesuffix(".onnx"), input_spec=spec, opset_version=int(opset))


export(sys.argv[1], "paddle", ["paddlepaddle", "paddle2onnx"], list(cases()), (11, 13, 17), write)
