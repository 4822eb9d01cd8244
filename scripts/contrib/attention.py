"""Rotary embedding, the attention family, linear attention."""

from .cases import case, i32, i64
import numpy as np

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
