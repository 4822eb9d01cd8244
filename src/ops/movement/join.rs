//! Concat and Split.

use super::{Bind, Moves, around, known_ints};
use crate::backend::cpu::CpuBindings;
use crate::backend::{FnStep, Layout, NodeLayouts, NodeView, Operand};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Region, Spelling, TensorFact};
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::dense_strides;
use crate::ops::cast::Cast;
use crate::ops::types::need_size;
use crate::tensor::{DType, Dims, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Concat", versions: &[1, 4, 11, 13], parse: parse_concat },
    OpDef { domain: "", name: "Split", versions: &[1, 2, 11, 13, 18], parse: parse_split },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    Concat::register(b);
    Split::register(b);
    b.layouts::<Concat>(|op, node, _| op.layouts(node));
    b.layouts::<Split>(|op, node, _| op.layouts(node));
}

/// The inputs one after another along an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// The axis; negative counts from the end.
    pub axis: i64,
}

fn parse_concat(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, usize::MAX)?;
    let axis = if cx.version < 4 { cx.int_or("axis", 1)? } else { cx.int("axis")? };
    Ok(Arc::new(Concat { axis }))
}

impl Op for Concat {
    fn name(&self) -> &'static str {
        "Concat"
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        Some(Spelling::since(4, version, "Concat")?.int("axis", self.axis))
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let mut parts: Vec<&TensorFact> = Vec::with_capacity(cx.inputs.len());
        for i in 0..cx.inputs.len() {
            cx.expect_same_dtype(0, i)?;
            parts.push(cx.tensor(i)?);
        }
        let Some(rank) = parts.iter().find_map(|t| t.rank()) else { return Ok(vec![Fact::any_tensor(dtype)]) };
        let axis = resolve_axis(self.axis, rank)?;
        let mut dims = vec![Dim::Unknown; rank];
        dims[axis] = Dim::Known(0);
        for t in &parts {
            let Some(d) = &t.dims else {
                dims[axis] = Dim::Unknown;
                continue;
            };
            ensure!(d.len() == rank, InvalidModel, "ranks {rank} and {} cannot be joined", d.len());
            for (i, (have, new)) in dims.iter_mut().zip(d).enumerate() {
                if i == axis {
                    *have = have.clone() + new.clone();
                } else if let (Some(a), Some(b)) = (have.known(), new.known()) {
                    ensure!(a == b, InvalidModel, "sizes {a} and {b} of axis {i} cannot be joined along axis {axis}");
                } else if have.known().is_none() && *new != Dim::Unknown {
                    *have = new.clone();
                }
            }
        }
        let mut f = TensorFact::new(dtype, dims);
        f.contents = joined(&parts, rank);
        Ok(vec![Fact::Tensor(f)])
    }
    fn alias(&self) -> Alias {
        Alias::Joined
    }
    fn part(&self, k: usize, inputs: &[&Fact], _: &[Fact]) -> Option<Region> {
        along(self.axis, k, inputs.iter().map(|f| f.shape()))
    }
}

/// Part `k` of those that follow each other along an axis.
fn along(axis: i64, k: usize, mut parts: impl Iterator<Item = Option<Dims>>) -> Option<Region> {
    let mut at = 0;
    for _ in 0..k {
        let size = parts.next()??;
        at += size[resolve_axis(axis, size.len()).ok()?];
    }
    let size = parts.next()??;
    let mut start = Dims::from_elem(0, size.len());
    start[resolve_axis(axis, size.len()).ok()?] = at;
    Some(Region { start, size })
}

/// Lists of sizes, joined.
fn joined(parts: &[&TensorFact], rank: usize) -> Contents {
    if rank != 1 || !parts.iter().any(|t| matches!(t.contents, Contents::Dims(_))) {
        return Contents::Unknown;
    }
    let mut all = Vec::new();
    for t in parts {
        match (t.int_dims(), t.count().size()) {
            (Some(d), _) => all.extend(d),
            (None, Some(n)) if n <= 64 => all.extend(vec![Dim::Unknown; n]),
            _ => return Contents::Unknown,
        }
    }
    if all.len() > crate::ir::fact::MAX_CONTENTS { Contents::Unknown } else { Contents::Dims(all) }
}

/// The axes of the memory behind an operand.
fn physical(o: &Operand) -> Dims {
    let mut dims = o.shape.clone();
    if let Layout::Blocked(c) = o.layout {
        dims[1] = dims[1].div_ceil(c);
        dims.push(c);
    }
    dims
}

