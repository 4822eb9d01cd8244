//! What each instruction does: to one number, and to a tile of them with vectors.

use super::program::{BinaryOp, Instruction, TernaryOp, UnaryOp};
use crate::kernels::elem::Number;
use crate::kernels::simd::{F32, Kernel};
use crate::kernels::vmath;
use crate::kernels::vmath::scalar;

/// One or zero.
fn truth(x: bool) -> f32 {
    f32::from(u8::from(x))
}

/// The instruction's value for one element.
pub(super) fn evaluate(instruction: &Instruction, inputs: &[f32], values: &[f32]) -> f32 {
    let at = |r: u16| values[r as usize];
    match *instruction {
        Instruction::Load { input } => inputs[input as usize],
        Instruction::Constant { value } => value,
        Instruction::Unary { op, a } => unary(op, at(a)),
        Instruction::Binary { op, a, b } => binary(op, at(a), at(b)),
        Instruction::Ternary { op, a, b, c } => ternary(op, at(a), at(b), at(c)),
        Instruction::Select { condition, yes, no } => {
            if at(condition) != 0.0 {
                at(yes)
            } else {
                at(no)
            }
        }
    }
}

fn unary(op: UnaryOp, a: f32) -> f32 {
    match op {
        UnaryOp::Neg => -a,
        UnaryOp::Abs => a.abs(),
        UnaryOp::Sign => a.sign(),
        UnaryOp::Floor => a.floor(),
        UnaryOp::Ceil => a.ceil(),
        UnaryOp::Round => a.round_ties_even(),
        UnaryOp::Trunc => a.trunc(),
        UnaryOp::Sqrt => a.sqrt(),
        UnaryOp::Rsqrt => 1.0 / a.sqrt(),
        UnaryOp::Reciprocal => 1.0 / a,
        UnaryOp::Exp => scalar::exp(a),
        UnaryOp::Exp2 => scalar::exp2(a),
        UnaryOp::Expm1 => scalar::expm1(a),
        UnaryOp::Log => scalar::log(a),
        UnaryOp::Log1p => scalar::log1p(a),
        UnaryOp::Sin => scalar::sin(a),
        UnaryOp::Cos => scalar::cos(a),
        UnaryOp::Tan => scalar::tan(a),
        UnaryOp::Asin => scalar::asin(a),
        UnaryOp::Acos => scalar::acos(a),
        UnaryOp::Atan => scalar::atan(a),
        UnaryOp::Sinh => scalar::sinh(a),
        UnaryOp::Cosh => scalar::cosh(a),
        UnaryOp::Tanh => scalar::tanh(a),
        UnaryOp::Asinh => scalar::asinh(a),
        UnaryOp::Acosh => scalar::acosh(a),
        UnaryOp::Atanh => scalar::atanh(a),
        UnaryOp::Erf => scalar::erf(a),
        UnaryOp::Sigmoid => scalar::sigmoid(a),
        UnaryOp::Softplus => scalar::softplus(a),
        UnaryOp::Gelu => scalar::gelu(a),
        UnaryOp::GeluTanh => scalar::gelu_tanh(a),
        UnaryOp::Mish => scalar::mish(a),
        UnaryOp::Relu => 0.0f32.most(a),
        UnaryOp::Not => truth(a == 0.0),
        UnaryOp::IsNan => truth(a.is_nan()),
        UnaryOp::IsInf => truth(a.is_infinite()),
    }
}

fn binary(op: BinaryOp, a: f32, b: f32) -> f32 {
    match op {
        BinaryOp::Add => a + b,
        BinaryOp::Sub => a - b,
        BinaryOp::Mul => a * b,
        BinaryOp::Div => a / b,
        BinaryOp::Min => a.least(b),
        BinaryOp::Max => a.most(b),
        BinaryOp::Pow => scalar::pow(a, b),
        BinaryOp::Fmod => a % b,
        BinaryOp::Mod => a.modulo(b),
        BinaryOp::Swish => scalar::swish(a, b),
        BinaryOp::Less => truth(a < b),
        BinaryOp::LessOrEqual => truth(a <= b),
        BinaryOp::Equal => truth(a == b),
        BinaryOp::And => truth(a != 0.0 && b != 0.0),
        BinaryOp::Or => truth(a != 0.0 || b != 0.0),
        BinaryOp::Xor => truth((a != 0.0) != (b != 0.0)),
    }
}

fn ternary(op: TernaryOp, a: f32, b: f32, c: f32) -> f32 {
    match op {
        TernaryOp::MultiplyAdd => scalar::multiply_add(a, b, c),
        TernaryOp::Dequantize => (a - b) * c,
        TernaryOp::Quantize => (a / b).round_ties_even() + c,
        TernaryOp::Limit => {
            let x = a.round_ties_even();
            let x = if x > b { x } else { b };
            if x < c { x } else { c }
        }
    }
}

