//! The mask of SparseAttention: blocks of queries that see blocks of keys, in compressed rows.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op};
use crate::tensor::DType;
use crate::{bail, ensure};

/// Bool `[batch, heads, rows, total]`: whether the block of a row's place sees the block of a key. Head `h` has layout `h % layouts`.
///
/// Inputs: 0 where each block of rows begins among 1 `[layouts, blocks + 1]`, 1 the blocks that are seen `[layouts, ..]`, 2 the
/// length of each item, whose last rows are the queries, 3 the largest length, 4 queries `[batch, rows, ..]`, for their shape.
#[derive(Clone, Debug, PartialEq)]
pub struct BlockMask {
    /// How many.
    pub heads: usize,
    /// Rows and keys of a block.
    pub block: usize,
}

impl Op for BlockMask {
    fn name(&self) -> &'static str {
        "BlockMask"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        for i in 0..3 {
            cx.expect_dtype(i, &[DType::I32])?;
        }
        let total = cx.opt_tensor(3)?.and_then(|t| t.int_dims()).and_then(|d| d.first().cloned());
        let Some(q) = &cx.tensor(4)?.dims else { return Ok(vec![Fact::any_tensor(DType::Bool)]) };
        ensure!(q.len() >= 2, InvalidModel, "queries of {} axes", q.len());
        let dims = vec![q[0].clone(), Dim::of(self.heads), q[1].clone(), total.unwrap_or(Dim::Unknown)];
        Ok(vec![Fact::tensor(DType::Bool, dims)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<BlockMask>(bind);
}

fn bind(op: &BlockMask, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (starts, seen, lengths) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (&[layouts, ends], &[others, most]) = (starts.shape.as_slice(), seen.shape.as_slice()) else {
        bail!(InvalidModel, "blocks of {:?} and {:?}", starts.shape, seen.shape);
    };
    let &[batch, heads, rows, total] = cx.output(0)?.shape.as_slice() else {
        bail!(Internal, "a mask of {:?}", cx.output(0)?.shape);
    };
    let fits = layouts == others && layouts > 0 && heads % layouts == 0 && ends > 0 && lengths.len() == batch;
    ensure!(fits, InvalidModel, "{layouts} and {others} layouts for {heads} heads, {} lengths", lengths.len());
    let block = op.block;
    Ok(FnStep::boxed("block_mask", product(&[batch, heads])?, 0, move |args, task, _| {
        let (b, layout) = (task / heads, task % heads % layouts);
        // SAFETY: an item's length, a layout's blocks as far as they were checked, and a head's part of the output (Step::run).
        unsafe {
            let length = i64::from(*args.input::<i32>(2).add(b));
            let start = (length - rows as i64).max(0) as usize;
            let at = |i: usize| *args.input::<i32>(0).add(layout * ends + i);
            for r in 0..rows {
                let to = args.output::<u8>(0).add((task * rows + r) * total);
                std::ptr::write_bytes(to, 0, total);
                let of = (start + r) / block;
                // Rows after an item's end have no blocks.
                if of + 1 >= ends {
                    continue;
                }
                let (from, end) = (at(of), at(of + 1));
                let fits = from >= 0 && from <= end && end as usize <= most;
                ensure!(fits, Run, "row {of} of layout {layout} has blocks {from} to {end} of {most}");
                for i in from as usize..end as usize {
                    let c = *args.input::<i32>(1).add(layout * most + i);
                    ensure!(c >= 0, Run, "layout {layout} has block {c}");
                    let first = (c as usize).saturating_mul(block).min(total);
                    std::ptr::write_bytes(to.add(first), 1, block.min(total - first));
                }
            }
        }
        Ok(())
    }))
}
