//! One output of a reduction over f64, an integer type or bool. Sums of integers wrap as their type does.

use super::plan::{ReduceKind, finite};
use crate::kernels::elem::{Elem, Number};
use crate::kernels::nd::Nest;

/// # Safety
/// `from` is valid at every offset of `nest`, of type `elem`, and `to` for one element; `elem` is none of the f32-like.
pub(super) unsafe fn reduce(kind: ReduceKind, elem: Elem, nest: &Nest, count: usize, from: *const u8, to: *mut u8) {
    // SAFETY: the caller's contract.
    unsafe {
        match elem {
            Elem::F64 => one::<f64>(kind, nest, count, from.cast(), to.cast()),
            Elem::I8 => one::<i8>(kind, nest, count, from.cast(), to.cast()),
            Elem::I16 => one::<i16>(kind, nest, count, from.cast(), to.cast()),
            Elem::I32 => one::<i32>(kind, nest, count, from.cast(), to.cast()),
            Elem::I64 => one::<i64>(kind, nest, count, from.cast(), to.cast()),
            Elem::U8 => one::<u8>(kind, nest, count, from.cast(), to.cast()),
            Elem::U16 => one::<u16>(kind, nest, count, from.cast(), to.cast()),
            Elem::U32 => one::<u32>(kind, nest, count, from.cast(), to.cast()),
            Elem::U64 => one::<u64>(kind, nest, count, from.cast(), to.cast()),
            // Max is any, Min is all; nothing at all is false and true.
            _ => {
                let start = u8::from(kind == ReduceKind::Min);
                *to = match kind {
                    ReduceKind::Min => fold::<u8, u8>(nest, from, start, |a, x| a & u8::from(x != 0)),
                    _ => fold::<u8, u8>(nest, from, start, |a, x| a | u8::from(x != 0)),
                };
            }
        }
    }
}

#[inline(always)]
unsafe fn fold<T: Copy, A: Copy>(nest: &Nest, from: *const T, start: A, f: impl Fn(A, T) -> A) -> A {
    let mut acc = start;
    nest.for_rows(0, nest.rows(), |o| {
        let step = nest.inner_stride(0);
        for i in 0..nest.inner() as isize {
            // SAFETY: the caller's contract.
            acc = f(acc, unsafe { *from.offset(o[0] + i * step) });
        }
    });
    acc
}

/// Numbers added one after another before their sum joins the whole.
const RUN: usize = 128;

/// The sum of what `f` makes of each element, in f64: short runs, then their sums with what each addition loses kept apart
/// (Neumaier), so that the error does not grow with the count.
#[inline(always)]
unsafe fn sum<T: Copy>(nest: &Nest, from: *const T, f: impl Fn(T) -> f64) -> f64 {
    let (mut total, mut lost) = (0.0f64, 0.0f64);
    let (mut run, mut count) = (0.0f64, 0);
    let mut join = |run: f64| {
        let next = total + run;
        lost += if total.abs() >= run.abs() { (total - next) + run } else { (run - next) + total };
        total = next;
    };
    nest.for_rows(0, nest.rows(), |o| {
        let step = nest.inner_stride(0);
        for i in 0..nest.inner() as isize {
            // SAFETY: the caller's contract.
            run += f(unsafe { *from.offset(o[0] + i * step) });
            count += 1;
            if count == RUN {
                join(run);
                (run, count) = (0.0, 0);
            }
        }
    });
    join(run);
    // An infinite sum has lost Inf - Inf.
    if total.is_finite() { total + lost } else { total }
}

unsafe fn one<T: Number>(kind: ReduceKind, nest: &Nest, count: usize, from: *const T, to: *mut T) {
    // SAFETY: the caller's contract.
    unsafe {
        *to = match kind {
            ReduceKind::Sum if T::FLOAT => T::from_f64(sum(nest, from, |x: T| x.to_f64())),
            ReduceKind::L1 if T::FLOAT => T::from_f64(sum(nest, from, |x: T| x.to_f64().abs())),
            ReduceKind::SumSquare if T::FLOAT => T::from_f64(sum(nest, from, |x: T| x.to_f64() * x.to_f64())),
            ReduceKind::Sum => fold(nest, from, T::ZERO, |a, x: T| a.add(x)),
            ReduceKind::Prod => fold(nest, from, T::ONE, |a, x: T| a.mul(x)),
            ReduceKind::L1 => fold(nest, from, T::ZERO, |a, x: T| a.add(x.abs())),
            ReduceKind::SumSquare => fold(nest, from, T::ZERO, |a, x: T| a.add(x.mul(x))),
            ReduceKind::Max => fold(nest, from, T::LOWEST, |a, x: T| a.most(x)),
            ReduceKind::Min => fold(nest, from, T::HIGHEST, |a, x: T| a.least(x)),
            ReduceKind::Mean | ReduceKind::LogSum => {
                let sum = sum(nest, from, |x: T| x.to_f64());
                T::from_f64(kind.finish(sum, count, 0.0))
            }
            ReduceKind::L2 => {
                let sum = sum(nest, from, |x: T| x.to_f64() * x.to_f64());
                T::from_f64(sum.sqrt())
            }
            ReduceKind::LogSumExp => {
                let top = finite(fold(nest, from, T::LOWEST, |a, x: T| a.most(x)).to_f64());
                let sum = sum(nest, from, |x: T| (x.to_f64() - top).exp());
                T::from_f64(kind.finish(sum, count, top))
            }
        };
    }
}
