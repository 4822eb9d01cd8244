//! Einsum on the CPU: operands are joined two at a time, each time as a batch of matrix products where axes are summed
//! and element by element where none is. Operands are read where they lie if their axes allow it, else copied first.

use super::contract::{Builder, Matrices, Source, Target, dense};
use super::{Einsum, Label};
use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::error::Result;
use crate::kernels::gemm::Strides;
use crate::ops::types::need_elem;
use crate::ops::widen::widened;
use std::collections::BTreeMap;

pub(super) fn cpu(b: &mut CpuBindings) {
    b.step::<Einsum>(bind);
}

type Sizes = BTreeMap<Label, usize>;

/// An operand: which axes it has, and how it lies in memory. Axes along which it is repeated are not there.
#[derive(Clone, Debug)]
struct Part {
    source: Source,
    axes: Vec<(Label, isize)>,
}

impl Part {
    fn stride(&self, l: Label) -> isize {
        self.axes.iter().find(|a| a.0 == l).map_or(0, |a| a.1)
    }
    fn has(&self, l: Label) -> bool {
        self.axes.iter().any(|a| a.0 == l)
    }
    fn strides(&self, labels: &[Label]) -> Vec<isize> {
        labels.iter().map(|&l| self.stride(l)).collect()
    }
}

fn lengths(labels: &[Label], sizes: &Sizes) -> Vec<usize> {
    labels.iter().map(|l| sizes.get(l).copied().unwrap_or(1)).collect()
}

fn count(labels: &[Label], sizes: &Sizes) -> usize {
    lengths(labels, sizes).iter().fold(1, |n: usize, &d| n.saturating_mul(d))
}

/// The axes as one, if they lie behind one another: its stride.
fn merged(part: &Part, labels: &[Label], sizes: &Sizes) -> Option<usize> {
    let (mut stride, mut next) = (None, 0isize);
    for &l in labels.iter().rev() {
        let (n, s) = (sizes.get(&l).copied().unwrap_or(1), part.stride(l));
        if n == 1 {
            continue;
        }
        match stride {
            None => stride = Some(s),
            Some(_) if s == next => {}
            Some(_) => return None,
        }
        next = s.checked_mul(n as isize)?;
    }
    usize::try_from(stride.unwrap_or(1)).ok()
}

fn bind(op: &Einsum, cx: &CpuCtx<'_>) -> Result<Box<dyn Step>> {
    if let Some(s) = widened(op, cx, bind)? {
        return Ok(s);
    }
    let mut sizes = Sizes::new();
    let mut ranks = Vec::new();
    for (i, t) in op.terms.iter().enumerate() {
        let shape = &cx.input(i)?.shape;
        ranks.push(shape.len());
        for (l, &d) in t.labels(shape.len())?.into_iter().zip(shape) {
            let s = sizes.entry(l).or_insert(1);
            if *s == 1 {
                *s = d;
            }
        }
    }
    let mut parts = Vec::new();
    for (i, t) in op.terms.iter().enumerate() {
        let shape = &cx.input(i)?.shape;
        let mut axes: Vec<(Label, isize)> = Vec::new();
        for ((l, &d), &s) in t.labels(shape.len())?.into_iter().zip(shape).zip(&dense(shape)) {
            match axes.iter_mut().find(|a| a.0 == l) {
                // A label that comes twice walks along the diagonal.
                Some(a) if d != 1 => a.1 += s,
                None if d != 1 => axes.push((l, s)),
                _ => {}
            }
        }
        parts.push(Part { source: Source::Input(i), axes });
    }
    let out = op.output_labels(op.hidden(ranks.into_iter()));
    let mut b = Builder::new(cx.isa, need_elem(cx.input(0)?.dtype, "Einsum")?);
    while parts.len() > 1 {
        let (i, j) = next_pair(&parts, &out, &sizes);
        let (y, x) = (parts.remove(j), parts.remove(i));
        let rest: Vec<Label> = parts.iter().flat_map(|p| p.axes.iter().map(|a| a.0)).collect();
        let last = parts.is_empty();
        let joined = join(&mut b, x, y, &|l| out.contains(&l) || rest.contains(&l), &out, last, &sizes)?;
        match joined {
            Some(p) => parts.push(p),
            None => return Ok(b.finish().boxed()),
        }
    }
    if let Some(p) = parts.pop() {
        gather(&mut b, &p, &out, &sizes, Target::Output)?;
    }
    Ok(b.finish().boxed())
}

/// The two operands whose product is the smallest; the first such two.
fn next_pair(parts: &[Part], out: &[Label], sizes: &Sizes) -> (usize, usize) {
    let mut best = (usize::MAX, 0, 1);
    for i in 0..parts.len() {
        for j in i + 1..parts.len() {
            let needed =
                |l: Label| out.contains(&l) || parts.iter().enumerate().any(|(k, p)| k != i && k != j && p.has(l));
            let mut labels: Vec<Label> = parts[i].axes.iter().chain(&parts[j].axes).map(|a| a.0).collect();
            labels.sort();
            labels.dedup();
            labels.retain(|&l| needed(l));
            let size = count(&labels, sizes);
            if size < best.0 {
                best = (size, i, j);
            }
        }
    }
    (best.1, best.2)
}

/// A dense copy of a part over `labels`; its other axes are summed.
fn gather(b: &mut Builder, p: &Part, labels: &[Label], sizes: &Sizes, to: Target) -> Result<()> {
    let summed: Vec<Label> = p.axes.iter().map(|a| a.0).filter(|l| !labels.contains(l)).collect();
    let all: Vec<Label> = labels.iter().chain(&summed).copied().collect();
    let marks: Vec<bool> = (0..all.len()).map(|i| i >= labels.len()).collect();
    b.copy(p.source, &lengths(&all, sizes), &p.strides(&all), &marks, to)
}

