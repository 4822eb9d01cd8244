//! Moving elements without looking at them: strided copies (transpose, slice, expand, concat, split, tile, depth to
//! space), padding, gathering and scattering. Elements are known by their size alone, except where a scatter combines them.

mod copy;
mod gather;
mod index;
#[cfg(test)]
mod index_tests;
mod pad;
mod scatter;
#[cfg(test)]
mod tests;
mod transpose;

pub use copy::StridedCopy;
pub use gather::{Gather, GatherElements, GatherNd};
pub use index::{BadIndex, IndexType};
pub use pad::{Pad, PadMode};
pub use scatter::{ScatterElements, ScatterKind, ScatterNd};

/// Bytes a task moves, about.
const GRAIN_BYTES: usize = 128 * 1024;
