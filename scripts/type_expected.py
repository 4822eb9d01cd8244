"""Expected values of scripts/dump_types.py where onnx's reference evaluator has none, or rounds on its way."""

import math

import ml_dtypes
import numpy as np
from onnx import helper
from onnx.reference import ReferenceEvaluator

from type_values import DTYPES, element, is_float, limits


def reference(op, x, attrs, domain="", version=28, outputs=1):
    """What onnx's evaluator says of these very arrays."""
    names = ["" if v is None else f"x{i}" for i, v in enumerate(x)]
    node = helper.make_node(op, names, [f"y{i}" for i in range(outputs)], domain=domain, **attrs)
    info = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in zip(names, x) if n]
    graph = helper.make_graph([node], "g", info, [helper.make_tensor_value_info(f"y{i}", 1, None) for i in range(outputs)])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, version)], ir_version=14)
    return ReferenceEvaluator(model).run(None, {n: v for n, v in zip(names, x) if n})


def by_index(op):
    """Of operators that only move elements: computed on their indices."""

    def run(t, x, attrs):
        index = np.arange(x[0].size, dtype=np.float64).reshape(x[0].shape)
        where = reference(op, [index] + x[1:], attrs)[0]
        return x[0].reshape(-1)[np.rint(where).astype(np.int64)]

    return run


