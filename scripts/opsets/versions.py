"""Operators whose meaning hangs on their version, beyond what `make_opsets.py` has by formula: asked of the other engines, or by
formula where they are known to differ from the standard."""

import struct
import zlib

import numpy as np
import onnx
from onnx import TensorProto, helper

from .lines import Any, Const, Typed, asked, case

rng = np.random.default_rng(11)


def f(*shape):
    return (rng.integers(-40, 41, shape) / 8).astype(np.float32)


def arr(*values, dtype=np.float32):
    return np.array(values, dtype)


def i64(*values):
    return np.array(values, np.int64)


def reductions():
    x = f(2, 3, 2)
    low = np.abs(x) + np.float32(0.5)
    sums = {
        "ReduceSum": lambda v, **k: v.sum(**k),
        "ReduceMean": lambda v, **k: v.mean(**k),
        "ReduceL1": lambda v, **k: np.abs(v).sum(**k),
        "ReduceL2": lambda v, **k: np.sqrt((v * v).sum(**k)),
        "ReduceLogSum": lambda v, **k: np.log(v.sum(**k)),
        "ReduceLogSumExp": lambda v, **k: np.log(np.exp(v).sum(**k)),
        "ReduceMax": lambda v, **k: v.max(**k),
        "ReduceMin": lambda v, **k: v.min(**k),
        "ReduceProd": lambda v, **k: v.prod(**k),
        "ReduceSumSquare": lambda v, **k: (v * v).sum(**k),
    }
    for op, g in sums.items():
        for version in (1, 11, 13) if op != "ReduceSum" else (1, 11):
            case("attribute", op, version, [low], [g(low, axis=(0, 2), keepdims=False)], axes=[0, 2], keepdims=0)
            case("kept", op, version, [low], [g(low, axis=1, keepdims=True)], axes=[1])
        if op in ("ReduceMax", "ReduceMin"):
            case("attribute", op, 12, [low], [g(low, axis=-1, keepdims=True)], axes=[-1])
            case("int8", op, 12, [low.astype(np.int8)], [g(low.astype(np.int8), axis=0, keepdims=True)], axes=[0])
            t = x > 0
            case("bool", op, 20, [t, Const(i64(1))], [g(t, axis=1, keepdims=True)])
        case("input", op, 18 if op != "ReduceSum" else 13, [low, i64(2, 0)], [g(low, axis=(0, 2), keepdims=False)], keepdims=0)
        case("all", op, 18 if op != "ReduceSum" else 13, [low], [g(low, axis=None, keepdims=True)])
        if op in ("ReduceLogSum", "ReduceLogSumExp"):
            case("input", op, 28, [low, i64(-1)], [g(low, axis=-1, keepdims=True)])


