//! Cases of the attention family.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::DType;

pub(super) fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -1.0, 1.0);
    let x = |shape: &[usize]| of(DType::F32, shape);
    let attention = |name, i: Vec<CaseInput>| Case::new("Attention", 25, name, i);
    let int = |c: Case, name, n| c.attr(name, Attr::Int(n));
    let four = |b, h, g, r, l| vec![x(&[b, h, r, 12]), x(&[b, g, l, 12]), x(&[b, g, l, 10])];
    let with = |mut v: Vec<CaseInput>, more: Vec<CaseInput>| {
        v.extend(more);
        v
    };
    let mut all = vec![
        attention("plain", four(2, 3, 3, 5, 7)),
        attention("grouped", four(1, 6, 2, 17, 40)),
        attention("decode", four(2, 4, 2, 1, 70)),
        attention("no_keys", four(1, 2, 2, 3, 0)),
        attention("no_rows", four(1, 2, 2, 0, 3)),
        int(attention("causal", four(1, 2, 2, 70, 70)), "is_causal", 1),
        int(int(attention("window", four(1, 2, 1, 30, 30)), "left_window_size", 4), "right_window_size", 2),
        attention("mask", with(four(2, 2, 2, 5, 9), vec![x(&[2, 1, 5, 9])])),
        attention("mask_short", with(four(2, 2, 2, 5, 9), vec![x(&[6])])),
        attention("mask_bool", with(four(2, 2, 2, 5, 9), vec![of(DType::Bool, &[2, 5, 9])])),
        attention("softcap", four(1, 2, 2, 5, 9)).attr("softcap", Attr::Float(2.0)),
        Case {
            outputs: vec![true; 4],
            ..int(
                attention(
                    "past",
                    with(four(2, 4, 2, 3, 5), vec![CaseInput::Absent, x(&[2, 2, 4, 12]), x(&[2, 2, 4, 10])]),
                ),
                "qk_matmul_output_mode",
                3,
            )
        },
        Case {
            outputs: vec![true, true, true],
            ..int(
                int(attention("three_axes", vec![x(&[2, 5, 24]), x(&[2, 5, 12]), x(&[2, 5, 8])]), "q_num_heads", 4),
                "kv_num_heads",
                2,
            )
        },
    ];
    for (name, d, rtol) in [("f64", DType::F64, 1e-12), ("f16", DType::F16, 1e-3), ("bf16", DType::BF16, 8e-3)] {
        // One unit of a narrow type in the last place.
        let inputs = vec![of(d, &[1, 2, 9, 8]), of(d, &[1, 2, 9, 8]), of(d, &[1, 2, 9, 8])];
        all.push(Case { rtol, atol: rtol, ..attention(name, inputs) });
    }
    let rotary = |name, i: Vec<CaseInput>| Case::new("RotaryEmbedding", 23, name, i);
    all.extend([
        rotary("halves", vec![x(&[2, 3, 4, 40]), x(&[2, 4, 20]), x(&[2, 4, 20])]),
        int(rotary("beside", vec![x(&[1, 2, 3, 6]), x(&[1, 3, 3]), x(&[1, 3, 3])]), "interleaved", 1),
        int(
            int(rotary("part", vec![x(&[2, 4, 24]), x(&[2, 4, 2]), x(&[2, 4, 2])]), "num_heads", 3),
            "rotary_embedding_dim",
            4,
        ),
        rotary(
            "positions",
            vec![x(&[1, 2, 3, 4]), x(&[5, 2]), x(&[5, 2]), CaseInput::Random(DType::I64, vec![1, 3], 0.0, 4.0)],
        ),
    ]);
    let linear = |name, rule: &str, i: Vec<CaseInput>| {
        let c = Case::new("LinearAttention", 27, name, i).attr("update_rule", Attr::String(rule.as_bytes().to_vec()));
        Case { outputs: vec![true, true], ..int(int(c, "q_num_heads", 4), "kv_num_heads", 2) }
    };
    let tokens = || vec![x(&[2, 5, 24]), x(&[2, 5, 12]), x(&[2, 5, 70])];
    let state = || x(&[2, 2, 6, 35]);
    all.extend([
        linear("linear", "linear", tokens()),
        linear("gated", "gated", with(tokens(), vec![state(), x(&[2, 5, 12])])),
        linear("delta", "delta", with(tokens(), vec![state(), CaseInput::Absent, x(&[2, 5, 1])])),
        linear("gated_delta", "gated_delta", with(tokens(), vec![CaseInput::Absent, x(&[2, 5, 2]), x(&[2, 5, 2])])),
        linear("no_tokens", "linear", vec![x(&[2, 0, 24]), x(&[2, 0, 12]), x(&[2, 0, 70]), state()]),
    ]);
    let conv =
        |name, i: Vec<CaseInput>| Case { outputs: vec![true, true], ..Case::new("CausalConvWithState", 27, name, i) };
    all.extend([
        conv("plain", vec![x(&[2, 3, 37]), x(&[3, 1, 4])]),
        conv("state", vec![x(&[2, 3, 2]), x(&[3, 1, 4]), x(&[3]), x(&[2, 3, 3])])
            .attr("activation", Attr::String(b"silu".to_vec())),
        Case::new("SwiGLU", 28, "alpha", vec![x(&[3, 5]), x(&[3, 5])]).attr("alpha", Attr::Float(1.7)),
    ]);
    all
}
