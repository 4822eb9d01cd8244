"""Attention of one new token, attention without padding, quantised projections, group normalisation."""

import numpy as np

from .attention import flat
from .cases import answers_of, case, i32, model_of, random

rng = random("decoder")


def f(*shape):
    return rng.uniform(-1, 1, shape).astype(np.float32)


# DecoderMaskedMultiHeadAttention.
B, H, D = 2, 3, 8
one = (B, 1, H * D)
att = dict(num_heads=H)
op = "DecoderMaskedMultiHeadAttention"
past = [(B, H, 6, D)] * 2
mha = "MultiHeadAttention"  # which onnxruntime has for a past that grows
grown = lambda q, k, v, pk, pv, n, b=None: (mha, [q, k, v, b, None, None, pk, pv], att)
case("dmmha", op, [one, one, one, None, None, *past, i32(6)], 3, att, ask=grown)
case("dmmha_first", op, [one, one, one], 3, att, ask=lambda *x: (mha, list(x), att))
case("dmmha_bias", op, [one, one, one, None, None, *past, i32(6), None, None, (3 * H * D,)], 3, att, ask=grown)
case("dmmha_scale", op, [one, one, one, None, None, *past, i32(5)], 3, att, past_present_share_buffer=1, scale=0.3)
case("dmmha_shared", op, [one, one, one, None, None, *past, i32(4)], 3, att, past_present_share_buffer=1)
case("dmmha_packed", op, [(B, 1, 3 * H * D), None, None, None, None, *past, i32(4)], 3, att, past_present_share_buffer=1,
     ask=lambda x, *more: [*np.split(x, 3, axis=-1), None, None, *more])
mask = np.array([[1, 0, 1, 1, 1], [1, 1, 1, 1, 1]], np.int32)
case("dmmha_mask", op, [one, one, one, mask, None, *past, i32(4)], 3, att, past_present_share_buffer=1)
case("dmmha_attention_bias", op, [one, one, one, None, (1, H, 1, 5), *past, i32(4)], 3, att, past_present_share_buffer=1)
case("dmmha_cross", op, [one, (B, H, 7, D), (B, H, 7, D)], 1, att)
case("dmmha_cross_mask", op, [one, (B, H, 7, D), (B, H, 7, D), np.array([[1, 1, 1, 1, 0, 0, 0], [1] * 7], np.int32)], 1, att)
for t, w in enumerate([2, 3, 4]):
    b, length, room = [2, 1, 3][t], [4, 7, 1][t], 9
    one, past = (b * w, 1, H * D), [(b * w, H, room, D)] * 2
    beams = rng.integers(0, w, (b, w, room)).astype(np.int32)
    more = (None, None, (3 * H * D,)) if t == 1 else ()
    inputs = [one, one, one, None, None, *past, i32(length), i32(w), beams]
    case(f"dmmha_beams_{t}", op, inputs + ([(3 * H * D,)] if t == 1 else []), 3, att, past_present_share_buffer=1)
B, one, past = 2, (2, 1, H * D), [(2, H, 6, D)] * 2
case("dmmha_qk", op, [one, one, one, None, None, *past, i32(6)], 4, att, output_qk=1, ask=grown)
case("mha_qk", "MultiHeadAttention", [(2, 5, H * D), (2, 7, H * D), (2, 7, H * D), None, np.array([[1, 1, 0, 1, 1, 0, 1], [1] * 7], np.int32)], [True, False, False, True], att)
case("mha_qk_bias", "MultiHeadAttention", [(2, 5, H * D), (2, 7, H * D), (2, 7, H * D), None, None, (2, H, 5, 7)], [True, False, False, True], att, scale=0.5)


def apart(x, w, b, mask, past, bias, length, *rest):
    """What DecoderMaskedSelfAttention leaves to the operator without a product."""
    q, k, v = np.split(x @ w + b, 3, axis=-1)
    beams = [None, None]
    if rest:
        beams = [np.array([rest[0].shape[1]], np.int32), rest[0]]
    return [q, k, v, mask, bias, past[0], past[1], length, *beams]


