//! Programs and generic loops against one number at a time, with random shapes, strides and types, at every level.

use super::*;
use crate::kernels::elem::{Elem, Narrow, Number};
use crate::kernels::isa::Isa;
use crate::kernels::nd::random::{self, Layout};
use crate::kernels::testing::Rng;
use half::{bf16, f16};

/// Bytes of `span` random numbers of a type that programs take.
fn numbers(rng: &mut Rng, elem: Elem, span: usize) -> Vec<u8> {
    let mut bytes = vec![];
    for _ in 0..span {
        let x = match rng.below(24) {
            0 => f32::NAN,
            1 => 0.0,
            2 => f32::INFINITY,
            3 => -1.0,
            _ => rng.float() * 4.0,
        };
        match elem {
            Elem::F32 => bytes.extend(x.to_ne_bytes()),
            Elem::F16 => bytes.extend(f16::narrow(x).to_ne_bytes()),
            Elem::Bf16 => bytes.extend(bf16::narrow(x).to_ne_bytes()),
            _ => bytes.push(rng.below(2) as u8),
        }
    }
    bytes
}

fn get(elem: Elem, bytes: &[u8], i: usize) -> f32 {
    match elem {
        Elem::F32 => f32::from_ne_bytes(bytes[i * 4..i * 4 + 4].try_into().unwrap()),
        Elem::F16 => f16::from_ne_bytes(bytes[i * 2..i * 2 + 2].try_into().unwrap()).to_f32(),
        Elem::Bf16 => bf16::from_ne_bytes(bytes[i * 2..i * 2 + 2].try_into().unwrap()).to_f32(),
        _ => f32::from(bytes[i]),
    }
}

fn rounded(elem: Elem, x: f32) -> f32 {
    match elem {
        Elem::F32 => x,
        Elem::F16 => f16::narrow(x).widen(),
        Elem::Bf16 => bf16::narrow(x).widen(),
        _ => f32::from(u8::from(x != 0.0)),
    }
}

struct Arrays {
    layouts: Vec<Layout>,
    elems: Vec<Elem>,
    bytes: Vec<Vec<u8>>,
}

impl Arrays {
    fn new(rng: &mut Rng, shape: &[usize], n: usize, inputs: bool) -> Arrays {
        let kinds = [Elem::F32, Elem::F32, Elem::F32, Elem::F16, Elem::Bf16, Elem::Bool];
        let layouts: Vec<_> = (0..n).map(|_| random::layout(rng, shape, inputs)).collect();
        let elems: Vec<_> = (0..n).map(|_| kinds[rng.below(kinds.len())]).collect();
        let bytes = layouts.iter().zip(&elems).map(|(l, e)| numbers(rng, *e, l.span)).collect();
        Arrays { layouts, elems, bytes }
    }
    fn operands(&self) -> Vec<Operand<'_>> {
        self.layouts.iter().zip(&self.elems).map(|(l, &elem)| Operand { elem, strides: &l.strides }).collect()
    }
    fn pointers(&mut self) -> Vec<*mut u8> {
        let at = self.layouts.iter().zip(&self.elems).map(|(l, e)| l.offset * e.size());
        // SAFETY: the first element lies within the block.
        self.bytes.iter_mut().zip(at).map(|(b, at)| unsafe { b.as_mut_ptr().add(at) }).collect()
    }
    fn value(&self, k: usize, i: usize) -> f32 {
        get(self.elems[k], &self.bytes[k], i)
    }
}

