//! `ai.onnx.ml`: linear models, support vectors, trees, normalisers, encoders and what turns their results into maps.

macro_rules! named {
    ($t:ident, $name:literal) => {
        fn name(&self) -> &'static str {
            $name
        }
    };
}

mod cases;
mod encode;
mod svm;
mod trees;

use super::Family;
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::{emptied, gathered, refill, try_gathered};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::ops::case::to_f64s;
use crate::ops::movement::pick;
use crate::tensor::{DType, MapValue, Tensor, TensorView, Value};
use crate::{bail, ensure};
use smallvec::smallvec;
use std::sync::Arc;

pub(super) const FAMILY: Family =
    Family { name: "classic machine learning", ops: OPS, cpu, cases: cases::cases, ..Family::EMPTY };

const ML: &str = "ai.onnx.ml";

const OPS: &[OpDef] = &[
    OpDef { domain: ML, name: "ArrayFeatureExtractor", versions: &[1], parse: parse_extract },
    OpDef { domain: ML, name: "Binarizer", versions: &[1], parse: parse_binarizer },
    encode::OPS[0],
    encode::OPS[1],
    encode::OPS[2],
    encode::OPS[3],
    encode::OPS[4],
    encode::OPS[5],
    svm::OPS[0],
    svm::OPS[1],
    trees::OPS[0],
    trees::OPS[1],
    trees::OPS[2],
    OpDef { domain: ML, name: "LabelEncoder", versions: &[1, 2, 4], parse: encode::parse_labels },
    OpDef { domain: ML, name: "LinearClassifier", versions: &[1], parse: parse_classifier },
    OpDef { domain: ML, name: "LinearRegressor", versions: &[1], parse: parse_regressor },
    OpDef { domain: ML, name: "Normalizer", versions: &[1], parse: parse_normalizer },
    OpDef { domain: ML, name: "Scaler", versions: &[1], parse: parse_scaler },
    OpDef { domain: ML, name: "ZipMap", versions: &[1], parse: parse_zipmap },
];

/// What happens to scores at the end.
#[derive(Clone, Copy, Debug, PartialEq)]
enum PostTransform {
    None,
    Softmax,
    SoftmaxZero,
    Logistic,
    Probit,
}

impl PostTransform {
    fn parse(cx: &ParseCtx<'_>) -> Result<Self> {
        Ok(match cx.string_or("post_transform", "NONE")?.as_str() {
            "NONE" => PostTransform::None,
            "SOFTMAX" => PostTransform::Softmax,
            "SOFTMAX_ZERO" => PostTransform::SoftmaxZero,
            "LOGISTIC" => PostTransform::Logistic,
            "PROBIT" => PostTransform::Probit,
            x => bail!(Unsupported, "post_transform '{x}'"),
        })
    }
    fn apply(self, row: &mut [f64]) {
        match self {
            PostTransform::None => {}
            PostTransform::Logistic => row.iter_mut().for_each(|x| *x = logistic(*x)),
            PostTransform::Probit => row.iter_mut().for_each(|x| *x = probit(*x)),
            PostTransform::Softmax | PostTransform::SoftmaxZero => {
                let max = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                // SOFTMAX_ZERO leaves what is exactly zero alone.
                let skip = |x: f64| self == PostTransform::SoftmaxZero && x == 0.0;
                let mut sum = 0.0;
                for x in row.iter_mut().filter(|x| !skip(**x)) {
                    *x = (*x - max).exp();
                    sum += *x;
                }
                row.iter_mut().filter(|x| !skip(**x)).for_each(|x| *x /= sum);
            }
        }
    }
}

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + f64::exp(-x))
}

/// The normal distribution's quantile, by the approximation that onnxruntime and the reference use (Winitzki 2008).
fn probit(p: f64) -> f64 {
    let x = 2.0 * p - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * log;
    std::f64::consts::SQRT_2 * (-v + (v * v - log / 0.147).sqrt()).sqrt().copysign(x)
}

/// Class labels of either kind.
#[derive(Clone, Debug, PartialEq)]
enum Labels {
    Ints(Vec<i64>),
    Strings(Vec<String>),
}

