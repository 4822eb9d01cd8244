//! DepthToSpace and SpaceToDepth: transposes over a view of six axes.

use super::{Bind, Moves, copy_step};
use crate::backend::cpu::CpuBindings;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::movement::StridedCopy;
use crate::kernels::nd::dense_strides;
use crate::ops::case::{Case, CaseInput};
use crate::ops::types::need_size;
use crate::tensor::DType;
use crate::{bail, ensure};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "DepthToSpace", versions: &[1, 11, 13, 28], parse },
    OpDef { domain: "", name: "SpaceToDepth", versions: &[1, 13, 28], parse },
];

pub(super) fn cpu(b: &mut CpuBindings) {
    Blocks::register(b);
}

/// Moves blocks of pixels into channels, or back.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocks {
    /// From pixels to channels.
    pub to_depth: bool,
    /// A block's height and width.
    pub size: usize,
    /// The place in the block is the fastest part of a channel's number (CRD), not the slowest (DCR).
    pub place_last: bool,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let size = cx.int("blocksize")?;
    ensure!((1..=1 << 15).contains(&size), InvalidModel, "blocksize is {size}");
    let place_last = match cx.string_or("mode", "DCR")?.as_str() {
        "DCR" => false,
        "CRD" => true,
        m => bail!(InvalidModel, "mode is '{m}'"),
    };
    Ok(Arc::new(Blocks { to_depth: cx.op_type == "SpaceToDepth", size: size as usize, place_last }))
}

impl Op for Blocks {
    fn name(&self) -> &'static str {
        if self.to_depth { "SpaceToDepth" } else { "DepthToSpace" }
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.tensor(0)?;
        let Some(d) = &x.dims else { return Ok(vec![Fact::tensor(x.dtype, vec![Dim::Unknown; 4])]) };
        let [n, c, h, w] = d.as_slice() else {
            bail!(InvalidModel, "{} needs four axes, the input is {x}", self.name())
        };
        let (side, area) = (self.size as i64, (self.size * self.size) as i64);
        let whole = |d: &Dim, by: i64| -> Result<Dim> {
            ensure!(d.known().is_none_or(|n| n % by == 0), InvalidModel, "{d} is not a multiple of {by} in {x}");
            Ok(d.floor_div(&Dim::Known(by)))
        };
        let times = |d: &Dim, by: i64| d.clone() * Dim::Known(by);
        let [c, h, w] = if self.to_depth {
            [times(c, area), whole(h, side)?, whole(w, side)?]
        } else {
            [whole(c, area)?, times(h, side), times(w, side)]
        };
        Ok(vec![Fact::tensor(x.dtype, vec![n.clone(), c, h, w])])
    }
}

impl Moves for Blocks {
    const BIND: Bind<Self> = |op, cx| {
        let (x, y) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, op.name())?;
        let (space, depth) = if op.to_depth { (x, y) } else { (y, x) };
        let (c, h, w, b) = (space.shape[1], depth.shape[2], depth.shape[3], op.size);
        // Image, channel, row of blocks, row in the block, column of blocks, column in the block.
        let view = [space.shape[0], c, h, b, w, b];
        let in_space = dense_strides(&view);
        // The same axes where the block's are in front of the channel or behind it.
        let mut in_depth = [0; 6];
        if !x.is_empty() {
            let (order, dims) = if op.place_last {
                ([0, 1, 3, 5, 2, 4], [view[0], c, b, b, h, w])
            } else {
                ([0, 3, 5, 1, 2, 4], [view[0], b, b, c, h, w])
            };
            order.iter().zip(dense_strides(&dims)).for_each(|(&axis, s)| in_depth[axis] = s);
        }
        let (from, to) = if op.to_depth { (&in_space[..], &in_depth[..]) } else { (&in_depth[..], &in_space[..]) };
        copy_step(
            if op.to_depth { "space_to_depth" } else { "depth_to_space" },
            StridedCopy::new(cx.isa, size, &view, from, to)?,
            0,
            size,
            0,
        )
    };
}

pub(super) fn cases() -> Vec<Case> {
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 0.0, 200.0);
    let case = |op, name, d, shape: &[usize], block, mode: &str| {
        Case::new(op, 28, name, vec![x(d, shape)])
            .attr("blocksize", Attr::Int(block))
            .attr("mode", Attr::String(mode.into()))
            .exact()
    };
    let mut cases = Vec::new();
    for mode in ["DCR", "CRD"] {
        cases.push(case("DepthToSpace", "f32", DType::F32, &[2, 12, 5, 17], 2, mode));
        cases.push(case("DepthToSpace", "u8", DType::U8, &[1, 27, 3, 2], 3, mode));
        cases.push(case("DepthToSpace", "empty", DType::F32, &[0, 8, 5, 7], 2, mode));
        cases.push(case("SpaceToDepth", "f32", DType::F32, &[2, 3, 6, 34], 2, mode));
        cases.push(case("SpaceToDepth", "f64", DType::F64, &[1, 2, 8, 4], 4, mode));
        cases.push(case("SpaceToDepth", "one", DType::F16, &[1, 2, 3, 4], 1, mode));
    }
    cases
}
