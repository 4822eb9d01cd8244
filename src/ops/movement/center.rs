//! CenterCropPad.

use super::{Bind, Moves, known_ints, mark_axes};
use crate::backend::FnStep;
use crate::backend::cpu::CpuBindings;
use crate::ensure;
use crate::error::Result;
use crate::ir::parse::Attr;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::kernels::movement::{Pad as Kernel, PadMode};
use crate::ops::case::{Case, CaseInput};
use crate::ops::types::need_size;
use crate::tensor::{DType, Tensor};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "CenterCropPad", versions: &[18], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    CenterCropPad::register(b);
}

/// Cuts the middle out of input 0, or borders it with zeros, axis by axis to the sizes in input 1.
#[derive(Clone, Debug, PartialEq)]
pub struct CenterCropPad {
    /// The axes that the sizes are about; `None` for all.
    pub axes: Option<Vec<i64>>,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(2, 2)?;
    Ok(Arc::new(CenterCropPad { axes: cx.ints_opt("axes")? }))
}

impl CenterCropPad {
    fn axes(&self, rank: usize, sizes: usize) -> Result<Vec<usize>> {
        let axes = match &self.axes {
            Some(a) => mark_axes(a, rank)?,
            None => (0..rank).collect(),
        };
        ensure!(axes.len() == sizes, InvalidModel, "{sizes} sizes for {} axes", axes.len());
        Ok(axes)
    }
}

impl Op for CenterCropPad {
    fn name(&self) -> &'static str {
        "CenterCropPad"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, shape) = (cx.tensor(0)?, cx.list(1)?);
        let Some(d) = &x.dims else { return Ok(vec![Fact::any_tensor(x.dtype)]) };
        let mut out = d.clone();
        match (shape.int_dims(), &self.axes) {
            (Some(sizes), _) => {
                for (a, s) in self.axes(d.len(), sizes.len())?.into_iter().zip(sizes) {
                    ensure!(s.known().is_none_or(|n| n >= 0), InvalidModel, "axis {a} is given size {s}");
                    out[a] = s;
                }
            }
            (None, Some(axes)) => mark_axes(axes, d.len())?.into_iter().for_each(|a| out[a] = Dim::Unknown),
            (None, None) => out.fill(Dim::Unknown),
        }
        Ok(vec![Fact::tensor(x.dtype, out)])
    }
}

impl Moves for CenterCropPad {
    const BIND: Bind<Self> = |op, cx| {
        let (x, out) = (cx.input(0)?, cx.output(0)?);
        let size = need_size(x.dtype, "CenterCropPad")?;
        let sizes = known_ints(cx, 1)?;
        let rank = x.shape.len();
        let (mut begins, mut ends) = (vec![0; rank], vec![0; rank]);
        for (a, want) in op.axes(rank, sizes.len())?.into_iter().zip(sizes) {
            // Halves of what is added or cut; the odd one at the end.
            let more = want - x.shape[a] as i64;
            begins[a] = more / 2;
            ends[a] = more - more / 2;
        }
        let kernel = Kernel::new(PadMode::Constant, size, &x.shape, &begins, &ends)?;
        ensure!(kernel.shape() == &out.shape[..], Internal, "a crop gives {:?}, not {:?}", kernel.shape(), out.shape);
        Ok(FnStep::boxed("center_crop_pad", kernel.tasks(), 0, move |args, task, _| {
            let zero = [0u8; 16];
            // SAFETY: the kernel was made from the operands' shapes; an element has at most 16 bytes.
            unsafe { kernel.run(task, args.input(0), zero.as_ptr(), args.output(0)) };
            Ok(())
        }))
    };
}

pub(super) fn cases() -> Vec<Case> {
    let x = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 1.0, 100.0);
    let sizes = |v: &[i64]| Tensor::from_slice(&[v.len()], v).map_or(CaseInput::Absent, CaseInput::Constant);
    let case = |name, d, shape: &[usize], want: &[i64]| {
        Case::new("CenterCropPad", 18, name, vec![x(d, shape), sizes(want)]).exact()
    };
    vec![
        case("both", DType::F32, &[20, 8, 3], &[10, 11, 3]),
        case("odd", DType::I64, &[7, 4], &[4, 7]),
        case("to_nothing", DType::U8, &[3, 4], &[0, 6]),
        case("from_nothing", DType::F32, &[0, 4], &[3, 2]),
        case("axes", DType::F16, &[2, 9, 5], &[4, 8]).attr("axes", Attr::Ints(vec![-1, 1])),
    ]
}
