//! Single numbers of any type, by way of f64, for what computes in f64 whatever its operands are.

use super::elem::{Elem, Narrow, Number};
use half::{bf16, f16};

macro_rules! each {
    ($elem:expr, $t:ident => $number:expr, $f16:expr, $bf16:expr, $bool:expr) => {
        each!(@ $elem, $t => $number, $f16, $bf16, $bool;
            F32 f32, F64 f64, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64)
    };
    (@ $elem:expr, $t:ident => $number:expr, $f16:expr, $bf16:expr, $bool:expr; $($variant:ident $native:ty),*) => {
        match $elem {
            $(Elem::$variant => {
                type $t = $native;
                $number
            })*
            Elem::F16 => $f16,
            Elem::Bf16 => $bf16,
            Elem::Bool => $bool,
        }
    };
}

/// Element `i`.
/// # Safety
/// `from` points to more than `i` elements of the type.
#[inline]
pub unsafe fn load(elem: Elem, from: *const u8, i: usize) -> f64 {
    // SAFETY: the caller's.
    unsafe {
        each!(elem, T => (*from.cast::<T>().add(i)).to_f64(),
            (*from.cast::<f16>().add(i)).to_f64(),
            (*from.cast::<bf16>().add(i)).to_f64(),
            f64::from(u8::from(*from.add(i) != 0)))
    }
}

/// Makes `x` element `i`. Integers are cut off and saturate.
/// # Safety
/// `to` points to room for more than `i` elements of the type.
#[inline]
pub unsafe fn store(elem: Elem, to: *mut u8, i: usize, x: f64) {
    // SAFETY: the caller's.
    unsafe {
        each!(elem, T => *to.cast::<T>().add(i) = <T as Number>::from_f64(x),
            *to.cast::<f16>().add(i) = f16::narrow_f64(x),
            *to.cast::<bf16>().add(i) = bf16::narrow_f64(x),
            *to.add(i) = u8::from(x != 0.0))
    }
}
