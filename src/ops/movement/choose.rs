//! Results whose size depends on data: Compress, NonZero, Unique.

use super::gather::Gather;
use super::{Moves, around, strings};
use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Memory, Values};
use crate::base::alloc::refill;
use crate::base::parallel::Serial;
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Dims, Tensor, TensorView, Value, unpack_bits};
use crate::{bail, ensure, err};
use half::{bf16, f16};
use smallvec::smallvec;
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

/// The slices of a tensor of any type that a list of indices names; without an axis, of its elements as a list.
pub(in crate::ops) fn pick(
    x: &TensorView<'_>,
    axis: Option<usize>,
    at: &[i64],
    cx: &mut EagerCtx<'_>,
) -> Result<Tensor> {
    let (outer, n, inner) = along(x, axis);
    let mut shape: Dims = axis.map_or_else(|| smallvec![at.len()], |_| x.shape().into());
    shape[axis.unwrap_or(0)] = at.len();
    let Some(size) = x.dtype().size() else {
        let t = axis.map_or_else(|| x.to_tensor()?.reshaped(&[n]), |_| x.to_tensor())?;
        let op = Gather { axis: axis.unwrap_or(0) as i64 };
        let at = Tensor::from_slice(&[at.len()], at)?;
        let mut cx = EagerCtx::new(&Serial, 1, Memory::default());
        let out = strings::run(&op, &mut cx, &[Arg::Tensor(t.as_view()), Arg::Tensor(at.as_view())], Gather::BIND)?;
        return match out.into_iter().next() {
            Some(Value::Tensor(t)) => Ok(t),
            _ => bail!(Internal, "Gather gave no tensor"),
        };
    };
    let mut out = cx.tensor(x.dtype(), &shape)?;
    let mut to = out.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?;
    let (from, bytes) = (x.bytes(), inner * size);
    for o in 0..outer {
        for &i in at {
            let slice = &from[(o * n + i as usize) * bytes..][..bytes];
            // SAFETY: the output has outer * at.len() slices of so many bytes, and nobody else sees it yet.
            unsafe {
                std::ptr::copy_nonoverlapping(slice.as_ptr(), to, bytes);
                to = to.add(bytes);
            }
        }
    }
    Ok(out)
}

/// What stands before, along and behind an axis; without one the tensor is a list.
fn along(x: &TensorView<'_>, axis: Option<usize>) -> (usize, usize, usize) {
    axis.map_or((1, x.len(), 1), |a| around(x.shape(), a))
}

fn resolved(axis: Option<i64>, x: &TensorView<'_>) -> Result<Option<usize>> {
    axis.map(|a| resolve_axis(a, x.shape().len())).transpose()
}

fn compress(op: &Compress, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [x, condition] = args else { bail!(InvalidModel, "Compress takes two inputs") };
    let x = x.tensor()?;
    let (axis, condition) = (resolved(op.axis, x)?, condition.tensor()?.bytes());
    let n = along(x, axis).1;
    let mut at = cx.lists::<Vec<i64>>();
    refill(&mut at, condition.iter().enumerate().filter(|(_, c)| **c != 0).map(|(i, _)| i as i64))?;
    ensure!(at.last().is_none_or(|&i| (i as usize) < n), Run, "the condition is longer than an axis of length {n}");
    let out = pick(x, axis, &at, cx)?;
    cx.keep(at);
    Ok(smallvec![Value::Tensor(out)])
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

fn nonzero(_: &NonZero, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [x] = args else { bail!(InvalidModel, "NonZero takes one input") };
    let x = x.tensor()?;
    // A scalar counts as a list of one.
    let shape = if x.shape().is_empty() { &[1][..] } else { x.shape() };
    let mut count = 0;
    each_nonzero(x, |_| count += 1)?;
    let mut out = cx.tensor(DType::I64, &[shape.len(), count])?;
    let rows = out.as_mut_slice::<i64>()?;
    let mut k = 0;
    each_nonzero(x, |mut i| {
        for (a, &d) in shape.iter().enumerate().rev() {
            rows[a * count + k] = (i % d) as i64;
            i /= d;
        }
        k += 1;
    })?;
    Ok(smallvec![Value::Tensor(out)])
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
type Compare<'a> = &'a dyn Fn(usize, usize) -> Ordering;

/// Calls `f` with the comparison of a tensor's elements.
fn comparing(x: &TensorView<'_>, f: impl FnOnce(Compare<'_>) -> Result<()>) -> Result<()> {
    macro_rules! whole {
        ($t:ty) => {{
            let s = x.as_slice::<$t>()?;
            f(&|a, b| s[a].cmp(&s[b]))
        }};
    }
    macro_rules! float {
        ($t:ty) => {{
            let s = x.as_slice::<$t>()?;
            f(&|a, b| order(s[a], s[b]))
        }};
    }
    // Complex numbers by their real, then their imaginary parts.
    macro_rules! complex {
        ($part:expr, $half:expr) => {{
            let part = |i: usize| $part(&x.bytes()[i * $half..][..$half]);
            f(&|a, b| order(part(2 * a), part(2 * b)).then_with(|| order(part(2 * a + 1), part(2 * b + 1))))
        }};
    }
    match x.dtype() {
        DType::F32 => float!(f32),
        DType::F64 => float!(f64),
        DType::F16 => float!(f16),
        DType::BF16 => float!(bf16),
        DType::I8 => whole!(i8),
        DType::I16 => whole!(i16),
        DType::I32 => whole!(i32),
        DType::I64 => whole!(i64),
        DType::U8 | DType::Bool => f(&|a, b| x.bytes()[a].cmp(&x.bytes()[b])),
        DType::U16 => whole!(u16),
        DType::U32 => whole!(u32),
        DType::U64 => whole!(u64),
        DType::String => {
            let s = x.as_strings()?;
            f(&|a, b| s[a].cmp(&s[b]))
        }
        DType::C64 => complex!(part32, 4),
        DType::C128 => complex!(part64, 8),
        d => bail!(Unsupported, "Unique of {d}"),
    }
}

fn order<T: PartialOrd>(p: T, q: T) -> Ordering {
    // What equals not even itself is NaN.
    let is_nan = |x: &T| x.partial_cmp(x).is_none();
    p.partial_cmp(&q).unwrap_or_else(|| is_nan(&p).cmp(&is_nan(&q)))
}

fn part32(b: &[u8]) -> f32 {
    f32::from_le_bytes([b[0], b[1], b[2], b[3]])
}

fn part64(b: &[u8]) -> f64 {
    f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]])
}

