//! Test cases of the operators that move elements.

use crate::ir::parse::Attr;
use crate::ops::case::{Case, CaseInput};
use crate::tensor::{DType, Element, Tensor};

fn given<T: Element>(shape: &[usize], v: &[T]) -> CaseInput {
    Tensor::from_slice(shape, v).map_or(CaseInput::Absent, CaseInput::Given)
}

fn list(v: &[i64]) -> CaseInput {
    Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant)
}

fn expect<T: Element>(case: Case, shape: &[usize], v: &[T]) -> Case {
    match Tensor::from_slice(shape, v) {
        Ok(t) => case.exact().expect(t),
        Err(_) => case,
    }
}

/// 0, 1, 2... in a shape.
fn counted(shape: &[usize]) -> CaseInput {
    let n: usize = shape.iter().product();
    given(shape, &(0..n).map(|i| i as f32).collect::<Vec<_>>())
}

/// The cases of all families here.
pub fn all() -> Vec<Case> {
    let mut v = Vec::new();
    let ints = |a: &[i64]| Attr::Ints(a.to_vec());
    for d in [DType::F32, DType::F16, DType::U8, DType::I64] {
        let x = CaseInput::Random(d, vec![3, 17, 2, 9], 0.0, 100.0);
        v.push(Case::new("Transpose", 21, "all_axes", vec![x.clone()]).exact());
        v.push(Case::new("Transpose", 21, "middle_axes", vec![x.clone()]).attr("perm", ints(&[0, 2, 1, 3])).exact());
        v.push(Case::new("Concat", 13, "last", vec![x.clone(), x.clone()]).attr("axis", Attr::Int(-1)).exact());
        let cut = vec![x, list(&[-1, 1]), list(&[i64::MIN, 100]), list(&[1, 3]), list(&[-3, 2])];
        v.push(Case::new("Slice", 13, "backwards", cut).exact());
    }
    let t = Case::new("Transpose", 21, "matrix", vec![counted(&[2, 3])]);
    v.push(expect(t, &[3, 2], &[0f32, 3., 1., 4., 2., 5.]));
    let c = Case::new("Concat", 13, "with_an_empty_one", vec![counted(&[1, 2]), counted(&[0, 2]), counted(&[2, 2])]);
    v.push(expect(c.attr("axis", Attr::Int(0)), &[3, 2], &[0f32, 1., 0., 1., 2., 3.]));
    let mut split = Case::new("Split", 18, "uneven", vec![counted(&[5])]).attr("num_outputs", Attr::Int(2));
    split.outputs = vec![true, true];
    v.push(expect(expect(split, &[3], &[0f32, 1., 2.]), &[2], &[3f32, 4.]));
    let s = Case::new("Slice", 13, "steps", vec![counted(&[7]), list(&[-2]), list(&[-100]), list(&[0]), list(&[-2])]);
    v.push(expect(s, &[3], &[5f32, 3., 1.]));
    let s = Case::new("Slice", 1, "bounds_as_attributes", vec![counted(&[4])])
        .attr("starts", ints(&[1]))
        .attr("ends", ints(&[-1]));
    v.push(expect(s, &[2], &[1f32, 2.]));
    let g = Case::new("Gather", 13, "negative_index", vec![counted(&[3, 2]), given(&[2], &[-1i64, 0])]);
    v.push(expect(g, &[2, 2], &[4f32, 5., 0., 1.]));
    let g = Case::new("GatherElements", 13, "axis_1", vec![counted(&[2, 2]), given(&[2, 1], &[1i32, 0])]);
    v.push(expect(g.attr("axis", Attr::Int(1)), &[2, 1], &[1f32, 2.]));
    let g = Case::new("GatherND", 13, "batch", vec![counted(&[2, 2, 2]), given(&[2, 1], &[1i64, 0])]);
    v.push(expect(g.attr("batch_dims", Attr::Int(1)), &[2, 2], &[2f32, 3., 4., 5.]));
    let e = Case::new("Expand", 13, "both_ways", vec![counted(&[2, 1]), list(&[1, 1, 3])]);
    v.push(expect(e, &[1, 2, 3], &[0f32, 0., 0., 1., 1., 1.]));
    let r = Case::new("Tile", 13, "twice", vec![counted(&[1, 2]), list(&[2, 2])]);
    v.push(expect(r, &[2, 4], &[0f32, 1., 0., 1., 0., 1., 0., 1.]));
    let p = Case::new("Pad", 21, "cut_and_grown", vec![counted(&[1, 3]), list(&[0, -1, 1, 2]), given(&[], &[9f32])]);
    v.push(expect(p, &[2, 4], &[1f32, 2., 9., 9., 9., 9., 9., 9.]));
    let p = Case::new("Pad", 21, "reflect", vec![counted(&[3]), list(&[2, 1])]);
    v.push(expect(p.attr("mode", Attr::String(b"reflect".to_vec())), &[6], &[2f32, 1., 0., 1., 2., 1.]));
    let s = vec![counted(&[2, 2]), given(&[1, 2], &[1i64, 0]), given(&[1, 2], &[10f32, 20.])];
    let s = Case::new("ScatterElements", 18, "added", s).attr("reduction", Attr::String(b"add".to_vec()));
    v.push(expect(s, &[2, 2], &[0f32, 21., 12., 3.]));
    let s = vec![counted(&[2, 2]), given(&[1, 1], &[-1i64]), given(&[1, 2], &[8f32, 9.])];
    v.push(expect(Case::new("ScatterND", 18, "row", s), &[2, 2], &[0f32, 1., 8., 9.]));
    let s = vec![counted(&[1, 4, 1]), given(&[1, 2, 1], &[8f32, 9.]), given(&[1], &[3i64])];
    let s = Case::new("TensorScatter", 24, "circular", s).attr("mode", Attr::String(b"circular".to_vec()));
    v.push(expect(s, &[1, 4, 1], &[9f32, 1., 2., 8.]));
    let number = |n: i64| given(&[], &[n]);
    let r = Case::new("Range", 11, "down", vec![number(5), number(-1), number(-2)]);
    v.push(expect(r, &[3], &[5i64, 3, 1]));
    let o = vec![given(&[2], &[-1i64, 7]), list(&[3]), given(&[2], &[0f32, 5.])];
    v.push(expect(Case::new("OneHot", 11, "outside", o), &[2, 3], &[0f32, 0., 5., 0., 0., 0.]));
    let t = Case::new("Trilu", 14, "lower", vec![counted(&[2, 3]), number(1)]).attr("upper", Attr::Int(0));
    v.push(expect(t, &[2, 3], &[0f32, 1., 0., 3., 4., 5.]));
    let e = Case::new("EyeLike", 22, "above", vec![counted(&[2, 3])]).attr("k", Attr::Int(1));
    v.push(expect(e, &[2, 3], &[0f32, 1., 0., 0., 0., 1.]));
    let c = Case::new("Compress", 11, "flat", vec![counted(&[2, 2]), given(&[3], &[true, false, true])]);
    v.push(expect(c, &[2], &[0f32, 2.]));
    let n = Case::new("NonZero", 13, "matrix", vec![given(&[2, 2], &[0i32, 3, 0, -1])]);
    v.push(expect(n, &[2, 2], &[0i64, 1, 1, 1]));
    let mut u =
        Case::new("Unique", 11, "unsorted", vec![given(&[4], &[2f32, 1., 2., 3.])]).attr("sorted", Attr::Int(0));
    u.outputs = vec![true; 4];
    let u = expect(expect(u, &[3], &[2f32, 1., 3.]), &[3], &[0i64, 1, 3]);
    v.push(expect(expect(u, &[4], &[0i64, 1, 0, 2]), &[3], &[2i64, 1, 1]));
    let r = Case::new("ReverseSequence", 10, "time_first", vec![counted(&[3, 2]), given(&[2], &[2i64, 3])]);
    v.push(expect(r, &[3, 2], &[2f32, 5., 0., 3., 4., 1.]));
    v.extend(super::case_shapes::all());
    v
}
