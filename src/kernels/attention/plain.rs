//! Attention a row at a time in f64: what f64 and a softmax of that precision run, and what the tests compare with.

use super::{Attention, AttentionPtrs, Scores};
use crate::kernels::elem::{Elem, Narrow};
use half::{bf16, f16};

/// A stored float.
trait Stored: Copy {
    fn wide(self) -> f64;
    fn of(x: f64) -> Self;
}

macro_rules! stored {
    ($($t:ty, $wide:expr, $of:expr;)*) => { $(impl Stored for $t {
        fn wide(self) -> f64 { $wide(self) }
        fn of(x: f64) -> $t { $of(x) }
    })* };
}

stored! {
    f64, |x| x, |x| x;
    f32, f64::from, |x| x as f32;
    f16, f16::to_f64, Narrow::narrow_f64;
    bf16, bf16::to_f64, Narrow::narrow_f64;
}

/// Rows `first..first + count` of an item. `scratch` has room for a row of scores and one of values.
/// # Safety
/// The operands are valid by the plan's spec.
pub(super) unsafe fn rows(
    plan: &Attention,
    item: usize,
    first: usize,
    count: usize,
    p: &AttentionPtrs,
    scratch: *mut f64,
) {
    // SAFETY: the caller's.
    unsafe {
        match plan.spec.elem {
            Elem::F16 => rows_of::<f16>(plan, item, first, count, p, scratch),
            Elem::Bf16 => rows_of::<bf16>(plan, item, first, count, p, scratch),
            Elem::F64 => rows_of::<f64>(plan, item, first, count, p, scratch),
            _ => rows_of::<f32>(plan, item, first, count, p, scratch),
        }
    }
}

unsafe fn rows_of<T: Stored>(
    plan: &Attention,
    item: usize,
    first: usize,
    count: usize,
    p: &AttentionPtrs,
    scratch: *mut f64,
) {
    let s = &plan.spec;
    let (batch, kv) = (item / s.kv_heads, item % s.kv_heads);
    // SAFETY: rows, keys and values that exist.
    unsafe {
        let (scores, values) = (
            std::slice::from_raw_parts_mut(scratch, s.keys),
            std::slice::from_raw_parts_mut(scratch.add(s.keys), s.value_size),
        );
        for r in first..first + count {
            let (head, row) = plan.place(item, r);
            let (low, high) = plan.visible(batch, row, p);
            let q = p.q.cast::<T>().add(s.q.at(batch, head, row));
            let (from, to) = if s.scores.is_some() { (0, s.keys) } else { (low, high) };
            let out = p.scores.cast::<T>().wrapping_add(((batch * s.heads + head) * s.rows + row) * s.keys);
            for (j, x) in scores.iter_mut().enumerate().take(to).skip(from) {
                let k = p.k.cast::<T>().add(s.k.at(batch, kv, j));
                let mut sum = 0.0;
                for c in 0..s.size {
                    sum += (*q.add(c)).wide() * (*k.add(c)).wide();
                }
                *x = sum * s.scale;
                if s.scores == Some(Scores::Product) {
                    *out.add(j) = T::of(*x);
                }
                if s.cap > 0.0 {
                    let cap = f64::from(s.cap);
                    *x = (*x / cap).tanh() * cap;
                }
                if s.scores == Some(Scores::Capped) {
                    *out.add(j) = T::of(*x);
                }
                for (mask, &p) in s.masks.iter().zip(&p.masks) {
                    let Some(mask) = mask.filter(|m| j < m.cols) else { continue };
                    let at = mask.at(batch, head, row) + j * mask.col;
                    let y = read(mask.elem, p, at, mask.fill);
                    match mask.replaces {
                        true if y != 0.0 => *x = y,
                        true => {}
                        false => *x += y,
                    }
                }
                if !(low..high).contains(&j) {
                    *x = f64::NEG_INFINITY;
                }
                if s.scores == Some(Scores::Masked) {
                    *out.add(j) = T::of(*x);
                }
                if s.scores == Some(Scores::Seen) {
                    *out.add(j) = T::of(if *x == f64::NEG_INFINITY { 0.0 } else { *x });
                }
            }
            let seen = &mut scores[from..to];
            let top = seen.iter().fold(f64::NEG_INFINITY, |a, &b| if b > a { b } else { a });
            let mut sum = 0.0;
            for x in seen.iter_mut() {
                *x = match top {
                    // Nothing to attend to, or nothing but NaN, which no maximum takes.
                    f64::NEG_INFINITY if !x.is_nan() => 0.0,
                    _ => (*x - top).exp(),
                };
                sum += *x;
            }
            if !p.sinks.is_null() && top != f64::NEG_INFINITY {
                sum += (f64::from(*p.sinks.add(head)) - top).exp();
            }
            let k = if sum == 0.0 { sum } else { 1.0 / sum };
            values.fill(0.0);
            for (j, x) in scores.iter_mut().enumerate().take(to).skip(from) {
                *x *= k;
                if s.scores == Some(Scores::Softmax) {
                    *out.add(j) = T::of(*x);
                }
                if *x == 0.0 {
                    continue;
                }
                let v = p.v.cast::<T>().add(s.v.at(batch, kv, j));
                for (c, y) in values.iter_mut().enumerate() {
                    *y += *x * (*v.add(c)).wide();
                }
            }
            let y = p.y.cast::<T>().add(s.y.at(batch, head, row));
            values.iter().enumerate().for_each(|(c, x)| *y.add(c) = T::of(*x));
        }
    }
}

unsafe fn read(elem: Elem, p: *const u8, at: usize, fill: f32) -> f64 {
    // SAFETY: the caller's.
    unsafe {
        match elem {
            Elem::Bool => {
                if *p.add(at) != 0 {
                    0.0
                } else {
                    f64::from(fill)
                }
            }
            Elem::F16 => f64::from(*p.cast::<f16>().add(at)),
            Elem::Bf16 => f64::from(*p.cast::<bf16>().add(at)),
            Elem::F64 => *p.cast::<f64>().add(at),
            _ => f64::from(*p.cast::<f32>().add(at)),
        }
    }
}
