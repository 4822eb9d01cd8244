//! Conversions between element types: Cast, CastLike, BitCast.

#[cfg(feature = "opencl")]
mod opencl;

use super::Family;
use super::case::{Case, CaseInput};
use super::steps::Phases;
use super::types::elem;
use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values};
use crate::backend::step::split;
use crate::backend::{FnStep, Operand, Step};
use crate::base::alloc::{filled, gathered, try_gathered};
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, TensorFact};
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::nd::dense_strides;
use crate::kernels::pointwise::Cast as Kernel;
use crate::tensor::{DType, Tensor, TensorView, Value, decode_narrow, encode_narrow, unpack_bits};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::sync::Arc;

pub(super) const FAMILY: Family = Family {
    name: "conversions",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "BitCast", versions: &[26], parse: parse_bit_cast },
    OpDef { domain: "", name: "Cast", versions: &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28], parse: parse_cast },
    OpDef { domain: "", name: "CastLike", versions: &[15, 19, 21, 23, 24, 25], parse: parse_cast },
];

/// How a number becomes a power of two (float8e8m0).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum RoundMode {
    Up,
    Down,
    /// Ties up.
    Nearest,
}

/// Every element in another type: `to`, or that of input 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cast {
    /// The type; `None` to take that of input 1.
    pub to: Option<DType>,
    /// Whether a float of 8 bits or fewer stops at its largest value.
    pub saturate: bool,
    /// For float8e8m0.
    pub round: RoundMode,
}

impl Cast {
    /// The usual conversion to a type.
    pub fn new(to: DType) -> Cast {
        Cast { to: Some(to), saturate: true, round: RoundMode::Up }
    }
}

fn parse_cast(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let like = cx.op_type == "CastLike";
    let n = if like { 2 } else { 1 };
    cx.expect_inputs(n, n)?;
    let to = if like {
        None
    } else if cx.version < 6 {
        let name = cx.string_or("to", "")?.to_lowercase();
        Some(by_old_name(&name).ok_or_else(|| err!(InvalidModel, "Cast to the unknown type '{name}'"))?)
    } else {
        let n = cx.int("to")?;
        Some(DType::from_onnx(i32::try_from(n).unwrap_or(-1))?)
    };
    let round = match cx.string_or("round_mode", "up")?.as_str() {
        "up" => RoundMode::Up,
        "down" => RoundMode::Down,
        "nearest" => RoundMode::Nearest,
        x => bail!(InvalidModel, "Cast has no round_mode '{x}'"),
    };
    Ok(Arc::new(Cast { to, saturate: cx.flag("saturate", true)?, round }))
}

/// Version 1 named types as TensorProto does.
fn by_old_name(name: &str) -> Option<DType> {
    DType::ALL.into_iter().find(|d| d.name() == name)
}

impl Op for Cast {
    fn name(&self) -> &'static str {
        if self.to.is_some() { "Cast" } else { "CastLike" }
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        let to = self.to.filter(|_| self.round == RoundMode::Up)?;
        let s = Spelling::since(if self.saturate { 6 } else { 19 }, version, "Cast")?.int("to", to as i64);
        Some(if self.saturate { s } else { s.int("saturate", 0) })
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let to = match self.to {
            Some(d) => d,
            None => cx.dtype(1)?,
        };
        let no = |d: DType| matches!(d, DType::C64 | DType::C128);
        ensure!(!no(x.dtype) && !no(to), InvalidModel, "complex numbers are not cast");
        let mut f = TensorFact { dtype: to, dims: x.dims.clone(), contents: Contents::Unknown };
        if let Contents::Dims(d) = &x.contents {
            f.contents = match to {
                DType::I64 | DType::I32 => Contents::Dims(d.clone()),
                DType::Bool => {
                    let truth = |d: &Dim| d.known().map_or(Dim::Unknown, |n| Dim::Known(i64::from(n != 0)));
                    Contents::Dims(d.iter().map(truth).collect())
                }
                _ => Contents::Unknown,
            };
        }
        Ok(vec![Fact::Tensor(f)])
    }
}

/// The same bits under another type of as many.
#[derive(Clone, Debug, PartialEq)]
pub struct BitCast {
    /// The type.
    pub to: DType,
}

fn parse_bit_cast(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let n = cx.int("to")?;
    Ok(Arc::new(BitCast { to: DType::from_onnx(i32::try_from(n).unwrap_or(-1))? }))
}

