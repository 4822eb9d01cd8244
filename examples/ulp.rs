//! How far the elementary functions are from the truth: `cargo run --release --example ulp -- [STEP [FUNCTION...]]`.
//!
//! Runs each function at every instruction set level over every STEP-th of all 2^32 numbers that f32 has (all of them
//! without STEP), and prints, as a table in Markdown, how many units in the last place the worst result lies from the f64
//! result rounded to f32, and where. Zeros of different signs are one unit apart; NaN must be NaN. `docs/numerics.md` has
//! the figures.

use ortx::kernels::elem::Elem;
use ortx::kernels::isa::Isa;
use ortx::kernels::pointwise::{BinaryOp, Operand, Pointwise, ProgramBuilder, Register, UnaryOp};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

unsafe extern "C" {
    safe fn erf(x: f64) -> f64;
    safe fn erfc(x: f64) -> f64;
}

/// Measured at any step.
const SPECIAL: [f32; 8] = [0.0, -0.0, 1.0, -1.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, f32::MIN_POSITIVE];
/// Numbers worked on at once.
const CHUNK: usize = 1 << 16;

type Write = fn(&mut ProgramBuilder, Register) -> Register;

struct Function {
    name: &'static str,
    write: Write,
    truth: fn(f64) -> f64,
}

fn sigmoid(x: f64) -> f64 {
    if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) }
}

fn softplus(x: f64) -> f64 {
    if x.is_nan() { x } else { x.max(0.0) + (-x.abs()).exp().ln_1p() }
}

fn elu(x: f64, alpha: f32, gamma: f32) -> f64 {
    f64::from(gamma) * if x > 0.0 { x } else { f64::from(alpha) * x.exp_m1() }
}

fn gelu_tanh(x: f64) -> f64 {
    x * sigmoid(2.0 * (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x))
}

/// x to a constant power.
fn power(b: &mut ProgramBuilder, x: Register, exponent: f32) -> Register {
    let e = b.constant(exponent);
    b.binary(BinaryOp::Pow, x, e)
}

const SELU: (f32, f32) = (1.673_263_2, 1.050_701);

fn functions() -> Vec<Function> {
    macro_rules! list {
        ($($name:literal: |$b:ident, $r:ident| $write:expr, |$x:ident| $truth:expr;)*) => {
            vec![$(Function { name: $name, write: |$b, $r| $write, truth: |$x| $truth }),*]
        };
    }
    list! {
        "exp": |b, x| b.unary(UnaryOp::Exp, x), |x| x.exp();
        "exp2": |b, x| b.unary(UnaryOp::Exp2, x), |x| x.exp2();
        "expm1": |b, x| b.unary(UnaryOp::Expm1, x), |x| x.exp_m1();
        "log": |b, x| b.unary(UnaryOp::Log, x), |x| x.ln();
        "log1p": |b, x| b.unary(UnaryOp::Log1p, x), |x| x.ln_1p();
        "sqrt": |b, x| b.unary(UnaryOp::Sqrt, x), |x| x.sqrt();
        "rsqrt": |b, x| b.unary(UnaryOp::Rsqrt, x), |x| 1.0 / x.sqrt();
        "reciprocal": |b, x| b.unary(UnaryOp::Reciprocal, x), |x| 1.0 / x;
        "tanh": |b, x| b.unary(UnaryOp::Tanh, x), |x| x.tanh();
        "erf": |b, x| b.unary(UnaryOp::Erf, x), |x| erf(x);
        "sigmoid": |b, x| b.unary(UnaryOp::Sigmoid, x), |x| sigmoid(x);
        "softplus": |b, x| b.unary(UnaryOp::Softplus, x), |x| softplus(x);
        "softsign": |b, x| b.softsign(x), |x| if x.is_infinite() { f64::NAN } else { x / (1.0 + x.abs()) };
        "sin": |b, x| b.unary(UnaryOp::Sin, x), |x| x.sin();
        "cos": |b, x| b.unary(UnaryOp::Cos, x), |x| x.cos();
        "tan": |b, x| b.unary(UnaryOp::Tan, x), |x| x.tan();
        "asin": |b, x| b.unary(UnaryOp::Asin, x), |x| x.asin();
        "acos": |b, x| b.unary(UnaryOp::Acos, x), |x| x.acos();
        "atan": |b, x| b.unary(UnaryOp::Atan, x), |x| x.atan();
        "sinh": |b, x| b.unary(UnaryOp::Sinh, x), |x| x.sinh();
        "cosh": |b, x| b.unary(UnaryOp::Cosh, x), |x| x.cosh();
        "asinh": |b, x| b.unary(UnaryOp::Asinh, x), |x| x.asinh();
        "acosh": |b, x| b.unary(UnaryOp::Acosh, x), |x| x.acosh();
        "atanh": |b, x| b.unary(UnaryOp::Atanh, x), |x| x.atanh();
        "gelu": |b, x| b.gelu(x), |x| x * 0.5 * erfc(-x * std::f64::consts::FRAC_1_SQRT_2);
        "gelu (tanh)": |b, x| b.gelu_tanh(x), |x| gelu_tanh(x);
        "quick gelu": |b, x| b.swish(x, 1.702), |x| x * sigmoid(f64::from(1.702f32) * x);
        "silu": |b, x| b.swish(x, 1.0), |x| x * sigmoid(x);
        "mish": |b, x| b.mish(x), |x| x * softplus(x).tanh();
        "elu": |b, x| b.elu(x, 1.0), |x| elu(x, 1.0, 1.0);
        "selu": |b, x| b.selu(x, SELU.0, SELU.1), |x| elu(x, SELU.0, SELU.1);
        "celu": |b, x| b.celu(x, 1.7), |x| {
            let a = f64::from(1.7f32);
            if x > 0.0 { x } else { a * (x / a).exp_m1() }
        };
        "hard sigmoid": |b, x| b.hard_sigmoid(x, 0.2, 0.5), |x| {
            let y = f64::from(0.2f32) * x + 0.5;
            if y.is_nan() { y } else { y.clamp(0.0, 1.0) }
        };
        "hard swish": |b, x| b.hard_swish(x), |x| {
            let y = (x + 3.0) / 6.0;
            if y.is_nan() { y } else { x * y.clamp(0.0, 1.0) }
        };
        "x^2": |b, x| power(b, x, 2.0), |x| x * x;
        "x^3": |b, x| power(b, x, 3.0), |x| x * x * x;
        "x^0.5": |b, x| power(b, x, 0.5), |x| x.powf(0.5);
        "x^-1.7": |b, x| power(b, x, -1.7), |x| x.powf(f64::from(-1.7f32));
    }
}

