//! Shapes and views of them: Constant, Identity, Shape, Size, Reshape, Flatten, Squeeze, Unsqueeze.

use super::Family;
use super::case::{Case, CaseInput};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::parse::Attr;
use crate::ir::{Alias, Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, TensorFact};
use crate::tensor::{DType, Tensor};
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const FAMILY: Family = Family { name: "shape", ops: OPS, cases, ..Family::EMPTY };

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Constant", versions: &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25], parse: parse_constant },
    OpDef { domain: "", name: "Identity", versions: &[1, 13, 14, 16, 19, 21, 23, 24, 25], parse: parse_identity },
    OpDef { domain: "", name: "Shape", versions: &[1, 13, 15, 19, 21, 23, 24, 25], parse: parse_shape },
    OpDef { domain: "", name: "Size", versions: &[1, 13, 19, 21, 23, 24, 25], parse: parse_size },
    OpDef { domain: "", name: "Reshape", versions: &[1, 5, 13, 14, 19, 21, 23, 24, 25], parse: parse_reshape },
    OpDef { domain: "", name: "Flatten", versions: &[1, 9, 11, 13, 21, 23, 24, 25], parse: parse_flatten },
    OpDef { domain: "", name: "Squeeze", versions: &[1, 11, 13, 21, 23, 24, 25], parse: parse_squeeze },
    OpDef { domain: "", name: "Unsqueeze", versions: &[1, 11, 13, 21, 23, 24, 25], parse: parse_unsqueeze },
];

/// The same value.
#[derive(Debug)]
pub struct Identity;

impl Op for Identity {
    fn name(&self) -> &'static str {
        "Identity"
    }
    fn alias(&self) -> Alias {
        Alias::View
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        Spelling::since(1, version, "Identity")
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.fact(0).clone()])
    }
}

fn parse_identity(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Identity))
}

/// ONNX Constant becomes a constant and an Identity of it.
fn parse_constant(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    let strings = |v: &[Vec<u8>]| v.iter().map(|s| String::from_utf8_lossy(s).into_owned()).collect::<Vec<_>>();
    let find = |names: &[&str]| names.iter().find_map(|n| cx.attr(n).cloned());
    let t = match find(&[
        "value",
        "sparse_value",
        "value_float",
        "value_floats",
        "value_int",
        "value_ints",
        "value_string",
        "value_strings",
    ]) {
        Some(Attr::Tensor(t)) => t,
        Some(Attr::Float(x)) => Tensor::scalar(x)?,
        Some(Attr::Floats(x)) => Tensor::from_slice(&[x.len()], &x)?,
        Some(Attr::Int(x)) => Tensor::scalar(x)?,
        Some(Attr::Ints(x)) => Tensor::from_slice(&[x.len()], &x)?,
        Some(Attr::String(s)) => Tensor::from_strings(&[], strings(&[s]))?,
        Some(Attr::Strings(s)) => Tensor::from_strings(&[s.len()], strings(&s))?,
        _ => bail!(InvalidModel, "a Constant without a value"),
    };
    cx.inputs.clear();
    cx.set_constant_input(0, t);
    Ok(Arc::new(Identity))
}

/// The sizes of axes `start..end` (ONNX Shape-15; earlier ones have no bounds).
#[derive(Debug)]
pub struct Shape {
    /// First axis; negative counts from the end.
    pub start: i64,
    /// After the last axis; none for all.
    pub end: Option<i64>,
}

impl Op for Shape {
    fn name(&self) -> &'static str {
        "Shape"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let Some(dims) = &cx.tensor(0)?.dims else { return Ok(vec![Fact::tensor(DType::I64, vec![Dim::Unknown])]) };
        let r = dims.len() as i64;
        let clamp = |x: i64| (if x < 0 { x.saturating_add(r) } else { x }).clamp(0, r) as usize;
        let (from, to) = (clamp(self.start), self.end.map_or(r as usize, clamp));
        let part = dims.get(from..to.max(from)).unwrap_or_default().to_vec();
        let mut f = TensorFact::sized(DType::I64, &[part.len()]);
        f.contents = Contents::Dims(part);
        Ok(vec![Fact::Tensor(f)])
    }
}

fn parse_shape(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Shape { start: cx.int_or("start", 0)?, end: cx.int_opt("end")? }))
}

/// The number of elements.
#[derive(Debug)]
pub struct Size;