impl Op for BitCast {
    fn name(&self) -> &'static str {
        "BitCast"
    }
    fn alias(&self) -> Alias {
        Alias::InPlace(&[0])
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let from = cx.dtype(0)?;
        ensure!(
            from.bits() == self.to.bits() && from != DType::String && self.to != DType::String,
            InvalidModel,
            "{from} has not as many bits as {}",
            self.to
        );
        Ok(vec![cx.like(0, self.to)?])
    }
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Cast>(bind);
    b.eager::<Cast>(eager);
    b.step::<BitCast>(bind_bit_cast);
}

fn bind_bit_cast(_: &BitCast, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (bytes, to) = (cx.input(0)?.byte_len()?, cx.output(0)?.dtype);
    let (tasks, per) = split(bytes, 1 << 20);
    Ok(FnStep::boxed("bit_cast", tasks, 0, move |args, task, _| {
        let at = task * per;
        let n = per.min(bytes - at.min(bytes));
        // SAFETY: both operands have as many bytes; they may be the same memory, hence `copy`.
        unsafe {
            std::ptr::copy(args.input::<u8>(0).add(at), args.output::<u8>(0).add(at), n);
            if to == DType::Bool {
                // Only 0 and 1 are a bool.
                for i in at..at + n {
                    let x = args.output::<u8>(0).add(i);
                    *x = u8::from(*x != 0);
                }
            }
        }
        Ok(())
    }))
}

/// The bits of a number as float8e8m0, a power of two: the exponent of f32, rounded by the fraction.
fn encode_power(x: f32, saturate: bool, round: RoundMode) -> u8 {
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 23) & 0xff, bits & 0x7f_ffff);
    if exponent == 0xff {
        return 0xff;
    }
    let up = match round {
        RoundMode::Up => fraction != 0,
        RoundMode::Down => false,
        // Half of the smallest normal number is a power of two itself.
        RoundMode::Nearest if exponent == 0 => fraction > 0x40_0000,
        RoundMode::Nearest => fraction >= 0x40_0000,
    };
    if up && !(saturate && exponent == 0xfe) { exponent as u8 + 1 } else { exponent as u8 }
}

/// The bits of a number in a type without a kernel's element type; those of integers come from `as i32`.
fn encode(to: DType, op: &Cast, x: f32) -> u8 {
    match to {
        DType::F8E8M0 => encode_power(x, op.saturate, op.round),
        _ => encode_narrow(to, x, op.saturate),
    }
}

fn bind(op: &Cast, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (x, out) = (cx.input(0)?, cx.output(0)?);
    let (from, to, n) = (x.dtype, out.dtype, x.len());
    let flat = dense_strides(&[n]);
    let kernel = |a: Elem, b: Elem| Kernel::new(cx.isa, a, b, &[n], &flat, &flat);
    if let (Some(a), Some(b)) = (elem(from), elem(to)) {
        let kernel = kernel(a, b)?;
        return Ok(FnStep::boxed("cast", kernel.tasks(), 0, move |args, task, _| {
            // SAFETY: dense operands of the types and length the kernel was made from.
            unsafe { kernel.run(task, args.input(0), args.output(0)) };
            Ok(())
        }));
    }
    // Through f32, or i32 on the way to a small integer: the workspace holds 4 bytes an element.
    let small = |d: DType| elem(d).is_none() && !d.is_float();
    // Whole numbers stay whole, so that negative ones wrap around.
    let small_int = small(to) || small(from) && to.is_int();
    let Some(bytes) = n.checked_mul(4) else { bail!(OutOfMemory, "Cast of {n} elements") };
    let step = Phases::new("cast_narrow", bytes);
    let step = match elem(from) {
        Some(a) => {
            let kernel = kernel(a, if small_int { Elem::I32 } else { Elem::F32 })?;
            step.then(kernel.tasks(), 0, move |args, task, _| {
                // SAFETY: the input has n elements, the workspace 4 bytes for each.
                unsafe { kernel.run(task, args.input(0), args.workspace()) };
                Ok(())
            })
        }
        None => decode_phase(step, x, small_int)?,
    };
    match elem(to) {
        Some(b) => {
            let kernel = kernel(if small_int { Elem::I32 } else { Elem::F32 }, b)?;
            Ok(step
                .then(kernel.tasks(), 0, move |args, task, _| {
                    // SAFETY: the workspace has n f32 or i32, the output n elements.
                    unsafe { kernel.run(task, args.workspace::<u8>().cast_const(), args.output(0)) };
                    Ok(())
                })
                .boxed())
        }
        None => Ok(encode_phase(step, *op, to, n, small_int).boxed()),
    }
}

