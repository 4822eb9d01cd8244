#!/usr/bin/env python3
"""Writes tests/opsets.txt: one node a case, at every version of every operator.

What must come out is computed by formula, in numpy, from the operator's documentation of that version (here), or asked of other
engines, or is a case of the ONNX backend suite, said in that version (`opsets/`). `--check` asks onnxruntime and onnx's reference
evaluator for every case, names those that differ, and those on which nobody agrees (`-v`: what they refuse too).
`opsets/lines.py` says what a line is.

Run by hand, with onnxruntime 1.32 and onnx 1.23, when a case is added; the result is checked in.
"""

import pathlib
import sys

import numpy as np
from opsets import graphs, learning, lines, suite, versions
from opsets.lines import Const, case

ROOT = pathlib.Path(__file__).resolve().parent.parent
rng = np.random.default_rng(7)


def f(*shape):
    """Floats with few digits, so that they stand in the file as they are."""
    return (rng.integers(-40, 41, shape) / 8).astype(np.float32)


def arr(*values, dtype=np.float32):
    return np.array(values, dtype)


def i64(*values):
    return np.array(values, np.int64)


def softmax(x, axis):
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def hardmax(x, axis):
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis), axis), 1, axis)
    return y


def activations():
    x = f(2, 2, 3)
    flat = x.reshape(2, 6)
    for op, g in (("Softmax", softmax), ("LogSoftmax", lambda x, a: np.log(softmax(x, a))), ("Hardmax", hardmax)):
        for version in (1, 11):
            case("flattened", op, version, [x], [g(flat, 1).reshape(x.shape)])
            case("flattened-at-2", op, version, [x], [g(x.reshape(4, 3), 1).reshape(x.shape)], axis=2)
        case("flattened-at-0", op, 1, [x], [g(x.reshape(1, 12), 1).reshape(x.shape)], axis=0)
        case("last-axis", op, 13, [x], [g(x, -1)])
        case("axis-0", op, 13, [x], [g(x, 0)], axis=0)
    where = np.where
    alpha, gamma = np.float32(1.6732), np.float32(1.0507)
    case("defaults", "Selu", 1, [x], [where(x > 0, gamma * x, gamma * (alpha * np.exp(x) - alpha))], consumed_inputs=[0])
    alpha, gamma = 1.67326319217681884765625, 1.05070102214813232421875
    case("defaults", "Selu", 6, [x], [where(x > 0, gamma * x, gamma * (alpha * np.exp(x) - alpha))])
    for version in (1, 6):
        old = {"consumed_inputs": [0]} if version == 1 else {}
        case("alpha", "Elu", version, [x], [where(x < 0, np.float32(0.5) * (np.exp(x) - 1), x)], alpha=0.5, **old)
        case("default", "LeakyRelu", version, [x], [where(x < 0, np.float32(0.01) * x, x)], **old)
        case("default", "HardSigmoid", version, [x], [np.clip(np.float32(0.2) * x + 0.5, 0, 1)], **old)
        case("plain", "Relu", version, [x], [np.maximum(x, 0)], **old)
        case("plain", "Exp", version, [x], [np.exp(x)], **old)
        case("plain", "Reciprocal", version, [np.abs(x) + 1], [1 / (np.abs(x) + 1)], **old)
        case("plain", "Floor", version, [x], [np.floor(x)], **old)
        case("plain", "Sqrt", version, [np.abs(x)], [np.sqrt(np.abs(x))], **old)
        case("plain", "Tanh", version, [x], [np.tanh(x)], **old)
        case("plain", "Neg", version, [x], [-x], **old)
        case("plain", "Abs", version, [x], [np.abs(x)], **old)
        case("plain", "Log", version, [np.abs(x) + 1], [np.log(np.abs(x) + 1)], **old)
        case("plain", "Sigmoid", version, [x], [1 / (1 + np.exp(-x))], **old)
        case("plain", "Ceil", version, [x], [np.ceil(x)], **old)
        case("both", "Clip", version, [x], [np.clip(x, -1, 2)], min=-1.0, max=2.0, **old)
        case("lower", "Clip", version, [x], [np.maximum(x, -1)], min=-1.0, **old)
        case("neither", "Clip", version, [x], [x], **old)
        # The slope goes with the channels.
        slope = arr(0.5, -2.0)
        want = where(x < 0, slope[:, None] * x, x)
        case("channels", "PRelu", version, [x, slope], [want], check=False, **old)
        case("one", "PRelu", version, [x, arr(0.25)], [where(x < 0, 0.25 * x, x)], **old)
    case("broadcast", "PRelu", 7, [x, arr([0.5], [-2.0])], [where(x < 0, arr([0.5], [-2.0]) * x, x)])
    case("trailing", "PRelu", 9, [x, arr(0.5, 1, 2)], [where(x < 0, arr(0.5, 1, 2) * x, x)])
    case("inputs", "Clip", 11, [x, np.float32(-1), np.float32(2)], [np.clip(x, -1, 2)])
    case("upper", "Clip", 11, [x, None, np.float32(2)], [np.minimum(x, 2)])
    case("whole", "Clip", 12, [i64(-5, 3, 9), np.int64(0), np.int64(4)], [i64(0, 3, 4)])
    case("above", "ThresholdedRelu", 10, [x], [where(x > 1, x, 0)])


