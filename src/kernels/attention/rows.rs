//! What happens to rows of scores: cap, masks, and the softmax that is carried from block to block.

use super::{Attention, AttentionPtrs, Mask};
use crate::kernels::convert::load_strided;
use crate::kernels::elem::Elem;
use crate::kernels::simd::{F32, Kernel, dispatch};
use crate::kernels::vmath;

/// Rows of scores of one block, in a task's scratch.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub plan: &'a Attention,
    pub p: &'a AttentionPtrs,
    pub item: usize,
    /// The first of the item's rows, and how many.
    pub first: usize,
    pub count: usize,
    /// The first key, and how many.
    pub key: usize,
    pub keys: usize,
    pub scores: *mut f32,
    /// Room for a row of each mask.
    pub bias: *mut f32,
    /// The largest score and the sum of each row so far.
    pub top: *mut f32,
    pub sum: *mut f32,
    /// Room for the maxima before the block.
    pub was: *mut f32,
    /// The keys that each row sees, where all see the same.
    pub alike: Option<(usize, usize)>,
    /// The scaled queries.
    pub queries: *mut f32,
    /// Each row's weighted values so far, which a new maximum shrinks; null in the first block.
    pub values: *mut f32,
}

impl Rows<'_> {
    /// What the weighted values of a row are multiplied by: 0 for a row without anything to attend to.
    #[inline(always)]
    pub unsafe fn reciprocal(&self, i: usize) -> f32 {
        // SAFETY: a maximum and a sum a row, a sink a head.
        unsafe {
            let mut sum = *self.sum.add(i);
            if !self.p.sinks.is_null() {
                let (head, _) = self.plan.place(self.item, self.first + i);
                sum += (*self.p.sinks.add(head) - *self.top.add(i)).exp();
            }
            if sum == 0.0 { 0.0 } else { 1.0 / sum }
        }
    }
    /// Bounds the scores.
    /// # Safety
    /// The scores are there.
    pub unsafe fn cap(&self) {
        for r in 0..self.count {
            // SAFETY: row r of the scores; a row has room for whole vectors.
            let row = unsafe { self.scores.add(r * self.plan.s_row) };
            dispatch(self.plan.isa, Cap { row, n: self.keys, cap: self.plan.spec.cap });
        }
    }
    /// Applies the masks; what a row may not see becomes -Inf.
    /// # Safety
    /// The scores, the masks and the room for a row are there.
    pub unsafe fn mask(&self) {
        dispatch(self.plan.isa, Softmax { rows: *self, only_mask: true, masked: false })
    }
    /// Turns scores into weights: `exp(score - maximum)`. `masked` says that `mask` was called before.
    /// # Safety
    /// The scores, the masks, the rooms, and sums and maxima are there.
    pub unsafe fn softmax(&self, masked: bool) {
        dispatch(self.plan.isa, Softmax { rows: *self, only_mask: false, masked })
    }

    /// Keys `from..to` of the block as mask `which` has them for one row, from key `from` on: in the mask itself or in `bias`.
    /// `last` is what the last call had written there.
    unsafe fn bias(
        &self,
        which: usize,
        row: usize,
        from: usize,
        to: usize,
        last: &mut Option<[usize; 3]>,
    ) -> Option<(*const f32, &Mask)> {
        let s = &self.plan.spec;
        let m = s.masks[which].as_ref()?;
        let (head, i) = self.plan.place(self.item, row);
        let at = m.at(self.item / s.kv_heads, head, i) + (self.key + from) * m.col;
        let p = self.p.masks[which].wrapping_add(at * m.elem.size());
        if m.elem == Elem::F32 && m.col == 1 {
            return Some((p.cast(), m));
        }
        // SAFETY: `bias` has room for a block's keys of each mask; the mask has them.
        let out = unsafe { std::slice::from_raw_parts_mut(self.bias.add(which * self.plan.s_row + from), to - from) };
        let to_do = [p as usize, from, to];
        if *last != Some(to_do) {
            *last = Some(to_do);
            // SAFETY: as above.
            unsafe {
                match m.elem {
                    Elem::Bool => {
                        let number = |on: u8| if on != 0 { 0.0 } else { m.fill };
                        match m.col {
                            1 => out.iter_mut().enumerate().for_each(|(j, x)| *x = number(*p.add(j))),
                            _ => out.fill(number(*p)),
                        }
                    }
                    Elem::F64 => {
                        let p = p.cast::<f64>();
                        out.iter_mut().enumerate().for_each(|(j, x)| *x = *p.add(j * m.col) as f32);
                    }
                    e => load_strided(self.plan.isa, e, p, m.col as isize, out.as_mut_ptr(), out.len()),
                }
            }
        }
        Some((out.as_ptr(), m))
    }
}

