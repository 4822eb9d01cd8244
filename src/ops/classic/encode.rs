//! What prepares features: CastMap, CategoryMapper, DictVectorizer, FeatureVectorizer, Imputer, LabelEncoder, OneHotEncoder.

use super::{Labels, ML, doubles, rows};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::base::alloc::{emptied, gathered, refill};
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::ops::case::to_f64s;
use crate::tensor::{DType, Dims, MapValue, Tensor, TensorView, Value};
use crate::{bail, ensure, err};
use smallvec::smallvec;
use std::collections::HashMap;
use std::iter::repeat_n;
use std::sync::Arc;

pub(super) const OPS: [OpDef; 6] = [
    OpDef { domain: ML, name: "CastMap", versions: &[1], parse: parse_cast_map },
    OpDef { domain: ML, name: "CategoryMapper", versions: &[1], parse: parse_mapper },
    OpDef { domain: ML, name: "DictVectorizer", versions: &[1], parse: parse_dict },
    OpDef { domain: ML, name: "FeatureVectorizer", versions: &[1], parse: parse_features },
    OpDef { domain: ML, name: "Imputer", versions: &[1], parse: parse_imputer },
    OpDef { domain: ML, name: "OneHotEncoder", versions: &[1], parse: parse_one_hot },
];

/// Looks each element up in a table (ai.onnx.ml LabelEncoder).
#[derive(Debug)]
pub struct LabelEncoder {
    keys: DType,
    /// Of each key: which value.
    places: HashMap<Vec<u8>, usize>,
    values: Tensor,
    default: Tensor,
}

impl LabelEncoder {
    fn new(keys: &Table, values: &Table, default: &Table) -> Result<LabelEncoder> {
        let (keys, values, default) = (keys.tensor()?, values.tensor()?, default.tensor()?);
        ensure!(keys.len() == values.len(), InvalidModel, "the table's sides differ in length");
        let fits = default.dtype() == values.dtype() && !default.is_empty();
        ensure!(fits || values.dtype() == DType::String, InvalidModel, "the default is {default:?}");
        Ok(LabelEncoder { keys: keys.dtype(), places: places_of(&keys.as_view())?, values, default })
    }
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

pub(super) fn parse_labels(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    if cx.version < 2 {
        return parse_labels_1(cx);
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
    Ok(Arc::new(LabelEncoder::new(&keys, &values, &default)?))
}

impl Op for LabelEncoder {
    named!(LabelEncoder, "LabelEncoder");
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.like(0, self.values.dtype())?])
    }
}

/// Calls `f` with each element's bytes, which are the same exactly where two elements are the same label: all NaNs are one.
fn each_label(t: &TensorView<'_>, mut f: impl FnMut(&[u8])) -> Result<()> {
    match t.dtype() {
        DType::String => t.as_strings()?.iter().for_each(|s| f(s.as_bytes())),
        DType::F32 => {
            let canonical = |x: f32| if x.is_nan() { f32::NAN } else { x + 0.0 };
            t.as_slice::<f32>()?.iter().for_each(|&x| f(&canonical(x).to_le_bytes()));
        }
        DType::F64 => {
            let canonical = |x: f64| if x.is_nan() { f64::NAN } else { x + 0.0 };
            t.as_slice::<f64>()?.iter().for_each(|&x| f(&canonical(x).to_le_bytes()));
        }
        DType::I64 => t.as_slice::<i64>()?.iter().for_each(|&x| f(&x.to_le_bytes())),
        DType::I32 => t.as_slice::<i32>()?.iter().for_each(|&x| f(&i64::from(x).to_le_bytes())),
        _ => t.to_i64s()?.iter().for_each(|&x| f(&x.to_le_bytes())),
    }
    Ok(())
}