/// Runs a program on random arrays of a shape and compares every element, and every byte between elements.
fn check(rng: &mut Rng, isa: Isa, program: &Program, shape: &[usize]) {
    let mut ins = Arrays::new(rng, shape, program.inputs(), true);
    let mut outs = Arrays::new(rng, shape, program.outputs().len(), false);
    let before = outs.bytes.clone();
    let kernel = Pointwise::new(isa, program, shape, &ins.operands(), &outs.operands()).unwrap();
    let mut scratch = vec![f32::NAN; kernel.scratch_bytes() / 4];
    let inputs: Vec<*const u8> = ins.pointers().into_iter().map(|p| p.cast_const()).collect();
    let outputs = outs.pointers();
    for t in 0..kernel.tasks() {
        // SAFETY: the layouts lie within their blocks.
        unsafe { kernel.run(t, &inputs, &outputs, scratch.as_mut_ptr().cast()) };
    }
    let in_at: Vec<_> = ins.layouts.iter().map(Layout::offsets).collect();
    for (k, mut untouched) in before.into_iter().enumerate() {
        let (elem, size) = (outs.elems[k], outs.elems[k].size());
        for (i, at) in outs.layouts[k].offsets().into_iter().enumerate() {
            let args: Vec<f32> = (0..in_at.len()).map(|j| ins.value(j, in_at[j][i])).collect();
            let exact = program.evaluate(&args)[k];
            let (want, got) = (rounded(elem, exact), outs.value(k, at));
            // The functions may be 2 ulp off, and chains a few more; narrow types then round to a neighbour.
            let unit = match elem {
                Elem::F16 => 2e-3,
                Elem::Bf16 => 1.6e-2,
                _ => 2e-6,
            };
            // A truth value of something near zero may differ.
            let near_zero = elem == Elem::Bool && exact.abs() < 1e-5;
            let same =
                want == got || (want.is_nan() && got.is_nan()) || (want - got).abs() <= unit * want.abs().max(0.1);
            assert!(
                same || near_zero,
                "{isa:?} {program:?} {shape:?} {:?}: {args:?} gives {got}, not {want}",
                outs.layouts
            );
            let bytes: Vec<u8> = outs.bytes[k][at * size..(at + 1) * size].into();
            untouched[at * size..(at + 1) * size].copy_from_slice(&bytes);
        }
        assert_eq!(untouched, outs.bytes[k], "wrote between the elements");
    }
}

#[test]
fn every_operation() {
    let mut rng = Rng::new(1);
    for isa in Isa::detect().levels() {
        for op in UnaryOp::ALL {
            for _ in 0..3 {
                let shape = random::shape(&mut rng);
                check(&mut rng, isa, &Program::unary(op), &shape);
            }
        }
        for op in BinaryOp::ALL {
            for _ in 0..4 {
                let shape = random::shape(&mut rng);
                check(&mut rng, isa, &Program::binary(op), &shape);
            }
        }
        for op in [TernaryOp::Dequantize, TernaryOp::Quantize, TernaryOp::Limit] {
            let mut b = ProgramBuilder::new(3);
            let [x, y, z] = [0, 1, 2].map(|i| b.load(i));
            let r = b.ternary(op, x, y, z);
            let program = b.finish(&[r]).unwrap();
            for _ in 0..4 {
                let shape = random::shape(&mut rng);
                check(&mut rng, isa, &program, &shape);
            }
        }
    }
}

/// A few well-behaved operations in random order.
fn random_program(rng: &mut Rng) -> Program {
    let inputs = 1 + rng.below(4);
    let mut b = ProgramBuilder::new(inputs);
    let mut all: Vec<Register> = (0..inputs).map(|i| b.load(i)).collect();
    for _ in 0..1 + rng.below(30) {
        let mut any = || all[rng.below(all.len())];
        let (x, y, z) = (any(), any(), any());
        all.push(match rng.below(12) {
            0 => b.unary(UnaryOp::Neg, x),
            1 => b.unary(UnaryOp::Tanh, x),
            2 => b.unary(UnaryOp::Abs, x),
            3 => b.max(x, y),
            4 => b.min(x, y),
            5 => {
                let t = b.unary(UnaryOp::Sigmoid, y);
                b.mul(x, t)
            }
            6 => b.select(x, y, z),
            7 => b.binary(BinaryOp::And, x, y),
            8 => b.clip(x, Some(-1.5), Some(1.5)),
            9 => b.constant(0.5),
            10 => b.relu(x),
            _ => b.unary(UnaryOp::IsNan, x),
        });
    }
    let outputs: Vec<Register> =
        (0..1 + rng.below(3)).map(|_| all[all.len() - 1 - rng.below(all.len().min(4))]).collect();
    b.finish(&outputs).unwrap()
}

