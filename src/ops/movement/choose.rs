//! Results whose size depends on data: Compress, NonZero, Unique.

use super::gather::Gather;
use super::{Moves, around, strings};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx};
use crate::base::alloc::{filled, gathered};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Tensor, TensorView, Value, unpack_bits};
use crate::{bail, ensure, err};
use half::{bf16, f16};
use std::cmp::Ordering;
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Compress", versions: &[9, 11, 28], parse: parse_compress },
    OpDef { domain: "", name: "NonZero", versions: &[9, 13], parse: parse_nonzero },
    OpDef { domain: "", name: "Unique", versions: &[11, 28], parse: parse_unique },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<Compress>(compress);
    b.eager::<NonZero>(nonzero);
    b.eager::<Unique>(unique);
}

/// The slices along an axis (or the elements, flattened) where input 1 is true.
#[derive(Clone, Debug, PartialEq)]
pub struct Compress {
    /// The axis; `None` to flatten.
    pub axis: Option<i64>,
}

fn parse_compress(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Compress { axis: cx.int_opt("axis")? }))
}

impl Op for Compress {
    fn name(&self) -> &'static str {
        "Compress"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(1, &[DType::Bool])?;
        let x = cx.tensor(0)?;
        Ok(vec![match (self.axis, &x.dims) {
            (None, _) => Fact::tensor(x.dtype, vec![Dim::Unknown]),
            (Some(_), None) => Fact::any_tensor(x.dtype),
            (Some(a), Some(d)) => {
                let mut d = d.clone();
                let a = resolve_axis(a, d.len())?;
                d[a] = Dim::Unknown;
                Fact::tensor(x.dtype, d)
            }
        }])
    }
}

/// The slices of a tensor of any type that a list of indices names.
fn take(x: &Tensor, axis: usize, at: &[i64]) -> Result<Tensor> {
    let op = Gather { axis: axis as i64 };
    let at = Tensor::from_slice(&[at.len()], at)?;
    let cx = EagerCtx { pool: &crate::base::parallel::Serial, outputs: 1 };
    let out = strings::run(&op, &cx, &[Arg::Tensor(x.as_view()), Arg::Tensor(at.as_view())], Gather::BIND)?;
    match out.into_iter().next() {
        Some(Value::Tensor(t)) => Ok(t),
        _ => bail!(Internal, "Gather gave no tensor"),
    }
}

/// The tensor, as a list where no axis is named.
fn along(x: &TensorView<'_>, axis: Option<i64>) -> Result<(Tensor, usize)> {
    let t = x.to_tensor()?;
    match axis {
        Some(a) => {
            let a = resolve_axis(a, t.shape().len())?;
            Ok((t, a))
        }
        None => {
            let n = t.len();
            Ok((t.reshaped(&[n])?, 0))
        }
    }
}

fn compress(op: &Compress, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let [x, condition] = args else { bail!(InvalidModel, "Compress takes two inputs") };
    let (x, axis) = along(x.tensor()?, op.axis)?;
    let condition = condition.tensor()?.bytes();
    let n = x.shape()[axis];
    let at = gathered(condition.iter().enumerate().filter(|(_, c)| **c != 0).map(|(i, _)| i as i64))?;
    ensure!(at.last().is_none_or(|&i| (i as usize) < n), Run, "the condition is longer than an axis of length {n}");
    Ok(vec![Value::Tensor(take(&x, axis, &at)?)])
}

/// The coordinates of the elements that are not zero: a row an axis, a column an element.
#[derive(Clone, Debug, PartialEq)]
pub struct NonZero;

fn parse_nonzero(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(NonZero))
}

impl Op for NonZero {
    fn name(&self) -> &'static str {
        "NonZero"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let rank = cx.tensor(0)?.rank().map_or(Dim::Unknown, |r| Dim::of(r.max(1)));
        Ok(vec![Fact::tensor(DType::I64, vec![rank, Dim::Unknown])])
    }
}

