//! Random tensors: RandomUniform, RandomNormal and their kin, Bernoulli, Multinomial.
//!
//! A given seed gives the numbers of NumPy's `RandomState` of that seed, in every run. Without one each run has others.

use super::Family;
use super::case::{Case, CaseInput};
use super::types::need_elem;
use crate::backend::cpu::{Arg, CpuBindings, CpuCtx, EagerCtx, Values, run_now};
use crate::backend::{FnStep, NodeView, Operand, PackedCache, Step};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::elem::{Elem, Narrow};
use crate::kernels::isa::Isa;
use crate::kernels::random::Mt19937;
use crate::kernels::scalar::{load, store};
use crate::tensor::{DType, Tensor, Value};
use crate::{bail, ensure, err};
use half::{bf16, f16};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub(super) const FAMILY: Family = Family { name: "random", ops: OPS, cpu, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Bernoulli", versions: &[15, 22], parse: parse_bernoulli },
    OpDef { domain: "", name: "Multinomial", versions: &[7, 22], parse: parse_multinomial },
    OpDef { domain: "", name: "RandomNormal", versions: &[1, 22], parse: |cx| parse_fill(cx, true, false) },
    OpDef { domain: "", name: "RandomNormalLike", versions: &[1, 22], parse: |cx| parse_fill(cx, true, true) },
    OpDef { domain: "", name: "RandomUniform", versions: &[1, 22], parse: |cx| parse_fill(cx, false, false) },
    OpDef { domain: "", name: "RandomUniformLike", versions: &[1, 22], parse: |cx| parse_fill(cx, false, true) },
];

/// Where random numbers come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Seed {
    /// The same numbers in every run.
    Fixed(u32),
    /// Others in every run.
    Fresh,
}

impl Seed {
    /// From an attribute, of which the whole part counts, as in NumPy's seeds.
    pub(super) fn of(x: Option<f64>) -> Result<Seed> {
        match x.filter(|x| !x.is_nan()) {
            None => Ok(Seed::Fresh),
            // NumPy takes 32 bits. onnxruntime takes all: what is above is folded in.
            Some(x) => {
                ensure!(x.is_finite(), InvalidModel, "the seed is {x}");
                let n = x as i64;
                Ok(Seed::Fixed(n as u32 ^ if n < 0 { 0 } else { (n >> 32) as u32 }))
            }
        }
    }
    /// A generator for one run.
    pub(super) fn start(self) -> Mt19937 {
        static RUNS: AtomicU64 = AtomicU64::new(0);
        match self {
            Seed::Fixed(n) => Mt19937::new(n),
            Seed::Fresh => {
                let mut h = RandomState::new().build_hasher();
                h.write_u64(RUNS.fetch_add(1, Ordering::Relaxed));
                Mt19937::new(h.finish() as u32)
            }
        }
    }
    fn is_fixed(self) -> bool {
        matches!(self, Seed::Fixed(_))
    }
}

fn seed(cx: &ParseCtx<'_>) -> Result<Seed> {
    Seed::of(cx.float_opt("seed")?.map(f64::from))
}

fn dtype(cx: &ParseCtx<'_>) -> Result<Option<DType>> {
    cx.int_opt("dtype")?.map(|n| DType::from_onnx(i32::try_from(n).unwrap_or(0))).transpose()
}

const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

/// Numbers of one distribution (ONNX RandomUniform, RandomNormal, and theirs of input 0's shape).
#[derive(Clone, Debug, PartialEq)]
pub struct Fill {
    /// Normal, else uniform.
    pub normal: bool,
    /// Added.
    pub offset: f32,
    /// Multiplied, before that.
    pub scale: f64,
    /// Where the numbers come from.
    pub seed: Seed,
    /// `None`: input 0's.
    pub shape: Option<Vec<i64>>,
    /// `None`: input 0's.
    pub dtype: Option<DType>,
}

fn parse_fill(cx: &mut ParseCtx<'_>, normal: bool, like: bool) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(usize::from(like), usize::from(like))?;
    let (offset, scale) = if normal {
        (cx.float_or("mean", 0.0)?, f64::from(cx.float_or("scale", 1.0)?))
    } else {
        let low = cx.float_or("low", 0.0)?;
        (low, f64::from(cx.float_or("high", 1.0)?) - f64::from(low))
    };
    let shape = if like { None } else { Some(cx.ints("shape")?) };
    let dtype = dtype(cx)?.or(if like { None } else { Some(DType::F32) });
    Ok(Arc::new(Fill { normal, offset, scale, seed: seed(cx)?, shape, dtype }))
}

