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
    all.push(grouped("f32", DType::F32));
    all.push(Case { rtol: 2e-3, atol: 2e-3, ..grouped("f16", DType::F16) });
    all
}