def broadcasting():
    a, b = f(2, 3, 4), f(3, 4)
    arithmetic = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}
    for op, g in arithmetic.items():
        for version, old in ((1, {"consumed_inputs": [0, 0]}), (6, {})):
            case("same", op, version, [a, a + 9], [g(a, a + 9)], **old)
            case("trailing", op, version, [a, np.abs(b) + 1], [g(a, np.abs(b) + 1)], broadcast=1, check=False, **old)
            m = np.abs(f(3)) + 1
            case("middle", op, version, [a, m], [g(a, m[:, None])], broadcast=1, axis=1, check=False, **old)
            m = np.abs(f(2, 3)) + 1
            case("leading", op, version, [a, m], [g(a, m[..., None])], broadcast=1, axis=0, check=False, **old)
            case("one", op, version, [a, np.float32(4)], [g(a, 4)], broadcast=1, check=False, **old)
        m = np.abs(f(3, 1)) + 1
        case("numpy", op, 7, [a, m], [g(a, m)])
        case("numpy", op, 14, [m, a + 9], [g(m, a + 9)])
    p = np.abs(a) + 1
    e = arr(0, 1, 2)
    case("middle", "Pow", 1, [p, e], [p ** e[:, None]], broadcast=1, axis=1, check=False)
    case("numpy", "Pow", 7, [p, arr(0, 1, 2, 0.5)], [p ** arr(0, 1, 2, 0.5)])
    case("mixed", "Pow", 12, [p, i64(0, 1, 2, 3)], [p ** arr(0, 1, 2, 3)])
    t, u = a > 0, np.array([True, False, True])
    for op, g in (("And", np.logical_and), ("Or", np.logical_or), ("Xor", np.logical_xor)):
        case("middle", op, 1, [t, u], [g(t, u[:, None])], broadcast=1, axis=1, check=False)
        case("numpy", op, 7, [t, u[:, None]], [g(t, u[:, None])])
    for op, g in (("Less", np.less), ("Greater", np.greater), ("Equal", np.equal)):
        x = a if op != "Equal" else np.trunc(a).astype(np.int32)
        y = x[0, :, 1].copy()
        case("middle", op, 1, [x, y], [g(x, y[:, None])], broadcast=1, axis=1, check=False)
        case("numpy", op, 7, [x, y[:, None]], [g(x, y[:, None])])
    case("floats", "Equal", 11, [a, a[0]], [a == a[0]])
    for op, g in (("Sum", np.sum), ("Mean", np.mean), ("Max", np.max), ("Min", np.min)):
        x, y, z = f(2, 3), f(2, 3), f(3)
        case("same", op, 1, [x, y], [g([x, y], axis=0)], consumed_inputs=[0, 0])
        case("same", op, 6, [x, y, x], [g([x, y, x], axis=0)])
        case("numpy", op, 8, [x, z], [g([x, np.broadcast_to(z, (2, 3))], axis=0)])
    a, b, c = f(2, 3), f(3, 4), f(4)
    for version in (1, 6):
        case("row", "Gemm", version, [a, b, c], [a @ b + c], broadcast=1, check=False)
        case("whole", "Gemm", version, [a.T, b, f(2, 4) * 0 + 2], [0.5 * (a @ b) + 6], alpha=0.5, beta=3.0, transA=1)
    case("row", "Gemm", 7, [a, b, c], [a @ b + c])
    case("column", "Gemm", 9, [a, b.T, arr([1], [2])], [a @ b + arr([1], [2])], transB=1)
    case("no-c", "Gemm", 11, [a, b], [a @ b])
    case("whole-numbers", "MatMul", 9, [np.ones((2, 2), np.int32), np.full((2, 2), 3, np.int32)], [np.full((2, 2), 6, np.int32)])


