//! Elementwise operators on f64, integers and bool: one inner loop an operator and type, broadcasting outside it.
//! Integers wrap, and nothing traps: x / 0 and x mod 0 are 0, shifts past the width
//! give 0, or -1 where a negative number is shifted to the right.

use super::GRAIN;
use super::program::UnaryOp;
use crate::err;
use crate::error::Result;
use crate::kernels::elem::{Elem, Number};
use crate::kernels::nd::Nest;
use crate::kernels::vmath::scalar;

/// Operators of two operands of one type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum BinaryKind {
    Add,
    Sub,
    Mul,
    /// Integers round towards zero.
    Div,
    /// The remainder with the sign of the dividend, as C has it.
    Fmod,
    /// The remainder with the sign of the divisor, as Python has it.
    Mod,
    Pow,
    Min,
    Max,
    /// Bitwise; on bool the logical operator.
    And,
    Or,
    Xor,
    ShiftLeft,
    ShiftRight,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
}

impl BinaryKind {
    /// Every operator.
    pub const ALL: [BinaryKind; 19] = {
        use BinaryKind::*;
        [
            Add,
            Sub,
            Mul,
            Div,
            Fmod,
            Mod,
            Pow,
            Min,
            Max,
            And,
            Or,
            Xor,
            ShiftLeft,
            ShiftRight,
            Less,
            LessOrEqual,
            Greater,
            GreaterOrEqual,
            Equal,
        ]
    };
    /// Whether the result is bool.
    pub fn compares(self) -> bool {
        use BinaryKind::*;
        matches!(self, Less | LessOrEqual | Greater | GreaterOrEqual | Equal)
    }
}

/// Operators of one operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnaryKind {
    /// An operation of programs: all of them on f64; Neg, Abs, Sign and Relu on integers.
    Op(UnaryOp),
    /// Every bit, or the truth of a bool.
    Not,
}

trait Fn2<T> {
    type Out;
    fn of(a: T, b: T) -> Self::Out;
}
trait Fn1<T> {
    type Out;
    fn of(a: T) -> Self::Out;
}

type Loop2 = unsafe fn(usize, *const u8, isize, *const u8, isize, *mut u8, isize);
type Loop1 = unsafe fn(usize, *const u8, isize, *mut u8, isize);

/// # Safety
/// Pointers and strides (in elements) are valid for `n` elements.
unsafe fn loop2<T: Copy, F: Fn2<T>>(
    n: usize,
    a: *const u8,
    sa: isize,
    b: *const u8,
    sb: isize,
    to: *mut u8,
    st: isize,
) {
    let (a, b, to) = (a.cast::<T>(), b.cast::<T>(), to.cast::<F::Out>());
    // SAFETY: the caller's contract.
    unsafe {
        if (sa, sb, st) == (1, 1, 1) {
            for i in 0..n {
                to.add(i).write(F::of(*a.add(i), *b.add(i)));
            }
        } else {
            for i in 0..n as isize {
                to.offset(i * st).write(F::of(*a.offset(i * sa), *b.offset(i * sb)));
            }
        }
    }
}

/// # Safety
/// Pointers and strides (in elements) are valid for `n` elements.
unsafe fn loop1<T: Copy, F: Fn1<T>>(n: usize, a: *const u8, sa: isize, to: *mut u8, st: isize) {
    let (a, to) = (a.cast::<T>(), to.cast::<F::Out>());
    // SAFETY: the caller's contract.
    unsafe {
        if (sa, st) == (1, 1) {
            for i in 0..n {
                to.add(i).write(F::of(*a.add(i)));
            }
        } else {
            for i in 0..n as isize {
                to.offset(i * st).write(F::of(*a.offset(i * sa)));
            }
        }
    }
}

macro_rules! functions {
    ($($name:ident: $bound:ident -> $out:ty = |$a:ident $(, $b:ident)?| $e:expr;)*) => {
        $( functions!(@one $name $bound $out, $a $($b)?, $e); )*
    };
    (@one $name:ident $bound:ident $out:ty, $a:ident $b:ident, $e:expr) => {
        struct $name;
        impl<T: $bound> Fn2<T> for $name {
            type Out = $out;
            #[inline(always)]
            fn of($a: T, $b: T) -> $out { $e }
        }
    };
    (@one $name:ident $bound:ident $out:ty, $a:ident, $e:expr) => {
        struct $name;
        impl<T: $bound> Fn1<T> for $name {
            type Out = $out;
            #[inline(always)]
            fn of($a: T) -> $out { $e }
        }
    };
}

