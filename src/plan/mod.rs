//! From a program (a graph with symbolic shapes) to plans for concrete ones, and their execution.
//!
//! A plan is a chain of segments. A segment is a straight list of steps over planned memory; it ends where the next
//! node's shapes hang on data that only running gives (the length of a NonZero, the contents of a Reshape's shape that
//! a network computes). The continuation is planned from the values met, and cached by their shapes.

mod check;
mod control;
mod cost;
mod dynamic;
mod frame;
mod key;
mod memory;
mod output;
mod program;
mod run;
mod segment;
mod share;
mod specialise;
mod stack;
mod template;

pub use check::{Check, Refusal};
pub use cost::Cost;
pub use dynamic::Given;
pub use memory::Needed;
pub use output::{Lent, Output, Receiver};
pub use program::{Program, Target};
pub use run::{RunCtx, Timing};
pub use segment::{DynamicItem, Item, Segment, Slot, SlotKind, StepItem, Tail};
pub use share::Within;