def shapes():
    x = f(3, 4, 5)
    case("attributes", "Slice", 1, [x], [x[1:3, :, 1:-1]], axes=[0, 2], starts=[1, 1], ends=[1000, -1])
    case("all-axes", "Slice", 1, [x], [x[:2, 1:, -3:-1]], starts=[0, 1, -3], ends=[2, 2**31 - 1, -1])
    case("inputs", "Slice", 10, [x, i64(0), i64(3), i64(1)], [x[:, 0:3]])
    case("steps", "Slice", 10, [x, i64(-1, 4), i64(-1000, 0), i64(0, 2), i64(-1, -2)], [x[::-1, :, 4:0:-2]])
    case("negative-axes", "Slice", 11, [x, i64(1), i64(3), i64(-1)], [x[..., 1:3]])
    case("attribute", "Reshape", 1, [x], [x.reshape(3, 2, 10)], shape=[0, 2, -1], consumed_inputs=[0, 0])
    case("input", "Reshape", 5, [x, Const(i64(0, -1))], [x.reshape(3, 20)])
    case("zero-copied", "Reshape", 14, [np.zeros((0, 3), np.float32), i64(3, 0, 0)], [np.zeros((3, 0, 0), np.float32)], allowzero=1)
    s = f(1, 3, 1, 2)
    for version in (1, 11):
        case("attribute", "Squeeze", version, [s], [s[0]], axes=[0])
        case("all", "Squeeze", version, [s], [s[0, :, 0]])
        case("attribute", "Unsqueeze", version, [s[0]], [s], axes=[0])
    case("negative", "Squeeze", 11, [s], [s[:, :, 0]], axes=[-2])
    case("input", "Squeeze", 13, [s, i64(0, -2)], [s[0, :, 0]])
    case("input", "Unsqueeze", 13, [s, i64(-1, 1)], [s[:, None, ..., None]])
    a, b = f(2, 2), f(2, 3)
    case("default-axis", "Concat", 1, [a, b], [np.concatenate([a, b], 1)])
    case("axis", "Concat", 4, [a, a], [np.concatenate([a, a], 0)], axis=0)
    case("negative", "Concat", 11, [a, b], [np.concatenate([a, b], -1)], axis=-1)
    x = f(2, 6)
    case("default", "Split", 1, [x], [x[:1], x[1:]], check=False)
    case("input", "Split", 1, [x, arr(4, 2)], [x[:, :4], x[:, 4:]], axis=1, check=False)
    case("attribute", "Split", 1, [x], [x[:, :1], x[:, 1:]], axis=1, split=[1, 5], check=False)
    case("attribute", "Split", 2, [x], [x[:, :1], x[:, 1:]], axis=1, split=[1, 5])
    case("equal", "Split", 2, [x], [x[:, :2], x[:, 2:4], x[:, 4:]], axis=1)
    case("negative", "Split", 11, [x], [x[:, :3], x[:, 3:]], axis=-1)
    case("input", "Split", 13, [x, Const(i64(2, 4))], [x[:, :2], x[:, 2:]], axis=1)
    case("number", "Split", 18, [x[:, :5]], [x[:, :3], x[:, 3:5]], axis=1, num_outputs=2)
    x = f(2, 3)
    case("one-axis", "Tile", 1, [x, Const(arr(2)), Const(arr(1))], [np.tile(x, (1, 2))], check=False)
    case("repeats", "Tile", 6, [x, Const(i64(2, 3))], [np.tile(x, (2, 3))])
    pad = np.pad
    case("paddings", "Pad", 1, [x], [pad(x, ((1, 0), (0, 2)), constant_values=1.5)], paddings=[1, 0, 0, 2], value=1.5, check=False)
    case("edge", "Pad", 1, [x], [pad(x, ((1, 1), (0, 0)), "edge")], paddings=[1, 0, 1, 0], mode="edge", check=False)
    case("attributes", "Pad", 2, [x], [pad(x, ((0, 0), (1, 2)), constant_values=-1)], pads=[0, 1, 0, 2], value=-1.0)
    case("cut", "Pad", 2, [x], [pad(x[:, 1:], ((1, 0), (0, 0)))], pads=[1, -1, 0, 0])
    case("reflect", "Pad", 2, [x], [pad(x, ((0, 0), (2, 1)), "reflect")], pads=[0, 2, 0, 1], mode="reflect")
    case("inputs", "Pad", 11, [x, Const(i64(0, 1, 1, 0)), np.float32(3)], [pad(x, ((0, 1), (1, 0)), constant_values=3)])
    case("axes", "Pad", 18, [x, Const(i64(1, 2)), None, Const(i64(-1))], [pad(x, ((0, 0), (1, 2)))])
    case("wrap", "Pad", 19, [x, Const(i64(0, 1, 0, 2))], [pad(x, ((0, 0), (1, 2)), "wrap")], mode="wrap")
    t = f(2, 3, 2)
    case("default", "Flatten", 1, [t], [t.reshape(2, 6)])
    case("at-0", "Flatten", 9, [t], [t.reshape(1, 12)], axis=0)
    case("negative", "Flatten", 11, [t], [t.reshape(6, 2)], axis=-1)
    case("plain", "Gather", 1, [t, i64(0, 2, 0)], [t[:, [0, 2, 0]]], axis=1)
    case("negative", "Gather", 11, [t, i64(-1, 0)], [t[:, [2, 0]]], axis=1)
    case("whole", "Shape", 1, [t], [i64(2, 3, 2)])
    case("part", "Shape", 15, [t], [i64(3)], start=1, end=-1)
    data, at, new = f(3, 3), i64([1, 0, 2], [0, 2, 1]), f(2, 3)
    put = data.copy()
    np.put_along_axis(put, at, new, 0)
    case("rows", "Scatter", 9, [data, at, new], [put])
    case("rows", "ScatterElements", 11, [data, at, new], [put])
    add = data.copy()
    np.add.at(add, (at, np.arange(3)[None]), new)
    case("added", "ScatterElements", 16, [data, at, new], [add], reduction="add")
    hot = np.zeros((2, 4), np.float32)
    hot[0, 1] = hot[1, 3] = 1
    case("plain", "OneHot", 9, [i64(1, 3), np.int64(4), arr(0, 1)], [hot])
    case("negative", "OneHot", 11, [i64(1, -1), np.int64(4), arr(0, 1)], [hot])
    depth = f(1, 8, 1, 2)
    dcr = depth.reshape(1, 2, 2, 2, 1, 2).transpose(0, 3, 4, 1, 5, 2).reshape(1, 2, 2, 4)
    crd = depth.reshape(1, 2, 2, 2, 1, 2).transpose(0, 1, 4, 2, 5, 3).reshape(1, 2, 2, 4)
    case("plain", "DepthToSpace", 1, [depth], [dcr], blocksize=2)
    case("crd", "DepthToSpace", 11, [depth], [crd], blocksize=2, mode="CRD")
    case("back", "SpaceToDepth", 1, [dcr], [depth], blocksize=2)
    case("crd-back", "SpaceToDepth", 28, [crd], [depth], blocksize=2, mode="CRD", check=False)
    case("name", "Cast", 1, [arr(1.5, -2.7, 0)], [np.array([1, -2, 0], np.int32)], to="INT32", check=False)
    case("name", "Cast", 1, [arr(1.5, -2.7, 0)], [np.array([True, True, False])], to="BOOL", check=False)
    case("name", "Cast", 1, [i64(1, -2)], [np.array([1, -2], np.float64)], to="DOUBLE", check=False)
    case("number", "Cast", 6, [arr(1.5, -2.7, 0)], [i64(1, -2, 0)], to=7)
    case("text", "Cast", 9, [i64(12, -3)], [np.array(["12", "-3"], object)], to=8)


