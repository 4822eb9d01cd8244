//! What everything stands on: memory, arithmetic, threads.

pub mod alloc;
pub mod budget;
pub mod cancel;
pub mod checked;
pub mod cores;
#[cfg(test)]
pub(crate) mod counting;
pub mod file;
pub mod fpmode;
pub mod pages;
pub mod parallel;
mod park;
pub mod pool;
pub mod trylock;