def movement():
    x = f(3, 4, 2)
    case("int32", "Slice", 13, [x, arr(-1, dtype=np.int32), arr(-5, dtype=np.int32), arr(0, dtype=np.int32), arr(-1, dtype=np.int32)], [x[::-1]])
    case("bfloat16", "Slice", 13, [x.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)), i64(1), i64(9)], [x.astype(helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16))[1:]])
    y = f(3, 5)
    case("both", "CenterCropPad", 18, [y, Const(i64(5, 2))], [np.pad(y, ((1, 1), (0, 0)))[:, 1:3]])
    case("axes", "CenterCropPad", 18, [y, Const(i64(2))], [y[:, 1:3]], axes=[-1])
    c = f(2, 3)
    for version in (11, 14):
        case("exclusive", "CumSum", version, [c, np.int64(1)], [np.pad(c, ((0, 0), (1, 0)))[:, :3].cumsum(1)], exclusive=1)
        case("reverse", "CumSum", version, [c, np.int32(0)], [c[::-1].cumsum(0)[::-1]], reverse=1)
        case("both", "CumSum", version, [c, np.int64(-1)], [np.pad(c, ((0, 0), (0, 1)))[:, 1:][:, ::-1].cumsum(1)[:, ::-1]], exclusive=1, reverse=1)
    t = arr([3, 3, 1, 7], [0, 2, 2, 2])
    for version in (11, 24):
        asked("unsorted-axis", "TopK", version, [t, Const(i64(1))], 2, axis=0)
        asked("ties", "TopK", version, [t, Const(i64(3))], 2, axis=1, largest=1, sorted=1)
    for version in (9, 11):
        asked("axis-0", "OneHot", version, [i64([1, 3], [0, 9]), arr(4), arr(-1, 2)], axis=0)
    for op in ("ArgMax", "ArgMin"):
        for version in (12, 13):
            best = t.argmax(1) if op == "ArgMax" else t.argmin(1)
            last = (3 - t[:, ::-1].argmax(1)) if op == "ArgMax" else (3 - t[:, ::-1].argmin(1))
            case("first", op, version, [t], [best[:, None]], axis=1)
            case("last", op, version, [t], [last], axis=-1, keepdims=0, select_last_index=1)
    for version in (11, 28):
        a, b = np.array([1, 128, 255], np.uint8), np.array([7, 1, 0], np.uint8)
        asked("left", "BitShift", version, [a, b], direction="LEFT")
        asked("right", "BitShift", version, [a, b], direction="RIGHT")
    boxes = arr([[0, 0, 1, 1], [0, 0.1, 1, 1.1], [0, 10, 1, 11], [0, 10.1, 1, 11.1]])
    scores = arr([[0.5, 0.75, 0.95, 0.6], [0.9, 0.2, 0.1, 0.8]])
    for version in (10, 11):
        asked("classes", "NonMaxSuppression", version, [boxes, scores[None].reshape(1, 2, 4), i64(2), arr(0.5), arr(0.3)])
        asked("centres", "NonMaxSuppression", version, [arr([[0.5, 0.5, 1, 1], [0.5, 0.6, 1, 1], [0.5, 10.5, 1, 1]]), arr([[0.9, 0.75, 0.6]]), i64(3), arr(0.5)], center_point_box=1)
    for version in (13, 18, 19, 21):
        asked("wrap" if version > 18 else "reflect", "Pad", version, [f(2, 4), Const(i64(0, 2, 1, 1))], mode="wrap" if version > 18 else "reflect")
    data, at, new = f(4, 2), i64([0], [2], [0]), f(3, 2)
    for version, name in ((16, "add"), (16, "mul"), (18, "max"), (18, "min")):
        asked(name, "ScatterND", version, [data, at, new], reduction=name)
        asked(name, "ScatterElements", version, [data, i64([1, 0], [1, 0]), new[:2]], reduction=name)
    asked("batch", "GatherND", 12, [f(2, 3, 2), i64([2], [0])], batch_dims=1)
    asked("int32", "Range", 11, [np.int32(10), np.int32(4), np.int32(-2)])
    seq = f(3, 4)
    asked("batch-first", "ReverseSequence", 10, [seq, i64(1, 4, 2)], batch_axis=0, time_axis=1)
    asked("sorted", "Unique", 11, [arr(2, 1, 1, 3, 4, 3)], 4)
    asked("unsorted", "Unique", 11, [arr(2, 1, 1, 3, 4, 3)], 4, sorted=0)
    asked("axis", "Unique", 11, [arr([1, 0], [1, 0], [2, 3])], 4, axis=0)
    for op in ("DepthToSpace", "SpaceToDepth"):
        asked("13", op, 13, [f(1, 4, 2, 2)], blocksize=2)


