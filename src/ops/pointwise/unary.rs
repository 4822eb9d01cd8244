//! Functions of one operand: mathematics, activations, tests for NaN and infinity.

use super::fused::{Source, bind_program, follow, is_programs};
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, Step};
use crate::error::Result;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, elements};
use crate::kernels::elem::{Elem, Number};
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::{ProgramBuilder, Register, Unary as Kernel, UnaryKind, UnaryOp};
use crate::kernels::vmath::scalar;
use crate::ops::types::elem;
use crate::tensor::{DType, decode_narrow};
use crate::{bail, ensure};
use std::sync::Arc;

/// A function of one operand.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum UnaryFn {
    /// One instruction of a program. `Not` is the logical one.
    Op(UnaryOp),
    BitwiseNot,
    IsInf {
        negative: bool,
        positive: bool,
    },
    LeakyRelu {
        alpha: f32,
    },
    Elu {
        alpha: f32,
    },
    Selu {
        alpha: f32,
        gamma: f32,
    },
    Celu {
        alpha: f32,
    },
    Gelu {
        tanh: bool,
    },
    HardSigmoid {
        alpha: f32,
        beta: f32,
    },
    HardSwish,
    Mish,
    Softsign,
    Swish {
        alpha: f32,
    },
    ThresholdedRelu {
        alpha: f32,
    },
    Shrink {
        lambda: f32,
        bias: f32,
    },
    /// The bounds of versions before 11.
    Clip {
        low: Option<f32>,
        high: Option<f32>,
    },
}

impl UnaryFn {
    /// Whether the result is bool whatever the operand is.
    pub fn tests(self) -> bool {
        matches!(self, UnaryFn::Op(UnaryOp::Not | UnaryOp::IsNan | UnaryOp::IsInf) | UnaryFn::IsInf { .. })
    }
    /// Writes the function into a program.
    pub fn write(self, b: &mut ProgramBuilder, x: Register) -> Register {
        match self {
            UnaryFn::Op(op) => b.unary(op, x),
            UnaryFn::BitwiseNot => x,
            UnaryFn::IsInf { negative: true, positive: true } => b.unary(UnaryOp::IsInf, x),
            UnaryFn::IsInf { negative, positive } => {
                let c = match (negative, positive) {
                    (true, _) => f32::NEG_INFINITY,
                    (_, true) => f32::INFINITY,
                    // Nothing equals it.
                    _ => f32::NAN,
                };
                let c = b.constant(c);
                b.binary(crate::kernels::pointwise::BinaryOp::Equal, x, c)
            }
            UnaryFn::LeakyRelu { alpha } => {
                let a = b.constant(alpha);
                b.prelu(x, a)
            }
            UnaryFn::Elu { alpha } => b.elu(x, alpha),
            UnaryFn::Selu { alpha, gamma } => b.selu(x, alpha, gamma),
            UnaryFn::Celu { alpha } => b.celu(x, alpha),
            UnaryFn::Gelu { tanh: false } => b.gelu(x),
            UnaryFn::Gelu { tanh: true } => b.gelu_tanh(x),
            UnaryFn::HardSigmoid { alpha, beta } => b.hard_sigmoid(x, alpha, beta),
            UnaryFn::HardSwish => b.hard_swish(x),
            UnaryFn::Mish => b.mish(x),
            UnaryFn::Softsign => b.softsign(x),
            UnaryFn::Swish { alpha } => b.swish(x, alpha),
            UnaryFn::ThresholdedRelu { alpha } => b.thresholded_relu(x, alpha),
            UnaryFn::Shrink { lambda, bias } => b.shrink(x, lambda, bias),
            UnaryFn::Clip { low, high } => b.clip(x, low, high),
        }
    }
    /// The function of a f64, for the types that programs do not compute; `None` where it is an instruction.
    fn evaluate(self, x: f64) -> Option<f64> {
        let elu = |x: f64, alpha: f32, divisor: f64| {
            if x > 0.0 { x } else { f64::from(alpha) * (x / divisor).exp_m1() }
        };
        Some(match self {
            UnaryFn::Op(UnaryOp::Erf) => scalar::erf64(x),
            UnaryFn::Op(_) | UnaryFn::BitwiseNot | UnaryFn::IsInf { .. } => return None,
            UnaryFn::LeakyRelu { alpha } => {
                if x < 0.0 {
                    x * f64::from(alpha)
                } else {
                    x
                }
            }
            UnaryFn::Elu { alpha } => elu(x, alpha, 1.0),
            UnaryFn::Selu { alpha, gamma } => elu(x, alpha, 1.0) * f64::from(gamma),
            UnaryFn::Celu { alpha } => elu(x, alpha, f64::from(alpha)),
            UnaryFn::Gelu { tanh: false } => scalar::gelu64(x),
            UnaryFn::Gelu { tanh: true } => scalar::gelu_tanh64(x),
            UnaryFn::HardSigmoid { alpha, beta } => hard_sigmoid(x, f64::from(alpha), f64::from(beta)),
            UnaryFn::HardSwish => x * ((x + 3.0).most(0.0).least(6.0) / 6.0),
            UnaryFn::Mish => scalar::mish64(x),
            UnaryFn::Softsign => x / (1.0 + x.abs()),
            UnaryFn::Swish { alpha } => scalar::swish64(x, f64::from(alpha)),
            UnaryFn::ThresholdedRelu { alpha } => {
                if x > f64::from(alpha) {
                    x
                } else {
                    0.0
                }
            }
            UnaryFn::Shrink { lambda, bias } => {
                let (l, b) = (f64::from(lambda), f64::from(bias));
                if x < -l {
                    x + b
                } else if x > l {
                    x - b
                } else {
                    0.0
                }
            }
            UnaryFn::Clip { low, high } => {
                let x = low.map_or(x, |l| x.most(f64::from(l)));
                high.map_or(x, |h| x.least(f64::from(h)))
            }
        })
    }
}