impl Op for Fill {
    fn name(&self) -> &'static str {
        match (self.normal, self.shape.is_none()) {
            (false, false) => "RandomUniform",
            (true, false) => "RandomNormal",
            (false, true) => "RandomUniformLike",
            (true, true) => "RandomNormalLike",
        }
    }
    fn is_deterministic(&self) -> bool {
        self.seed.is_fixed()
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = self.dtype.map_or_else(|| cx.dtype(0), Ok)?;
        ensure!(FLOATS.contains(&dtype), InvalidModel, "random numbers of type {dtype}");
        match &self.shape {
            None => Ok(vec![cx.like(0, dtype)?]),
            Some(s) => {
                let size = |&n: &i64| usize::try_from(n).map_err(|_| err!(InvalidModel, "the shape has size {n}"));
                Ok(vec![Fact::sized(dtype, &s.iter().map(size).collect::<Result<Vec<_>>>()?)])
            }
        }
    }
}

/// To the type's precision.
pub(super) fn rounded(elem: Elem, x: f64) -> f64 {
    match elem {
        Elem::F32 => f64::from(x as f32),
        Elem::F16 => f16::narrow_f64(x).to_f64(),
        Elem::Bf16 => bf16::narrow_f64(x).to_f64(),
        _ => x,
    }
}

fn bind_fill(op: &Fill, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (op, y) = (op.clone(), cx.output(0)?);
    let (n, elem) = (y.len(), need_elem(y.dtype, op.name())?);
    Ok(FnStep::boxed("random", 1, 0, move |args, _, _| {
        let mut g = op.seed.start();
        let (scale, offset) = (rounded(elem, op.scale), rounded(elem, f64::from(op.offset)));
        for i in 0..n {
            let x = if op.normal { g.normal() } else { g.uniform() };
            // Rounded at each operation, as NumPy does it on arrays of the type.
            let x = rounded(elem, rounded(elem, x) * scale) + offset;
            // SAFETY: the output has n elements.
            unsafe { store(elem, args.output(0), i, x) };
        }
        Ok(())
    }))
}

/// In the shape of strings.
fn fill_like_strings(op: &Fill, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let ([x], Some(dtype)) = (args, op.dtype) else { bail!(InvalidModel, "{} of this shape needs a dtype", op.name()) };
    let mut y = [Tensor::uninit(dtype, x.tensor()?.shape())?];
    let outputs = [Some(Operand::dense(dtype, y[0].shape()))];
    let node = NodeView { name: op.name(), op, inputs: &[], outputs: &outputs };
    let cache = PackedCache::new();
    let step = bind_fill(op, &CpuCtx { node: &node, isa: Isa::SCALAR, cache: &cache })?;
    run_now(&*step, &[], &mut y, cx.pool)?;
    Ok(y.into_iter().map(Value::Tensor).collect())
}

/// 1 with the probability that input 0 says, else 0 (ONNX Bernoulli).
#[derive(Clone, Debug, PartialEq)]
pub struct Bernoulli {
    /// Where the numbers come from.
    pub seed: Seed,
    /// `None`: input 0's.
    pub dtype: Option<DType>,
}

fn parse_bernoulli(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Bernoulli { seed: seed(cx)?, dtype: dtype(cx)? }))
}

impl Op for Bernoulli {
    fn name(&self) -> &'static str {
        "Bernoulli"
    }
    fn is_deterministic(&self) -> bool {
        self.seed.is_fixed()
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        Ok(vec![cx.like(0, self.dtype.map_or_else(|| cx.dtype(0), Ok)?)?])
    }
}

fn bind_bernoulli(op: &Bernoulli, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (seed, x) = (op.seed, cx.input(0)?);
    let (n, from, to) = (x.len(), need_elem(x.dtype, op.name())?, need_elem(cx.output(0)?.dtype, op.name())?);
    Ok(FnStep::boxed("bernoulli", 1, 0, move |args, _, _| {
        let mut g = seed.start();
        for i in 0..n {
            // SAFETY: input and output have n elements.
            unsafe {
                let p = load(from, args.input(0), i);
                ensure!((0.0..=1.0).contains(&p), Run, "element {i} is {p}, which is no probability");
                // NumPy's binomial of one trial: it counts the less likely side.
                let u = g.uniform();
                let hit = if p <= 0.5 { u > 1.0 - p } else { u <= p };
                store(to, args.output(0), i, f64::from(u8::from(hit)));
            }
        }
        Ok(())
    }))
}

/// Samples of classes whose log-probabilities, up to a constant, are the rows of input 0 (ONNX Multinomial).
#[derive(Clone, Debug, PartialEq)]
pub struct Multinomial {
    /// Where the numbers come from.
    pub seed: Seed,
    /// Of a row.
    pub samples: usize,
    /// i32 or i64.
    pub dtype: DType,
}