def reductions():
    x = f(2, 3, 4)
    for op, g in (
        ("ReduceSum", np.sum),
        ("ReduceMean", np.mean),
        ("ReduceMax", np.max),
        ("ReduceMin", np.min),
        ("ReduceL1", lambda x, **k: np.abs(x).sum(**k)),
        ("ReduceSumSquare", lambda x, **k: (x * x).sum(**k)),
        ("ReduceLogSumExp", lambda x, **k: np.log(np.exp(x).sum(**k))),
    ):
        case("attribute", op, 1, [x], [g(x, axis=1, keepdims=True)], axes=[1])
        case("all", op, 1, [x], [np.asarray(g(x, axis=None))], keepdims=0)
        case("negative", op, 11, [x], [g(x, axis=(-1, 0))], axes=[-1, 0], keepdims=0)
        inputs = 13 if op == "ReduceSum" else 18
        case("input", op, inputs, [x, Const(i64(-1))], [g(x, axis=-1, keepdims=True)])
        case("nothing", op, inputs, [x, Const(np.zeros(0, np.int64))], [x if op != "ReduceLogSumExp" else np.log(np.exp(x))] if op not in ("ReduceL1", "ReduceSumSquare") else [np.abs(x) if op == "ReduceL1" else x * x], noop_with_empty_axes=1, check=False)
    same = arr([1, 5, 5], [2, 2, 0])
    for op, g in (("ArgMax", np.argmax), ("ArgMin", np.argmin)):
        case("first", op, 1, [same], [g(same, 1)], axis=1, keepdims=0)
        case("negative", op, 11, [same], [g(same, -1)[:, None]], axis=-1)
    case("last", "ArgMax", 12, [same], [i64([2], [1])], axis=1, select_last_index=1)
    t = arr([1, 4, 3, 2], [8, 5, 6, 7])
    best = i64([1, 2], [0, 3])
    case("attribute", "TopK", 1, [t], [np.take_along_axis(t, best, 1), best], k=2)
    case("input", "TopK", 10, [t, Const(i64(2))], [np.take_along_axis(t, best, 1), best])
    least = i64([0, 3], [1, 2])
    case("least", "TopK", 11, [t, Const(i64(2))], [np.take_along_axis(t, least, 1), least], largest=0)
    c = f(2, 3)
    case("plain", "CumSum", 11, [c, np.int64(1)], [c.cumsum(1)])
    case("negative", "CumSum", 14, [c, np.int64(-1)], [c.cumsum(1)])
    y = f(2, 2, 3)
    m = y - y.mean((0, 2), keepdims=True)
    y4, m4 = y[..., None], m[..., None]
    want = m4 / np.sqrt((m4**2).mean((0, 2, 3), keepdims=True) + 1e-9)
    case("default", "MeanVarianceNormalization", 9, [y4], [want])


