//! Eight lanes in plain Rust: the reference that the other levels are tested against, and what runs where nothing else can.

use super::{F32, I32, Mask, memory, methods, ops};
use half::f16;
use std::array::from_fn;

const N: usize = 8;

/// Eight f32.
#[derive(Clone, Copy, Debug)]
pub struct F(pub [f32; N]);
/// Eight i32.
#[derive(Clone, Copy, Debug)]
pub struct I(pub [i32; N]);
/// Eight truth values.
#[derive(Clone, Copy, Debug)]
pub struct M(pub [bool; N]);

ops!(F:
    Add add |a, b| from_fn(|i| a[i] + b[i]);
    Sub sub |a, b| from_fn(|i| a[i] - b[i]);
    Mul mul |a, b| from_fn(|i| a[i] * b[i]);
    Div div |a, b| from_fn(|i| a[i] / b[i]);
);
ops!(I:
    Add add |a, b| from_fn(|i| a[i].wrapping_add(b[i]));
    Sub sub |a, b| from_fn(|i| a[i].wrapping_sub(b[i]));
    Mul mul |a, b| from_fn(|i| a[i].wrapping_mul(b[i]));
    BitAnd bitand |a, b| from_fn(|i| a[i] & b[i]);
    BitOr bitor |a, b| from_fn(|i| a[i] | b[i]);
    BitXor bitxor |a, b| from_fn(|i| a[i] ^ b[i]);
);
ops!(M:
    BitAnd bitand |a, b| from_fn(|i| a[i] & b[i]);
    BitOr bitor |a, b| from_fn(|i| a[i] | b[i]);
    BitXor bitxor |a, b| from_fn(|i| a[i] ^ b[i]);
);

impl std::ops::Neg for F {
    type Output = F;
    #[inline(always)]
    fn neg(self) -> F {
        F(from_fn(|i| -self.0[i]))
    }
}
impl std::ops::Not for M {
    type Output = M;
    #[inline(always)]
    fn not(self) -> M {
        M(from_fn(|i| !self.0[i]))
    }
}

impl Mask for M {
    #[inline(always)]
    fn bits(self) -> u32 {
        (0..N).fold(0, |m, i| m | (self.0[i] as u32) << i)
    }
    #[inline(always)]
    fn first(n: usize) -> M {
        M(from_fn(|i| i < n))
    }
}

/// Folds halves, then quarters, as the vector levels do.
#[inline(always)]
fn fold<T: Copy>(mut a: [T; N], f: impl Fn(T, T) -> T) -> T {
    for half in [4, 2, 1] {
        for i in 0..half {
            a[i] = f(a[i], a[i + half]);
        }
    }
    a[0]
}

impl F32 for F {
    const LANES: usize = N;
    type I = I;
    type M = M;

    methods! {
        fn splat(x: f32) -> F = F([x; N]);
        fn mul_add(self: F, b: F, c: F) -> F = F(from_fn(|i| self.0[i] * b.0[i] + c.0[i]));
        fn neg_mul_add(self: F, b: F, c: F) -> F = F(from_fn(|i| c.0[i] - self.0[i] * b.0[i]));
        fn min(self: F, b: F) -> F = F(from_fn(|i| if self.0[i] < b.0[i] { self.0[i] } else { b.0[i] }));
        fn max(self: F, b: F) -> F = F(from_fn(|i| if self.0[i] > b.0[i] { self.0[i] } else { b.0[i] }));
        fn sqrt(self: F) -> F = F(from_fn(|i| self.0[i].sqrt()));
        fn round(self: F) -> F = F(from_fn(|i| self.0[i].round_ties_even()));
        fn floor(self: F) -> F = F(from_fn(|i| self.0[i].floor()));
        fn ceil(self: F) -> F = F(from_fn(|i| self.0[i].ceil()));
        fn trunc(self: F) -> F = F(from_fn(|i| self.0[i].trunc()));
        fn to_i32_round(self: F) -> I = I(from_fn(|i| self.0[i].round_ties_even() as i32));
        fn to_i32_trunc(self: F) -> I = I(from_fn(|i| self.0[i] as i32));
        fn to_bits(self: F) -> I = I(from_fn(|i| self.0[i].to_bits() as i32));
        fn lt(self: F, b: F) -> M = M(from_fn(|i| self.0[i] < b.0[i]));
        fn le(self: F, b: F) -> M = M(from_fn(|i| self.0[i] <= b.0[i]));
        fn eq(self: F, b: F) -> M = M(from_fn(|i| self.0[i] == b.0[i]));
        fn select(m: M, yes: F, no: F) -> F = F(from_fn(|i| if m.0[i] { yes.0[i] } else { no.0[i] }));
        fn sum(self: F) -> f32 = fold(self.0, |a, b| a + b);
        fn max_lane(self: F) -> f32 = fold(self.0, |a, b| if a > b { a } else { b });
        fn min_lane(self: F) -> f32 = fold(self.0, |a, b| if a < b { a } else { b });
    }
    memory! {
        fn load(p: *const f32) -> F = F(p.cast::<[f32; N]>().read_unaligned());
        fn store(self: F, p: *mut f32) = p.cast::<[f32; N]>().write_unaligned(self.0);
        fn load_n(p: *const f32, n: usize) -> F = {
            let mut a = [0.0; N];
            std::ptr::copy_nonoverlapping(p, a.as_mut_ptr(), n);
            F(a)
        };
        fn store_n(self: F, p: *mut f32, n: usize) = std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n);
        fn gather(p: *const f32, index: I) -> F = F(from_fn(|i| unsafe { *p.offset(index.0[i] as isize) }));
        fn load_f16(p: *const u16) -> F = F(from_fn(|i| f16::from_bits(unsafe { *p.add(i) }).to_f32()));
        fn store_f16(self: F, p: *mut u16) = for i in 0..N {
            *p.add(i) = f16::from_f32(self.0[i]).to_bits();
        };
    }
}