def stacked(x, w, b, *more):
    names = ["mask", "past", "bias", "length", "beams"]
    given = dict(zip([n for n in names if n in more[0]], more[1:]))
    values = apart(x, w, b, *(given.get(n) for n in names[:4]), *([given["beams"]] if "beams" in given else []))
    feeds = {f"x{i}": np.array(v, order="C") for i, v in enumerate(values) if v is not None}
    names = [f"x{i}" if v is not None else "" for i, v in enumerate(values)]
    attrs = dict(att, past_present_share_buffer=1)
    y, k, v = answers_of(model_of("n", op, "com.microsoft", feeds, names, ["y", "k", "v"], set(), attrs), feeds)
    return [y, np.stack([k, v])]


inputs = [(2, 1, 10), (10, 3 * H * D), (3 * H * D,), None, (2, 2, H, 6, D), None, i32(4)]
attrs = dict(att, past_present_share_buffer=1)
case("dmsa", "DecoderMaskedSelfAttention", inputs, 2, attrs, want=lambda *x: stacked(*x[:3], ["past", "length"], *x[3:]))
inputs[3] = mask
case("dmsa_mask", "DecoderMaskedSelfAttention", inputs, 2, attrs, want=lambda *x: stacked(*x[:3], ["mask", "past", "length"], *x[3:]))
inputs[3:] = [None, (2, 2, H, 6, D), (1, H, 1, 5), i32(4), i32(2), np.array([[[0, 1, 1, 0, 0, 0], [1, 0, 1, 0, 0, 0]]], np.int32)]
case("dmsa_beams", "DecoderMaskedSelfAttention", inputs, 2, attrs,
     want=lambda *x: stacked(*x[:3], ["past", "bias", "length", "beams"], *x[3:6], x[7]))

# PackedAttention, PackedMultiHeadAttention: against their padded kin.
LENGTHS = [3, 5, 1]
S, N = 5, sum(LENGTHS)
real = [b * S + s for b, n in enumerate(LENGTHS) for s in range(n)]
offsets = np.array(real + [i for i in range(3 * S) if i not in real], np.int32).reshape(3, S)
starts = np.cumsum([0] + LENGTHS).astype(np.int32)


def padded(x):
    y = np.zeros((3 * S,) + x.shape[1:], np.float32)
    y[real] = x
    return y.reshape((3, S) + x.shape[1:])


def asked(name, op, inputs, attrs, to):
    def want(*x):
        values = to(*x)
        feeds = {f"x{i}": np.array(v, order="C") for i, v in enumerate(values) if v is not None}
        names = [f"x{i}" if v is not None else "" for i, v in enumerate(values)]
        other = "Attention" if op == "PackedAttention" else "MultiHeadAttention"
        (y,) = answers_of(model_of("n", other, "com.microsoft", feeds, names, ["y"], set(), attrs), feeds)
        return [y.reshape((-1,) + y.shape[2:])[real]]

    case(name, op, inputs, 1, attrs, want=want)


n = np.array(LENGTHS, np.int32)
qkv = [(N, H * D)] * 3
op = "PackedMultiHeadAttention"
asked("packed_mha", op, [*qkv, None, offsets, starts], att, lambda q, k, v, *_: [padded(q), padded(k), padded(v), None, n])
asked("packed_mha_bias", op, [*qkv, (3 * H * D,), offsets, starts], dict(att, scale=0.2), lambda q, k, v, b, *_: [padded(q), padded(k), padded(v), b, n])
asked("packed_mha_scores", op, [*qkv, None, offsets, starts, (1, H, S, S)], att, lambda q, k, v, o, s, b: [padded(q), padded(k), padded(v), None, n, b])
asked("packed_mha_one", op, [(N, H, 3, D), None, None, None, offsets, starts], att, lambda x, *_: [*(padded(flat(x[:, None, :, i])[:, 0]) for i in range(3)), None, n])
op = "PackedAttention"
asked("packed_attention", op, [(N, 10), (10, 3 * H * D), (3 * H * D,), offsets, starts], att, lambda x, w, b, *_: [padded(x), w, b, n])
sizes = dict(att, qkv_hidden_sizes=[H * D, H * D, H * 4], scale=0.4)
asked("packed_attention_sizes", op, [(N, 10), (10, H * (2 * D + 4)), (H * (2 * D + 4),), offsets, starts, (3, 1, S, S)], sizes, lambda x, w, b, o, s, p: [padded(x), w, b, n, None, p])