/// Integers as bits.
trait Bits: Number {
    fn and(self, b: Self) -> Self;
    fn or(self, b: Self) -> Self;
    fn xor(self, b: Self) -> Self;
    fn not(self) -> Self;
    fn shl(self, b: Self) -> Self;
    fn shr(self, b: Self) -> Self;
}
macro_rules! bits {
    ($($t:ty)*) => {$(
        impl Bits for $t {
            #[inline(always)]
            fn and(self, b: Self) -> Self { self & b }
            #[inline(always)]
            fn or(self, b: Self) -> Self { self | b }
            #[inline(always)]
            fn xor(self, b: Self) -> Self { self ^ b }
            #[inline(always)]
            fn not(self) -> Self { !self }
            #[inline(always)]
            fn shl(self, b: Self) -> Self {
                if b as u64 >= <$t>::BITS as u64 { 0 } else { self << b }
            }
            #[inline(always)]
            fn shr(self, b: Self) -> Self {
                // The sign is shifted in, however far.
                if b as u64 >= <$t>::BITS as u64 { self >> (<$t>::BITS - 1) >> 1 } else { self >> b }
            }
        }
    )*};
}
bits!(i8 i16 i32 i64 u8 u16 u32 u64);

functions! {
    Add: Number -> T = |a, b| a.add(b);
    Sub: Number -> T = |a, b| a.sub(b);
    Mul: Number -> T = |a, b| a.mul(b);
    Div: Number -> T = |a, b| a.div(b);
    Fmod: Number -> T = |a, b| a.fmod(b);
    Mod: Number -> T = |a, b| a.modulo(b);
    Pow: Number -> T = |a, b| a.pow(b);
    Min: Number -> T = |a, b| a.least(b);
    Max: Number -> T = |a, b| a.most(b);
    Less: Number -> u8 = |a, b| u8::from(a < b);
    LessOrEqual: Number -> u8 = |a, b| u8::from(a <= b);
    Greater: Number -> u8 = |a, b| u8::from(a > b);
    GreaterOrEqual: Number -> u8 = |a, b| u8::from(a >= b);
    Equal: Number -> u8 = |a, b| u8::from(a == b);
    And: Bits -> T = |a, b| a.and(b);
    Or: Bits -> T = |a, b| a.or(b);
    Xor: Bits -> T = |a, b| a.xor(b);
    ShiftLeft: Bits -> T = |a, b| a.shl(b);
    ShiftRight: Bits -> T = |a, b| a.shr(b);
    Neg: Number -> T = |a| a.neg();
    Abs: Number -> T = |a| a.abs();
    Sign: Number -> T = |a| a.sign();
    Relu: Number -> T = |a| T::ZERO.most(a);
    BitNot: Bits -> T = |a| a.not();
}

struct LogicalNot;
impl Fn1<u8> for LogicalNot {
    type Out = u8;
    #[inline(always)]
    fn of(a: u8) -> u8 {
        u8::from(a == 0)
    }
}

fn number<T: Number>(kind: BinaryKind) -> Option<Loop2> {
    Some(match kind {
        BinaryKind::Add => loop2::<T, Add>,
        BinaryKind::Sub => loop2::<T, Sub>,
        BinaryKind::Mul => loop2::<T, Mul>,
        BinaryKind::Div => loop2::<T, Div>,
        BinaryKind::Fmod => loop2::<T, Fmod>,
        BinaryKind::Mod => loop2::<T, Mod>,
        BinaryKind::Pow => loop2::<T, Pow>,
        BinaryKind::Min => loop2::<T, Min>,
        BinaryKind::Max => loop2::<T, Max>,
        BinaryKind::Less => loop2::<T, Less>,
        BinaryKind::LessOrEqual => loop2::<T, LessOrEqual>,
        BinaryKind::Greater => loop2::<T, Greater>,
        BinaryKind::GreaterOrEqual => loop2::<T, GreaterOrEqual>,
        BinaryKind::Equal => loop2::<T, Equal>,
        _ => return None,
    })
}

fn integer<T: Bits>(kind: BinaryKind) -> Option<Loop2> {
    Some(match kind {
        BinaryKind::And => loop2::<T, And>,
        BinaryKind::Or => loop2::<T, Or>,
        BinaryKind::Xor => loop2::<T, Xor>,
        BinaryKind::ShiftLeft => loop2::<T, ShiftLeft>,
        BinaryKind::ShiftRight => loop2::<T, ShiftRight>,
        _ => return number::<T>(kind),
    })
}

