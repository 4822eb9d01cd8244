#!/usr/bin/env python3
"""Makes tests/contrib/: small models of com.microsoft operators with random inputs and onnxruntime's answers.

    make_contrib.py FOLDER

Run by hand, with onnxruntime 1.32 and onnx 1.23, when a case is added; the result is checked in. One file a case: a model whose
initialisers hold the inputs (`in:NAME`) and the answers (`out:NAME`) beside the graph, so that nothing else is needed to run it.
"""

import os
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

MS = "com.microsoft"
folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)


def case(name, op, inputs, outputs, attrs, domain=MS, seed=0, ask=None):
    """`inputs`: shapes (random f32), arrays, or None. `outputs`: how many of the outputs, or a list of truths.
    `ask`: turns the inputs into the form that onnxruntime can answer, where it cannot answer this one."""
    rng = np.random.default_rng(seed or sum(map(ord, name)))
    values, names = {}, []
    for i, x in enumerate(inputs):
        if x is None:
            names.append("")
            continue
        if isinstance(x, tuple):
            x = rng.uniform(-1, 1, x).astype(np.float32)
        names.append(f"x{i}")
        values[f"x{i}"] = x
    wanted = outputs if isinstance(outputs, list) else [True] * outputs
    outs = [f"y{i}" if on else "" for i, on in enumerate(wanted)]
    node = helper.make_node(op, names, outs, name="n", domain=domain, **attrs)
    kinds = [helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape) for n, v in values.items()]
    results = [helper.make_empty_tensor_value_info(n) for n in outs if n]
    graph = helper.make_graph([node], name, kinds, results)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        asked, feed = model, values
        if ask:
            feed = {f"x{i}": np.ascontiguousarray(v) for i, v in enumerate(ask(*values.values()))}
            kinds = [helper.make_tensor_value_info(n, 1, v.shape) for n, v in feed.items()]
            node = helper.make_node(op, list(feed), outs, name="n", domain=domain, **attrs)
            asked = helper.make_model(helper.make_graph([node], name, kinds, results), opset_imports=opsets, ir_version=8)
        answers = ort.InferenceSession(asked.SerializeToString(), options).run([n for n in outs if n], feed)
    except Exception as e:  # noqa: BLE001
        print(f"{name}: onnxruntime will not: {str(e)[:300]}")
        return
    for n, v in zip([n for n in outs if n], answers):
        kind = helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        next(o for o in model.graph.output if o.name == n).CopyFrom(kind)
    # The inputs and answers ride along as metadata-like constants that no node reads.
    for n, v in list(values.items()) + list(zip([n for n in outs if n], answers)):
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(v), ("in:" if n[0] == "x" else "out:") + n))
    onnx.save(model, f"{folder}/{name}.onnx")


i32 = lambda *x: np.array(x, np.int32)
i64 = lambda *x: np.array(x, np.int64)

# Gelus and products.
case("gelu", "Gelu", [(3, 5)], 1, {})
case("bias_gelu", "BiasGelu", [(2, 3, 8), (8,)], 1, {})
case("fast_gelu", "FastGelu", [(2, 3, 8)], 1, {})
case("fast_gelu_bias", "FastGelu", [(2, 3, 8), (8,)], 1, {})
case("quick_gelu", "QuickGelu", [(2, 3, 8)], 1, {})
case("quick_gelu_alpha", "QuickGelu", [(2, 7)], 1, {"alpha": 0.5})
case("fused_matmul", "FusedMatMul", [(2, 3, 5), (2, 5, 4)], 1, {"alpha": 0.5})
case("fused_matmul_trans_a", "FusedMatMul", [(2, 5, 3), (2, 5, 4)], 1, {"transA": 1})
case("fused_matmul_trans_b", "FusedMatMul", [(2, 3, 5), (4, 5)], 1, {"transB": 1, "alpha": 2.0})
case("fused_matmul_trans_both", "FusedMatMul", [(2, 5, 3), (2, 4, 5)], 1, {"transB": 1, "transA": 1})
case("transpose_matmul", "TransposeMatMul", [(5, 3), (5, 4)], 1, {"transA": 1})

