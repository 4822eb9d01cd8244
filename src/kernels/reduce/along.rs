//! Along one axis of a dense array: where the greatest or least stands, running sums and products, and the k greatest or least.
//! NaN counts as the greatest and as the least, as NumPy has it for arg-max and arg-min; for the k greatest it is greater
//! than all.

use super::rows::{Combine, Map, Row};
use crate::base::checked;
use crate::error::Result;
use crate::kernels::elem::{Elem, Narrow, Number};
use crate::kernels::isa::Isa;
use crate::kernels::simd::{F32, Kernel, Mask, dispatch};
use crate::{bail, ensure};
use half::{bf16, f16};
use std::cmp::Ordering;

/// Elements a task reads, about.
const GRAIN: usize = 16 * 1024;
/// Columns side by side where the axis is not the innermost.
const COLUMNS: usize = 64;

/// The array seen as (outer, axis, inner), and its strips of columns.
#[derive(Clone, Debug)]
struct Axis {
    outer: usize,
    axis: usize,
    inner: usize,
    strips_a_task: usize,
}

impl Axis {
    fn new(outer: usize, axis: usize, inner: usize) -> Result<Axis> {
        checked::product(&[outer, axis, inner])?;
        let strip = axis.max(1) * inner.clamp(1, COLUMNS);
        Ok(Axis { outer, axis, inner, strips_a_task: (GRAIN / strip).max(1) })
    }
    fn strips(&self) -> usize {
        self.outer * self.inner.div_ceil(COLUMNS)
    }
    fn tasks(&self) -> usize {
        self.strips().div_ceil(self.strips_a_task)
    }
    /// Calls `f(outer, column, width)` for each strip of a task.
    #[inline(always)]
    fn each(&self, task: usize, mut f: impl FnMut(usize, usize, usize)) {
        let a_row = self.inner.div_ceil(COLUMNS);
        let first = task * self.strips_a_task;
        for s in first..(first + self.strips_a_task).min(self.strips()) {
            let column = s % a_row * COLUMNS;
            f(s / a_row, column, COLUMNS.min(self.inner - column));
        }
    }
}

/// An element as something to compare and add.
trait Value: Copy + 'static {
    type Wide: Number;
    /// What running sums are kept in: f64 for floats.
    type Sum: Number;
    fn wide(self) -> Self::Wide;
    fn to_sum(self) -> Self::Sum;
    fn from_sum(x: Self::Sum) -> Self;
}
macro_rules! values {
    ($($t:ty, $sum:ty;)*) => {$(
        impl Value for $t {
            type Wide = $t;
            type Sum = $sum;
            #[inline(always)]
            fn wide(self) -> $t { self }
            #[inline(always)]
            fn to_sum(self) -> $sum { self as $sum }
            #[inline(always)]
            fn from_sum(x: $sum) -> $t { x as $t }
        }
    )*};
}
values!(f32, f64; f64, f64; i8, i8; i16, i16; i32, i32; i64, i64; u8, u8; u16, u16; u32, u32; u64, u64;);
macro_rules! narrow_values {
    ($($t:ty)*) => {$(
        impl Value for $t {
            type Wide = f32;
            type Sum = f64;
            #[inline(always)]
            fn wide(self) -> f32 { self.widen() }
            #[inline(always)]
            fn to_sum(self) -> f64 { f64::from(self.widen()) }
            #[inline(always)]
            fn from_sum(x: f64) -> $t { <$t>::narrow_f64(x) }
        }
    )*};
}
narrow_values!(f16 bf16);

/// Calls a generic function for the type that `elem` names.
macro_rules! with_type {
    ($elem:expr, $f:ident($($arg:expr),*)) => {
        match $elem {
            Elem::F32 => $f::<f32>($($arg),*),
            Elem::F64 => $f::<f64>($($arg),*),
            Elem::F16 => $f::<f16>($($arg),*),
            Elem::Bf16 => $f::<bf16>($($arg),*),
            Elem::I8 => $f::<i8>($($arg),*),
            Elem::I16 => $f::<i16>($($arg),*),
            Elem::I32 => $f::<i32>($($arg),*),
            Elem::I64 => $f::<i64>($($arg),*),
            Elem::U8 | Elem::Bool => $f::<u8>($($arg),*),
            Elem::U16 => $f::<u16>($($arg),*),
            Elem::U32 => $f::<u32>($($arg),*),
            Elem::U64 => $f::<u64>($($arg),*),
        }
    };
}

/// Where the greatest or the least element of an axis stands, as i64.
#[derive(Clone, Debug)]
pub struct ArgReduce {
    isa: Isa,
    axis: Axis,
    elem: Elem,
    least: bool,
    last: bool,
}