#[test]
fn random_programs() {
    let mut rng = Rng::new(2);
    for isa in Isa::detect().levels() {
        for _ in 0..150 {
            let program = random_program(&mut rng);
            let shape = random::shape(&mut rng);
            check(&mut rng, isa, &program, &shape);
        }
    }
}

#[test]
fn long_rows_and_many_tasks() {
    let mut rng = Rng::new(3);
    let mut b = ProgramBuilder::new(2);
    let (x, y) = (b.load(0), b.load(1));
    let z = b.prelu(x, y);
    let program = b.finish(&[z]).unwrap();
    for isa in Isa::detect().levels() {
        for shape in [&[3usize, 40_001][..], &[70_000], &[700, 200]] {
            check(&mut rng, isa, &program, shape);
        }
    }
}

#[test]
fn short_rows_that_repeat() {
    let program = Program::binary(BinaryOp::Sub);
    for isa in Isa::detect().levels() {
        for (rows, len) in [(9000, 24), (3000, 180), (2000, 191), (40_000, 2), (3, 100)] {
            let x: Vec<f32> = (0..rows * len).map(|i| i as f32).collect();
            let bias: Vec<f32> = (0..len).map(|i| (i * i) as f32).collect();
            let mut out = vec![0.0f32; rows * len];
            let f = |strides| Operand { elem: Elem::F32, strides };
            let dense = [len as isize, 1];
            let kernel = Pointwise::new(isa, &program, &[rows, len], &[f(&dense), f(&[0, 1])], &[f(&dense)]).unwrap();
            let mut scratch = vec![f32::NAN; kernel.scratch_bytes() / 4];
            for t in (0..kernel.tasks()).rev() {
                // SAFETY: the arrays have this shape.
                unsafe {
                    let ins = [x.as_ptr().cast(), bias.as_ptr().cast()];
                    kernel.run(t, &ins, &[out.as_mut_ptr().cast()], scratch.as_mut_ptr().cast());
                }
            }
            assert!((0..rows * len).all(|i| out[i] == x[i] - bias[i % len]), "{isa:?} {rows} {len}");
        }
    }
}

#[test]
fn an_output_may_be_an_input() {
    let mut b = ProgramBuilder::new(2);
    let (x, y) = (b.load(0), b.load(1));
    let s = b.add(x, y);
    let program = b.finish(&[s, x]).unwrap();
    for isa in Isa::detect().levels() {
        let mut a: Vec<f32> = (0..5000).map(|i| i as f32).collect();
        let c = vec![1.0f32; 5000];
        let mut copy = vec![0.0f32; 5000];
        let f = |strides| Operand { elem: Elem::F32, strides };
        let kernel = Pointwise::new(isa, &program, &[5000], &[f(&[1]), f(&[1])], &[f(&[1]), f(&[1])]).unwrap();
        let mut scratch = vec![0.0f32; kernel.scratch_bytes() / 4];
        let p = a.as_mut_ptr().cast::<u8>();
        for t in 0..kernel.tasks() {
            // SAFETY: all arrays have 5000 elements; the first output is the first input.
            unsafe {
                let out = [p, copy.as_mut_ptr().cast()];
                kernel.run(t, &[p.cast_const(), c.as_ptr().cast()], &out, scratch.as_mut_ptr().cast());
            }
        }
        for i in 0..5000 {
            assert_eq!((a[i], copy[i]), (i as f32 + 1.0, i as f32));
        }
    }
}

