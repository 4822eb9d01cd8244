//! Operators, one file or folder a family: definitions (semantics), bindings to backends, test cases.
//!
//! To add an operator, add it to its family's file and tables; `docs/adding-an-operator.md` walks through it.

pub mod attention;
pub mod case;
pub mod cast;
pub mod classic;
pub mod contrib;
pub mod control;
pub mod conv;
pub mod det;
pub mod dropout;
pub mod einsum;
pub mod infer;
pub mod linear;
pub mod loss;
pub mod movement;
pub mod norm;
pub mod pointwise;
pub mod pool;
pub mod quant;
pub mod random;
pub mod recurrent;
pub mod reduce;
pub mod resize;
pub mod retired;
pub mod sequence;
pub mod shape;
pub mod signal;
pub mod softmax;
mod steps;
pub mod text;
pub mod training;
pub(crate) mod types;
pub mod vision;
mod widen;
pub mod window;

use crate::backend::Provider;
use crate::backend::cpu::CpuBindings;
#[cfg(feature = "opencl")]
use crate::backend::opencl::{OpenClBindings, OpenClProvider};
use crate::ir::{OpDef, Registry};
use std::sync::Arc;

/// One family's share of the library.
pub struct Family {
    /// For the coverage table.
    pub name: &'static str,
    /// What ONNX calls its operators, and how they are read.
    pub ops: &'static [OpDef],
    /// Adds its CPU kernels.
    pub cpu: fn(&mut CpuBindings),
    /// Adds its OpenCL kernels.
    #[cfg(feature = "opencl")]
    pub opencl: fn(&mut OpenClBindings),
    /// Test cases.
    pub cases: fn() -> Vec<case::Case>,
}

impl Family {
    /// A family without anything, to be filled in with `..Family::EMPTY`.
    pub const EMPTY: Family = Family {
        name: "",
        ops: &[],
        cpu: |_| {},
        #[cfg(feature = "opencl")]
        opencl: |_| {},
        cases: Vec::new,
    };
}

/// The test cases of all families.
pub fn cases() -> Vec<case::Case> {
    FAMILIES.iter().flat_map(|f| (f.cases)()).collect()
}

/// All families.
pub const FAMILIES: &[Family] = &[
    attention::FAMILY,
    cast::FAMILY,
    classic::FAMILY,
    contrib::FAMILY,
    contrib::general::FAMILY,
    control::FAMILY,
    conv::FAMILY,
    det::FAMILY,
    dropout::FAMILY,
    einsum::FAMILY,
    linear::FAMILY,
    loss::FAMILY,
    movement::ARRANGE,
    movement::BLOCKS,
    movement::CENTER,
    movement::CHOOSE,
    movement::FILL,
    movement::GATHER,
    movement::JOIN,
    movement::PAD,
    movement::SCATTER,
    movement::SLICE,
    norm::FAMILY,
    pointwise::BINARY,
    pointwise::FUSED,
    pointwise::UNARY,
    pointwise::VARIADIC,
    pool::FAMILY,
    random::FAMILY,
    reduce::FAMILY,
    quant::FAMILY,
    recurrent::FAMILY,
    resize::FAMILY,
    retired::FAMILY,
    sequence::FAMILY,
    shape::FAMILY,
    signal::FAMILY,
    softmax::FAMILY,
    text::FAMILY,
    training::FAMILY,
    vision::BOXES,
    vision::COLUMNS,
    vision::DEFORM,
    vision::GRID,
    #[cfg(feature = "image")]
    vision::IMAGE,
    vision::REGIONS,
    vision::UNPOOL,
];

/// The operators of all families.
pub fn registry() -> Registry {
    let mut r = Registry::default();
    FAMILIES.iter().flat_map(|f| f.ops).for_each(|d| r.add(*d));
    r
}

/// The CPU kernels of all families.
pub fn cpu_bindings() -> CpuBindings {
    let mut b = CpuBindings::default();
    FAMILIES.iter().for_each(|f| (f.cpu)(&mut b));
    b
}

/// What finds devices beside the CPU, each with the kernels of all families.
pub fn providers() -> Vec<Arc<dyn Provider>> {
    let mut all: Vec<Arc<dyn Provider>> = Vec::new();
    #[cfg(feature = "opencl")]
    {
        all.push(Arc::new(OpenClProvider::new(opencl_bindings())));
    }
    all
}

/// The OpenCL kernels of all families.
#[cfg(feature = "opencl")]
pub fn opencl_bindings() -> OpenClBindings {
    let mut b = OpenClBindings::default();
    FAMILIES.iter().for_each(|f| (f.opencl)(&mut b));
    b
}
