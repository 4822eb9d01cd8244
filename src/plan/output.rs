//! Where runs put what they give.

use crate::backend::cpu::Arg;
use crate::error::Result;
use crate::tensor::{DType, Dims, Tensor, Value};
use crate::{bail, ensure, err};

/// Where a run puts an output.
pub trait Receiver {
    /// Memory to write a tensor of this type and shape to.
    fn ready(&mut self, dtype: DType, shape: &[usize]) -> Result<*mut u8>;
    /// Takes a value that is there: copied where there is memory for it.
    fn give(&mut self, a: &Arg<'_>) -> Result<()>;
}

/// A tensor that is there is written to if it fits and nobody else holds it, anything else is replaced, by a tensor in the same
/// memory where that is ours.
impl Receiver for Option<Value> {
    fn ready(&mut self, dtype: DType, shape: &[usize]) -> Result<*mut u8> {
        if let Some(Value::Tensor(t)) = self
            && t.dtype() == dtype
            && t.shape() == shape
            && let Some(p) = t.data_mut_ptr()
        {
            return Ok(p);
        }
        let mut t = match self.take() {
            Some(Value::Tensor(t)) if t.room_for(dtype, shape).is_some() => t.remade(dtype, shape)?,
            _ => Tensor::uninit(dtype, shape)?,
        };
        let p = t.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?;
        *self = Some(Value::Tensor(t));
        Ok(p)
    }
    fn give(&mut self, a: &Arg<'_>) -> Result<()> {
        if let (Some(Value::Tensor(o)), Arg::Tensor(t)) = (&mut *self, a)
            && o.dtype() == t.dtype()
            && o.shape() == t.shape()
            && t.dtype() != DType::String
            && let Some(p) = o.data_mut_ptr()
        {
            // SAFETY: both have the same type and shape, and o's storage is its own.
            unsafe { std::ptr::copy_nonoverlapping(t.bytes().as_ptr(), p, t.bytes().len()) };
            return Ok(());
        }
        *self = Some(a.to_value()?);
        Ok(())
    }
}

/// An output of a host that may have memory for it.
#[derive(Debug)]
pub enum Output {
    /// A value of ours, from an earlier run or none.
    Own(Option<Value>),
    /// Memory of the host's.
    Lent(Lent),
}

/// Memory that a host lends for a tensor of one type and shape, and keeps to itself otherwise.
#[derive(Debug)]
pub struct Lent {
    dtype: DType,
    shape: Dims,
    ptr: *mut u8,
}

// SAFETY: an address and what is there; who made it promised that it may be written from any thread.
unsafe impl Send for Lent {}

impl Lent {
    /// The memory of a tensor.
    ///
    /// # Safety
    /// `ptr` is the tensor's memory, which may be written as long as this is used, while nobody else looks at it.
    pub unsafe fn new(tensor: &Tensor, ptr: *mut u8) -> Lent {
        Lent { dtype: tensor.dtype(), shape: tensor.shape().into(), ptr }
    }
}

impl Receiver for Output {
    fn ready(&mut self, dtype: DType, shape: &[usize]) -> Result<*mut u8> {
        match self {
            Output::Own(v) => v.ready(dtype, shape),
            Output::Lent(l) => {
                ensure!(
                    l.dtype == dtype && &l.shape[..] == shape,
                    InvalidArgument,
                    "the model gives {dtype}{shape:?}, the tensor to write to is {}{:?}",
                    l.dtype,
                    &l.shape[..]
                );
                Ok(l.ptr)
            }
        }
    }
    fn give(&mut self, a: &Arg<'_>) -> Result<()> {
        match (&mut *self, a) {
            (Output::Own(v), a) => v.give(a),
            (Output::Lent(_), Arg::Tensor(t)) => {
                let (to, from) = (self.ready(t.dtype(), t.shape())?, t.bytes());
                // SAFETY: memory for this type and shape; it overlaps no input, and the run has no other value there.
                unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to, from.len()) };
                Ok(())
            }
            (Output::Lent(_), Arg::Value(v)) => bail!(InvalidArgument, "the model gives {}, not a tensor", v.kind()),
            (Output::Lent(_), Arg::Absent) => bail!(Internal, "an output was not made"),
        }
    }
}