for f, p in {"Relu": {}, "LeakyRelu": {"activation_alpha": 0.3}, "Tanh": {}}.items():
    case(f"fused_gemm_{f}", "FusedGemm", [(4, 5), (6, 5), (6,)], 1, dict(p, transB=1, activation=f))
for f, p in {"Relu": [], "LeakyRelu": [0.3], "Clip": [-0.2, 0.4], "HardSigmoid": [0.3, 0.4]}.items():
    case(f"fused_conv_{f}", "FusedConv", [(1, 3, 6, 6), (4, 3, 3, 3), (4,)], 1, dict(activation=f, pads=[1] * 4, **({"activation_params": p} if p else {})))
case("fused_conv_sum", "FusedConv", [(1, 3, 6, 6), (4, 3, 3, 3), (4,), (1, 4, 4, 4)], 1, dict(activation="Relu"))

# Normalisations.
case("skip_layer_norm", "SkipLayerNormalization", [(2, 3, 16), (2, 3, 16), (16,), (16,), (16,)], [True, False, False, True], {"epsilon": 1e-5})
case("skip_layer_norm_plain", "SkipLayerNormalization", [(2, 3, 19), (2, 3, 19), (19,)], 1, {})
case("skip_layer_norm_shared", "SkipLayerNormalization", [(2, 3, 16), (3, 16), (16,), (16,)], 1, {"epsilon": 1e-3})
case("skip_layer_norm_one", "SkipLayerNormalization", [(2, 3, 16), (1, 3, 16), (16,), (16,)], 1, {"epsilon": 1e-3})
case("skip_simplified", "SkipSimplifiedLayerNormalization", [(2, 3, 16), (2, 3, 16), (16,), (16,)], [True, False, False, True], {"epsilon": 1e-6})
case("skip_simplified_plain", "SkipSimplifiedLayerNormalization", [(4, 10), (4, 10), (10,)], 1, {"epsilon": 1e-6})
case("simplified", "SimplifiedLayerNormalization", [(2, 3, 16), (16,)], 1, {"epsilon": 1e-6, "axis": -1}, domain="")
ids, segments = np.array([[1, 4, 2], [0, 3, 3]], np.int32), np.array([[0, 0, 1], [1, 1, 0]], np.int32)
case("embed", "EmbedLayerNormalization", [ids, segments, (5, 8), (6, 8), (2, 8), (8,), (8,), np.array([[1, 1, 0], [1, 1, 1]], np.int32)], 3, {})
case("embed_no_segments", "EmbedLayerNormalization", [ids, None, (5, 8), (6, 8), None, (8,), (8,)], 2, {"epsilon": 1e-5})
case("embed_positions", "EmbedLayerNormalization", [ids, segments, (5, 8), (6, 8), (2, 8), (8,), (8,), None, np.array([[5, 0, 1], [2, 2, 3]], np.int32)], 2, {})

# Rotary embedding.
for inter in (0, 1):
    case(f"rotary_{inter}", "RotaryEmbedding", [(2, 3, 24), np.array([[0, 1, 2], [3, 4, 5]]), (8, 4), (8, 4)], 1, {"interleaved": inter})
    case(f"rotary_offset_{inter}", "RotaryEmbedding", [(2, 3, 24), i64(2), (8, 4), (8, 4)], 1, {"interleaved": inter})
    case(f"rotary_part_{inter}", "RotaryEmbedding", [(2, 3, 24), i64(1), (8, 2), (8, 2)], 1, {"interleaved": inter, "num_heads": 3, "rotary_embedding_dim": 4})
