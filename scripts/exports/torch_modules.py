"""Small modules of PyTorch: activations, normalisations, attention in the ways in which it is spelled, blocks of image models."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from case import Case, numbers, rows
from torch import nn

WIDTH, HEADS, SIZE = 32, 4, 8


class Fn(nn.Module):
    """A function with parameters."""

    def __init__(self, f, **modules):
        super().__init__()
        self.f = f
        for name, m in modules.items():
            setattr(self, name, m)


class Fn1(Fn):
    def forward(self, x):
        return self.f(self, x)


class Fn2(Fn):
    def forward(self, x, y):
        return self.f(self, x, y)


class Fn3(Fn):
    def forward(self, x, y, z):
        return self.f(self, x, y, z)


def of(f, **modules):
    """The exporters want arguments by name, so there is a class for each number of them."""
    kind = (Fn1, Fn2, Fn3)[f.__code__.co_argcount - len(f.__defaults__ or ()) - 2]
    return lambda: kind(f, **{name: make() for name, make in modules.items()})


def linear():
    return nn.Linear(WIDTH, WIDTH)


def conv(k=3, **how):
    return nn.Conv2d(8, 8, k, padding=k // 2, **how)


def spread(m):
    """Scales and shifts that are not 1 and 0, statistics that are not those of no data."""
    for p in m.parameters():
        nn.init.normal_(p, std=0.3)
    for name, b in m.named_buffers():
        if "var" in name:
            nn.init.uniform_(b, 0.5, 1.5)
        elif "mean" in name:
            nn.init.normal_(b, std=0.3)
    return m.eval()


SEQ = {"x": {0: "batch", 1: "rows"}}
IMAGE = {"x": {0: "batch"}}
X, PICTURE = {"x": rows(2, 5, WIDTH)}, {"x": rows(2, 8, 12, 12)}


def activations():
    gpt = lambda x: 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))
    fast = lambda x: 0.5 * x * (1.0 + torch.tanh(x * 0.7978845608 * (1.0 + 0.044715 * x * x)))
    all = {
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU("tanh"),
        "gelu_new": gpt,
        "gelu_fast": fast,
        "gelu_erf_written": lambda x: x * 0.5 * (1.0 + torch.erf(x / math.sqrt(2.0))),
        "gelu_quick": lambda x: x * torch.sigmoid(1.702 * x),
        "silu": nn.SiLU(),
        "swish_written": lambda x: x * torch.sigmoid(x),
        "hardswish": nn.Hardswish(),
        "hardswish_written": lambda x: x * F.relu6(x + 3) / 6,
        "hardsigmoid": nn.Hardsigmoid(),
        "mish": nn.Mish(),
        "mish_written": lambda x: x * torch.tanh(F.softplus(x)),
        "softplus": nn.Softplus(),
        "relu6": nn.ReLU6(),
        "elu": nn.ELU(),
        "leaky_relu": nn.LeakyReLU(0.1),
    }
    for name, f in all.items():
        yield Case(f"linear_{name}", of(lambda m, x, f=f: f(m.a(x)), a=linear), X, "", 2 if name == "softplus" else 1, SEQ)
    for name in ("silu", "hardswish", "hardswish_written", "mish", "relu6", "gelu"):
        f = all[name]
        yield Case(f"conv_{name}", of(lambda m, x, f=f: f(m.a(x)), a=conv), PICTURE, "Conv 1", 1, IMAGE)


class Rms(nn.Module):
    """As Llama and its like write it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(WIDTH))

    def forward(self, x):
        kind = x.dtype
        x = x.to(torch.float32)
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(kind)


