//! Slice.

use super::{Bind, Moves, copy_step, known_ints, mark_axes};
use crate::backend::NodeView;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Region, TensorFact};
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::{Strides, dense_strides};
use crate::ops::types::need_size;
use crate::tensor::{Dims, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "Slice", versions: &[1, 10, 11, 13], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    Slice::register(b);
}

/// Parts of axes: inputs data, starts, ends, and optionally axes and steps. Bounds are clamped; negative ones count from
/// the end; a negative step walks backwards.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice;

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 10 {
        cx.expect_inputs(1, 1)?;
        let (starts, ends) = (cx.ints("starts")?, cx.ints("ends")?);
        let axes = cx.ints_opt("axes")?;
        cx.set_constant_input(1, Tensor::from_slice(&[starts.len()], &starts)?);
        cx.set_constant_input(2, Tensor::from_slice(&[ends.len()], &ends)?);
        if let Some(a) = axes {
            cx.set_constant_input(3, Tensor::from_slice(&[a.len()], &a)?);
        }
    }
    cx.expect_inputs(3, 5)?;
    Ok(Arc::new(Slice))
}

/// The part of an axis of length `n`: first element, step, count.
fn part(n: i64, start: i64, end: i64, step: i64) -> (i64, i64, i64) {
    let from_end = |x: i64| if x < 0 { x.saturating_add(n) } else { x };
    let (start, end) = (from_end(start), from_end(end));
    if step > 0 {
        let (s, e) = (start.clamp(0, n), end.clamp(0, n));
        (s, step, if e > s { (e - s - 1) / step + 1 } else { 0 })
    } else {
        // A start before the axis is its first element, which Python's slices leave out.
        let (s, e) = (start.max(0).min(n - 1), end.clamp(-1, n - 1));
        // The negated step fits but for i64::MIN, which takes one element at most.
        (s, step, if s > e { (s - e - 1) / step.checked_neg().unwrap_or(i64::MAX) + 1 } else { 0 })
    }
}

/// The count of a part whose bounds or axis are symbolic; step 1.
fn symbolic(n: &Dim, start: &Dim, end: &Dim) -> Dim {
    const FAR: i64 = i32::MAX as i64;
    let zero = Dim::Known(0);
    let whole_end = end.known().is_some_and(|e| e >= FAR) || end.same(n);
    match (start.known(), end.known()) {
        (Some(0), _) if whole_end => n.clone(),
        (Some(s), _) if s > 0 && whole_end => (n.clone() - Dim::Known(s)).max(&zero),
        // The last -s elements.
        (Some(s), _) if s < 0 && whole_end && s != i64::MIN => n.min(&Dim::Known(-s)),
        (Some(0), Some(e)) if e >= 0 => n.min(&Dim::Known(e)),
        (Some(0), None) if end.is_size() => end.min(n),
        (Some(0), Some(e)) => (n.clone() + Dim::Known(e)).max(&zero),
        // The last n elements.
        (None, _) if whole_end && start.clone() + n.clone() == zero => n.clone(),
        (None, _) if whole_end && (n.clone() - start.clone()).is_size() && start.is_size() => n.clone() - start.clone(),
        (None, None) if start.is_size() && end.is_size() => {
            let part = end.min(n) - start.min(n);
            if (end.clone() - start.clone()).is_size() { part } else { part.max(&zero) }
        }
        (Some(s), Some(e)) if s > 0 && e < 0 => (n.clone() + Dim::Known(e) - Dim::Known(s)).max(&zero),
        _ => Dim::Unknown,
    }
}

/// Bounds as lists of the same length, with the axes they are for.
struct Bounds {
    axes: Vec<usize>,
    starts: Vec<Dim>,
    ends: Vec<Dim>,
    steps: Vec<i64>,
}

/// `None` where axes or steps are not known yet.
fn bounds(cx: &InferCtx<'_>, rank: usize) -> Result<Option<Bounds>> {
    let list = |i: usize| -> Result<Option<Vec<Dim>>> {
        let t = cx.list(i)?;
        Ok(t.int_dims().or_else(|| super::arrange::unknown_sizes(t)))
    };
    let (Some(starts), Some(ends)) = (list(1)?, list(2)?) else { return Ok(None) };
    let n = starts.len();
    let axes = match (cx.has(3), cx.ints(3)?) {
        (false, _) => (0..n as i64).collect(),
        (true, Some(a)) => a,
        (true, None) => return Ok(None),
    };
    let steps = match (cx.has(4), cx.ints(4)?) {
        (false, _) => vec![1; n],
        (true, Some(s)) => s,
        (true, None) => return Ok(None),
    };
    ensure!(
        ends.len() == n && axes.len() == n && steps.len() == n,
        InvalidModel,
        "{n} starts, {} ends, {} axes, {} steps",
        ends.len(),
        axes.len(),
        steps.len()
    );
    ensure!(!steps.contains(&0), InvalidModel, "a step is zero");
    Ok(Some(Bounds { axes: mark_axes(&axes, rank)?, starts, ends, steps }))
}