def divide(t, x, attrs):
    """Integers truncate, exactly."""
    a, b = np.broadcast_arrays(x[0], x[1])
    if a.dtype.kind == "f":
        return a / b
    q = [abs(int(p)) // abs(int(r)) * (1 if (p < 0) == (r < 0) else -1) for p, r in zip(a.reshape(-1), b.reshape(-1))]
    low, high = np.iinfo(a.dtype).min, np.iinfo(a.dtype).max
    # The least number by -1 wraps around.
    return np.array([v if v <= high else low for v in q], a.dtype).reshape(a.shape)


def saturated(x, t):
    """float64 in a narrow floating-point type, what passes its range the largest value."""
    info = ml_dtypes.finfo(DTYPES[t])
    return np.clip(x, float(info.min), float(info.max)).astype(DTYPES[t])


def spread(scale, x, attrs):
    """A scale or zero point in the shape of x."""
    scale = np.asarray(scale)
    axis = attrs.get("axis", 1)
    if block := attrs.get("block_size", 0):
        return np.repeat(scale, block, axis).take(range(x.shape[axis]), axis)
    return scale.reshape([-1 if i == axis else 1 for i in range(x.ndim)]) if scale.ndim == 1 else scale


def quantize(t, x, attrs):
    to = element(t["T3"])
    ratio = np.asarray(x[0], np.float64) / spread(np.asarray(x[1], np.float64), x[0], attrs)
    if is_float(to):
        return saturated(ratio, to)
    low, high = limits(to)
    zero = spread(np.asarray(x[2], np.int64), x[0], attrs)
    return np.clip(np.rint(ratio) + zero, low, high).astype(np.int64).astype(DTYPES[to])


def dequantize(t, x, attrs):
    zero = spread(np.asarray(x[2], np.float64), x[0], attrs) if len(x) > 2 else 0
    return (np.asarray(x[0], np.float64) - zero) * spread(np.asarray(x[1], np.float64), x[0], attrs)


def qlinear_matmul(t, x, attrs):
    a, b = (
        (np.asarray(x[i], np.float64) - np.asarray(x[i + 2], np.float64)) * np.asarray(x[i + 1], np.float64) for i in (0, 3)
    )
    return quantize(t, [a @ b, x[6], x[7]], {})


def bit_cast(t, x, attrs):
    a, b = element(t["T1"]), element(t["T2"])
    narrow = np.asarray(x[0]).astype(DTYPES[a])
    if DTYPES[a].itemsize == DTYPES[b].itemsize and "int4" not in a + b and "int2" not in a + b and "float4" not in a + b:
        return narrow.view(DTYPES[b])
    # ml_dtypes keeps an element of 4 or 2 bits in a byte, sign-extended where it is signed.
    width = 15 if "4" in a else 3
    bits = narrow.view(np.uint8) & width
    if b in ("int4", "int2"):
        bits = np.where(bits > width // 2, bits.astype(np.int64) - width - 1, bits).astype(np.int64)
        return bits.astype(DTYPES[b])
    return bits.astype(np.uint8).view(DTYPES[b])


def cast(t, x, attrs):
    to = element(t["T2"])
    if element(t["T1"]) != "string":
        return reference(
            "Cast", [np.asarray(x[0])], {**attrs, "to": helper.np_dtype_to_tensor_dtype(DTYPES[to]) if to != "string" else 8}
        )[0]
    if to in ("string", "bool"):
        return x[0] if to == "string" else np.array([v == "1" for v in x[0]])
    numbers = np.array([float(v) for v in x[0]])
    return reference("Cast", [numbers], {"to": helper.np_dtype_to_tensor_dtype(DTYPES[to])})[0]


def one_hot(t, x, attrs):
    n, (off, on) = int(np.asarray(x[1]).reshape(-1)[0]), x[2]
    out = np.empty((len(x[0]), n), x[2].dtype)
    for i, v in enumerate(x[0]):
        out[i] = off
        if -n <= v < n:
            out[i, int(v)] = on
    return out


def col2im(t, x, attrs):
    """Blocks of 2 x 2 in a picture of 4 x 4; they lie side by side where the steps are 2."""
    if element(t["T"]) != "string":
        return reference("Col2Im", x, attrs)[0]
    out = np.full((1, 1, 4, 4), "", object)
    for k, block in enumerate(np.asarray(x[0])[0].T):
        out[0, 0, k // 2 * 2 : k // 2 * 2 + 2, k % 2 * 2 : k % 2 * 2 + 2] = block.reshape(2, 2)
    return out


def max_pool(t, x, attrs):
    x, k = x[0], attrs["kernel_shape"]
    strides, pads = attrs.get("strides", [1, 1]), attrs.get("pads", [0] * 4)
    sizes = [(x.shape[i + 2] + pads[i] + pads[i + 2] - k[i]) // strides[i] + 1 for i in (0, 1)]
    y, where = np.empty(x.shape[:2] + tuple(sizes), x.dtype), np.empty(x.shape[:2] + tuple(sizes), np.int64)
    for n, c, i, j in np.ndindex(*y.shape):
        r, s = i * strides[0] - pads[0], j * strides[1] - pads[1]
        inside = [(p, q) for p in range(r, r + k[0]) for q in range(s, s + k[1]) if 0 <= p < x.shape[2] and 0 <= q < x.shape[3]]
        p, q = max(inside, key=lambda at: (x[n, c][at], -at[0], -at[1]))
        y[n, c, i, j] = x[n, c, p, q]
        where[n, c, i, j] = ((n * x.shape[1] + c) * x.shape[2] + p) * x.shape[3] + q
    return y, where


def max_roi_pool(t, x, attrs):
    h, w = attrs["pooled_shape"]
    out = np.zeros((len(x[1]), x[0].shape[1], h, w))
    for r, roi in enumerate(x[1]):
        n, x0, y0, x1, y1 = (int(v) for v in roi)
        height, width = max(y1 - y0 + 1, 1), max(x1 - x0 + 1, 1)
        for i, j in np.ndindex(h, w):
            rows = slice(y0 + i * height // h, y0 + -(-(i + 1) * height // h))
            columns = slice(x0 + j * width // w, x0 + -(-(j + 1) * width // w))
            out[r, :, i, j] = x[0][n][:, rows, columns].max((1, 2))
    return out


# An attribute is a float32 wherever it is used.
EPSILON = float(np.float32(1e-5))
erf = np.vectorize(math.erf, otypes=[np.float64])


def layer_norm(t, x, attrs):
    mean = x[0].mean(-1, keepdims=True)
    inverse = 1 / np.sqrt(x[0].var(-1, keepdims=True) + EPSILON)
    return (x[0] - mean) * inverse * x[1] + x[2], mean, inverse


def group_norm(t, x, attrs):
    groups = x[0].reshape(len(x[0]), attrs["num_groups"], -1)
    y = (groups - groups.mean(-1, keepdims=True)) / np.sqrt(groups.var(-1, keepdims=True) + EPSILON)
    return y.reshape(x[0].shape) * x[1][:, None] + x[2][:, None]


def normalised(t, x, attrs):
    return (x[0] - x[0].mean((0, 2, 3), keepdims=True)) / (x[0].std((0, 2, 3), keepdims=True) + 1e-9)


def unique(t, x, attrs):
    if x[0].dtype != object or "axis" not in attrs:
        return tuple(reference("Unique", x, attrs, outputs=4))
    rows = [tuple(r) for r in x[0]]
    found = sorted(set(rows))
    first = [rows.index(r) for r in found]
    return (
        np.array(found, object),
        np.array(first),
        np.array([found.index(r) for r in rows]),
        np.array([rows.count(r) for r in found]),
    )


def normalizer(t, x, attrs):
    x = np.asarray(x[0], np.float64)
    by = {"MAX": x.max(1), "L1": np.abs(x).sum(1), "L2": np.sqrt((x * x).sum(1))}[attrs["norm"]]
    return x / by[:, None]


def svm_classifier(t, x, attrs):
    names = attrs.get("classlabels_strings")
    attrs = {k: v for k, v in attrs.items() if k != "classlabels_strings"} | ({"classlabels_ints": [0, 1]} if names else {})
    label, score = reference("SVMClassifier", [np.asarray(x[0], np.float64)], attrs, "ai.onnx.ml", 5, 2)
    return (np.array([names[i] for i in label], object) if names else label), score


def gelu(t, x, attrs):
    x = x[0]
    if attrs.get("approximate") == "tanh":
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + erf(x / np.sqrt(2)))


def lrn(t, x, attrs):
    x, size = x[0], attrs["size"]
    sums = np.stack([(x[:, max(0, c - (size - 1) // 2) : c + size // 2 + 1] ** 2).sum(1) for c in range(x.shape[1])], 1)
    return x / (1 + float(np.float32(1e-4)) / size * sums) ** 0.75


def affine_grid(t, x, attrs):
    h, w = 3, 4
    ys, xs = np.meshgrid((np.arange(h) * 2 + 1) / h - 1, (np.arange(w) * 2 + 1) / w - 1, indexing="ij")
    return np.stack([xs, ys, np.ones((h, w))], -1).reshape(1, h, w, 3) @ np.swapaxes(x[0], 1, 2)[:, None]


def attend(t, x, attrs):
    scores = x[0] @ np.swapaxes(x[1], -1, -2) / np.sqrt(x[0].shape[-1])
    p = np.exp(scores - scores.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True) @ x[2]


def window(*terms):
    def run(t, x, attrs):
        at = 2 * np.pi * np.arange(int(x[0])) / int(x[0])
        return sum(c * np.cos(k * at) for k, c in enumerate(terms))

    return run


def in_float(op):
    """Operators of ai.onnx.ml of integers: the reference would round their coefficients to integers."""
    return lambda t, x, attrs: reference(op, [np.asarray(x[0], np.float64)], attrs, "ai.onnx.ml", 5)[0]


def gemm(t, x, attrs):
    """With whole numbers for alpha and beta, which integers wrap around with."""
    a, b = (x[0].T if attrs.get("transA") else x[0]), (x[1].T if attrs.get("transB") else x[1])
    alpha, beta = (np.asarray(attrs.get(k, 1), a.dtype) for k in ("alpha", "beta"))
    return alpha * (a @ b) + beta * x[2]


EXPECTED = {
    "Div": divide,
    "QuantizeLinear": quantize,
    "DequantizeLinear": dequantize,
    "QLinearMatMul": qlinear_matmul,
    "BitCast": bit_cast,
    "Cast": cast,
    "CastLike": cast,
    "OneHot": one_hot,
    "Col2Im": col2im,
    "MaxPool": max_pool,
    "MaxRoiPool": max_roi_pool,
    "LayerNormalization": layer_norm,
    "GroupNormalization": group_norm,
    "RMSNormalization": lambda t, x, attrs: x[0] / np.sqrt((x[0] * x[0]).mean(-1, keepdims=True) + EPSILON) * x[1],
    "MeanVarianceNormalization": normalised,
    "GlobalLpPool": lambda t, x, attrs: np.sqrt((x[0] * x[0]).sum((2, 3), keepdims=True)),
    "Gelu": gelu,
    "Erf": lambda t, x, attrs: erf(x[0]),
    "HardSwish": lambda t, x, attrs: x[0] * np.clip(x[0] / 6 + 0.5, 0, 1),
    "LRN": lrn,
    "AffineGrid": affine_grid,
    "FlexAttention": attend,
    "HannWindow": window(0.5, -0.5),
    "HammingWindow": window(25 / 46, -21 / 46),
    "BlackmanWindow": window(0.42, -0.5, 0.08),
    "LinearRegressor": in_float("LinearRegressor"),
    "SVMRegressor": in_float("SVMRegressor"),
    "Scaler": in_float("Scaler"),
    "Gemm": gemm,
    "Unique": unique,
    "Normalizer": normalizer,
    "SVMClassifier": svm_classifier,
}
