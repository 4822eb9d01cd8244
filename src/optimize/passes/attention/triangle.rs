//! Triangles: masks that let a row see the keys up to its own place, told from how they are computed, whatever the sizes are
//! at run time. Exporters write them with Trilu, with comparisons of ranges, or cut them from a constant.
//!
//! A value is followed as a function of two axes, counted from the last.

use crate::ir::{Dim, ValueId};
use crate::kernels::pointwise::UnaryOp;
use crate::ops::cast::Cast;
use crate::ops::movement::{ConstantOfShape, Expand, Range, Slice, Transpose, Trilu};
use crate::ops::pointwise::{BinaryFn, Variadic, VariadicFn, Where};
use crate::ops::shape::{Identity, Reshape, Squeeze, Unsqueeze};
use crate::optimize::PassCtx;
use crate::optimize::pattern::{binary, is_op};
use crate::tensor::{DType, Tensor};

/// What a value is made of.
#[derive(Clone, Debug)]
enum Form {
    /// The same number everywhere.
    Number(f64),
    /// The same size everywhere.
    Size(Dim),
    /// The place along an axis, counted from a number.
    Place { axis: usize, from: Dim },
    /// One number where the place along `key` is at most that along `row` plus `at`, another elsewhere.
    Halves { key: usize, row: usize, at: Dim, near: f64, far: f64 },
}

use Form::{Halves, Number, Place, Size};

/// Nodes followed at most.
const STEPS: usize = 64;

/// The two numbers of a triangle: at keys up to a row's own place plus `past`, and beyond.
pub fn halves(cx: &PassCtx<'_, '_>, v: ValueId, past: &Dim) -> Option<(f64, f64)> {
    let mut left = STEPS;
    let (at, near, far) = match form(cx, v, &mut left)? {
        Halves { key: 0, row: 1, at, near, far } => (at, near, far),
        // The same said the other way round.
        Halves { key: 1, row: 0, at, near, far } => (Dim::Known(-1) - at, far, near),
        _ => return None,
    };
    at.same(past).then_some((near, far))
}

/// The number that a value is everywhere.
pub fn number(cx: &PassCtx<'_, '_>, v: ValueId) -> Option<f64> {
    match form(cx, v, &mut { STEPS })? {
        Number(x) => Some(x),
        _ => None,
    }
}

/// Whether a value has ones and zeros alone.
pub fn is_flags(cx: &PassCtx<'_, '_>, v: ValueId) -> bool {
    let flag = |x: f64| x == 0.0 || x == 1.0;
    match form(cx, v, &mut { STEPS }) {
        Some(Number(x)) => flag(x),
        Some(Halves { near, far, .. }) => flag(near) && flag(far),
        _ => false,
    }
}

/// The number that `rest` has where the triangle `flags` has 0, if it has 0 where that has 1.
pub fn complement(cx: &PassCtx<'_, '_>, flags: ValueId, rest: ValueId) -> Option<f64> {
    let forms = [form(cx, flags, &mut { STEPS })?, form(cx, rest, &mut { STEPS })?];
    let [Halves { key, row, at, near, far }, Halves { key: k, row: r, at: a, near: n, far: f }] = forms else {
        return None;
    };
    let fill = if near == 1.0 { f } else { n };
    let opposite = [(near, n), (far, f)].iter().all(|&(one, other)| (one == 1.0) == (other == 0.0));
    (key == k && row == r && at.same(&a) && opposite).then_some(fill)
}

