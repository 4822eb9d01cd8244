//! Moving elements without looking at them: strided copies (transpose, slice, expand, concat, split, tile, depth to
//! space), padding, gathering and scattering. Elements are known by their size alone, except where a scatter combines them.

mod copy;
#[cfg(test)]
mod tests;
mod transpose;

pub use copy::StridedCopy;

/// Bytes a task moves, about.
const GRAIN_BYTES: usize = 128 * 1024;