struct Cap {
    row: *mut f32,
    n: usize,
    cap: f32,
}

impl Kernel for Cap {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let (cap, inverse) = (V::splat(self.cap), V::splat(1.0 / self.cap));
        for j in (0..self.n).step_by(V::LANES) {
            // SAFETY: rows of scores have room for whole vectors.
            unsafe { (vmath::tanh(V::load(self.row.add(j)) * inverse) * cap).store(self.row.add(j)) };
        }
    }
}

struct Softmax<'a> {
    rows: Rows<'a>,
    only_mask: bool,
    masked: bool,
}

impl Softmax<'_> {
    /// What row `i` sees of the block, and whole vectors around that.
    #[inline(always)]
    unsafe fn span<V: F32>(&self, i: usize) -> (usize, usize, usize, usize) {
        let r = &self.rows;
        let (low, high) = match r.alike {
            Some(span) => span,
            // SAFETY: the caller's row.
            None => unsafe { r.plan.visible(r.item / r.plan.spec.kv_heads, (r.first + i) % r.plan.spec.rows, r.p) },
        };
        let (a, b) = (low.clamp(r.key, r.key + r.keys) - r.key, high.clamp(r.key, r.key + r.keys) - r.key);
        if a < b { (a, b, a / V::LANES * V::LANES, b.next_multiple_of(V::LANES)) } else { (a, b, 0, 0) }
    }

    /// Applies the masks to a row.
    #[inline(always)]
    unsafe fn mask<V: F32>(&self, i: usize, last: &mut [Option<[usize; 3]>; 2]) {
        let r = &self.rows;
        // SAFETY: row i of the scores, which has room for whole vectors, and of what goes with it.
        unsafe {
            let row = r.scores.add(i * r.plan.s_row);
            let (a, b, first, end) = self.span::<V>(i);
            for (which, last) in last.iter_mut().enumerate() {
                let Some((bias, m)) = r.bias(which, r.first + i, first, b.max(first), last) else { continue };
                if m.replaces {
                    for j in (first..end).step_by(V::LANES) {
                        let y = load_part::<V>(bias.add(j - first), b - j);
                        V::select(y.eq(V::zero()), V::load(row.add(j)), y).store(row.add(j));
                    }
                    continue;
                }
                for j in (first..end).step_by(V::LANES) {
                    (V::load(row.add(j)) + load_part::<V>(bias.add(j - first), b - j)).store(row.add(j));
                }
            }
            let rest = if self.only_mask { f32::NEG_INFINITY } else { 0.0 };
            fill(row, 0, first, rest);
            fill(row, first, a.max(first), f32::NEG_INFINITY);
            fill(row, b.max(first), end, f32::NEG_INFINITY);
            fill(row, end, r.keys.next_multiple_of(V::LANES), rest);
        }
    }
}

impl Kernel for Softmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let r = &self.rows;
        let plan = r.plan;
        let value_size = plan.spec.value_size;
        let mut last = [None; 2];
        // All maxima first: a row's exponentials need not wait for its own.
        for i in 0..r.count {
            // SAFETY: row i of the scores, which has room for whole vectors, and of what goes with it.
            unsafe {
                if !self.masked {
                    self.mask::<V>(i, &mut last);
                }
                if self.only_mask {
                    continue;
                }
                let row = r.scores.add(i * plan.s_row);
                let (_, _, first, end) = self.span::<V>(i);
                let mut most = V::splat(f32::NEG_INFINITY);
                for j in (first..end).step_by(V::LANES) {
                    most = V::load(row.add(j)).max(most);
                }
                let before = *r.top.add(i);
                *r.was.add(i) = before;
                *r.top.add(i) = before.max(most.max_lane());
            }
        }
        if self.only_mask {
            return;
        }
        for i in 0..r.count {
            // SAFETY: as above.
            unsafe {
                let row = r.scores.add(i * plan.s_row);
                let (_, _, first, end) = self.span::<V>(i);
                let whole = r.keys.next_multiple_of(V::LANES);
                let (before, top) = (*r.was.add(i), *r.top.add(i));
                if top == f32::NEG_INFINITY {
                    // Nothing to attend to so far, or nothing but NaN, which no maximum takes.
                    if (first..end).any(|j| (*row.add(j)).is_nan()) {
                        *r.sum.add(i) = f32::NAN;
                    }
                    fill(row, 0, whole, 0.0);
                    continue;
                }
                if self.masked {
                    fill(row, 0, first, 0.0);
                    fill(row, end, whole, 0.0);
                }
                let (vtop, mut sum) = (V::splat(top), V::zero());
                for j in (first..end).step_by(V::LANES) {
                    let e = vmath::exp_of_nonpositive(V::load(row.add(j)) - vtop);
                    e.store(row.add(j));
                    sum = sum + e;
                }
                let shrink = if before == top {
                    1.0
                } else if before == f32::NEG_INFINITY {
                    0.0
                } else {
                    (before - top).exp()
                };
                *r.sum.add(i) = *r.sum.add(i) * shrink + sum.sum();
                if !r.values.is_null() && shrink != 1.0 {
                    let o = r.values.add(i * value_size);
                    let k = V::splat(shrink);
                    for j in (0..value_size).step_by(V::LANES) {
                        let n = V::LANES.min(value_size - j);
                        (load_part::<V>(o.add(j), n) * k).store_n(o.add(j), n);
                    }
                }
            }
        }
    }
}