/// The blocked layout, if the parts of a whole can be found in it block by block.
fn blocked_parts(axis: usize, whole: &Operand, parts: &[Option<Operand>], block: usize) -> bool {
    let f32 = whole.dtype == DType::F32 && whole.shape.len() >= 2;
    let last = parts.len().saturating_sub(1);
    let whole_blocks =
        |(i, o): (usize, &Option<Operand>)| o.as_ref().is_some_and(|o| i == last || o.shape[1] % block == 0);
    f32 && (axis != 1 || parts.iter().enumerate().all(whole_blocks))
}

impl Concat {
    fn layouts(&self, node: &NodeView<'_>) -> NodeLayouts {
        let (Ok(out), Some(Some(first))) = (node.output(0), node.inputs.first()) else { return NodeLayouts::dense() };
        let (Layout::Blocked(c), Ok(axis)) = (first.layout, resolve_axis(self.axis, out.shape.len())) else {
            return NodeLayouts::dense();
        };
        // More reorders are saved than made where at least half of the elements come blocked.
        let here: usize = node.inputs.iter().flatten().filter(|o| o.layout == first.layout).map(Operand::len).sum();
        if here * 2 < out.len() || !blocked_parts(axis, out, node.inputs, c) {
            return NodeLayouts::dense();
        }
        let layout = |_: &Option<Operand>| Layout::Blocked(c);
        NodeLayouts {
            inputs: node.inputs.iter().map(layout).collect(),
            outputs: std::iter::once(first.layout).collect(),
        }
    }
}

impl Moves for Concat {
    const BIND: Bind<Self> = |op, cx| {
        let out = cx.output(0)?;
        let size = need_size(out.dtype, "Concat")?;
        let axis = resolve_axis(op.axis, out.shape.len())?;
        let whole = physical(out);
        let to = dense_strides(&whole);
        let mut parts: Vec<(usize, StridedCopy, usize)> = Vec::with_capacity(cx.inputs.len());
        let (mut tasks, mut at) = (0, 0);
        for i in 0..cx.inputs.len() {
            let shape = physical(cx.input(i)?);
            let copy = StridedCopy::new(cx.isa, size, &shape, &dense_strides(&shape), &to)?;
            let offset = at * around(&whole, axis).2 * size;
            at += shape[axis];
            if copy.tasks() > 0 {
                parts.push((i, copy, offset));
                tasks += parts.last().map_or(0, |p| p.1.tasks());
            }
        }
        ensure!(at == whole[axis], Internal, "Concat: {at} of {} places are filled", whole[axis]);
        Ok(FnStep::boxed("concat", tasks, 0, move |args, task, _| {
            let mut task = task;
            for (i, copy, offset) in &parts {
                if task < copy.tasks() {
                    let (from, to) = (args.input::<u8>(*i), args.output::<u8>(0).wrapping_add(*offset));
                    // The plan lets an input be made where it belongs.
                    if from != to {
                        // SAFETY: the copies were made from the operands' shapes and fill disjoint parts of the output.
                        unsafe { copy.run(task, from, to) };
                    }
                    break;
                }
                task -= copy.tasks();
            }
            Ok(())
        }))
    };
}

/// Input 0 cut along an axis: in the lengths of input 1, or in equal parts of which the last may be shorter.
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// The axis; negative counts from the end.
    pub axis: i64,
    /// How many parts, where the model says so.
    pub parts: Option<usize>,
}

fn parse_split(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 13
        && let Some(lengths) = cx.ints_opt("split")?
    {
        cx.expect_inputs(1, 1)?;
        cx.set_constant_input(1, Tensor::from_slice(&[lengths.len()], &lengths)?);
    }
    cx.expect_inputs(1, 2)?;
    if cx.version < 2
        && let Some(lengths) = cx.inputs.get(1).copied().flatten()
    {
        // Then the lengths had the type of what is split.
        let whole = cx.emit(Arc::new(Cast::new(DType::I64)), vec![Some(lengths)])?;
        cx.inputs[1] = Some(whole);
    }
    let parts = match cx.int_opt("num_outputs")? {
        None => None,
        Some(n) => {
            const MOST: usize = 1 << 16;
            let parts = usize::try_from(n).ok().filter(|&n| (1..=MOST).contains(&n) && n >= cx.outputs.len());
            ensure!(parts.is_some(), InvalidModel, "num_outputs is {n}, for {} outputs", cx.outputs.len());
            parts
        }
    };
    Ok(Arc::new(Split { axis: cx.int_or("axis", 0)?, parts }))
}

