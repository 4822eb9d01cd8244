//! Quantised numbers: between real numbers and integers of few bits.

pub mod blocks;
pub mod linear;
pub mod pool;