fn pick2(kind: BinaryKind, elem: Elem) -> Option<Loop2> {
    match elem {
        Elem::F64 => number::<f64>(kind),
        Elem::I8 => integer::<i8>(kind),
        Elem::I16 => integer::<i16>(kind),
        Elem::I32 => integer::<i32>(kind),
        Elem::I64 => integer::<i64>(kind),
        Elem::U8 => integer::<u8>(kind),
        Elem::U16 => integer::<u16>(kind),
        Elem::U32 => integer::<u32>(kind),
        Elem::U64 => integer::<u64>(kind),
        Elem::Bool => match kind {
            BinaryKind::And | BinaryKind::Min => Some(loop2::<u8, And>),
            BinaryKind::Or | BinaryKind::Max => Some(loop2::<u8, Or>),
            BinaryKind::Xor => Some(loop2::<u8, Xor>),
            _ if kind.compares() => number::<u8>(kind),
            _ => None,
        },
        // These are programs' work.
        Elem::F32 | Elem::F16 | Elem::Bf16 => None,
    }
}

/// The type of an operator's result; `None` where [`Binary`] has no loop for the type.
pub fn binary_result(kind: BinaryKind, elem: Elem) -> Option<Elem> {
    pick2(kind, elem).map(|_| if kind.compares() { Elem::Bool } else { elem })
}

fn int1<T: Bits>(kind: UnaryKind) -> Option<Loop1> {
    Some(match kind {
        UnaryKind::Not => loop1::<T, BitNot>,
        UnaryKind::Op(UnaryOp::Neg) => loop1::<T, Neg>,
        UnaryKind::Op(UnaryOp::Abs) => loop1::<T, Abs>,
        UnaryKind::Op(UnaryOp::Sign) => loop1::<T, Sign>,
        UnaryKind::Op(UnaryOp::Relu) => loop1::<T, Relu>,
        _ => return None,
    })
}

macro_rules! f64_functions {
    ($kind:ident: $($op:ident -> $out:ty = |$x:ident| $e:expr;)*) => {
        match $kind {
            $(UnaryOp::$op => {
                struct F;
                impl Fn1<f64> for F {
                    type Out = $out;
                    #[inline(always)]
                    fn of($x: f64) -> $out { $e }
                }
                loop1::<f64, F>
            })*
        }
    };
}

fn f64_loop(op: UnaryOp) -> Loop1 {
    f64_functions! { op:
        Neg -> f64 = |x| -x;
        Abs -> f64 = |x| x.abs();
        Sign -> f64 = |x| Number::sign(x);
        Floor -> f64 = |x| x.floor();
        Ceil -> f64 = |x| x.ceil();
        Round -> f64 = |x| x.round_ties_even();
        Trunc -> f64 = |x| x.trunc();
        Sqrt -> f64 = |x| x.sqrt();
        Rsqrt -> f64 = |x| 1.0 / x.sqrt();
        Reciprocal -> f64 = |x| 1.0 / x;
        Exp -> f64 = |x| x.exp();
        Exp2 -> f64 = |x| x.exp2();
        Expm1 -> f64 = |x| x.exp_m1();
        Log -> f64 = |x| x.ln();
        Log1p -> f64 = |x| x.ln_1p();
        Sin -> f64 = |x| x.sin();
        Cos -> f64 = |x| x.cos();
        Tan -> f64 = |x| x.tan();
        Asin -> f64 = |x| x.asin();
        Acos -> f64 = |x| x.acos();
        Atan -> f64 = |x| x.atan();
        Sinh -> f64 = |x| x.sinh();
        Cosh -> f64 = |x| x.cosh();
        Tanh -> f64 = |x| x.tanh();
        Asinh -> f64 = |x| scalar::asinh64(x);
        Acosh -> f64 = |x| scalar::acosh64(x);
        Atanh -> f64 = |x| scalar::atanh64(x);
        Erf -> f64 = |x| scalar::erf64(x);
        Sigmoid -> f64 = |x| scalar::sigmoid64(x);
        Softplus -> f64 = |x| scalar::softplus64(x);
        Gelu -> f64 = |x| scalar::gelu64(x);
        GeluTanh -> f64 = |x| scalar::gelu_tanh64(x);
        Mish -> f64 = |x| scalar::mish64(x);
        Relu -> f64 = |x| 0.0f64.most(x);
        Not -> u8 = |x| u8::from(x == 0.0);
        IsNan -> u8 = |x| u8::from(x.is_nan());
        IsInf -> u8 = |x| u8::from(x.is_infinite());
    }
}

