//! Transpose, Expand, Tile.

use super::{Bind, Moves, copy_step};
use crate::backend::Step;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::error::Result;
use crate::ir::op::resolve_axis;
use crate::ir::{Contents, Dim, Fact, InferCtx, Op, OpDef, ParseCtx, Spelling, TensorFact};
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::{Strides, broadcast_strides, dense_strides};
use crate::ops::infer::broadcast;
use crate::ops::types::need_size;
use crate::tensor::{Dims, Tensor};
use crate::{bail, ensure, err};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "Expand", versions: &[8, 13], parse: parse_expand },
    OpDef { domain: "", name: "Tile", versions: &[1, 6, 13], parse: parse_tile },
    OpDef { domain: "", name: "Transpose", versions: &[1, 13, 21, 23, 24, 25], parse: parse_transpose },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    Expand::register(b);
    Tile::register(b);
    Transpose::register(b);
}

/// The axes in another order: output axis `i` is input axis `perm[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// The order; `None` to reverse it.
    pub perm: Option<Vec<usize>>,
}

impl Transpose {
    pub(super) fn order(&self, rank: usize) -> Result<Vec<usize>> {
        let Some(p) = &self.perm else { return Ok((0..rank).rev().collect()) };
        ensure!(p.len() == rank, InvalidModel, "perm {p:?} is for rank {}, the input has rank {rank}", p.len());
        Ok(p.clone())
    }
}

fn parse_transpose(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let perm = match cx.ints_opt("perm")? {
        None => None,
        Some(p) => {
            let order = p.iter().map(|&a| resolve_axis(a, p.len())).collect::<Result<Vec<_>>>()?;
            let each_once = (0..order.len()).all(|i| order.contains(&i));
            ensure!(each_once, InvalidModel, "perm {p:?} does not name every axis once");
            Some(order)
        }
    };
    Ok(Arc::new(Transpose { perm }))
}

impl Op for Transpose {
    fn name(&self) -> &'static str {
        "Transpose"
    }
    fn to_onnx(&self, version: u32, _inputs: usize) -> Option<Spelling> {
        let s = Spelling::since(1, version, "Transpose")?;
        Some(match &self.perm {
            Some(p) => s.ints("perm", p.iter().map(|&p| p as i64)),
            None => s,
        })
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(d) = &x.dims else {
            let rank = self.perm.as_ref().map(Vec::len);
            return Ok(vec![rank.map_or(Fact::any_tensor(x.dtype), |r| Fact::tensor(x.dtype, vec![Dim::Unknown; r]))]);
        };
        Ok(vec![Fact::tensor(x.dtype, self.order(d.len())?.into_iter().map(|i| d[i].clone()).collect())])
    }
}

impl Moves for Transpose {
    const BIND: Bind<Self> = |op, cx| {
        let (x, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, "Transpose")?;
        let strides = dense_strides(&x.shape);
        let from: Strides = op.order(x.shape.len())?.into_iter().map(|i| strides[i]).collect();
        let copy = StridedCopy::new(cx.isa, size, &out.shape, &from, &dense_strides(&out.shape))?;
        copy_step("transpose", copy, 0, size, 0)
    };
}

/// Broadcast to the shape in input 1, both ways.
#[derive(Clone, Debug, PartialEq)]
pub struct Expand;

fn parse_expand(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Expand))
}

/// As many unknown sizes as a list of sizes has elements; `None` where not even that is known.
pub(super) fn unknown_sizes(list: &TensorFact) -> Option<Vec<Dim>> {
    let n = list.count().size().filter(|&n| n <= 64)?;
    Some(vec![Dim::Unknown; n])
}

