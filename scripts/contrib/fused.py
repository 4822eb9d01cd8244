"""Fused elementwise functions, products, convolutions and normalisations."""

from .cases import case
import numpy as np

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
case("fused_matmul_batch_a", "FusedMatMul", [(3, 2, 5), (2, 5, 4)], 1, {"transBatchA": 1})
case("fused_matmul_batch_both", "FusedMatMul", [(3, 2, 6, 5), (5, 2, 6, 4)], 1, {"transBatchA": 1, "transBatchB": 1, "alpha": 0.5})
case("fused_matmul_batch_trans", "FusedMatMul", [(5, 2, 3), (4, 2, 5)], 1, {"transBatchA": 1, "transBatchB": 1, "transA": 1, "transB": 1})
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