class FirstNorm(nn.Module):
    """A layer norm over channels that come first, as ConvNeXt writes it."""

    def __init__(self):
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(8)), nn.Parameter(torch.zeros(8))

    def forward(self, x):
        u = x.mean(1, keepdim=True)
        s = (x - u).pow(2).mean(1, keepdim=True)
        x = (x - u) / torch.sqrt(s + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


def normalisations():
    one = lambda name, make, inputs, wants, axes: Case(f"norm_{name}", of(lambda m, x: m.n(x), n=make), inputs, wants, 1, axes)
    layer, group, instance = "LayerNormalization 1", "GroupNormalization 1", "InstanceNormalization 1"
    yield one("layer", lambda: nn.LayerNorm(WIDTH), X, layer, SEQ)
    yield one("layer_plain", lambda: nn.LayerNorm(WIDTH, elementwise_affine=False), X, layer, SEQ)
    yield one("layer_no_shift", lambda: nn.LayerNorm(WIDTH, bias=False), X, layer, SEQ)
    yield one("layer_two_axes", lambda: nn.LayerNorm((5, WIDTH)), X, layer, {"x": {0: "batch"}})
    yield one("layer_channels_first", FirstNorm, PICTURE, layer, IMAGE)
    yield one("rms", lambda: nn.RMSNorm(WIDTH, eps=1e-6), X, "RMSNormalization 1", SEQ)
    yield one("rms_llama", Rms, X, "RMSNormalization 1", SEQ)
    yield one("group", lambda: nn.GroupNorm(4, 8), PICTURE, group, IMAGE)
    yield one("group_plain", lambda: nn.GroupNorm(4, 8, affine=False), PICTURE, group, IMAGE)
    yield one("group_of_one", lambda: nn.GroupNorm(1, 8), PICTURE, group, IMAGE)
    yield one("group_rows", lambda: nn.GroupNorm(4, 8), {"x": rows(2, 8, 20)}, group, IMAGE)
    yield one("instance", lambda: nn.InstanceNorm2d(8, affine=True), PICTURE, instance, IMAGE)
    yield one("instance_plain", lambda: nn.InstanceNorm2d(8), PICTURE, instance, IMAGE)
    yield one("instance_statistics", lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True), PICTURE, "", IMAGE)
    yield one("batch", lambda: nn.BatchNorm2d(8), PICTURE, "", IMAGE)
    both = lambda m, x: F.silu(m.n(x))
    yield Case("group_silu", of(both, n=lambda: nn.GroupNorm(4, 8)), PICTURE, "", 1, IMAGE)
    yield Case("conv_batch_relu", of(lambda m, x: F.relu(m.n(m.a(x))), a=conv, n=lambda: nn.BatchNorm2d(8)), PICTURE, "Conv 1", 1, IMAGE)
    yield Case("residual_layer", of(lambda m, x: m.n(x + m.a(x)), a=linear, n=lambda: nn.LayerNorm(WIDTH)), X, layer, 2, SEQ)
    yield Case("normalize", of(lambda m, x: F.normalize(m.a(x), dim=-1), a=linear), X, "LpNormalization 1", 2, SEQ)
    yield Case("log_softmax", of(lambda m, x: F.log_softmax(m.a(x), -1), a=linear), X, "LogSoftmax 1", 2, SEQ)


def heads(x, n=HEADS):
    return x.view(x.shape[0], -1, n, SIZE).transpose(1, 2)


def joined(x):
    return x.transpose(1, 2).reshape(x.shape[0], -1, HEADS * SIZE)


def qkv(m, x):
    return heads(m.q(x)), heads(m.k(x)), heads(m.v(x))


