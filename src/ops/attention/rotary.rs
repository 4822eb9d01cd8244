//! Rotary position embedding.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Alias, Fact, InferCtx, Op, ParseCtx};
use crate::kernels::attention::Lie;
use crate::kernels::attention::rotary::Rotary;
use crate::ops::types::need_elem;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

/// What input 3 says of positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// A row of the caches for each token, or one number: that of the first token of each item.
    Rows,
    /// How many tokens each item has in all, less what is added here; the last ones are these.
    Lengths(i64),
    /// The position of the first token of each item.
    Starts,
}

/// Turns pairs of X by angles whose cosines and sines are inputs 1 and 2. Input 3: positions (without it the caches have a
/// row for each token, of each item or of all).
#[derive(Clone, Debug, PartialEq)]
pub struct RotaryEmbedding {
    /// Heads, where X has 3 axes: `[batch, rows, heads * size]`.
    pub heads: Option<usize>,
    /// Numbers of a head that are turned; 0 for all.
    pub size: usize,
    /// Pairs are neighbours, not an element of each half.
    pub interleaved: bool,
    /// The caches tell how many pairs of a head are turned, where `size` does not.
    pub partial: bool,
    /// The meaning of input 3.
    pub positions: Positions,
}

pub(super) fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(3, 4)?;
    let size = cx.int_or("rotary_embedding_dim", 0)?;
    ensure!((0..1 << 30).contains(&size) && size % 2 == 0, InvalidModel, "rotary_embedding_dim is {size}");
    Ok(Arc::new(RotaryEmbedding {
        heads: super::heads(cx, "num_heads")?,
        size: size as usize,
        interleaved: cx.flag("interleaved", false)?,
        partial: false,
        positions: Positions::Rows,
    }))
}

impl Op for RotaryEmbedding {
    fn name(&self) -> &'static str {
        "RotaryEmbedding"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::F32, DType::F16, DType::BF16])?;
        cx.expect_same_dtype(0, 1)?;
        cx.expect_same_dtype(0, 2)?;
        if cx.has(3) {
            cx.expect_dtype(3, &[DType::I64, DType::I32])?;
        }
        if let Some(r) = cx.tensor(0)?.rank() {
            ensure!(r == 4 || r == 3 && self.heads.is_some(), InvalidModel, "rotary embedding of {r} axes");
        }
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<RotaryEmbedding>(bind);
}

fn bind(op: &RotaryEmbedding, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, cos, sin) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let (batch, heads, rows, size, lie) = match (x.shape.as_slice(), op.heads) {
        (&[b, h, r, d], _) => (b, h, r, d, Lie::heads_first(h, r, d)),
        (&[b, r, all], Some(h)) => {
            ensure!(all % h == 0, InvalidModel, "{all} numbers do not make {h} heads");
            (b, h, r, all / h, Lie::rows_first(h, r, all / h))
        }
        (s, _) => bail!(InvalidModel, "rotary embedding of shape {s:?}"),
    };
    let turned = match op.size {
        0 if op.partial => cos.shape.last().map_or(0, |n| n.saturating_mul(2)),
        0 => size,
        n => n,
    };
    ensure!(turned <= size && turned % 2 == 0, InvalidModel, "{turned} of {size} numbers cannot be turned in pairs");
    let pairs = turned / 2;
    ensure!(cos.shape == sin.shape, InvalidModel, "cosines {:?} and sines {:?}", cos.shape, sin.shape);
    let positions = cx.opt_input(3);
    // Rows of the caches, and whether each item has its own.
    let cached = match (cos.shape.as_slice(), positions) {
        (&[n, p], Some(_)) if p == pairs => n,
        (&[b, r, p], None) if p == pairs && (b == batch || b == 1) && r == rows => b * r,
        (s, _) => bail!(InvalidModel, "cosines of shape {s:?} for {pairs} pairs of {batch} items of {rows} rows"),
    };
    let one = match (positions, op.positions) {
        (None, _) => false,
        (Some(o), Positions::Lengths(_) | Positions::Starts) => {
            ensure!(o.len() == batch, InvalidModel, "{} lengths for {batch} items", o.len());
            false
        }
        (Some(o), Positions::Rows) => {
            let one = o.len() == 1 && batch * rows != 1;
            ensure!(one || o.len() == batch * rows, InvalidModel, "positions {:?} of {batch} by {rows}", o.shape);
            one
        }
    };
    let wide = positions.is_some_and(|o| o.dtype == DType::I64);
    let given = positions.is_some();
    let meaning = op.positions;
    let elem = need_elem(x.dtype, op.name())?;
    let kernel = Rotary { isa: cx.isa, elem, len: size, pairs, interleaved: op.interleaved };
    let (tasks, per) = split(batch * rows, (8192 / (heads * size).max(1)).max(1));
    let bytes = elem.size();
    Ok(FnStep::boxed("rotary_embedding", tasks, kernel.scratch_bytes(), move |args, task, scratch| {
        // SAFETY: positions, rows of the caches (checked) and of X that exist (Step::run).
        let position = |i: usize| unsafe {
            if wide { *args.input::<i64>(3).add(i) } else { i64::from(*args.input::<i32>(3).add(i)) }
        };
        for i in task * per..(batch * rows).min((task + 1) * per) {
            let (b, r) = (i / rows, i % rows);
            let at = match meaning {
                _ if !given => (i % cached) as i64,
                Positions::Lengths(less) => {
                    position(b).saturating_sub(less).saturating_sub(rows as i64).max(0).saturating_add(r as i64)
                }
                Positions::Starts => position(b).saturating_add(r as i64),
                Positions::Rows if one => position(0).saturating_add(r as i64),
                Positions::Rows => position(i),
            };
            ensure!((0..cached as i64).contains(&at), Run, "position {at} is outside {cached} rows of cosines");
            let at = at as usize * pairs * bytes;
            // SAFETY: as above.
            unsafe {
                kernel.angles(args.input::<u8>(1).add(at), args.input::<u8>(2).add(at), scratch);
                for h in 0..heads {
                    let by = lie.at(b, h, r) * bytes;
                    kernel.row(args.input::<u8>(0).add(by), args.output::<u8>(0).add(by), scratch);
                }
            }
        }
        Ok(())
    }))
}