#[test]
fn activations_mean_what_they_say() {
    type Build = fn(&mut ProgramBuilder, Register) -> Register;
    type Plain = fn(f64) -> f64;
    let cases: [(Build, Plain); 12] = [
        (|b, x| b.gelu(x), |x| 0.5 * x * (1.0 + crate::kernels::vmath::scalar::erf64(x / 2f64.sqrt()))),
        (
            |b, x| b.gelu_tanh(x),
            |x| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3))).tanh()),
        ),
        (|b, x| b.elu(x, 1.5), |x| if x > 0.0 { x } else { 1.5 * (x.exp() - 1.0) }),
        (|b, x| b.selu(x, 1.67, 1.05), |x| 1.05 * if x > 0.0 { x } else { 1.67 * (x.exp() - 1.0) }),
        (|b, x| b.celu(x, 2.0), |x| x.max(0.0) + (2.0 * ((x / 2.0).exp() - 1.0)).min(0.0)),
        (|b, x| b.hard_swish(x), |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0)),
        (|b, x| b.swish(x, 1.25), |x| x / (1.0 + (-1.25 * x).exp())),
        (|b, x| b.mish(x), |x| x * x.exp().ln_1p().tanh()),
        (|b, x| b.softsign(x), |x| x / (1.0 + x.abs())),
        (|b, x| b.thresholded_relu(x, 0.7), |x| if x > 0.7f32 as f64 { x } else { 0.0 }),
        (
            |b, x| b.shrink(x, 0.5, 0.25),
            |x| {
                if x < -0.5 {
                    x + 0.25
                } else if x > 0.5 {
                    x - 0.25
                } else {
                    0.0
                }
            },
        ),
        (|b, x| b.clip(x, Some(-0.5), None), |x| x.max(-0.5)),
    ];
    for (k, (build, plain)) in cases.into_iter().enumerate() {
        let mut b = ProgramBuilder::new(1);
        let x = b.load(0);
        let y = build(&mut b, x);
        let program = b.finish(&[y]).unwrap();
        for i in -600..600 {
            let x = i as f32 / 100.0;
            let (got, want) = (program.evaluate(&[x])[0], plain(f64::from(x)) as f32);
            // Some f32 roundings in a row, and what is plain here cancels on the left: the error is relative to |x|.
            assert!(
                (got - want).abs() <= 4e-7 * (want.abs() + x.abs().max(0.1)),
                "activation {k} of {x}: {got}, not {want}"
            );
        }
    }
}

#[test]
fn the_builder_folds_and_shares() {
    let mut b = ProgramBuilder::new(1);
    let (two, three, x) = (b.constant(2.0), b.constant(3.0), b.load(0));
    let six = b.mul(two, three);
    let (p, q) = (b.mul(x, six), b.mul(x, six));
    assert_eq!(p, q);
    let square = b.binary(BinaryOp::Pow, x, two);
    let r = b.add(p, square);
    let program = b.finish(&[r]).unwrap();
    assert_eq!(program.instructions().len(), 5);
    assert_eq!(program.evaluate(&[4.0]), [40.0]);
    let mut b = ProgramBuilder::new(1);
    let x = b.load(0);
    let again = b.inline(&program, &[x]).unwrap();
    assert_eq!(b.finish(&again).unwrap().evaluate(&[1.0]), [7.0]);
    assert!(ProgramBuilder::new(0).finish(&[0]).is_err());
    let mut b = ProgramBuilder::new(1);
    let y = b.load(1);
    assert!(b.finish(&[y]).is_err());
}

