//! Binding of recurrent layers: one product for all steps' inputs, then a task a direction that walks through time.

use super::cell::CellKind;
use super::{Recurrent, Sizes};
use crate::backend::cpu::CpuCtx;
use crate::backend::step::split;
use crate::backend::{Packed, Step, StepArgs};
use crate::base::alloc::{ALIGN, round_up};
use crate::base::checked::product;
use crate::error::Result;
use crate::kernels::elem::Elem;
use crate::kernels::gemm::{Batch, Gemm, GemmPtrs, GemmSpec, Strides};
use crate::kernels::gemm_plain::Product;
use crate::kernels::real::Real;
use crate::ops::widen::widened;
use crate::tensor::DType;
use crate::{bail, err};
use std::marker::PhantomData;
use std::sync::Arc;

pub(super) fn bind(op: &Recurrent, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    match cx.input(0)?.dtype {
        DType::F32 => layer::<f32>(op, cx),
        DType::F64 => layer::<f64>(op, cx),
        d => bail!(Unsupported, "a recurrent layer of {d}"),
    }
}

/// Offsets in the workspace, in bytes.
#[derive(Clone, Copy, Default)]
struct Room {
    /// Inputs times W of all directions.
    projected: usize,
    /// Transposed R of all directions.
    turned: usize,
    /// Gates, a product, hidden and cell state of each direction; and the bytes of one direction.
    state: usize,
    state_bytes: usize,
    /// What the products ask for: that of the inputs, and one a direction.
    gemm: usize,
    gemm_bytes: usize,
    end: usize,
}

struct Layer<T> {
    op: Recurrent,
    s: Sizes,
    /// f32: the product of the inputs, and those of the state: all gates, or GRU's first two and the last.
    gemm: Option<(Gemm, [Gemm; 2])>,
    packed: Option<Arc<Packed>>,
    turned: Option<Arc<Packed>>,
    room: Room,
    rows: (usize, usize),
    _type: PhantomData<T>,
}

fn layer<T: Real>(op: &Recurrent, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let s = op.sizes(&|i| cx.opt_input(i).map(|o| o.shape.to_vec()))?;
    let (dirs, wide) = (op.backwards.len(), product(&[op.kind.gates(), s.hidden])?);
    let rows = product(&[s.steps, s.batch])?;
    let (first, last) = parts(op.kind, s.hidden);
    let mut gemm = None;
    let (mut packed, mut turned) = (None, None);
    if T::ELEM == Elem::F32 {
        let batch = Batch {
            dims: [1, 1, 1, dirs],
            b: [0, 0, 0, product(&[wide, s.input])?],
            c: [0, 0, 0, product(&[rows, wide])?],
            ..Batch::default()
        };
        let spec = GemmSpec {
            b: Strides::transposed(s.input),
            b_constant: cx.constant(1).is_some(),
            batch,
            ..GemmSpec::dense(rows, wide, s.input)
        };
        let inputs = Gemm::new(cx.isa, spec)?;
        if let Some(w) = cx.constant(1) {
            packed = Some(cx.cache.packed(w, &inputs.packed_format(), inputs.packed_bytes(), |to| {
                // SAFETY: the constant has the shape the product was made from, the memory the size asked for.
                unsafe { inputs.pack(w.data_ptr().cast(), to.cast()) };
                Ok(())
            })?);
        }
        let state = |n: usize| {
            let dense = GemmSpec::dense(s.batch, n, s.hidden);
            Gemm::new(cx.isa, GemmSpec { b: Strides::rows_of(wide), c_row: wide, ..dense })
        };
        gemm = Some((inputs, [state(first)?, state(last)?]));
    }
    if let Some(r) = cx.constant(2) {
        let format = format!("recurrent turned {} {dirs} {wide} {}", size_of::<T>(), s.hidden);
        turned = Some(cx.cache.packed(r, &format, r.byte_len(), |to| {
            // SAFETY: both have the elements of R.
            unsafe { turn::<T>(dirs, wide, s.hidden, r.data_ptr().cast(), to.cast()) };
            Ok(())
        })?);
    }
    let size = size_of::<T>();
    let mut room = Room::default();
    let mut end = 0usize;
    let mut take = |bytes: usize| -> Result<usize> {
        let at = end;
        let next = at.checked_add(bytes).filter(|&e| e < isize::MAX as usize - ALIGN);
        end = round_up(next.ok_or_else(|| err!(OutOfMemory, "a recurrent layer passes the address space"))?, ALIGN);
        Ok(at)
    };
    room.projected = take(product(&[dirs, rows, wide, size])?)?;
    if turned.is_none() {
        room.turned = take(product(&[dirs, wide, s.hidden, size])?)?;
    }
    // Gates, product, hidden, cell, reset state.
    room.state_bytes = round_up(product(&[s.batch, 2 * wide + 3 * s.hidden, size])?, ALIGN);
    room.state = take(product(&[dirs, room.state_bytes])?)?;
    if let Some((inputs, [a, b])) = &gemm {
        room.gemm_bytes = round_up(a.workspace_bytes().max(b.workspace_bytes()), ALIGN);
        room.gemm = take(inputs.workspace_bytes().max(product(&[dirs, room.gemm_bytes])?))?;
    }
    room.end = end;
    let rows = split(rows, (32 * 1024 / product(&[wide, s.input])?.max(1)).max(1));
    Ok(Box::new(Layer::<T> { op: op.clone(), s, gemm, packed, turned, room, rows, _type: PhantomData }))
}