/// A phase from a narrow type to f32 or i32.
fn decode_phase(step: Phases, x: &Operand, to_int: bool) -> Result<Phases> {
    let (d, n) = (x.dtype, x.len());
    ensure!(d != DType::String && d.bits() <= 8, Unsupported, "Cast of {d}");
    let table: Vec<f32> = (0..256u16).map(|b| decode_narrow(d, b as u8)).collect();
    // Whole bytes a task.
    let (tasks, per) = (n.div_ceil(16 * 1024), 16 * 1024);
    Ok(step.then(tasks, 0, move |args, task, _| {
        let first = task * per;
        let count = per.min(n - first);
        let per_byte = 8 / d.bits();
        // SAFETY: the input has n packed elements, `first` begins a byte; the workspace has 4 bytes an element.
        unsafe {
            let bytes = std::slice::from_raw_parts(args.input::<u8>(0).add(first / per_byte), count.div_ceil(per_byte));
            unpack_bits(d, bytes, count, |i, b| {
                let v = table[b as usize];
                if to_int {
                    args.workspace::<i32>().add(first + i).write(v as i32);
                } else {
                    args.workspace::<f32>().add(first + i).write(v);
                }
            });
        }
        Ok(())
    }))
}

/// A phase from f32 or i32 to a narrow type.
fn encode_phase(step: Phases, op: Cast, to: DType, n: usize, from_int: bool) -> Phases {
    let (tasks, per) = (n.div_ceil(4 * 1024), 4 * 1024);
    step.then(tasks, 0, move |args, task, _| {
        let first = task * per;
        let count = per.min(n - first);
        let per_byte = 8 / to.bits();
        // SAFETY: the workspace has n values, the output n packed elements, of which `first` begins a byte.
        unsafe {
            let bytes =
                std::slice::from_raw_parts_mut(args.output::<u8>(0).add(first / per_byte), count.div_ceil(per_byte));
            crate::tensor::write_packed(to, bytes, count, |i| {
                if from_int {
                    *args.workspace::<i32>().add(first + i) as u8
                } else {
                    encode(to, &op, *args.workspace::<f32>().add(first + i))
                }
            });
        }
        Ok(())
    })
}

/// To and from strings.
fn eager(op: &Cast, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let Some(x) = args.first() else { bail!(InvalidModel, "Cast needs an input") };
    let x = x.tensor()?;
    let to = match (op.to, args.get(1)) {
        (Some(d), _) => d,
        (None, Some(like)) => like.tensor()?.dtype(),
        (None, None) => bail!(InvalidModel, "CastLike needs two inputs"),
    };
    let t = match (x.dtype(), to) {
        (DType::String, DType::String) => x.to_tensor()?,
        (DType::String, _) => parse_strings(op, x, to)?,
        (_, DType::String) => Tensor::from_strings(x.shape(), format_all(x)?)?,
        (a, b) => bail!(Internal, "Cast of {a} to {b} should have been planned"),
    };
    Ok(smallvec![Value::Tensor(t)])
}