impl Labels {
    fn parse(cx: &ParseCtx<'_>, ints: &str, strings: &str) -> Result<Self> {
        match (cx.ints_opt(ints)?, cx.strings_opt(strings)?) {
            (_, Some(s)) if !s.is_empty() => Ok(Labels::Strings(s)),
            (Some(i), _) => Ok(Labels::Ints(i)),
            _ => bail!(InvalidModel, "neither '{ints}' nor '{strings}' is given"),
        }
    }
    fn dtype(&self) -> DType {
        if matches!(self, Labels::Ints(_)) { DType::I64 } else { DType::String }
    }
    fn len(&self) -> usize {
        match self {
            Labels::Ints(v) => v.len(),
            Labels::Strings(v) => v.len(),
        }
    }
    fn tensor(&self) -> Result<Tensor> {
        match self {
            Labels::Ints(v) => Tensor::from_slice(&[v.len()], v),
            Labels::Strings(v) => Tensor::from_strings(&[v.len()], gathered(v.iter().cloned())?),
        }
    }
    fn pick(&self, at: &[usize], cx: &mut EagerCtx<'_>) -> Result<Tensor> {
        match self {
            Labels::Ints(v) => cx.gathered(&[at.len()], at.iter().map(|&i| v[i])),
            Labels::Strings(v) => Tensor::from_strings(&[at.len()], gathered(at.iter().map(|&i| v[i].clone()))?),
        }
    }
}

/// The elements of a numeric tensor as f32, in a list that is there.
fn floats(t: &TensorView<'_>, list: &mut Vec<f32>) -> Result<()> {
    match t.dtype() {
        DType::F32 => refill(list, t.as_slice::<f32>()?.iter().copied()),
        DType::F64 => refill(list, t.as_slice::<f64>()?.iter().map(|&x| x as f32)),
        DType::I64 => refill(list, t.as_slice::<i64>()?.iter().map(|&x| x as f32)),
        DType::I32 => refill(list, t.as_slice::<i32>()?.iter().map(|&x| x as f32)),
        _ => refill(list, t.to_i64s()?.into_iter().map(|x| x as f32)),
    }
}

/// The elements of a numeric tensor as f64, in a list that is there.
fn doubles(t: &TensorView<'_>, list: &mut Vec<f64>) -> Result<()> {
    match t.dtype() {
        DType::F32 => refill(list, t.as_slice::<f32>()?.iter().map(|&x| f64::from(x))),
        DType::F64 => refill(list, t.as_slice::<f64>()?.iter().copied()),
        DType::I64 => refill(list, t.as_slice::<i64>()?.iter().map(|&x| x as f64)),
        DType::I32 => refill(list, t.as_slice::<i32>()?.iter().map(|&x| f64::from(x))),
        _ => refill(list, to_f64s(&t.to_tensor()?)?.into_iter()),
    }
}

/// A table of rows: one axis is one row.
fn rows(shape: &[usize]) -> Result<(usize, usize)> {
    match shape {
        [c] => Ok((1, *c)),
        [n, c] => Ok((*n, *c)),
        s => bail!(Run, "one or two axes are needed, not {s:?}"),
    }
}

/// The number of rows, as a dim.
fn row_dim(cx: &InferCtx<'_>) -> Result<Dim> {
    Ok(match &cx.tensor(0)?.dims {
        Some(d) if d.len() == 2 => d[0].clone(),
        Some(d) if d.len() == 1 => Dim::Known(1),
        _ => Dim::Unknown,
    })
}

/// Scores `x * coefficients + intercepts` a class (ai.onnx.ml LinearClassifier, LinearRegressor).
#[derive(Debug)]
pub struct Linear {
    coefficients: Vec<f32>,
    intercepts: Vec<f32>,
    targets: usize,
    post: PostTransform,
    /// None: a regressor.
    labels: Option<Labels>,
}

fn parse_classifier(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let labels = Labels::parse(cx, "classlabels_ints", "classlabels_strings")?;
    let intercepts = cx.floats_opt("intercepts")?.unwrap_or_default();
    let coefficients = cx.floats("coefficients")?;
    // Two classes may share one row of coefficients.
    let targets = if intercepts.is_empty() { labels.len() } else { intercepts.len() };
    ensure!(
        targets > 0 && (targets == labels.len() || targets == 1 && labels.len() == 2),
        InvalidModel,
        "{} labels for {targets} rows of coefficients",
        labels.len()
    );
    Ok(Arc::new(Linear { coefficients, intercepts, targets, post: PostTransform::parse(cx)?, labels: Some(labels) }))
}

fn parse_regressor(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let targets = usize::try_from(cx.int_or("targets", 1)?).unwrap_or(0);
    let (coefficients, intercepts) = (cx.floats("coefficients")?, cx.floats_opt("intercepts")?.unwrap_or_default());
    ensure!(targets > 0, InvalidModel, "a regressor without targets");
    Ok(Arc::new(Linear { coefficients, intercepts, targets, post: PostTransform::parse(cx)?, labels: None }))
}

impl Op for Linear {
    fn name(&self) -> &'static str {
        if self.labels.is_some() { "LinearClassifier" } else { "LinearRegressor" }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = row_dim(cx)?;
        Ok(match &self.labels {
            Some(l) => {
                vec![Fact::tensor(l.dtype(), vec![n.clone()]), Fact::tensor(DType::F32, vec![n, Dim::of(l.len())])]
            }
            None => vec![Fact::tensor(DType::F32, vec![n, Dim::of(self.targets)])],
        })
    }
}

