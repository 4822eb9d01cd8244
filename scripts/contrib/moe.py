"""Mixtures of experts, with a twin in float64: onnxruntime rounds activations to 8 bits in some of them."""

import numpy as np

from .cases import case, random

rng = random("moe")


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def gelu(x):
    """By tanh, as onnxruntime has it for experts."""
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def activate(h, kind, fusion, gate=None, alpha=1.0, beta=0.0, limit=None):
    if kind in ("swiglu", "geglu"):
        if fusion == 1:
            g, l = h[..., 0::2], h[..., 1::2]
        elif fusion == 2:
            g, l = np.split(h, 2, axis=-1)
        else:
            g, l = h, gate
        if kind == "geglu":
            return gelu(g) * l
        if limit is not None:
            g, l = np.minimum(g, limit), np.clip(l, -limit, limit)
        return g * sigmoid(alpha * g) * (l + beta)
    y = {
        "relu": lambda: np.maximum(h, 0),
        "gelu": lambda: gelu(h),
        "silu": lambda: h * sigmoid(h),
        "identity": lambda: h,
        "relu2": lambda: np.maximum(h, 0) ** 2,
    }[kind]()
    return y if gate is None else y * gate


def twin(x, router, w, b, k, kind, fusion, normalise, weights=None, **more):
    """w, b: three lists by layer; none where there is none."""
    flat = x.reshape(-1, x.shape[-1]).astype(np.float64)
    r = router.astype(np.float64)
    e = np.exp(r - r.max(-1, keepdims=True))
    p = e / e.sum(-1, keepdims=True)
    out = np.zeros((len(flat), w[1].shape[1]))
    for t, row in enumerate(flat):
        chosen = np.argsort(-r[t], kind="stable")[:k]
        scale = p[t, chosen] if weights is None else weights[t, chosen].astype(np.float64)
        if normalise:
            scale = scale / scale.sum()
        for s, i in zip(scale, chosen):
            layer = lambda n, v: w[n][i].astype(np.float64) @ v + (0 if b[n] is None else b[n][i])
            gate = layer(2, row) if w[2] is not None else None
            out[t] += s * layer(1, activate(layer(0, row), kind, fusion, gate, **more))
    return out.reshape(x.shape[:-1] + (out.shape[-1],))


def f(*shape, scale=1.0):
    return (rng.uniform(-1, 1, shape) * scale).astype(np.float32)


KINDS = [("relu", 0), ("gelu", 0), ("silu", 0), ("identity", 0), ("swiglu", 1), ("swiglu", 2), ("swiglu", 0), ("relu2", 0), ("geglu", 1), ("geglu", 2)]
for t in range(20):
    kind, fusion = KINDS[t % len(KINDS)]
    tokens, hidden, inter, experts, k = [(7, 24, 20, 4, 1), (1, 33, 40, 5, 2), (30, 16, 70, 3, 3), (3, 130, 36, 8, 4)][t % 4]
    shape = (1, tokens, hidden) if t % 3 == 0 else (tokens, hidden)
    size = inter * (2 if fusion else 1)
    third = kind == "swiglu" and fusion == 0
    w = [f(experts, size, hidden), f(experts, hidden, inter), f(experts, inter, hidden) if third else None]
    b = [f(experts, size), f(experts, hidden), f(experts, inter) if third else None] if t % 2 else [None] * 3
    more = dict(activation_alpha=1.702, activation_beta=1.0, swiglu_limit=0.8) if kind == "swiglu" and t > 9 else {}
    short = {"alpha": 1.702, "beta": 1.0, "limit": 0.8} if more else {}
    if kind == "swiglu" and not more:
        short = {"alpha": 1.0, "beta": 0.0}
    router, normal = f(tokens, experts, scale=3.0), t // 2 % 2
    can = kind not in ("relu2", "geglu") and fusion == int(kind == "swiglu")  # what its CPU kernel takes
    case(f"MoE_{t}", "MoE", [f(*shape), router, w[0], b[0], w[1], b[1], w[2], b[2]], constants=[2, 3, 4, 5, 6, 7],
         want=lambda x, r, *_: [twin(x, r, w, b, k, kind, fusion, normal, **short).astype(np.float32)],
         agree=1e-4 if can else None, rtol=1e-4, atol=1e-4,
         k=k, activation_type=kind, swiglu_fusion=fusion, normalize_routing_weights=normal, **more)