/// Strings as numbers.
fn parse_strings(op: &Cast, x: &TensorView<'_>, to: DType) -> Result<Tensor> {
    let strings = x.as_strings()?;
    let float = |s: &String| {
        let t = s.trim();
        // Rust reads "inf", "+inf", "nan" and their like in any case.
        t.parse::<f64>().map_err(|_| err!(Run, "'{}' is no number", t.chars().take(40).collect::<String>()))
    };
    macro_rules! ints {
        ($t:ty) => {
            Tensor::try_gathered(
                x.shape(),
                strings.iter().map(|s| s.trim().parse::<$t>().or_else(|_| float(s).map(|v| v as $t))),
            )
        };
    }
    let floats = || strings.iter().map(float);
    match to {
        DType::F32 => {
            let parse = |s: &String| s.trim().parse::<f32>().or_else(|_| float(s).map(|v| v as f32));
            Tensor::try_gathered(x.shape(), strings.iter().map(parse))
        }
        DType::F64 => Tensor::try_gathered(x.shape(), floats()),
        DType::F16 => Tensor::try_gathered(x.shape(), floats().map(|v| v.map(half::f16::narrow_f64))),
        DType::BF16 => Tensor::try_gathered(x.shape(), floats().map(|v| v.map(half::bf16::narrow_f64))),
        DType::Bool => {
            let truth = |s: &String| match s.trim().to_lowercase().as_str() {
                "true" => Ok(true),
                "false" | "" => Ok(false),
                _ => float(s).map(|v| v != 0.0),
            };
            Tensor::try_gathered(x.shape(), strings.iter().map(truth))
        }
        DType::I8 => ints!(i8),
        DType::I16 => ints!(i16),
        DType::I32 => ints!(i32),
        DType::I64 => ints!(i64),
        DType::U8 => ints!(u8),
        DType::U16 => ints!(u16),
        DType::U32 => ints!(u32),
        DType::U64 => ints!(u64),
        d if d.bits() <= 8 && d != DType::String => {
            let bits = |v: f64| if d.is_float() { encode(d, op, v as f32) } else { v as i32 as u8 };
            let bits = try_gathered(floats().map(|v| v.map(bits)))?;
            let mut bytes = filled(d.byte_len(bits.len())?, 0u8)?;
            crate::tensor::write_packed(d, &mut bytes, bits.len(), |i| bits[i]);
            Tensor::from_bytes(d, x.shape(), bytes.into())
        }
        d => bail!(Unsupported, "Cast of strings to {d}"),
    }
}

/// Numbers as strings, as numpy writes them.
fn format_all(x: &TensorView<'_>) -> Result<Vec<String>> {
    macro_rules! each {
        ($t:ty, $f:expr) => {
            gathered(x.as_slice::<$t>()?.iter().map($f))?
        };
    }
    let narrow = |f: &dyn Fn(f32) -> String| -> Result<Vec<String>> {
        let mut v = filled(x.len(), String::new())?;
        unpack_bits(x.dtype(), x.bytes(), x.len(), |i, b| v[i] = f(decode_narrow(x.dtype(), b)));
        Ok(v)
    };
    Ok(match x.dtype() {
        DType::F32 => each!(f32, |v| format_float(f64::from(*v), format!("{v:e}"))),
        DType::F64 => each!(f64, |v| format_float(*v, format!("{v:e}"))),
        DType::F16 => each!(half::f16, |v| format_float(v.to_f64(), shortest_f16(*v))),
        DType::BF16 => each!(half::bf16, |v| format_float(v.to_f64(), format!("{:e}", v.to_f32()))),
        DType::Bool => gathered(x.bytes().iter().map(|&b| if b != 0 { "True".into() } else { "False".into() }))?,
        DType::U64 => each!(u64, u64::to_string),
        d if d.is_narrow_float() => narrow(&|v| format_float(f64::from(v), format!("{v:e}")))?,
        d if d.is_int() => gathered(x.to_i64s()?.iter().map(i64::to_string))?,
        d => bail!(Unsupported, "Cast of {d} to strings"),
    })
}

/// The fewest digits that read back as the same number.
fn shortest_f16(v: half::f16) -> String {
    let x = v.to_f64();
    (0..6).map(|p| format!("{x:.p$e}")).find(|s| s.parse().is_ok_and(|y| half::f16::from_f64(y) == v)).unwrap_or_else(
        // NaN equals nothing; its text is not used.
        || format!("{x:e}"),
    )
}

/// `digits` is the shortest form as d.ddde±x; plain notation unless very small or large.
fn format_float(x: f64, digits: String) -> String {
    if x.is_nan() {
        return "nan".into();
    }
    if x.is_infinite() {
        return if x > 0.0 { "inf".into() } else { "-inf".into() };
    }
    let Some((mantissa, exponent)) = digits.split_once('e') else { return digits };
    let e: i32 = exponent.parse().unwrap_or(0);
    if x != 0.0 && !(-4..16).contains(&e) {
        return format!("{mantissa}e{}{:02}", if e < 0 { '-' } else { '+' }, e.abs());
    }
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    let all: String = mantissa.chars().filter(|c| *c != '.').collect();
    let text = if e < 0 {
        format!("0.{}{all}", "0".repeat((-e - 1) as usize))
    } else {
        let whole = e as usize + 1;
        let padded = format!("{all:0<whole$}");
        let (i, f) = padded.split_at(whole);
        format!("{i}.{}", if f.is_empty() { "0" } else { f })
    };
    format!("{sign}{text}")
}