impl ArgReduce {
    /// Over the middle of a dense (`outer`, `axis`, `inner`); `least` for arg-min, `last` to take the last of equals.
    pub fn new(
        isa: Isa,
        elem: Elem,
        outer: usize,
        axis: usize,
        inner: usize,
        least: bool,
        last: bool,
    ) -> Result<ArgReduce> {
        ensure!(axis > 0 || outer * inner == 0, InvalidModel, "the greatest or least of an empty axis");
        Ok(ArgReduce { isa, axis: Axis::new(outer, axis, inner)?, elem, least, last })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.axis.tasks()
    }
    /// Runs one task.
    /// # Safety
    /// `from` is valid for the shape given to `new`, `to` for `outer * inner` i64.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut i64) {
        if self.elem == Elem::F32 && self.axis.inner == 1 {
            let n = self.axis.axis;
            return self.axis.each(task, |o, _, _| {
                // SAFETY: row `o` of the array, and its result.
                unsafe { *to.add(o) = self.row(from.cast::<f32>().add(o * n), n) as i64 };
            });
        }
        // SAFETY: the caller's contract.
        unsafe { with_type!(self.elem, arg(self, task, from, to)) }
    }
    /// One row of f32: its extreme, then where that stands.
    unsafe fn row(&self, at: *const f32, len: usize) -> usize {
        let how = if self.least { Combine::Min } else { Combine::Max };
        let extreme = dispatch(self.isa, Row { map: Map::Identity, how, at, len, shift: 0.0 });
        dispatch(self.isa, Find { at, len, x: extreme as f32, last: self.last })
    }
}

/// Where a number (NaN included) stands in a row that has it.
struct Find {
    at: *const f32,
    len: usize,
    x: f32,
    last: bool,
}

impl Kernel for Find {
    type Out = usize;
    #[inline(always)]
    fn run<V: F32>(self) -> usize {
        let x = V::splat(self.x);
        let blocks = self.len.div_ceil(V::LANES);
        for k in 0..blocks {
            let i = V::LANES * if self.last { blocks - 1 - k } else { k };
            let n = V::LANES.min(self.len - i);
            // SAFETY: `ArgReduce::run`'s contract: `len` numbers.
            let y = unsafe { V::load_n(self.at.add(i), n) };
            let hits = ((y.eq(x) | (y.is_nan() & x.is_nan())) & V::M::first(n)).bits();
            if hits != 0 {
                return i + if self.last { hits.ilog2() } else { hits.trailing_zeros() } as usize;
            }
        }
        0
    }
}

unsafe fn arg<T: Value>(this: &ArgReduce, task: usize, from: *const u8, to: *mut i64) {
    let (axis, inner) = (this.axis.axis, this.axis.inner);
    this.axis.each(task, |o, column, width| {
        // SAFETY: the strip lies within the array, its results within the output.
        unsafe {
            let from = from.cast::<T>().add(o * axis * inner + column);
            let to = to.add(o * inner + column);
            let mut best = [T::Wide::ZERO; COLUMNS];
            for (j, top) in best[..width].iter_mut().enumerate() {
                *top = (*from.add(j)).wide();
                *to.add(j) = 0;
            }
            for i in 1..axis {
                for (j, top) in best[..width].iter_mut().enumerate() {
                    let x = (*from.add(i * inner + j)).wide();
                    let beyond = if this.least { x < *top } else { x > *top };
                    let equal = x == *top || (x.is_nan() && top.is_nan());
                    if (beyond && !top.is_nan()) || (x.is_nan() && !top.is_nan()) || (this.last && equal) {
                        *top = x;
                        *to.add(j) = i as i64;
                    }
                }
            }
        }
    });
}

/// Running sums or products along an axis.
#[derive(Clone, Debug)]
pub struct Cumulate {
    axis: Axis,
    elem: Elem,
    product: bool,
    exclusive: bool,
    reverse: bool,
}

impl Cumulate {
    /// Over the middle of a dense (`outer`, `axis`, `inner`); `exclusive` leaves the element itself out, `reverse` begins at
    /// the end. The result may be the input's memory.
    pub fn new(
        elem: Elem,
        outer: usize,
        axis: usize,
        inner: usize,
        product: bool,
        exclusive: bool,
        reverse: bool,
    ) -> Result<Cumulate> {
        if elem == Elem::Bool {
            bail!(Unsupported, "running sums of bool");
        }
        Ok(Cumulate { axis: Axis::new(outer, axis, inner)?, elem, product, exclusive, reverse })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.axis.axis == 0 { 0 } else { self.axis.tasks() }
    }
    /// Runs one task.
    /// # Safety
    /// Both pointers are valid for the shape given to `new`, and are equal or do not overlap.
    pub unsafe fn run(&self, task: usize, from: *const u8, to: *mut u8) {
        // SAFETY: the caller's contract.
        unsafe { with_type!(self.elem, cumulate(self, task, from, to)) }
    }
}