fn hard_sigmoid(x: f64, alpha: f64, beta: f64) -> f64 {
    (alpha * x + beta).most(0.0).least(1.0)
}

/// A function of one operand, element by element.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// Which function.
    pub f: UnaryFn,
}

impl Op for Unary {
    fn name(&self) -> &'static str {
        match self.f {
            UnaryFn::Op(op) => instruction_name(op),
            UnaryFn::BitwiseNot => "BitwiseNot",
            UnaryFn::IsInf { .. } => "IsInf",
            UnaryFn::LeakyRelu { .. } => "LeakyRelu",
            UnaryFn::Elu { .. } => "Elu",
            UnaryFn::Selu { .. } => "Selu",
            UnaryFn::Celu { .. } => "Celu",
            UnaryFn::Gelu { .. } => "Gelu",
            UnaryFn::HardSigmoid { .. } => "HardSigmoid",
            UnaryFn::HardSwish => "HardSwish",
            UnaryFn::Mish => "Mish",
            UnaryFn::Softsign => "Softsign",
            UnaryFn::Swish { .. } => "Swish",
            UnaryFn::ThresholdedRelu { .. } => "ThresholdedRelu",
            UnaryFn::Shrink { .. } => "Shrink",
            UnaryFn::Clip { .. } => "Clip",
        }
    }
    fn alias(&self) -> Alias {
        let sizes_may_differ = self.f.tests() && self.f != UnaryFn::Op(UnaryOp::Not);
        if sizes_may_differ { Alias::None } else { Alias::InPlace(&[0]) }
    }
    fn flops(&self, _: &InferCtx<'_>, outputs: &[Fact]) -> u64 {
        elements(outputs)
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        let first = *OPS.iter().find(|d| d.name == self.name())?.versions.first()?;
        let s = Spelling::since(first.max(6), version, self.name())?;
        Some(match self.f {
            UnaryFn::Op(_) | UnaryFn::BitwiseNot | UnaryFn::HardSwish | UnaryFn::Mish | UnaryFn::Softsign => s,
            UnaryFn::IsInf { negative, positive } => {
                s.int("detect_negative", i64::from(negative)).int("detect_positive", i64::from(positive))
            }
            UnaryFn::LeakyRelu { alpha }
            | UnaryFn::Elu { alpha }
            | UnaryFn::Celu { alpha }
            | UnaryFn::Swish { alpha }
            | UnaryFn::ThresholdedRelu { alpha } => s.float("alpha", alpha),
            UnaryFn::Selu { alpha, gamma } => s.float("alpha", alpha).float("gamma", gamma),
            UnaryFn::Gelu { tanh } => s.string("approximate", if tanh { "tanh" } else { "none" }),
            UnaryFn::HardSigmoid { alpha, beta } => s.float("alpha", alpha).float("beta", beta),
            UnaryFn::Shrink { lambda, bias } => s.float("lambd", lambda).float("bias", bias),
            UnaryFn::Clip { .. } => return None,
        })
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = if self.f.tests() { DType::Bool } else { cx.dtype(0)? };
        if self.f == UnaryFn::Op(UnaryOp::Not) {
            cx.expect_dtype(0, &[DType::Bool])?;
        }
        ensure!(cx.dtype(0)? != DType::String, InvalidModel, "{} takes no strings", self.name());
        let mut fact = cx.like(0, dtype)?;
        if self.f == UnaryFn::Op(UnaryOp::Neg)
            && let (Contents::Dims(d), Fact::Tensor(f)) = (&cx.tensor(0)?.contents, &mut fact)
        {
            f.contents = Contents::Dims(d.iter().map(|d| Dim::Known(0) - d.clone()).collect());
        }
        Ok(vec![fact])
    }
}