fn form(cx: &PassCtx<'_, '_>, v: ValueId, left: &mut usize) -> Option<Form> {
    *left = left.checked_sub(1)?;
    if let Some(t) = cx.graph().fact(v).constant() {
        return constant(t);
    }
    if cx.dims(v)?.iter().all(|d| d.known() == Some(1))
        && let Some([d]) = cx.graph().fact(v).as_tensor()?.int_dims().as_deref()
    {
        return Some(d.known().map_or_else(|| Size(d.clone()), |n| Number(n as f64)));
    }
    let (_, node) = cx.made_by(v)?;
    let at = |i: usize| node.inputs.get(i).copied().flatten();
    let op = &*node.op;
    let x = at(0)?;
    let list = |i: usize| cx.graph().fact(at(i)?).as_tensor()?.int_dims();
    if op.is::<Identity>() || op.is::<Expand>() {
        return form(cx, x, left);
    }
    if op.is::<Reshape>() || op.is::<Squeeze>() || op.is::<Unsqueeze>() {
        let f = form(cx, x, left)?;
        return moved(f, |axis| regrouped(cx.dims(x)?, cx.dims(v)?, axis));
    }
    if let Some(c) = op.downcast::<Cast>() {
        let to = c.to.or(cx.dtype(v))?;
        return form(cx, x, left).and_then(|f| converted(f, to));
    }
    if let Some(c) = op.downcast::<ConstantOfShape>() {
        return constant(&c.value);
    }
    if op.is::<Range>() {
        let (start, step) = (list(0)?, list(2)?);
        return match (&start[..], &step[..]) {
            ([from], [step]) if step.known() == Some(1) => Some(Place { axis: 0, from: from.clone() }),
            _ => None,
        };
    }
    if let Some(t) = op.downcast::<Transpose>() {
        let rank = cx.dims(x)?.len();
        let f = form(cx, x, left)?;
        let perm = t.perm.clone().unwrap_or_else(|| (0..rank).rev().collect());
        return moved(f, |axis| {
            let from = rank.checked_sub(axis + 1)?;
            Some(rank - 1 - perm.iter().position(|&p| p == from)?)
        });
    }
    if op.is::<Slice>() {
        let steps = at(4).map_or(Some(true), |_| Some(list(4)?.iter().all(|s| s.known() == Some(1))))?;
        let (starts, rank) = (list(1)?, cx.dims(x)?.len() as i64);
        let axes = at(3).map_or_else(|| Some((0..starts.len() as i64).map(Dim::Known).collect()), |_| list(3))?;
        let mut f = form(cx, x, left).filter(|_| steps)?;
        for (axis, start) in axes.iter().zip(&starts) {
            let axis = axis.known().map(|a| if a < 0 { a + rank } else { a })?;
            f = from_on(f, usize::try_from(rank - 1 - axis).ok()?, start)?;
        }
        return Some(f);
    }
    if let Some(t) = op.downcast::<Trilu>() {
        let k = at(1).map_or(Some(Dim::Known(0)), |_| list(1)?.into_iter().next())?;
        let Number(c) = form(cx, x, left)? else { return None };
        return Some(match t.upper {
            false => Halves { key: 0, row: 1, at: k, near: c, far: 0.0 },
            true => Halves { key: 0, row: 1, at: k - Dim::Known(1), near: 0.0, far: c },
        });
    }
    if op.is::<Where>() {
        let (c, a, b) = (form(cx, x, left)?, form(cx, at(1)?, left)?, form(cx, at(2)?, left)?);
        return together([c, a, b], |[c, a, b]| if c != 0.0 { a } else { b });
    }
    if is_op(op, UnaryOp::Not) || is_op(op, UnaryOp::Neg) {
        let not = is_op(op, UnaryOp::Not);
        let f = form(cx, x, left)?;
        return together([f], |[x]| if not { f64::from(x == 0.0) } else { -x });
    }
    let f = match (binary(op), op.downcast::<Variadic>().map(|o| o.f)) {
        (Some(f), _) => f,
        (None, Some(VariadicFn::Max)) if node.inputs.len() == 2 => BinaryFn::Max,
        (None, Some(VariadicFn::Min)) if node.inputs.len() == 2 => BinaryFn::Min,
        _ => return None,
    };
    let (a, b) = (form(cx, x, left)?, form(cx, at(1)?, left)?);
    combined(f, a, b)
}

