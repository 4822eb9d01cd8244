//! Pointwise programs, printed as kernels. One source serves every shape of the same rank and kinds of strides.

use super::call::{Call, Slot, int};
use super::device::Device;
use super::driver::DeviceKind;
use super::element::Type;
use super::gemm::lanes;
use crate::base::checked::product;
use crate::error::{Context as _, Result};
use crate::kernels::nd::collapse;
use crate::kernels::pointwise::{BinaryOp, Instruction, Program, TernaryOp, UnaryOp};
use crate::{bail, ensure, err};
use std::fmt::Write;

/// An operand: its type, and its strides along the dimensions of the result.
#[derive(Clone, Debug)]
pub struct Operand {
    /// Its type.
    pub dtype: Type,
    /// Elements from one index to the next, 0 where it is broadcast.
    pub strides: Vec<isize>,
}

/// How an operand runs along the innermost dimension.
#[derive(Clone, Copy, PartialEq)]
enum Inner {
    /// Contiguous.
    Dense,
    /// One element for the whole row.
    Same,
    /// Elements apart.
    Strided,
}

struct Printed<'a> {
    program: &'a Program,
    /// Inputs, then outputs.
    operands: Vec<(Type, Inner)>,
    outer: usize,
}

/// Makes the call of a program over `dims`. Places: the inputs, then the outputs. An output may share the memory of an
/// input that has the same type and strides.
pub fn pointwise(
    device: &Device,
    program: &Program,
    dims: &[usize],
    inputs: &[Operand],
    outputs: &[Operand],
) -> Result<Option<Call>> {
    let lanes = if device.info.kind == DeviceKind::Cpu { lanes(device) } else { 1 };
    with_lanes(device, program, dims, inputs, outputs, lanes)
}

/// With vectors of so many lanes; one for processors that have none.
fn with_lanes(
    device: &Device,
    program: &Program,
    dims: &[usize],
    inputs: &[Operand],
    outputs: &[Operand],
    lanes: usize,
) -> Result<Option<Call>> {
    let counts = inputs.len() == program.inputs() && outputs.len() == program.outputs().len();
    ensure!(counts, Internal, "a pointwise program with operands for another");
    let all: Vec<&Operand> = inputs.iter().chain(outputs).collect();
    ensure!(all.iter().all(|o| o.strides.len() == dims.len()), Internal, "pointwise operands of another rank");
    if product(dims)? == 0 {
        return Ok(None);
    }
    let strides: Vec<&[isize]> = all.iter().map(|o| &o.strides[..]).collect();
    let (dims, strides) = collapse(dims, &strides);
    let (Some((&n, outer)), true) = (dims.split_last(), dims.len() <= 8) else {
        bail!(Unsupported, "a pointwise program over {} dimensions on OpenCL", dims.len());
    };
    let kind = |s: &[isize]| match s.last() {
        Some(0) => Inner::Same,
        Some(1) => Inner::Dense,
        _ if n == 1 => Inner::Dense,
        _ => Inner::Strided,
    };
    let operands: Vec<_> = all.iter().zip(&strides).map(|(o, s)| (o.dtype, kind(s))).collect();
    let dense_outputs = operands[inputs.len()..].iter().all(|o| o.1 != Inner::Same);
    ensure!(dense_outputs, Internal, "a pointwise output that is broadcast");

    let mut slots = Vec::new();
    for (i, o) in all.iter().enumerate() {
        slots.push(Slot::Tensor(i, o.dtype.size()));
    }
    let rows = product(outer)?;
    slots.extend([Slot::I32(int(n)?), Slot::I32(int(rows)?)]);
    for d in outer {
        slots.push(Slot::I32(int(*d)?));
    }
    for s in &strides {
        for stride in s {
            let stride = i32::try_from(*stride).ok();
            slots.push(Slot::I32(stride.ok_or_else(|| err!(Unsupported, "a stride of 2^31 and more on OpenCL"))?));
        }
    }
    let printed = Printed { program, operands, outer: outer.len() };
    let (source, grid, local) = if lanes > 1 {
        // A work-item takes some thousand elements: part of a row, or many rows.
        const GRAIN: usize = 8192;
        let chunk = n.min(GRAIN);
        let items = (GRAIN / n.max(1)).clamp(1, rows);
        slots.extend([Slot::I32(int(chunk)?), Slot::I32(int(items)?)]);
        let grid = [n.div_ceil(chunk), rows.div_ceil(items), 1];
        (printed.for_cpu(lanes)?, grid, [1, 1, 1])
    } else {
        let group = 64.min(device.info.max_group);
        int(n * rows)?;
        (printed.for_gpu()?, [(n * rows).div_ceil(group) * group, 1, 1], [group, 1, 1])
    };
    let source = format!("{}{source}", include_str!("kernels/prelude.cl"));
    let kernel = device.kernel(&source, "", "pointwise").context(|| "a pointwise program".into())?;
    Ok(Some(Call::new(kernel, slots, grid, Some(local))))
}

