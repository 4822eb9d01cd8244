//! Conversions between number types, as C has them where C defines them: floats are cut towards zero and saturate at an
//! integer's bounds (NaN gives 0), integers keep their low bits, floats round to even, and bool is 0 or 1.

use super::GRAIN;
use crate::error::Result;
use crate::kernels::convert::{load_strided, store_strided};
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::isa::Isa;
use crate::kernels::nd::Nest;
use half::{bf16, f16};

/// Elements converted at once on the way through f32.
const TILE: usize = 256;

type Loop = unsafe fn(usize, *const u8, isize, *mut u8, isize);

trait To<T> {
    fn to(self) -> T;
}
macro_rules! conversions {
    ($($from:ty => $($to:ty),*;)*) => {$($(
        impl To<$to> for $from {
            #[inline(always)]
            fn to(self) -> $to { self as $to }
        }
    )*)*};
}
conversions! {
    f32 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    f64 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    i8 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    i16 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    i32 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    i64 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    u8 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    u16 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    u32 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
    u64 => f32, f64, i8, i16, i32, i64, u8, u16, u32, u64;
}

/// A truth value as the target of a conversion.
#[derive(Clone, Copy)]
struct Truth(#[allow(dead_code)] u8);
macro_rules! truths {
    ($($from:ty)*) => {$(
        impl To<Truth> for $from {
            #[inline(always)]
            fn to(self) -> Truth { Truth(u8::from(self != (0 as $from))) }
        }
    )*};
}
truths!(f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);
macro_rules! halves {
    ($($from:ty)*) => {$(
        impl To<f16> for $from {
            #[inline(always)]
            fn to(self) -> f16 { f16::narrow_f64(self as f64) }
        }
        impl To<bf16> for $from {
            #[inline(always)]
            fn to(self) -> bf16 { bf16::narrow_f64(self as f64) }
        }
    )*};
}
halves!(f32 f64 i8 i16 i32 i64 u8 u16 u32 u64);

/// # Safety
/// Pointers and strides (in elements) are valid for `n` elements.
unsafe fn convert<A: To<B> + Copy, B>(n: usize, from: *const u8, sf: isize, to: *mut u8, st: isize) {
    let (from, to) = (from.cast::<A>(), to.cast::<B>());
    // SAFETY: the caller's contract.
    unsafe {
        if (sf, st) == (1, 1) {
            for i in 0..n {
                to.add(i).write((*from.add(i)).to());
            }
        } else {
            for i in 0..n as isize {
                to.offset(i * st).write((*from.offset(i * sf)).to());
            }
        }
    }
}

fn to_any<A>(to: Elem) -> Loop
where
    A: Copy + To<f32> + To<f64> + To<i8> + To<i16> + To<i32> + To<i64> + To<u8> + To<u16> + To<u32> + To<u64>,
    A: To<Truth> + To<f16> + To<bf16>,
{
    match to {
        Elem::F32 => convert::<A, f32>,
        Elem::F64 => convert::<A, f64>,
        Elem::F16 => convert::<A, f16>,
        Elem::Bf16 => convert::<A, bf16>,
        Elem::I8 => convert::<A, i8>,
        Elem::I16 => convert::<A, i16>,
        Elem::I32 => convert::<A, i32>,
        Elem::I64 => convert::<A, i64>,
        Elem::U8 => convert::<A, u8>,
        Elem::U16 => convert::<A, u16>,
        Elem::U32 => convert::<A, u32>,
        Elem::U64 => convert::<A, u64>,
        Elem::Bool => convert::<A, Truth>,
    }
}

fn pick(from: Elem, to: Elem) -> Loop {
    match from {
        // f16 and bf16 are widened first.
        Elem::F32 | Elem::F16 | Elem::Bf16 => to_any::<f32>(to),
        Elem::F64 => to_any::<f64>(to),
        Elem::I8 => to_any::<i8>(to),
        Elem::I16 => to_any::<i16>(to),
        Elem::I32 => to_any::<i32>(to),
        Elem::I64 => to_any::<i64>(to),
        Elem::U8 | Elem::Bool => to_any::<u8>(to),
        Elem::U16 => to_any::<u16>(to),
        Elem::U32 => to_any::<u32>(to),
        Elem::U64 => to_any::<u64>(to),
    }
}

/// A conversion bound to a shape and strides.
#[derive(Clone, Debug)]
pub struct Cast {
    nest: Nest,
    isa: Isa,
    from: Elem,
    to: Elem,
    run: Loop,
}

impl Cast {
    /// Converts `from` into `to` over `shape`; strides in elements.
    pub fn new(isa: Isa, from: Elem, to: Elem, shape: &[usize], input: &[isize], out: &[isize]) -> Result<Cast> {
        Ok(Cast { nest: Nest::new(shape, &[input, out])?, isa, from, to, run: pick(from, to) })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.nest.tasks(GRAIN)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the types, shape and strides given to `new`, and do not overlap.
    pub unsafe fn run(&self, task: usize, input: *const u8, out: *mut u8) {
        let (n, sf, st) = (&self.nest, self.nest.inner_stride(0), self.nest.inner_stride(1));
        let (size, out_size) = (self.from.size() as isize, self.to.size() as isize);
        n.run_task(task, GRAIN, |o, count| {
            // SAFETY: the offsets lie within the operands.
            unsafe { self.row(input.offset(o[0] * size), sf, out.offset(o[1] * out_size), st, count) }
        });
    }
    unsafe fn row(&self, from: *const u8, sf: isize, to: *mut u8, st: isize, count: usize) {
        let wide = |e: Elem| matches!(e, Elem::F16 | Elem::Bf16);
        let through_f32 = wide(self.from) || (wide(self.to) && self.from == Elem::F32);
        if !through_f32 {
            // SAFETY: the caller's contract.
            return unsafe { (self.run)(count, from, sf, to, st) };
        }
        // One conversion is enough where f32 already is one of the two, and lies in a row.
        if self.to == Elem::F32 && st == 1 {
            // SAFETY: the caller's contract.
            return unsafe { load_strided(self.isa, self.from, from, sf, to.cast(), count) };
        }
        if self.from == Elem::F32 && sf == 1 {
            // SAFETY: as above.
            return unsafe { store_strided(self.isa, from.cast(), 1, self.to, to, st, count) };
        }
        let mut tile = [0.0f32; TILE];
        let (size, out_size) = (self.from.size() as isize, self.to.size() as isize);
        for start in (0..count).step_by(TILE) {
            let n = TILE.min(count - start);
            // SAFETY: the part lies within the row, and the tile has n numbers.
            unsafe {
                let at = from.offset(start as isize * sf * size);
                let out = to.offset(start as isize * st * out_size);
                load_strided(self.isa, self.from, at, sf, tile.as_mut_ptr(), n);
                if self.to.is_f32_like() {
                    store_strided(self.isa, tile.as_ptr(), 1, self.to, out, st, n);
                } else {
                    (self.run)(n, tile.as_ptr().cast(), 1, out, st);
                }
            }
        }
    }
}
