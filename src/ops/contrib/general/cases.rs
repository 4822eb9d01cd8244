//! Cases for the paths beside each other; onnxruntime's answers are in the cache (`scripts/dump_contrib.py`).

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor};

pub(super) fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), -1.0, 1.0);
    let x = |shape: &[usize]| of(DType::F32, shape);
    let case = |op, name, inputs| Case { domain: super::MS, ..Case::new(op, 1, name, inputs) };
    let ints = |v: &[i32]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let mut all = vec![
        case("CDist", "f32", vec![x(&[5, 19]), x(&[7, 19])]),
        case("CDist", "f64", vec![of(DType::F64, &[5, 3]), of(DType::F64, &[0, 3])]),
        case("Inverse", "none", vec![x(&[0, 3, 3])]),
        case("NhwcMaxPool", "u8", vec![CaseInput::Random(DType::U8, vec![1, 5, 6, 3], 0.0, 255.0)])
            .attr("kernel_shape", Attr::Ints(vec![3, 2]))
            .exact(),
        case("UnfoldTensor", "overlap", vec![x(&[2, 9, 3])])
            .attr("dim", Attr::Int(1))
            .attr("size", Attr::Int(4))
            .attr("step", Attr::Int(2))
            .exact(),
        case("ExpandDims", "negative", vec![x(&[2, 3]), ints(&[-2])]).exact(),
    ];
    // An inverse of a matrix near the unit one, so that no level's rounding grows.
    for (name, d, tolerance) in [("f32", DType::F32, 1e-5), ("f16", DType::F16, 2e-3), ("f64", DType::F64, 1e-12)] {
        let c = case("Inverse", name, vec![of(d, &[2, 3, 4, 4])]);
        all.push(Case { rtol: tolerance, atol: tolerance, ..c });
    }
    let crop = |name, d| {
        let rois = CaseInput::Random(d, vec![3, 4], -0.2, 1.2);
        case("CropAndResize", name, vec![of(d, &[2, 3, 7, 6]), rois, ints(&[1, 0, 1]), ints(&[4, 5])])
    };
    all.push(crop("f32", DType::F32));
    all.push(Case { rtol: 2e-3, atol: 2e-3, ..crop("f16", DType::F16) });
    all
}
