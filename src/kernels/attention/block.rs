//! A task of attention: a block of rows over a part of the keys; packing before, merging after.

use super::rows::{Dots, Rows, Scale, Scaled};
use super::{Attention, AttentionPtrs, Path, Scores, plain};
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::Elem;
use crate::kernels::gemm::Activation;
use crate::kernels::gemm::multiply::{Job, k_block, multiply};
use crate::kernels::gemm::pack::{BSource, Packed, Strided};
use crate::kernels::simd::dispatch;
use std::ptr::{null, null_mut};

impl Attention {
    /// Packs a step of panels of one item's keys, and widens those keys' values.
    pub(super) unsafe fn pack(&self, item: usize, step: usize, p: &AttentionPtrs, ws: *mut f32, scratch: *mut f32) {
        let s = &self.spec;
        let (batch, head, width) = (item / s.kv_heads, item % s.kv_heads, self.set.panel);
        let size = s.elem.size();
        let panels = s.keys.div_ceil(width);
        let first = step * self.pack_step();
        // SAFETY: panels, keys and values that exist; the workspace has room for all of them.
        unsafe {
            let to = ws.add(item * self.packed_k);
            let values = ws.add(self.items() * self.packed_k + item * self.wide_v);
            for panel in first..panels.min(first + self.pack_step()) {
                let key = panel * width;
                let n = width.min(s.keys - key);
                let from = p.k.add(s.k.at(batch, head, key) * size);
                let (b, col) = if s.elem == Elem::F32 {
                    (from.cast::<f32>(), s.k.row)
                } else {
                    let wide = scratch.add(self.room.k);
                    for j in 0..n {
                        load_strided(self.isa, s.elem, from.add(j * s.k.row * size), 1, wide.add(j * s.size), s.size);
                        let v = p.v.add(s.v.at(batch, head, key + j) * size);
                        load_strided(self.isa, s.elem, v, 1, values.add((key + j) * s.value_size), s.value_size);
                    }
                    (wide.cast_const(), s.size)
                };
                let source = Strided { isa: self.isa, b, row: 1, col, n, width, alpha: 1.0, in_place: false };
                source.pack(0, 0, s.size, to.add(panel * s.size * width));
            }
        }
    }

    /// A block of an item's rows over one part of the keys.
    pub(super) unsafe fn block(
        &self,
        item: usize,
        row_block: usize,
        part: usize,
        p: &AttentionPtrs,
        ws: *mut f32,
        scratch: *mut f32,
    ) {
        let s = &self.spec;
        let first = row_block * self.block_rows;
        let count = self.block_rows.min(self.shared_rows - first);
        if self.path == Path::Plain {
            // SAFETY: the caller's contract.
            return unsafe { plain::rows(self, item, first, count, p, scratch.cast()) };
        }
        let (batch, head) = (item / s.kv_heads, item % s.kv_heads);
        let mut rows = self.rows(item, first, count, p, scratch);
        let (q, scores, top, sum) = (rows.queries, rows.scores, rows.top, rows.sum);
        let values = scratch.wrapping_add(self.room.o);
        // SAFETY: rows first..first + count of the item; the scratch was measured for a block.
        unsafe {
            self.load_queries(&rows);
            for i in 0..count {
                *top.add(i) = f32::NEG_INFINITY;
                *sum.add(i) = 0.0;
            }
            // The keys that some row sees; all of them where the scores are asked for.
            let (mut low, mut high) = (usize::MAX, 0);
            if !s.causal && s.left.is_none() && s.right.is_none() {
                (low, high) = self.visible(batch, 0, p);
                rows.alike = Some((low, high));
            } else {
                for i in 0..count {
                    let (a, b) = self.visible(batch, (first + i) % s.rows, p);
                    if a < b {
                        (low, high) = (low.min(a), high.max(b));
                    }
                }
            }
            if s.scores.is_some() {
                (low, high) = (0, s.keys);
            }
            let (part_low, part_high) = (part * self.part_keys, s.keys.min((part + 1) * self.part_keys));
            let (low, high) = (low.max(part_low) / self.set.panel * self.set.panel, high.min(part_high));
            let mut key = low;
            while key < high {
                let n = self.block_keys.min(high - key);
                (rows.key, rows.keys) = (key, n);
                self.score(&rows, q, batch, head, ws, scratch);
                let masked = self.stages(&rows);
                rows.softmax(masked);
                self.weigh(&rows, values, batch, head, ws, scratch);
                rows.values = values;
                key += n;
            }
            if rows.values.is_null() {
                std::ptr::write_bytes(values, 0, count * s.value_size);
            }
            if s.scores == Some(Scores::Softmax) {
                for i in 0..count {
                    let (row, k) = (scores.add(i * self.s_row), reciprocal(*sum.add(i)));
                    for j in 0..s.keys {
                        *row.add(j) *= k;
                    }
                }
                self.store_scores(&rows);
            }
            if self.parts > 1 {
                let to = ws.add(
                    self.partials_at()
                        + ((item * self.row_blocks + row_block) * self.parts + part) * self.partial_len(),
                );
                std::ptr::copy_nonoverlapping(top, to, count);
                std::ptr::copy_nonoverlapping(sum, to.add(self.block_rows), count);
                std::ptr::copy_nonoverlapping(values, to.add(2 * self.block_rows), count * s.value_size);
            } else {
                rows.values = values;
                self.finish(&rows);
            }
        }
    }