/// Columns of the products with the state: GRU's last gate stands alone.
fn parts(kind: CellKind, hidden: usize) -> (usize, usize) {
    match kind {
        CellKind::Rnn => (hidden, 0),
        CellKind::Gru => (2 * hidden, hidden),
        CellKind::Lstm => (4 * hidden, 0),
    }
}

/// `[wide, hidden]` to `[hidden, wide]`, by direction; `from` need not be aligned.
unsafe fn turn<T: Copy>(dirs: usize, wide: usize, hidden: usize, from: *const T, to: *mut T) {
    for d in 0..dirs {
        let at = d * wide * hidden;
        for i in 0..wide {
            for j in 0..hidden {
                // SAFETY: the caller's matrices.
                unsafe { *to.add(at + j * wide + i) = from.add(at + i * hidden + j).read_unaligned() };
            }
        }
    }
}

/// States rounded to what 8 bits of their extent (zero counted in) can say, in `to`.
unsafe fn round_states<T: Real>(h: *const T, count: usize, to: *mut T) -> *const T {
    // SAFETY: the caller's: `count` states, and room for as many.
    let (h, all) = unsafe { (std::slice::from_raw_parts(h, count), std::slice::from_raw_parts_mut(to, count)) };
    let (lo, hi) = h.iter().fold((0f32, 0f32), |(lo, hi), x| {
        let x = x.to_f64() as f32;
        (lo.min(x), hi.max(x))
    });
    let scale = if lo == hi { 1.0 } else { (hi - lo) / 255.0 };
    let zero = (-lo / scale).clamp(0.0, 255.0).round_ties_even();
    for (y, x) in all.iter_mut().zip(h) {
        let q = ((x.to_f64() as f32 / scale).round_ties_even() + zero).clamp(0.0, 255.0);
        *y = T::of(f64::from((q - zero) * scale));
    }
    to
}