fn pick1(kind: UnaryKind, elem: Elem) -> Option<Loop1> {
    match (elem, kind) {
        (Elem::F64, UnaryKind::Op(op)) => Some(f64_loop(op)),
        (Elem::Bool, UnaryKind::Not) => Some(loop1::<u8, LogicalNot>),
        (Elem::I8, _) => int1::<i8>(kind),
        (Elem::I16, _) => int1::<i16>(kind),
        (Elem::I32, _) => int1::<i32>(kind),
        (Elem::I64, _) => int1::<i64>(kind),
        (Elem::U8, _) => int1::<u8>(kind),
        (Elem::U16, _) => int1::<u16>(kind),
        (Elem::U32, _) => int1::<u32>(kind),
        (Elem::U64, _) => int1::<u64>(kind),
        _ => None,
    }
}

/// A binary operator bound to a shape and strides (in elements, 0 where an operand is broadcast).
#[derive(Clone, Debug)]
pub struct Binary {
    nest: Nest,
    run: Loop2,
    size: isize,
    out_size: isize,
}

impl Binary {
    /// Binds the operator; `Unsupported` where it has no meaning for the type. The result may be the memory of an operand
    /// of the same strides and element size.
    pub fn new(
        kind: BinaryKind,
        elem: Elem,
        shape: &[usize],
        a: &[isize],
        b: &[isize],
        out: &[isize],
    ) -> Result<Binary> {
        let run = pick2(kind, elem).ok_or_else(|| err!(Unsupported, "{kind:?} of {elem:?}"))?;
        let size = elem.size() as isize;
        let out_size = if kind.compares() { 1 } else { size };
        Ok(Binary { nest: Nest::new(shape, &[a, b, out])?, run, size, out_size })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.nest.tasks(GRAIN)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the type, shape and strides given to `new`.
    pub unsafe fn run(&self, task: usize, a: *const u8, b: *const u8, out: *mut u8) {
        let n = &self.nest;
        let (sa, sb, so) = (n.inner_stride(0), n.inner_stride(1), n.inner_stride(2));
        n.run_task(task, GRAIN, |o, count| {
            // SAFETY: the offsets lie within the operands.
            unsafe {
                (self.run)(
                    count,
                    a.offset(o[0] * self.size),
                    sa,
                    b.offset(o[1] * self.size),
                    sb,
                    out.offset(o[2] * self.out_size),
                    so,
                )
            }
        });
    }
}

/// A unary operator bound to a shape and strides.
#[derive(Clone, Debug)]
pub struct Unary {
    nest: Nest,
    run: Loop1,
    size: isize,
    out_size: isize,
}

impl Unary {
    /// Binds the operator; `Unsupported` where it has no meaning for the type. `Not`, `IsNan` and `IsInf` of f64 give bool.
    pub fn new(kind: UnaryKind, elem: Elem, shape: &[usize], a: &[isize], out: &[isize]) -> Result<Unary> {
        let run = pick1(kind, elem).ok_or_else(|| err!(Unsupported, "{kind:?} of {elem:?}"))?;
        let truth = matches!(kind, UnaryKind::Op(UnaryOp::Not | UnaryOp::IsNan | UnaryOp::IsInf));
        let size = elem.size() as isize;
        Ok(Unary { nest: Nest::new(shape, &[a, out])?, run, size, out_size: if truth { 1 } else { size } })
    }
    /// How many tasks there are.
    pub fn tasks(&self) -> usize {
        self.nest.tasks(GRAIN)
    }
    /// Runs one task.
    /// # Safety
    /// The pointers are valid for the type, shape and strides given to `new`.
    pub unsafe fn run(&self, task: usize, a: *const u8, out: *mut u8) {
        let n = &self.nest;
        let (sa, so) = (n.inner_stride(0), n.inner_stride(1));
        n.run_task(task, GRAIN, |o, count| {
            // SAFETY: the offsets lie within the operands.
            unsafe { (self.run)(count, a.offset(o[0] * self.size), sa, out.offset(o[1] * self.out_size), so) }
        });
    }
}
