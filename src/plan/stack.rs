//! Sequences of tensors as one: elements along an axis, taken and put.

use super::output::Receiver;
use crate::base::checked::product;
use crate::error::Result;
use crate::ir::Fact;
use crate::ir::op::resolve_axis;
use crate::tensor::{DType, Dims, Tensor, TensorView, Value, join};
use crate::{ensure, err};

/// Tensors of one shape on their way to be one, along a new axis.
pub struct Stack<'a> {
    out: &'a mut Option<Value>,
    axis: i64,
    /// For how many there is room.
    room: usize,
    /// Whether any is there.
    begun: bool,
    /// Those without a place of whole bytes: strings, elements that share a byte. In order of their places.
    parts: Vec<(usize, Tensor)>,
}

impl<'a> Stack<'a> {
    /// The room to begin with where the number is not known; it is doubled when it is full.
    pub const FIRST: usize = 16;

    /// Room for so many along the axis, in the tensor that is there if it fits.
    pub fn new(out: &'a mut Option<Value>, axis: i64, room: usize) -> Stack<'a> {
        Stack { out, axis, room, begun: false, parts: Vec::new() }
    }

    /// Puts one at its place. Places beyond the room make it grow, if the axis is the first.
    pub fn put(&mut self, t: &TensorView<'_>, at: usize) -> Result<()> {
        let Some(size) = t.dtype().size() else {
            self.parts.push((at, t.to_tensor()?));
            return Ok(());
        };
        let axis = resolve_axis(self.axis, t.shape().len() + 1)?;
        let mut shape: Dims = t.shape().into();
        shape.insert(axis, self.room);
        if !self.begun {
            self.out.ready(t.dtype(), &shape)?;
            self.begun = true;
        }
        if at >= self.room {
            ensure!(axis == 0, Internal, "element {at} of {}", self.room);
            let room = self.room.saturating_mul(2).max(Self::FIRST).max(at + 1);
            self.resize(room, self.room)?;
            shape[0] = room;
        }
        let Some(Value::Tensor(out)) = self.out else { return Err(err!(Internal, "nothing to stack in")) };
        ensure!(
            out.dtype() == t.dtype() && out.shape() == &shape[..],
            Run,
            "{}{:?} does not go with {out:?} along axis {axis}",
            t.dtype(),
            t.shape()
        );
        let (outer, inner) =
            (shape[..axis].iter().product::<usize>(), shape[axis + 1..].iter().product::<usize>() * size);
        let (from, room) = (t.bytes(), self.room);
        let to = out.data_mut_ptr().ok_or_else(|| err!(Internal, "the stack is shared"))?;
        for o in 0..outer {
            // SAFETY: `at` is below the room; the shape has outer * room * inner bytes, t has outer * inner.
            unsafe {
                std::ptr::copy_nonoverlapping(from.as_ptr().add(o * inner), to.add((o * room + at) * inner), inner)
            };
        }
        Ok(())
    }

    /// Room for others; the first `keep` stay. Only where the axis is the first.
    fn resize(&mut self, room: usize, keep: usize) -> Result<()> {
        let Some(Value::Tensor(old)) = &*self.out else { return Err(err!(Internal, "nothing to stack in")) };
        let mut shape: Dims = old.shape().into();
        shape[0] = room;
        let mut new = Tensor::uninit(old.dtype(), &shape)?;
        let row = old.byte_len().checked_div(self.room).unwrap_or(0);
        let to = new.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?;
        // SAFETY: both have `keep` rows at least.
        unsafe { std::ptr::copy_nonoverlapping(old.data_ptr(), to, keep.min(room).min(self.room) * row) };
        (self.room, *self.out) = (room, Some(Value::Tensor(new)));
        Ok(())
    }

    /// The stack has `n`, of which those behind `put` are zero. Where none was put `empty` tells the type and shape of one: a
    /// size that it does not know is 0, and so is a whole shape.
    pub fn finish(mut self, put: usize, n: usize, empty: &Fact) -> Result<()> {
        if !self.parts.is_empty() {
            self.parts.sort_by_key(|p| p.0);
            let mut parts: Vec<Tensor> = std::mem::take(&mut self.parts).into_iter().map(|p| p.1).collect();
            let filler = Tensor::zeroed(parts[0].dtype(), parts[0].shape())?;
            parts.resize(n, filler);
            let axis = resolve_axis(self.axis, parts[0].shape().len() + 1)?;
            *self.out = Some(Value::Tensor(join::stack(&parts, axis)?));
        } else if !self.begun {
            let dtype = empty.dtype().unwrap_or(DType::F32);
            let dims = empty.as_tensor().and_then(|t| t.dims.as_deref()).unwrap_or_default();
            let mut shape: Dims = dims.iter().map(|d| d.size().unwrap_or(0)).collect();
            shape.insert(resolve_axis(self.axis, shape.len() + 1)?, n);
            if dtype == DType::String {
                *self.out = Some(Value::Tensor(Tensor::zeroed(dtype, &shape)?));
            } else {
                let bytes = dtype.byte_len(product(&shape)?)?;
                // SAFETY: memory for a tensor of these bytes.
                unsafe { self.out.ready(dtype, &shape)?.write_bytes(0, bytes) };
            }
        } else if n != self.room {
            self.resize(n, n)?;
        }
        if let Some(Value::Tensor(out)) = self.out
            && self.begun
            && put < n
        {
            ensure!(self.axis == 0, Internal, "{put} of {n} elements along axis {}", self.axis);
            let row = out.byte_len() / n;
            let to = out.data_mut_ptr().ok_or_else(|| err!(Internal, "the stack is shared"))?;
            // SAFETY: the tensor has n rows of so many bytes.
            unsafe { to.add(put * row).write_bytes(0, (n - put) * row) };
        }
        Ok(())
    }
}

/// Element `at` of an axis, which goes: read where it lies if its elements lie together, else copied to `own`.
pub fn element<'a>(t: &TensorView<'a>, axis: usize, at: usize, own: &'a mut Option<Value>) -> Result<TensorView<'a>> {
    let mut shape: Dims = t.shape().into();
    let n = shape.remove(axis);
    let Some(size) = t.dtype().size() else {
        *own = Some(Value::Tensor(join::index(&t.to_tensor()?, axis, at)?));
        return view(own);
    };
    ensure!(at < n, Internal, "element {at} of {n}");
    let (outer, inner) = (shape[..axis].iter().product::<usize>(), shape[axis..].iter().product::<usize>() * size);
    if outer == 1 {
        // SAFETY: a part of the tensor (`at` is below n), at a multiple of its type's size, as alive as the tensor is.
        return Ok(unsafe { TensorView::from_raw(t.dtype(), &shape, t.ptr().wrapping_add(at * inner)) });
    }
    let from = t.bytes();
    let to = own.ready(t.dtype(), &shape)?;
    for o in 0..outer {
        let row = &from[(o * n + at) * inner..][..inner];
        // SAFETY: the tensor was made for outer * inner bytes, and is nobody else's.
        unsafe { std::ptr::copy_nonoverlapping(row.as_ptr(), to.add(o * inner), inner) };
    }
    view(own)
}

fn view(own: &Option<Value>) -> Result<TensorView<'_>> {
    match own {
        Some(Value::Tensor(t)) => Ok(t.as_view()),
        _ => Err(err!(Internal, "an element is not there")),
    }
}