impl Printed<'_> {
    /// The kernel's head, with each operand's pointer set to its row: `p<i>`.
    fn head(&self, more: &str) -> Result<String, std::fmt::Error> {
        let mut s = String::from("__kernel void pointwise(");
        let inputs = self.program.inputs();
        for (i, (dtype, _)) in self.operands.iter().enumerate() {
            let constant = if i < inputs { "const " } else { "" };
            write!(s, "__global {constant}{} *a{i}, const long o{i}, ", dtype.c_type())?;
        }
        s.push_str("const int n, const int rows");
        for d in 0..self.outer {
            write!(s, ", const int d{d}")?;
        }
        for i in 0..self.operands.len() {
            for d in 0..=self.outer {
                write!(s, ", const int s{i}_{d}")?;
            }
        }
        writeln!(s, "{more}) {{")?;
        Ok(s)
    }

    /// Finds the rows of all operands for `row`.
    fn rows(&self) -> Result<String, std::fmt::Error> {
        let mut s = String::new();
        if self.outer > 0 {
            s.push_str("int rest = row;\n");
        }
        for d in (0..self.outer).rev() {
            writeln!(s, "const int i{d} = rest % d{d}; rest /= d{d};")?;
        }
        for (i, (dtype, _)) in self.operands.iter().enumerate() {
            let constant = if i < self.program.inputs() { "const " } else { "" };
            write!(s, "__global {constant}{} *p{i} = a{i} + o{i}", dtype.c_type())?;
            for d in 0..self.outer {
                write!(s, " + (long)i{d} * s{i}_{d}")?;
            }
            s.push_str(";\n");
        }
        Ok(s)
    }

    /// The instructions for element `i` of the row, and the `lanes` - 1 after it.
    fn body(&self, lanes: usize) -> Result<String, std::fmt::Error> {
        let mut s = String::new();
        let t = if lanes == 1 { "float".into() } else { format!("float{lanes}") };
        for (r, instruction) in self.program.instructions().iter().enumerate() {
            let value = match instruction {
                Instruction::Load { input } => self.load((*input).into(), lanes, &t),
                other => expression(other, &t),
            };
            writeln!(s, "const {t} r{r} = {value};")?;
        }
        let inputs = self.program.inputs();
        for (k, register) in self.program.outputs().iter().enumerate() {
            let i = inputs + k;
            let (dtype, inner) = self.operands[i];
            let (p, stride) = (format!("p{i}"), format!("s{i}_{}", self.outer));
            match (inner, lanes) {
                (Inner::Strided, 1) => s += &dtype.store(&format!("{p} + (long)i * {stride}"), &format!("r{register}")),
                (_, 1) => s += &dtype.store(&format!("{p} + i"), &format!("r{register}")),
                (Inner::Strided, _) => {
                    for l in 0..lanes {
                        s += &dtype.store(&format!("{p} + (long)(i + {l}) * {stride}"), &format!("r{register}.s{l:x}"));
                    }
                }
                _ => s += &dtype.store_vector(&format!("{p} + i"), &format!("r{register}"), lanes),
            }
        }
        Ok(s)
    }

    fn load(&self, i: usize, lanes: usize, t: &str) -> String {
        let (dtype, inner) = self.operands[i];
        let stride = format!("s{i}_{}", self.outer);
        match (inner, lanes) {
            (Inner::Same, _) => format!("({t})({})", dtype.load(&format!("p{i}"))),
            (Inner::Dense, 1) => dtype.load(&format!("p{i} + i")),
            (Inner::Strided, 1) => dtype.load(&format!("p{i} + (long)i * {stride}")),
            (Inner::Dense, _) => dtype.load_vector(&format!("p{i} + i"), lanes),
            (Inner::Strided, _) => {
                let all: Vec<_> =
                    (0..lanes).map(|l| dtype.load(&format!("p{i} + (long)(i + {l}) * {stride}"))).collect();
                format!("({t})({})", all.join(", "))
            }
        }
    }

    /// Runs of vectors, for processors with wide ones.
    fn for_cpu(&self, lanes: usize) -> Result<String> {
        let print = || -> Result<String, std::fmt::Error> {
            let mut s = String::from("__attribute__((reqd_work_group_size(1, 1, 1)))\n");
            s += &self.head(", const int chunk, const int items")?;
            s += "const int from = get_global_id(0) * chunk, to = min(n, from + chunk);\n";
            s += "const int first = get_global_id(1) * items, last = min(rows, first + items);\n";
            s += "for (int row = first; row < last; ++row) {\n";
            s += &self.rows()?;
            write!(s, "int i = from;\nfor (; i + {lanes} <= to; i += {lanes}) {{\n{}}}\n", self.body(lanes)?)?;
            write!(s, "for (; i < to; ++i) {{\n{}}}\n}}\n}}\n", self.body(1)?)?;
            Ok(s)
        };
        print().map_err(|e| err!(Internal, "printing a pointwise program: {e}"))
    }

    /// An element a work-item, neighbours side by side.
    fn for_gpu(&self) -> Result<String> {
        let print = || -> Result<String, std::fmt::Error> {
            let mut s = self.head("")?;
            s += "const int at = get_global_id(0);\nif (at >= n * rows) return;\nconst int row = at / n, i = at % n;\n";
            s += &self.rows()?;
            s += &self.body(1)?;
            s += "}\n";
            Ok(s)
        };
        print().map_err(|e| err!(Internal, "printing a pointwise program: {e}"))
    }
}