def normalisation():
    x, scale, bias, mean, var = f(2, 3, 2, 2), f(3), f(3), f(3), np.abs(f(3)) + 1
    c = lambda v: v.reshape(1, 3, 1, 1)
    want = (x - c(mean)) / np.sqrt(c(var) + np.float32(1e-5)) * c(scale) + c(bias)
    all_ = [x, scale, bias, mean, var]
    case("test", "BatchNormalization", 1, all_, [want], is_test=1, consumed_inputs=[0, 0, 0, 1, 1], check=False)
    case("test", "BatchNormalization", 6, all_, [want], is_test=1, check=False)
    case("plain", "BatchNormalization", 7, all_, [want])
    case("plain", "BatchNormalization", 9, all_, [want])
    case("plain", "BatchNormalization", 15, all_, [want])
    s, b, m, v = f(3, 2, 2), f(3, 2, 2), f(3, 2, 2), np.abs(f(3, 2, 2)) + 1
    want = (x - m) / np.sqrt(v + np.float32(1e-5)) * s + b
    case("each-place", "BatchNormalization", 7, [x, s, b, m, v], [want], spatial=0)
    case("each-place", "BatchNormalization", 6, [x, s, b, m, v], [want], spatial=0, is_test=1, check=False)
    d = x - x.mean((2, 3), keepdims=True)
    want = d / np.sqrt((d**2).mean((2, 3), keepdims=True) + np.float32(1e-5)) * c(scale) + c(bias)
    case("consumed", "InstanceNormalization", 1, [x, scale, bias], [want], consumed_inputs=[0, 0, 0], check=False)
    case("plain", "InstanceNormalization", 6, [x, scale, bias], [want])
    x = f(2, 4, 3)
    g = x.reshape(2, 2, 6)
    d = g - g.mean(2, keepdims=True)
    norm = (d / np.sqrt((d**2).mean(2, keepdims=True) + np.float32(1e-5))).reshape(x.shape)
    s, b = arr(2, 3), arr(1, -1)
    case("a-group", "GroupNormalization", 18, [x, s, b], [norm * s.repeat(2)[:, None] + b.repeat(2)[:, None]], num_groups=2, check=False)
    s, b = arr(2, 3, 4, 5), arr(1, -1, 0, 2)
    case("a-channel", "GroupNormalization", 21, [x, s, b], [norm * s[:, None] + b[:, None]], num_groups=2)
    case("test", "Dropout", 1, [x], [x], is_test=1, ratio=0.3, consumed_inputs=[0], check=False)
    case("test", "Dropout", 6, [x], [x], is_test=1, check=False)
    case("plain", "Dropout", 7, [x], [x], ratio=0.3)
    # onnxruntime gives a mask of False here, though it keeps every element.
    case("masked", "Dropout", 10, [x], [x, np.ones(x.shape, bool)], ratio=0.3, check=False)
    case("inputs", "Dropout", 12, [x, np.float32(0.3)], [x, np.ones(x.shape, bool)])


