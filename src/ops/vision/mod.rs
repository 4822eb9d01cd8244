//! Operators on pictures: sampling, regions, boxes, columns, decoding.

mod boxes;
mod columns;
mod deform;
mod grid;

pub use boxes::NonMaxSuppression;
pub use columns::Col2Im;
pub use deform::DeformConv;
pub use grid::{AffineGrid, GridSample};

use super::Family;

pub(super) const BOXES: Family =
    Family { name: "boxes", ops: boxes::OPS, cpu: boxes::cpu, cases: boxes::cases, ..Family::EMPTY };
pub(super) const COLUMNS: Family =
    Family { name: "columns", ops: columns::OPS, cpu: columns::cpu, cases: columns::cases, ..Family::EMPTY };
pub(super) const DEFORM: Family =
    Family { name: "deformable", ops: deform::OPS, cpu: deform::cpu, cases: deform::cases, ..Family::EMPTY };
pub(super) const GRID: Family =
    Family { name: "grids", ops: grid::OPS, cpu: grid::cpu, cases: grid::cases, ..Family::EMPTY };
