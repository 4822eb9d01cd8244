//! Einsum of two operands as a product of matrices, which other passes know: axes are put in order, and several that are summed
//! or kept together are one.

use crate::error::Result;
use crate::ir::{Dim, NodeId, ValueId};
use crate::ops::einsum::Einsum;
use crate::ops::linear::MatMul;
use crate::ops::movement::Transpose;
use crate::optimize::{Pass, PassCtx};
use crate::tensor::DType;
use std::sync::Arc;

/// `bihd,bjhd->bhij`, `abc,cde->abde`.
pub struct Products;

impl Pass for Products {
    fn name(&self) -> &'static str {
        "einsum"
    }
    fn run(&self, cx: &mut PassCtx<'_, '_>) -> Result<()> {
        for id in cx.order() {
            fuse(cx, id)?;
        }
        Ok(())
    }
}

fn fuse(cx: &mut PassCtx<'_, '_>, id: NodeId) -> Result<()> {
    let Some([mut a, mut b, out]) = cx.op::<Einsum>(id).and_then(Einsum::pair) else { return Ok(()) };
    let node = cx.graph().node(id);
    let (&[Some(mut x), Some(mut y)], &[Some(result)]) = (&node.inputs[..], &node.outputs[..]) else { return Ok(()) };
    if !cx.dtype(x).is_some_and(|d| matches!(d, DType::F32 | DType::F64 | DType::F16 | DType::BF16)) {
        return Ok(());
    }
    // What is kept last is of the right operand.
    if out.last().is_some_and(|c| !b.contains(c)) {
        (a, b, x, y) = (b, a, y, x);
    }
    let of =
        |letters: &[u8], test: &dyn Fn(&u8) -> bool| letters.iter().copied().filter(|c| test(c)).collect::<Vec<u8>>();
    let both = of(&out, &|c| a.contains(c) && b.contains(c));
    let (rows, columns) = (of(&out, &|c| !b.contains(c)), of(&out, &|c| !a.contains(c)));
    let summed = of(&a, &|c| b.contains(c) && !out.contains(c));
    let alone = |own: &[u8], other: &[u8]| own.iter().any(|c| !other.contains(c) && !out.contains(c));
    let single = rows.len() == 1 && columns.len() == 1 && summed.len() == 1;
    if alone(&a, &b) || alone(&b, &a) || summed.is_empty() || columns.is_empty() || !both.is_empty() && !single {
        return Ok(());
    }
    let (Some(dx), Some(dy)) = (cx.dims(x).map(<[Dim]>::to_vec), cx.dims(y).map(<[Dim]>::to_vec)) else {
        return Ok(());
    };
    if dx.len() != a.len() || dy.len() != b.len() {
        return Ok(());
    }
    let size = |c: &u8| {
        let at = |letters: &[u8], dims: &[Dim]| letters.iter().position(|l| l == c).and_then(|i| dims.get(i).cloned());
        (at(&a, &dx), at(&b, &dy))
    };
    // No axis is repeated for the other operand's sake.
    let same = |c: &u8| matches!(size(c), (Some(p), Some(q)) if p.same(&q));
    if !both.iter().chain(&summed).all(same) {
        cx.miss(id, || "the operands' sizes are not known to be the same".into());
        return Ok(());
    }
    // Several axes in one: their sizes are numbers.
    let known =
        |letters: &[u8]| letters.iter().map(|c| size(c).1?.size().filter(|&n| n > 0)).collect::<Option<Vec<_>>>();
    let (kept, inner) = match (known(&columns), known(&summed)) {
        (Some(kept), Some(inner)) => (kept, inner),
        _ if single => (vec![1], vec![1]),
        _ => {
            cx.miss(id, || "several axes are one, and not all of their sizes are known".into());
            return Ok(());
        }
    };
    let (k, n) = (inner.iter().product::<usize>() as i64, kept.iter().product::<usize>() as i64);
    let name = cx.graph().value(result).name.clone();
    let mut left = ordered(cx, x, &a, &[&both[..], &rows, &summed].concat())?;
    if summed.len() > 1 {
        left = cx.reshape(left, &[vec![0; rows.len()], vec![k]].concat())?;
    }
    let mut right = ordered(cx, y, &b, &[&both[..], &summed, &columns].concat())?;
    if summed.len() > 1 || columns.len() > 1 {
        right = cx.reshape(right, &[k, n])?;
    }
    let mut product =
        cx.edit.node(&format!("{name}.product"), Arc::new(MatMul::default()), vec![Some(left), Some(right)], 1)?[0];
    if columns.len() > 1 {
        let sizes: Vec<i64> = kept.iter().map(|&n| n as i64).collect();
        product = cx.reshape(product, &[vec![0; rows.len()], sizes].concat())?;
    }
    let last = ordered(cx, product, &[&both[..], &rows, &columns].concat(), &out)?;
    let Some((last, _)) = cx.graph().value(last).producer else { return Ok(()) };
    cx.edit.move_output(last, 0, result);
    cx.edit.remove(id);
    cx.fired();
    Ok(())
}

/// The value, whose axes have the letters `own`, with its axes in the order of `to`.
fn ordered(cx: &mut PassCtx<'_, '_>, v: ValueId, own: &[u8], to: &[u8]) -> Result<ValueId> {
    let perm: Vec<usize> = to.iter().filter_map(|c| own.iter().position(|o| o == c)).collect();
    if perm.is_sorted() {
        return Ok(v);
    }
    let name = format!("{}.ordered", cx.graph().value(v).name);
    Ok(cx.edit.node(&name, Arc::new(Transpose { perm: Some(perm) }), vec![Some(v)], 1)?[0])
}
