//! A borrowed look at a tensor.

use super::{DType, Dims, Element, Tensor, unpack_bits};
use crate::base::alloc::{filled, gathered, try_gathered};
use crate::error::Result;
use crate::{bail, ensure, err};
use std::marker::PhantomData;

/// A dense row-major tensor that somebody else owns: an arena, a caller, or a [`Tensor`].
#[derive(Clone)]
pub struct TensorView<'a> {
    dtype: DType,
    shape: Dims,
    ptr: *const u8,
    strings: Option<&'a [String]>,
    /// The tensor behind it, where there is one: then a clone is free.
    owner: Option<&'a Tensor>,
    _life: PhantomData<&'a [u8]>,
}

impl<'a> TensorView<'a> {
    pub(super) fn of(t: &'a Tensor) -> Self {
        // Where there is no memory for that, `as_slice` says so.
        let _ = t.settle();
        TensorView {
            dtype: t.dtype(),
            shape: t.shape().into(),
            ptr: t.data_ptr(),
            strings: if t.dtype() == DType::String { t.as_strings().ok() } else { None },
            owner: Some(t),
            _life: PhantomData,
        }
    }
    /// A view of raw memory.
    ///
    /// # Safety
    /// `ptr` must be valid, aligned for `dtype`, and filled for all elements of `shape`, for `'a`. Not for strings.
    pub unsafe fn from_raw(dtype: DType, shape: &[usize], ptr: *const u8) -> Self {
        TensorView { dtype, shape: shape.into(), ptr, strings: None, owner: None, _life: PhantomData }
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Axis sizes.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
    /// The first element's address.
    pub fn ptr(&self) -> *const u8 {
        self.ptr
    }
    /// The data as bytes (empty for strings).
    pub fn bytes(&self) -> &'a [u8] {
        let n = self.dtype.byte_len(self.len()).unwrap_or(0);
        // SAFETY: by the promise of `from_raw`, or the owner's own.
        if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.ptr, n) } }
    }
    /// The elements, or an error if they are of another type.
    pub fn as_slice<T: Element>(&self) -> Result<&'a [T]> {
        ensure!(T::DTYPE == self.dtype, InvalidArgument, "the tensor is {}, not {}", self.dtype, T::DTYPE);
        ensure!(self.ptr.cast::<T>().is_aligned(), OutOfMemory, "no memory to align {} of a file", self.dtype);
        let n = self.len();
        // SAFETY: by the promise of `from_raw`, or the owner's own; the type matches, and the address is aligned.
        Ok(if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.ptr.cast(), n) } })
    }
    /// The strings, or an error if the elements are no strings.
    pub fn as_strings(&self) -> Result<&'a [String]> {
        match self.strings {
            Some(s) => Ok(s),
            None => bail!(InvalidArgument, "the tensor is {}, not string", self.dtype),
        }
    }
    /// A tensor that may outlive the view: shares the owner's storage where there is one, else copies.
    pub fn to_tensor(&self) -> Result<Tensor> {
        match (self.owner, self.strings) {
            (Some(t), _) => Ok(t.clone()),
            (None, Some(s)) => Tensor::from_strings(&self.shape, gathered(s.iter().cloned())?),
            (None, None) => {
                let t = Tensor::uninit(self.dtype, &self.shape)?;
                let b = self.bytes();
                // SAFETY: t is new and has as many bytes as the view.
                unsafe { std::ptr::copy_nonoverlapping(b.as_ptr(), t.data_ptr().cast_mut(), b.len()) };
                Ok(t)
            }
        }
    }
    /// Integers of any width (or bool) as i64; an error for other types. u64 above i64's range is an error too.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        macro_rules! all {
            ($t:ty) => {
                gathered(self.as_slice::<$t>()?.iter().map(|&x| x as i64))?
            };
        }
        Ok(match self.dtype {
            DType::I64 => all!(i64),
            DType::I32 => all!(i32),
            DType::I16 => all!(i16),
            DType::I8 => all!(i8),
            DType::U8 => all!(u8),
            DType::U16 => all!(u16),
            DType::U32 => all!(u32),
            DType::Bool => gathered(self.bytes().iter().map(|&b| i64::from(b != 0)))?,
            DType::U64 => {
                let narrow = |&x: &u64| {
                    i64::try_from(x).map_err(|_| err!(InvalidArgument, "an unsigned value passes the range of int64"))
                };
                try_gathered(self.as_slice::<u64>()?.iter().map(narrow))?
            }
            d @ (DType::U4 | DType::I4 | DType::U2 | DType::I2) => {
                let mut v = filled(self.len(), 0)?;
                unpack_bits(d, self.bytes(), self.len(), |i, b| v[i] = super::decode_narrow(d, b) as i64);
                v
            }
            d => bail!(InvalidArgument, "integers are needed here, not {d}"),
        })
    }
}