/// One generic operator over random layouts against the scalar trait.
fn check_binary<T: Number, R: Copy + PartialEq + std::fmt::Debug + Default>(
    rng: &mut Rng,
    elem: Elem,
    kind: BinaryKind,
    make: impl Fn(&mut Rng) -> T,
    plain: impl Fn(T, T) -> R,
) {
    let shape = random::shape(rng);
    let (a, b, o) =
        (random::layout(rng, &shape, true), random::layout(rng, &shape, true), random::layout(rng, &shape, false));
    let xs: Vec<T> = (0..a.span).map(|_| make(rng)).collect();
    let ys: Vec<T> = (0..b.span).map(|_| make(rng)).collect();
    let mut out = vec![R::default(); o.span];
    let kernel = Binary::new(kind, elem, &shape, &a.strides, &b.strides, &o.strides).unwrap();
    for t in 0..kernel.tasks() {
        // SAFETY: the layouts lie within their blocks.
        unsafe {
            let (pa, pb) = (xs.as_ptr().add(a.offset).cast(), ys.as_ptr().add(b.offset).cast());
            kernel.run(t, pa, pb, out.as_mut_ptr().add(o.offset).cast());
        }
    }
    for ((i, j), k) in a.offsets().into_iter().zip(b.offsets()).zip(o.offsets()) {
        assert_eq!(out[k], plain(xs[i], ys[j]), "{elem:?} {kind:?} of {:?} and {:?}", xs[i], ys[j]);
    }
}

#[test]
fn generic_operators() {
    let mut rng = Rng::new(4);
    let i32s = |r: &mut Rng| [0, 1, -1, i32::MIN, i32::MAX, 7, -3, r.next() as i32][r.below(8)];
    let u8s = |r: &mut Rng| r.next() as u8;
    let i64s = |r: &mut Rng| [0, 1, -1, i64::MIN, i64::MAX, r.next() as i64][r.below(6)];
    for _ in 0..30 {
        check_binary(&mut rng, Elem::I32, BinaryKind::Add, i32s, i32::wrapping_add);
        check_binary(&mut rng, Elem::I32, BinaryKind::Mul, i32s, i32::wrapping_mul);
        check_binary(&mut rng, Elem::I32, BinaryKind::Div, i32s, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) });
        check_binary(&mut rng, Elem::I64, BinaryKind::Div, i64s, |a, b| if b == 0 { 0 } else { a.wrapping_div(b) });
        check_binary(&mut rng, Elem::I64, BinaryKind::Fmod, i64s, |a, b| if b == 0 { 0 } else { a.wrapping_rem(b) });
        check_binary(&mut rng, Elem::I32, BinaryKind::Mod, i32s, |a, b| {
            if b == 0 {
                0
            } else {
                (i64::from(a) - (i64::from(a) as f64 / f64::from(b)).floor() as i64 * i64::from(b)) as i32
            }
        });
        check_binary(&mut rng, Elem::I64, BinaryKind::Less, i64s, |a, b| u8::from(a < b));
        check_binary(&mut rng, Elem::U8, BinaryKind::ShiftLeft, u8s, |a, b| if b < 8 { a << b } else { 0 });
        check_binary(&mut rng, Elem::U8, BinaryKind::Xor, u8s, |a, b| a ^ b);
        check_binary(&mut rng, Elem::U8, BinaryKind::Max, u8s, u8::max);
        check_binary(&mut rng, Elem::F64, BinaryKind::Sub, |r| f64::from(r.float()), |a, b| a - b);
        check_binary(&mut rng, Elem::Bool, BinaryKind::And, |r| r.below(2) as u8, |a, b| a & b);
    }
}

#[test]
fn corners_of_integers() {
    assert_eq!(i64::MIN.div(-1), i64::MIN);
    assert_eq!(Number::fmod(i64::MIN, -1), 0);
    assert_eq!((7i32.modulo(-3), (-7i32).modulo(3), (-7i32).fmod(3)), (-2, 2, -1));
    assert_eq!((Number::pow(3i32, 4), Number::pow(2i32, -1), Number::pow(-1i32, -3)), (81, 0, -1));
    assert_eq!(Number::pow(0u8, 0), 1);
    assert_eq!((Number::neg(1u8), Number::abs(i8::MIN)), (255, i8::MIN));
    assert!(f64::NAN.least(1.0).is_nan() && 1.0f64.least(f64::NAN).is_nan() && f64::NAN.most(1.0).is_nan());
    assert_eq!((-7.5f32).modulo(2.0), 0.5);
    assert!(binary_result(BinaryKind::Add, Elem::F32).is_none());
    assert_eq!(binary_result(BinaryKind::Equal, Elem::I8), Some(Elem::Bool));
    assert!(Binary::new(BinaryKind::Add, Elem::Bool, &[1], &[1], &[1], &[1]).is_err());
}