/// ONNX's name of an instruction.
fn instruction_name(op: UnaryOp) -> &'static str {
    INSTRUCTIONS.iter().find(|(_, o)| *o == op).map_or("Unary", |(n, _)| n)
}

const INSTRUCTIONS: &[(&str, UnaryOp)] = &[
    ("Abs", UnaryOp::Abs),
    ("Acos", UnaryOp::Acos),
    ("Acosh", UnaryOp::Acosh),
    ("Asin", UnaryOp::Asin),
    ("Asinh", UnaryOp::Asinh),
    ("Atan", UnaryOp::Atan),
    ("Atanh", UnaryOp::Atanh),
    ("Ceil", UnaryOp::Ceil),
    ("Cos", UnaryOp::Cos),
    ("Cosh", UnaryOp::Cosh),
    ("Erf", UnaryOp::Erf),
    ("Exp", UnaryOp::Exp),
    ("Floor", UnaryOp::Floor),
    ("IsNaN", UnaryOp::IsNan),
    ("Log", UnaryOp::Log),
    ("Neg", UnaryOp::Neg),
    ("Not", UnaryOp::Not),
    ("Reciprocal", UnaryOp::Reciprocal),
    ("Relu", UnaryOp::Relu),
    ("Round", UnaryOp::Round),
    ("Sigmoid", UnaryOp::Sigmoid),
    ("Sign", UnaryOp::Sign),
    ("Sin", UnaryOp::Sin),
    ("Sinh", UnaryOp::Sinh),
    ("Softplus", UnaryOp::Softplus),
    ("Sqrt", UnaryOp::Sqrt),
    ("Tan", UnaryOp::Tan),
    ("Tanh", UnaryOp::Tanh),
];

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    if let Some((_, op)) = INSTRUCTIONS.iter().find(|(n, _)| *n == cx.op_type) {
        return Ok(Arc::new(Unary { f: UnaryFn::Op(*op) }));
    }
    let alpha = |default| cx.float_or("alpha", default);
    let f = match cx.op_type {
        "BitwiseNot" => UnaryFn::BitwiseNot,
        "IsInf" => {
            UnaryFn::IsInf { negative: cx.flag("detect_negative", true)?, positive: cx.flag("detect_positive", true)? }
        }
        "LeakyRelu" => UnaryFn::LeakyRelu { alpha: alpha(0.01)? },
        "Elu" => UnaryFn::Elu { alpha: alpha(1.0)? },
        // Version 1 had the constants with fewer digits.
        "Selu" if cx.version < 6 => UnaryFn::Selu { alpha: alpha(1.6732)?, gamma: cx.float_or("gamma", 1.0507)? },
        "Selu" => UnaryFn::Selu { alpha: alpha(1.673_263_2)?, gamma: cx.float_or("gamma", 1.050_701)? },
        "Celu" => UnaryFn::Celu { alpha: alpha(1.0)? },
        "Gelu" => match cx.string_or("approximate", "none")?.as_str() {
            "none" => UnaryFn::Gelu { tanh: false },
            "tanh" => UnaryFn::Gelu { tanh: true },
            x => bail!(InvalidModel, "Gelu has no approximation '{x}'"),
        },
        "HardSigmoid" => UnaryFn::HardSigmoid { alpha: alpha(0.2)?, beta: cx.float_or("beta", 0.5)? },
        "HardSwish" => UnaryFn::HardSwish,
        "Mish" => UnaryFn::Mish,
        "Softsign" => UnaryFn::Softsign,
        "Swish" => UnaryFn::Swish { alpha: alpha(1.0)? },
        "ThresholdedRelu" => UnaryFn::ThresholdedRelu { alpha: alpha(1.0)? },
        "Shrink" => UnaryFn::Shrink { lambda: cx.float_or("lambd", 0.5)?, bias: cx.float_or("bias", 0.0)? },
        name => bail!(Internal, "{name} is no function of one operand"),
    };
    Ok(Arc::new(Unary { f }))
}