impl I32 for I {
    const LANES: usize = N;
    type F = F;
    type M = M;

    methods! {
        fn splat(x: i32) -> I = I([x; N]);
        fn iota() -> I = I(from_fn(|i| i as i32));
        fn min(self: I, b: I) -> I = I(from_fn(|i| self.0[i].min(b.0[i])));
        fn max(self: I, b: I) -> I = I(from_fn(|i| self.0[i].max(b.0[i])));
        fn shl(self: I, n: u32) -> I = I(from_fn(|i| self.0[i] << n));
        fn shr(self: I, n: u32) -> I = I(from_fn(|i| (self.0[i] as u32 >> n) as i32));
        fn sar(self: I, n: u32) -> I = I(from_fn(|i| self.0[i] >> n));
        fn eq(self: I, b: I) -> M = M(from_fn(|i| self.0[i] == b.0[i]));
        fn gt(self: I, b: I) -> M = M(from_fn(|i| self.0[i] > b.0[i]));
        fn select(m: M, yes: I, no: I) -> I = I(from_fn(|i| if m.0[i] { yes.0[i] } else { no.0[i] }));
        fn to_f32(self: I) -> F = F(from_fn(|i| self.0[i] as f32));
        fn to_float_bits(self: I) -> F = F(from_fn(|i| f32::from_bits(self.0[i] as u32)));
        fn sum(self: I) -> i32 = fold(self.0, i32::wrapping_add);
    }
    memory! {
        fn load(p: *const i32) -> I = I(p.cast::<[i32; N]>().read_unaligned());
        fn store(self: I, p: *mut i32) = p.cast::<[i32; N]>().write_unaligned(self.0);
        fn load_n(p: *const i32, n: usize) -> I = {
            let mut a = [0; N];
            std::ptr::copy_nonoverlapping(p, a.as_mut_ptr(), n);
            I(a)
        };
        fn store_n(self: I, p: *mut i32, n: usize) = std::ptr::copy_nonoverlapping(self.0.as_ptr(), p, n);
        fn load_u8(p: *const u8) -> I = I(from_fn(|i| unsafe { *p.add(i) } as i32));
        fn load_i8(p: *const i8) -> I = I(from_fn(|i| unsafe { *p.add(i) } as i32));
        fn load_u16(p: *const u16) -> I = I(from_fn(|i| unsafe { *p.add(i) } as i32));
        fn load_i16(p: *const i16) -> I = I(from_fn(|i| unsafe { *p.add(i) } as i32));
        fn store_u16(self: I, p: *mut u16) = for i in 0..N {
            *p.add(i) = self.0[i] as u16;
        };
        fn store_u8(self: I, p: *mut u8) = for i in 0..N {
            *p.add(i) = self.0[i] as u8;
        };
    }
}
