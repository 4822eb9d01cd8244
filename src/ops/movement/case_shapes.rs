//! Test cases of the operators that move elements, by shape: every path of the kernels that other backends have too.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Tensor};

fn x(shape: &[usize]) -> CaseInput {
    of(DType::F32, shape)
}

fn of(dtype: DType, shape: &[usize]) -> CaseInput {
    CaseInput::Random(dtype, shape.to_vec(), -4.0, 4.0)
}

fn list(v: &[i64]) -> CaseInput {
    Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant)
}

fn ints(v: &[i64]) -> Attr {
    Attr::Ints(v.to_vec())
}

fn case(op: &'static str, version: u32, name: &'static str, inputs: Vec<CaseInput>) -> Case {
    Case::new(op, version, name, inputs).exact()
}

pub(super) fn all() -> Vec<Case> {
    let mut v = Vec::new();
    for (name, shape, perm) in [
        ("matrix", &[33, 20][..], &[1, 0][..]),
        ("heads", &[2, 7, 3, 5], &[0, 2, 1, 3]),
        ("to_nhwc", &[2, 3, 9, 10], &[0, 2, 3, 1]),
        ("reversed", &[2, 3, 4, 5, 2], &[4, 3, 2, 1, 0]),
        ("empty", &[0, 3], &[1, 0]),
    ] {
        v.push(case("Transpose", 13, name, vec![x(shape)]).attr("perm", ints(perm)));
    }
    v.push(case("Transpose", 13, "f16", vec![of(DType::F16, &[5, 7])]));
    v.push(case("Transpose", 13, "bool", vec![of(DType::Bool, &[5, 7])]));
    v.push(case("Transpose", 13, "i64", vec![of(DType::I64, &[5, 7])]));
    v.push(case("Expand", 13, "both_ways", vec![x(&[3, 1, 5]), list(&[2, 1, 4, 1])]));
    v.push(case("Expand", 13, "scalar", vec![x(&[]), list(&[3, 7])]));
    v.push(case("Expand", 13, "bool", vec![of(DType::Bool, &[1, 1, 1, 6]), list(&[2, 3, 6, 6])]));
    v.push(case("Tile", 13, "middle", vec![x(&[2, 3, 4]), list(&[1, 3, 2])]));
    let concat = |name, axis, shapes: &[&[usize]]| {
        case("Concat", 13, name, shapes.iter().map(|s| x(s)).collect()).attr("axis", Attr::Int(axis))
    };
    v.push(concat("channels", 1, &[&[2, 3, 4, 5], &[2, 1, 4, 5], &[2, 7, 4, 5]]));
    v.push(concat("last", -1, &[&[3, 5], &[3, 0], &[3, 2]]));
    v.push(concat("first", 0, &[&[3, 5], &[1, 5]]));
    let split = |name, axis: i64, outputs: &[bool], lengths: CaseInput| {
        let c = case("Split", 13, name, vec![x(&[4, 9, 5]), lengths]).attr("axis", Attr::Int(axis));
        Case { outputs: outputs.to_vec(), ..c }
    };
    v.push(split("lengths", 1, &[true; 3], list(&[2, 0, 7])));
    v.push(split("equal", 0, &[true; 2], CaseInput::Absent));
    v.push(split("one_unused", -1, &[true, false, true], list(&[1, 3, 1])));
    let slice = |name, shape: &[usize], parts: [&[i64]; 4]| {
        let bounds = parts.into_iter().map(list);
        case("Slice", 13, name, std::iter::once(x(shape)).chain(bounds).collect())
    };
    v.push(slice("middle", &[4, 9, 5], [&[1, 2], &[3, -1], &[0, 1], &[1, 1]]));
    v.push(slice("steps", &[4, 9, 5], [&[8, -1], &[0, i64::MIN], &[1, 2], &[-3, -2]]));
    v.push(slice("nothing", &[4, 9], [&[3], &[3], &[1], &[1]]));
    let value = Tensor::scalar(1.5f32).map_or(CaseInput::Absent, CaseInput::Constant);
    let pad = |name, mode: &str, pads: &[i64], value: CaseInput| {
        case("Pad", 18, name, vec![x(&[3, 4, 5]), list(pads), value]).attr("mode", Attr::String(mode.into()))
    };
    v.push(pad("constant", "constant", &[1, 0, 2, 0, 3, 1], value));
    v.push(pad("zeros_and_cuts", "constant", &[-1, 2, 0, 0, -2, 1], CaseInput::Absent));
    v.push(pad("edge", "edge", &[0, 1, 6, 2, 0, 1], CaseInput::Absent));
    v.push(pad("reflect", "reflect", &[0, 3, 4, 2, 1, 2], CaseInput::Absent));
    v.push(pad("wrap", "wrap", &[1, 0, 5, 0, 2, 3], CaseInput::Absent));
    let gather =
        |name, at: CaseInput, axis| case("Gather", 13, name, vec![x(&[4, 9, 5]), at]).attr("axis", Attr::Int(axis));
    let given = |shape: &[usize], at: &[i64]| Tensor::from_slice(shape, at).map_or(CaseInput::Absent, CaseInput::Given);
    v.push(gather("constant", list(&[8, 0, -1]), 1));
    v.push(gather("given", given(&[2, 2], &[3, -4, 0, 0]), 0));
    let narrow = Tensor::from_slice(&[3], &[4i32, -5, 1]).map_or(CaseInput::Absent, CaseInput::Given);
    v.push(gather("given_i32", narrow, -1));
    v.push(gather("scalar", given(&[], &[7]), 1));
    v
}