macro_rules! defs {
    ($($name:literal $versions:expr),* $(,)?) => {
        &[$(OpDef { domain: "", name: $name, versions: &$versions, parse }),*]
    };
}

pub(super) const OPS: &[OpDef] = defs! {
    "Abs" [1, 6, 13], "Acos" [7, 22], "Acosh" [9, 22], "Asin" [7, 22], "Asinh" [9, 22],
    "Atan" [7, 22], "Atanh" [9, 22], "BitwiseNot" [18], "Ceil" [1, 6, 13], "Celu" [12, 28],
    "Cos" [7, 22], "Cosh" [9, 22], "Elu" [1, 6, 22], "Erf" [9, 13], "Exp" [1, 6, 13],
    "Floor" [1, 6, 13], "Gelu" [20], "HardSigmoid" [1, 6, 22], "HardSwish" [14, 22], "IsInf" [10, 20],
    "IsNaN" [9, 13, 20], "LeakyRelu" [1, 6, 16], "Log" [1, 6, 13], "Mish" [18, 22], "Neg" [1, 6, 13],
    "Not" [1], "Reciprocal" [1, 6, 13], "Relu" [1, 6, 13, 14], "Round" [11, 22], "Selu" [1, 6, 22],
    "Shrink" [9], "Sigmoid" [1, 6, 13], "Sign" [9, 13], "Sin" [7, 22], "Sinh" [9, 22],
    "Softplus" [1, 22], "Softsign" [1, 22], "Sqrt" [1, 6, 13], "Swish" [24], "Tan" [7, 22],
    "Tanh" [1, 6, 13], "ThresholdedRelu" [1, 10, 22],
};

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Unary>(bind);
    b.layouts::<Unary>(|_, node, _| follow(node));
}