case("rotary_4d", "RotaryEmbedding", [(2, 3, 4, 8), np.array([[0, 1, 2, 3], [3, 4, 5, 6]]), (8, 4), (8, 4)], 1, {})

# MultiHeadAttention.
H, D, S, L = 3, 8, 5, 7
mha = dict(num_heads=H)
q, k = (2, S, H * D), (2, L, H * D)
case("mha", "MultiHeadAttention", [q, k, k], 1, mha)
case("mha_scale", "MultiHeadAttention", [q, k, k], 1, dict(mha, scale=0.2))
case("mha_bias", "MultiHeadAttention", [q, k, k, (3 * H * D,)], 1, mha)
case("mha_value_size", "MultiHeadAttention", [q, k, (2, L, H * 4), (H * (2 * D + 4),)], 1, mha)
flat = lambda x: x.reshape(*x.shape[:2], -1)
case("mha_packed_qkv", "MultiHeadAttention", [(2, S, H, 3, D)], 1, mha, ask=lambda x: [flat(x[..., i, :]) for i in range(3)])
case("mha_packed_kv", "MultiHeadAttention", [q, (2, L, H, 2, D)], 1, mha, ask=lambda q, x: [q] + [flat(x[..., i, :]) for i in range(2)])
case("mha_key_lengths", "MultiHeadAttention", [q, k, k, None, i32(3, 7)], 1, mha)
mask = np.array([[1, 1, 1, 0, 1, 0, 0], [1] * 7], np.int32)
case("mha_key_mask", "MultiHeadAttention", [q, k, k, None, mask], 1, mha)
case("mha_mask_3d", "MultiHeadAttention", [q, k, k, None, (np.arange(2 * S * L).reshape(2, S, L) % 3 > 0).astype(np.int32)], 1, mha)
case("mha_attention_bias", "MultiHeadAttention", [q, k, k, None, None, (1, H, S, L)], 1, mha)
case("mha_bias_and_mask", "MultiHeadAttention", [q, k, k, None, mask, (2, 1, S, L)], 1, mha)
case("mha_past", "MultiHeadAttention", [q, q, q, None, None, None, (2, H, 4, D), (2, H, 4, D)], 3, mha)
case("mha_past_causal", "MultiHeadAttention", [q, q, q, None, None, None, (2, H, 4, D), (2, H, 4, D)], 3, dict(mha, unidirectional=1))
case("mha_causal", "MultiHeadAttention", [q, q, q], 1, dict(mha, unidirectional=1))
case("mha_cross", "MultiHeadAttention", [q, (2, H, L, D), (2, H, L, D)], 1, mha)
case("mha_present", "MultiHeadAttention", [q, q, q], 3, mha)

# Attention with packed weights.
att = dict(num_heads=H)
x, w, b = (2, S, 10), (10, 3 * H * D), (3 * H * D,)
case("attention", "Attention", [x, w, b], 1, att)
case("attention_causal", "Attention", [x, w, b], 1, dict(att, unidirectional=1))
case("attention_lengths", "Attention", [x, w, b, i32(3, 5)], 1, att)
case("attention_mask", "Attention", [x, w, b, np.array([[1, 1, 1, 0, 1], [1] * 5], np.int32)], 1, att)
case("attention_sizes", "Attention", [x, (10, H * (D + D + 4)), (H * (D + D + 4),)], 1, dict(att, qkv_hidden_sizes=[H * D, H * D, H * 4]))
case("attention_past", "Attention", [x, w, b, None, (2, 2, H, 4, D)], 2, dict(att, unidirectional=1))
case("attention_present", "Attention", [x, w, b], 2, att)
case("attention_bias", "Attention", [x, w, b, None, None, (2, H, S, S)], 1, dict(att, scale=0.3))