impl Op for Size {
    fn name(&self) -> &'static str {
        "Size"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let mut f = TensorFact::sized(DType::I64, &[]);
        f.contents = Contents::Dims(vec![cx.tensor(0)?.count()]);
        Ok(vec![Fact::Tensor(f)])
    }
}

fn parse_size(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Size))
}

/// The same elements under the shape in input 1: -1 is worked out, 0 copies the axis unless `allow_zero`.
#[derive(Debug)]
pub struct Reshape {
    /// 0 means zero elements.
    pub allow_zero: bool,
}

impl Op for Reshape {
    fn name(&self) -> &'static str {
        "Reshape"
    }
    fn alias(&self) -> Alias {
        Alias::View
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        match self.allow_zero {
            false => Spelling::since(5, version, "Reshape"),
            true => Some(Spelling::since(14, version, "Reshape")?.int("allowzero", 1)),
        }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let shape = cx.list(1)?;
        // An empty list is known without its contents.
        let empty = || (shape.count().known() == Some(0)).then(Vec::new);
        let Some(mut want) = shape.int_dims().or_else(empty) else {
            let rank = shape.count().size();
            return Ok(vec![match rank {
                Some(r) if r <= 64 => Fact::tensor(x.dtype, vec![Dim::Unknown; r]),
                _ => Fact::any_tensor(x.dtype),
            }]);
        };
        let mut hole = None;
        for (i, d) in want.iter_mut().enumerate() {
            match d.known() {
                Some(0) if !self.allow_zero => {
                    *d = match &x.dims {
                        Some(dims) => match dims.get(i) {
                            Some(d) => d.clone(),
                            None => bail!(InvalidModel, "the shape copies axis {i} of an input of rank {}", dims.len()),
                        },
                        None => Dim::Unknown,
                    }
                }
                Some(-1) => {
                    ensure!(hole.replace(i).is_none(), InvalidModel, "the shape has two -1");
                }
                Some(n) => ensure!(n >= 0, InvalidModel, "the shape has size {n}"),
                None => {}
            }
        }
        if let Some(h) = hole {
            let rest = Dim::product(want.iter().enumerate().filter(|(i, _)| *i != h).map(|(_, d)| d));
            want[h] = match (x.count().known(), rest.known()) {
                (Some(_), Some(0)) => Dim::Known(0),
                (Some(n), Some(r)) => {
                    ensure!(n % r == 0, InvalidModel, "{x} cannot be reshaped to {want:?}: {n} is no multiple of {r}");
                    Dim::Known(n / r)
                }
                // Axes that stand on both sides cancel out.
                _ => cancel(x.dims.as_deref(), &want, h),
            };
        }
        if let (Some(a), Some(b)) = (x.count().known(), Dim::product(&want).known()) {
            ensure!(a == b, InvalidModel, "{x} has {a} elements, the shape {want:?} has {b}");
        }
        let mut f = TensorFact::new(x.dtype, want);
        f.contents = carry(x, &f);
        Ok(vec![Fact::Tensor(f)])
    }
}

/// The size at `hole`, when the shapes are symbolic.
fn cancel(from: Option<&[Dim]>, to: &[Dim], hole: usize) -> Dim {
    let Some(from) = from else { return Dim::Unknown };
    let mut left: Vec<Dim> = from.to_vec();
    let mut rest = Dim::Known(1);
    for (i, d) in to.iter().enumerate().filter(|(i, _)| *i != hole) {
        match left.iter().position(|x| x.same(d)) {
            Some(p) => {
                left.remove(p);
            }
            None => rest = rest * to[i].clone(),
        }
    }
    Dim::product(&left).floor_div(&rest)
}

/// Contents stay the same under another shape.
fn carry(x: &TensorFact, out: &TensorFact) -> Contents {
    match (&x.contents, out.shape()) {
        (Contents::Known(t), Some(s)) => t.reshaped(&s).map_or(Contents::Unknown, Contents::Known),
        (Contents::Dims(d), _) => Contents::Dims(d.clone()),
        _ => Contents::Unknown,
    }
}

fn parse_reshape(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 5 {
        let shape = cx.ints("shape")?;
        cx.set_constant_input(1, Tensor::from_slice(&[shape.len()], &shape)?);
    }
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Reshape { allow_zero: cx.flag("allowzero", false)? }))
}

/// Two axes: those before `axis`, and the rest.
#[derive(Debug)]
pub struct Flatten {
    /// Where the second one begins; negative counts from the end.
    pub axis: i64,
}

