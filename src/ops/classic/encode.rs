//! What prepares features: CastMap, CategoryMapper, DictVectorizer, FeatureVectorizer, Imputer, OneHotEncoder.

use super::{LabelEncoder, Labels, ML, Table, doubles, label_keys, rows};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx};
use crate::base::alloc::gathered;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, MapValue, Tensor, TensorView, Value};
use crate::{bail, ensure, err};
use std::collections::HashMap;
use std::sync::Arc;

pub(super) const OPS: [OpDef; 6] = [
    OpDef { domain: ML, name: "CastMap", versions: &[1], parse: parse_cast_map },
    OpDef { domain: ML, name: "CategoryMapper", versions: &[1], parse: parse_mapper },
    OpDef { domain: ML, name: "DictVectorizer", versions: &[1], parse: parse_dict },
    OpDef { domain: ML, name: "FeatureVectorizer", versions: &[1], parse: parse_features },
    OpDef { domain: ML, name: "Imputer", versions: &[1], parse: parse_imputer },
    OpDef { domain: ML, name: "OneHotEncoder", versions: &[1], parse: parse_one_hot },
];

/// Integers and strings that stand for each other, with a default for each side (CategoryMapper, LabelEncoder-1).
#[derive(Debug)]
pub struct Mapper {
    to_string: LabelEncoder,
    to_int: LabelEncoder,
}

fn mapper(cx: &ParseCtx<'_>, ints: Vec<i64>, strings: Vec<String>) -> Result<Arc<dyn Op>> {
    ensure!(ints.len() == strings.len(), InvalidModel, "{} integers for {} strings", ints.len(), strings.len());
    let (no_string, no_int) = (cx.string_or("default_string", "_Unused")?, cx.int_or("default_int64", -1)?);
    let (ints, strings) = (Table::Ints(ints), Table::Strings(strings));
    let to_string =
        LabelEncoder { keys: ints.clone(), values: strings.clone(), default: Table::Strings(vec![no_string]) };
    let to_int = LabelEncoder { keys: strings, values: ints, default: Table::Ints(vec![no_int]) };
    Ok(Arc::new(Mapper { to_string, to_int }))
}

fn parse_mapper(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    mapper(cx, cx.ints_opt("cats_int64s")?.unwrap_or_default(), cx.strings_opt("cats_strings")?.unwrap_or_default())
}

/// LabelEncoder of version 1: a string's place in a list, and back.
pub(super) fn parse_labels_1(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let strings = cx.strings_opt("classes_strings")?.unwrap_or_default();
    mapper(cx, (0..strings.len() as i64).collect(), strings)
}

impl Op for Mapper {
    named!(Mapper, "CategoryMapper");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::String, DType::I64])?;
        Ok(vec![cx.like(0, if cx.dtype(0)? == DType::String { DType::I64 } else { DType::String })?])
    }
}

fn run_mapper(op: &Mapper, cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let to_int = args[0].tensor()?.dtype() == DType::String;
    super::run_labels(if to_int { &op.to_int } else { &op.to_string }, cx, args)
}

/// The values of a map as a row (ai.onnx.ml CastMap).
#[derive(Debug)]
pub struct CastMap {
    to: DType,
    /// The width, where the keys are places; else the values follow in the order of their keys.
    width: Option<usize>,
}

fn parse_cast_map(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let to = match cx.string_or("cast_to", "TO_FLOAT")?.as_str() {
        "TO_FLOAT" => DType::F32,
        "TO_INT64" => DType::I64,
        "TO_STRING" => DType::String,
        x => bail!(InvalidModel, "cast_to '{x}'"),
    };
    let max = cx.int_or("max_map", 1)?;
    let width = match cx.string_or("map_form", "DENSE")?.as_str() {
        "DENSE" => None,
        "SPARSE" => Some(usize::try_from(max).map_err(|_| err!(InvalidModel, "max_map is {max}"))?),
        x => bail!(InvalidModel, "map_form '{x}'"),
    };
    Ok(Arc::new(CastMap { to, width }))
}

impl Op for CastMap {
    named!(CastMap, "CastMap");
    fn infer(&self, _cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![Fact::tensor(self.to, vec![Dim::Known(1), self.width.map_or(Dim::Unknown, Dim::of)])])
    }
}