/// Which of the elements each label is; of equal ones the last.
fn places_of(t: &TensorView<'_>) -> Result<HashMap<Vec<u8>, usize>> {
    let mut places = HashMap::new();
    let mut i = 0;
    each_label(t, |label| {
        places.insert(label.to_vec(), i);
        i += 1;
    })?;
    Ok(places)
}

fn run_labels(op: &LabelEncoder, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    ensure!(t.dtype() == op.keys, InvalidModel, "keys are {}, the operand is {}", op.keys, t.dtype());
    let mut places = cx.lists::<Vec<Option<usize>>>();
    emptied(&mut places, t.len())?;
    each_label(t, |label| places.push(op.places.get(label).copied()))?;
    let all = places.iter();
    macro_rules! of {
        ($t:ty) => {{
            let (v, d) = (op.values.as_slice::<$t>()?, op.default.as_slice::<$t>()?[0]);
            cx.gathered(t.shape(), all.map(|p| p.map_or(d, |p| v[p])))?
        }};
    }
    let out = match op.values.dtype() {
        DType::String => {
            let (v, d) = (op.values.as_strings()?, op.default.as_strings()?);
            let d = d.first().cloned().unwrap_or_default();
            Tensor::from_strings(t.shape(), gathered(all.map(|p| p.map_or_else(|| d.clone(), |p| v[p].clone())))?)?
        }
        DType::I64 => of!(i64),
        DType::I32 => of!(i32),
        DType::I16 => of!(i16),
        DType::F64 => of!(f64),
        DType::F32 => of!(f32),
        d => bail!(Unsupported, "labels of {d}"),
    };
    cx.keep(places);
    Ok(smallvec![Value::Tensor(out)])
}

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
    let to_string = LabelEncoder::new(&ints, &strings, &Table::Strings(vec![no_string]))?;
    let to_int = LabelEncoder::new(&strings, &ints, &Table::Ints(vec![no_int]))?;
    Ok(Arc::new(Mapper { to_string, to_int }))
}

fn parse_mapper(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    mapper(cx, cx.ints_opt("cats_int64s")?.unwrap_or_default(), cx.strings_opt("cats_strings")?.unwrap_or_default())
}