def windows():
    x = f(1, 2, 4, 4)
    tiles = lambda x: x.reshape(1, 2, 2, 2, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(1, 2, 2, 2, 4)
    k = {"kernel_shape": [2, 2], "strides": [2, 2]}
    best = tiles(x).max(-1)
    case("plain", "MaxPool", 1, [x], [best], **k)
    x = np.arange(32, dtype=np.float32).reshape(1, 2, 4, 4)
    rows = np.arange(32).reshape(1, 2, 4, 4)[:, :, 1::2, 1::2]
    columns = (np.arange(2)[:, None, None] * 16 + np.arange(4)[None, :, None] + np.arange(4)[None, None] * 4)[None][:, :, 1::2, 1::2]
    case("places", "MaxPool", 8, [x], [x[:, :, 1::2, 1::2], rows.astype(np.int64)], **k)
    case("columns-first", "MaxPool", 8, [x], [x[:, :, 1::2, 1::2], columns.astype(np.int64)], storage_order=1, **k)
    odd = x[:, :, :3, :3].copy()
    case("ceiling", "MaxPool", 10, [odd], [odd[:, :, [1, 2]][..., [1, 2]]], ceil_mode=1, **k)
    case("dilated", "MaxPool", 10, [x], [x[:, :, 2:, 2:]], kernel_shape=[2, 2], dilations=[2, 2])
    whole = x.astype(np.int8)
    case("int8", "MaxPool", 12, [whole], [whole[:, :, 1::2, 1::2]], **k)
    p = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    ones = np.pad(np.ones_like(x), ((0, 0), (0, 0), (1, 1), (1, 1)))
    sums = lambda v: sum(v[:, :, i : i + 4, j : j + 4] for i in range(3) for j in range(3))
    k3 = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    case("no-padding", "AveragePool", 1, [x], [sums(p) / sums(ones)], **k3)
    case("padding", "AveragePool", 7, [x], [sums(p) / 9], count_include_pad=1, **k3)
    o = odd
    mean = np.stack([np.stack([o[:, :, a, b].mean((2, 3)) for b in (slice(0, 2), slice(2, 3))], -1) for a in (slice(0, 2), slice(2, 3))], -2)
    case("ceiling", "AveragePool", 10, [odd], [mean], ceil_mode=1, **k)
    d = (x[:, :, :2, :2] + x[:, :, 2:, :2] + x[:, :, :2, 2:] + x[:, :, 2:, 2:]) / 4
    case("dilated", "AveragePool", 19, [x], [d], kernel_shape=[2, 2], dilations=[2, 2])
    y = f(1, 2, 4, 4)
    root = lambda p: (np.abs(tiles(y)) ** p).sum(-1) ** (1 / p)
    case("float-p", "LpPool", 1, [y], [root(3)], p=3.0, check=False, **k)
    case("default", "LpPool", 2, [y], [root(2)], **k)
    case("p", "LpPool", 11, [y], [root(1)], p=1, **k)
    flat = lambda p: (np.abs(y) ** p).sum((2, 3), keepdims=True) ** (1 / p)
    case("float-p", "GlobalLpPool", 1, [y], [flat(3)], p=3.0, check=False)
    case("p", "GlobalLpPool", 2, [y], [flat(3)], p=3)
    up = y.repeat(2, 2).repeat(3, 3)
    case("sides", "Upsample", 1, [y], [up], height_scale=2.0, width_scale=3.0, mode="nearest", check=False)
    case("attribute", "Upsample", 7, [y], [up], scales=[1.0, 1.0, 2.0, 3.0])
    case("input", "Upsample", 9, [y, Const(arr(1, 1, 2, 3))], [up])
    case("input", "Resize", 10, [y, Const(arr(1, 1, 2, 3))], [up])
    half = arr(0, 0.5, 1, 1.5, 2, 2.5, 3, 3)
    line = arr([[1, 3, 2, 7]])
    places = np.interp(half, np.arange(4), line[0, 0])[None, None].astype(np.float32)
    case("linear", "Upsample", 7, [line[..., None]], [places[..., None]], scales=[1.0, 1.0, 2.0, 1.0], mode="linear")
    case("linear", "Resize", 10, [line[..., None], Const(arr(1, 1, 2, 1))], [places[..., None]], mode="linear")
    down = y[:, :, ::2, ::2]
    case("down", "Resize", 10, [y, Const(arr(1, 1, 0.5, 0.5))], [down])
    centre = np.interp(np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3), np.arange(4), line[0, 0])[None, None, :, None]
    case("centres", "Resize", 11, [line[..., None], Const(np.zeros(0, np.float32)), Const(arr(1, 1, 2, 1))], [centre.astype(np.float32)], mode="linear")
    case("no-roi", "Resize", 13, [line[..., None], None, None, Const(i64(1, 1, 8, 1))], [centre.astype(np.float32)], mode="linear")
    case("axes", "Resize", 18, [line[..., None], None, None, Const(i64(8))], [centre.astype(np.float32)], mode="linear", axes=[2])
    roi, pic = arr([1, 1, 4, 3]), f(1, 1, 5, 5)

    def align(shift):
        out = np.zeros((1, 1, 1, 1))
        x0, y0, x1, y1 = roi[0] - shift
        for py in range(2):
            for px in range(2):
                yy, xx = y0 + (py + 0.5) * (y1 - y0) / 2, x0 + (px + 0.5) * (x1 - x0) / 2
                iy, ix = int(yy), int(xx)
                a, b = yy - iy, xx - ix
                q = pic[0, 0]
                out += (1 - a) * (1 - b) * q[iy, ix] + (1 - a) * b * q[iy, ix + 1] + a * (1 - b) * q[iy + 1, ix] + a * b * q[iy + 1, ix + 1]
        return (out / 4).astype(np.float32)

    case("whole-pixels", "RoiAlign", 10, [pic, roi, i64(0)], [align(0)], sampling_ratio=2)
    case("half-pixels", "RoiAlign", 16, [pic, roi, i64(0)], [align(0.5)], sampling_ratio=2)
    case("plain", "MaxRoiPool", 1, [pic, arr([0, 1, 1, 3, 4])], [pic[:, :, 1:5, 1:4].max((2, 3), keepdims=True)], pooled_shape=[1, 1])


