"""GroupQueryAttention's options, SparseAttention."""

import numpy as np

from .cases import case, i32, random

rng = random("grouped")
H, G, D = 4, 2, 16
gqa = dict(num_heads=H, kv_num_heads=G)
op = "GroupQueryAttention"
angles = np.arange(24)[:, None] / 3.0 ** np.arange(8)[None]
cos, sin = np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)
qs, ks = lambda b, s: (b, s, H * D), lambda b, s: (b, s, G * D)
past = lambda b, n: [(b, G, n, D), (b, G, n, D)]
none = [None, None]


def norms(x, heads, w):
    y = x.reshape(x.shape[:2] + (heads, -1)).astype(np.float64)
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6) * w
    return y.reshape(x.shape).astype(np.float32)


# Norms of queries and keys, which its kernel for CPUs lacks: done before.
ask = lambda q, k, v, n, t, c, s, qw, kw: (op, [norms(q, H, qw), norms(k, G, kw), v, None, None, n, t, c, s], dict(gqa, do_rotary=1))
case("gqa_norms", op, [qs(2, 5), ks(2, 5), ks(2, 5), *none, i32(4, 4), i32(5), cos, sin, *[None] * 5, (D,), (D,)], 3, gqa, do_rotary=1, ask=ask)

# Positions that are given.
ids = np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
case("gqa_positions", op, [qs(2, 5), ks(2, 5), ks(2, 5), *none, i32(4, 4), i32(5), cos, sin, ids], 3, gqa, do_rotary=1)
ids = np.array([[6], [9]])
case("gqa_positions_decode", op, [qs(2, 1), ks(2, 1), ks(2, 1), *past(2, 6), i32(6, 3), i32(7), cos, sin, ids], 3, gqa, do_rotary=1)

# Chunks of fixed length, of which not all rows count: the caches are full to the last row, so that all of them are known.
for t in range(4):
    turn = {"do_rotary": 1, "rotary_interleaved": t % 2} if t < 2 else {"local_window_size": 3} if t == 2 else {}
    caches = [cos, sin] if t < 2 else none
    valid, length = [i32(3), i32(3), i32(2), i32(1)][t], [9, 10, 8, 7][t]
    inputs = [qs(1, 3), ks(1, 3), ks(1, 3), *past(1, 12), i32(length - 1), i32(12), *caches, *[None] * 7, valid]

    # Of rows that do not count only the caches are known.
    case(f"gqa_chunk_rows_{t}", op, inputs, 3, gqa, hidden=() if valid[0] == 3 else ("y0",), **turn)

# The matrix of scores, before and after the softmax.
for t, stage in enumerate([1, 2, 1, 2]):
    more = [{}, {}, {"softcap": 1.5}, {"local_window_size": 2}][t]
    inputs = [qs(2, 1), ks(2, 1), ks(2, 1), *past(2, 6), i32(6, 6), i32(7)] if t == 1 else [qs(2, 5), ks(2, 5), ks(2, 5), *none, i32(4, 4), i32(5)]
    case(f"gqa_scores_{t}", op, inputs, 4, gqa, qk_output=stage, **more)

# Caches of 8 and 4 bits.
t = 0
for bits, kind in [(8, np.int8), (4, np.uint8)]:
    for mode in ["PER_TENSOR", "PER_CHANNEL"]:
        for rows, before in [(5, 0), (1, 6), (3, 6)]:
            b, room = 1 if rows == 3 else 2, before + rows
            size = D if bits == 8 else D // 2
            shape = (1,) if mode == "PER_TENSOR" else (1, G, 1, D)
            scale = lambda: (rng.uniform(0.6, 1.2, shape) / 2 ** (bits - 1)).astype(np.float32)
            codes = lambda: rng.integers(0, 256, (b, G, room, size)).astype(np.uint8).view(kind)
            inputs = [qs(b, rows), ks(b, rows), ks(b, rows), codes(), codes(), np.full(b, room - 1, np.int32), i32(room)]
            turn = [cos, sin] if t % 2 else none
            if t % 4 == 3:
                inputs[:3] = [(b, rows, (H + 2 * G) * D), None, None]
            case(f"gqa_codes_{t}", op, [*inputs, *turn, *[None] * 3, scale(), scale()], 3, gqa, k_quant_type=mode, v_quant_type=mode,
                 kv_cache_bit_width=bits, do_rotary=t % 2, atol=1e-4)
            t += 1

# f16.
for t, (rows, before) in enumerate([(5, 0), (1, 6), (3, 6)]):
    b = 1 if rows == 3 else 2
    total = before + rows
    inputs = [qs(b, rows), ks(b, rows), ks(b, rows), *(past(b, before) if before else none), np.full(b, total - 1, np.int32), i32(total)]
    turn = [cos.astype(np.float16), sin.astype(np.float16)] if t != 1 else []
    case(f"gqa_f16_{t}", op, inputs + turn, 3, gqa, dtype=np.float16, do_rotary=int(t != 1), local_window_size=[-1, 3, 4][t], rtol=4e-3, atol=4e-3)

# SparseAttention.
columns = np.array([[0, 0, 1, 1, 2, 1, 2, 3, -1], [0, 0, 1, 0, 1, 2, 0, 2, 3]], np.int32)
starts = np.array([[0, 1, 3, 5, 8], [0, 1, 3, 6, 9]], np.int32)
attrs = dict(num_heads=H, kv_num_heads=G, sparse_block_size=16)
far = np.arange(64)[:, None] / 3.0 ** np.arange(8)[None]
turns = [np.cos(far).astype(np.float32), np.sin(far).astype(np.float32)]
for t in range(6):
    rows, lengths = [(40, (40, 33)), (1, (50, 37)), (64, (64, 64)), (1, (64, 17)), (20, (20, 20)), (1, (1, 30))][t]
    q = [qs(2, rows), ks(2, rows), ks(2, rows)] if t % 2 == 0 else [(2, rows, (H + 2 * G) * D), None, None]
    layout = [columns, starts] if t != 4 else [columns[1:], starts[1:]]
    inputs = [*q, *past(2, 64), layout[1], layout[0], i32(max(lengths)), i32(*lengths), *(turns if t > 1 else none)]

    def dense(q, k, v, pk, pv, first, cols, t, n, c=None, s=None):
        """GroupQueryAttention with the blocks as a bias: onnxruntime's own operator wants past and present in one memory."""
        total, bias = int(t[0]), np.full((2, H, q.shape[1], int(t[0])), -1e30, np.float32)
        for b, h, r in np.ndindex(bias.shape[:3]):
            block = (max(int(n[b]) - q.shape[1], 0) + r) // 16
            l = h % len(first)
            for i in cols[l, first[l, block] : first[l, block + 1]]:
                bias[b, h, r, i * 16 : (i + 1) * 16] = 0
        return op, [q, k, v, pk, pv, n - 1, t, c, s, None, bias], dict(gqa, do_rotary=int(c is not None), **extra)

    extra = dict(rotary_interleaved=int(t == 3), scale=0.3 * (t % 3 == 0))
    ask = dense if t % 2 == 0 else lambda x, *more: dense(x, None, None, *more)
    case(f"SparseAttention_{t}", "SparseAttention", inputs, 3, attrs, do_rotary=int(t > 1), ask=ask, **extra)
