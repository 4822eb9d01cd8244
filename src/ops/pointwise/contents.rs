//! Shape arithmetic: the contents of small integer tensors followed through elementwise operators.

use super::binary::BinaryFn;
use crate::ir::dim::DimOp;
use crate::ir::fact::MAX_CONTENTS;
use crate::ir::{Contents, Dim, TensorFact};
use crate::kernels::nd::{Nest, broadcast_strides};
use crate::tensor::DType;

/// Reads each listed operand's integers as they broadcast to `out`, and makes an element from each group.
fn zip(operands: &[&TensorFact], out: &TensorFact, f: impl Fn(&[&Dim]) -> Dim) -> Contents {
    let Some(shape) = out.shape() else { return Contents::Unknown };
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    if n.is_none_or(|n| n > MAX_CONTENTS) || operands.iter().all(|o| !matches!(o.contents, Contents::Dims(_))) {
        return Contents::Unknown;
    }
    let mut lists = Vec::with_capacity(operands.len());
    let mut strides = Vec::with_capacity(operands.len());
    for o in operands {
        let (Some(d), Some(s)) = (o.int_dims(), o.shape()) else { return Contents::Unknown };
        let Some(st) = broadcast_strides(&s, &shape) else { return Contents::Unknown };
        if d.len() != s.iter().product::<usize>() {
            return Contents::Unknown;
        }
        lists.push(d);
        strides.push(st);
    }
    let views: Vec<&[isize]> = strides.iter().map(|s| &s[..]).collect();
    let Ok(nest) = Nest::new(&shape, &views) else { return Contents::Unknown };
    let mut made = Vec::with_capacity(nest.len());
    nest.for_rows(0, nest.rows(), |o| {
        for i in 0..nest.inner() as isize {
            let group: Vec<&Dim> =
                lists.iter().enumerate().map(|(k, l)| &l[(o[k] + i * nest.inner_stride(k)) as usize]).collect();
            made.push(f(&group));
        }
    });
    if made.iter().all(|d| *d == Dim::Unknown) { Contents::Unknown } else { Contents::Dims(made) }
}

/// Whether a tensor of the type may hold sizes.
fn is_size_type(d: DType) -> bool {
    matches!(d, DType::I64 | DType::I32)
}

/// The contents of a binary operator's result.
pub fn binary(f: BinaryFn, a: &TensorFact, b: &TensorFact, out: &TensorFact) -> Contents {
    if !is_size_type(a.dtype) {
        return Contents::Unknown;
    }
    let arithmetic = |op: DimOp| zip(&[a, b], out, |x| Dim::binary(op, x[0], x[1]));
    match f {
        BinaryFn::Add => arithmetic(DimOp::Add),
        BinaryFn::Sub => arithmetic(DimOp::Sub),
        BinaryFn::Mul => arithmetic(DimOp::Mul),
        BinaryFn::Mod => arithmetic(DimOp::Mod),
        BinaryFn::Min => arithmetic(DimOp::Min),
        BinaryFn::Max => arithmetic(DimOp::Max),
        // Rounded towards zero, which is the floor where neither is negative: sizes never are, differences may be.
        BinaryFn::Div => zip(&[a, b], out, |x| match (x[0].known(), x[1].known()) {
            (Some(p), Some(q)) => p.checked_div(q).map_or(Dim::Unknown, Dim::Known),
            (None, Some(q)) if q > 0 && x[0].is_size() => x[0].floor_div(x[1]),
            _ => Dim::Unknown,
        }),
        BinaryFn::Equal => zip(&[a, b], out, |x| match (x[0].known(), x[1].known()) {
            (Some(p), Some(q)) => Dim::Known(i64::from(p == q)),
            _ if x[0].same(x[1]) => Dim::Known(1),
            // A size is never negative: exporters compare with -1.
            (None, Some(q)) if q < 0 && x[0].is_size() => Dim::Known(0),
            (Some(p), None) if p < 0 && x[1].is_size() => Dim::Known(0),
            _ => Dim::Unknown,
        }),
        _ => Contents::Unknown,
    }
}

/// The contents of Where's result.
pub fn select(c: &TensorFact, a: &TensorFact, b: &TensorFact, out: &TensorFact) -> Contents {
    if !is_size_type(a.dtype) {
        return Contents::Unknown;
    }
    zip(&[c, a, b], out, |x| match x[0].known() {
        Some(0) => x[2].clone(),
        Some(_) => x[1].clone(),
        None if x[1].same(x[2]) => x[1].clone(),
        None => Dim::Unknown,
    })
}