impl<T: Real> Step for Layer<T> {
    fn phases(&self) -> usize {
        self.projecting() + 1
    }
    fn tasks(&self, phase: usize) -> usize {
        match &self.gemm {
            _ if phase == self.projecting() => self.op.backwards.len(),
            Some((g, _)) => g.tasks(phase),
            None => self.op.backwards.len() * self.rows.0,
        }
    }
    fn scratch_bytes(&self) -> usize {
        let most = |(g, [a, b]): &(Gemm, [Gemm; 2])| g.scratch_bytes().max(a.scratch_bytes()).max(b.scratch_bytes());
        self.gemm.as_ref().map_or(0, most)
    }
    fn workspace_bytes(&self) -> usize {
        self.room.end
    }
    fn reads(&self, input: usize) -> bool {
        !(input == 1 && self.packed.is_some() || input == 2 && self.turned.is_some())
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        let base = args.workspace::<u8>();
        // SAFETY: the executor's contract (Step::run); all shapes were checked against each other when the step was bound.
        unsafe {
            if phase < self.projecting() {
                self.project(args, phase, task, scratch);
                return Ok(());
            }
            let (dirs, wide) = (self.op.backwards.len(), self.wide());
            let turned = match &self.turned {
                Some(b) => b.ptr().cast(),
                None => {
                    let (to, at) = (base.add(self.room.turned).cast::<T>(), task * wide * self.s.hidden);
                    turn::<T>(1, wide, self.s.hidden, args.input::<T>(2).add(at), to.add(at));
                    to.cast_const()
                }
            };
            debug_assert!(task < dirs);
            self.walk(args, task, turned.add(task * wide * self.s.hidden), scratch)
        }
    }
    fn kernel(&self) -> &str {
        "recurrent"
    }
}