# GroupQueryAttention.
H, G, D = 4, 2, 16
gqa = dict(num_heads=H, kv_num_heads=G)
qs, ks = lambda s: (2, s, H * D), lambda s: (2, s, G * D)
cos = np.cos(np.arange(16)[:, None] / 3.0 ** np.arange(8)[None]).astype(np.float32)
sin = np.sin(np.arange(16)[:, None] / 3.0 ** np.arange(8)[None]).astype(np.float32)
past = lambda n: [(2, G, n, D), (2, G, n, D)]
none2 = [None, None]
case("gqa_prompt", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5)], 3, gqa)
case("gqa_prompt_ragged", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 2), i32(5)], 3, gqa)
case("gqa_decode", "GroupQueryAttention", [qs(1), ks(1), ks(1), *past(6), i32(6, 6), i32(7)], 3, gqa)
case("gqa_decode_ragged", "GroupQueryAttention", [qs(1), ks(1), ks(1), *past(6), i32(6, 3), i32(7)], 3, gqa)
case("gqa_rotary", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5), cos, sin], 3, dict(gqa, do_rotary=1))
case("gqa_rotary_decode", "GroupQueryAttention", [qs(1), ks(1), ks(1), *past(6), i32(6, 4), i32(7), cos, sin], 3, dict(gqa, do_rotary=1, rotary_interleaved=1))
case("gqa_rotary_part", "GroupQueryAttention", [(1, 3, 4 * 32), (1, 3, 2 * 32), (1, 3, 2 * 32), *none2, i32(2), i32(3), cos, sin], 3, dict(gqa, do_rotary=1))
case("gqa_packed", "GroupQueryAttention", [(2, 5, (H + 2 * G) * D), None, None, *none2, i32(4, 4), i32(5)], 3, gqa)
case("gqa_packed_rotary", "GroupQueryAttention", [(2, 5, (H + 2 * G) * D), None, None, *none2, i32(4, 4), i32(5), cos, sin], 3, dict(gqa, do_rotary=1))
case("gqa_window", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5)], 3, dict(gqa, local_window_size=2))
case("gqa_window_decode", "GroupQueryAttention", [qs(1), ks(1), ks(1), *past(6), i32(6, 3), i32(7)], 3, dict(gqa, local_window_size=3))
case("gqa_softcap", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5)], 3, dict(gqa, softcap=1.5, scale=0.7))
case("gqa_smooth", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5)], 3, dict(gqa, smooth_softmax=1))
case("gqa_sink", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5), None, None, None, None, (H,)], 3, gqa)
case("gqa_bias", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5), None, None, None, (2, 1, 5, 5)], 3, gqa)
case("gqa_not_causal", "GroupQueryAttention", [qs(5), ks(5), ks(5), *none2, i32(4, 4), i32(5)], 3, dict(gqa, causal=0))
case("gqa_chunk", "GroupQueryAttention", [(1, 3, H * D), (1, 3, G * D), (1, 3, G * D), (1, G, 4, D), (1, G, 4, D), i32(6), i32(7)], 3, gqa)
case("gqa_capacity", "GroupQueryAttention", [qs(1), ks(1), ks(1), *past(9), i32(6, 4), i32(7)], 3, gqa)

# Linear attention and the convolution before it.
case("linear_delta", "LinearAttention", [(2, 5, 4 * 6), (2, 5, 2 * 6), (2, 5, 2 * 10), (2, 2, 6, 10), (2, 5, 2), (2, 5, 2)], 2, dict(q_num_heads=4, kv_num_heads=2))
case("linear_gated", "LinearAttention", [(2, 5, 2 * 6), (2, 5, 2 * 6), (2, 5, 2 * 10), None, (2, 5, 2 * 6)], 2, dict(q_num_heads=2, kv_num_heads=2, update_rule="gated"))
case("causal_conv", "CausalConvWithState", [(2, 3, 7), (3, 1, 4), (3,), (2, 3, 3)], 2, dict(activation="silu"))
print(len(os.listdir(folder)), "cases,", sum(os.path.getsize(f"{folder}/{f}") for f in os.listdir(folder)), "bytes")