/// Features, the scores of a row, and the class of each.
#[derive(Default)]
struct Rows {
    x: Vec<f32>,
    row: Vec<f64>,
    scores: Vec<f32>,
    best: Vec<usize>,
}

fn run_linear(op: &Linear, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let (n, c) = rows(t.shape())?;
    // onnxruntime's own iris model has more coefficients than it has features: the first ones count there, and here.
    ensure!(
        op.coefficients.len() >= c * op.targets,
        Run,
        "{} coefficients for {} targets and {c} features",
        op.coefficients.len(),
        op.targets
    );
    let width = op.labels.as_ref().map_or(op.targets, Labels::len);
    let mut lists = cx.lists::<Rows>();
    let Rows { x, row: s, scores, best } = &mut *lists;
    floats(t, x)?;
    emptied(scores, product(&[n, width])?)?;
    emptied(best, n)?;
    for row in (0..n).map(|i| &x[i * c..][..c]) {
        let dot = |k: usize| {
            let w = &op.coefficients[k * c..(k + 1) * c];
            let sum: f64 = row.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            f64::from((sum + f64::from(op.intercepts.get(k).copied().unwrap_or(0.0))) as f32)
        };
        refill(s, (0..op.targets).map(dot))?;
        if width == 2 && op.targets == 1 {
            best.push(usize::from(s[0] > 0.0));
            let both = match op.post {
                PostTransform::Logistic => [logistic(-s[0]), logistic(s[0])],
                _ => [1.0 - s[0], s[0]],
            };
            refill(s, both.into_iter())?;
        } else {
            let first_greatest = (1..s.len()).fold(0, |b, i| if s[i] > s[b] { i } else { b });
            best.push(first_greatest);
            op.post.apply(s);
        }
        scores.extend(s.iter().map(|&s| s as f32));
    }
    let labels = op.labels.as_ref().map(|l| l.pick(best, cx)).transpose()?;
    let z = cx.gathered(&[n, width], scores.iter().copied())?;
    cx.keep(lists);
    Ok(labels.into_iter().chain([z]).map(Value::Tensor).collect())
}

/// Scales each row to a norm of 1 (ai.onnx.ml Normalizer).
#[derive(Debug)]
pub struct Normalizer(Norm);

#[derive(Debug, Clone, Copy)]
enum Norm {
    Max,
    L1,
    L2,
}

fn parse_normalizer(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Normalizer(match cx.string_or("norm", "MAX")?.as_str() {
        "MAX" => Norm::Max,
        "L1" => Norm::L1,
        "L2" => Norm::L2,
        x => bail!(InvalidModel, "norm '{x}'"),
    })))
}

impl Op for Normalizer {
    named!(Normalizer, "Normalizer");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, DType::F32)?])
    }
}

fn run_normalizer(op: &Normalizer, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let mut x = cx.lists::<Vec<f32>>();
    floats(t, &mut x)?;
    let (_, c) = rows(t.shape())?;
    for row in x.chunks_exact_mut(c.max(1)) {
        let wide = row.iter().map(|&v| f64::from(v));
        let norm = match op.0 {
            Norm::Max => wide.fold(f64::NEG_INFINITY, f64::max),
            Norm::L1 => wide.map(f64::abs).sum(),
            Norm::L2 => wide.map(|v| v * v).sum::<f64>().sqrt(),
        };
        if norm != 0.0 {
            row.iter_mut().for_each(|v| *v = (f64::from(*v) / norm) as f32);
        }
    }
    let y = cx.gathered(t.shape(), x.iter().copied())?;
    cx.keep(x);
    Ok(smallvec![Value::Tensor(y)])
}

/// `(x - offset) * scale` a feature (ai.onnx.ml Scaler).
#[derive(Debug)]
pub struct Scaler {
    offset: Vec<f32>,
    scale: Vec<f32>,
}

fn parse_scaler(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Scaler {
        offset: cx.floats_opt("offset")?.unwrap_or_default(),
        scale: cx.floats_opt("scale")?.unwrap_or_default(),
    }))
}

impl Op for Scaler {
    named!(Scaler, "Scaler");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, DType::F32)?])
    }
}

fn run_scaler(op: &Scaler, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let mut x = cx.lists::<Vec<f32>>();
    floats(t, &mut x)?;
    let (_, c) = rows(t.shape())?;
    for v in [&op.offset, &op.scale] {
        ensure!(v.len() <= 1 || v.len() == c, Run, "{} values for {c} features", v.len());
    }
    let at = |v: &[f32], i: usize, none: f32| if v.len() == 1 { v[0] } else { v.get(i).copied().unwrap_or(none) };
    let scaled = |(i, &v): (usize, &f32)| (v - at(&op.offset, i % c, 0.0)) * at(&op.scale, i % c, 1.0);
    let y = cx.gathered(t.shape(), x.iter().enumerate().map(scaled))?;
    cx.keep(x);
    Ok(smallvec![Value::Tensor(y)])
}