/// Rows of f32 times a number each.
pub(super) struct Scale<'a> {
    pub rows: &'a Rows<'a>,
    pub what: Scaled,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Scaled {
    /// Queries into `queries`, padded with zeros.
    Queries,
    /// Weighted values divided by their sums, into the result.
    Values,
}

impl Kernel for Scale<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let r = self.rows;
        let (plan, s) = (r.plan, &r.plan.spec);
        let batch = r.item / s.kv_heads;
        for i in 0..r.count {
            let (head, row) = plan.place(r.item, r.first + i);
            // SAFETY: a row of f32 queries, values or results, and the room for it.
            unsafe {
                let (from, to, n, k) = if self.what == Scaled::Queries {
                    let from = r.p.q.cast::<f32>().add(s.q.at(batch, head, row));
                    (from, r.queries.add(i * plan.q_row), s.size, s.scale as f32)
                } else {
                    let to = r.p.y.cast::<f32>().add(s.y.at(batch, head, row));
                    (r.values.add(i * s.value_size).cast_const(), to, s.value_size, r.reciprocal(i))
                };
                let k = V::splat(k);
                let whole = n / V::LANES * V::LANES;
                for j in (0..whole).step_by(V::LANES) {
                    (V::load(from.add(j)) * k).store(to.add(j));
                }
                if whole < n {
                    (V::load_n(from.add(whole), n - whole) * k).store_n(to.add(whole), n - whole);
                }
                if self.what == Scaled::Queries {
                    fill(to, n, plan.q_row, 0.0);
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn load_part<V: F32>(p: *const f32, n: usize) -> V {
    // SAFETY: the caller's: min(n, LANES) values are there.
    unsafe { if n >= V::LANES { V::load(p) } else { V::load_n(p, n) } }
}

#[inline(always)]
unsafe fn fill(row: *mut f32, from: usize, to: usize, x: f32) {
    for j in from..to {
        // SAFETY: the caller's row.
        unsafe { *row.add(j) = x };
    }
}

/// Scores of few rows: dot products of queries, which are padded with zeros to whole vectors, with keys.
pub(crate) struct Dots {
    pub q: *const f32,
    pub q_row: usize,
    pub rows: usize,
    pub k: *const f32,
    pub k_row: usize,
    pub keys: usize,
    pub size: usize,
    pub out: *mut f32,
    pub out_row: usize,
}

impl Kernel for Dots {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        const AT_ONCE: usize = 4;
        let whole = self.size / V::LANES * V::LANES;
        for j in (0..self.keys).step_by(AT_ONCE) {
            // A last group repeats the last key.
            let mut k = [self.k; AT_ONCE];
            for (u, k) in k.iter_mut().enumerate() {
                *k = self.k.wrapping_add((j + u).min(self.keys - 1) * self.k_row);
            }
            for r in 0..self.rows {
                // SAFETY: the rows of queries and keys exist, as the caller of `dispatch` says.
                unsafe {
                    let q = self.q.add(r * self.q_row);
                    let mut acc = [V::zero(); AT_ONCE];
                    for c in (0..whole).step_by(V::LANES) {
                        let x = V::load(q.add(c));
                        for u in 0..AT_ONCE {
                            acc[u] = x.mul_add(V::load(k[u].add(c)), acc[u]);
                        }
                    }
                    if whole < self.size {
                        let x = V::load(q.add(whole));
                        for u in 0..AT_ONCE {
                            acc[u] = x.mul_add(V::load_n(k[u].add(whole), self.size - whole), acc[u]);
                        }
                    }
                    for u in 0..AT_ONCE.min(self.keys - j) {
                        *self.out.add(r * self.out_row + j + u) = acc[u].sum();
                    }
                }
            }
        }
    }
}
