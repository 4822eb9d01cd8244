//! Cases of the contrib operators, for the paths beside each other; `scripts/contrib` asks for onnxruntime's answers.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor};

pub(super) fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -1.0, 1.0);
    let x = |shape: &[usize]| of(DType::F32, shape);
    let case = |op, name, inputs: Vec<CaseInput>| Case { domain: super::MS, ..Case::new(op, 1, name, inputs) };
    let int = |c: Case, name, n| c.attr(name, Attr::Int(n));
    let mut all = vec![
        case("BiasAdd", "plain", vec![x(&[2, 3, 4]), x(&[4]), x(&[2, 3, 4])]),
        case("BiasSplitGelu", "plain", vec![x(&[2, 3, 8]), x(&[8])]),
        case("FastGelu", "bias", vec![x(&[2, 3, 17]), x(&[17])]),
        int(case("FusedMatMul", "transposed", vec![x(&[2, 5, 3]), x(&[2, 5, 4])]), "transA", 1),
        case("SkipLayerNormalization", "empty", vec![x(&[0, 3, 8]), x(&[0, 3, 8]), x(&[8])]),
        int(case("MultiHeadAttention", "packed", vec![x(&[2, 9, 3, 3, 8])]), "num_heads", 3),
    ];
    for (name, d, rtol) in [("f32", DType::F32, 1e-5), ("f64", DType::F64, 1e-12), ("f16", DType::F16, 2e-3)] {
        let row = || of(d, &[37]);
        let inputs = vec![of(d, &[2, 3, 37]), of(d, &[2, 3, 37]), row(), row(), row()];
        let skip = case("SkipLayerNormalization", name, inputs);
        // A narrow sum is rounded once, its normalised row once more.
        all.push(Case { rtol, atol: rtol, outputs: vec![true; 4], ..skip });
        let inputs = vec![of(d, &[2, 3, 37]), of(d, &[2, 3, 37]), row(), row()];
        all.push(Case { rtol, atol: rtol, ..case("SkipSimplifiedLayerNormalization", name, inputs) });
    }
    let grouped = |name, d| {
        let lengths = Tensor::from_slice(&[2], &[6i32, 3]).map_or(CaseInput::Absent, CaseInput::Given);
        let total = Tensor::from_slice(&[1], &[7i32]).map_or(CaseInput::Absent, CaseInput::Constant);
        let cache = || of(d, &[2, 2, 9, 16]);
        let inputs = vec![of(d, &[2, 1, 64]), of(d, &[2, 1, 32]), of(d, &[2, 1, 32]), cache(), cache(), lengths, total];
        let inputs = inputs.into_iter().chain([of(d, &[16, 8]), of(d, &[16, 8])]).collect();
        let c = int(int(case("GroupQueryAttention", name, inputs), "num_heads", 4), "kv_num_heads", 2);
        Case { outputs: vec![true; 3], ..int(c, "do_rotary", 1) }
    };
    let ints = |v: &[i32], shape: &[usize]| Tensor::from_slice(shape, v).map_or(CaseInput::Absent, CaseInput::Given);
    let fixed = |v: &[i32]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let codes = |shape: &[usize]| CaseInput::Random(DType::U8, shape.to_vec(), 0.0, 255.0);
    let none = || CaseInput::Absent;
    let text = |c: Case, name, s: &str| c.attr(name, Attr::String(s.to_string().into()));
    // Few rows and many: dot products, and panels.
    for (name, rows) in [("few", 3), ("many", 40)] {
        let inputs = vec![x(&[rows, 20]), of(DType::F32, &[rows, 3]), x(&[3, 36, 20]), x(&[3, 36]), x(&[3, 20, 18])];
        let c = int(int(case("MoE", name, inputs), "k", 2), "swiglu_fusion", 1);
        all.push(text(c, "activation_type", "swiglu"));
        let scale = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), 0.001, 0.01);
        let inputs =
            vec![x(&[rows, 32]), x(&[rows, 3]), codes(&[3, 48, 16]), scale(&[3, 48, 2]), none(), codes(&[3, 32, 24])];
        let inputs = inputs.into_iter().chain([scale(&[3, 32, 3])]).collect();
        all.push(text(int(int(case("QMoE", name, inputs), "k", 2), "block_size", 16), "activation_type", "gelu"));
    }
    let offsets = || ints(&[0, 3, 4, 1, 2, 5], &[2, 3]);
    let starts = || ints(&[0, 1, 3], &[3]);
    all.extend([
        case("BiasAdd", "wide", vec![x(&[1, 4, 33]), x(&[33]), x(&[1, 4, 33])]),
        int(
            case(
                "PackedMultiHeadAttention",
                "ragged",
                vec![x(&[3, 8]), x(&[3, 8]), x(&[3, 8]), none(), offsets(), starts()],
            ),
            "num_heads",
            2,
        ),
        int(
            case("PackedAttention", "ragged", vec![x(&[3, 5]), x(&[5, 24]), x(&[24]), offsets(), starts()]),
            "num_heads",
            2,
        ),
        int(int(case("GroupNorm", "last", vec![x(&[2, 3, 5, 6]), x(&[6]), x(&[6])]), "groups", 3), "activation", 1),
        Case {
            outputs: vec![true; 2],
            ..int(
                int(
                    case("SkipGroupNorm", "first", vec![x(&[2, 6, 3, 5]), x(&[6]), x(&[6]), x(&[2, 6]), x(&[6])]),
                    "groups",
                    2,
                ),
                "channels_last",
                0,
            )
        },
    ]);
    let shared = |c: Case| int(int(c, "num_heads", 2), "past_present_share_buffer", 1);
    let (one, cache, beams) = (|| x(&[2, 1, 16]), || x(&[2, 2, 600, 8]), || ints(&[1; 1200], &[1, 2, 600]));
    let inputs = vec![one(), one(), one(), none(), none(), cache(), cache(), ints(&[513], &[1]), none(), beams()];
    let masked = Case { outputs: vec![true; 3], ..case("DecoderMaskedMultiHeadAttention", "beams", inputs) };
    let inputs = vec![x(&[2, 1, 5]), x(&[5, 48]), x(&[48]), none(), x(&[2, 2, 2, 9, 8]), none(), ints(&[4], &[1])];
    let merged = Case { outputs: vec![true; 2], ..case("DecoderMaskedSelfAttention", "buffer", inputs) };
    all.extend([shared(masked), shared(merged)]);
    let scalar = |v: f32| Tensor::from_slice(&[], &[v]).map_or(CaseInput::Absent, CaseInput::Constant);
    let inputs = vec![codes(&[2, 5, 10]), codes(&[10, 24]), x(&[24]), scalar(0.02), scalar(0.01), none()];
    all.push(int(case("QAttention", "bytes", inputs), "num_heads", 2));
    let past = || x(&[2, 1, 40, 8]);
    let inputs = vec![x(&[2, 20, 16]), x(&[2, 20, 8]), x(&[2, 20, 8]), past(), past(), ints(&[0, 1, 3, 4], &[1, 4])];
    let more = [ints(&[0, 0, 1, 2], &[1, 4]), fixed(&[20]), ints(&[20, 17], &[2])];
    let c = case("SparseAttention", "blocks", inputs.into_iter().chain(more).collect());
    let c = int(int(int(c, "num_heads", 2), "kv_num_heads", 1), "sparse_block_size", 8);
    all.push(Case { outputs: vec![true; 3], ..c });
    all.push(grouped("f32", DType::F32));
    all.push(Case { rtol: 2e-3, atol: 2e-3, ..grouped("f16", DType::F16) });
    all
}
