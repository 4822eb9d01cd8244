//! The passes, one a file.

mod fold;
mod fuse_pointwise;
mod identity;
mod matmul_bias;

use super::Pass;

/// All passes in the order in which they run.
pub fn all() -> Vec<Box<dyn Pass>> {
    vec![
        Box::new(fold::Fold),
        Box::new(identity::Identity),
        Box::new(matmul_bias::MatMulBias),
        Box::new(fuse_pointwise::FusePointwise),
    ]
}
