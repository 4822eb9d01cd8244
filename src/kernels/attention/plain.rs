//! Attention a row at a time, in any float: what f64 runs, and what the tests compare with.

use super::{Attention, AttentionPtrs, Scores};
use crate::kernels::elem::Elem;
use crate::kernels::real::Real;
use half::{bf16, f16};

/// Rows `first..first + count` of an item. `scratch` has room for a row of scores and one of values.
/// # Safety
/// The operands are of type `T` and valid by the plan's spec.
pub(super) unsafe fn rows<T: Real>(
    plan: &Attention,
    item: usize,
    first: usize,
    count: usize,
    p: &AttentionPtrs,
    scratch: *mut T,
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
                let mut sum = T::of(0.0);
                for c in 0..s.size {
                    sum += *q.add(c) * *k.add(c);
                }
                *x = sum * T::of(s.scale);
                if s.scores == Some(Scores::Product) {
                    *out.add(j) = *x;
                }
                if s.cap > 0.0 {
                    let cap = T::of(f64::from(s.cap));
                    *x = Real::tanh(*x / cap) * cap;
                }
                if s.scores == Some(Scores::Capped) {
                    *out.add(j) = *x;
                }
                let mut add = if (low..high).contains(&j) { 0.0 } else { f64::NEG_INFINITY };
                for (m, mask) in s.masks.iter().enumerate() {
                    let Some(mask) = mask else { continue };
                    if j < mask.cols {
                        let at = mask.lie.at(batch, head, row) + j * mask.col;
                        add += read(mask.elem, p.masks[m], at, mask.fill);
                    }
                }
                *x = if add == f64::NEG_INFINITY { T::of(add) } else { *x + T::of(add) };
                if s.scores == Some(Scores::Masked) {
                    *out.add(j) = *x;
                }
            }
            let seen = &mut scores[from..to];
            let top = seen.iter().fold(T::LOWEST, |a, &b| if b > a { b } else { a });
            let mut sum = T::of(0.0);
            for x in seen.iter_mut() {
                *x = if top == T::LOWEST { T::of(0.0) } else { Real::exp(*x - top) };
                sum += *x;
            }
            if !p.sinks.is_null() && top != T::LOWEST {
                sum += Real::exp(T::of(f64::from(*p.sinks.add(head))) - top);
            }
            let k = if sum == T::of(0.0) { sum } else { T::of(1.0) / sum };
            values.fill(T::of(0.0));
            for (j, x) in scores.iter_mut().enumerate().take(to).skip(from) {
                *x = *x * k;
                if s.scores == Some(Scores::Softmax) {
                    *out.add(j) = *x;
                }
                if *x == T::of(0.0) {
                    continue;
                }
                let v = p.v.cast::<T>().add(s.v.at(batch, kv, j));
                for (c, y) in values.iter_mut().enumerate() {
                    *y += *x * *v.add(c);
                }
            }
            let y = p.y.cast::<T>().add(s.y.at(batch, head, row));
            values.iter().enumerate().for_each(|(c, x)| *y.add(c) = *x);
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