def recurrent():
    sig = lambda v: 1 / (1 + np.exp(-v))
    x, w, r = f(3, 2, 4) / 4, f(1, 3, 4) / 4, f(1, 3, 3) / 4

    def rnn():
        h, out = np.zeros((2, 3)), []
        for t in x:
            h = np.tanh(t @ w[0].T + h @ r[0].T)
            out.append(h)
        return np.stack(out)[:, None].astype(np.float32)

    y = rnn()
    case("sequence", "RNN", 1, [x, w, r], [y, y[-1]], hidden_size=3, output_sequence=1, check=False)
    case("last", "RNN", 1, [x, w, r], [None, y[-1]], hidden_size=3, check=False)
    case("plain", "RNN", 7, [x, w, r], [y, y[-1]], hidden_size=3)
    case("batch-first", "RNN", 14, [x.swapaxes(0, 1), w, r], [y.transpose(2, 0, 1, 3), y[-1].swapaxes(0, 1)], hidden_size=3, layout=1, check=False)
    w, r, b = f(1, 9, 4) / 4, f(1, 9, 3) / 4, f(1, 18) / 4
    wz, wr, wh = np.split(w[0], 3)
    rz, rr, rh = np.split(r[0], 3)
    bz, br, bh, cz, cr, ch = np.split(b[0], 6)

    def gru(after):
        h, out = np.zeros((2, 3)), []
        for t in x:
            z = sig(t @ wz.T + h @ rz.T + bz + cz)
            q = sig(t @ wr.T + h @ rr.T + br + cr)
            n = np.tanh(t @ wh.T + q * (h @ rh.T + ch) + bh) if after else np.tanh(t @ wh.T + (q * h) @ rh.T + ch + bh)
            h = (1 - z) * n + z * h
            out.append(h)
        return np.stack(out)[:, None].astype(np.float32)

    y = gru(False)
    case("plain", "GRU", 1, [x, w, r, b], [y, y[-1]], hidden_size=3, output_sequence=1, check=False)
    case("plain", "GRU", 7, [x, w, r, b], [y, y[-1]], hidden_size=3)
    y = gru(True)
    case("reset-after", "GRU", 3, [x, w, r, b], [y, y[-1]], hidden_size=3, linear_before_reset=1, output_sequence=1, check=False)
    case("reset-after", "GRU", 7, [x, w, r, b], [y, y[-1]], hidden_size=3, linear_before_reset=1)
    w, r = f(1, 12, 4) / 4, f(1, 12, 3) / 4
    h, c, out = np.zeros((2, 3)), np.zeros((2, 3)), []
    for t in x:
        i, o, g, n = np.split(t @ w[0].T + h @ r[0].T, 4, 1)
        c = sig(g) * c + sig(i) * np.tanh(n)
        h = sig(o) * np.tanh(c)
        out.append(h)
    y, c = np.stack(out)[:, None].astype(np.float32), c[None].astype(np.float32)
    case("plain", "LSTM", 1, [x, w, r], [y, y[-1], c], hidden_size=3, output_sequence=1, check=False)
    case("plain", "LSTM", 7, [x, w, r], [y, y[-1], c], hidden_size=3)