/// An instruction other than a load. `t` is `float` or a vector of it; comparisons give 1 or -1 for true, and `select` takes
/// either.
fn expression(instruction: &Instruction, t: &str) -> String {
    let zero = format!("({t})(0.0f)");
    let one = format!("({t})(1.0f)");
    let truth = |mask: String| format!("select({zero}, {one}, {mask})");
    match *instruction {
        // By its bits, so that every number comes out as it is.
        Instruction::Constant { value } => format!("({t})(as_float({:#x}u))", value.to_bits()),
        Instruction::Unary { op, a } => {
            let a = format!("r{a}");
            let function = match op {
                UnaryOp::Neg => return format!("-{a}"),
                UnaryOp::Sign => return format!("select(sign({a}), {a}, isnan({a}))"),
                UnaryOp::Rsqrt => return format!("{one} / sqrt({a})"),
                UnaryOp::Reciprocal => return format!("{one} / {a}"),
                UnaryOp::Sigmoid => {
                    let e = format!("exp(-fabs({a}))");
                    return format!("select({one}, {e}, isless({a}, {zero})) / ({one} + {e})");
                }
                UnaryOp::Softplus => return format!("fmax({a}, {zero}) + log1p(exp(-fabs({a})))"),
                // Nothing cancels for negative numbers.
                UnaryOp::Gelu => return format!("0.5f * {a} * erfc({a} * -0.70710678f)"),
                UnaryOp::GeluTanh => {
                    return format!("{a} / ({one} + exp({a} * ({a} * {a} * -0.071354816f - 1.5957691f)))");
                }
                UnaryOp::Mish => return format!("{a} * tanh(fmax({a}, {zero}) + log1p(exp(-fabs({a}))))"),
                UnaryOp::Relu => return format!("select({a}, {zero}, islessequal({a}, {zero}))"),
                UnaryOp::Not => return truth(format!("isequal({a}, {zero})")),
                UnaryOp::IsNan => return truth(format!("isnan({a})")),
                UnaryOp::IsInf => return truth(format!("isinf({a})")),
                UnaryOp::Abs => "fabs",
                UnaryOp::Floor => "floor",
                UnaryOp::Ceil => "ceil",
                UnaryOp::Round => "rint",
                UnaryOp::Trunc => "trunc",
                UnaryOp::Sqrt => "sqrt",
                UnaryOp::Exp => "exp",
                UnaryOp::Exp2 => "exp2",
                UnaryOp::Expm1 => "expm1",
                UnaryOp::Log => "log",
                UnaryOp::Log1p => "log1p",
                UnaryOp::Sin => "sin",
                UnaryOp::Cos => "cos",
                UnaryOp::Tan => "tan",
                UnaryOp::Asin => "asin",
                UnaryOp::Acos => "acos",
                UnaryOp::Atan => "atan",
                UnaryOp::Sinh => "sinh",
                UnaryOp::Cosh => "cosh",
                UnaryOp::Tanh => "tanh",
                UnaryOp::Asinh => "asinh",
                UnaryOp::Acosh => "acosh",
                UnaryOp::Atanh => "atanh",
                UnaryOp::Erf => "erf",
            };
            format!("{function}({a})")
        }
        Instruction::Binary { op, a, b } => {
            let (a, b) = (format!("r{a}"), format!("r{b}"));
            let (is_a, is_b) = (format!("({a} != {zero})"), format!("({b} != {zero})"));
            let nan_or = |x: String| format!("select({x}, {a} + {b}, isunordered({a}, {b}))");
            match op {
                BinaryOp::Add => format!("{a} + {b}"),
                BinaryOp::Sub => format!("{a} - {b}"),
                BinaryOp::Mul => format!("{a} * {b}"),
                BinaryOp::Div => format!("{a} / {b}"),
                BinaryOp::Min => nan_or(format!("select({b}, {a}, isless({a}, {b}))")),
                BinaryOp::Max => nan_or(format!("select({b}, {a}, isgreater({a}, {b}))")),
                BinaryOp::Pow => format!("pow({a}, {b})"),
                BinaryOp::Fmod => format!("fmod({a}, {b})"),
                BinaryOp::Mod => {
                    let r = format!("fmod({a}, {b})");
                    let apart = format!("isless({r} * sign({b}), {zero})");
                    format!("select({r}, {r} + {b}, {apart})")
                }
                BinaryOp::Swish => format!("{a} / ({one} + exp(-({a} * {b})))"),
                BinaryOp::Less => truth(format!("isless({a}, {b})")),
                BinaryOp::LessOrEqual => truth(format!("islessequal({a}, {b})")),
                BinaryOp::Equal => truth(format!("isequal({a}, {b})")),
                BinaryOp::And => truth(format!("({is_a} & {is_b})")),
                BinaryOp::Or => truth(format!("({is_a} | {is_b})")),
                BinaryOp::Xor => truth(format!("({is_a} ^ {is_b})")),
            }
        }
        Instruction::Ternary { op, a, b, c } => match op {
            TernaryOp::MultiplyAdd => format!("MAD(r{a}, r{b}, r{c})"),
            TernaryOp::Dequantize => format!("(r{a} - r{b}) * r{c}"),
            TernaryOp::Quantize => format!("rint(r{a} / r{b}) + r{c}"),
            TernaryOp::Limit => format!("fmin(fmax(rint(r{a}), r{b}), r{c})"),
        },
        Instruction::Select { condition, yes, no } => format!("select(r{no}, r{yes}, r{condition} != {zero})"),
        // A load is printed by its caller.
        Instruction::Load { .. } => zero,
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Rng, device, run};
    use super::*;
    use crate::kernels::nd::{broadcast_strides, dense_strides};
    use crate::kernels::pointwise::ProgramBuilder;

    fn operand(shape: &[usize], to: &[usize]) -> Operand {
        Operand { dtype: Type::F32, strides: broadcast_strides(shape, to).unwrap().to_vec() }
    }

    fn read(x: &[f32], strides: &[isize], dims: &[usize], index: usize) -> f32 {
        let (mut rest, mut at) = (index, 0);
        for (d, s) in dims.iter().zip(strides).rev() {
            at += (rest % d) as isize * s;
            rest /= d;
        }
        x[at as usize]
    }

    /// Runs a program in both forms and compares with its plain meaning; `ulps` are relative to values of `floor` and more.
    fn check(program: &Program, dims: &[usize], inputs: &[(Vec<f32>, Operand)], ulps: f32, floor: f32, what: &str) {
        let Some(device) = device() else { return };
        let n: usize = dims.iter().product();
        let operands: Vec<_> = inputs.iter().map(|i| i.1.clone()).collect();
        let data: Vec<&[f32]> = inputs.iter().map(|i| &i.0[..]).collect();
        let outputs: Vec<_> = program.outputs().iter().map(|_| operand(dims, dims)).collect();
        let want: Vec<Vec<f32>> = (0..n)
            .map(|i| {
                let values: Vec<f32> = inputs.iter().map(|(x, o)| read(x, &o.strides, dims, i)).collect();
                program.evaluate(&values)
            })
            .collect();
        for lanes in [1, lanes(device)] {
            let call = with_lanes(device, program, dims, &operands, &outputs, lanes).unwrap().unwrap();
            let got = run(device, &[&call], &data, &vec![n; outputs.len()]);
            for i in 0..n {
                for (o, got) in got.iter().enumerate() {
                    let (g, w) = (got[i], want[i][o]);
                    let same = g == w || (g.is_nan() && w.is_nan());
                    let close = (g - w).abs() <= ulps * f32::EPSILON * w.abs().max(floor);
                    let values: Vec<f32> = inputs.iter().map(|(x, o)| read(x, &o.strides, dims, i)).collect();
                    assert!(same || close, "{what}, {lanes} lanes, element {i}: {g}, expected {w}, of {values:?}");
                }
            }
        }
    }

    fn numbers(n: usize, scale: f32) -> Vec<f32> {
        let special = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 2.5, 3.0, -2.0];
        let mut rng = Rng(11);
        special.into_iter().chain(rng.floats(n).into_iter().map(|x| x * scale)).take(n).collect()
    }

    /// What OpenCL allows each function in full precision, in ulps, and a little for our own composition.
    fn allowed(op: UnaryOp) -> f32 {
        match op {
            UnaryOp::Tanh | UnaryOp::Tan | UnaryOp::Atan | UnaryOp::Atanh => 6.0,
            UnaryOp::Erf => 16.0,
            _ => 5.0,
        }
    }

    #[test]
    fn unary() {
        // All in one program of many outputs would exceed the arguments of a kernel; four programs build sooner than 34.
        for ops in UnaryOp::ALL.chunks(9) {
            let mut b = ProgramBuilder::new(1);
            let x = b.load(0);
            let outputs: Vec<_> = ops.iter().map(|op| b.unary(*op, x)).collect();
            let program = b.finish(&outputs).unwrap();
            let dims = [141];
            let ulps = ops.iter().map(|op| allowed(*op)).fold(0.0, f32::max);
            check(
                &program,
                &dims,
                &[(numbers(141, 3.0), operand(&dims, &dims))],
                ulps,
                f32::MIN_POSITIVE,
                &format!("{ops:?}"),
            );
        }
    }

    #[test]
    fn binary() {
        for ops in BinaryOp::ALL.chunks(8) {
            let mut b = ProgramBuilder::new(2);
            let (x, y) = (b.load(0), b.load(1));
            let outputs: Vec<_> = ops.iter().map(|op| b.binary(*op, x, y)).collect();
            let program = b.finish(&outputs).unwrap();
            // Every special value meets every other.
            let (x, y) = (numbers(30, 4.0), numbers(30, 3.0));
            let dims = [30, 30];
            let inputs = [(x, operand(&[30, 1], &dims)), (y, operand(&[30], &dims))];
            check(&program, &dims, &inputs, 16.0, f32::MIN_POSITIVE, &format!("{ops:?}"));
        }
    }

    #[test]
    fn changes_of_scale() {
        let mut b = ProgramBuilder::new(1);
        let x = b.load(0);
        // Divided without rounding on every device.
        let [scale, zero, low, high] = [0.25, 120.0, 0.0, 255.0].map(|c| b.constant(c));
        let q = b.ternary(TernaryOp::Quantize, x, scale, zero);
        let q = b.ternary(TernaryOp::Limit, q, low, high);
        let y = b.ternary(TernaryOp::Dequantize, q, zero, scale);
        let program = b.finish(&[q, y]).unwrap();
        let dims = [300];
        check(&program, &dims, &[(numbers(300, 40.0), operand(&dims, &dims))], 0.0, 1.0, "changes of scale");
    }

    #[test]
    fn chains_and_strides() {
        let mut b = ProgramBuilder::new(3);
        let (x, y, z) = (b.load(0), b.load(1), b.load(2));
        let third = b.constant(1.0 / 3.0);
        let s = b.multiply_add(x, y, third);
        let low = b.greater(s, z);
        let out = b.select(low, s, z);
        let program = b.finish(&[out, s]).unwrap();
        let mut rng = Rng(5);
        for dims in [vec![2, 3, 5, 40], vec![1], vec![3, 1, 7], vec![2, 9000]] {
            let n: usize = dims.iter().product();
            let r = dims.len();
            // Transposed, broadcast along all but the first, and one number.
            let mut turned = dense_strides(&dims.iter().rev().copied().collect::<Vec<_>>()).to_vec();
            turned.reverse();
            let mut first = vec![1; r];
            first[0] = dims[0];
            let inputs = [
                (rng.floats(n), Operand { dtype: Type::F32, strides: turned }),
                (rng.floats(dims[0]), operand(&first, &dims)),
                (rng.floats(1), operand(&[], &dims)),
            ];
            // The sum may be rounded once or twice, and cancel: an error of 1 relative to numbers of size 1.
            check(&program, &dims, &inputs, 2.0, 1.0, &format!("{dims:?}"));
        }
    }

    #[test]
    fn booleans() {
        let Some(device) = device() else { return };
        // (x < y) and b, as a bool; the bools lie in the bytes of floats.
        let mut b = ProgramBuilder::new(3);
        let (x, y, flag) = (b.load(0), b.load(1), b.load(2));
        let less = b.binary(BinaryOp::Less, x, y);
        let both = b.binary(BinaryOp::And, less, flag);
        let program = b.finish(&[both]).unwrap();
        let n = 44;
        let mut rng = Rng(9);
        let (x, y) = (rng.floats(n), rng.floats(n));
        let flags: Vec<u8> = (0..n).map(|i| u8::from(i % 3 != 0)).collect();
        let packed: Vec<f32> = flags.as_chunks::<4>().0.iter().map(|c| f32::from_ne_bytes(*c)).collect();
        let dense = |dtype| Operand { dtype, strides: vec![1] };
        let inputs = [dense(Type::F32), dense(Type::F32), dense(Type::Bool)];
        for lanes in [1, lanes(device)] {
            let call = with_lanes(device, &program, &[n], &inputs, &[dense(Type::Bool)], lanes).unwrap().unwrap();
            let got = run(device, &[&call], &[&x, &y, &packed], &[n / 4]).remove(0);
            let got: Vec<u8> = got.iter().flat_map(|f| f.to_ne_bytes()).collect();
            let want: Vec<u8> = (0..n).map(|i| u8::from(x[i] < y[i] && flags[i] == 1)).collect();
            assert_eq!(got, want);
        }
    }
}