def attention():
    def case(name, f, inputs=X, most=3, axes=SEQ, **modules):
        modules = modules or dict(q=linear, k=linear, v=linear, o=linear)
        return Case(f"attention_{name}", of(f, **modules), inputs, "Attention 1", most, axes)

    keep = np.array([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]], bool)
    square = np.tril(np.ones((5, 5), bool))
    added = np.where(square, 0, -1e9).astype(np.float32)
    sdpa = F.scaled_dot_product_attention
    with_mask = {"x": SEQ["x"], "mask": {0: "rows", 1: "rows"}}
    yield case("sdpa", lambda m, x: m.o(joined(sdpa(*qkv(m, x)))))
    yield case("sdpa_scale", lambda m, x: m.o(joined(sdpa(*qkv(m, x), scale=0.2))))
    yield case("sdpa_causal", lambda m, x: m.o(joined(sdpa(*qkv(m, x), is_causal=True))))
    by_mask = lambda m, x, mask: m.o(joined(sdpa(*qkv(m, x), attn_mask=mask)))
    yield case("sdpa_bool", by_mask, X | {"mask": square}, 3, with_mask)
    yield case("sdpa_float", by_mask, X | {"mask": added}, 3, with_mask)
    padded = lambda m, x, mask: m.o(joined(sdpa(*qkv(m, x), attn_mask=mask[:, None, None, :])))
    yield case("sdpa_padding", padded, X | {"mask": keep}, 4, {"x": SEQ["x"], "mask": SEQ["x"]})

    def grouped(m, x):
        q, k, v = heads(m.q(x)), heads(m.k(x), 2), heads(m.v(x), 2)
        return m.o(joined(sdpa(q, k, v, enable_gqa=True)))

    def repeated(m, x):
        def more(t):
            b, h, s, d = t.shape
            return t[:, :, None].expand(b, h, 2, s, d).reshape(b, h * 2, s, d)

        q, k, v = heads(m.q(x)), heads(m.k(x), 2), heads(m.v(x), 2)
        return m.o(joined(sdpa(q, more(k), more(v))))

    few = lambda: nn.Linear(WIDTH, 2 * SIZE)
    yield case("sdpa_gqa", grouped, q=linear, k=few, v=few, o=linear)
    yield case("sdpa_repeated", repeated, q=linear, k=few, v=few, o=linear)

    def past(m, x, pk, pv):
        q, k, v = qkv(m, x)
        k, v = torch.cat([pk, k], 2), torch.cat([pv, v], 2)
        return m.o(joined(sdpa(q, k, v))), k, v

    cached = {"x": rows(2, 1, WIDTH), "pk": rows(2, HEADS, 6, SIZE), "pv": rows(2, HEADS, 6, SIZE, seed=1)}
    yield case("sdpa_past", past, cached, 3, {"x": {0: "batch"}, "pk": {0: "batch", 2: "past"}, "pv": {0: "batch", 2: "past"}})

    def written(m, x):
        q, k, v = qkv(m, x)
        return m.o(joined(torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(SIZE), -1) @ v))

    def filled(m, x, mask):
        q, k, v = qkv(m, x)
        scores = (q @ k.transpose(-1, -2) * SIZE**-0.5).masked_fill(~mask, float("-inf"))
        return m.o(joined(scores.softmax(-1) @ v))

    def zeroed(m, x, mask):
        """As ESPnet and WeNet have it."""
        q, k, v = qkv(m, x)
        out = mask[:, None] == 0
        scores = (q @ k.transpose(-2, -1) / math.sqrt(SIZE)).masked_fill(out, float("-inf"))
        return m.o(joined(scores.softmax(-1).masked_fill(out, 0.0) @ v))

    def lower(m, x, mask):
        q, k, v = qkv(m, x)
        scores = q @ k.transpose(-2, -1) * SIZE**-0.5
        return m.o(joined(torch.where(mask[:, None] > 0, scores, scores - 10000.0).softmax(-1) @ v))

    def multiplied(m, x):
        """OpenAI's GPT-2, and what was made from it."""
        q, k, v = qkv(m, x)
        w = q @ k.transpose(-2, -1) / math.sqrt(SIZE)
        b = torch.ones(16, 16).tril().view(1, 1, 16, 16)[:, :, : w.shape[-1], : w.shape[-1]]
        return m.o(joined((w * b - 1e4 * (1 - b)).softmax(-1) @ v))

    def shared(m, x):
        """Groups of query heads beside the heads of keys that they share."""
        b, s, _ = x.shape
        q = m.q(x).view(b, s, 2, 2, SIZE).permute(0, 2, 3, 1, 4)
        k, v = (t.view(b, s, 2, 1, SIZE).permute(0, 2, 3, 1, 4) for t in (m.k(x), m.v(x)))
        p = (q @ k.transpose(-1, -2) * SIZE**-0.5).softmax(-1)
        return m.o((p @ v).permute(0, 3, 1, 2, 4).reshape(b, s, WIDTH))

    def tril(m, x):
        q, k, v = qkv(m, x)
        scores = q @ k.transpose(-1, -2) * SIZE**-0.5
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).tril()
        return m.o(joined(scores.masked_fill(~causal, torch.finfo(x.dtype).min).softmax(-1) @ v))

    def packed(m, x):
        b, s, c = x.shape
        q, k, v = m.qkv(x).reshape(b, s, 3, HEADS, SIZE).permute(2, 0, 3, 1, 4).unbind(0)
        return m.o(((q * SIZE**-0.5) @ k.transpose(-2, -1)).softmax(-1).matmul(v).transpose(1, 2).reshape(b, s, c))

    def chunks(m, x):
        q, k, v = m.qkv(x).chunk(3, -1)
        return m.o(joined(sdpa(heads(q), heads(k), heads(v))))

    def einsum(m, x):
        q, k, v = (t.view(x.shape[0], -1, HEADS, SIZE) for t in (m.q(x), m.k(x), m.v(x)))
        p = torch.einsum("bihd,bjhd->bhij", q, k).mul(SIZE**-0.5).softmax(-1)
        return m.o(torch.einsum("bhij,bjhd->bihd", p, v).reshape(x.shape[0], -1, WIDTH))

    def folded(m, x):
        b, s, _ = x.shape
        q, k, v = (t.view(b, s, HEADS, SIZE).transpose(1, 2).reshape(b * HEADS, s, SIZE) for t in (m.q(x), m.k(x), m.v(x)))
        p = torch.bmm(q * SIZE**-0.5, k.transpose(1, 2)).softmax(-1)
        return m.o(torch.bmm(p, v).view(b, HEADS, s, SIZE).transpose(1, 2).reshape(b, s, WIDTH))

    def capped(m, x):
        q, k, v = qkv(m, x)
        s = torch.tanh(q @ k.transpose(-1, -2) * SIZE**-0.5 / 50.0) * 50.0
        return m.o(joined(s.softmax(-1) @ v))

    def spatial(m, x):
        b, c, h, w = x.shape
        q, k, v = (t.reshape(b, c, h * w).transpose(1, 2) for t in (m.q(x), m.k(x), m.v(x)))
        y = sdpa(q[:, None], k[:, None], v[:, None])[:, 0].transpose(1, 2).reshape(b, c, h, w)
        return x + m.o(y)

    three = dict(qkv=lambda: nn.Linear(WIDTH, 3 * WIDTH), o=linear)
    yield case("written", written)
    yield case("filled", filled, X | {"mask": square}, 4, with_mask)
    whole = {"mask": np.array([[[1, 1, 1, 1, 0]], [[1, 1, 0, 0, 0]]], np.int64)}
    whole_mask = {"x": {0: "batch", 1: "rows"}, "mask": {0: "batch", 2: "rows"}}
    yield case("zeroed", zeroed, X | whole, 5, whole_mask)
    yield case("lower", lower, X | whole, 5, whole_mask)
    yield case("multiplied", multiplied)
    yield case("grouped_products", shared, q=linear, k=few, v=few, o=linear)
    yield case("tril", tril)
    yield case("packed", packed, **three)
    yield case("chunks", chunks, **three)
    yield case("einsum", einsum)
    yield case("folded_heads", folded)
    yield case("soft_cap", capped)
    point = lambda: conv(1)
    yield case("of_images", spatial, PICTURE, 8, IMAGE, q=point, k=point, v=point, o=point)

    mha = lambda **how: lambda: nn.MultiheadAttention(WIDTH, HEADS, batch_first=True, **how)
    both = {"x": SEQ["x"], "mask": SEQ["x"]}
    yield case("mha", lambda m, x: m.a(x, x, x, need_weights=False)[0], a=mha())
    yield case("mha_rows_first", lambda m, x: m.a(x, x, x, need_weights=False)[0], a=lambda: nn.MultiheadAttention(WIDTH, HEADS))
    yield case("mha_causal", lambda m, x, mask: m.a(x, x, x, need_weights=False, attn_mask=mask, is_causal=True)[0], X | {"mask": ~square}, 4, with_mask, a=mha())
    yield case("mha_float", lambda m, x, mask: m.a(x, x, x, need_weights=False, attn_mask=mask)[0], X | {"mask": added}, 4, with_mask, a=mha())
    yield case("mha_padding", lambda m, x, mask: m.a(x, x, x, need_weights=False, key_padding_mask=mask)[0], X | {"mask": ~keep}, 5, both, a=mha())
    yield case("mha_cross", lambda m, x, y: m.a(x, y, y, need_weights=False)[0], X | {"y": rows(2, 7, WIDTH, seed=3)}, 4, SEQ | {"y": {0: "batch", 1: "others"}}, a=mha())
    yield Case("attention_mha_weights", of(lambda m, x: m.a(x, x, x), a=mha()), X, "", 9, SEQ)

    layer = lambda **how: lambda: nn.TransformerEncoderLayer(WIDTH, HEADS, 48, batch_first=True, **how)
    yield case("encoder_post", lambda m, x: m.a(x), X, 7, a=layer())
    yield case("encoder_pre", lambda m, x: m.a(x), X, 7, a=layer(norm_first=True, activation="gelu"))
    yield case("encoder_padding", lambda m, x, mask: m.a(x, src_key_padding_mask=mask), X | {"mask": ~keep}, 9, both, a=layer())
    decoder = lambda: nn.TransformerDecoderLayer(WIDTH, HEADS, 48, batch_first=True)
    yield Case("attention_decoder", of(lambda m, x, y: m.a(x, y), a=decoder), X | {"y": rows(2, 7, WIDTH, seed=3)}, "Attention 2", 12, SEQ | {"y": {0: "batch", 1: "others"}})


