//! The floats that generic kernels compute in: f32 and f64, with the functions they need.

use super::elem::Number;

/// A float to compute in. f16 and bf16 are widened to f32 before a kernel meets them.
#[allow(missing_docs)]
pub trait Real:
    Number
    + std::iter::Sum
    + Default
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
{
    fn exp(self) -> Self;
    fn ln(self) -> Self;
    fn sqrt(self) -> Self;
    fn tanh(self) -> Self;
    fn floor(self) -> Self;
    fn ceil(self) -> Self;
    fn powr(self, p: Self) -> Self;
    fn of(x: f64) -> Self;
}

macro_rules! real {
    ($t:ty) => {
        impl Real for $t {
            #[inline(always)]
            fn exp(self) -> Self {
                <$t>::exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                <$t>::ln(self)
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                <$t>::tanh(self)
            }
            #[inline(always)]
            fn floor(self) -> Self {
                <$t>::floor(self)
            }
            #[inline(always)]
            fn ceil(self) -> Self {
                <$t>::ceil(self)
            }
            #[inline(always)]
            fn powr(self, p: Self) -> Self {
                self.powf(p)
            }
            #[inline(always)]
            fn of(x: f64) -> Self {
                x as $t
            }
        }
    };
}
real!(f32);
real!(f64);
