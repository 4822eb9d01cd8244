//! The passes, one a file.

mod activation;
mod activations;
mod algebra;
mod attention;
mod branches;
mod channels_last;
mod common;
mod conv_affine;
mod conv_epilogue;
mod einsum;
mod fold;
mod fuse_norm;
mod fuse_pointwise;
mod identity;
mod integer_products;
mod l2_norm;
mod matmul_bias;
mod matmul_epilogue;
mod narrow;
mod norms;
mod product;
mod products;
mod quantised;
mod quantised_ends;
mod rotary;
mod shapes;
mod softmax;
mod transposes;
mod window_pad;

use super::Pass;
pub(super) use fold::room;

/// All passes in the order in which they run.
pub fn all() -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(fold::FoldScales),
        Box::new(quantised::Quantised),
        Box::new(fold::Fold),
        Box::new(branches::Branches),
        Box::new(shapes::Shapes),
        Box::new(identity::Identity),
        Box::new(algebra::Algebra),
        Box::new(einsum::Products),
        Box::new(common::Common),
        Box::new(activations::Activations),
        Box::new(softmax::WrittenSoftmax),
        Box::new(l2_norm::L2Norm),
        Box::new(norms::Norms),
        Box::new(narrow::Narrow),
        Box::new(rotary::Rotary),
        Box::new(attention::FuseAttention),
        Box::new(integer_products::IntegerProducts),
        Box::new(matmul_bias::MatMulBias),
        Box::new(matmul_epilogue::MatMulEpilogue),
        Box::new(transposes::Transposes),
        Box::new(window_pad::WindowPad),
        Box::new(conv_affine::ConvAffine),
        Box::new(conv_epilogue::ConvEpilogue),
        Box::new(fuse_pointwise::FusePointwise),
        Box::new(channels_last::ChannelsLast),
        Box::new(products::JoinProducts),
        Box::new(quantised_ends::QuantisedEnds),
        Box::new(fuse_norm::FuseNorm),
    ]
}
