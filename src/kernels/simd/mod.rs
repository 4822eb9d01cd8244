//! Vectors of f32 and i32: a kernel is written once over [`F32`] and compiled for every instruction set level.
//!
//! How to write a kernel: put its arguments in a struct, implement [`Kernel`] for it with an `#[inline(always)]` generic
//! `run<V: F32>`, and call [`dispatch`]. Every helper on the way down must be `#[inline(always)]` too, or it is compiled
//! without the vector instructions (and passes its vectors through memory). That includes closures: prefer none.
//!
//! The concrete types are named only here and inside functions that enable their instructions. Generic code gets them from
//! [`dispatch`], whose [`Isa`] is the proof that the processor has them; that is why arithmetic is safe to call.

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
pub mod scalar;
#[cfg(test)]
mod tests;

use super::isa::{Isa, Level};
use std::fmt::Debug;
use std::ops::{Add, BitAnd, BitOr, BitXor, Div, Mul, Neg, Not, Sub};

/// One truth value a lane.
pub trait Mask:
    Copy + Debug + BitAnd<Output = Self> + BitOr<Output = Self> + BitXor<Output = Self> + Not<Output = Self>
{
    /// Bit `i` is lane `i`.
    fn bits(self) -> u32;
    /// Lanes below `n` are true.
    fn first(n: usize) -> Self;
    /// Whether some lane is true.
    #[inline(always)]
    fn any(self) -> bool {
        self.bits() != 0
    }
}

