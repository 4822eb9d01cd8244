//! Eager operators: values in, values out, for what no plan can foresee.

use crate::bail;
use crate::base::parallel::Parallel;
use crate::error::Result;
use crate::ir::Op;
use crate::tensor::{DType, Element, Tensor, TensorView, Value};
use smallvec::SmallVec;
use std::any::Any;

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

/// What an eager operator gives: a value an output.
pub type Values = SmallVec<[Value; 4]>;

/// What an eager operator keeps from run to run, so that sizes met before allocate nothing.
#[derive(Default)]
pub struct Memory {
    /// Its results.
    results: SmallVec<[Tensor; 4]>,
    /// Lists it works with.
    lists: Option<Box<dyn Any + Send>>,
}

impl Memory {
    /// Lets go of results that somebody else holds.
    pub fn end_run(&mut self) {
        self.results.retain(|t| t.room().is_some());
    }
}

/// What an eager operator may use.
pub struct EagerCtx<'a> {
    /// Threads.
    pub pool: &'a dyn Parallel,
    /// How many outputs the node has.
    pub outputs: usize,
    memory: Memory,
}

impl<'a> EagerCtx<'a> {
    /// With what the operator kept from the last time.
    pub fn new(pool: &'a dyn Parallel, outputs: usize, memory: Memory) -> EagerCtx<'a> {
        EagerCtx { pool, outputs, memory }
    }
    /// A tensor for the operator to fill: in the memory of an earlier result that fits best, if nobody holds that any more.
    /// Not for strings.
    pub fn tensor(&mut self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let rooms = self.memory.results.iter().enumerate().filter_map(|(i, t)| Some((t.room_for(dtype, shape)?, i)));
        match rooms.min() {
            Some((_, i)) => self.memory.results.remove(i).remade(dtype, shape),
            None => Tensor::uninit(dtype, shape),
        }
    }
    /// The elements of an iterator, which must give as many as the shape has, in such a tensor.
    pub fn gathered<T: Element>(&mut self, shape: &[usize], items: impl Iterator<Item = T>) -> Result<Tensor> {
        self.tensor(T::DTYPE, shape)?.fill(items.map(Ok))
    }
    /// The lists it worked with in the last run, or new ones; `keep` gives them back.
    pub fn lists<T: Any + Default + Send>(&mut self) -> Box<T> {
        self.memory.lists.take().and_then(|l| l.downcast().ok()).unwrap_or_default()
    }
    /// Keeps lists for the next run.
    pub fn keep<T: Any + Send>(&mut self, lists: Box<T>) {
        self.memory.lists = Some(lists);
    }
    /// What the operator keeps, of its results those that are nobody else's.
    pub fn into_memory(mut self, results: &[Value]) -> Memory {
        let own = |v: &Value| v.as_tensor().ok().filter(|t| t.room().is_some()).cloned();
        self.memory.results.clear();
        self.memory.results.extend(results.iter().filter_map(own));
        self.memory
    }
}

/// An eager operator's implementation.
pub type EagerFn = Box<dyn Fn(&dyn Op, &mut EagerCtx<'_>, &[Arg<'_>]) -> Result<Values> + Send + Sync>;