fn map<'a>(a: &'a Arg<'_>) -> Result<&'a MapValue> {
    match a {
        Arg::Value(Value::Map(m)) => Ok(m),
        _ => bail!(InvalidModel, "a map is needed here"),
    }
}

/// The entries of a map as one tensor: the values are one, or a sequence of scalars.
fn entries(m: &MapValue) -> Result<Vec<Tensor>> {
    Ok(match &*m.values {
        Value::Tensor(t) => vec![t.clone()],
        Value::Sequence(s) => s.iter().map(|v| v.as_tensor().cloned()).collect::<Result<_>>()?,
        v => bail!(Unsupported, "a map of {}", v.kind()),
    })
}

fn entry_strings(m: &MapValue) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for t in entries(m)? {
        all.extend(gathered(t.as_strings()?.iter().cloned())?);
    }
    Ok(all)
}

fn entry_numbers(m: &MapValue) -> Result<Vec<f64>> {
    Ok(entries(m)?.iter().map(|t| doubles(&t.as_view())).collect::<Result<Vec<_>>>()?.concat())
}

fn is_strings(m: &MapValue) -> Result<bool> {
    Ok(entries(m)?.first().is_some_and(|t| t.dtype() == DType::String))
}

fn run_cast_map(op: &CastMap, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let m = map(&args[0])?;
    let mut order: Vec<(i64, usize)> = m.keys.to_i64s()?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
    order.sort();
    let width = op.width.unwrap_or(order.len());
    let from: Vec<Option<usize>> = match op.width {
        None => order.iter().map(|&(_, i)| Some(i)).collect(),
        Some(width) => {
            let mut row = crate::base::alloc::reserved(width)?;
            row.resize(width, None);
            for &(k, i) in &order {
                let place = usize::try_from(k).ok().and_then(|k| row.get_mut(k));
                *place.ok_or_else(|| err!(Run, "key {k} is no place in a row of {width}"))? = Some(i);
            }
            row
        }
    };
    let shape = [1, width];
    let wrong = |s: &str| err!(Run, "'{s}' is no number");
    let out = match (op.to, is_strings(m)?) {
        (DType::String, true) => {
            let v = entry_strings(m)?;
            Tensor::from_strings(
                &shape,
                gathered(from.iter().map(|f| f.map_or_else(|| "0.0".into(), |i| v[i].clone())))?,
            )?
        }
        (DType::String, false) => {
            let v = entry_numbers(m)?;
            let text = |i: usize| format!("{:.6}", v[i]);
            Tensor::from_strings(&shape, gathered(from.iter().map(|f| f.map_or_else(|| "0.0".into(), text)))?)?
        }
        (to, strings) => {
            let v: Vec<f64> = if strings {
                entry_strings(m)?.iter().map(|s| s.trim().parse().map_err(|_| wrong(s))).collect::<Result<_>>()?
            } else {
                entry_numbers(m)?
            };
            let v: Vec<f64> = gathered(from.iter().map(|f| f.map_or(0.0, |i| v[i])))?;
            match to {
                DType::I64 => Tensor::gathered(&shape, v.iter().map(|&x| x as i64))?,
                _ => Tensor::gathered(&shape, v.iter().map(|&x| x as f32))?,
            }
        }
    };
    Ok(vec![Value::Tensor(out)])
}

/// The values of a map in the order of a vocabulary (ai.onnx.ml DictVectorizer).
#[derive(Debug)]
pub struct DictVectorizer(Labels);

fn parse_dict(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(DictVectorizer(Labels::parse(cx, "int64_vocabulary", "string_vocabulary")?)))
}

impl Op for DictVectorizer {
    named!(DictVectorizer, "DictVectorizer");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let Fact::Map(_, values) = cx.fact(0) else { return Ok(vec![Fact::Unknown]) };
        let dims = vec![Dim::Known(1), Dim::of(self.0.len())];
        Ok(vec![values.dtype().map_or(Fact::Unknown, |d| Fact::tensor(d, dims))])
    }
}