# QAttention. Weights keep to 7 bits, as in quant.py.
for t in range(6):
    kind = [np.int8, np.uint8][t % 2]
    low, high = (-63, 64) if kind == np.int8 else (65, 192)
    w = rng.integers(low, high, (10, 3 * H * D)).astype(kind)
    columns = 3 * H * D if t % 3 == 2 else 1
    scale = rng.uniform(0.001, 0.004, columns).astype(np.float32).reshape((columns,) if columns > 1 else ())
    zero = rng.integers(-9, 9, ()).astype(kind) if kind == np.int8 else rng.integers(120, 136, ()).astype(kind)
    past = [(2, 2, H, 4, D)] if t == 4 else [None]
    mask = [i32(3, 5)] if t in (1, 5) else [np.array([[1, 1, 0, 1, 1], [1] * 5], np.int32)] if t == 2 else [None]
    x = rng.integers(0, 256, (2, 5, 10)).astype(np.uint8)
    case(f"QAttention_{t}", "QAttention", [x, w, (3 * H * D,), np.float32(0.02), scale, *mask, np.uint8(120 + t), zero if columns == 1 else None, *past],
         2 if t == 4 else 1, dict(att, unidirectional=int(t in (3, 4, 5))), constants=[1, 2, 3, 4, 6, 7], rtol=1e-4, atol=1e-4)


# GroupNorm, SkipGroupNorm, BiasSplitGelu, BiasAdd: no kernel for CPUs.
def group_norm(x, gamma, beta, groups, last, silu, epsilon):
    x = x.astype(np.float64)
    if last:
        x = np.moveaxis(x, -1, 1)
    n, c = x.shape[:2]
    g = x.reshape(n, groups, -1)
    g = (g - g.mean(-1, keepdims=True)) / np.sqrt(g.var(-1, keepdims=True) + epsilon)
    by = (1, c) + (1,) * (x.ndim - 2)
    y = g.reshape(x.shape) * gamma.reshape(by) + beta.reshape(by)
    y = y / (1 + np.exp(-y)) if silu else y
    return np.moveaxis(y, 1, -1) if last else y


for t in range(8):
    last, silu, groups, dtype = int(t % 2 == 0), t // 2 % 2, [2, 4, 1, 12][t % 4], np.float16 if t > 5 else np.float32
    shape = (2, 5, 3, 12) if last else (2, 12, 5, 3)
    near = dict(rtol=2e-3, atol=2e-3) if t > 5 else {}  # two roundings to f16
    attrs = dict(channels_last=last, activation=silu, groups=groups, epsilon=1e-4)
    make = lambda x, g, b: group_norm(x, g, b, groups, last, silu, 1e-4)
    x, g, b = f(*shape).astype(dtype), f(12), f(12)
    case(f"GroupNorm_{t}", "GroupNorm", [x, g, b], 1, attrs, want=lambda *v: [make(*v).astype(dtype)], **near)
    skip = f(*[shape, (2, 12), (2, 1, 1, 12) if last else shape][t % 3]).astype(dtype)
    bias = f(12).astype(dtype) if t % 2 or t == 4 else None

    def sums(x, g, b, s, *bias):
        wide = s if s.ndim == 4 else s[:, None, None, :] if last else s[:, :, None, None]
        total = x.astype(np.float64) + wide
        if bias:
            total = total + (bias[0] if last else bias[0][:, None, None])
        total = total.astype(dtype)
        return [make(total, g, b).astype(dtype), total]

    count = 2 if t % 4 < 2 else 1
    case(f"SkipGroupNorm_{t}", "SkipGroupNorm", [x, g, b, skip, bias], count, attrs, want=lambda *v: sums(*v)[:count], **near)
erf = np.vectorize(__import__("math").erf)
for t in range(2):
    x, b, s = f(2, 6, 16), f(16), f(2, 6, 16)
    case(f"BiasAdd_{t}", "BiasAdd", [x, b, s], want=lambda x, b, s: [x + b + s])
    split = lambda x, b: [((x + b)[..., :8] * 0.5 * (x + b)[..., 8:] * (1 + erf((x + b)[..., 8:] / 2**0.5))).astype(np.float32)]
    case(f"BiasSplitGelu_{t}", "BiasSplitGelu", [x, b], want=split)

# Sums of f16 that are normalised.
for t in range(3):
    kind = "SkipLayerNormalization" if t < 2 else "SkipSimplifiedLayerNormalization"
    inputs = [(2, 3, 16)] * 2 + [(16,)] * (2 if t == 2 else 3)
    case(f"skip_norm_f16_{t}", kind, inputs, [True, False, False, True], {"epsilon": 1e-5}, dtype=np.float16, rtol=4e-3, atol=4e-3)
