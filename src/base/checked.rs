//! Arithmetic on sizes that come from a model file.

use crate::{bail, error::Result};

/// The product of `dims`, or an error where it passes what memory can hold.
pub fn product(dims: &[usize]) -> Result<usize> {
    let mut n = 1usize;
    if dims.contains(&0) {
        return Ok(0);
    }
    for &d in dims {
        n = match n.checked_mul(d) {
            Some(n) if n <= isize::MAX as usize => n,
            _ => bail!(InvalidModel, "shape {dims:?} has more elements than memory can hold"),
        };
    }
    Ok(n)
}