impl Op for Slice {
    fn name(&self) -> &'static str {
        "Slice"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let mut dims = d.clone();
        let Some(b) = bounds(cx, d.len())? else {
            // Which axes are cut may be known all the same.
            let axes = cx.ints(3)?.map(|a| a.iter().map(|&a| resolve_axis(a, d.len())).collect::<Result<Vec<_>>>());
            match axes.transpose()? {
                Some(axes) => axes.into_iter().for_each(|a| dims[a] = Dim::Unknown),
                None => dims.fill(Dim::Unknown),
            }
            return Ok(vec![Fact::tensor(x.dtype, dims)]);
        };
        let mut only = None;
        for (i, &axis) in b.axes.iter().enumerate() {
            let known = (d[axis].known(), b.starts[i].known(), b.ends[i].known());
            dims[axis] = match known {
                (Some(n), Some(s), Some(e)) => {
                    let p = part(n, s, e, b.steps[i]);
                    only = Some(p);
                    Dim::Known(p.2)
                }
                _ if b.steps[i] == 1 => symbolic(&d[axis], &b.starts[i], &b.ends[i]),
                _ => Dim::Unknown,
            };
        }
        let mut f = TensorFact::new(x.dtype, dims);
        if let (Contents::Dims(list), 1) = (&x.contents, d.len()) {
            let (first, step, n) = only.unwrap_or((0, 1, if b.axes.is_empty() { list.len() as i64 } else { 0 }));
            let cut: Option<Vec<Dim>> =
                (0..n).map(|i| list.get(usize::try_from(first + i * step).ok()?).cloned()).collect();
            if let Some(cut) = cut.filter(|c| f.shape().is_some_and(|s| s[0] == c.len())) {
                f.contents = Contents::Dims(cut);
            }
        }
        Ok(vec![Fact::Tensor(f)])
    }
    fn alias(&self) -> Alias {
        Alias::Parts
    }
    fn part(&self, _: usize, inputs: &[&Fact], outputs: &[Fact]) -> Option<Region> {
        let (whole, size) = (inputs.first()?.shape()?, outputs.first()?.shape()?);
        let b = bounds(&InferCtx { inputs, outputs: 1 }, whole.len()).ok()??;
        let mut start = Dims::from_elem(0, whole.len());
        for (i, &axis) in b.axes.iter().enumerate() {
            let (first, step, n) = part(whole[axis] as i64, b.starts[i].known()?, b.ends[i].known()?, b.steps[i]);
            if n > 1 && step != 1 {
                return None;
            }
            start[axis] = usize::try_from(first).ok()?;
        }
        Some(Region { start, size })
    }
}

/// The strides of the part in its input, and the offset of its first element.
pub(super) fn start_and_strides(cx: &NodeView<'_>) -> Result<(Strides, usize)> {
    let (x, out) = (cx.input(0)?, cx.output(0)?);
    let (starts, ends) = (known_ints(cx, 1)?, known_ints(cx, 2)?);
    let n = starts.len();
    let list = |i: usize| cx.opt_input(i).map(|_| known_ints(cx, i)).transpose();
    let axes = list(3)?.unwrap_or_else(|| (0..n as i64).collect());
    let steps = list(4)?.unwrap_or_else(|| vec![1; n]);
    if ends.len() != n || axes.len() != n || steps.len() != n || steps.contains(&0) {
        bail!(InvalidModel, "the bounds of a Slice are not as many");
    }
    let mut strides: Strides = dense_strides(&x.shape);
    let mut offset = 0isize;
    for (i, axis) in mark_axes(&axes, x.shape.len())?.into_iter().enumerate() {
        let (first, step, count) = part(x.shape[axis] as i64, starts[i], ends[i], steps[i]);
        ensure!(out.shape[axis] as i64 == count, Internal, "Slice: axis {axis} has another length");
        if count > 0 {
            offset += first as isize * strides[axis];
        }
        // With one element the step does not matter, and may be too large to be multiplied.
        strides[axis] = if count > 1 { strides[axis].wrapping_mul(step as isize) } else { 0 };
    }
    let offset = usize::try_from(offset).map_err(|_| err!(Internal, "Slice begins before its input"))?;
    Ok((strides, offset))
}

impl Moves for Slice {
    const BIND: Bind<Self> = |_, cx: &CpuCtx<'_>| {
        let (x, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, "Slice")?;
        let (strides, offset) = start_and_strides(cx)?;
        let copy = StridedCopy::new(cx.isa, size, &out.shape, &strides, &dense_strides(&out.shape))?;
        copy_step("slice", copy, 0, size, offset)
    };
}

#[cfg(test)]
mod tests {
    use super::part;

    #[test]
    fn parts_are_those_of_the_standard() {
        // n, start, end, step -> count, as len(range(n)[start:end:step]) but for starts before the axis.
        let cases = [
            (10, 0, 10, 1, 10),
            (10, 2, i64::MAX, 3, 3),
            (10, -3, -1, 1, 2),
            (10, 20, 30, 1, 0),
            (10, 9, i64::MIN, -1, 10),
            (10, i64::MAX, i64::MIN, -4, 3),
            (10, -1, -11, -1, 10),
            (10, 3, 3, 1, 0),
            (0, 0, 5, 1, 0),
            (0, 0, -5, -1, 0),
            (2, -4, -4, -1, 1),
            (3, -4, 0, -1, 0),
            (5, 4, 0, i64::MIN, 1),
            (5, 0, 5, i64::MAX, 1),
        ];
        for (n, s, e, step, want) in cases {
            assert_eq!(part(n, s, e, step).2, want, "{n} {s} {e} {step}");
        }
    }
}