/// 1 where x is above a threshold, else 0 (ai.onnx.ml Binarizer).
#[derive(Debug)]
pub struct Binarizer(f32);

fn parse_binarizer(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Binarizer(cx.float_or("threshold", 0.0)?)))
}

impl Op for Binarizer {
    named!(Binarizer, "Binarizer");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, cx.dtype(0)?)?])
    }
}

fn run_binarizer(op: &Binarizer, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    Ok(smallvec![Value::Tensor(match t.dtype() {
        DType::F32 => cx.gathered(t.shape(), t.as_slice::<f32>()?.iter().map(|&x| f32::from(u8::from(x > op.0))))?,
        DType::F64 => {
            let above = |&x: &f64| f64::from(u8::from(x > f64::from(op.0)));
            cx.gathered(t.shape(), t.as_slice::<f64>()?.iter().map(above))?
        }
        DType::I64 => {
            cx.gathered(t.shape(), t.as_slice::<i64>()?.iter().map(|&x| i64::from(x as f64 > f64::from(op.0))))?
        }
        DType::I32 => {
            let above = |&x: &i32| i32::from(f64::from(x) > f64::from(op.0));
            cx.gathered(t.shape(), t.as_slice::<i32>()?.iter().map(above))?
        }
        d => bail!(Unsupported, "Binarizer of {d}"),
    })])
}

/// Elements of the last axis at the places in input 1 (ai.onnx.ml ArrayFeatureExtractor).
#[derive(Debug)]
pub struct Extract;

fn parse_extract(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Extract))
}

impl Op for Extract {
    named!(Extract, "ArrayFeatureExtractor");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, count) = (cx.tensor(0)?, cx.tensor(1)?.count());
        Ok(vec![match &x.dims {
            Some(d) if d.len() == 1 => Fact::tensor(x.dtype, vec![Dim::Known(1), count]),
            Some(d) if !d.is_empty() => {
                let mut d = d.clone();
                if let Some(last) = d.last_mut() {
                    *last = count;
                }
                Fact::tensor(x.dtype, d)
            }
            _ => Fact::any_tensor(x.dtype),
        }])
    }
}

fn run_extract(_: &Extract, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let (t, at) = (args[0].tensor()?, args[1].tensor()?.as_slice::<i64>()?);
    let Some((&n, outer)) = t.shape().split_last() else { bail!(Run, "a scalar has no features") };
    for &p in at {
        ensure!(usize::try_from(p).is_ok_and(|p| p < n), Run, "place {p} is outside {n} features");
    }
    let picked = pick(t, Some(outer.len()), at, cx)?;
    Ok(smallvec![Value::Tensor(if outer.is_empty() { picked.reshaped(&[1, at.len()])? } else { picked })])
}

/// Turns each row of scores into a map from labels (ai.onnx.ml ZipMap).
#[derive(Debug)]
pub struct ZipMap(Labels);

fn parse_zipmap(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(ZipMap(Labels::parse(cx, "classlabels_int64s", "classlabels_strings")?)))
}

impl Op for ZipMap {
    named!(ZipMap, "ZipMap");
    fn infer(&self, _cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let map = Fact::Map(self.0.dtype(), Box::new(Fact::any_tensor(DType::F32)));
        Ok(vec![Fact::Sequence(Box::new(map))])
    }
}

fn run_zipmap(op: &ZipMap, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let ((_, c), x) = (rows(t.shape())?, t.as_slice::<f32>()?);
    ensure!(c == op.0.len(), Run, "{c} scores for {} labels", op.0.len());
    let keys = op.0.pick(&gathered(0..c)?, cx)?;
    let maps = x.chunks_exact(c.max(1)).map(|row| {
        let values = Box::new(Value::Tensor(Tensor::from_slice(&[c], row)?));
        Ok(Value::Map(MapValue { keys: keys.clone(), values }))
    });
    Ok(smallvec![Value::Sequence(Arc::new(try_gathered(maps)?))])
}

fn cpu(b: &mut CpuBindings) {
    b.eager::<Linear>(run_linear);
    b.eager::<Normalizer>(run_normalizer);
    b.eager::<Scaler>(run_scaler);
    b.eager::<Binarizer>(run_binarizer);
    b.eager::<Extract>(run_extract);
    b.eager::<ZipMap>(run_zipmap);
    encode::cpu(b);
    svm::cpu(b);
    trees::cpu(b);
}