/// The lists that distinct elements are found by.
#[derive(Default)]
struct Groups {
    /// Places in the order of what stands there.
    order: Vec<usize>,
    /// Groups of equals: where each first stands, and how many it has.
    groups: Vec<(usize, usize)>,
    /// By place: its group.
    group_of: Vec<usize>,
    /// Groups in the order of the output, the other way round, and where they first stand.
    ranks: Vec<usize>,
    place: Vec<i64>,
    first: Vec<i64>,
}

fn unique(op: &Unique, cx: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    ensure!((1..=4).contains(&cx.outputs), InvalidModel, "Unique has one to four outputs");
    let wanted = [0, 1, 2, 3].map(|k| k < cx.outputs);
    some_of_unique(op, wanted, cx, args)
}

/// Those outputs of the four that are wanted.
pub(in crate::ops) fn some_of_unique(
    op: &Unique,
    wanted: [bool; 4],
    cx: &mut EagerCtx<'_>,
    args: &[Arg<'_>],
) -> Result<Values> {
    let [x] = args else { bail!(InvalidModel, "Unique takes one input") };
    let x = x.tensor()?;
    let axis = resolved(op.axis, x)?;
    let (outer, n, inner) = along(x, axis);
    let mut lists = cx.lists::<Groups>();
    let Groups { order, groups, group_of, ranks, place, first } = &mut *lists;
    refill(order, 0..n)?;
    refill(group_of, std::iter::repeat_n(0, n))?;
    groups.clear();
    comparing(x, |compare| {
        let slices = |a: usize, b: usize| {
            (0..outer * inner)
                .map(|i| (i / inner * n * inner) + i % inner)
                .map(|at| compare(at + a * inner, at + b * inner))
                .find(|o| o.is_ne())
                .unwrap_or(Ordering::Equal)
        };
        order.sort_unstable_by(|&a, &b| slices(a, b).then(a.cmp(&b)));
        // Within a group of equals the order is that of the places.
        for (k, &i) in order.iter().enumerate() {
            if k == 0 || slices(order[k - 1], i).is_ne() {
                groups.try_reserve(1).map_err(|_| err!(OutOfMemory, "{} distinct elements", groups.len()))?;
                groups.push((i, 0));
            }
            group_of[i] = groups.len() - 1;
            if let Some(g) = groups.last_mut() {
                g.1 += 1;
            }
        }
        Ok(())
    })?;
    refill(ranks, 0..groups.len())?;
    if !op.sorted {
        ranks.sort_unstable_by_key(|&g| groups[g].0);
    }
    refill(place, std::iter::repeat_n(0, groups.len()))?;
    ranks.iter().enumerate().for_each(|(k, &g)| place[g] = k as i64);
    refill(first, ranks.iter().map(|&g| groups[g].0 as i64))?;
    let mut all = Values::new();
    for k in (0..4).filter(|&k| wanted[k]) {
        all.push(Value::Tensor(match k {
            0 => pick(x, axis, first, cx)?,
            1 => cx.gathered(&[first.len()], first.iter().copied())?,
            2 => cx.gathered(&[n], group_of.iter().map(|&g| place[g]))?,
            _ => cx.gathered(&[ranks.len()], ranks.iter().map(|&g| groups[g].1 as i64))?,
        }));
    }
    cx.keep(lists);
    Ok(all)
}