/// A constant that is one number, counts up along one axis, or is a triangle.
fn constant(t: &Tensor) -> Option<Form> {
    let n = t.len();
    let get = numbers(t)?;
    let first = get(0).filter(|_| n > 0)?;
    let long: Vec<usize> = (0..t.shape().len()).filter(|&i| t.shape()[i] > 1).collect();
    let behind = |axis: usize| t.shape().len() - 1 - axis;
    match long[..] {
        [] => Some(Number(first)),
        _ if n > 1 << 24 => None,
        _ if (1..n).all(|i| get(i) == Some(first)) => Some(Number(first)),
        [axis] if first.fract() == 0.0 && (0..n).all(|i| get(i) == Some(first + i as f64)) => {
            Some(Place { axis: behind(axis), from: Dim::Known(first as i64) })
        }
        // The first row tells the diagonal, the corners the numbers.
        [row, key] if key == row + 1 => {
            let width = t.shape()[key];
            let (near, far) = (get(n - width)?, get(width - 1)?);
            let at = (0..width).take_while(|&j| get(j) == Some(near)).count() as i64 - 1;
            let on = |i: usize| (i % width) as i64 <= (i / width) as i64 + at;
            let all = near != far && at >= 0 && (0..n).all(|i| get(i) == Some(if on(i) { near } else { far }));
            all.then_some(Halves { key: behind(key), row: behind(row), at: Dim::Known(at), near, far })
        }
        _ => None,
    }
}

/// The elements of a tensor as numbers.
fn numbers(t: &Tensor) -> Option<Box<dyn Fn(usize) -> Option<f64> + '_>> {
    Some(match t.dtype() {
        DType::F32 => {
            let s = t.as_slice::<f32>().ok()?;
            Box::new(move |i| s.get(i).map(|&x| f64::from(x)))
        }
        DType::F16 => {
            let s = t.as_slice::<half::f16>().ok()?;
            Box::new(move |i| s.get(i).map(|x| x.to_f64()))
        }
        DType::I64 => {
            let s = t.as_slice::<i64>().ok()?;
            Box::new(move |i| s.get(i).map(|&x| x as f64))
        }
        DType::I32 => {
            let s = t.as_slice::<i32>().ok()?;
            Box::new(move |i| s.get(i).map(|&x| f64::from(x)))
        }
        DType::Bool | DType::U8 => {
            let s = t.bytes();
            Box::new(move |i| s.get(i).map(|&x| f64::from(x)))
        }
        _ => return None,
    })
}

/// The form with its axes elsewhere.
fn moved(f: Form, to: impl Fn(usize) -> Option<usize>) -> Option<Form> {
    Some(match f {
        Place { axis, from } => Place { axis: to(axis)?, from },
        Halves { key, row, at, near, far } => Halves { key: to(key)?, row: to(row)?, at, near, far },
        same => same,
    })
}

/// Where an axis, counted from the last, is after axes of 1 came and went.
fn regrouped(from: &[Dim], to: &[Dim], axis: usize) -> Option<usize> {
    let long = |dims: &[Dim]| -> Vec<usize> {
        (0..dims.len()).rev().filter(|&i| dims[i].known() != Some(1)).map(|i| dims.len() - 1 - i).collect()
    };
    let size = |dims: &[Dim], axis: usize| dims[dims.len() - 1 - axis].clone();
    let (a, b) = (long(from), long(to));
    let same = a.len() == b.len() && a.iter().zip(&b).all(|(&x, &y)| size(from, x).same(&size(to, y)));
    b.get(a.iter().position(|&x| x == axis && same)?).copied()
}

fn converted(f: Form, to: DType) -> Option<Form> {
    match (f, to) {
        (f @ (Number(_) | Halves { .. }), DType::Bool) => together([f], |[x]| f64::from(x != 0.0)),
        (_, DType::Bool | DType::String) => None,
        (f, _) => Some(f),
    }
}

/// The form from a place on along an axis.
fn from_on(f: Form, axis: usize, start: &Dim) -> Option<Form> {
    let zero = start.known() == Some(0);
    // A start that is counted from the end, or may be, tells nothing.
    let known = start.known().is_none_or(|s| s >= 0) && *start != Dim::Unknown;
    Some(match f {
        Place { axis: a, from } if a == axis && !zero => Place { axis, from: known.then(|| from + start.clone())? },
        Halves { key, row, at, near, far } if !zero && row == axis => {
            Halves { key, row, at: known.then(|| at + start.clone())?, near, far }
        }
        Halves { key, row, at, near, far } if !zero && key == axis => {
            Halves { key, row, at: known.then(|| at - start.clone())?, near, far }
        }
        same => same,
    })
}

