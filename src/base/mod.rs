//! What everything stands on: memory, arithmetic, threads.

pub mod alloc;
pub mod cancel;
pub mod checked;
pub mod parallel;
