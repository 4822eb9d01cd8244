//! The passes, one a file.

mod fold;
mod identity;

use super::Pass;

/// All passes in the order in which they run.
pub fn all() -> Vec<Box<dyn Pass>> {
    vec![Box::new(fold::Fold), Box::new(identity::Identity)]
}