impl Split {
    /// The lengths of the parts of an axis of length `n`.
    pub(super) fn lengths(&self, n: usize, given: Option<&[i64]>, outputs: usize) -> Result<Vec<usize>> {
        match given {
            Some(v) => {
                let sizes: Option<Vec<usize>> = v.iter().map(|&x| usize::try_from(x).ok()).collect();
                match sizes {
                    Some(s) if s.iter().try_fold(0usize, |a, &b| a.checked_add(b)) == Some(n) => Ok(s),
                    _ => bail!(InvalidModel, "parts {v:?} do not make up an axis of length {n}"),
                }
            }
            None => {
                let parts = self.parts.unwrap_or(outputs).max(1);
                let each = n.div_ceil(parts);
                Ok((0..parts).map(|i| each.min(n.saturating_sub(i * each))).collect())
            }
        }
    }
    fn layouts(&self, node: &NodeView<'_>) -> NodeLayouts {
        let Some(Some(x)) = node.inputs.first() else { return NodeLayouts::dense() };
        let (Layout::Blocked(c), Ok(axis)) = (x.layout, resolve_axis(self.axis, x.shape.len())) else {
            return NodeLayouts::dense();
        };
        if !blocked_parts(axis, x, node.outputs, c) {
            return NodeLayouts::dense();
        }
        let outputs = node.outputs.iter().map(|_| Layout::Blocked(c)).collect();
        NodeLayouts { inputs: std::iter::once(x.layout).collect(), outputs }
    }
}

impl Op for Split {
    fn name(&self) -> &'static str {
        "Split"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let n = self.parts.unwrap_or(cx.outputs).max(cx.outputs);
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype); n]) };
        let axis = resolve_axis(self.axis, d.len())?;
        let lengths: Vec<Dim> = match (cx.has(1).then(|| cx.list(1)).transpose()?, d[axis].size()) {
            (None, Some(size)) => self.lengths(size, None, n)?.into_iter().map(Dim::of).collect(),
            (Some(given), size) => match (given.ints(), size) {
                (Some(v), Some(size)) => self.lengths(size, Some(&v), n)?.into_iter().map(Dim::of).collect(),
                (Some(v), None) => v.into_iter().map(Dim::Known).collect(),
                _ => vec![Dim::Unknown; n],
            },
            (None, None) if n == 1 => vec![d[axis].clone()],
            (None, None) => vec![Dim::Unknown; n],
        };
        ensure!(lengths.len() >= cx.outputs, InvalidModel, "{} parts for {} outputs", lengths.len(), cx.outputs);
        let mut at = 0;
        let facts = lengths.into_iter().map(|l| {
            let mut dims = d.clone();
            dims[axis] = l.clone();
            let mut f = TensorFact::new(x.dtype, dims);
            if let (Contents::Dims(all), Some(len), 1) = (&x.contents, l.size(), d.len()) {
                if let Some(part) = all.get(at..at + len) {
                    f.contents = Contents::Dims(part.to_vec());
                }
                at += len;
            }
            Fact::Tensor(f)
        });
        Ok(facts.collect())
    }
    fn alias(&self) -> Alias {
        Alias::Parts
    }
    fn part(&self, k: usize, _: &[&Fact], outputs: &[Fact]) -> Option<Region> {
        along(self.axis, k, outputs.iter().map(Fact::shape))
    }
}

impl Moves for Split {
    const BIND: Bind<Self> = |op, cx| {
        let x = cx.input(0)?;
        let size = need_size(x.dtype, "Split")?;
        let axis = resolve_axis(op.axis, x.shape.len())?;
        let given = if cx.opt_input(1).is_some() { Some(known_ints(cx, 1)?) } else { None };
        let lengths = op.lengths(x.shape[axis], given.as_deref(), cx.outputs.len())?;
        let whole = physical(x);
        let from = dense_strides(&whole);
        let mut parts: Vec<(usize, StridedCopy, usize)> = Vec::with_capacity(cx.outputs.len());
        let (mut tasks, mut at) = (0, 0);
        for (i, o) in cx.outputs.iter().enumerate() {
            let mut len = lengths.get(i).copied().unwrap_or(0);
            if let Some(o) = o {
                ensure!(o.shape[axis] == len, Internal, "Split: output {i} has another length");
                let shape = physical(o);
                let copy = StridedCopy::new(cx.isa, size, &shape, &from, &dense_strides(&shape))?;
                if copy.tasks() > 0 {
                    tasks += copy.tasks();
                    parts.push((i, copy, at * around(&whole, axis).2 * size));
                }
                len = shape[axis];
            }
            at += len;
        }
        Ok(FnStep::boxed("split", tasks, 0, move |args, task, _| {
            let mut task = task;
            for (i, copy, offset) in &parts {
                if task < copy.tasks() {
                    // SAFETY: the copies were made from the operands' shapes, the offsets lie within the input.
                    unsafe { copy.run(task, args.input::<u8>(0).add(*offset), args.output(*i)) };
                    break;
                }
                task -= copy.tasks();
            }
            Ok(())
        }))
    };
}