/// LabelEncoder of version 1: a string's place in a list, and back.
fn parse_labels_1(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
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

fn run_mapper(op: &Mapper, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let to_int = args[0].tensor()?.dtype() == DType::String;
    run_labels(if to_int { &op.to_int } else { &op.to_string }, cx, args)
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
    Ok(entries(m)?.iter().map(to_f64s).collect::<Result<Vec<_>>>()?.concat())
}

fn is_strings(m: &MapValue) -> Result<bool> {
    Ok(entries(m)?.first().is_some_and(|t| t.dtype() == DType::String))
}

fn run_cast_map(op: &CastMap, _cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
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
    Ok(smallvec![Value::Tensor(out)])
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

fn run_dict(op: &DictVectorizer, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
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
        return Ok(smallvec![Value::Tensor(Tensor::from_strings(&shape, row)?)]);
    }
    let dtype = entries(m)?.first().map_or(DType::F32, Tensor::dtype);
    let v = entry_numbers(m)?;
    let row: Vec<f64> = places.iter().map(|p| p.map_or(0.0, |i| v[i])).collect();
    Ok(smallvec![Value::Tensor(numbers(dtype, &shape, &row, cx)?)])
}

fn numbers(dtype: DType, shape: &[usize], v: &[f64], cx: &mut EagerCtx<'_>) -> Result<Tensor> {
    match dtype {
        DType::F32 => cx.gathered(shape, v.iter().map(|&x| x as f32)),
        DType::F64 => cx.gathered(shape, v.iter().copied()),
        DType::I64 => cx.gathered(shape, v.iter().map(|&x| x as i64)),
        DType::I32 => cx.gathered(shape, v.iter().map(|&x| x as i32)),
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

fn run_features(op: &FeatureVectorizer, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    // A list is a column.
    let size = |t: &TensorView<'_>| match t.shape() {
        [n] => Ok((*n, 1)),
        s => rows(s),
    };
    let Some(first) = args.first() else { bail!(InvalidModel, "no features") };
    let n = size(first.tensor()?)?.0;
    let width: usize = op.0.iter().sum();
    let mut lists = cx.lists::<(Vec<f64>, Vec<f32>)>();
    let (x, row) = &mut *lists;
    refill(row, repeat_n(0.0, product(&[n, width])?))?;
    let mut from = 0;
    for (a, &w) in args.iter().zip(&op.0) {
        let t = a.tensor()?;
        let (m, c) = size(t)?;
        ensure!(m == n, Run, "tables of {n} and of {m} rows");
        doubles(t, x)?;
        for i in 0..n {
            let to = &mut row[i * width + from..][..w];
            to.iter_mut().zip(&x[i * c..][..c]).for_each(|(to, &x)| *to = x as f32);
        }
        from += w;
    }
    let y = cx.gathered(&[n, width], row.iter().copied())?;
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(y)])
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

fn run_imputer(op: &Imputer, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let (_, c) = rows(t.shape())?;
    ensure!(op.values.len() == 1 || op.values.len() == c, Run, "{} values for {c} features", op.values.len());
    let mut x = cx.lists::<Vec<f64>>();
    doubles(t, &mut x)?;
    for (i, v) in x.iter_mut().enumerate() {
        if *v == op.missing || v.is_nan() && op.missing.is_nan() {
            *v = op.values[if op.values.len() == 1 { 0 } else { i % c }];
        }
    }
    let y = numbers(t.dtype(), t.shape(), &x, cx)?;
    cx.keep(x);
    Ok(smallvec![Value::Tensor(y)])
}

/// A one where the category is, a new last axis (ai.onnx.ml OneHotEncoder).
#[derive(Debug)]
pub struct OneHotEncoder {
    categories: Labels,
    places: HashMap<Vec<u8>, usize>,
    /// What is in no category is all zeros, not an error.
    zeros: bool,
}

fn parse_one_hot(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let categories = Labels::parse(cx, "cats_int64s", "cats_strings")?;
    let places = places_of(&categories.tensor()?.as_view())?;
    Ok(Arc::new(OneHotEncoder { categories, places, zeros: cx.flag("zeros", true)? }))
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

fn run_one_hot(op: &OneHotEncoder, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let t = args[0].tensor()?;
    let width = op.categories.len();
    let mut lists = cx.lists::<(Vec<f64>, Vec<Option<usize>>)>();
    let (x, found) = &mut *lists;
    emptied(found, t.len())?;
    match t.dtype() {
        // Floats are looked up by their whole part.
        DType::F32 | DType::F64 => {
            doubles(t, x)?;
            found.extend(x.iter().map(|&x| op.places.get(&(x as i64).to_le_bytes()[..]).copied()));
        }
        _ => each_label(t, |label| found.push(op.places.get(label).copied()))?,
    }
    let unknown = found.iter().position(Option::is_none);
    ensure!(op.zeros || unknown.is_none(), Run, "element {unknown:?} is in no category");
    let mut shape: Dims = t.shape().into();
    shape.push(width);
    let row = |p: &Option<usize>| {
        let p = *p;
        (0..width).map(move |k| if p == Some(k) { 1f32 } else { 0.0 })
    };
    let y = cx.gathered(&shape, found.iter().flat_map(row))?;
    cx.keep(lists);
    Ok(smallvec![Value::Tensor(y)])
}

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<LabelEncoder>(run_labels);
    b.eager::<Mapper>(run_mapper);
    b.eager::<CastMap>(run_cast_map);
    b.eager::<DictVectorizer>(run_dict);
    b.eager::<FeatureVectorizer>(run_features);
    b.eager::<Imputer>(run_imputer);
    b.eager::<OneHotEncoder>(run_one_hot);
}