/// A vector of f32.
pub trait F32:
    Copy
    + Debug
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
{
    /// Lanes: 8 or 16.
    const LANES: usize;
    /// The vector of i32 with as many lanes.
    type I: I32<F = Self, M = Self::M>;
    /// What comparisons give.
    type M: Mask;

    /// `x` in every lane.
    fn splat(x: f32) -> Self;
    /// Zero in every lane.
    #[inline(always)]
    fn zero() -> Self {
        Self::splat(0.0)
    }
    /// `LANES` values; no alignment needed.
    /// # Safety
    /// `p` is valid for reading `LANES` f32.
    unsafe fn load(p: *const f32) -> Self;
    /// The first `n` values, zero in the lanes after them. Touches no memory after them.
    /// # Safety
    /// `n <= LANES` and `p` is valid for reading `n` f32.
    unsafe fn load_n(p: *const f32, n: usize) -> Self;
    /// Writes all lanes; no alignment needed.
    /// # Safety
    /// `p` is valid for writing `LANES` f32.
    unsafe fn store(self, p: *mut f32);
    /// Writes the first `n` lanes.
    /// # Safety
    /// `n <= LANES` and `p` is valid for writing `n` f32.
    unsafe fn store_n(self, p: *mut f32, n: usize);
    /// `p[index]` of each lane.
    /// # Safety
    /// `p` is valid for reading at each lane's index.
    unsafe fn gather(p: *const f32, index: Self::I) -> Self;
    /// `LANES` values of IEEE half precision.
    /// # Safety
    /// `p` is valid for reading `LANES` u16.
    unsafe fn load_f16(p: *const u16) -> Self;
    /// Writes the transpose of `LANES` rows of `LANES` values: `dst[j * dst_row + i] = src[i * src_row + j]`.
    /// # Safety
    /// The rows are valid for reading in `src`, which need not be aligned, and for writing in `dst`; the two do not overlap.
    #[inline(always)]
    unsafe fn transpose(src: *const f32, src_row: usize, dst: *mut f32, dst_row: usize) {
        for i in 0..Self::LANES {
            for j in 0..Self::LANES {
                // SAFETY: the caller's.
                unsafe { *dst.add(j * dst_row + i) = src.add(i * src_row + j).read_unaligned() };
            }
        }
    }
    /// Rounds (to even) to IEEE half precision.
    /// # Safety
    /// `p` is valid for writing `LANES` u16.
    unsafe fn store_f16(self, p: *mut u16);

    /// `self * b + c`, fused where the processor can (the scalar level rounds twice).
    fn mul_add(self, b: Self, c: Self) -> Self;
    /// `c - self * b`, fused where the processor can.
    fn neg_mul_add(self, b: Self, c: Self) -> Self;
    /// `self < b ? self : b`: gives `b` where either is NaN, so `limit.min(x)` keeps a NaN `x`.
    fn min(self, b: Self) -> Self;
    /// `self > b ? self : b`: gives `b` where either is NaN, so `limit.max(x)` keeps a NaN `x`.
    fn max(self, b: Self) -> Self;
    /// Square root, correctly rounded.
    fn sqrt(self) -> Self;
    /// Without the sign.
    #[inline(always)]
    fn abs(self) -> Self {
        (self.to_bits() & Self::I::splat(i32::MAX)).to_float_bits()
    }
    /// This magnitude with `sign`'s sign.
    #[inline(always)]
    fn copysign(self, sign: Self) -> Self {
        let m = Self::I::splat(i32::MAX);
        ((self.to_bits() & m) | (sign.to_bits() & Self::I::splat(i32::MIN))).to_float_bits()
    }
    /// To the nearest integer, ties to even.
    fn round(self) -> Self;
    /// To the integer below.
    fn floor(self) -> Self;
    /// To the integer above.
    fn ceil(self) -> Self;
    /// To the integer towards zero.
    fn trunc(self) -> Self;
    /// `2^self` of whole numbers from -126 to 127.
    #[inline(always)]
    fn two_to_whole(self) -> Self {
        (self.to_i32_round() + Self::I::splat(127)).shl(23).to_float_bits()
    }
    /// `self * 2^n` of whole `n` from -252 to 128, where `self` is near one: rounded once where it is denormal, infinite at 2^128.
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // In two steps, each of which is a normal number.
        let (n, bias) = (n.to_i32_round(), Self::I::splat(127));
        let half = n.sar(1);
        let (a, b): (Self, Self) = ((half + bias).shl(23).to_float_bits(), (n - half + bias).shl(23).to_float_bits());
        self * a * b
    }
    /// To the nearest i32, ties to even; anything for NaN and where it does not fit.
    fn to_i32_round(self) -> Self::I;
    /// To i32 towards zero; anything for NaN and where it does not fit.
    fn to_i32_trunc(self) -> Self::I;
    /// The same bits as integers.
    fn to_bits(self) -> Self::I;

    /// Whether `self < b`; false for NaN.
    fn lt(self, b: Self) -> Self::M;
    /// Whether `self <= b`; false for NaN.
    fn le(self, b: Self) -> Self::M;
    /// Whether `self == b`; false for NaN.
    fn eq(self, b: Self) -> Self::M;
    /// Whether `self > b`; false for NaN.
    #[inline(always)]
    fn gt(self, b: Self) -> Self::M {
        b.lt(self)
    }
    /// Whether `self >= b`; false for NaN.
    #[inline(always)]
    fn ge(self, b: Self) -> Self::M {
        b.le(self)
    }
    /// Which lanes are NaN.
    #[inline(always)]
    fn is_nan(self) -> Self::M {
        !self.eq(self)
    }
    /// `yes` where the mask is true, else `no`.
    fn select(m: Self::M, yes: Self, no: Self) -> Self;

    /// Sum of the lanes, in a fixed order (halves, then quarters...).
    fn sum(self) -> f32;
    /// Largest lane; unspecified which where a lane is NaN.
    fn max_lane(self) -> f32;
    /// Smallest lane; unspecified which where a lane is NaN.
    fn min_lane(self) -> f32;
    /// The lanes as an array; those from `LANES` on are zero.
    #[inline(always)]
    fn to_array(self) -> [f32; 16] {
        let mut a = [0.0; 16];
        // SAFETY: 16 is the most lanes there are.
        unsafe { self.store(a.as_mut_ptr()) };
        a
    }
}