/// Calls `f` with the place of each element that is not zero.
fn each_nonzero(x: &TensorView<'_>, mut f: impl FnMut(usize)) -> Result<()> {
    macro_rules! scan {
        ($t:ty, $zero:expr) => {
            x.as_slice::<$t>()?.iter().enumerate().filter(|(_, v)| **v != $zero).for_each(|(i, _)| f(i))
        };
    }
    match x.dtype() {
        DType::F32 => scan!(f32, 0.0),
        DType::F64 => scan!(f64, 0.0),
        DType::F16 => scan!(f16, f16::ZERO),
        DType::BF16 => scan!(bf16, bf16::ZERO),
        DType::I16 => scan!(i16, 0),
        DType::U16 => scan!(u16, 0),
        DType::I32 => scan!(i32, 0),
        DType::U32 => scan!(u32, 0),
        DType::I64 => scan!(i64, 0),
        DType::U64 => scan!(u64, 0),
        DType::String => {
            x.as_strings()?.iter().enumerate().filter(|(_, s)| !s.is_empty()).for_each(|(i, _)| f(i));
        }
        DType::C64 | DType::C128 => {
            let size = x.dtype().bits() / 8;
            // Either part; minus zero is zero.
            let zero =
                |part: &[u8]| part.iter().rev().skip(1).all(|b| *b == 0) && matches!(part.last(), Some(0 | 0x80));
            for (i, v) in x.bytes().chunks_exact(size).enumerate() {
                let (re, im) = v.split_at(size / 2);
                if !(zero(re) && zero(im)) {
                    f(i);
                }
            }
        }
        d => unpack_bits(d, x.bytes(), x.len(), |i, b| {
            let is_zero = if d.is_narrow_float() { crate::tensor::decode_narrow(d, b) == 0.0 } else { b == 0 };
            if !is_zero {
                f(i);
            }
        }),
    }
    Ok(())
}

fn nonzero(_: &NonZero, _cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let [x] = args else { bail!(InvalidModel, "NonZero takes one input") };
    let x = x.tensor()?;
    // A scalar counts as a list of one.
    let shape = if x.shape().is_empty() { &[1][..] } else { x.shape() };
    let mut count = 0;
    each_nonzero(x, |_| count += 1)?;
    let mut out = Tensor::zeroed(DType::I64, &[shape.len(), count])?;
    let rows = out.as_mut_slice::<i64>()?;
    let mut k = 0;
    each_nonzero(x, |mut i| {
        for (a, &d) in shape.iter().enumerate().rev() {
            rows[a * count + k] = (i % d) as i64;
            i /= d;
        }
        k += 1;
    })?;
    Ok(vec![Value::Tensor(out)])
}

/// The distinct elements (or slices along an axis), where each first stands, which of them each element is, and how often
/// each occurs.
#[derive(Clone, Debug, PartialEq)]
pub struct Unique {
    /// The axis; `None` to flatten.
    pub axis: Option<i64>,
    /// In ascending order, or in the order of first appearance.
    pub sorted: bool,
}

fn parse_unique(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Unique { axis: cx.int_opt("axis")?, sorted: cx.flag("sorted", true)? }))
}

impl Op for Unique {
    fn name(&self) -> &'static str {
        "Unique"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let mut n = x.count();
        let y = match (self.axis, &x.dims) {
            (None, _) => Fact::tensor(x.dtype, vec![Dim::Unknown]),
            (Some(_), None) => Fact::any_tensor(x.dtype),
            (Some(a), Some(d)) => {
                let mut d = d.clone();
                let a = resolve_axis(a, d.len())?;
                n = std::mem::take(&mut d[a]);
                Fact::tensor(x.dtype, d)
            }
        };
        let list = |n: Dim| Fact::tensor(DType::I64, vec![n]);
        Ok(vec![y, list(Dim::Unknown), list(n), list(Dim::Unknown)])
    }
}

/// Compares two elements by their places. NaN is equal to itself and the greatest.
type Compare<'a> = Box<dyn Fn(usize, usize) -> Ordering + 'a>;

