//! Tensors joined, stacked and cut along an axis, in memory that is asked for: for values whose places are not planned.

use super::{DType, Tensor, unpack_bits, write_packed};
use crate::base::alloc::reserved;
use crate::base::checked;
use crate::error::Result;
use crate::{bail, ensure, err};
use std::borrow::Borrow;

/// Tensors of one type joined along an axis, in which alone they may differ.
pub fn concat<T: Borrow<Tensor>>(tensors: &[T], axis: usize) -> Result<Tensor> {
    let Some(first) = tensors.first().map(Borrow::borrow) else { bail!(Run, "nothing to join") };
    let mut shape = first.shape().to_vec();
    ensure!(axis < shape.len(), Run, "{first:?} cannot be joined along axis {axis}");
    for t in tensors[1..].iter().map(Borrow::borrow) {
        let same = t.dtype() == first.dtype()
            && t.shape().len() == shape.len()
            && t.shape().iter().zip(&shape).enumerate().all(|(i, (a, b))| i == axis || a == b);
        ensure!(same, Run, "{first:?} and {t:?} cannot be joined along axis {axis}");
        let longer = shape[axis].checked_add(t.shape()[axis]);
        shape[axis] = longer.ok_or_else(|| err!(OutOfMemory, "an axis longer than memory"))?;
    }
    let (outer, inner) = (checked::product(&shape[..axis])?, checked::product(&shape[axis + 1..])?);
    let run = |o: usize, t: &T| {
        let n = t.borrow().shape()[axis] * inner;
        (o * n, n)
    };
    in_bytes(tensors, &shape, |of| {
        let runs = (0..outer).flat_map(|o| tensors.iter().enumerate().map(move |(i, t)| (i, run(o, t))));
        assembled(of, &shape, runs)
    })
}

/// Tensors of one type and shape along a new axis.
pub fn stack<T: Borrow<Tensor>>(tensors: &[T], axis: usize) -> Result<Tensor> {
    let with_axis = tensors.iter().map(|t| {
        let mut shape = t.borrow().shape().to_vec();
        ensure!(axis <= shape.len(), Run, "{:?} has no place for an axis {axis}", t.borrow());
        shape.insert(axis, 1);
        t.borrow().reshaped(&shape)
    });
    concat(&with_axis.collect::<Result<Vec<_>>>()?, axis)
}

/// Elements `from..to` of an axis.
pub fn slice(t: &Tensor, axis: usize, from: usize, to: usize) -> Result<Tensor> {
    let mut shape = t.shape().to_vec();
    let n = shape.get(axis).copied().unwrap_or(0);
    ensure!(axis < shape.len() && from <= to && to <= n, Run, "elements {from} to {to} of axis {axis} of {t:?}");
    shape[axis] = to - from;
    let (outer, inner) = (checked::product(&shape[..axis])?, checked::product(&shape[axis + 1..])?);
    in_bytes(std::slice::from_ref(t), &shape, |of| {
        assembled(of, &shape, (0..outer).map(|o| (0, ((o * n + from) * inner, (to - from) * inner))))
    })
}

/// Element `at` of an axis; the axis goes.
pub fn index(t: &Tensor, axis: usize, at: usize) -> Result<Tensor> {
    let part = slice(t, axis, at, at.saturating_add(1))?;
    let mut shape = part.shape().to_vec();
    shape.remove(axis);
    part.reshaped(&shape)
}

/// Calls `make` with the tensors, elements that share a byte apart; what it makes is packed again.
fn in_bytes<T: Borrow<Tensor>>(
    tensors: &[T],
    shape: &[usize],
    make: impl FnOnce(&[&Tensor]) -> Result<Tensor>,
) -> Result<Tensor> {
    let tensors: Vec<&Tensor> = tensors.iter().map(Borrow::borrow).collect();
    let Some(dtype) = tensors.first().map(|t| t.dtype()).filter(|d| d.is_packed()) else { return make(&tensors) };
    let mut wide = Vec::new();
    for t in tensors {
        let mut w = Tensor::zeroed(DType::U8, t.shape())?;
        let to = w.as_mut_slice::<u8>()?;
        unpack_bits(dtype, t.bytes(), t.len(), |i, bits| to[i] = bits);
        wide.push(w);
    }
    let made = make(&wide.iter().collect::<Vec<_>>())?;
    let (mut out, from) = (Tensor::zeroed(dtype, shape)?, made.as_slice::<u8>()?);
    let n = out.byte_len();
    let to = out.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?;
    // SAFETY: the tensor's own bytes, all initialised, which nobody else sees yet.
    let to = if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(to, n) } };
    write_packed(dtype, to, from.len(), |i| from[i]);
    Ok(out)
}