/// Distance in units in the last place.
fn ulps(got: f32, want: f32) -> u32 {
    if got.is_nan() || want.is_nan() {
        return if got.is_nan() && want.is_nan() { 0 } else { u32::MAX };
    }
    let order = |x: f32| {
        let i = i64::from(x.to_bits() & 0x7fff_ffff);
        if x.is_sign_negative() { -1 - i } else { i }
    };
    u32::try_from(order(got).abs_diff(order(want))).unwrap_or(u32::MAX)
}

#[derive(Clone, Copy, Default)]
struct Worst {
    ulps: u32,
    at: f32,
    got: f32,
    want: f32,
}

fn measure(f: &Function, levels: &[Isa], step: u64) -> Vec<Worst> {
    let kernels: Vec<Pointwise> = levels
        .iter()
        .map(|&isa| {
            let mut b = ProgramBuilder::new(1);
            let x = b.load(0);
            let y = (f.write)(&mut b, x);
            let program = b.finish(&[y]).expect("a program of one function");
            let operand = [Operand { elem: Elem::F32, strides: &[1] }];
            Pointwise::new(isa, &program, &[CHUNK], &operand, &operand).expect("a kernel of one function")
        })
        .collect();
    let worst = Mutex::new(vec![Worst::default(); levels.len()]);
    let next = AtomicU64::new(0);
    let count = (1u64 << 32) / step;
    std::thread::scope(|s| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            s.spawn(|| {
                let mut mine = vec![Worst::default(); levels.len()];
                let (mut xs, mut ys) = (vec![0.0f32; CHUNK], vec![0.0f32; CHUNK]);
                loop {
                    let first = next.fetch_add(CHUNK as u64, Ordering::Relaxed);
                    if first >= count {
                        break;
                    }
                    for (i, x) in (first..).zip(xs.iter_mut()) {
                        *x = f32::from_bits((i * step % (1 << 32)) as u32);
                    }
                    if first == 0 && step > 1 {
                        xs[..SPECIAL.len()].copy_from_slice(&SPECIAL);
                    }
                    let want: Vec<f32> = xs.iter().map(|&x| (f.truth)(f64::from(x)) as f32).collect();
                    for (kernel, worst) in kernels.iter().zip(&mut mine) {
                        let mut scratch = vec![0u64; kernel.scratch_bytes().div_ceil(8)];
                        for task in 0..kernel.tasks() {
                            // SAFETY: both arrays hold CHUNK f32, in a line; the scratch memory is this call's own.
                            unsafe {
                                kernel.run(
                                    task,
                                    &[xs.as_ptr().cast()],
                                    &[ys.as_mut_ptr().cast()],
                                    scratch.as_mut_ptr().cast(),
                                )
                            };
                        }
                        for ((&at, &got), &want) in xs.iter().zip(&ys).zip(&want) {
                            let ulps = ulps(got, want);
                            if ulps > worst.ulps {
                                *worst = Worst { ulps, at, got, want };
                            }
                        }
                    }
                }
                for (all, mine) in worst.lock().expect("no thread panics").iter_mut().zip(&mine) {
                    if mine.ulps > all.ulps {
                        *all = *mine;
                    }
                }
            });
        }
    });
    worst.into_inner().expect("no thread panics")
}

fn main() {
    let mut args = std::env::args().skip(1);
    let step = args.next().map_or(1, |s| s.parse().expect("STEP is a number"));
    let names: Vec<String> = args.collect();
    let levels: Vec<Isa> = Isa::detect().levels().collect();
    let heads: Vec<&str> = levels.iter().map(|l| l.level().name()).collect();
    println!("| function | {} |\n|---|{}", heads.join(" | "), "---|".repeat(levels.len()));
    for f in functions() {
        if !names.is_empty() && !names.iter().any(|n| n == f.name) {
            continue;
        }
        let cells: Vec<String> = measure(&f, &levels, step)
            .iter()
            .map(|w| match w.ulps {
                0 => "0".to_string(),
                u32::MAX => format!("NaN at {:e}: {:e} for {:e}", w.at, w.got, w.want),
                n if n > 4 => format!("{n} at {:e}: {:e} for {:e}", w.at, w.got, w.want),
                n => format!("{n} at {:e}", w.at),
            })
            .collect();
        println!("| {} | {} |", f.name, cells.join(" | "));
    }
}