def narrow():
    """Casts and quantisation."""
    x = arr(0.1, 500, -500, 1e6, np.inf, -np.inf, np.nan, -0.0)
    f8 = {"e4m3fn": TensorProto.FLOAT8E4M3FN, "e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ, "e5m2": TensorProto.FLOAT8E5M2, "e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ}
    for version in (19, 21, 23, 24, 25, 28):
        for name, to in f8.items():
            for saturate in (0, 1) if version == 19 else (0,):
                asked(f"{name}-saturate-{saturate}", "Cast", version, [x], to=to, saturate=saturate)
    for version in (19, 21):
        like = np.zeros(1, helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E5M2))
        asked("like-saturate-0", "CastLike", version, [x, like], saturate=0)
    text = np.array(["1.5", "-3", "NaN", "INF", "1e3"], object)
    for version in (9, 13, 19):
        asked("from-text", "Cast", version, [text], to=1)
    y, scale, zero = f(2, 4), arr(0.5, 0.25), np.array([3, 250], np.uint8)
    whole = np.float32(0.5)
    for version in (10, 13, 19, 21, 23, 24, 25):
        asked("one-scale", "QuantizeLinear", version, [y, whole, np.uint8(128)])
        asked("int8", "QuantizeLinear", version, [y * 100, whole, np.int8(-3)])
        asked("one-scale", "DequantizeLinear", version, [(y * 8).astype(np.int8), whole, np.int8(-3)])
        asked("no-zero", "DequantizeLinear", version, [(y * 900).astype(np.int32), whole])
        if version >= 13:
            asked("axis", "QuantizeLinear", version, [y, scale, zero], axis=0)
            asked("negative-axis", "DequantizeLinear", version, [(y + 5).astype(np.uint8), scale, zero], axis=-2)
    for version in (19,):
        for saturate in (0, 1):
            z = np.zeros((), helper.tensor_dtype_to_np_dtype(TensorProto.FLOAT8E4M3FN))
            asked(f"float8-saturate-{saturate}", "QuantizeLinear", version, [arr(1, 2000, -3000, 7), np.float32(2), z], saturate=saturate)
        asked("half", "QuantizeLinear", version, [y.astype(np.float16), np.float16(0.5), np.int8(1)])
    blocks = arr([0.5, 0.25], [1, 2])
    for version in (21, 23, 24, 25):
        asked("blocks", "QuantizeLinear", version, [y, blocks, np.array([[1, 2], [3, 4]], np.uint8)], axis=1, block_size=2)
        asked("blocks", "DequantizeLinear", version, [(y + 5).astype(np.uint8), blocks, np.array([[1, 2], [3, 4]], np.uint8)], axis=1, block_size=2)
        asked("output-type", "QuantizeLinear", version, [y, whole], output_dtype=int(TensorProto.INT16))
    a, b = rng.integers(0, 50, (2, 3)).astype(np.uint8), rng.integers(0, 50, (3, 2)).astype(np.uint8)
    for version in (10, 21):
        rest = [np.float32(0.05), np.uint8(10), b, np.float32(0.04), np.uint8(20), np.float32(0.1), np.uint8(100)]
        asked("one-scale", "QLinearMatMul", version, [a, *rest])
    asked("zeros", "MatMulInteger", 10, [a, b, np.uint8(10), np.uint8(20)])
    pic, w = rng.integers(0, 60, (1, 1, 3, 3)).astype(np.uint8), rng.integers(0, 60, (2, 1, 2, 2)).astype(np.uint8)
    asked("zero", "ConvInteger", 10, [pic, w, np.uint8(7)])
    asked("bias", "QLinearConv", 10, [pic, np.float32(0.05), np.uint8(9), w, arr(0.04, 0.04), np.array([30, 30], np.uint8), np.float32(0.2), np.uint8(80), np.array([3, -200], np.int32)])
    asked("positive", "DynamicQuantizeLinear", 11, [np.abs(f(3)) + 1], 3)
    asked("negative", "DynamicQuantizeLinear", 11, [-np.abs(f(3)) - 1], 3)


def training():
    x, scale, bias, mean, var = f(2, 3, 2), f(3), f(3), f(3), np.abs(f(3)) + 1
    c = lambda v: v.reshape(1, 3, 1)
    m, v = x.mean((0, 2)), x.var((0, 2))
    y = (x - c(m)) / np.sqrt(c(v) + 1e-5) * c(scale) + c(bias)
    keep = 0.75
    running = [mean * keep + m * (1 - keep), var * keep + v * (1 - keep)]
    all_ = [x, scale, bias, mean, var]
    for version in (1, 6, 7, 9):
        old = {"consumed_inputs": [0, 0, 0, 1, 1]} if version == 1 else {}
        case("training", "BatchNormalization", version, all_, [y, *running, m, v], momentum=keep, check=False, **old)
    for version in (14, 15):
        case("training", "BatchNormalization", version, all_, [y, *running], momentum=keep, training_mode=1)
        case("inference", "BatchNormalization", version, all_, [(x - c(mean)) / np.sqrt(c(var) + np.float32(1e-5)) * c(scale) + c(bias)])
    half = [x.astype(np.float16), scale.astype(np.float16), bias.astype(np.float16), mean, var]
    mixed = (half[0].astype(np.float32) - c(mean)) / np.sqrt(c(var) + 1e-5) * c(scale) + c(bias)
    case("mixed", "BatchNormalization", 15, half, [mixed.astype(np.float16)], check=False)
    on = np.ones(x.shape, bool)
    for version in (1, 6):
        old = {"consumed_inputs": [0]} if version == 1 else {}
        case("mask", "Dropout", version, [x], [x, np.ones_like(x)], is_test=1, check=False, **old)
    case("mask", "Dropout", 7, [x], [x, np.ones_like(x)], check=False)
    for version in (12, 13, 22):
        case("inference", "Dropout", version, [x, np.float32(0.5), np.bool_(False)], [x, on])
        case("none-dropped", "Dropout", version, [x, np.float32(0), np.bool_(True)], [x, on], seed=3)
        case("training", "Dropout", version, [x, np.float32(0.5), np.bool_(True)], [Any(x), Any(on)], seed=3, check=False)
    for version in (12, 13):
        asked("weights", "SoftmaxCrossEntropyLoss", version, [f(2, 3), i64(2, 0), arr(0.5, 1, 2)], 2, reduction="sum")
        asked("ignored", "SoftmaxCrossEntropyLoss", version, [f(3, 3), i64(2, 0, 1)], ignore_index=0)
    for version in (12, 13, 22):
        asked("weights", "NegativeLogLikelihoodLoss", version, [f(2, 3), i64(2, 0), arr(0.5, 1, 2)], reduction="mean")