    /// Scaled and widened, padded with zeros.
    unsafe fn load_queries(&self, r: &Rows<'_>) {
        let s = &self.spec;
        if s.elem == Elem::F32 {
            return dispatch(self.isa, Scale { rows: r, what: Scaled::Queries });
        }
        let scale = s.scale as f32;
        for i in 0..r.count {
            let (head, row) = self.place(r.item, r.first + i);
            // SAFETY: the row exists; `queries` has room for `q_row` a row.
            unsafe {
                let from = r.p.q.add(s.q.at(r.item / s.kv_heads, head, row) * s.elem.size());
                let to = r.queries.add(i * self.q_row);
                load_strided(self.isa, s.elem, from, 1, to, s.size);
                for j in 0..s.size {
                    *to.add(j) *= scale;
                }
                for j in s.size..self.q_row {
                    *to.add(j) = 0.0;
                }
            }
        }
    }

    /// Scores of the block's rows and keys.
    unsafe fn score(&self, r: &Rows<'_>, q: *const f32, batch: usize, head: usize, ws: *mut f32, scratch: *mut f32) {
        let s = &self.spec;
        let size = s.elem.size();
        // SAFETY: keys r.key.. of the item, all of which exist.
        unsafe {
            if self.path == Path::Dots {
                let mut k = p_at(r.p.k, s.k.at(batch, head, r.key) * size).cast::<f32>();
                let mut k_row = s.k.row;
                if s.elem != Elem::F32 {
                    let wide = scratch.add(self.room.k);
                    self.widen(k.cast(), k_row, r.keys, s.size, wide);
                    (k, k_row) = (wide, s.size);
                }
                let (keys, rows, size) = (r.keys, r.count, s.size);
                let (out, out_row, q_row) = (r.scores, self.s_row, self.q_row);
                return dispatch(self.isa, Dots { q, q_row, rows, k, k_row, keys, size, out, out_row });
            }
            let width = self.set.panel;
            let panels = r.key / width..(r.key + r.keys).div_ceil(width);
            let job = Job {
                n: s.keys.min(r.key + r.keys),
                k: s.size,
                kc: k_block(s.size),
                a: q,
                a_row: self.q_row,
                c: r.scores.wrapping_sub(r.key),
                c_row: self.s_row,
                panels,
                ..self.job(r.count)
            };
            let gemm = scratch.add(self.room.gemm);
            if self.packs {
                let b = ws.add((batch * s.kv_heads + head) * self.packed_k).cast_const();
                product(&job, &Packed { b, k: s.size, width }, gemm);
            } else {
                let b = p_at(r.p.k, s.k.at(batch, head, 0) * size).cast::<f32>();
                let (isa, n) = (self.isa, s.keys);
                product(&job, &Strided { isa, b, row: 1, col: s.k.row, n, width, alpha: 1.0, in_place: false }, gemm);
            }
        }
    }