fn parse_multinomial(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let dtype = dtype(cx)?.unwrap_or(DType::I32);
    ensure!(matches!(dtype, DType::I32 | DType::I64), InvalidModel, "classes of type {dtype}");
    let samples = cx.int_or("sample_size", 1)?;
    let samples = usize::try_from(samples).map_err(|_| err!(InvalidModel, "sample_size is {samples}"))?;
    Ok(Arc::new(Multinomial { seed: seed(cx)?, samples, dtype }))
}

impl Op for Multinomial {
    fn name(&self) -> &'static str {
        "Multinomial"
    }
    fn is_deterministic(&self) -> bool {
        self.seed.is_fixed()
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &FLOATS)?;
        let rows = match &cx.tensor(0)?.dims {
            None => Dim::Unknown,
            Some(d) => match d.as_slice() {
                [rows, _] => rows.clone(),
                d => bail!(InvalidModel, "rows of classes have two axes, not {}", d.len()),
            },
        };
        Ok(vec![Fact::tensor(self.dtype, vec![rows, Dim::of(self.samples)])])
    }
}

fn bind_multinomial(op: &Multinomial, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    let (seed, samples, x) = (op.seed, op.samples, cx.input(0)?);
    let [rows, classes] = x.shape[..] else { bail!(Internal, "rows of classes have two axes") };
    let (from, to) = (need_elem(x.dtype, op.name())?, need_elem(op.dtype, op.name())?);
    ensure!(classes > 0 || rows * samples == 0, InvalidModel, "a sample of no classes");
    Ok(FnStep::boxed("multinomial", 1, product(&[classes, 8])?, move |args, _, scratch| {
        let mut g = seed.start();
        let sums = scratch.cast::<f64>();
        for row in 0..rows {
            // SAFETY: a row of the input; the scratch has room for as many sums, which are written before they are read;
            // a row of samples of the output.
            unsafe {
                let at = |i: usize| load(from, args.input(0), row * classes + i);
                let top = (0..classes).map(at).fold(f64::NEG_INFINITY, f64::max);
                let mut total = 0.0;
                for i in 0..classes {
                    total += if top == f64::NEG_INFINITY { 1.0 } else { (at(i) - top).exp() };
                    *sums.add(i) = total;
                }
                ensure!(total.is_finite(), Run, "row {row} has a logarithm that is no number");
                let sums = std::slice::from_raw_parts(sums, classes);
                for s in 0..samples {
                    let u = g.uniform() * total;
                    let class = sums.partition_point(|&x| x <= u).min(classes - 1);
                    store(to, args.output(0), row * samples + s, class as f64);
                }
            }
        }
        Ok(())
    }))
}

fn cpu(b: &mut CpuBindings) {
    b.step::<Fill>(bind_fill);
    b.eager::<Fill>(fill_like_strings);
    b.step::<Bernoulli>(bind_bernoulli);
    b.step::<Multinomial>(bind_multinomial);
}

fn cases() -> Vec<Case> {
    let seeded = |c: Case| c.attr("seed", Attr::Float(3.0)).exact();
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 0.0, 1.0);
    let shape = |c: Case| c.attr("shape", Attr::Ints(vec![2, 3]));
    vec![
        seeded(shape(Case::new("RandomUniform", 22, "plain", vec![]))),
        seeded(shape(Case::new("RandomNormal", 22, "f64", vec![]))).attr("dtype", Attr::Int(11)),
        seeded(Case::new("RandomUniformLike", 22, "f16", vec![x(DType::F16, &[3, 5])])),
        seeded(Case::new("RandomNormalLike", 22, "empty", vec![x(DType::F32, &[0, 5])])),
        seeded(Case::new("Bernoulli", 22, "bool", vec![x(DType::F32, &[7])])).attr("dtype", Attr::Int(9)),
        seeded(Case::new("Multinomial", 22, "two", vec![x(DType::F32, &[2, 9])])).attr("sample_size", Attr::Int(4)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        assert_eq!(Seed::of(None).unwrap(), Seed::Fresh);
        assert_eq!(Seed::of(Some(f64::NAN)).unwrap(), Seed::Fresh);
        assert_eq!(Seed::of(Some(7.9)).unwrap(), Seed::Fixed(7));
        assert!(Seed::of(Some(f64::INFINITY)).is_err());
        let draw = |s: Seed| s.start().uniform();
        assert_eq!(draw(Seed::Fixed(1)), draw(Seed::Fixed(1)));
        assert_ne!(draw(Seed::Fresh), draw(Seed::Fresh));
    }
}
