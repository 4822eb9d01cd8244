//! Normalisations: by batch, by instance, by groups of channels, by layer, by p-norm, by neighbouring channels.

mod across;
mod batch;
mod channels;
mod fused;
mod layer;
mod lp;
#[cfg(feature = "opencl")]
mod opencl;

pub use across::ChannelLayerNorm;
pub use batch::BatchNormalization;
pub use channels::ChannelNorm;
pub use fused::{FusedNorm, Norm};
pub use layer::LayerNormalization;
pub use lp::{LocalResponse, LpNormalization, MeanVariance};

use super::Family;
use super::case::{Case, CaseInput};
use crate::backend::cpu::CpuBindings;
use crate::ir::OpDef;
use crate::ir::parse::Attr;
use crate::tensor::DType;

pub(super) const FAMILY: Family = Family {
    name: "normalisation",
    ops: OPS,
    cpu,
    #[cfg(feature = "opencl")]
    opencl: opencl::add,
    cases,
};

const OPS: &[OpDef] = &[
    OpDef { domain: "", name: "BatchNormalization", versions: &[1, 6, 7, 9, 14, 15], parse: batch::parse },
    OpDef { domain: "", name: "InstanceNormalization", versions: &[1, 6, 22], parse: channels::parse_instance },
    OpDef { domain: "", name: "GroupNormalization", versions: &[18, 21], parse: channels::parse_group },
    OpDef { domain: "", name: "LayerNormalization", versions: &[17], parse: layer::parse },
    OpDef { domain: "", name: "RMSNormalization", versions: &[23], parse: layer::parse },
    OpDef { domain: "", name: "LpNormalization", versions: &[1, 22], parse: lp::parse_lp },
    OpDef { domain: "", name: "MeanVarianceNormalization", versions: &[1, 9, 13], parse: lp::parse_mvn },
    OpDef { domain: "", name: "LRN", versions: &[1, 13], parse: lp::parse_lrn },
];

fn cpu(b: &mut CpuBindings) {
    across::cpu(b);
    batch::cpu(b);
    channels::cpu(b);
    fused::cpu(b);
    layer::cpu(b);
    lp::cpu(b);
}

/// The types of floats that layers compute in.
pub(super) const FLOATS: [DType; 4] = [DType::F32, DType::F64, DType::F16, DType::BF16];

fn cases() -> Vec<Case> {
    let of = |d, shape: &[usize]| CaseInput::Random(d, shape.to_vec(), 0.5, 2.0);
    let x = |shape: &[usize]| of(DType::F32, shape);
    let five = |d, shape: &[usize]| {
        let c = [shape[1]];
        vec![of(d, shape), of(d, &c), of(d, &c), of(d, &c), of(d, &c)]
    };
    let batch = |name, v, i: Vec<CaseInput>| Case::new("BatchNormalization", v, name, i);
    let axis = |c: Case, a| c.attr("axis", Attr::Int(a));
    let (shape, c) = ([2usize, 6, 3, 5], [6usize]);
    vec![
        batch("f32", 15, five(DType::F32, &[2, 19, 3, 5])),
        batch("f64", 15, five(DType::F64, &[2, 3, 4])),
        Case { rtol: 1e-2, ..batch("bf16", 15, five(DType::BF16, &[2, 3, 4])) },
        batch("no_space", 9, five(DType::F32, &[4, 3])),
        Case {
            outputs: vec![true; 3],
            ..batch("training", 15, five(DType::F32, &[3, 5, 4, 4])).attr("training_mode", Attr::Int(1))
        },
        batch("empty", 15, five(DType::F32, &[0, 3, 4])),
        Case::new("InstanceNormalization", 22, "f32", vec![x(&shape), x(&c), x(&c)]),
        Case::new("GroupNormalization", 21, "f32", vec![x(&shape), x(&c), x(&c)]).attr("num_groups", Attr::Int(3)),
        Case::new("GroupNormalization", 18, "by_group", vec![x(&shape), x(&[3]), x(&[3])])
            .attr("num_groups", Attr::Int(3)),
        Case {
            outputs: vec![true; 3],
            ..axis(Case::new("LayerNormalization", 17, "means", vec![x(&shape), x(&[3, 5]), x(&[3, 5])]), 2)
        },
        Case::new("LayerNormalization", 17, "one_scale", vec![x(&shape), x(&[1])]),
        Case {
            outputs: vec![true; 3],
            ..Case::new("LayerNormalization", 17, "f64", vec![of(DType::F64, &shape), of(DType::F64, &[5])])
        },
        Case::new("RMSNormalization", 23, "f32", vec![x(&shape), x(&[5])]),
        axis(Case::new("LpNormalization", 22, "l2", vec![x(&shape)]), 1),
        axis(Case::new("LpNormalization", 22, "l1", vec![x(&shape)]), -1).attr("p", Attr::Int(1)),
        Case::new("MeanVarianceNormalization", 13, "default_axes", vec![x(&shape)]),
        Case::new("MeanVarianceNormalization", 13, "all_axes", vec![x(&shape)])
            .attr("axes", Attr::Ints(vec![0, 1, 2, -1])),
        Case::new("LRN", 13, "even_size", vec![x(&shape)]).attr("size", Attr::Int(4)).attr("alpha", Attr::Float(0.5)),
        Case::new("LRN", 13, "f64", vec![of(DType::F64, &[1, 3, 4, 4])]).attr("size", Attr::Int(3)),
    ]
}