    /// Adds the block's weighted values.
    unsafe fn weigh(&self, r: &Rows<'_>, values: *mut f32, batch: usize, head: usize, ws: *mut f32, scratch: *mut f32) {
        let s = &self.spec;
        if s.value_size == 0 {
            return;
        }
        // SAFETY: values of keys r.key.. of the item, all of which exist.
        unsafe {
            let mut v = p_at(r.p.v, s.v.at(batch, head, r.key) * s.elem.size()).cast::<f32>();
            let mut row = s.v.row;
            if s.elem != Elem::F32 {
                if self.packs {
                    let item = batch * s.kv_heads + head;
                    v = ws.add(self.items() * self.packed_k + item * self.wide_v + r.key * s.value_size);
                } else {
                    let wide = scratch.add(self.room.v);
                    self.widen(v.cast(), row, r.keys, s.value_size, wide);
                    v = wide;
                }
                row = s.value_size;
            }
            let (isa, n, width) = (self.isa, s.value_size, self.set.panel);
            let job = Job {
                n,
                k: r.keys,
                kc: k_block(r.keys),
                a: r.scores,
                a_row: self.s_row,
                c: values,
                c_row: n,
                residual: if r.values.is_null() { null() } else { values },
                residual_row: n,
                panels: 0..n.div_ceil(width),
                ..self.job(r.count)
            };
            let source = Strided { isa, b: v, row, col: 1, n, width, alpha: 1.0, in_place: true };
            product(&job, &source, scratch.add(self.room.gemm));
        }
    }

    unsafe fn widen(&self, from: *const u8, row: usize, rows: usize, len: usize, to: *mut f32) {
        let elem = self.spec.elem;
        for j in 0..rows {
            // SAFETY: the caller's rows.
            unsafe { load_strided(self.isa, elem, from.add(j * row * elem.size()), 1, to.add(j * len), len) };
        }
    }

    fn job(&self, m: usize) -> Job {
        Job {
            isa: self.isa,
            set: self.set,
            m,
            n: 0,
            k: 0,
            kc: 0,
            a: null(),
            a_row: 0,
            a_col: 1,
            c: null_mut(),
            c_row: 0,
            bias_col: null(),
            bias_row: null(),
            residual: null(),
            residual_row: 0,
            activation: Activation::None,
            panels: 0..0,
        }
    }

    /// Caps the scores, and writes out the stage that is asked for. Returns whether the masks were added.
    unsafe fn stages(&self, r: &Rows<'_>) -> bool {
        let s = &self.spec;
        // SAFETY: the block's scores.
        unsafe {
            if s.scores == Some(Scores::Product) {
                self.store_scores(r);
            }
            if s.cap > 0.0 {
                r.cap();
            }
            if s.scores == Some(Scores::Capped) {
                self.store_scores(r);
            }
            if matches!(s.scores, Some(Scores::Masked | Scores::Seen)) {
                r.mask();
                self.store_scores(r);
                return true;
            }
        }
        false
    }

    /// Writes rows of all keys out.
    unsafe fn store_scores(&self, r: &Rows<'_>) {
        let s = &self.spec;
        for i in 0..r.count {
            let (head, row) = self.place(r.item, r.first + i);
            let to = ((r.item / s.kv_heads * s.heads + head) * s.rows + row) * s.keys;
            // SAFETY: the row of the output.
            unsafe {
                let to = r.p.scores.add(to * s.elem.size());
                let mut from = r.scores.add(i * self.s_row);
                if s.scores == Some(Scores::Seen) {
                    for j in 0..s.keys {
                        let x = *from.add(j);
                        *r.bias.add(j) = if x == f32::NEG_INFINITY { 0.0 } else { x };
                    }
                    from = r.bias;
                }
                store_strided(self.isa, from, 1, s.elem, to, 1, s.keys);
            }
        }
    }