unsafe fn cumulate<T: Value>(this: &Cumulate, task: usize, from: *const u8, to: *mut u8) {
    let (axis, inner) = (this.axis.axis, this.axis.inner);
    this.axis.each(task, |o, column, width| {
        // SAFETY: the strip lies within the array.
        unsafe {
            let at = o * axis * inner + column;
            let (from, to) = (from.cast::<T>().add(at), to.cast::<T>().add(at));
            let mut sums = [if this.product { T::Sum::ONE } else { T::Sum::ZERO }; COLUMNS];
            for k in 0..axis {
                let i = if this.reverse { axis - 1 - k } else { k };
                for (j, sum) in sums[..width].iter_mut().enumerate() {
                    let x = (*from.add(i * inner + j)).to_sum();
                    let next = if this.product { sum.mul(x) } else { sum.add(x) };
                    *to.add(i * inner + j) = T::from_sum(if this.exclusive { *sum } else { next });
                    *sum = next;
                }
            }
        }
    });
}

/// The k greatest or least of an axis, and where they stand. Of equals the one that stands first goes first.
#[derive(Clone, Debug)]
pub struct TopK {
    axis: Axis,
    elem: Elem,
    k: usize,
    largest: bool,
    sorted: bool,
}

impl TopK {
    /// Over the middle of a dense (`outer`, `axis`, `inner`); results are (`outer`, `k`, `inner`). Unsorted results come in
    /// the order of their places.
    pub fn new(
        elem: Elem,
        outer: usize,
        axis: usize,
        inner: usize,
        k: usize,
        largest: bool,
        sorted: bool,
    ) -> Result<TopK> {
        ensure!(k <= axis, InvalidModel, "the {k} greatest of an axis of length {axis}");
        ensure!(axis <= u32::MAX as usize, Unsupported, "the greatest of {axis} elements");
        Ok(TopK { axis: Axis::new(outer, axis, inner)?, elem, k, largest, sorted })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        if self.k == 0 { 0 } else { self.axis.tasks() }
    }
    /// Bytes of scratch memory a running task needs, aligned for u32.
    pub fn scratch_bytes(&self) -> usize {
        4 * self.axis.axis
    }
    /// Runs one task.
    /// # Safety
    /// `from` is valid for the shape given to `new`, `values` and `places` for the results; `scratch` has `scratch_bytes()`
    /// bytes that nobody else uses. Nothing overlaps.
    pub unsafe fn run(&self, task: usize, from: *const u8, values: *mut u8, places: *mut i64, scratch: *mut u8) {
        // SAFETY: the caller's contract.
        unsafe { with_type!(self.elem, top(self, task, from, values, places, scratch)) }
    }
}

/// NaN above all.
#[inline(always)]
fn compare<T: Number>(a: T, b: T) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

unsafe fn top<T: Value>(
    this: &TopK,
    task: usize,
    from: *const u8,
    values: *mut u8,
    places: *mut i64,
    scratch: *mut u8,
) {
    let (axis, inner, k) = (this.axis.axis, this.axis.inner, this.k);
    this.axis.each(task, |o, column, width| {
        for j in column..column + width {
            // SAFETY: the column lies within the array, its results within the outputs; the scratch memory holds `axis`
            // numbers, written before they are read.
            unsafe {
                let x = from.cast::<T>().add(o * axis * inner + j);
                let order = scratch.cast::<u32>();
                (0..axis).for_each(|i| *order.add(i) = i as u32);
                let order = std::slice::from_raw_parts_mut(order, axis);
                let at = |i: u32| (*x.add(i as usize * inner)).wide();
                let ahead = |a: &u32, b: &u32| {
                    let by_value = compare(at(*a), at(*b));
                    let by_value = if this.largest { by_value.reverse() } else { by_value };
                    by_value.then(a.cmp(b))
                };
                if k < axis {
                    order.select_nth_unstable_by(k, ahead);
                }
                if this.sorted {
                    order[..k].sort_unstable_by(ahead);
                } else {
                    order[..k].sort_unstable();
                }
                for (r, &i) in order[..k].iter().enumerate() {
                    let to = (o * k + r) * inner + j;
                    *values.cast::<T>().add(to) = *x.add(i as usize * inner);
                    *places.add(to) = i64::from(i);
                }
            }
        }
    });
}