/// Where an operand's tile lies. A scalar repeats one vector of 16 equal numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub at: *const f32,
    pub scalar: bool,
}

impl Source {
    /// Which bits of a number's index count.
    #[inline(always)]
    fn bits(self) -> usize {
        if self.scalar { 0 } else { usize::MAX }
    }
}

/// One instruction over `len` elements. Sources and target may be one and the same memory, or be apart.
pub(super) struct Tile<'a> {
    pub instruction: &'a Instruction,
    pub sources: [Source; 3],
    pub target: *mut f32,
    pub len: usize,
}

/// The loop over a tile; a macro, since a closure would be compiled without the vector instructions. What is `quick` is done to
/// two vectors at a time: else the loop itself takes longest.
macro_rules! over {
    ($t:ident, $V:ident; $($x:ident = $k:literal),+; quick $e:expr) => {{
        let bits = $t.sources.map(Source::bits);
        let mut i = 0;
        // SAFETY: the caller of `Tile` answers for `len` elements of sources and target; of scalars the 16 are read.
        unsafe {
            while i + 2 * $V::LANES <= $t.len {
                $(let $x = $V::load($t.sources[$k].at.add(i & bits[$k]));)+
                let first: $V = $e;
                $(let $x = $V::load($t.sources[$k].at.add((i + $V::LANES) & bits[$k]));)+
                let second: $V = $e;
                first.store($t.target.add(i));
                second.store($t.target.add(i + $V::LANES));
                i += 2 * $V::LANES;
            }
        }
        over!($t, $V; i, bits; $($x = $k),+; $e)
    }};
    ($t:ident, $V:ident; $($x:ident = $k:literal),+; $e:expr) => {{
        let bits = $t.sources.map(Source::bits);
        let mut i = 0;
        over!($t, $V; i, bits; $($x = $k),+; $e)
    }};
    ($t:ident, $V:ident; $i:ident, $bits:ident; $($x:ident = $k:literal),+; $e:expr) => {{
        // SAFETY: the caller of `Tile` answers for `len` elements of sources and target; of scalars the 16 are read.
        unsafe {
            while $i + $V::LANES <= $t.len {
                $(let $x = $V::load($t.sources[$k].at.add($i & $bits[$k]));)+
                $e.store($t.target.add($i));
                $i += $V::LANES;
            }
            if $i < $t.len {
                let n = $t.len - $i;
                $(let $x = $V::load_n($t.sources[$k].at.add($i & $bits[$k]), n);)+
                $e.store_n($t.target.add($i), n);
            }
        }
    }};
}

/// One where the mask holds, else zero.
#[inline(always)]
fn ones<V: F32>(m: V::M) -> V {
    V::select(m, V::splat(1.0), V::zero())
}
#[inline(always)]
fn is_true<V: F32>(x: V) -> V::M {
    !x.eq(V::zero())
}

