//! Element types as kernels see them, and the traits that generic loops are written against.

use half::{bf16, f16};

/// The type of an array's elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Elem {
    F32,
    F64,
    F16,
    Bf16,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    /// A byte, 0 or 1.
    Bool,
}

impl Elem {
    /// Every type.
    pub const ALL: [Elem; 13] = [
        Elem::F32,
        Elem::F64,
        Elem::F16,
        Elem::Bf16,
        Elem::I8,
        Elem::I16,
        Elem::I32,
        Elem::I64,
        Elem::U8,
        Elem::U16,
        Elem::U32,
        Elem::U64,
        Elem::Bool,
    ];
    /// Bytes of one element.
    pub const fn size(self) -> usize {
        match self {
            Elem::I8 | Elem::U8 | Elem::Bool => 1,
            Elem::F16 | Elem::Bf16 | Elem::I16 | Elem::U16 => 2,
            Elem::F32 | Elem::I32 | Elem::U32 => 4,
            Elem::F64 | Elem::I64 | Elem::U64 => 8,
        }
    }
    /// Whether the type is computed in f32: f32 itself, f16 and bf16.
    pub const fn is_f32_like(self) -> bool {
        matches!(self, Elem::F32 | Elem::F16 | Elem::Bf16)
    }
    /// Whether the type is a float of any width.
    pub const fn is_float(self) -> bool {
        self.is_f32_like() || matches!(self, Elem::F64)
    }
}

/// A number that generic loops compute with: f32, f64, and the integers. Integer arithmetic wraps, and no operation
/// traps: a division by zero gives zero, as NumPy has it.
#[allow(missing_docs)]
pub trait Number: Copy + PartialOrd + Send + Sync + std::fmt::Debug + 'static {
    const ELEM: Elem;
    const ZERO: Self;
    const ONE: Self;
    /// The lowest value: -Inf for floats.
    const LOWEST: Self;
    /// The highest value: +Inf for floats.
    const HIGHEST: Self;
    const FLOAT: bool;
    fn add(self, b: Self) -> Self;
    fn sub(self, b: Self) -> Self;
    fn mul(self, b: Self) -> Self;
    /// Integers round towards zero.
    fn div(self, b: Self) -> Self;
    /// The remainder with the sign of the dividend, as C has it.
    fn fmod(self, b: Self) -> Self;
    /// The remainder with the sign of the divisor, as Python has it.
    fn modulo(self, b: Self) -> Self;
    fn pow(self, b: Self) -> Self;
    fn neg(self) -> Self;
    fn abs(self) -> Self;
    /// -1, 0 or 1; NaN stays.
    fn sign(self) -> Self;
    /// The lesser; NaN if either is.
    fn least(self, b: Self) -> Self;
    /// The greater; NaN if either is.
    fn most(self, b: Self) -> Self;
    fn is_nan(self) -> bool;
    fn to_f64(self) -> f64;
    /// Saturates at the bounds of an integer; NaN becomes zero.
    fn from_f64(x: f64) -> Self;
}