/// One function of numbers, on both sides of the one diagonal that the operands may have.
fn together<const N: usize>(all: [Form; N], f: impl Fn([f64; N]) -> f64) -> Option<Form> {
    let mut diagonal: Option<(usize, usize, Dim)> = None;
    let mut sides = [[0.0; N]; 2];
    for (i, form) in all.into_iter().enumerate() {
        let (near, far) = match form {
            Number(x) => (x, x),
            Halves { key, row, at, near, far } => {
                match &diagonal {
                    Some((k, r, d)) => (*k == key && *r == row && d.same(&at)).then_some(())?,
                    None => diagonal = Some((key, row, at)),
                }
                (near, far)
            }
            _ => return None,
        };
        (sides[0][i], sides[1][i]) = (near, far);
    }
    let [near, far] = sides.map(f);
    if near.is_nan() || far.is_nan() {
        return None;
    }
    Some(match diagonal {
        Some((key, row, at)) => Halves { key, row, at, near, far },
        None => Number(near),
    })
}

fn combined(f: BinaryFn, a: Form, b: Form) -> Option<Form> {
    let whole = |f: &Form| match f {
        Number(x) if x.fract() == 0.0 && x.abs() < 1e15 => Some(Dim::Known(*x as i64)),
        Size(d) => Some(d.clone()),
        _ => None,
    };
    if let (Place { axis: x, from: p }, Place { axis: y, from: q }) = (&a, &b) {
        // p + i <= q + j is i <= j + (q - p).
        let at_most = |key: usize, row: usize, at: Dim, more: i64| Halves {
            key,
            row,
            at: at - Dim::Known(more),
            near: 1.0,
            far: 0.0,
        };
        (x != y).then_some(())?;
        let (up, down) = (q.clone() - p.clone(), p.clone() - q.clone());
        return match f {
            BinaryFn::LessOrEqual => Some(at_most(*x, *y, up, 0)),
            BinaryFn::Less => Some(at_most(*x, *y, up, 1)),
            BinaryFn::GreaterOrEqual => Some(at_most(*y, *x, down, 0)),
            BinaryFn::Greater => Some(at_most(*y, *x, down, 1)),
            _ => None,
        };
    }
    match (f, &a, &b, whole(&a), whole(&b)) {
        (BinaryFn::Add, Place { axis, from }, _, _, Some(k)) | (BinaryFn::Add, _, Place { axis, from }, Some(k), _) => {
            return Some(Place { axis: *axis, from: from.clone() + k });
        }
        (BinaryFn::Sub, Place { axis, from }, _, _, Some(k)) => {
            return Some(Place { axis: *axis, from: from.clone() - k });
        }
        (BinaryFn::Add, Size(_), _, Some(x), Some(y)) | (BinaryFn::Add, _, Size(_), Some(x), Some(y)) => {
            return Some(Size(x + y));
        }
        (BinaryFn::Sub, Size(_), _, Some(x), Some(y)) | (BinaryFn::Sub, _, Size(_), Some(x), Some(y)) => {
            return Some(Size(x - y));
        }
        _ => {}
    }
    let f: fn(f64, f64) -> f64 = match f {
        BinaryFn::Add => |x, y| x + y,
        BinaryFn::Sub => |x, y| x - y,
        BinaryFn::Mul => |x, y| x * y,
        BinaryFn::Div => |x, y| x / y,
        BinaryFn::Min => f64::min,
        BinaryFn::Max => f64::max,
        BinaryFn::Equal => |x, y| f64::from(x == y),
        BinaryFn::Less => |x, y| f64::from(x < y),
        BinaryFn::LessOrEqual => |x, y| f64::from(x <= y),
        BinaryFn::Greater => |x, y| f64::from(x > y),
        BinaryFn::GreaterOrEqual => |x, y| f64::from(x >= y),
        BinaryFn::And => |x, y| f64::from(x != 0.0 && y != 0.0),
        BinaryFn::Or => |x, y| f64::from(x != 0.0 || y != 0.0),
        _ => return None,
    };
    together([a, b], |[x, y]| f(x, y))
}