/// The same as a new part in the workspace.
fn settled(b: &mut Builder, p: &Part, labels: &[Label], sizes: &Sizes) -> Result<Part> {
    let shape = lengths(labels, sizes);
    let at = b.room(&shape)?;
    gather(b, p, labels, sizes, Target::Workspace(at))?;
    let axes = labels.iter().copied().zip(dense(&shape)).collect();
    Ok(Part { source: Source::Workspace(at), axes })
}

/// Joins two operands; `None` where the result went to the output.
fn join(
    b: &mut Builder,
    x: Part,
    y: Part,
    keep: &dyn Fn(Label) -> bool,
    out: &[Label],
    last: bool,
    sizes: &Sizes,
) -> Result<Option<Part>> {
    // What only one of them has and nobody needs is summed first.
    let own = |b: &mut Builder, p: Part, other: &Part| -> Result<Part> {
        let labels: Vec<Label> = p.axes.iter().map(|a| a.0).filter(|&l| keep(l) || other.has(l)).collect();
        if labels.len() == p.axes.len() { Ok(p) } else { settled(b, &p, &labels, sizes) }
    };
    let x = own(b, x, &y)?;
    let y = own(b, y, &x)?;
    // In the result's order where it is the result.
    let mut labels: Vec<Label> = if last { out.to_vec() } else { Vec::new() };
    for a in x.axes.iter().chain(&y.axes) {
        if !labels.contains(&a.0) {
            labels.push(a.0);
        }
    }
    let pick = |in_x: bool, in_y: bool, kept: bool| -> Vec<Label> {
        labels.iter().copied().filter(|&l| x.has(l) == in_x && y.has(l) == in_y && keep(l) == kept).collect()
    };
    let (k, batch) = (pick(true, true, false), pick(true, true, true));
    if k.is_empty() {
        let labels: Vec<Label> =
            labels.into_iter().filter(|&l| last && out.contains(&l) || x.has(l) || y.has(l)).collect();
        let shape = lengths(&labels, sizes);
        let to = if last { Target::Output } else { Target::Workspace(b.room(&shape)?) };
        let strides = dense(&shape);
        b.multiply([x.source, y.source], &shape, [&x.strides(&labels), &y.strides(&labels), &strides], to)?;
        return Ok(finished(to, &labels, &strides));
    }
    let (mut m, mut n) = (pick(true, false, true), pick(false, true, true));
    let (mut x, mut y) = (x, y);
    // The result's last axis is a column: whose it is comes second.
    if last && out.last().is_some_and(|l| m.contains(l)) {
        (x, y) = (y, x);
        (m, n) = (n, m);
    }
    let (a_strides, x) = placed(b, x, &batch, &m, &k, sizes)?;
    let (b_strides, y) = placed(b, y, &batch, &k, &n, sizes)?;
    let wide: Vec<Label> = batch.iter().copied().filter(|l| sizes.get(l).copied().unwrap_or(1) != 1).collect();
    let steps = |p: &Part| -> Vec<usize> { p.strides(&wide).iter().map(|&s| s.unsigned_abs()).collect() };
    let mut matrices = Matrices {
        batch: lengths(&wide, sizes),
        batch_a: steps(&x),
        batch_b: steps(&y),
        m: count(&m, sizes),
        n: count(&n, sizes),
        k: count(&k, sizes),
        a: a_strides,
        b: b_strides,
    };
    merge_batch(&mut matrices);
    let labels: Vec<Label> = batch.iter().chain(&m).chain(&n).copied().collect();
    let shape = lengths(&labels, sizes);
    // Axes of one element may stand anywhere.
    let long =
        |v: &[Label]| -> Vec<Label> { v.iter().copied().filter(|l| sizes.get(l).copied().unwrap_or(1) != 1).collect() };
    let direct = last && long(&labels) == long(out);
    let to = if direct { Target::Output } else { Target::Workspace(b.room(&shape)?) };
    b.product([x.source, y.source], &matrices, to)?;
    Ok(finished(to, &labels, &dense(&shape)))
}

fn finished(to: Target, labels: &[Label], strides: &[isize]) -> Option<Part> {
    match to {
        Target::Output => None,
        Target::Workspace(at) => {
            let axes = labels.iter().copied().zip(strides.iter().copied()).collect();
            Some(Part { source: Source::Workspace(at), axes })
        }
    }
}

/// An operand as a batch of matrices: where it lies if its rows and columns are one axis each there and its batch has no
/// more than four, else as a copy.
fn placed(
    b: &mut Builder,
    p: Part,
    batch: &[Label],
    rows: &[Label],
    columns: &[Label],
    sizes: &Sizes,
) -> Result<(Strides, Part)> {
    if batch.len() <= 4
        && let (Some(row), Some(col)) = (merged(&p, rows, sizes), merged(&p, columns, sizes))
    {
        return Ok((Strides { row, col }, p));
    }
    let labels: Vec<Label> = batch.iter().chain(rows).chain(columns).copied().collect();
    let p = settled(b, &p, &labels, sizes)?;
    Ok((Strides::rows_of(count(columns, sizes)), p))
}

/// Neighbouring axes of the batch become one where both operands allow it: after copies it is one axis.
fn merge_batch(m: &mut Matrices) {
    let mut i = 1;
    while i < m.batch.len() {
        let fits = |s: &[usize]| s[i].checked_mul(m.batch[i]) == Some(s[i - 1]);
        if fits(&m.batch_a) && fits(&m.batch_b) {
            let outer = m.batch.remove(i - 1);
            m.batch[i - 1] *= outer;
            m.batch_a.remove(i - 1);
            m.batch_b.remove(i - 1);
        } else {
            i += 1;
        }
    }
}