def pictures():
    x = f(1, 1, 5, 5)
    k = {"kernel_shape": [2, 2], "strides": [2, 2]}
    for version in (8, 10, 11, 12, 22):
        asked("places", "MaxPool", version, [x], 2, **k)
        asked("columns-first", "MaxPool", version, [x], 2, storage_order=1, **k)
    for version in (10, 11, 12, 22):
        asked("dilated", "MaxPool", version, [x], 2, kernel_shape=[2, 2], dilations=[2, 3], pads=[1, 0, 0, 1])
        asked("ceiling", "MaxPool", version, [x], ceil_mode=1, **k)
        asked("same", "MaxPool", version, [x], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER")
    for version in (7, 10, 11, 19, 22):
        asked("padding", "AveragePool", version, [x], kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    for version in (10, 11, 19, 22):
        asked("ceiling", "AveragePool", version, [f(1, 1, 4, 4)], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    for version in (19, 22):
        asked("dilated", "AveragePool", version, [x], kernel_shape=[2, 2], dilations=[2, 2], pads=[0, 1, 1, 0])
    for version in (2, 11, 18, 22):
        asked("padded", "LpPool", version, [x], kernel_shape=[2, 2], pads=[1, 1, 0, 0], p=3)
    for version in (18, 22):
        asked("dilated", "LpPool", version, [x], kernel_shape=[2, 2], dilations=[2, 2], ceil_mode=1, strides=[2, 2])
    case("p", "GlobalLpPool", 22, [x], [(np.abs(x) ** 3).sum((2, 3), keepdims=True) ** (1 / 3)], p=3)
    case("plain", "MaxRoiPool", 22, [x, arr([0, 1, 1, 3, 4])], [x[:, :, 1:5, 1:4].max((2, 3), keepdims=True)], pooled_shape=[1, 1])
    for version in (9, 11, 22):
        asked("back", "MaxUnpool", version, [arr([[[1, 2], [3, 4]]]), i64([[[0, 3], [9, 15]]])], kernel_shape=[2, 2], strides=[2, 2])
    y = f(1, 4, 2, 2)
    pads = np.pad(y**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    case("plain", "LRN", 13, [y], [y / (1 + np.float32(0.5) / 3 * sum(pads[:, i : i + 4] for i in range(3))) ** 0.75], size=3, alpha=0.5)
    d = y - y.mean((1, 2), keepdims=True)
    case("axes", "MeanVarianceNormalization", 13, [y], [d / np.sqrt((d**2).mean((1, 2), keepdims=True) + 1e-9)], axes=[1, 2])
    for version in (1, 11, 22):
        asked("same", "Conv", version, [x, f(2, 1, 3, 3), f(2)], auto_pad="SAME_UPPER", strides=[2, 2])
        asked("valid", "Conv", version, [x, f(1, 1, 2, 2)], auto_pad="VALID", dilations=[2, 1])
        asked("shape", "ConvTranspose", version, [f(1, 2, 2, 2), f(2, 1, 3, 3)], output_shape=[5, 4], strides=[2, 2], auto_pad="SAME_UPPER")
        asked("groups", "ConvTranspose", version, [f(1, 2, 2, 2), f(2, 1, 2, 2), f(2)], group=2, pads=[0, 1, 1, 0])
    nothing = Const(np.zeros(0, np.float32))
    # Where lengths do not come out whole, onnxruntime aligns corners by the cut length; the suite does not.
    up = Const(arr(1, 1, 2, 2))
    small = f(1, 1, 3, 3)
    for version in (11, 13, 18, 19):
        for mode in ("half_pixel", "asymmetric", "pytorch_half_pixel", "align_corners"):
            asked(f"cubic-{mode}", "Resize", version, [small, None if version > 11 else nothing, up], mode="cubic", coordinate_transformation_mode=mode, cubic_coeff_a=-0.5)
        for mode in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil"):
            asked(f"nearest-{mode}", "Resize", version, [small, None if version > 11 else nothing, Const(arr(1, 1, 2.5, 0.7))], mode="nearest", nearest_mode=mode)
        roi = Const(arr(0, 0, 0.4, -0.2, 1, 1, 0.9, 1.1))
        asked("crop", "Resize", version, [small, roi, nothing if version == 11 else None, Const(i64(1, 1, 2, 3))], mode="linear", coordinate_transformation_mode="tf_crop_and_resize", extrapolation_value=9.0, trust="reference")
    for version in (18, 19):
        asked("antialias", "Resize", version, [x, None, Const(arr(1, 1, 0.5, 0.5))], mode="linear", antialias=1)
        asked("not-larger", "Resize", version, [x, None, None, Const(i64(3, 4))], mode="linear", axes=[2, 3], keep_aspect_ratio_policy="not_larger")
    asked("centres", "Resize", 11, [small, nothing, up], mode="nearest", coordinate_transformation_mode="tf_half_pixel_for_nn")
    asked("symmetric", "Resize", 19, [x, None, Const(arr(1, 1, 0.5, 0.7))], mode="linear", coordinate_transformation_mode="half_pixel_symmetric")
    for version in (16, 22):
        asked("inside", "RoiAlign", version, [x, arr([0.5, 1, 3, 4]), i64(0)], output_height=2, output_width=2, mode="max", coordinate_transformation_mode="half_pixel")
    for version in (16, 20, 22):
        grid = arr([[[-1, -0.5], [0.25, 0.75]], [[1, 1.5], [-0.1, 0.3]]])
        for mode in ("bilinear", "nearest", "bicubic"):
            named = mode if version == 16 else {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
            asked(named, "GridSample", version, [x, grid], mode=named, padding_mode="border")
    rows = b"".join(b"\0" + bytes(r) for r in ((255, 0, 10, 20, 30, 40), (1, 2, 3, 4, 5, 6)))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 8, 2, 0, 0, 0)) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    pixels = np.array([[[255, 0, 10], [20, 30, 40]], [[1, 2, 3], [4, 5, 6]]], np.uint8)
    case("png", "ImageDecoder", 20, [np.frombuffer(png, np.uint8)], [pixels], check=False)
    case("bgr", "ImageDecoder", 20, [np.frombuffer(png, np.uint8)], [pixels[..., ::-1].copy()], check=False, pixel_format="BGR")


def recurrent():
    x, steps, batch, hidden = f(3, 2, 2) / 4, np.array([3, 2], np.int32), 2, 2
    for op, gates, extra in (("RNN", 1, {}), ("GRU", 3, {}), ("GRU", 3, {"linear_before_reset": 1}), ("LSTM", 4, {}), ("LSTM", 4, {"input_forget": 1})):
        outputs = 3 if op == "LSTM" else 2
        name = next(iter(extra), "")
        for version in (7, 14, 22):
            w, r = f(2, gates * hidden, 2) / 4, f(2, gates * hidden, hidden) / 4
            b, h = f(2, 2 * gates * hidden) / 4, f(2, batch, hidden) / 4
            states = [h, f(2, batch, hidden) / 4, f(2, 3 * hidden) / 4] if op == "LSTM" else [h]
            asked(f"both-ways{name}", op, version, [x, w, r, b, steps, *states], outputs, hidden_size=hidden, direction="bidirectional", **extra)
            asked(f"backward{name}", op, version, [x, w[:1], r[:1], None, None], outputs, hidden_size=hidden, direction="reverse", clip=0.3, **extra)
        if not extra:
            names = {"RNN": ["LeakyRelu"], "GRU": ["HardSigmoid", "Elu"], "LSTM": ["HardSigmoid", "Softsign", "Relu"]}[op]
            asked("activations", op, 7, [x, w[:1], r[:1]], outputs, hidden_size=hidden, activations=names)
    sig = lambda v: 1 / (1 + np.exp(-v))
    w, r = f(1, 8, 2) / 4, f(1, 8, 2) / 4
    h, c, out = np.zeros((2, 2)), np.zeros((2, 2)), []
    for t in x:
        i, o, g, n = np.split(t @ w[0].T + h @ r[0].T, 4, 1)
        c = sig(g) * c + sig(i) * np.tanh(n)
        h = sig(o) * np.tanh(c)
        out.append(h)
    y, c = np.stack(out)[:, None].astype(np.float32), c[None].astype(np.float32)
    for version in (14, 22):
        case("batch-first", "LSTM", version, [x.swapaxes(0, 1), w, r], [y.transpose(2, 0, 1, 3), y[-1].swapaxes(0, 1), c.swapaxes(0, 1)], hidden_size=2, layout=1, check=False)


def others():
    x = f(2, 3)
    for version in (9, 13):
        asked("plain", "Erf", version, [x])
    for version in (18, 22):
        asked("plain", "Mish", version, [x])
    shape = f(1, 2, 3, 4)
    asked("plain", "RotaryEmbedding", 23, [shape, f(1, 3, 2), f(1, 3, 2)])
    asked("interleaved-part", "RotaryEmbedding", 23, [f(1, 2, 2, 6), f(4, 2), f(4, 2), i64([1, 3])], interleaved=1, rotary_embedding_dim=4)
    asked("window", "STFT", 17, [f(1, 12, 1), np.int64(4), arr(0.5, 1, 1, 0.5)])
    asked("one-sided-0", "STFT", 17, [f(1, 8, 1), np.int64(4), None, np.int64(4)], onesided=0)
    q, k, v = f(1, 2, 4) / 4, f(1, 2, 4) / 4, f(1, 2, 6) / 4
    asked("linear", "LinearAttention", 27, [q, k, v], 2, q_num_heads=2, kv_num_heads=2, update_rule="linear")
    logits = arr([0, 0, 9], [9, 0, 0])
    for version in (7, 22):
        case("samples", "Multinomial", version, [logits], [Any(np.zeros((2, 4), np.int32))], sample_size=4)
        case("int64", "Multinomial", version, [logits], [Any(np.zeros((2, 1), np.int64))], dtype=7, seed=1.5)
    for version in (1, 22):
        for op in ("RandomNormal", "RandomUniform"):
            case("shape", op, version, [], [Any(np.zeros((2, 3), np.float32))], shape=[2, 3])
            case("double", op, version, [], [Any(np.zeros((2, 3), np.float64))], shape=[2, 3], dtype=11, seed=2.5)
            case("type", op + "Like", version, [i64(1, 2)], [Any(np.zeros(2, np.float32))], dtype=1)
            case("whole", op + "Like", version, [x], [Any(x)])
    asked("default-axis", "LpNormalization", 22, [x], p=1)
    for version in (17,):
        asked("inverse", "DFT", version, [f(1, 4, 2)], inverse=1, axis=1)
        asked("length", "DFT", version, [f(1, 4, 1), np.int64(3)], onesided=1, axis=1)
    asked("inverse", "DFT", 20, [f(1, 4, 2), None, np.int64(1)], inverse=1)
    asked("one-sided", "DFT", 20, [f(1, 4, 1), None, np.int64(-2)], onesided=1)


def retired():
    """Experiments of opset 1, which were taken out in opset 10. onnxruntime still runs most of them."""
    x = np.abs(f(2, 2, 3, 3))
    asked("plain", "Affine", 1, [x], alpha=0.5, beta=2.0)
    asked("plain", "ParametricSoftplus", 1, [x], alpha=0.5, beta=2.0)
    asked("plain", "ScaledTanh", 1, [x], alpha=0.5, beta=0.25)
    asked("plain", "Scale", 1, [x], scale=0.5)
    asked("plain", "ImageScaler", 1, [x], scale=0.5, bias=[1.0, -1.0])
    asked("no-border", "Crop", 1, [x], border=[0, 0, 0, 0])
    asked("border", "Crop", 1, [x], border=[1, 0, 0, 2])
    asked("size", "Crop", 1, [x], border=[1, 0, 0, 0], scale=[2, 1])
    asked("default", "ThresholdedRelu", 1, [x])
    asked("alpha", "ThresholdedRelu", 1, [x], alpha=0.5)
    asked("default", "MeanVarianceNormalization", 1, [x])
    asked("across", "MeanVarianceNormalization", 1, [x], across_channels=1)
    asked("mean-only", "MeanVarianceNormalization", 1, [x], normalize_variance=0)
    case("plain", "GivenTensorFill", 1, [], [arr([1, 2], [3, 4])], shape=[2, 2], values=[1.0, 2.0, 3.0, 4.0], check=False)
    case("plain", "DynamicSlice", 1, [x, i64(1), i64(9), i64(2)], [x[:, :, 1:]], check=False)


def make():
    for group in (reductions, movement, narrow, training, pictures, recurrent, others, retired):
        group()
