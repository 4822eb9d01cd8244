"""Images, text, search, matrices, and models that onnxruntime saved optimised."""

from .cases import case, i32, i64, random, saved
from onnx import TensorProto, helper, numpy_helper
import numpy as np

rng = random("general")
near = lambda n, d=np.float32: (np.eye(n) * 2 + rng.uniform(-0.5, 0.5, (2, 3, n, n))).astype(d)
strings = lambda *x: np.array(x, object)

# Matrices.
for n in (1, 4, 17):
    case(f"inverse_{n}", "Inverse", [near(n)])
case("inverse_f64", "Inverse", [near(5, np.float64)], rtol=1e-12, atol=1e-12)
# The half's last bit, and onnxruntime's own rounding on the way.
case("inverse_f16", "Inverse", [near(3, np.float16)], rtol=3e-3, atol=3e-3)
case("cdist", "CDist", [(5, 19), (7, 19)], rtol=1e-4)
case("cdist_euclidean", "CDist", [(5, 3), (1, 3)], metric="euclidean", rtol=1e-4)
case("cdist_f64", "CDist", [rng.uniform(-1, 1, (4, 6)), rng.uniform(-1, 1, (3, 6))], metric="euclidean")
for t in range(4):
    n, k, block = int(rng.integers(3, 20)), int(rng.integers(3, 40)), 16 * (1 + t // 2)
    codes = rng.integers(0, 256, (n * k + 1) // 2).astype(np.uint8)
    case(f"bnb4_{t}", "MatMulBnb4", [(2, 3, k), codes, rng.uniform(0.1, 1, -(-n * k // block)).astype(np.float32)], constants=[1, 2],
         K=k, N=n, block_size=block, quant_type=t % 2, transB=1)
case("matmul_integer_16", "MatMulInteger16", [rng.integers(-300, 300, (2, 3, 5)).astype(np.int16), rng.integers(-300, 300, (5, 4)).astype(np.int16)])

# The default domain's operators in other clothes.
for t in range(4):
    x = rng.integers(-9, 9, (2, 5, 7)).astype([np.float32, np.int64, np.float64, np.float32][t])
    case(f"trilu_{t}", "Trilu", [x, np.array(t - 2) if t else None], upper=t % 2)
case("range", "Range", [np.array(v, np.float32) for v in (1, 9, 1.5)])
case("range_default", "Range", [i32(3), i32(8), None])
case("range_down", "Range", [np.array(8), np.array(3), np.array(-2)])
case("expand_dims", "ExpandDims", [(2, 3, 4), i32(1)], constants=[1])
case("expand_dims_last", "ExpandDims", [(2, 3, 4), np.array(-1, np.int32)], constants=[1])
case("gather_nd", "GatherND", [(3, 4, 5), np.array([[[0, 1], [2, 3]], [[1, 1], [0, 0]]])])
case("gather_nd_i32", "GatherND", [(3, 4, 5), i32(2, 1, 0).reshape(3, 1)])
case("pad", "Pad", [(3, 4), i64(1, 0, 2, 3), np.array([1.5], np.float32)])
case("pad_edge", "Pad", [(3, 4), i64(1, 0, 2, 3).reshape(1, 4)], mode="edge")
case("pad_cut", "Pad", [(3, 4), i64(1, -1, -2, 3)])
for t, mode in enumerate(["bilinear", "nearest", "bicubic"]):
    case(f"grid_sample_{mode}", "GridSample", [(2, 3, 5, 6), tuple([2, 4, 3, 2])], mode=mode, align_corners=t % 2,
         padding_mode=["zeros", "border", "reflection"][t])
case("unfold", "UnfoldTensor", [(2, 9, 3)], dim=1, size=4, step=2)
case("unfold_last", "UnfoldTensor", [np.arange(24).reshape(2, 12)], size=5, step=3)
case("unique", "Unique", [np.array([2, 1, 1, 3, 4, 3], np.float32)], 3)
case("unique_one", "Unique", [np.array([0.5, 0.5], np.float32)], 3)
for t, d in enumerate([np.float32, np.float16]):
    case(f"scaled_silu_{t}", "ScaledSiLU", [(2, 9), None if t else np.array(1.7, np.float32)], dtype=d, alpha=0.5, rtol=2e-3 if t else 2e-5)

# Images.
rois = np.array([[0.1, 0.2, 0.9, 0.8], [0, 0, 1, 1], [0.5, -0.3, 0.6, 1.4], [0.9, 0.9, 0.1, 0.2]], np.float32)
for t, mode in enumerate(["bilinear", "nearest"]):
    case(f"crop_and_resize_{mode}", "CropAndResize", [(2, 3, 7, 6), rois, i32(0, 1, 0, 1), i32(4, 5)], mode=mode, extrapolation_value=0.25 * t)
    case(f"crop_and_resize_{mode}_one", "CropAndResize", [(2, 3, 7, 6), rois[:2], i32(1, 0), i32(1, 3)], constants=[3], mode=mode)
mask = rng.integers(0, 3, (1, 3, 6, 7)).astype(np.int32)
case("max_pool_masked", "MaxpoolWithMask", [(2, 3, 6, 7), mask], kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[2, 1])
for t, d in enumerate([np.uint8, np.int8]):
    x = rng.integers(np.iinfo(d).min, np.iinfo(d).max + 1, (2, 8, 9, 19)).astype(d)
    case(f"nhwc_max_pool_{t}", "NhwcMaxPool", [x], atol=0, kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1 - t], ceil_mode=t)
case("nhwc_max_pool_1d", "NhwcMaxPool", [rng.integers(0, 256, (1, 11, 5)).astype(np.uint8)], atol=0, kernel_shape=[3], dilations=[2])
case("conv_transpose_pads", "ConvTransposeWithDynamicPads", [(1, 3, 5, 4), (3, 2, 3, 3), i64(1, 0, 1, 2), (2,)], strides=[2, 1], output_padding=[1, 0])
case("conv_transpose_pads_known", "ConvTransposeWithDynamicPads", [(1, 4, 5, 4), (4, 2, 3, 3), i64(1, 0, 1, 2)], constants=[2], group=2)

# Text.
words = strings("a bc  def", "", "gäöü hi;j", "kl,m n|op")
for t, a in enumerate([
    dict(separators=[" "], mincharnum=1, mark=0), dict(separators=[" ", "[;,]"], mincharnum=2, mark=1), dict(separators=[""], mincharnum=1, mark=1),
    dict(tokenexp=".", mincharnum=1, mark=0), dict(tokenexp="[a-zäöü]+", mincharnum=1, mark=1), dict(tokenexp="a|ab|abc|[h-j]+", mincharnum=1, mark=0),
    dict(separators=["b|bc", "\\|"], mincharnum=1, mark=0), dict(tokenexp="[a-z]*", mincharnum=2, mark=0),
]):
    case(f"tokenizer_{t}", "Tokenizer", [words if t % 2 else words.reshape(2, 2)], pad_value="#", **a)
case("tokenizer_none", "Tokenizer", [strings("", "")], pad_value="#", mincharnum=1, mark=0, separators=[" "])
for t, x in enumerate([i32(0, 1, -7), i64(5, -1), np.array([0.5, 3], np.float32), np.array([0.5, 3]), strings("", "a", "abcd", "hällo")]):
    case(f"murmur_{t}", "MurmurHash3", [x], seed=t, positive=1)
    case(f"murmur_signed_{t}", "MurmurHash3", [x], seed=t * 1000, positive=0)
chars = np.array([[3, 1, 4, 1, 5], [2, 6, 0, 0, 0], [5, 0, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 0, 0], [6, 6, 6, 6, 0]], np.int32)
case("word_conv_embedding", "WordConvEmbedding", [chars, (4, 1, 2, 3), (4,), (7, 3)])

# Search.
ids = np.array([[1, 2, 3, 1, 2], [4, 4, 4, 4, 4], [0, 1, 2, 3, 4]])
for n in (1, 2, 3):
    case(f"ngram_repeat_{n}", "NGramRepeatBlock", [ids, (3, 8)], ngram_size=n)
source = i64(5, 6, 7, 8, 5, 6, 9)
for t, (current, place, predicted) in enumerate([
    (i64(2), 0, None), (i64(2), 0, i64(5, 6, 7, 1, 1, 1, 1, 1)), (i64(2, 5, 6), 2, i64(7, 8, 5, 6, 9, 3)), (i64(7, 8), 7, i64(5)),
    (i64(3, 5, 6), 7, i64(9)), (i64(3, 5), 7, i64(6)), (i64(1, 8, 5, 6), 0, None), (i64(7, 8, 5), 0, None), (i64(4), 1, i64(9, 1, 1, 1, 1, 1, 1)),
]):
    for most in (1, 3):
        case(f"bifurcation_{t}_{most}", "BifurcationDetector", [source, current, i64(place), predicted], 2, max_ngram_size=most)
for t, shape in enumerate([(5, 7), (1, 9, 4), (1, 6), (8, 8)]):
    cost = rng.integers(0, 5, shape).astype(np.float32) if t == 3 else rng.uniform(0, 1, shape).astype(np.float32)
    case(f"time_warping_{t}", "DynamicTimeWarping", [cost])

# LSTMs of 8 bits.
for t in range(4):
    d, dirs, h = [np.uint8, np.int8][t % 2], 1 + t // 2, 12
    q = lambda *s: rng.integers(np.iinfo(d).min, np.iinfo(d).max + 1, s).astype(d)
    scale = lambda: rng.uniform(0.002, 0.004, (dirs, 4 * h) if t % 2 else (dirs,)).astype(np.float32)
    zero = lambda: (np.zeros((dirs, 4 * h), d) if t % 2 else q(dirs))
    f = lambda *s: rng.uniform(-0.5, 0.5, s).astype(np.float32)
    case(f"dynamic_quantize_lstm_{t}", "DynamicQuantizeLSTM", [
        f(5, 2, 7), q(dirs, 7, 4 * h), q(dirs, h, 4 * h), f(dirs, 8 * h) if t else None, None, f(dirs, 2, h) if t > 1 else None,
        f(dirs, 2, h) if t > 1 else None, f(dirs, 3 * h) if t == 3 else None, scale(), zero(), scale(), zero(),
    ], 3, constants=[1, 2, 8, 9, 10, 11], rtol=1e-4, atol=1e-4, hidden_size=h, direction=["forward", "reverse", "bidirectional", "bidirectional"][t])

# Embeddings of 8 bits.
for t in range(2):
    d, h = [np.uint8, np.int8][t], 16
    q = lambda *s: rng.integers(np.iinfo(d).min, np.iinfo(d).max + 1, s).astype(d)
    ids, segments = rng.integers(0, 5, (2, 3)).astype(np.int32), None if t else rng.integers(0, 2, (2, 3)).astype(np.int32)
    tables = [q(5, h), q(6, h), None if t else q(2, h), q(h), q(h)]
    scales = [None if v is None else np.array(rng.uniform(0.005, 0.02), np.float32) for v in tables]
    zeros = [None if v is None else q() for v in tables]
    case(f"quantised_embedding_{t}", "QEmbedLayerNormalization", [ids, segments, *tables, i32(1, 1, 0, 1, 1, 1).reshape(2, 3), *scales, *zeros], 2,
         constants=list(range(2, 7)), epsilon=1e-6, rtol=1e-4, atol=1e-4)

# Models saved optimised: of blocks of 16 channels on a machine with AVX-512, else of 8.
def picture(channels, layers, shape):
    """A model of layers (operator, output channels or None, attributes), each over the last, and some over an earlier one."""
    nodes, weights, last, count, depth = [], [], "x", channels, 0
    for i, (op, out, attrs) in enumerate(layers):
        inputs = [last]
        if op == "Conv":
            g, k = attrs.get("group", 1), attrs.get("kernel_shape", [3, 3])
            weights += [numpy_helper.from_array(rng.uniform(-0.3, 0.3, s).astype(np.float32), n) for s, n in [((out, count // g, *k), f"w{i}"), ((out,), f"b{i}")]]
            inputs += [f"w{i}", f"b{i}"]
            count = out
        if op in ("Add", "Concat"):
            inputs.append(f"v{out}")
            attrs = dict(attrs, axis=1) if op == "Concat" else attrs
            count *= 2 if op == "Concat" else 1
        if op == "Resize":
            weights.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), f"s{i}"))
            inputs += ["", f"s{i}"]
        nodes.append(helper.make_node(op, inputs, [f"v{i}"], **attrs))
        last = f"v{i}"
    shapes = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)], [helper.make_tensor_value_info(last, TensorProto.FLOAT, [None] * 4)]
    graph = helper.make_graph(nodes, "picture", *shapes, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


same, pool = dict(pads=[1, 1, 1, 1]), dict(kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
grow = dict(mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor")
nets = {
    "plain": (3, [("Conv", 32, dict(same, strides=[2, 2])), ("Relu", None, {}), ("MaxPool", None, pool), ("Conv", 64, same), ("GlobalAveragePool", None, {})]),
    "depthwise": (3, [("Conv", 16, same), ("Conv", 48, dict(kernel_shape=[1, 1])), ("Clip", None, {}), ("Conv", 48, dict(same, group=48)), ("Conv", 16, dict(kernel_shape=[1, 1])), ("Add", 0, {})]),
    "odd": (8, [("Conv", 40, same), ("Relu", None, {}), ("Conv", 20, same), ("AveragePool", None, dict(kernel_shape=[2, 2])), ("Conv", 32, {}), ("GlobalMaxPool", None, {})]),
    "joined": (12, [("Conv", 32, same), ("LeakyRelu", None, dict(alpha=0.2)), ("Conv", 32, same), ("Concat", 1, {}), ("AveragePool", None, dict(pool, count_include_pad=1)), ("Resize", None, grow), ("Conv", 32, dict(same, group=2)), ("Sigmoid", None, {})]),
}
for name, (channels, layers) in nets.items():
    shape = (1, channels, 12, 10)
    saved(f"nchwc_{name}", picture(channels, layers, shape), {"x": rng.uniform(-1, 1, shape).astype(np.float32)})


def eights(model):
    """The model of one convolution as a machine with blocks of 8 writes it."""
    node = model.graph.node[0]
    w, b = (numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == n)) for n in node.input[1:3])
    o, i, kh, kw = w.shape
    plain = i < 8
    blocks = w.reshape(o // 8, 8, 1 if plain else i // 8, i if plain else 8, kh, kw)
    # [O, o, I, i, h, w] to [O, I, h, w, i, o], of plain channels to [O, i, h, w, o].
    blocks = blocks[:, :, 0].transpose(0, 2, 3, 4, 1) if plain else blocks.transpose(0, 2, 4, 5, 3, 1)
    del model.graph.initializer[:]
    model.graph.initializer.extend([numpy_helper.from_array(blocks.reshape(w.shape), "reorder"), numpy_helper.from_array(b, "reorder_token_0")])
    attrs = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    inner, nodes = "blocked" if not plain else "x", []
    if not plain:
        nodes.append(helper.make_node("ReorderInput", ["x"], ["blocked"], domain="com.microsoft.nchwc"))
    nodes.append(helper.make_node("Conv", [inner, "reorder", "reorder_token_0"], ["blocks"], domain="com.microsoft.nchwc", **attrs))
    nodes.append(helper.make_node("ReorderOutput", ["blocks"], [node.output[0]], domain="com.microsoft.nchwc", channels=o))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid("com.microsoft.nchwc", 1))
    return model


for channels in (3, 8, 16):
    shape = (1, channels, 6, 5)
    model = picture(channels, [("Conv", 24, same)], shape)
    # The answer to the plain model; what was saved is not looked at.
    saved(f"nchwc_eights_{channels}", model, {"x": rng.uniform(-1, 1, shape).astype(np.float32)}, change=lambda _, m=model: eights(m))
