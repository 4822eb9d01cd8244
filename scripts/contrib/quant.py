"""Quantised operators.

Weights of 8 bits keep to -63..63, where onnxruntime is exact on processors without VNNI too (ours is for all values). A tolerance
of 1 is one step of the result, where onnxruntime computes in another way.
"""

from .cases import answers_of, case, model_of, random
import numpy as np

rng = random("quant")


def of8(dtype, shape, low=False):
    if dtype == np.int8:
        return rng.integers(-63 if low else -128, 64 if low else 128, shape).astype(np.int8)
    return rng.integers(65 if low else 0, 192 if low else 256, shape).astype(np.uint8)


def zero(dtype, shape=()):
    return rng.integers(110, 140, shape).astype(np.uint8) if dtype == np.uint8 else rng.integers(-9, 10, shape).astype(np.int8)


def f32(shape=(), lo=0.01, hi=0.03):
    return rng.uniform(lo, hi, shape).astype(np.float32)


def answer(op, values):
    """What onnxruntime makes of arrays, for operators that it has for other types only."""
    values = {f"x{i}": v for i, v in enumerate(values) if v is not None}
    return answers_of(model_of("other", op, "com.microsoft", values, list(values), ["y0"], set(), {}), values)[0]


u8, i8 = np.uint8, np.int8
for t in range(6):
    m, k, n = (int(x) for x in rng.integers(1, 70, 3))
    a, b = [u8, i8][t % 2], [i8, u8][t // 2 % 2]
    if a == i8 and b == u8:
        b = i8  # onnxruntime has no s8 x u8
    case(f"QGemm_{t}", "QGemm", [
        of8(a, (k, m) if t % 3 == 1 else (m, k)), f32(), zero(a), of8(b, (n, k) if t % 2 else (k, n), True),
        f32((n,) if t % 3 else ()), zero(b, (n,) if t % 3 else ()), rng.integers(-999, 999, n).astype(np.int32),
        f32((), 0.5, 1.0) if t != 2 else None, zero(a) if t != 2 else None,
    ], constants=[3, 4, 5], atol=1.0 if t != 2 else 1e-4, transA=int(t % 3 == 1), transB=int(t % 2), alpha=1.0)
    case(f"MatMulIntegerToFloat_{t}", "MatMulIntegerToFloat", [
        of8(a, (2, m, k)), of8(b, (k, n), True), f32(), f32((n,) if t % 2 else ()), zero(a),
        zero(b, (n,) if t % 2 else ()), f32((n,), -1, 1),
    ], constants=[1, 3, 5], rtol=1e-4)
    case(f"DynamicQuantizeMatMul_{t}", "DynamicQuantizeMatMul", [
        f32((m, k), -1, 2), of8(b, (k, n), True), f32((n,) if t % 2 else ()), zero(b, (n,) if t % 2 else ()),
        f32((n,), -1, 1) if t % 3 else None,
    ], constants=[1, 2, 3], rtol=1e-4, atol=1e-4)
for t in range(4):
    a = [u8, i8][t % 2]
    shape = tuple(int(x) for x in rng.integers(1, 9, 3))
    other = [shape, (shape[2],), (shape[1], 1), ()][t]
    for op in ["QLinearAdd", "QLinearMul"]:
        out = f32((), 0.03, 0.06) if op == "QLinearAdd" else f32((), 0.01, 0.02)
        case(f"{op}_{t}", op, [of8(a, shape), f32(), zero(a), of8(a, other), f32(), zero(a), out, zero(a)], atol=1.0)
    case(f"QLinearSigmoid_{t}", "QLinearSigmoid", [of8(a, shape), f32(), zero(a), f32((), 0.004, 0.005), zero(a)],
         constants=[1, 2, 3, 4], atol=1.0)
    case(f"QLinearLeakyRelu_{t}", "QLinearLeakyRelu", [of8(a, shape), f32(), zero(a), f32(), zero(a)],
         constants=[1, 2, 3, 4], atol=1.0, alpha=float(rng.uniform(0.01, 0.5)))
    case(f"QLinearSoftmax_{t}", "QLinearSoftmax", [of8(a, shape), f32(), zero(a), f32((), 1 / 256, 1 / 256),
         np.array(0 if a == u8 else -128, a)], constants=[1, 2, 3, 4], atol=1.0, axis=[-1, 1, 2, 0][t], opset=[13, 13, 12, 13][t])
    case(f"QLinearWhere_{t}", "QLinearWhere", [rng.integers(0, 2, shape).astype(bool), of8(a, shape), f32(), zero(a),
         of8(a, other), f32(), zero(a), f32(), zero(a)], constants=[2, 3, 5, 6, 7, 8], atol=1.0)
    axis = t % 3
    parts = [shape, tuple(s + (i == axis) for i, s in enumerate(shape))]
    case(f"QLinearConcat_{t}", "QLinearConcat", [f32(), zero(a)] + [x for s in parts for x in (of8(a, s), f32(), zero(a))],
         constants=[0, 1, 3, 4, 6, 7], atol=1.0, axis=axis)
    image = (2, 3, 9, 8)
    case(f"QLinearAveragePool_{t}", "QLinearAveragePool", [of8(a, image), f32(), zero(a), f32(), zero(a)],
         constants=[1, 2, 3, 4], atol=1.0, kernel_shape=[3, 2], strides=[1 + t % 2, 1], pads=[1, 0, 1, 1], count_include_pad=t // 2)
    case(f"QLinearGlobalAveragePool_{t}", "QLinearGlobalAveragePool", [of8(a, image), f32(), zero(a), f32(), zero(a)],
         constants=[1, 2, 3, 4], atol=1.0)
    q = [u8, i8, np.uint16, np.int16][t]
    lo, hi = np.iinfo(q).min // 2, np.iinfo(q).max // 2
    case(f"QuantizeLinear_{t}", "QuantizeLinear", [f32((3, 40), -5, 5), f32((40,) if t % 2 else ()),
         rng.integers(0, 9, (40,) if t % 2 else ()).astype(q)], atol=0.0, **({"axis": 1} if t % 2 else {}))
    case(f"DequantizeLinear_{t}", "DequantizeLinear", [rng.integers(lo, hi, (3, 40)).astype(q), f32((3,) if t % 2 else ()),
         rng.integers(0, 9, (3,) if t % 2 else ()).astype(q)], **({"axis": 0} if t % 2 else {}))
for t in range(12):
    bits, block = [4, 4, 8, 2][t % 4], [16, 32, 64, 128][t // 3]
    k, n, m = int(rng.integers(1, 5)) * block - (0 if t % 2 else 3), int(rng.integers(1, 40)), int(rng.integers(1, 7))
    blocks = -(-k // block)
    b = rng.integers(0, 256, (n, blocks, block * bits // 8)).astype(u8)
    packed = rng.integers(0, 256, (n, -(-blocks * bits // 8))).astype(u8)
    zeros = [None, packed, f32((n, blocks), 0, 2**bits)][t % 3]
    if bits != 4 and zeros is not None:
        zeros = packed
    case(f"MatMulNBits_{t}", "MatMulNBits", [f32((m, k), -1, 1), b, f32((n, blocks)), zeros, None,
         f32((n,), -1, 1) if t % 2 else None], constants=[1, 2, 3, 5], rtol=1e-3, atol=1e-3,
         K=k, N=n, bits=bits, block_size=block)
# Columns in any order, each with the scale and zero point of its group. onnxruntime takes 8 for the zero point where there are
# groups, whatever it is given, so those answers are computed.
def grouped(x, b, s, z, g):
    codes = np.stack([b & 15, b >> 4], -1).reshape(len(b), -1)[:, : len(g)].astype(np.float64)
    zeros = np.stack([z & 15, z >> 4], -1).reshape(len(b), -1).astype(np.float64)
    return [(x.astype(np.float64) @ ((codes - zeros[:, g]) * s[:, g]).T).astype(np.float32)]


for t in range(6):
    k, n, m, block = 64, 12, t % 3 + 1, [16, 32, 32][t % 3]
    groups = rng.integers(0, k // block, k).astype(np.int32)
    b = rng.integers(0, 256, (n, k // block, block // 2)).astype(u8)
    zeros = None if t < 3 else rng.integers(0, 256, (n, (k // block + 1) // 2)).astype(u8)
    case(f"MatMulNBits_groups_{t}", "MatMulNBits", [f32((m, k), -1, 1), b, f32((n, k // block)), zeros, groups],
         constants=[1, 2, 3, 4] if t >= 3 else [1, 2, 4], rtol=1e-3, atol=1e-3, want=grouped if t >= 3 else None,
         K=k, N=n, bits=4, block_size=block)
for t in range(6):
    bits, block = [8, 4, 2][t % 3], [16, 32][t % 2]
    rows, d = int(rng.integers(2, 9)), block * 3
    data = rng.integers(0, 256, (rows, d * bits // 8)).astype(u8)
    zeros = rng.integers(0, 256, (rows, -(-3 * bits // 8))).astype(u8) if t > 2 else None
    case(f"GatherBlockQuantized_{t}", "GatherBlockQuantized", [data, rng.integers(-rows, rows, (2, 3)).astype(np.int64),
         f32((rows, 3)), zeros], constants=[0, 2, 3], bits=bits, block_size=block, gather_axis=0, quantize_axis=1)

# What the epilogue does not take.
for t, c in enumerate([(5, 7), (5, 1), (1, 7), (1,), ()]):
    case(f"QGemm_addend_{t}", "QGemm", [of8(u8, (5, 9)), f32(), zero(u8), of8(i8, (9, 7), True), f32((7,)), zero(i8, (7,)),
         rng.integers(-999, 999, c).astype(np.int32), f32((), 0.5, 1.0) if t % 2 else None, zero(u8) if t % 2 else None],
         constants=[3, 4, 5], atol=1.0 if t % 2 else 1e-4)
for t in range(3):
    half = lambda *a: f32(*a).astype(np.float16)
    wide = lambda *x: [None if v is None else v.astype(np.float32) if v.dtype == np.float16 else v for v in x]
    case(f"MatMulIntegerToFloat_half_{t}", "MatMulIntegerToFloat", [of8(u8, (2, 4, 9)), of8(i8, (9, 7), True), half(), half((7,) if t else ()),
         zero(u8), zero(i8, (7,) if t else ()), half((7,), -1, 1) if t > 1 else None], rtol=2e-3, atol=2e-3,
         want=lambda *x: [answer("MatMulIntegerToFloat", wide(*x)).astype(np.float16)])
for t in range(4):
    a = [u8, i8][t % 2]
    image = (2, 9, 8, 5)
    case(f"QLinearAveragePool_last_{t}", "QLinearAveragePool", [of8(a, image), f32(), zero(a), f32(), zero(a)], constants=[1, 2, 3, 4], atol=1.0,
         kernel_shape=[3, 2], strides=[1 + t % 2, 1], pads=[1, 0, 1, 1], count_include_pad=t // 2, channels_last=1)
    case(f"QLinearGlobalAveragePool_last_{t}", "QLinearGlobalAveragePool", [of8(a, image), f32(), zero(a), f32(), zero(a)],
         constants=[1, 2, 3, 4], atol=1.0, channels_last=1)
for t, (ci, co, g) in enumerate([(5, 7, 1), (8, 20, 1), (8, 8, 8), (32, 32, 32), (8, 12, 2), (16, 70, 1)]):
    for last in (0, 1):
        a = [u8, i8][t % 2] if not last else u8
        x = (2, 9, 8, ci) if last else (2, ci, 9, 8)
        each = (co,) if t % 3 else ()
        case(f"QLinearConv_{t}_{last}", "QLinearConv", [of8(a, x), f32(), zero(a), of8(i8, (co, ci // g, 3, 3), True), f32(each), np.zeros(each, i8),
             f32((), 0.1, 0.2), zero(a), rng.integers(-999, 999, co).astype(np.int32) if t else None], constants=[1, 2, 3, 4, 5, 6, 7, 8], atol=1.0,
             group=g, pads=[1, 0, 1, 2], strides=[1 + t % 2, 1], channels_last=last)
