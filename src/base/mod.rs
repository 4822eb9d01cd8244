//! What everything stands on: memory, arithmetic, threads.

pub mod alloc;
pub mod cancel;
pub mod checked;
#[cfg(test)]
pub(crate) mod counting;
pub mod parallel;
