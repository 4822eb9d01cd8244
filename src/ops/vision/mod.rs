//! Operators on pictures: sampling, regions, boxes, columns, decoding.

mod boxes;
mod columns;
mod deform;
mod grid;
#[cfg(feature = "image")]
mod pictures;
mod regions;
mod unpool;

pub use boxes::NonMaxSuppression;
pub use columns::Col2Im;
pub use deform::DeformConv;
pub use grid::{AffineGrid, GridSample};
#[cfg(feature = "image")]
pub use pictures::{ImageDecoder, PixelFormat};
pub use regions::{MaxRoiPool, RoiAlign};
pub use unpool::MaxUnpool;

use super::Family;

pub(super) const BOXES: Family =
    Family { name: "boxes", ops: boxes::OPS, cpu: boxes::cpu, cases: boxes::cases, ..Family::EMPTY };
pub(super) const COLUMNS: Family =
    Family { name: "columns", ops: columns::OPS, cpu: columns::cpu, cases: columns::cases, ..Family::EMPTY };
pub(super) const DEFORM: Family =
    Family { name: "deformable", ops: deform::OPS, cpu: deform::cpu, cases: deform::cases, ..Family::EMPTY };
pub(super) const GRID: Family =
    Family { name: "grids", ops: grid::OPS, cpu: grid::cpu, cases: grid::cases, ..Family::EMPTY };
pub(super) const REGIONS: Family =
    Family { name: "regions", ops: regions::OPS, cpu: regions::cpu, cases: regions::cases, ..Family::EMPTY };
pub(super) const UNPOOL: Family =
    Family { name: "unpooling", ops: unpool::OPS, cpu: unpool::cpu, cases: unpool::cases, ..Family::EMPTY };
#[cfg(feature = "image")]
pub(super) const IMAGE: Family = Family { name: "pictures", ops: pictures::OPS, cpu: pictures::cpu, ..Family::EMPTY };