#[test]
fn casts() {
    fn cast<A: Copy, B: Copy + Default>(from: Elem, to: Elem, x: &[A]) -> Vec<B> {
        let mut out = vec![B::default(); x.len()];
        let kernel = Cast::new(Isa::detect(), from, to, &[x.len()], &[1], &[1]).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: both have as many elements.
            unsafe { kernel.run(t, x.as_ptr().cast(), out.as_mut_ptr().cast()) };
        }
        out
    }
    let floats = [1.9f32, -1.9, 300.0, -300.0, f32::NAN, f32::INFINITY, 0.0, 0.5];
    assert_eq!(cast::<_, i8>(Elem::F32, Elem::I8, &floats), [1, -1, 127, -128, 0, 127, 0, 0]);
    assert_eq!(cast::<_, u8>(Elem::F32, Elem::Bool, &floats), [1, 1, 1, 1, 1, 1, 0, 1]);
    assert_eq!(cast::<_, u8>(Elem::I32, Elem::U8, &[-1i32, 256, 7]), [255, 0, 7]);
    assert_eq!(cast::<_, i64>(Elem::Bool, Elem::I64, &[1u8, 0]), [1, 0]);
    let halves: Vec<f16> = (0..700).map(|i| f16::from_f32(i as f32 / 8.0)).collect();
    assert_eq!(cast::<_, i32>(Elem::F16, Elem::I32, &halves), (0..700).map(|i| i / 8).collect::<Vec<_>>());
    let wide: Vec<bf16> = cast(Elem::F16, Elem::Bf16, &halves);
    assert!(wide.iter().zip(&halves).all(|(w, h)| *w == bf16::from_f32(h.to_f32())));
    assert_eq!(cast::<_, f16>(Elem::I32, Elem::F16, &[2049i32]), [f16::from_f32(2048.0)]);
    // Rounded once from f64, not by way of f32.
    let between = [1.0 + f64::powi(2.0, -11) + f64::powi(2.0, -40)];
    assert_eq!(cast::<_, f16>(Elem::F64, Elem::F16, &between), [f16::from_f32(1.0 + f32::powi(2.0, -10))]);
}

#[test]
fn selects_any_size() {
    let mut rng = Rng::new(5);
    for _ in 0..40 {
        let shape = random::shape(&mut rng);
        let mut l = || random::layout(&mut rng, &shape, true);
        let (c, y, n) = (l(), l(), l());
        let o = random::layout(&mut rng, &shape, false);
        let cond: Vec<u8> = (0..c.span).map(|_| rng.below(2) as u8).collect();
        let yes: Vec<u64> = (0..y.span as u64).collect();
        let no: Vec<u64> = (0..n.span as u64).map(|i| i + 1_000_000).collect();
        let mut out = vec![0u64; o.span];
        let kernel = Select::new(8, &shape, &c.strides, &y.strides, &n.strides, &o.strides).unwrap();
        for t in 0..kernel.tasks() {
            // SAFETY: the layouts lie within their blocks.
            unsafe {
                let (py, pn) = (yes.as_ptr().add(y.offset).cast(), no.as_ptr().add(n.offset).cast());
                kernel.run(t, cond.as_ptr().add(c.offset), py, pn, out.as_mut_ptr().add(o.offset).cast());
            }
        }
        let (cs, ys, ns) = (c.offsets(), y.offsets(), n.offsets());
        for (i, at) in o.offsets().into_iter().enumerate() {
            assert_eq!(out[at], if cond[cs[i]] != 0 { yes[ys[i]] } else { no[ns[i]] });
        }
    }
}