fn run_dict(op: &DictVectorizer, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let m = map(&args[0])?;
    let places: Vec<Option<usize>> = match &op.0 {
        Labels::Ints(v) => {
            let keys: HashMap<i64, usize> = m.keys.to_i64s()?.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
            v.iter().map(|k| keys.get(k).copied()).collect()
        }
        Labels::Strings(v) => {
            let keys: HashMap<&String, usize> = m.keys.as_strings()?.iter().enumerate().map(|(i, k)| (k, i)).collect();
            v.iter().map(|k| keys.get(k).copied()).collect()
        }
    };
    let shape = [1, places.len()];
    if is_strings(m)? {
        let v = entry_strings(m)?;
        let row = places.iter().map(|p| p.map_or_else(String::new, |i| v[i].clone())).collect();
        return Ok(vec![Value::Tensor(Tensor::from_strings(&shape, row)?)]);
    }
    let dtype = entries(m)?.first().map_or(DType::F32, Tensor::dtype);
    let v = entry_numbers(m)?;
    let row: Vec<f64> = places.iter().map(|p| p.map_or(0.0, |i| v[i])).collect();
    Ok(vec![Value::Tensor(numbers(dtype, &shape, &row)?)])
}

fn numbers(dtype: DType, shape: &[usize], v: &[f64]) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::gathered(shape, v.iter().map(|&x| x as f32)),
        DType::F64 => Tensor::from_slice(shape, v),
        DType::I64 => Tensor::gathered(shape, v.iter().map(|&x| x as i64)),
        DType::I32 => Tensor::gathered(shape, v.iter().map(|&x| x as i32)),
        d => bail!(Unsupported, "features of {d}"),
    }
}

/// Tables of features side by side, each cut or filled up with zeros to a width (ai.onnx.ml FeatureVectorizer).
#[derive(Debug)]
pub struct FeatureVectorizer(Vec<usize>);

fn parse_features(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let n = cx.inputs.len();
    cx.expect_inputs(1, n.max(1))?;
    let widths = cx.ints_opt("inputdimensions")?.unwrap_or_default();
    ensure!(widths.len() == n, InvalidModel, "{} widths for {n} inputs", widths.len());
    let widths = widths.iter().map(|&w| usize::try_from(w).map_err(|_| err!(InvalidModel, "a width of {w}")));
    Ok(Arc::new(FeatureVectorizer(widths.collect::<Result<_>>()?)))
}

impl Op for FeatureVectorizer {
    named!(FeatureVectorizer, "FeatureVectorizer");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let rows = cx.tensor(0)?.dims.as_ref().and_then(|d| d.first().cloned()).unwrap_or_default();
        let width = self.0.iter().try_fold(0usize, |a, &w| a.checked_add(w));
        let width = width.ok_or_else(|| err!(InvalidModel, "widths {:?}", self.0))?;
        Ok(vec![Fact::tensor(DType::F32, vec![rows, Dim::of(width)])])
    }
}

fn run_features(op: &FeatureVectorizer, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    // A list is a column.
    let size = |t: &TensorView<'_>| match t.shape() {
        [n] => Ok((*n, 1)),
        s => rows(s),
    };
    let tables = args.iter().map(|a| Ok((size(a.tensor()?)?, doubles(a.tensor()?)?))).collect::<Result<Vec<_>>>()?;
    let Some(((n, _), _)) = tables.first() else { bail!(InvalidModel, "no features") };
    let width: usize = op.0.iter().sum();
    let mut out = crate::base::alloc::reserved(product(&[*n, width])?)?;
    for i in 0..*n {
        for (((m, c), x), &w) in tables.iter().zip(&op.0) {
            ensure!(m == n, Run, "tables of {n} and of {m} rows");
            let row = &x[i * c..][..*c];
            out.extend((0..w).map(|k| row.get(k).map_or(0.0, |&x| x as f32)));
        }
    }
    Ok(vec![Value::Tensor(Tensor::from_slice(&[*n, width], &out)?)])
}

/// Another value in place of one that stands for what is missing (ai.onnx.ml Imputer).
#[derive(Debug)]
pub struct Imputer {
    /// One, or one a feature.
    values: Vec<f64>,
    missing: f64,
    ints: bool,
}