impl<T: Real> Layer<T> {
    fn wide(&self) -> usize {
        self.op.kind.gates() * self.s.hidden
    }
    /// Phases of the inputs' product.
    fn projecting(&self) -> usize {
        self.gemm.as_ref().map_or(1, |g| g.0.phases())
    }
    unsafe fn project(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) {
        let base = args.workspace::<u8>();
        let (wide, rows) = (self.wide(), self.s.steps * self.s.batch);
        // SAFETY: the caller's.
        unsafe {
            let to = base.add(self.room.projected);
            match &self.gemm {
                Some((g, _)) => {
                    let ptrs = GemmPtrs {
                        a: args.input(0),
                        b: self.packed.as_ref().map_or(args.input(1), |b| b.ptr().cast()),
                        c: to.cast(),
                        bias: std::ptr::null(),
                        residual: std::ptr::null(),
                    };
                    g.run(phase, task, &ptrs, base.add(self.room.gemm), scratch);
                }
                None => {
                    let (d, row) = (task / self.rows.0, task % self.rows.0 * self.rows.1);
                    let count = self.rows.1.min(rows - row.min(rows));
                    let k = self.s.input;
                    let p = Product { n: wide, k, a: Strides::rows_of(k), b: Strides::transposed(k) };
                    let w = args.input::<T>(1).add(d * wide * k);
                    p.run(count, args.input::<T>(0).add(row * k), w, to.cast::<T>().add((d * rows + row) * wide));
                }
            }
        }
    }
    /// `to[batch, columns at..] = h * R` for the first or the last part of the gates.
    unsafe fn times_r(
        &self,
        dir: usize,
        part: usize,
        base: *mut u8,
        h: *const T,
        r: *const T,
        to: *mut T,
        scratch: *mut u8,
    ) {
        let (first, last) = parts(self.op.kind, self.s.hidden);
        let (n, at) = if part == 0 { (first, 0) } else { (last, first) };
        // SAFETY: the caller's; columns at..at + n exist in R and in the target.
        unsafe {
            let (r, to) = (r.add(at), to.add(at));
            match &self.gemm {
                Some((_, g)) => {
                    let g = &g[part];
                    let (bias, residual) = (std::ptr::null(), std::ptr::null());
                    let ptrs = GemmPtrs { a: h.cast(), b: r.cast(), c: to.cast(), bias, residual };
                    let workspace = base.add(self.room.gemm + dir * self.room.gemm_bytes);
                    for phase in 0..g.phases() {
                        for task in 0..g.tasks(phase) {
                            g.run(phase, task, &ptrs, workspace, scratch);
                        }
                    }
                }
                None => {
                    let (k, wide) = (self.s.hidden, self.wide());
                    let p = Product { n, k, a: Strides::rows_of(k), b: Strides::rows_of(wide) };
                    for b in 0..self.s.batch {
                        p.run(1, h.add(b * k), r, to.add(b * wide));
                    }
                }
            }
        }
    }
    /// One direction through all steps.
    unsafe fn walk(&self, args: &StepArgs<'_>, dir: usize, r: *const T, scratch: *mut u8) -> Result<()> {
        let (s, op) = (self.s, &self.op);
        let (n, wide, dirs, hidden) = (s.batch, self.wide(), op.backwards.len(), s.hidden);
        let base = args.workspace::<u8>();
        // SAFETY: the state of this direction lies in the workspace; indices stay within the shapes that were checked.
        unsafe {
            let projected = base.add(self.room.projected).cast::<T>().add(dir * s.steps * n * wide);
            let gates = base.add(self.room.state + dir * self.room.state_bytes).cast::<T>();
            let product = gates.add(n * wide);
            let (h, c) = (product.add(n * wide), product.add(n * wide + n * hidden));
            let reset = c.add(n * hidden);
            let state_at = |b: usize| if op.batch_first { (b * dirs + dir) * hidden } else { (dir * n + b) * hidden };
            for (i, to) in [(5, h), (6, c)] {
                let first = args.input::<T>(i);
                for b in 0..n {
                    for j in 0..hidden {
                        *to.add(b * hidden + j) = if first.is_null() { T::ZERO } else { *first.add(state_at(b) + j) };
                    }
                }
            }
            let (lengths, bias) = (args.input::<i32>(4), args.input::<T>(3));
            let length = |b: usize| {
                if lengths.is_null() {
                    s.steps
                } else {
                    (*lengths.add(b)).clamp(0, s.steps.min(i32::MAX as usize) as i32) as usize
                }
            };
            let bias_of = |half: usize, i: usize| {
                if bias.is_null() { T::ZERO } else { *bias.add((dir * 2 + half) * wide + i) }
            };
            let late = op.kind == CellKind::Gru && !op.linear_before_reset;
            for step in 0..s.steps {
                let seen = if op.quantised_state { round_states(h, n * hidden, reset) } else { h };
                self.times_r(dir, 0, base, seen, r, product, scratch);
                if op.kind == CellKind::Gru && !late {
                    self.times_r(dir, 1, base, h, r, product, scratch);
                }
                // A backward direction begins at the end of each sequence, so places differ by sequence.
                let time = |b: usize| if op.backwards[dir] { length(b).wrapping_sub(step + 1) } else { step };
                for b in (0..n).filter(|&b| step < length(b)) {
                    let at = if op.batch_first { b * s.steps + time(b) } else { time(b) * n + b };
                    let split = if op.kind == CellKind::Gru { 2 * hidden } else { wide };
                    for i in 0..split {
                        let sum = *product.add(b * wide + i) + *projected.add(at * wide + i);
                        *gates.add(b * wide + i) = sum + (bias_of(0, i) + bias_of(1, i));
                    }
                    for i in split..wide {
                        *gates.add(b * wide + i) = *projected.add(at * wide + i) + bias_of(0, i);
                        if !late {
                            *product.add(b * wide + i) = *product.add(b * wide + i) + bias_of(1, i);
                        }
                    }
                    let row = gates.add(b * wide);
                    match op.kind {
                        CellKind::Rnn => self.rnn(dir, row, h.add(b * hidden)),
                        CellKind::Lstm => {
                            let p = args.input::<T>(7);
                            let p = if p.is_null() { p } else { p.add(dir * 3 * hidden) };
                            self.lstm(dir, row, h.add(b * hidden), c.add(b * hidden), p);
                        }
                        CellKind::Gru => {
                            let f = op.activations[dir][0];
                            for i in 0..2 * hidden {
                                *row.add(i) = f.apply(self.clipped(*row.add(i)));
                            }
                            for j in 0..hidden {
                                *reset.add(b * hidden + j) = *row.add(hidden + j) * *h.add(b * hidden + j);
                            }
                        }
                    }
                }
                if op.kind == CellKind::Gru {
                    if late {
                        // Rows of sequences that have ended hold what was there before, which nobody reads.
                        for i in (0..n).filter(|&b| step >= length(b)).flat_map(|b| b * hidden..(b + 1) * hidden) {
                            *reset.add(i) = T::ZERO;
                        }
                        self.times_r(dir, 1, base, reset, r, product, scratch);
                    }
                    for b in (0..n).filter(|&b| step < length(b)) {
                        self.gru(dir, gates.add(b * wide), product.add(b * wide), h.add(b * hidden), &|i| {
                            if late { bias_of(1, i) } else { T::ZERO }
                        });
                    }
                }
                let y = args.output::<T>(0);
                if !y.is_null() {
                    for b in 0..n {
                        let live = step < length(b);
                        let t = if live { time(b) } else { step };
                        let to = if op.batch_first { (b * s.steps + t) * dirs + dir } else { (t * dirs + dir) * n + b };
                        for j in 0..hidden {
                            *y.add(to * hidden + j) = if live { *h.add(b * hidden + j) } else { T::ZERO };
                        }
                    }
                }
            }
            for (i, from) in [(1, h), (2, c)] {
                let to = args.output::<T>(i);
                if !to.is_null() {
                    for b in 0..n {
                        std::ptr::copy_nonoverlapping(from.add(b * hidden), to.add(state_at(b)), hidden);
                    }
                }
            }
        }
        Ok(())
    }
    fn clipped(&self, x: T) -> T {
        match self.op.clip {
            Some(c) => x.most(T::of(-f64::from(c))).least(T::of(f64::from(c))),
            None => x,
        }
    }
    unsafe fn rnn(&self, dir: usize, gates: *const T, h: *mut T) {
        let f = self.op.activations[dir][0];
        for j in 0..self.s.hidden {
            // SAFETY: the caller gives one row of each.
            unsafe { *h.add(j) = f.apply(self.clipped(*gates.add(j))) };
        }
    }
    /// Gates in the order z, r, h; the first two are done.
    unsafe fn gru(&self, dir: usize, gates: *const T, product: *const T, h: *mut T, late: &dyn Fn(usize) -> T) {
        let (n, g) = (self.s.hidden, self.op.activations[dir][1]);
        for j in 0..n {
            // SAFETY: the caller gives one row of each.
            unsafe {
                let (z, r) = (*gates.add(j), *gates.add(n + j));
                let from_state = *product.add(2 * n + j);
                let from_state = if self.op.linear_before_reset { r * from_state } else { from_state };
                let new = g.apply(self.clipped(*gates.add(2 * n + j) + from_state + late(2 * n + j)));
                *h.add(j) = (T::ONE - z) * new + z * *h.add(j);
            }
        }
    }
    /// Gates in the order i, o, f, c; peepholes in the order i, o, f.
    unsafe fn lstm(&self, dir: usize, gates: *const T, h: *mut T, c: *mut T, peepholes: *const T) {
        let n = self.s.hidden;
        let [f, g, out] = [0, 1, 2].map(|i| self.op.activations[dir][i]);
        for j in 0..n {
            // SAFETY: the caller gives one row of each.
            unsafe {
                let old = *c.add(j);
                let peep = |k: usize, c: T| if peepholes.is_null() { T::ZERO } else { *peepholes.add(k * n + j) * c };
                let gate = |k: usize, extra: T| self.clipped(*gates.add(k * n + j) + extra);
                let input = f.apply(gate(0, peep(0, old)));
                let forget = if self.op.coupled { T::ONE - input } else { f.apply(gate(2, peep(2, old))) };
                let new = forget * old + input * g.apply(gate(3, T::ZERO));
                let output = f.apply(gate(1, peep(1, new)));
                *c.add(j) = new;
                *h.add(j) = output * out.apply(new);
            }
        }
    }
}