/// A vector of i32. Arithmetic wraps.
pub trait I32:
    Copy
    + Debug
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + BitXor<Output = Self>
{
    /// Lanes: 8 or 16.
    const LANES: usize;
    /// The vector of f32 with as many lanes.
    type F: F32<I = Self, M = Self::M>;
    /// What comparisons give.
    type M: Mask;

    /// `x` in every lane.
    fn splat(x: i32) -> Self;
    /// 0, 1, 2...
    fn iota() -> Self;
    /// `LANES` values; no alignment needed.
    /// # Safety
    /// `p` is valid for reading `LANES` i32.
    unsafe fn load(p: *const i32) -> Self;
    /// The first `n` values, zero in the lanes after them.
    /// # Safety
    /// `n <= LANES` and `p` is valid for reading `n` i32.
    unsafe fn load_n(p: *const i32, n: usize) -> Self;
    /// Writes all lanes.
    /// # Safety
    /// `p` is valid for writing `LANES` i32.
    unsafe fn store(self, p: *mut i32);
    /// Writes the first `n` lanes.
    /// # Safety
    /// `n <= LANES` and `p` is valid for writing `n` i32.
    unsafe fn store_n(self, p: *mut i32, n: usize);
    /// `LANES` bytes, widened without sign.
    /// # Safety
    /// `p` is valid for reading `LANES` u8.
    unsafe fn load_u8(p: *const u8) -> Self;
    /// `LANES` bytes, widened with sign.
    /// # Safety
    /// `p` is valid for reading `LANES` i8.
    unsafe fn load_i8(p: *const i8) -> Self;
    /// `LANES` u16, widened without sign.
    /// # Safety
    /// `p` is valid for reading `LANES` u16.
    unsafe fn load_u16(p: *const u16) -> Self;
    /// `LANES` i16, widened with sign.
    /// # Safety
    /// `p` is valid for reading `LANES` i16.
    unsafe fn load_i16(p: *const i16) -> Self;
    /// Writes the low 16 bits of each lane.
    /// # Safety
    /// `p` is valid for writing `LANES` u16.
    unsafe fn store_u16(self, p: *mut u16);
    /// Writes the low 8 bits of each lane.
    /// # Safety
    /// `p` is valid for writing `LANES` u8.
    unsafe fn store_u8(self, p: *mut u8);
    /// The smaller, signed.
    fn min(self, b: Self) -> Self;
    /// The larger, signed.
    fn max(self, b: Self) -> Self;
    /// Shift left; `n < 32`.
    fn shl(self, n: u32) -> Self;
    /// Shift right, filling with zeros; `n < 32`.
    fn shr(self, n: u32) -> Self;
    /// Shift right, filling with the sign; `n < 32`.
    fn sar(self, n: u32) -> Self;
    /// Whether `self == b`.
    fn eq(self, b: Self) -> Self::M;
    /// Whether `self > b`, signed.
    fn gt(self, b: Self) -> Self::M;
    /// `yes` where the mask is true, else `no`.
    fn select(m: Self::M, yes: Self, no: Self) -> Self;
    /// To the nearest f32.
    fn to_f32(self) -> Self::F;
    /// The same bits as floats.
    fn to_float_bits(self) -> Self::F;
    /// Sum of the lanes, wrapping.
    fn sum(self) -> i32;
}

/// A kernel written over any vector type.
pub trait Kernel {
    /// What a run gives.
    type Out;
    /// The body; mark it `#[inline(always)]`.
    fn run<V: F32>(self) -> Self::Out;
}

/// Runs a kernel with the instructions of `isa`.
#[inline]
pub fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    match isa.level() {
        // SAFETY: the Isa value proves that the processor has the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => unsafe { run_avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => unsafe { run_avx2(kernel) },
        _ => run_scalar(kernel),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl")]
unsafe fn run_avx512<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<avx512::F>()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn run_avx2<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<avx2::F>()
}

#[inline(never)]
fn run_scalar<K: Kernel>(kernel: K) -> K::Out {
    kernel.run::<scalar::F>()
}

/// Implements operator traits by naming one expression each: `ops!(F: Add add |a, b| expr; ...)`.
macro_rules! ops {
    ($t:ty: $($tr:ident $f:ident |$a:ident, $b:ident| $e:expr;)*) => {$(
        impl std::ops::$tr for $t {
            type Output = Self;
            #[inline(always)]
            fn $f(self, rhs: Self) -> Self {
                let ($a, $b) = (self.0, rhs.0);
                // SAFETY: this type's instructions are there (module docs).
                #[allow(unused_unsafe)]
                Self(unsafe { $e })
            }
        }
    )*};
}
/// One-line methods whose only unsafety is their instruction set.
macro_rules! methods {
    ($(fn $f:ident($($a:ident: $ty:ty),*) -> $r:ty = $e:expr;)*) => {$(
        #[inline(always)]
        fn $f($($a: $ty),*) -> $r {
            // SAFETY: this type's instructions are there (module docs).
            #[allow(unused_unsafe)]
            unsafe { $e }
        }
    )*};
}
/// Methods on memory: the caller answers for the pointer.
macro_rules! memory {
    ($(fn $f:ident($($a:ident: $ty:ty),*) $(-> $r:ty)? = $e:expr;)*) => {$(
        #[inline(always)]
        unsafe fn $f($($a: $ty),*) $(-> $r)? {
            // SAFETY: the caller's contract, as the trait states it.
            #[allow(unused_unsafe)]
            unsafe { $e }
        }
    )*};
}
use {memory, methods, ops};