class Csp(nn.Module):
    """The block of YOLO's backbones: halves of the channels, a bottleneck, everything joined."""

    def __init__(self):
        super().__init__()
        block = lambda i, o, k: nn.Sequential(nn.Conv2d(i, o, k, padding=k // 2, bias=False), nn.BatchNorm2d(o), nn.SiLU())
        self.a, self.b, self.c, self.d = block(32, 32, 1), block(16, 16, 3), block(16, 16, 3), block(48, 32, 1)

    def forward(self, x):
        p, q = self.a(x).chunk(2, 1)
        return self.d(torch.cat([p, q, q + self.c(self.b(q))], 1))


class Pyramid(nn.Module):
    """Pools of one window one after the other, all joined (SPPF), then twice the size."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.pool = nn.Conv2d(32, 32, 1), nn.Conv2d(128, 32, 1), nn.MaxPool2d(5, 1, 2)

    def forward(self, x):
        x = self.a(x)
        y = self.pool(x)
        z = self.pool(y)
        return F.interpolate(self.b(torch.cat([x, y, z, self.pool(z)], 1)), scale_factor=2.0, mode="nearest")


class Excite(nn.Module):
    """Squeeze and excite, as MobileNetV3 and EfficientNet have it."""

    def __init__(self):
        super().__init__()
        self.a, self.down, self.up = conv(3, groups=8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)

    def forward(self, x):
        x = F.hardswish(self.a(x))
        return x * F.hardsigmoid(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class Next(nn.Module):
    """A block of ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.a, self.n = nn.Conv2d(8, 8, 7, padding=3, groups=8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 32), nn.Linear(32, 8)
        self.gamma = nn.Parameter(torch.ones(8))

    def forward(self, x):
        y = self.n(self.a(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


def blocks():
    block = lambda name, make, wants, most: Case(f"block_{name}", lambda: make(), PICTURE, wants, most, IMAGE)
    # Parts of one picture lie together, in whole blocks of channels: no step cuts them. One joins what lies elsewhere already.
    one = {"x": rows(1, 32, 12, 12)}
    yield Case("block_csp", Csp, one, "Conv 4", 5)
    yield Case("block_pyramid", Pyramid, one, "Conv 2, MaxPool 3", 6)
    yield block("excite", Excite, "Conv 3", 5)
    yield block("convnext", Next, "LayerNormalization 1", 4)
    shuffle = lambda m, x: m.a(F.pixel_shuffle(F.relu(m.up(x)), 2))
    yield Case("block_shuffle", of(shuffle, up=lambda: nn.Conv2d(8, 32, 3, padding=1), a=conv), PICTURE, "Conv 2, DepthToSpace 1", 3, IMAGE)
    pad = lambda m, x: m.a(F.pad(x, (0, 1, 0, 1)))
    yield Case("block_pad", of(pad, a=lambda: nn.Conv2d(8, 8, 3, stride=2)), PICTURE, "Conv 1", 1, IMAGE)
    embed = lambda m, x: m.n(m.a(x) + m.p(torch.arange(x.shape[1])))
    yield Case("block_embedding", of(embed, a=lambda: nn.Embedding(50, WIDTH), p=lambda: nn.Embedding(9, WIDTH), n=lambda: nn.LayerNorm(WIDTH)), {"x": numbers(2, 5, below=50)}, "", 3, SEQ)


def all_cases():
    for part in (activations, normalisations, attention, blocks):
        for case in part():
            make = case.make
            case.make = lambda make=make: spread(make())
            yield case