macro_rules! integer {
    ($t:ty, $elem:ident, $neg:expr, $abs:expr, $sign:expr) => {
        impl Number for $t {
            const ELEM: Elem = Elem::$elem;
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LOWEST: Self = <$t>::MIN;
            const HIGHEST: Self = <$t>::MAX;
            const FLOAT: bool = false;
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self.wrapping_add(b)
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self.wrapping_sub(b)
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self.wrapping_mul(b)
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_div(b) }
            }
            #[inline(always)]
            fn fmod(self, b: Self) -> Self {
                if b == 0 { 0 } else { self.wrapping_rem(b) }
            }
            #[inline(always)]
            #[allow(unused_comparisons)]
            fn modulo(self, b: Self) -> Self {
                let r = self.fmod(b);
                if r != 0 && (r < 0) != (b < 0) { r.wrapping_add(b) } else { r }
            }
            #[inline]
            #[allow(unused_comparisons)]
            fn pow(self, b: Self) -> Self {
                if b < 0 {
                    // 1 / self^|b|, rounded towards zero.
                    return match self {
                        1 => 1,
                        _ if self.wrapping_add(1) == 0 => {
                            if b % 2 == 0 {
                                1
                            } else {
                                self
                            }
                        }
                        _ => 0,
                    };
                }
                let (mut base, mut left, mut power) = (self, b, 1 as $t);
                while left > 0 {
                    if left & 1 == 1 {
                        power = power.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                power
            }
            #[inline(always)]
            fn neg(self) -> Self {
                ($neg)(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                ($abs)(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                ($sign)(self)
            }
            #[inline(always)]
            fn least(self, b: Self) -> Self {
                self.min(b)
            }
            #[inline(always)]
            fn most(self, b: Self) -> Self {
                self.max(b)
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                false
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
        }
    };
}
integer!(i8, I8, i8::wrapping_neg, i8::wrapping_abs, i8::signum);
integer!(i16, I16, i16::wrapping_neg, i16::wrapping_abs, i16::signum);
integer!(i32, I32, i32::wrapping_neg, i32::wrapping_abs, i32::signum);
integer!(i64, I64, i64::wrapping_neg, i64::wrapping_abs, i64::signum);
integer!(u8, U8, u8::wrapping_neg, |x| x, |x: u8| u8::from(x != 0));
integer!(u16, U16, u16::wrapping_neg, |x| x, |x: u16| u16::from(x != 0));
integer!(u32, U32, u32::wrapping_neg, |x| x, |x: u32| u32::from(x != 0));
integer!(u64, U64, u64::wrapping_neg, |x| x, |x: u64| u64::from(x != 0));

macro_rules! float {
    ($t:ty, $elem:ident) => {
        impl Number for $t {
            const ELEM: Elem = Elem::$elem;
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const LOWEST: Self = <$t>::NEG_INFINITY;
            const HIGHEST: Self = <$t>::INFINITY;
            const FLOAT: bool = true;
            #[inline(always)]
            fn add(self, b: Self) -> Self {
                self + b
            }
            #[inline(always)]
            fn sub(self, b: Self) -> Self {
                self - b
            }
            #[inline(always)]
            fn mul(self, b: Self) -> Self {
                self * b
            }
            #[inline(always)]
            fn div(self, b: Self) -> Self {
                self / b
            }
            #[inline(always)]
            fn fmod(self, b: Self) -> Self {
                self % b
            }
            #[inline(always)]
            fn modulo(self, b: Self) -> Self {
                let r = self % b;
                if r != 0.0 {
                    if (r < 0.0) != (b < 0.0) { r + b } else { r }
                } else {
                    // A zero takes the divisor's sign; NaN stays.
                    if r == 0.0 { r.copysign(b) } else { r }
                }
            }
            #[inline(always)]
            fn pow(self, b: Self) -> Self {
                self.powf(b)
            }
            #[inline(always)]
            fn neg(self) -> Self {
                -self
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn sign(self) -> Self {
                if self > 0.0 {
                    1.0
                } else if self < 0.0 {
                    -1.0
                } else {
                    // Either zero gives +0, NaN stays.
                    self + 0.0
                }
            }
            #[inline(always)]
            fn least(self, b: Self) -> Self {
                if self < b || self.is_nan() { self } else { b }
            }
            #[inline(always)]
            fn most(self, b: Self) -> Self {
                if self > b || self.is_nan() { self } else { b }
            }
            #[inline(always)]
            fn is_nan(self) -> bool {
                <$t>::is_nan(self)
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
            #[inline(always)]
            fn from_f64(x: f64) -> Self {
                x as $t
            }
        }
    };
}
float!(f32, F32);
float!(f64, F64);

/// A float that is stored narrow and computed in f32.
#[allow(missing_docs)]
pub trait Narrow: Copy + Send + Sync + 'static {
    const ELEM: Elem;
    fn widen(self) -> f32;
    fn narrow(x: f32) -> Self;
    /// Rounds once. (The crate `half` drops the low bits of a f64 before it rounds.)
    #[inline(always)]
    fn narrow_f64(x: f64) -> Self {
        Self::narrow(to_odd(x))
    }
}

/// To f32, what does not fit leaving its mark in the last bit, so that rounding to a narrower type rounds but once.
#[inline(always)]
fn to_odd(x: f64) -> f32 {
    let y = x as f32;
    let back = f64::from(y);
    if back == x || y.is_nan() {
        return y;
    }
    f32::from_bits((y.to_bits() - u32::from(back.abs() > x.abs())) | 1)
}
impl Narrow for f32 {
    const ELEM: Elem = Elem::F32;
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        x
    }
    #[inline(always)]
    fn narrow_f64(x: f64) -> Self {
        x as f32
    }
}
impl Narrow for f16 {
    const ELEM: Elem = Elem::F16;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        f16::from_f32(x)
    }
}
impl Narrow for bf16 {
    const ELEM: Elem = Elem::Bf16;
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[inline(always)]
    fn narrow(x: f32) -> Self {
        bf16::from_f32(x)
    }
}