def others():
    case("float", "Constant", 12, [], [np.float32(1.5)], value_float=1.5)
    case("ints", "Constant", 12, [], [i64(3, -1)], value_ints=[3, -1])
    case("floats", "Constant", 13, [], [arr(0.5, 2)], value_floats=[0.5, 2.0])
    case("text", "Constant", 12, [], [np.array("word", object)], value_string="word")
    x = f(3, 4)
    keep = np.array([True, False, True])
    case("axis", "Compress", 9, [x, keep], [x[keep]], axis=0)
    case("flat", "Compress", 9, [x, keep], [x.reshape(-1)[:3][keep]])
    case("negative", "Compress", 11, [x, keep], [x[:, :3][:, keep]], axis=-1)
    odd = arr(np.inf, -np.inf, 1, np.nan)
    case("both", "IsInf", 10, [odd], [np.isinf(odd)])
    case("one", "IsInf", 20, [odd], [odd == -np.inf], detect_positive=0)
    case("plain", "IsNaN", 9, [odd], [np.isnan(odd)])
    a, b = i64(7, -7, 7, -7), i64(3, 3, -3, -3)
    case("floor", "Mod", 10, [a, b], [np.mod(a, b)])
    case("c", "Mod", 10, [a, b], [np.fmod(a, b)], fmod=1)
    case("floats", "Mod", 13, [x, np.float32(1.5)], [np.fmod(x, np.float32(1.5))], fmod=1)
    y = f(1, 4, 2, 2)
    pads = np.pad(y**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    squares = sum(pads[:, i : i + 4] for i in range(3))
    case("plain", "LRN", 1, [y], [y / (1 + np.float32(0.5) / 3 * squares) ** 0.75], size=3, alpha=0.5, beta=0.75, bias=1.0)
    case("l2", "LpNormalization", 1, [x + 9], [(x + 9) / np.sqrt(((x + 9) ** 2).sum(-1, keepdims=True))])
    case("l1", "LpNormalization", 1, [x + 9], [(x + 9) / np.abs(x + 9).sum(0, keepdims=True)], axis=0, p=1)
    case("plain", "Softplus", 1, [x], [np.log1p(np.exp(x))])
    case("plain", "Softsign", 1, [x], [x / (1 + np.abs(x))])
    case("plain", "Not", 1, [keep], [~keep])
    case("plain", "Identity", 1, [x], [x])
    case("plain", "Transpose", 1, [x], [x.T])
    case("plain", "Size", 1, [x], [np.int64(12)])
    case("plain", "Expand", 8, [x[:, :1], Const(i64(2, 1, 4))], [np.broadcast_to(x[:, :1], (2, 3, 4))])
    case("plain", "Where", 9, [keep[:, None], x, np.float32(0)], [np.where(keep[:, None], x, 0)])
    case("plain", "NonZero", 9, [x], [np.array(np.nonzero(x), np.int64)])
    w = f(1, 1, 2, 2)
    z = f(1, 1, 2, 2)
    full = np.zeros((1, 1, 4, 4), np.float32)
    for i in range(2):
        for j in range(2):
            full[0, 0, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] += z[0, 0, i, j] * w[0, 0]
    case("plain", "ConvTranspose", 1, [z, w], [full], strides=[2, 2])
    wide = np.pad(full, ((0, 0), (0, 0), (0, 1), (0, 1)))
    case("more", "ConvTranspose", 11, [z, w], [wide], strides=[2, 2], output_padding=[1, 1])
    for version in (1, 11):
        c = sum(y[:, :1, i : i + 1, j : j + 1] * w[:, :, i : i + 1, j : j + 1] for i in range(2) for j in range(2))
        case("plain", "Conv", version, [y[:, :1].copy(), w], [c])
    seq = np.arange(12, dtype=np.float32).reshape(4, 3)
    back = seq.copy()
    for batch, n in enumerate((1, 3, 4)):
        back[:n, batch] = seq[:n, batch][::-1]
    case("time-first", "ReverseSequence", 10, [seq, i64(1, 3, 4)], [back])
    case("plain", "EyeLike", 9, [np.zeros((2, 3), np.float32)], [np.eye(2, 3, 1, dtype=np.float32)], k=1)
    for kind in (np.int32, np.int64, np.float64):
        v = np.array([[1, 2], [3, 4]], kind)
        case(f"{v.dtype.name}", "Add", 6, [v, v], [v + v], check=False)
        case(f"{v.dtype.name}", "Mul", 7, [v, v[0]], [v * v[0]])
    best = np.array([[0, 0, 1, 1], [0, 0, 1, 1.1], [5, 5, 6, 6]], np.float32)[None]
    scores = arr([[0.9, 0.75, 0.6]])
    case("plain", "NonMaxSuppression", 10, [best, scores, i64(3), arr(0.5), arr(0.0)], [i64([0, 0, 0], [0, 0, 2])])


if __name__ == "__main__":
    for make in (activations, broadcasting, shapes, reductions, normalisation, windows, recurrent, others):
        make()
    for module in (versions, graphs, learning, suite):
        module.make()
    print("\n".join(lines.DIFFER))
    if "--check" in sys.argv:
        lines.check("-v" in sys.argv)
    else:
        (ROOT / "tests" / "opsets.txt").write_text(lines.text())
        print(f"tests/opsets.txt: {len(lines.CASES)} cases")