impl Kernel for Tile<'_> {
    type Out = ();
    #[inline(always)]
    fn run<V: F32>(self) {
        let t = self;
        match *t.instruction {
            Instruction::Load { .. } | Instruction::Constant { .. } => over!(t, V; a = 0; quick a),
            Instruction::Unary { op, .. } => match op {
                UnaryOp::Neg => over!(t, V; a = 0; quick -a),
                UnaryOp::Abs => over!(t, V; a = 0; quick a.abs()),
                UnaryOp::Sign => over!(t, V; a = 0; vmath::sign(a)),
                UnaryOp::Floor => over!(t, V; a = 0; quick a.floor()),
                UnaryOp::Ceil => over!(t, V; a = 0; quick a.ceil()),
                UnaryOp::Round => over!(t, V; a = 0; quick a.round()),
                UnaryOp::Trunc => over!(t, V; a = 0; quick a.trunc()),
                UnaryOp::Sqrt => over!(t, V; a = 0; a.sqrt()),
                UnaryOp::Rsqrt => over!(t, V; a = 0; vmath::rsqrt(a)),
                UnaryOp::Reciprocal => over!(t, V; a = 0; vmath::reciprocal(a)),
                UnaryOp::Exp => over!(t, V; a = 0; vmath::exp(a)),
                UnaryOp::Exp2 => over!(t, V; a = 0; vmath::exp2(a)),
                UnaryOp::Expm1 => over!(t, V; a = 0; vmath::expm1(a)),
                UnaryOp::Log => over!(t, V; a = 0; vmath::log(a)),
                UnaryOp::Log1p => over!(t, V; a = 0; vmath::log1p(a)),
                UnaryOp::Sin => over!(t, V; a = 0; vmath::sin(a)),
                UnaryOp::Cos => over!(t, V; a = 0; vmath::cos(a)),
                UnaryOp::Tan => over!(t, V; a = 0; vmath::tan(a)),
                UnaryOp::Asin => over!(t, V; a = 0; vmath::asin(a)),
                UnaryOp::Acos => over!(t, V; a = 0; vmath::acos(a)),
                UnaryOp::Atan => over!(t, V; a = 0; vmath::atan(a)),
                UnaryOp::Sinh => over!(t, V; a = 0; vmath::sinh(a)),
                UnaryOp::Cosh => over!(t, V; a = 0; vmath::cosh(a)),
                UnaryOp::Tanh => over!(t, V; a = 0; vmath::tanh(a)),
                UnaryOp::Asinh => over!(t, V; a = 0; vmath::asinh(a)),
                UnaryOp::Acosh => over!(t, V; a = 0; vmath::acosh(a)),
                UnaryOp::Atanh => over!(t, V; a = 0; vmath::atanh(a)),
                UnaryOp::Erf => over!(t, V; a = 0; vmath::erf(a)),
                UnaryOp::Sigmoid => over!(t, V; a = 0; vmath::sigmoid(a)),
                UnaryOp::Softplus => over!(t, V; a = 0; vmath::softplus(a)),
                UnaryOp::Gelu => over!(t, V; a = 0; vmath::gelu(a)),
                UnaryOp::GeluTanh => over!(t, V; a = 0; vmath::gelu_tanh(a)),
                UnaryOp::Mish => over!(t, V; a = 0; vmath::mish(a)),
                UnaryOp::Relu => over!(t, V; a = 0; quick V::zero().max(a)),
                UnaryOp::Not => over!(t, V; a = 0; ones::<V>(a.eq(V::zero()))),
                UnaryOp::IsNan => over!(t, V; a = 0; ones::<V>(a.is_nan())),
                UnaryOp::IsInf => over!(t, V; a = 0; ones::<V>(a.abs().eq(V::splat(f32::INFINITY)))),
            },
            Instruction::Binary { op, .. } => match op {
                BinaryOp::Add => over!(t, V; a = 0, b = 1; quick a + b),
                BinaryOp::Sub => over!(t, V; a = 0, b = 1; quick a - b),
                BinaryOp::Mul => over!(t, V; a = 0, b = 1; quick a * b),
                BinaryOp::Div => over!(t, V; a = 0, b = 1; quick a / b),
                BinaryOp::Min => over!(t, V; a = 0, b = 1; quick vmath::least(a, b)),
                BinaryOp::Max => over!(t, V; a = 0, b = 1; quick vmath::most(a, b)),
                BinaryOp::Pow => over!(t, V; a = 0, b = 1; vmath::pow(a, b)),
                BinaryOp::Fmod => over!(t, V; a = 0, b = 1; vmath::fmod(a, b)),
                BinaryOp::Mod => over!(t, V; a = 0, b = 1; vmath::modulo(a, b)),
                BinaryOp::Swish => over!(t, V; a = 0, b = 1; vmath::swish(a, b)),
                BinaryOp::Less => over!(t, V; a = 0, b = 1; ones::<V>(a.lt(b))),
                BinaryOp::LessOrEqual => over!(t, V; a = 0, b = 1; ones::<V>(a.le(b))),
                BinaryOp::Equal => over!(t, V; a = 0, b = 1; ones::<V>(a.eq(b))),
                BinaryOp::And => over!(t, V; a = 0, b = 1; ones::<V>(is_true(a) & is_true(b))),
                BinaryOp::Or => over!(t, V; a = 0, b = 1; ones::<V>(is_true(a) | is_true(b))),
                BinaryOp::Xor => over!(t, V; a = 0, b = 1; ones::<V>(is_true(a) ^ is_true(b))),
            },
            Instruction::Ternary { op, .. } => match op {
                TernaryOp::MultiplyAdd => over!(t, V; a = 0, b = 1, c = 2; quick vmath::multiply_add(a, b, c)),
                TernaryOp::Dequantize => over!(t, V; a = 0, b = 1, c = 2; quick (a - b) * c),
                TernaryOp::Quantize => over!(t, V; a = 0, b = 1, c = 2; quick (a / b).round() + c),
                TernaryOp::Limit => over!(t, V; a = 0, b = 1, c = 2; quick a.round().max(b).min(c)),
            },
            Instruction::Select { .. } => over!(t, V; a = 0, b = 1, c = 2; quick V::select(is_true(a), b, c)),
        }
    }
}
