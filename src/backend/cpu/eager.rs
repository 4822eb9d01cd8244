//! Eager operators: values in, values out, for what no plan can foresee.

use crate::bail;
use crate::base::parallel::Parallel;
use crate::error::Result;
use crate::ir::Op;
use crate::tensor::{TensorView, Value};

/// An input of an eager operator.
#[derive(Clone)]
pub enum Arg<'a> {
    /// Not given.
    Absent,
    /// A tensor, strings included.
    Tensor(TensorView<'a>),
    /// A sequence, optional, or map.
    Value(&'a Value),
}

impl<'a> Arg<'a> {
    /// A look at a value.
    pub fn of(v: &'a Value) -> Arg<'a> {
        match v {
            Value::Tensor(t) => Arg::Tensor(t.as_view()),
            v => Arg::Value(v),
        }
    }
    /// The tensor, or an error.
    pub fn tensor(&self) -> Result<&TensorView<'a>> {
        match self {
            Arg::Tensor(t) => Ok(t),
            Arg::Absent => bail!(InvalidModel, "an input is missing"),
            Arg::Value(v) => bail!(InvalidModel, "a tensor is needed here, not {}", v.kind()),
        }
    }
    /// A value that may outlive the call.
    pub fn to_value(&self) -> Result<Value> {
        match self {
            Arg::Absent => bail!(InvalidModel, "an input is missing"),
            Arg::Tensor(t) => Ok(Value::Tensor(t.to_tensor()?)),
            Arg::Value(v) => Ok((*v).clone()),
        }
    }
    /// Whether the input is given.
    pub fn is_given(&self) -> bool {
        !matches!(self, Arg::Absent)
    }
}

/// What an eager operator may use.
pub struct EagerCtx<'a> {
    /// Threads.
    pub pool: &'a dyn Parallel,
    /// How many outputs the node has.
    pub outputs: usize,
}

/// An eager operator's implementation.
pub type EagerFn = Box<dyn Fn(&dyn Op, &EagerCtx<'_>, &[Arg<'_>]) -> Result<Vec<Value>> + Send + Sync>;