impl Op for Expand {
    fn name(&self) -> &'static str {
        "Expand"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, shape) = (cx.tensor(0)?, cx.list(1)?);
        let (Some(d), Some(want)) = (&x.dims, shape.int_dims().or_else(|| unknown_sizes(shape))) else {
            return Ok(vec![Fact::any_tensor(x.dtype)]);
        };
        if let Some(n) = want.iter().filter_map(Dim::known).find(|n| *n < 0) {
            bail!(InvalidModel, "the shape has size {n}");
        }
        let mut f = TensorFact::new(x.dtype, broadcast(d, &want)?);
        // A list of equal sizes.
        if let (Some(v), Some(n)) = (x.int_dims().filter(|v| v.len() == 1), f.shape().filter(|s| s.len() <= 1)) {
            let n: usize = n.iter().product();
            if n <= crate::ir::fact::MAX_CONTENTS && matches!(x.contents, Contents::Dims(_)) {
                f.contents = Contents::Dims(vec![v[0].clone(); n]);
            }
        }
        Ok(vec![Fact::Tensor(f)])
    }
}

/// A copy of input 0 to the output, broadcast.
fn bind_broadcast(cx: &CpuCtx<'_>, name: &'static str) -> Result<Box<dyn Step>> {
    let (x, out) = (cx.input(0)?, cx.output(0)?);
    let size = need_size(x.dtype, name)?;
    let from = broadcast_strides(&x.shape, &out.shape)
        .ok_or_else(|| err!(Internal, "{:?} does not broadcast to {:?}", x.shape, out.shape))?;
    let copy = StridedCopy::new(cx.isa, size, &out.shape, &from, &dense_strides(&out.shape))?;
    copy_step(name, copy, 0, size, 0)
}

impl Moves for Expand {
    const BIND: Bind<Self> = |_, cx| bind_broadcast(cx, "expand");
}

/// Each axis repeated as often as input 1 says.
#[derive(Clone, Debug, PartialEq)]
pub struct Tile;

/// Version 1 repeats one axis: inputs `tiles` and `axis`. It needs constants, from which the list is made.
fn parse_tile(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    if cx.version < 6 {
        cx.expect_inputs(3, 3)?;
        let number = |i: usize| -> Option<i64> {
            let t = cx.input_fact(i).constant()?;
            match t.as_slice::<f32>() {
                Ok(v) => v.first().map(|x| *x as i64),
                Err(_) => t.to_i64s().ok()?.first().copied(),
            }
        };
        let rank = cx.input_fact(0).as_tensor().and_then(TensorFact::rank);
        let (Some(tiles), Some(axis), Some(rank)) = (number(1), number(2), rank) else {
            bail!(Unsupported, "Tile of version 1 whose inputs are not constant")
        };
        let mut repeats = vec![1i64; rank];
        repeats[resolve_axis(axis, rank)?] = tiles;
        cx.inputs.truncate(1);
        cx.set_constant_input(1, Tensor::from_slice(&[rank], &repeats)?);
    }
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(Tile))
}

impl Op for Tile {
    fn name(&self) -> &'static str {
        "Tile"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, repeats) = (cx.tensor(0)?, cx.list(1)?);
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let Some(r) = repeats.int_dims() else {
            return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; d.len()])]);
        };
        ensure!(r.len() == d.len(), InvalidModel, "{} repeats for rank {}", r.len(), d.len());
        if let Some(n) = r.iter().filter_map(Dim::known).find(|n| *n < 0) {
            bail!(InvalidModel, "an axis is repeated {n} times");
        }
        Ok(vec![Fact::tensor(x.dtype, d.iter().zip(&r).map(|(a, b)| a.clone() * b.clone()).collect())])
    }
}

/// Each axis as two: the repeats, which stand still in the source, and the axis itself; with the source's strides.
pub(super) fn repeats(x: &[usize], out: &[usize]) -> (Dims, Strides) {
    let strides = dense_strides(x);
    let (mut shape, mut from) = (Dims::new(), Strides::new());
    for (i, &d) in x.iter().enumerate() {
        shape.extend([out[i].checked_div(d).unwrap_or(0), d]);
        from.extend([0, strides[i]]);
    }
    (shape, from)
}

impl Moves for Tile {
    const BIND: Bind<Self> = |_, cx| {
        let (x, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, "Tile")?;
        let (shape, from) = repeats(&x.shape, &out.shape);
        let copy = StridedCopy::new(cx.isa, size, &shape, &from, &dense_strides(&shape))?;
        copy_step("tile", copy, 0, size, 0)
    };
}