fn bind(op: &Unary, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    if is_programs(x.dtype) && op.f != UnaryFn::BitwiseNot {
        return bind_program(cx, "unary", &[Source::new(cx, 0)?], |b, x| Ok(vec![op.f.write(b, x[0])]));
    }
    if x.dtype.is_narrow_float() && op.f.tests() {
        return bind_narrow_test(op, cx);
    }
    let Some(elem) = elem(x.dtype) else { bail!(Unsupported, "{} of {}", op.name(), x.dtype) };
    let kind = match op.f {
        UnaryFn::Op(f) => Some(UnaryKind::Op(f)),
        UnaryFn::BitwiseNot => Some(UnaryKind::Not),
        UnaryFn::IsInf { negative: true, positive: true } => Some(UnaryKind::Op(UnaryOp::IsInf)),
        _ => None,
    };
    let kind =
        if elem == Elem::Bool && kind == Some(UnaryKind::Op(UnaryOp::Not)) { Some(UnaryKind::Not) } else { kind };
    let strides = dense_strides(&x.shape);
    if let Some(kind) = kind
        && let Ok(kernel) = Kernel::new(kind, elem, &x.shape, &strides, &strides)
    {
        return Ok(FnStep::boxed("unary", kernel.tasks(), 0, move |args, task, _| {
            // SAFETY: dense operands of the type and shape the kernel was made from.
            unsafe { kernel.run(task, args.input(0), args.output(0)) };
            Ok(())
        }));
    }
    let (f, n) = (op.f, x.len());
    if let (UnaryFn::IsInf { negative, positive }, Elem::F64) = (f, elem) {
        return Ok(FnStep::boxed("isinf", 1, 0, move |args, _, _| {
            for i in 0..n {
                // SAFETY: both operands have n elements.
                unsafe {
                    let x = *args.input::<f64>(0).add(i);
                    let yes = x == f64::INFINITY && positive || x == f64::NEG_INFINITY && negative;
                    args.output::<u8>(0).add(i).write(u8::from(yes));
                }
            }
            Ok(())
        }));
    }
    ensure!(f.evaluate(0.0).is_some(), Unsupported, "{} of {}", op.name(), x.dtype);
    match elem {
        Elem::F64 => Ok(bind_map::<f64>(f, n)),
        Elem::I8 => Ok(bind_map::<i8>(f, n)),
        Elem::I16 => Ok(bind_map::<i16>(f, n)),
        Elem::I32 => Ok(bind_map::<i32>(f, n)),
        Elem::I64 => Ok(bind_map::<i64>(f, n)),
        Elem::U8 => Ok(bind_map::<u8>(f, n)),
        Elem::U16 => Ok(bind_map::<u16>(f, n)),
        Elem::U32 => Ok(bind_map::<u32>(f, n)),
        Elem::U64 => Ok(bind_map::<u64>(f, n)),
        _ => bail!(Unsupported, "{} of {}", op.name(), x.dtype),
    }
}

/// The function through f64, one element at a time: for the types that models rarely use.
fn bind_map<T: Number>(f: UnaryFn, n: usize) -> Box<dyn Step> {
    let (tasks, per) = crate::backend::step::split(n, 4096);
    FnStep::boxed("unary_f64", tasks, 0, move |args, task, _| {
        for i in task * per..((task + 1) * per).min(n) {
            // SAFETY: both operands have n elements of T.
            unsafe {
                let x: T = *args.input::<T>(0).add(i);
                args.output::<T>(0).add(i).write(T::from_f64(f.evaluate(x.to_f64()).unwrap_or(0.0)));
            }
        }
        Ok(())
    })
}

/// IsNaN and IsInf of floats of a byte: looked up.
fn bind_narrow_test(op: &Unary, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let x = cx.input(0)?;
    ensure!(!x.dtype.is_packed(), Unsupported, "{} of {}", op.name(), x.dtype);
    let mut table = [0u8; 256];
    for (bits, yes) in table.iter_mut().enumerate() {
        let v = decode_narrow(x.dtype, bits as u8);
        *yes = u8::from(match op.f {
            UnaryFn::Op(UnaryOp::IsNan) => v.is_nan(),
            UnaryFn::IsInf { negative, positive } => v.is_infinite() && if v < 0.0 { negative } else { positive },
            _ => bail!(Unsupported, "{} of {}", op.name(), x.dtype),
        });
    }
    let n = x.len();
    Ok(FnStep::boxed("unary_table", 1, 0, move |args, _, _| {
        for i in 0..n {
            // SAFETY: both operands have n elements of a byte.
            unsafe { args.output::<u8>(0).add(i).write(table[*args.input::<u8>(0).add(i) as usize]) };
        }
        Ok(())
    }))
}