fn parse_imputer(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let floats = cx.floats_opt("imputed_value_floats")?.unwrap_or_default();
    let ints = cx.ints_opt("imputed_value_int64s")?.unwrap_or_default();
    ensure!(floats.is_empty() != ints.is_empty(), InvalidModel, "one list of values is needed");
    Ok(Arc::new(if floats.is_empty() {
        let missing = cx.int_or("replaced_value_int64", 0)? as f64;
        Imputer { values: ints.iter().map(|&x| x as f64).collect(), missing, ints: true }
    } else {
        let missing = f64::from(cx.float_or("replaced_value_float", 0.0)?);
        Imputer { values: floats.iter().map(|&x| f64::from(x)).collect(), missing, ints: false }
    }))
}

impl Op for Imputer {
    named!(Imputer, "Imputer");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let d = cx.dtype(0)?;
        ensure!(d.is_int() == self.ints, InvalidModel, "values of another kind than {d}");
        Ok(vec![cx.like(0, d)?])
    }
}

fn run_imputer(op: &Imputer, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let (_, c) = rows(t.shape())?;
    ensure!(op.values.len() == 1 || op.values.len() == c, Run, "{} values for {c} features", op.values.len());
    let mut x = doubles(t)?;
    for (i, v) in x.iter_mut().enumerate() {
        if *v == op.missing || v.is_nan() && op.missing.is_nan() {
            *v = op.values[if op.values.len() == 1 { 0 } else { i % c }];
        }
    }
    Ok(vec![Value::Tensor(numbers(t.dtype(), t.shape(), &x)?)])
}

/// A one where the category is, a new last axis (ai.onnx.ml OneHotEncoder).
#[derive(Debug)]
pub struct OneHotEncoder {
    categories: Labels,
    /// What is in no category is all zeros, not an error.
    zeros: bool,
}

fn parse_one_hot(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let categories = Labels::parse(cx, "cats_int64s", "cats_strings")?;
    Ok(Arc::new(OneHotEncoder { categories, zeros: cx.flag("zeros", true)? }))
}

impl Op for OneHotEncoder {
    named!(OneHotEncoder, "OneHotEncoder");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        ensure!(
            (x.dtype == DType::String) == (self.categories.dtype() == DType::String),
            InvalidModel,
            "categories of another kind than {}",
            x.dtype
        );
        let Some(mut dims) = x.dims.clone() else { return Ok(vec![Fact::any_tensor(DType::F32)]) };
        dims.push(Dim::of(self.categories.len()));
        Ok(vec![Fact::tensor(DType::F32, dims)])
    }
}

fn run_one_hot(op: &OneHotEncoder, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let t = args[0].tensor()?;
    let width = op.categories.len();
    let mut shape = t.shape().to_vec();
    shape.push(width);
    let all: Vec<usize> = (0..width).collect();
    let keys = label_keys(&op.categories.pick(&all)?.as_view())?;
    // Floats are looked up by their whole part.
    let own = match t.dtype() {
        DType::F32 | DType::F64 => {
            let v: Vec<i64> = gathered(doubles(t)?.iter().map(|&x| x as i64))?;
            label_keys(&Tensor::from_slice(&[v.len()], &v)?.as_view())?
        }
        _ => label_keys(t)?,
    };
    let places: HashMap<Vec<u8>, usize> = keys.into_iter().enumerate().map(|(i, k)| (k, i)).collect();
    let mut out = Tensor::zeroed(DType::F32, &shape)?;
    let rows = out.as_mut_slice::<f32>()?;
    for (i, k) in own.iter().enumerate() {
        match places.get(k) {
            Some(&p) => rows[i * width + p] = 1.0,
            None => ensure!(op.zeros, Run, "element {i} is in no category"),
        }
    }
    Ok(vec![Value::Tensor(out)])
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<Mapper>(run_mapper);
    b.eager::<CastMap>(run_cast_map);
    b.eager::<DictVectorizer>(run_dict);
    b.eager::<FeatureVectorizer>(run_features);
    b.eager::<Imputer>(run_imputer);
    b.eager::<OneHotEncoder>(run_one_hot);
}
