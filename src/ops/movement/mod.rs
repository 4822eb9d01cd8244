//! Operators that move elements without computing: by element size alone. Packed types are unpacked to bytes around the
//! step; strings are moved as their indices.

mod arrange;
mod blocks;
mod case_shapes;
mod cases;
mod center;
mod choose;
mod fill;
mod gather;
mod join;
#[cfg(feature = "opencl")]
mod opencl;
mod packed;
mod pad;
mod scatter;
mod slice;
pub(super) mod strings;

pub use arrange::{Expand, Tile, Transpose};
pub use blocks::Blocks;
pub use center::CenterCropPad;
pub use choose::{Compress, NonZero, Unique};
pub(in crate::ops) use choose::{pick, some_of_unique};
pub use fill::{ConstantOfShape, EyeLike, OneHot, Range, Trilu};
pub use gather::{Gather, GatherElements, GatherNd};
pub use join::{Concat, Split};
pub use pad::Pad;
pub use scatter::{ReverseSequence, ScatterElements, ScatterNd, TensorScatter};
pub use slice::Slice;

use super::Family;
use crate::backend::cpu::{CpuBindings, CpuCtx};
use crate::backend::{FnStep, NodeView, Step};
use crate::error::Result;
use crate::ir::Op;
use crate::kernels::movement::{IndexType, StridedCopy};
use crate::tensor::{DType, Dims};
use crate::{bail, ensure};

/// A family of this folder: its definitions and CPU kernels; those for OpenCL are in one file.
macro_rules! family {
    ($const:ident, $name:literal, $part:ident $(, $opencl:ident $(, $cases:path)?)?) => {
        pub(super) const $const: Family = Family {
            name: $name,
            ops: $part::OPS,
            cpu: $part::cpu,
            $(#[cfg(feature = "opencl")]
            opencl: opencl::$opencl,
            $(cases: $cases,)?)?
            ..Family::EMPTY
        };
    };
}
family!(ARRANGE, "arrangement", arrange, arrange, cases::all);
family!(CHOOSE, "choosing", choose);
family!(FILL, "filling", fill);
family!(GATHER, "gathering", gather, gather);
family!(JOIN, "joining and splitting", join, join);
family!(PAD, "padding", pad, pad);
family!(SCATTER, "scattering", scatter);
family!(SLICE, "slicing", slice, slice);
pub(super) const BLOCKS: Family =
    Family { name: "blocks", ops: blocks::OPS, cpu: blocks::cpu, cases: blocks::cases, ..Family::EMPTY };
pub(super) const CENTER: Family =
    Family { name: "centring", ops: center::OPS, cpu: center::cpu, cases: center::cases, ..Family::EMPTY };

/// How an operator of plain elements is bound.
type Bind<T> = fn(&T, &CpuCtx<'_>) -> Result<Box<dyn Step>>;

/// An operator that moves elements, with its eager form for strings.
trait Moves: Op + Sized {
    /// Binds it for elements of whole bytes.
    const BIND: Bind<Self>;
    /// Adds it to the CPU's bindings.
    fn register(b: &mut CpuBindings) {
        b.step::<Self>(|op, cx| packed::bind(op, cx, Self::BIND));
        b.eager::<Self>(|op, cx, args| strings::run(op, cx, args, Self::BIND));
    }
}

/// A step from one strided copy of input `input`, whose first element lies `offset` elements in.
fn copy_step(name: &'static str, copy: StridedCopy, input: usize, size: usize, offset: usize) -> Result<Box<dyn Step>> {
    Ok(FnStep::boxed(name, copy.tasks(), 0, move |args, task, _| {
        // SAFETY: the copy was made from the operands' shapes, the offset lies within the input.
        unsafe { copy.run(task, args.input::<u8>(input).add(offset * size), args.output(0)) };
        Ok(())
    }))
}

fn index_type(d: DType) -> Result<IndexType> {
    match d {
        DType::I32 => Ok(IndexType::I32),
        DType::I64 => Ok(IndexType::I64),
        d => bail!(InvalidModel, "indices must be int32 or int64, not {d}"),
    }
}

/// A shape as its parts before an axis, the axis, and after it.
pub(in crate::ops) fn around(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// The numbers in an input that must be known when a plan is made.
fn known_ints(cx: &NodeView<'_>, i: usize) -> Result<Vec<i64>> {
    match cx.constant(i) {
        Some(t) => t.to_i64s(),
        None => bail!(Unsupported, "input {i} must be known when the plan is made"),
    }
}

/// Marks the axes of a list, each at most once.
fn mark_axes(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut seen = Vec::with_capacity(axes.len());
    for &a in axes {
        let a = crate::ir::op::resolve_axis(a, rank)?;
        ensure!(!seen.contains(&a), InvalidModel, "axis {a} is named twice");
        seen.push(a);
    }
    Ok(seen)
}

/// The product of a shape, for offsets within memory that exists.
fn count(shape: &Dims) -> usize {
    shape.iter().product()
}
