//! Codes of caches of keys and values.

use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::step::split;
use crate::backend::{FnStep, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op};
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, ensure};

/// What is made of what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Codes of numbers.
    Encode,
    /// Numbers of codes.
    Decode,
    /// The numbers that the codes of numbers stand for.
    Round,
}

/// Numbers as codes of 8 or 4 bits times a scale. Two codes of 4 bits, moved by 8, make a byte; the first is its low half.
///
/// Inputs: the data, `[batch, heads, rows, size]` or `[batch, rows, heads * size]`, and its scale: one, or `[1, heads, 1, size]`.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheCode {
    /// What it does.
    pub way: Coding,
    /// 8 or 4.
    pub bits: usize,
    /// The type of codes: i8, or u8 for 4 bits.
    pub codes: DType,
    /// The type of numbers.
    pub float: DType,
}

impl Op for CacheCode {
    fn name(&self) -> &'static str {
        "CacheCode"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let decodes = self.way == Coding::Decode;
        cx.expect_dtype(0, &[if decodes { self.codes } else { self.float }])?;
        cx.expect_dtype(1, &[DType::F32, DType::F16, DType::BF16])?;
        let to = if self.way == Coding::Encode { self.codes } else { self.float };
        let Some(mut dims) = cx.tensor(0)?.dims.clone() else { return Ok(vec![Fact::any_tensor(to)]) };
        ensure!(matches!(dims.len(), 3 | 4), InvalidModel, "a cache of {} axes", dims.len());
        if let (4, Some(last)) = (self.bits, dims.last_mut()) {
            match self.way {
                Coding::Encode => *last = last.floor_div(&Dim::Known(2)),
                Coding::Decode => *last = last.clone() * Dim::Known(2),
                Coding::Round => {}
            }
        }
        Ok(vec![Fact::tensor(to, dims)])
    }
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<CacheCode>(bind);
}

fn bind(op: &CacheCode, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let (x, scale) = (cx.input(0)?, cx.input(1)?);
    let decodes = op.way == Coding::Decode;
    let numbers = if decodes { cx.output(0)?.shape.clone() } else { x.shape.clone() };
    // Rows of numbers; scales from one row to the next head's, and which head a row is of.
    let (rows, len, heads, each) = match numbers.as_slice() {
        &[b, h, r, d] => (product(&[b, h, r])?, d, h, r),
        &[b, r, all] => (product(&[b, r])?, all, 1, 1),
        s => bail!(InvalidModel, "a cache of shape {s:?}"),
    };
    let one = scale.len() == 1;
    ensure!(
        one || scale.len() == product(&[heads, len])?,
        InvalidModel,
        "a scale of {:?} for {numbers:?}",
        scale.shape
    );
    let four = op.bits == 4;
    ensure!(!four || len % 2 == 0, InvalidModel, "{len} codes of 4 bits do not fill bytes");
    let bytes = if four { len / 2 } else { len };
    let (tasks, per) = split(rows, (16 * 1024 / len.max(1)).max(1));
    let (way, least, most) = (op.way, if four { -8.0 } else { -128.0 }, if four { 7.0 } else { 127.0 });
    Ok(FnStep::boxed("cache_code", tasks, 0, move |args, task, _| {
        for row in task * per..rows.min((task + 1) * per) {
            // SAFETY: a row of each operand, and its scales (Step::run).
            unsafe {
                let scales = args.input::<f32>(1).add(if one { 0 } else { row / each.max(1) % heads.max(1) * len });
                let s = |i: usize| *scales.add(if one { 0 } else { i });
                let code = |x: f32, i: usize| (x / s(i)).round_ties_even().clamp(least, most);
                match way {
                    Coding::Round => {
                        let (from, to) = (args.input::<f32>(0).add(row * len), args.output::<f32>(0).add(row * len));
                        for i in 0..len {
                            *to.add(i) = code(*from.add(i), i) * s(i);
                        }
                    }
                    Coding::Encode => {
                        let (from, to) = (args.input::<f32>(0).add(row * len), args.output::<u8>(0).add(row * bytes));
                        for b in 0..bytes {
                            *to.add(b) = if four {
                                let half = |i: usize| (code(*from.add(i), i) as i32 + 8) as u8 & 15;
                                half(2 * b) | half(2 * b + 1) << 4
                            } else {
                                (code(*from.add(b), b) as i8).cast_unsigned()
                            };
                        }
                    }
                    Coding::Decode => {
                        let (from, to) = (args.input::<u8>(0).add(row * bytes), args.output::<f32>(0).add(row * len));
                        for i in 0..len {
                            let x = if four {
                                i32::from(*from.add(i / 2) >> (i % 2 * 4) & 15) - 8
                            } else {
                                i32::from((*from.add(i)).cast_signed())
                            };
                            *to.add(i) = x as f32 * s(i);
                        }
                    }
                }
            }
        }
        Ok(())
    }))
}