fn cases() -> Vec<Case> {
    let to = |d: DType| Attr::Int(d as i64);
    let x = |d: DType| CaseInput::Random(d, vec![3, 37], -3.0, 100.0);
    let (f32s, numbers) = (x(DType::F32), [DType::F64, DType::F16, DType::BF16, DType::I32, DType::I64, DType::U8]);
    let mut v = Vec::new();
    for d in numbers {
        v.push(Case::new("Cast", 25, "from_float", vec![f32s.clone()]).attr("to", to(d)).exact());
        v.push(Case::new("Cast", 25, "to_float", vec![x(d)]).attr("to", to(DType::F32)).exact());
    }
    for d in [DType::F8E4M3FN, DType::F8E5M2FNUZ, DType::F4E2M1, DType::I4, DType::U2, DType::Bool] {
        v.push(Case::new("Cast", 25, "from_float_to_narrow", vec![f32s.clone()]).attr("to", to(d)).exact());
    }
    v.push(Case::new("CastLike", 25, "type_of_the_second", vec![f32s, x(DType::F16)]).exact());
    let special =
        [0.0f32, -0.0, 0.4, -2.7, 127.5, 300.0, -300.0, 1e30, f32::INFINITY, f32::NAN, 6.1e-5, 65_519.0, 1.25];
    let floats: Vec<f32> = special.iter().copied().cycle().take(40).collect();
    let given = Tensor::from_slice(&[40], &floats).map_or(CaseInput::Absent, CaseInput::Given);
    let of = |d, name, from: CaseInput| Case::new("Cast", 13, name, vec![from]).attr("to", Attr::Int(d as i64)).exact();
    let random = |d| CaseInput::Random(d, vec![3, 25], -100.0, 100.0);
    v.extend([
        of(DType::F16, "f32_to_f16", given.clone()),
        of(DType::BF16, "f32_to_bf16", given.clone()),
        of(DType::Bool, "f32_to_bool", given.clone()),
        of(DType::I32, "f32_to_i32", given.clone()),
        of(DType::I64, "f32_to_i64", given.clone()),
        of(DType::U8, "f32_to_u8", given.clone()),
        of(DType::I8, "f32_to_i8", given),
        of(DType::F32, "f16_to_f32", random(DType::F16)),
        of(DType::F32, "bf16_to_f32", random(DType::BF16)),
        of(DType::F16, "bf16_to_f16", random(DType::BF16)),
        of(DType::F32, "bool_to_f32", random(DType::Bool)),
        of(DType::F16, "u8_to_f16", CaseInput::Random(DType::U8, vec![70], 0.0, 255.0)),
        of(DType::F32, "i64_to_f32", CaseInput::Random(DType::I64, vec![70], -1e12, 1e12)),
        of(DType::I32, "i64_to_i32", random(DType::I64)),
        of(DType::Bool, "i32_to_bool", random(DType::I32)),
    ]);
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_written_as_numpy_does() {
        let text = |v: f32| format_float(f64::from(v), format!("{v:e}"));
        let cases = [
            (0.478_925_47, "0.47892547"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (123_456.0, "123456.0"),
            (1e20, "1e+20"),
            (-1.5e-7, "-1.5e-07"),
            (0.0001, "0.0001"),
            (f32::INFINITY, "inf"),
        ];
        for (v, want) in cases {
            assert_eq!(text(v), want);
        }
        assert_eq!(shortest_f16(half::f16::from_f32(0.1)), "1e-1");
    }

    #[test]
    fn powers_of_two_round_as_asked() {
        let e = |x, round| encode_power(x, true, round);
        assert_eq!(e(3.0, RoundMode::Up), 129);
        assert_eq!(e(3.0, RoundMode::Down), 128);
        assert_eq!((e(2.9, RoundMode::Nearest), e(3.0, RoundMode::Nearest)), (128, 129));
        assert_eq!(e(f32::MAX, RoundMode::Up), 254);
        assert_eq!(encode_power(f32::MAX, false, RoundMode::Up), 255);
        assert_eq!(e(f32::NAN, RoundMode::Up), 255);
    }
}
