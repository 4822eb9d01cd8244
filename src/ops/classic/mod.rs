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
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx};
use crate::base::alloc::{gathered, reserved, try_gathered};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, MapValue, Tensor, TensorView, Value};
use crate::{bail, ensure, err};
use std::collections::HashMap;
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
    OpDef { domain: ML, name: "LabelEncoder", versions: &[1, 2, 4], parse: parse_labels },
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
    fn pick(&self, at: &[usize]) -> Result<Tensor> {
        match self {
            Labels::Ints(v) => Tensor::gathered(&[at.len()], at.iter().map(|&i| v[i])),
            Labels::Strings(v) => Tensor::from_strings(&[at.len()], gathered(at.iter().map(|&i| v[i].clone()))?),
        }
    }
}

/// The elements of a numeric tensor as f32.
fn floats(t: &TensorView<'_>) -> Result<Vec<f32>> {
    Ok(match t.dtype() {
        DType::F32 => gathered(t.as_slice::<f32>()?.iter().copied())?,
        DType::F64 => gathered(t.as_slice::<f64>()?.iter().map(|&x| x as f32))?,
        _ => gathered(t.to_i64s()?.into_iter().map(|x| x as f32))?,
    })
}

/// The elements of a numeric tensor as f64.
fn doubles(t: &TensorView<'_>) -> Result<Vec<f64>> {
    crate::ops::case::to_f64s(&t.to_tensor()?)
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

fn run_linear(op: &Linear, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let ((n, c), x) = (rows(t.shape())?, floats(t)?);
    // onnxruntime's own iris model has more coefficients than it has features: the first ones count there, and here.
    ensure!(
        op.coefficients.len() >= c * op.targets,
        Run,
        "{} coefficients for {} targets and {c} features",
        op.coefficients.len(),
        op.targets
    );
    let width = op.labels.as_ref().map_or(op.targets, Labels::len);
    let (mut scores, mut best) = (reserved(product(&[n, width])?)?, reserved(n)?);
    for row in x.chunks_exact(c.max(1)).take(n) {
        let dot = |k: usize| {
            let w = &op.coefficients[k * c..(k + 1) * c];
            let sum: f64 = row.iter().zip(w).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            f64::from((sum + f64::from(op.intercepts.get(k).copied().unwrap_or(0.0))) as f32)
        };
        let mut s: Vec<f64> = (0..op.targets).map(dot).collect();
        if width == 2 && op.targets == 1 {
            best.push(usize::from(s[0] > 0.0));
            s = match op.post {
                PostTransform::Logistic => vec![logistic(-s[0]), logistic(s[0])],
                _ => vec![1.0 - s[0], s[0]],
            };
        } else {
            let first_greatest = (1..s.len()).fold(0, |b, i| if s[i] > s[b] { i } else { b });
            best.push(first_greatest);
            op.post.apply(&mut s);
        }
        scores.extend(s.into_iter().map(|s| s as f32));
    }
    let z = Value::Tensor(Tensor::from_slice(&[n, width], &scores)?);
    Ok(match &op.labels {
        Some(l) => vec![Value::Tensor(l.pick(&best)?), z],
        None => vec![z],
    })
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

fn run_normalizer(op: &Normalizer, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let mut x = floats(t)?;
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
    Ok(vec![Value::Tensor(Tensor::from_slice(t.shape(), &x)?)])
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

fn run_scaler(op: &Scaler, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let mut x = floats(t)?;
    let (_, c) = rows(t.shape())?;
    for v in [&op.offset, &op.scale] {
        ensure!(v.len() <= 1 || v.len() == c, Run, "{} values for {c} features", v.len());
    }
    let at = |v: &[f32], i: usize, none: f32| if v.len() == 1 { v[0] } else { v.get(i).copied().unwrap_or(none) };
    for (i, v) in x.iter_mut().enumerate() {
        *v = (*v - at(&op.offset, i % c, 0.0)) * at(&op.scale, i % c, 1.0);
    }
    Ok(vec![Value::Tensor(Tensor::from_slice(t.shape(), &x)?)])
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

fn run_binarizer(op: &Binarizer, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    Ok(vec![Value::Tensor(match t.dtype() {
        DType::F32 => Tensor::gathered(t.shape(), t.as_slice::<f32>()?.iter().map(|&x| f32::from(u8::from(x > op.0))))?,
        DType::F64 => {
            let above = |&x: &f64| f64::from(u8::from(x > f64::from(op.0)));
            Tensor::gathered(t.shape(), t.as_slice::<f64>()?.iter().map(above))?
        }
        DType::I64 => {
            Tensor::gathered(t.shape(), t.as_slice::<i64>()?.iter().map(|&x| i64::from(x as f64 > f64::from(op.0))))?
        }
        DType::I32 => {
            let above = |&x: &i32| i32::from(f64::from(x) > f64::from(op.0));
            Tensor::gathered(t.shape(), t.as_slice::<i32>()?.iter().map(above))?
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

fn run_extract(_: &Extract, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let (t, places) = (args[0].tensor()?, args[1].tensor()?.to_i64s()?);
    let Some((&n, outer)) = t.shape().split_last() else { bail!(Run, "a scalar has no features") };
    let at = places.iter().map(|&p| {
        usize::try_from(p).ok().filter(|&p| p < n).ok_or_else(|| err!(Run, "place {p} is outside {n} features"))
    });
    let at = try_gathered(at)?;
    let mut shape = if outer.is_empty() { vec![1] } else { outer.to_vec() };
    shape.push(at.len());
    let count: usize = outer.iter().product();
    let out = if t.dtype() == DType::String {
        let s = t.as_strings()?;
        Tensor::from_strings(&shape, gathered((0..count).flat_map(|o| at.iter().map(move |&p| s[o * n + p].clone())))?)?
    } else {
        let size = t.dtype().size().ok_or_else(|| err!(Unsupported, "features of {}", t.dtype()))?;
        let b = t.bytes();
        let mut data = reserved(product(&[count, at.len(), size])?)?;
        for o in 0..count {
            at.iter().for_each(|&p| data.extend_from_slice(&b[(o * n + p) * size..][..size]));
        }
        Tensor::from_bytes(t.dtype(), &shape, data.into())?
    };
    Ok(vec![Value::Tensor(out)])
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

fn run_zipmap(op: &ZipMap, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let ((_, c), x) = (rows(t.shape())?, t.as_slice::<f32>()?);
    ensure!(c == op.0.len(), Run, "{c} scores for {} labels", op.0.len());
    let keys = op.0.pick(&gathered(0..c)?)?;
    let maps = x.chunks_exact(c.max(1)).map(|row| {
        let values = Box::new(Value::Tensor(Tensor::from_slice(&[c], row)?));
        Ok(Value::Map(MapValue { keys: keys.clone(), values }))
    });
    Ok(vec![Value::Sequence(Arc::new(try_gathered(maps)?))])
}

/// Looks each element up in a table (ai.onnx.ml LabelEncoder).
#[derive(Debug)]
pub struct LabelEncoder {
    keys: Table,
    values: Table,
    default: Table,
}

/// One side of the table, or one default.
#[derive(Debug, Clone)]
enum Table {
    Ints(Vec<i64>),
    Floats(Vec<f32>),
    Strings(Vec<String>),
    Tensor(Tensor),
}

impl Table {
    fn parse(cx: &ParseCtx<'_>, side: &str) -> Result<Option<Table>> {
        if let Some(t) = cx.tensor_opt(&format!("{side}_tensor"))? {
            return Ok(Some(Table::Tensor(t)));
        }
        if let Some(v) = cx.ints_opt(&format!("{side}_int64s"))? {
            return Ok(Some(Table::Ints(v)));
        }
        if let Some(v) = cx.floats_opt(&format!("{side}_floats"))? {
            return Ok(Some(Table::Floats(v)));
        }
        Ok(cx.strings_opt(&format!("{side}_strings"))?.map(Table::Strings))
    }
    fn tensor(&self) -> Result<Tensor> {
        match self {
            Table::Ints(v) => Tensor::from_slice(&[v.len()], v),
            Table::Floats(v) => Tensor::from_slice(&[v.len()], v),
            Table::Strings(v) => Tensor::from_strings(&[v.len()], v.clone()),
            Table::Tensor(t) => Ok(t.clone()),
        }
    }
}

fn parse_labels(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    if cx.version < 2 {
        return encode::parse_labels_1(cx);
    }
    let missing = |side: &str| err!(InvalidModel, "the {side} of the table are missing");
    let keys = Table::parse(cx, "keys")?.ok_or_else(|| missing("keys"))?;
    let values = Table::parse(cx, "values")?.ok_or_else(|| missing("values"))?;
    let dtype = values.tensor()?.dtype();
    let default = match (cx.tensor_opt("default_tensor")?, dtype) {
        (Some(t), _) => Table::Tensor(t),
        (None, DType::I64) => Table::Ints(vec![cx.int_or("default_int64", -1)?]),
        (None, DType::F32) => Table::Floats(vec![cx.float_or("default_float", -0.0)?]),
        (None, DType::String) => Table::Strings(vec![cx.string_or("default_string", "_Unused")?]),
        (None, d) => Table::Tensor(Tensor::zeroed(d, &[1])?),
    };
    ensure!(keys.tensor()?.len() == values.tensor()?.len(), InvalidModel, "the table's sides differ in length");
    Ok(Arc::new(LabelEncoder { keys, values, default }))
}

impl Op for LabelEncoder {
    named!(LabelEncoder, "LabelEncoder");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, self.values.tensor()?.dtype())?])
    }
}

/// Bytes that are the same exactly where two elements are the same label: all NaNs are one.
fn label_keys(t: &TensorView<'_>) -> Result<Vec<Vec<u8>>> {
    if t.dtype() == DType::String {
        return gathered(t.as_strings()?.iter().map(|s| s.as_bytes().to_vec()));
    }
    if t.dtype() == DType::F32 {
        let canonical = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
        return gathered(t.as_slice::<f32>()?.iter().map(|&x| canonical(x).to_le_bytes().to_vec()));
    }
    if t.dtype() == DType::F64 {
        let canonical = |x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 };
        return gathered(t.as_slice::<f64>()?.iter().map(|&x| canonical(x).to_le_bytes().to_vec()));
    }
    gathered(t.to_i64s()?.into_iter().map(|x| x.to_le_bytes().to_vec()))
}

fn run_labels(op: &LabelEncoder, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let (keys, values, default) = (op.keys.tensor()?, op.values.tensor()?, op.default.tensor()?);
    ensure!(t.dtype() == keys.dtype(), InvalidModel, "keys are {}, the operand is {}", keys.dtype(), t.dtype());
    let table: HashMap<Vec<u8>, usize> =
        label_keys(&keys.as_view())?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
    let places = label_keys(t)?.into_iter().map(|k| table.get(&k).copied());
    let out = if values.dtype() == DType::String {
        let (v, d) = (values.as_strings()?, default.as_strings()?);
        let d = d.first().cloned().unwrap_or_default();
        Tensor::from_strings(t.shape(), gathered(places.map(|p| p.map_or_else(|| d.clone(), |p| v[p].clone())))?)?
    } else {
        let size = values.dtype().size().ok_or_else(|| err!(Unsupported, "labels of {}", values.dtype()))?;
        ensure!(default.dtype() == values.dtype() && !default.is_empty(), InvalidModel, "the default is {default:?}");
        let (v, d) = (values.bytes(), default.bytes());
        let data: Vec<u8> = gathered(places.flat_map(|p| p.map_or(&d[..size], |p| &v[p * size..][..size])).copied())?;
        Tensor::from_bytes(values.dtype(), t.shape(), data.into())?
    };
    Ok(vec![Value::Tensor(out)])
}

fn cpu(b: &mut CpuBindings) {
    b.eager::<Linear>(run_linear);
    b.eager::<Normalizer>(run_normalizer);
    b.eager::<Scaler>(run_scaler);
    b.eager::<Binarizer>(run_binarizer);
    b.eager::<Extract>(run_extract);
    b.eager::<ZipMap>(run_zipmap);
    b.eager::<LabelEncoder>(run_labels);
    encode::cpu(b);
    svm::cpu(b);
    trees::cpu(b);
}