def codes(experts, rows, columns, bits, block):
    """Codes, scales, zero points, and what they stand for. Several in a byte, the first in its low bits."""
    q = rng.integers(0, 2**bits, (experts, rows, columns))
    blocks = columns // block if block else 1
    s = rng.uniform(0.01, 0.05, (experts, rows, blocks)).astype(np.float32) * (4 / 2**bits)
    z = rng.integers(0, 2**bits, (experts, rows, blocks))
    each = -(-columns // blocks)

    def pack(x):
        per = 8 // bits
        x = np.concatenate([x, np.zeros(x.shape[:-1] + (-x.shape[-1] % per,), x.dtype)], -1)
        x = x.reshape(x.shape[:-1] + (-1, per)) << (np.arange(per) * bits)
        return x.sum(-1).astype(np.uint8)

    def real(zero):
        wide = lambda v: np.repeat(v, each, -1)[..., :columns]
        return (q - (wide(z) if zero else 2 ** (bits - 1))) * wide(s).astype(np.float64)

    if not block:
        return pack(q), s[..., 0], pack(z[..., 0]), real
    return pack(q), s, pack(z), real


for t in range(24):
    kind, fusion = KINDS[t % len(KINDS)] if t < 14 else ("swiglu", 1)
    bits, block = [4, 8, 4, 8, 2, 4][t % 6], [0, 32, 16, 64, 32, 32][t % 6]
    tokens, experts, k = [(5, 4, 1), (1, 5, 2), (19, 3, 3), (3, 8, 4)][t % 4]
    hidden, inter, zero = [64, 128][t % 2], [64, 192][t // 2 % 2], t % 3 == 1
    size = inter * (2 if fusion else 1)
    third = kind == "swiglu" and fusion == 0
    layers = [codes(experts, size, hidden, bits, block), codes(experts, hidden, inter, bits, block)]
    layers.append(codes(experts, inter, hidden, bits, block) if third else None)
    w = [l[3](zero) if l else None for l in layers]
    b = [f(experts, size), f(experts, hidden), f(experts, inter) if third else None] if t % 2 else [None] * 3
    more = dict(activation_alpha=1.702, activation_beta=1.0, swiglu_limit=7.0) if kind == "swiglu" else {}
    short = {"alpha": 1.702, "beta": 1.0, "limit": 7.0} if more else {}
    router, normal = f(tokens, experts, scale=3.0), t // 2 % 2
    mixing = np.abs(f(tokens, experts)) if t % 5 == 4 else None
    can = kind not in ("relu2", "geglu") and fusion == int(kind == "swiglu")
    parts = [x for l, c in zip(layers, b) for x in ((l[0], l[1], c) if l else (None, None, None))]
    zeros = [l[2] if l and zero else None for l in layers]
    attrs = dict(k=k, activation_type=kind, swiglu_fusion=fusion, normalize_routing_weights=normal, expert_weight_bits=bits, **more)
    if block:
        attrs["block_size"] = block
    case(f"QMoE_{t}", "QMoE", [f(tokens, hidden), router, *parts, *zeros, mixing], constants=range(2, 14), attrs=attrs,
         # Its kernel for quantised experts takes the softmax over the chosen ones whatever the attribute says.
         want=lambda x, r, *_: [twin(x, r, w, b, k, kind, fusion, normal or mixing is None, mixing, **short).astype(np.float32)],
         agree=0.03 if can else None, rtol=1e-4, atol=1e-4)