/// Runs of elements (which tensor, first element, how many), one after the other.
fn assembled(of: &[&Tensor], shape: &[usize], runs: impl Iterator<Item = (usize, (usize, usize))>) -> Result<Tensor> {
    let Some(first) = of.first() else { bail!(Internal, "nothing to assemble") };
    if first.dtype() == DType::String {
        let mut out = reserved(checked::product(shape)?)?;
        for (i, (from, n)) in runs {
            out.extend_from_slice(&of[i].as_strings()?[from..from + n]);
        }
        return Tensor::from_strings(shape, out);
    }
    let size = first.dtype().size().ok_or_else(|| err!(Internal, "{} is packed", first.dtype()))?;
    let mut out = Tensor::uninit(first.dtype(), shape)?;
    let (to, total) = (out.data_mut_ptr().ok_or_else(|| err!(Internal, "a new tensor is shared"))?, out.byte_len());
    let mut at = 0;
    for (i, (from, n)) in runs {
        let part = &of[i].bytes()[from * size..(from + n) * size];
        ensure!(part.len() <= total - at, Internal, "more is copied than there is room for");
        // SAFETY: within the new tensor's bytes, as just checked; no other tensor has them.
        unsafe { std::ptr::copy_nonoverlapping(part.as_ptr(), to.add(at), part.len()) };
        at += part.len();
    }
    ensure!(at == total, Internal, "{at} of {total} bytes are written");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::budget::Budget;

    fn numbers(shape: &[usize], first: i32) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::from_slice(shape, &(first..first + n as i32).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn joined_and_cut_again() {
        let (a, b) = (numbers(&[2, 1, 3], 0), numbers(&[2, 2, 3], 100));
        let both = concat(&[&a, &b], 1).unwrap();
        let want = [0, 1, 2, 100, 101, 102, 103, 104, 105, 3, 4, 5, 106, 107, 108, 109, 110, 111];
        assert_eq!((both.shape(), both.as_slice::<i32>().unwrap()), (&[2, 3, 3][..], &want[..]));
        for (part, from, to) in [(&a, 0, 1), (&b, 1, 3)] {
            let cut = slice(&both, 1, from, to).unwrap();
            assert_eq!((cut.shape(), cut.bytes()), (part.shape(), part.bytes()));
        }
        assert_eq!(index(&both, 2, 1).unwrap().as_slice::<i32>().unwrap(), [1, 101, 104, 4, 107, 110]);
        let stacked = stack(&[a.clone(), a.clone()], 3).unwrap();
        assert_eq!(stacked.shape(), [2, 1, 3, 2]);
        assert_eq!(stacked.as_slice::<i32>().unwrap()[..4], [0, 0, 1, 1]);
        assert!(concat(&[&a, &b], 0).is_err() && concat(&[&a, &b], 3).is_err() && stack(&[&a, &b], 0).is_err());
        assert!(slice(&a, 1, 0, 2).is_err() && slice(&a, 5, 0, 0).is_err() && index(&a, 0, usize::MAX).is_err());
    }

    #[test]
    fn strings_packed_and_nothing() {
        let words = |w: &[&str]| Tensor::from_strings(&[w.len()], w.iter().map(|w| w.to_string()).collect()).unwrap();
        let both = concat(&[words(&["a"]), words(&["b", "c"])], 0).unwrap();
        assert_eq!(both.as_strings().unwrap(), ["a", "b", "c"]);
        assert_eq!(index(&both, 0, 2).unwrap().as_strings().unwrap(), ["c"]);
        // Three elements of four bits: the second tensor does not begin at a byte.
        let small = |n: usize, bytes: &[u8]| Tensor::from_bytes(DType::U4, &[n], bytes.to_vec().into()).unwrap();
        let both = concat(&[small(3, &[0x21, 0x03]), small(2, &[0x54])], 0).unwrap();
        assert_eq!((both.shape(), both.bytes()), (&[5][..], &[0x21, 0x43, 0x05][..]));
        assert_eq!(slice(&both, 0, 1, 4).unwrap().bytes(), [0x32, 0x04]);
        assert_eq!(concat(&[numbers(&[0, 3], 0), numbers(&[0, 3], 0)], 1).unwrap().shape(), [0, 6]);
    }

    #[test]
    fn memory_is_charged() {
        let a = numbers(&[1000], 0);
        let budget = Budget::new(Some(6000));
        let _scope = budget.enter();
        assert!(slice(&a, 0, 0, 500).is_ok());
        assert_eq!(concat(&[&a, &a], 0).unwrap_err().kind(), crate::error::ErrorKind::OutOfMemory);
        assert_eq!(stack(&[&a, &a], 0).unwrap_err().kind(), crate::error::ErrorKind::OutOfMemory);
    }
}