fn comparison<'a>(x: &'a Tensor) -> Result<Compare<'a>> {
    macro_rules! whole {
        ($t:ty) => {{
            let s = x.as_slice::<$t>()?;
            Box::new(move |a, b| s[a].cmp(&s[b]))
        }};
    }
    macro_rules! float {
        ($t:ty) => {{
            let s = x.as_slice::<$t>()?;
            Box::new(move |a, b| {
                let (p, q) = (s[a], s[b]);
                p.partial_cmp(&q).unwrap_or_else(|| p.is_nan().cmp(&q.is_nan()))
            })
        }};
    }
    Ok(match x.dtype() {
        DType::F32 => float!(f32),
        DType::F64 => float!(f64),
        DType::F16 => float!(f16),
        DType::BF16 => float!(bf16),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::U8 => whole!(u8),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::Bool => {
            let s = x.bytes();
            Box::new(move |a, b| s[a].cmp(&s[b]))
        }
        DType::String => {
            let s = x.as_strings()?;
            Box::new(move |a, b| s[a].cmp(&s[b]))
        }
        DType::C64 => complex(gathered(x.bytes().chunks_exact(8).map(|c| (part32(&c[..4]), part32(&c[4..]))))?),
        DType::C128 => complex(gathered(x.bytes().chunks_exact(16).map(|c| (part64(&c[..8]), part64(&c[8..]))))?),
        d => bail!(Unsupported, "Unique of {d}"),
    })
}

fn part32(b: &[u8]) -> f64 {
    f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

fn part64(b: &[u8]) -> f64 {
    f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}

/// Complex numbers by their real, then their imaginary parts.
fn complex<'a>(parts: Vec<(f64, f64)>) -> Compare<'a> {
    let order = |p: f64, q: f64| p.partial_cmp(&q).unwrap_or_else(|| p.is_nan().cmp(&q.is_nan()));
    Box::new(move |a, b| order(parts[a].0, parts[b].0).then_with(|| order(parts[a].1, parts[b].1)))
}

pub(in crate::ops) fn unique(op: &Unique, cx: &EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Vec<Value>> {
    let [x] = args else { bail!(InvalidModel, "Unique takes one input") };
    let (x, axis) = along(x.tensor()?, op.axis)?;
    let (outer, n, inner) = around(x.shape(), axis);
    let compare = comparison(&x)?;
    let slices = |a: &usize, b: &usize| {
        (0..outer * inner)
            .map(|i| (i / inner * n * inner) + i % inner)
            .map(|at| compare(at + a * inner, at + b * inner))
            .find(|o| o.is_ne())
            .unwrap_or(Ordering::Equal)
    };
    let mut order = gathered(0..n)?;
    order.sort_by(|a, b| slices(a, b));
    // Groups of equals; within one the order is that of the places, since the sort is stable.
    let mut groups: Vec<(usize, usize)> = Vec::new();
    let mut group_of = filled(n, 0usize)?;
    for (k, &i) in order.iter().enumerate() {
        if k == 0 || slices(&order[k - 1], &i).is_ne() {
            groups.push((i, 0));
        }
        group_of[i] = groups.len() - 1;
        if let Some(g) = groups.last_mut() {
            g.1 += 1;
        }
    }
    let mut ranks = gathered(0..groups.len())?;
    if !op.sorted {
        ranks.sort_by_key(|&g| groups[g].0);
    }
    let mut place = filled(groups.len(), 0i64)?;
    ranks.iter().enumerate().for_each(|(k, &g)| place[g] = k as i64);
    let first = gathered(ranks.iter().map(|&g| groups[g].0 as i64))?;
    let inverse = gathered(group_of.iter().map(|&g| place[g]))?;
    let counts = gathered(ranks.iter().map(|&g| groups[g].1 as i64))?;
    let list = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map(Value::Tensor);
    let all = vec![Value::Tensor(take(&x, axis, &first)?), list(&first)?, list(&inverse)?, list(&counts)?];
    ensure!(cx.outputs <= all.len(), InvalidModel, "Unique has four outputs");
    let mut all = all;
    all.truncate(cx.outputs);
    if all.is_empty() { Err(err!(Internal, "no output is asked for")) } else { Ok(all) }
}
