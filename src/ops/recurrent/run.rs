//! Binding of recurrent layers: one product for all steps' inputs, then a task a direction that walks through time.

use super::cell::{CellKind, Functions};
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
use crate::kernels::isa::Isa;
use crate::kernels::real::Real;
use crate::ops::widen::widened;
use crate::tensor::{DType, Tensor};
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
    /// R of all directions packed, where it is no constant.
    states: usize,
    /// Gates, a product, hidden and cell state of each direction; and the bytes of one direction.
    state: usize,
    state_bytes: usize,
    /// What the inputs' product asks for.
    inputs: usize,
    end: usize,
}

/// The products of a layer of f32, whose W and R lie in panels.
struct Products {
    /// All steps' inputs times W.
    inputs: Gemm,
    /// W packed, where it is a constant.
    w: Option<Arc<Packed>>,
    /// A step's states times R: all gates, or GRU's first two and the last.
    states: [Gemm; 2],
    /// R packed, where it is a constant; else it is packed into the workspace.
    r: Option<Arc<Packed>>,
}

impl Products {
    fn bind(op: &Recurrent, s: Sizes, cx: &CpuCtx<'_>) -> Result<Products> {
        let (dirs, wide) = (op.backwards.len(), product(&[op.kind.gates(), s.hidden])?);
        let rows = product(&[s.steps, s.batch])?;
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
        let pack_w = |w: &Tensor| {
            cx.cache.packed(w, &inputs.packed_format(), inputs.packed_bytes(), |to| {
                // SAFETY: the constant has the shape the product was made from, the memory the size asked for.
                unsafe { inputs.pack(w.data_ptr().cast(), to.cast()) };
                Ok(())
            })
        };
        let w = cx.constant(1).map(pack_w).transpose()?;
        let (first, last) = parts(op.kind, s.hidden);
        let of_states = |n: usize| {
            let dense = GemmSpec::dense(s.batch, n, s.hidden);
            Gemm::new(cx.isa, GemmSpec { b: Strides::transposed(s.hidden), b_constant: true, c_row: wide, ..dense })
        };
        let mut products = Products { inputs, w, states: [of_states(first)?, of_states(last)?], r: None };
        if let Some(r) = cx.constant(2) {
            let [a, b] = products.states.each_ref().map(Gemm::packed_format);
            let bytes = product(&[dirs, products.state_bytes()])?;
            products.r = Some(cx.cache.packed(r, &format!("recurrent {dirs} {a} {b}"), bytes, |to| {
                for dir in 0..dirs {
                    // SAFETY: the constant has the shape the products were made from, the memory their sizes.
                    unsafe { products.pack_r(dir, r.data_ptr().cast(), to) };
                }
                Ok(())
            })?);
        }
        Ok(products)
    }
    /// Bytes of one direction's R in panels.
    fn state_bytes(&self) -> usize {
        self.states.iter().map(Gemm::packed_bytes).sum()
    }
    /// Packs one direction's R.
    /// # Safety
    /// `r` is valid for all directions, need not be aligned; `to` for `state_bytes` of each.
    unsafe fn pack_r(&self, dir: usize, r: *const f32, to: *mut u8) {
        let [a, b] = &self.states;
        let (first, wide, hidden) = (a.spec().n, a.spec().c_row, a.spec().k);
        // SAFETY: the caller's; the parts' rows follow each other.
        unsafe {
            let (r, to) = (r.add(dir * wide * hidden), to.add(dir * self.state_bytes()));
            a.pack(r, to.cast());
            b.pack(r.add(first * hidden), to.add(a.packed_bytes()).cast());
        }
    }
    fn scratch_bytes(&self) -> usize {
        self.states.iter().map(Gemm::scratch_bytes).fold(self.inputs.scratch_bytes(), usize::max)
    }
}

struct Layer<T> {
    op: Recurrent,
    isa: Isa,
    s: Sizes,
    /// Where the type is f32; others multiply what lies in the inputs.
    products: Option<Products>,
    room: Room,
    rows: (usize, usize),
    _type: PhantomData<T>,
}