    /// Divides each row's weighted values by its sum and writes them out.
    unsafe fn finish(&self, r: &Rows<'_>) {
        let s = &self.spec;
        if s.elem == Elem::F32 {
            return dispatch(self.isa, Scale { rows: r, what: Scaled::Values });
        }
        for i in 0..r.count {
            let (head, row) = self.place(r.item, r.first + i);
            // SAFETY: a row of values and of the output.
            unsafe {
                let (k, values) = (r.reciprocal(i), r.values.add(i * s.value_size));
                for j in 0..s.value_size {
                    *values.add(j) *= k;
                }
                let to = r.p.y.add(s.y.at(r.item / s.kv_heads, head, row) * s.elem.size());
                store_strided(self.isa, values, 1, s.elem, to, 1, s.value_size);
            }
        }
    }

    /// Some rows of an item with their places in the scratch, before the first block of keys.
    fn rows<'a>(
        &'a self,
        item: usize,
        first: usize,
        count: usize,
        p: &'a AttentionPtrs,
        scratch: *mut f32,
    ) -> Rows<'a> {
        let (room, at) = (&self.room, |n: usize| scratch.wrapping_add(n));
        Rows {
            plan: self,
            p,
            item,
            first,
            count,
            key: 0,
            keys: 0,
            scores: at(room.s),
            bias: at(room.bias),
            top: at(room.top),
            sum: at(room.sum),
            was: at(room.was),
            alike: None,
            queries: at(room.q),
            values: null_mut(),
        }
    }

    /// Puts the parts of a block of rows together.
    pub(super) unsafe fn merge(&self, block: usize, p: &AttentionPtrs, ws: *mut f32, scratch: *mut f32) {
        let s = &self.spec;
        let (item, row_block) = (block / self.row_blocks, block % self.row_blocks);
        let first = row_block * self.block_rows;
        let count = self.block_rows.min(self.shared_rows - first);
        let mut rows = self.rows(item, first, count, p, scratch);
        rows.values = scratch.wrapping_add(self.room.o);
        // SAFETY: the parts that the phase before wrote.
        unsafe {
            std::ptr::write_bytes(rows.values, 0, count * s.value_size);
            let part = |k: usize| ws.add(self.partials_at() + (block * self.parts + k) * self.partial_len());
            for i in 0..count {
                let top = (0..self.parts).map(|k| *part(k).add(i)).fold(f32::NEG_INFINITY, f32::max);
                let (mut sum, values) = (0.0, rows.values.add(i * s.value_size));
                for k in 0..self.parts {
                    let (their_top, their_sum) = (*part(k).add(i), *part(k).add(self.block_rows + i));
                    if their_top == f32::NEG_INFINITY && their_sum == 0.0 {
                        continue;
                    }
                    let shrink = (their_top - top).exp();
                    sum += their_sum * shrink;
                    let theirs = part(k).add(2 * self.block_rows + i * s.value_size);
                    for j in 0..s.value_size {
                        *values.add(j) += *theirs.add(j) * shrink;
                    }
                }
                (*rows.top.add(i), *rows.sum.add(i)) = (top, sum);
            }
            self.finish(&rows);
        }
    }
}

/// A product at the compiled tile kernels.
unsafe fn product<B: BSource>(job: &Job, b: &B, scratch: *mut f32) {
    // SAFETY: the caller's.
    unsafe { multiply(job, b, scratch) }
}

fn p_at(p: *const u8, bytes: usize) -> *const u8 {
    p.wrapping_add(bytes)
}

/// 0 for a row without anything to attend to.
fn reciprocal(sum: f32) -> f32 {
    if sum == 0.0 { 0.0 } else { 1.0 / sum }
}