impl Op for Flatten {
    fn name(&self) -> &'static str {
        "Flatten"
    }
    fn alias(&self) -> Alias {
        Alias::View
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(d) = &x.dims else { return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; 2])]) };
        let axis = if self.axis == d.len() as i64 { d.len() } else { resolve_axis(self.axis, d.len())? };
        Ok(vec![Fact::tensor(x.dtype, vec![Dim::product(&d[..axis]), Dim::product(&d[axis..])])])
    }
}

fn parse_flatten(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    Ok(Arc::new(Flatten { axis: cx.int_or("axis", 1)? }))
}

/// Axes of size 1 gone: those in input 1, or all.
#[derive(Debug)]
pub struct Squeeze;

impl Op for Squeeze {
    fn name(&self) -> &'static str {
        "Squeeze"
    }
    fn alias(&self) -> Alias {
        Alias::View
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        Spelling::since(13, version, "Squeeze")
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let axes = cx.ints(1)?;
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let kept: Vec<Dim> = match axes {
            Some(axes) => {
                let axes = axes.iter().map(|&a| resolve_axis(a, d.len())).collect::<Result<Vec<_>>>()?;
                if let Some(&a) = axes.iter().find(|&&a| d[a].known().is_some_and(|n| n != 1)) {
                    bail!(InvalidModel, "axis {a} of {x} is not of size 1");
                }
                d.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect()
            }
            None if !cx.has(1) && d.iter().all(|d| d.known().is_some()) => {
                d.iter().filter(|d| d.known() != Some(1)).cloned().collect()
            }
            None => return Ok(vec![Fact::any_tensor(x.dtype)]),
        };
        let mut f = TensorFact::new(x.dtype, kept);
        f.contents = carry(x, &f);
        Ok(vec![Fact::Tensor(f)])
    }
}

/// Moves an attribute of older versions to input 1.
fn axes_input(cx: &mut ParseCtx<'_>) -> Result<()> {
    if cx.version < 13
        && let Some(axes) = cx.ints_opt("axes")?
    {
        cx.set_constant_input(1, Tensor::from_slice(&[axes.len()], &axes)?);
    }
    Ok(())
}

fn parse_squeeze(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    axes_input(cx)?;
    cx.expect_inputs(1, 2)?;
    Ok(Arc::new(Squeeze))
}

/// Axes of size 1 put in at the places in input 1, which count in the result.
#[derive(Debug)]
pub struct Unsqueeze;

impl Op for Unsqueeze {
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }
    fn alias(&self) -> Alias {
        Alias::View
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        Spelling::since(13, version, "Unsqueeze")
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let (Some(d), Some(axes)) = (&x.dims, cx.ints(1)?) else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let rank = d.len() + axes.len();
        let mut is_new = vec![false; rank];
        for a in axes {
            let a = resolve_axis(a, rank)?;
            ensure!(!std::mem::replace(&mut is_new[a], true), InvalidModel, "axis {a} is named twice");
        }
        let mut old = d.iter();
        let dims =
            is_new.iter().map(|&n| if n { Dim::Known(1) } else { old.next().cloned().unwrap_or_default() }).collect();
        let mut f = TensorFact::new(x.dtype, dims);
        f.contents = carry(x, &f);
        Ok(vec![Fact::Tensor(f)])
    }
}

fn parse_unsqueeze(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    axes_input(cx)?;
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Unsqueeze))
}

fn cases() -> Vec<Case> {
    let x = |shape: &[usize]| CaseInput::Random(DType::F32, shape.to_vec(), -1.0, 1.0);
    let list = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Given);
    vec![
        Case::new("Identity", 13, "plain", vec![x(&[2, 3])]).exact(),
        Case::new("Shape", 15, "plain", vec![x(&[2, 3])]).exact(),
        Case::new("Reshape", 14, "hole", vec![x(&[2, 3, 4]), list(&[0, -1])]).exact(),
        Case::new("Reshape", 14, "empty", vec![x(&[0, 3]), list(&[3, 0])]).attr("allowzero", Attr::Int(1)).exact(),
        Case::new("Flatten", 13, "plain", vec![x(&[2, 3, 4])]).exact(),
        Case::new("Squeeze", 13, "axes", vec![x(&[1, 3, 1]), list(&[-1])]).exact(),
        Case::new("Unsqueeze", 13, "axes", vec![x(&[3]), list(&[0, -1])]).exact(),
    ]
}