fn layer<T: Real>(op: &Recurrent, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let s = op.sizes(&|i| cx.opt_input(i).map(|o| o.shape.to_vec()))?;
    let (dirs, wide) = (op.backwards.len(), product(&[op.kind.gates(), s.hidden])?);
    let rows = product(&[s.steps, s.batch])?;
    let products = if T::ELEM == Elem::F32 { Some(Products::bind(op, s, cx)?) } else { None };
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
    // Gates, product, hidden, cell, reset state.
    room.state_bytes = round_up(product(&[s.batch, 2 * wide + 3 * s.hidden, size])?, ALIGN);
    room.state = take(product(&[dirs, room.state_bytes])?)?;
    if let Some(p) = &products {
        room.inputs = take(p.inputs.workspace_bytes())?;
        room.states = take(if p.r.is_none() { product(&[dirs, p.state_bytes()])? } else { 0 })?;
    }
    room.end = end;
    let rows = split(rows, (32 * 1024 / product(&[wide, s.input])?.max(1)).max(1));
    Ok(Box::new(Layer::<T> { op: op.clone(), isa: cx.isa, s, products, room, rows, _type: PhantomData }))
}

/// Columns of the products with the state: GRU's last gate stands alone.
fn parts(kind: CellKind, hidden: usize) -> (usize, usize) {
    match kind {
        CellKind::Rnn => (hidden, 0),
        CellKind::Gru => (2 * hidden, hidden),
        CellKind::Lstm => (4 * hidden, 0),
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
        match &self.products {
            _ if phase == self.projecting() => self.op.backwards.len(),
            Some(p) => p.inputs.tasks(phase),
            None => self.op.backwards.len() * self.rows.0,
        }
    }
    fn scratch_bytes(&self) -> usize {
        self.products.as_ref().map_or(0, Products::scratch_bytes)
    }
    fn workspace_bytes(&self) -> usize {
        self.room.end
    }
    fn reads(&self, input: usize) -> bool {
        let packed =
            |of: fn(&Products) -> &Option<Arc<Packed>>| self.products.as_ref().is_some_and(|p| of(p).is_some());
        !(input == 1 && packed(|p| &p.w) || input == 2 && packed(|p| &p.r))
    }
    unsafe fn run(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) -> Result<()> {
        // SAFETY: the executor's contract (Step::run); all shapes were checked against each other when the step was bound.
        unsafe {
            if phase < self.projecting() {
                self.project(args, phase, task, scratch);
            } else {
                self.walk(args, task, scratch);
            }
        }
        Ok(())
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
        self.products.as_ref().map_or(1, |p| p.inputs.phases())
    }
    unsafe fn project(&self, args: &StepArgs<'_>, phase: usize, task: usize, scratch: *mut u8) {
        let base = args.workspace::<u8>();
        let (wide, rows) = (self.wide(), self.s.steps * self.s.batch);
        // SAFETY: the caller's.
        unsafe {
            let to = base.add(self.room.projected);
            match &self.products {
                Some(p) => {
                    let ptrs = GemmPtrs {
                        a: args.input(0),
                        b: p.w.as_ref().map_or(args.input(1), |b| b.ptr().cast()),
                        c: to.cast(),
                        bias: std::ptr::null(),
                        residual: std::ptr::null(),
                    };
                    p.inputs.run(phase, task, &ptrs, base.add(self.room.inputs), scratch);
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
    /// `to[batch, columns of the part] = h * R` for the first or the last part of the gates; `r` is the direction's R.
    unsafe fn times_r(&self, part: usize, h: *const T, r: *const u8, to: *mut T, scratch: *mut u8) {
        let (first, last) = parts(self.op.kind, self.s.hidden);
        let (n, at) = if part == 0 { (first, 0) } else { (last, first) };
        // SAFETY: the caller's; columns at..at + n exist in R and in the target.
        unsafe {
            let to = to.add(at);
            match &self.products {
                Some(p) => {
                    let g = &p.states[part];
                    let r = r.add(if part == 0 { 0 } else { p.states[0].packed_bytes() });
                    let (bias, residual) = (std::ptr::null(), std::ptr::null());
                    let ptrs = GemmPtrs { a: h.cast(), b: r.cast(), c: to.cast(), bias, residual };
                    // Of a packed operand there is one phase, and no workspace.
                    for task in 0..g.tasks(0) {
                        g.run(0, task, &ptrs, std::ptr::null_mut(), scratch);
                    }
                }
                None => {
                    let k = self.s.hidden;
                    let p = Product { n, k, a: Strides::rows_of(k), b: Strides::transposed(k) };
                    for b in 0..self.s.batch {
                        p.run(1, h.add(b * k), r.cast::<T>().add(at * k), to.add(b * self.wide()));
                    }
                }
            }
        }
    }
    /// One direction's R as `times_r` takes it.
    unsafe fn recurrence(&self, args: &StepArgs<'_>, dir: usize) -> *const u8 {
        // SAFETY: the caller's; the workspace has room for a packed R where there is none yet.
        unsafe {
            let Some(p) = &self.products else {
                return args.input::<T>(2).add(dir * self.wide() * self.s.hidden).cast();
            };
            let r = p.r.as_ref().map_or_else(
                || {
                    let to = args.workspace::<u8>().add(self.room.states);
                    p.pack_r(dir, args.input(2), to);
                    to.cast_const()
                },
                |r| r.ptr().cast(),
            );
            r.add(dir * p.state_bytes())
        }
    }
    /// One direction through all steps.
    unsafe fn walk(&self, args: &StepArgs<'_>, dir: usize, scratch: *mut u8) {
        let (s, op) = (self.s, &self.op);
        let (n, wide, dirs, hidden) = (s.batch, self.wide(), op.backwards.len(), s.hidden);
        let base = args.workspace::<u8>();
        let f = Functions::<T>::new(op, dir, self.isa);
        // SAFETY: the state of this direction lies in the workspace; indices stay within the shapes that were checked.
        unsafe {
            let r = self.recurrence(args, dir);
            let projected = base.add(self.room.projected).cast::<T>().add(dir * s.steps * n * wide);
            let gates = base.add(self.room.state + dir * self.room.state_bytes).cast::<T>();
            let product = gates.add(n * wide);
            let (h, c) = (product.add(n * wide), product.add(n * wide + n * hidden));
            let reset = c.add(n * hidden);
            let row = |of: *mut T, b: usize, len: usize| std::slice::from_raw_parts_mut(of.add(b * len), len);
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
            let peepholes = args.input::<T>(7);
            let peepholes =
                (!peepholes.is_null()).then(|| std::slice::from_raw_parts(peepholes.add(dir * 3 * hidden), 3 * hidden));
            // The gates that begin as the sum of both products: GRU's last multiplies one of them first.
            let summed = if op.kind == CellKind::Gru { 2 * hidden } else { wide };
            // GRU: whether the last product is that of the reset state.
            let late = op.kind == CellKind::Gru && !op.linear_before_reset;
            for step in 0..s.steps {
                let seen = if op.quantised_state { round_states(h, n * hidden, reset) } else { h };
                self.times_r(0, seen, r, product, scratch);
                if summed < wide && !late {
                    self.times_r(1, h, r, product, scratch);
                }
                // A backward direction begins at the end of each sequence, so places differ by sequence.
                let time = |b: usize| if op.backwards[dir] { length(b).wrapping_sub(step + 1) } else { step };
                let live = |b: &usize| step < length(*b);
                for b in (0..n).filter(live) {
                    let at = if op.batch_first { b * s.steps + time(b) } else { time(b) * n + b };
                    let (gates, product) = (row(gates, b, wide), row(product, b, wide));
                    for i in 0..summed {
                        gates[i] = product[i] + *projected.add(at * wide + i) + (bias_of(0, i) + bias_of(1, i));
                    }
                    for i in summed..wide {
                        gates[i] = *projected.add(at * wide + i) + bias_of(0, i);
                    }
                    let h = row(h, b, hidden);
                    match op.kind {
                        CellKind::Rnn => f.rnn(gates, h),
                        CellKind::Lstm => f.lstm(gates, h, row(c, b, hidden), peepholes),
                        CellKind::Gru => f.gru_gates(gates, h, row(reset, b, hidden)),
                    }
                }
                if op.kind == CellKind::Gru {
                    if late {
                        // Rows of sequences that have ended hold what was there before, which nobody reads.
                        for b in (0..n).filter(|b| !live(b)) {
                            row(reset, b, hidden).fill(T::ZERO);
                        }
                        self.times_r(1, reset, r, product, scratch);
                    }
                    for b in (0..n).filter(live) {
                        let from_state = &mut row(product, b, wide)[summed..];
                        for (i, x) in from_state.iter_mut().enumerate() {
                            *x += bias_of(1, summed + i);
                        }
                        f.gru(row(gates, b, wide), from_state, row(h, b, hidden));
                    }
                }
                let y = args.output::<T>(0);
                if !y.is_null() {
                    for b in 0..n {
                        let t = if live(&b) { time(b) } else { step };
                        let to = if op.batch_first { (b * s.steps + t) * dirs + dir } else { (t * dirs + dir) * n + b };
                        match live(&b) {
                            true => row(y, to, hidden).copy_from_slice(row(h, b, hidden)),
                            false => row(y, to, hidden).fill(T::ZERO),
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
    }
}
