//! Element types, shapes, tensors and views.

mod dtype;
mod narrow;
mod value;
mod view;

pub use dtype::{DType, Element};
pub use narrow::{decode_narrow, encode_narrow, unpack_bits, write_packed};
pub use value::{MapValue, SequenceValue, Value};
pub use view::TensorView;

use crate::base::alloc::Buffer;
use crate::base::checked;
use crate::error::Result;
use crate::{bail, ensure};
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;

/// Sizes of a tensor's axes, outermost first.
pub type Dims = smallvec::SmallVec<[usize; 6]>;

/// Where a tensor's elements live.
enum Storage {
    /// Memory of our own, from `base::alloc`.
    Owned(Buffer),
    /// Part of a model file: mapped, or read.
    Bytes(Bytes),
    /// The caller's memory, borrowed without copying; `_keep` lives as long as anyone may look at it.
    Foreign { ptr: *mut u8, writable: bool, _keep: Option<Box<dyn Any + Send + Sync>> },
    /// String elements.
    Strings(Vec<String>),
}

// SAFETY: the only part that is not Send or Sync by itself is the foreign pointer, whose giver promised (see
// `Tensor::borrow_raw`) that it may be used from any thread.
unsafe impl Send for Storage {}
// SAFETY: as above; shared access only reads.
unsafe impl Sync for Storage {}

/// A dense row-major tensor. Cloning shares the storage. Types of fewer than 8 bits are packed as in ONNX files:
/// the first element in the low bits of each byte.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Dims,
    storage: Arc<Storage>,
}

impl Tensor {
    /// Zeros (empty strings for `String`). `OutOfMemory` where they don't fit.
    pub fn zeroed(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let n = checked::product(shape)?;
        let storage = match dtype {
            DType::String => Storage::Strings(vec![String::new(); n]),
            _ => Storage::Owned(Buffer::zeroed(dtype.byte_len(n)?)?),
        };
        Ok(Tensor { dtype, shape: shape.into(), storage: Arc::new(storage) })
    }
    /// Elements of anything, for a kernel to fill. Strings are not allowed.
    pub(crate) fn uninit(dtype: DType, shape: &[usize]) -> Result<Tensor> {
        ensure!(dtype != DType::String, Internal, "strings cannot be uninitialised");
        let n = checked::product(shape)?;
        let storage = Storage::Owned(Buffer::uninit(dtype.byte_len(n)?)?);
        Ok(Tensor { dtype, shape: shape.into(), storage: Arc::new(storage) })
    }
    /// A copy of `data` with `shape`; their element counts must agree.
    pub fn from_slice<T: Element>(shape: &[usize], data: &[T]) -> Result<Tensor> {
        let n = checked::product(shape)?;
        ensure!(n == data.len(), InvalidArgument, "shape {shape:?} has {n} elements, the data has {}", data.len());
        let t = Tensor::uninit(T::DTYPE, shape)?;
        // SAFETY: the buffer was just made for n elements of T, and nobody else sees it yet.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), t.data_ptr().cast_mut().cast::<T>(), n) };
        Ok(t)
    }
    /// A scalar.
    pub fn scalar<T: Element>(x: T) -> Result<Tensor> {
        Tensor::from_slice(&[], &[x])
    }
    /// A tensor of strings.
    pub fn from_strings(shape: &[usize], data: Vec<String>) -> Result<Tensor> {
        let n = checked::product(shape)?;
        ensure!(n == data.len(), InvalidArgument, "shape {shape:?} has {n} elements, the data has {}", data.len());
        Ok(Tensor { dtype: DType::String, shape: shape.into(), storage: Arc::new(Storage::Strings(data)) })
    }
    /// A tensor over raw little-endian bytes: shared where their alignment allows, else copied. Not for strings. Bools
    /// other than 0 and 1 become 1.
    pub fn from_bytes(dtype: DType, shape: &[usize], data: Bytes) -> Result<Tensor> {
        ensure!(dtype != DType::String, InvalidArgument, "strings are not raw bytes");
        let want = dtype.byte_len(checked::product(shape)?)?;
        ensure!(data.len() == want, InvalidModel, "{dtype} {shape:?} needs {want} bytes, there are {}", data.len());
        // Any other byte in a Rust `bool` is undefined behaviour.
        let data = match dtype {
            DType::Bool if data.iter().any(|&b| b > 1) => data.iter().map(|&b| u8::from(b != 0)).collect(),
            _ => data,
        };
        let aligned = (data.as_ptr() as usize).is_multiple_of(dtype.align());
        let storage = if aligned {
            Storage::Bytes(data)
        } else {
            let b = Buffer::uninit(want)?;
            // SAFETY: b has `want` bytes of its own, and so has data.
            unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), b.ptr(), want) };
            Storage::Owned(b)
        };
        Ok(Tensor { dtype, shape: shape.into(), storage: Arc::new(storage) })
    }
    /// A tensor over the caller's memory, without copying. Not for strings.
    ///
    /// # Safety
    /// `ptr` must be valid for `dtype.byte_len(product(shape))` bytes, reads and (if `writable`) writes, from any
    /// thread, until the tensor and all its clones are gone or `keep` is dropped with them. Bools must be 0 or 1.
    pub unsafe fn borrow_raw(
        dtype: DType,
        shape: &[usize],
        ptr: *mut u8,
        writable: bool,
        keep: Option<Box<dyn Any + Send + Sync>>,
    ) -> Result<Tensor> {
        ensure!(dtype != DType::String, InvalidArgument, "strings cannot be borrowed");
        let len = dtype.byte_len(checked::product(shape)?)?;
        ensure!(len == 0 || !ptr.is_null(), InvalidArgument, "the data pointer is null");
        ensure!(
            (ptr as usize).is_multiple_of(dtype.align()),
            InvalidArgument,
            "the data pointer {ptr:p} is not aligned to {} bytes, as {dtype} needs",
            dtype.align()
        );
        let storage = Storage::Foreign { ptr, writable, _keep: keep };
        Ok(Tensor { dtype, shape: shape.into(), storage: Arc::new(storage) })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Axis sizes, outermost first; empty for a scalar.
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
    /// Size of the data in bytes (0 for strings).
    pub fn byte_len(&self) -> usize {
        self.dtype.byte_len(self.len()).unwrap_or(0)
    }
    /// The first element's address; null for strings. Valid for `byte_len()` bytes as long as a clone lives.
    pub fn data_ptr(&self) -> *const u8 {
        match &*self.storage {
            Storage::Owned(b) => b.ptr(),
            Storage::Bytes(b) => b.as_ptr(),
            Storage::Foreign { ptr, .. } => *ptr,
            Storage::Strings(_) => std::ptr::null(),
        }
    }
    /// The first element's address for writing: `None` if the storage is shared, read-only, or strings.
    pub fn data_mut_ptr(&mut self) -> Option<*mut u8> {
        match Arc::get_mut(&mut self.storage)? {
            Storage::Owned(b) => Some(b.ptr()),
            Storage::Foreign { ptr, writable: true, .. } => Some(*ptr),
            _ => None,
        }
    }
    /// The address for writing of memory that the host lent, shared or not: the host itself answers for who reads it
    /// meanwhile. `None` for all other memory.
    pub fn lent_ptr(&self) -> Option<*mut u8> {
        match &*self.storage {
            Storage::Foreign { ptr, writable: true, .. } => Some(*ptr),
            _ => None,
        }
    }
    /// The data as bytes (empty for strings).
    pub fn bytes(&self) -> &[u8] {
        let (p, n) = (self.data_ptr(), self.byte_len());
        // SAFETY: each storage holds byte_len() bytes; the constructors checked or promised it. Every byte of an
        // uninit tensor is written before a reader gets it (crate rule for `uninit`).
        if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(p, n) } }
    }
    /// The elements, or an error if they are of another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        ensure!(T::DTYPE == self.dtype, InvalidArgument, "the tensor is {}, not {}", self.dtype, T::DTYPE);
        let n = self.len();
        // SAFETY: T matches the dtype, the pointer is aligned (checked where it came in), n elements are there.
        Ok(if n == 0 { &[] } else { unsafe { std::slice::from_raw_parts(self.data_ptr().cast(), n) } })
    }
    /// The elements for writing: fails if of another type, shared, or read-only.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        ensure!(T::DTYPE == self.dtype, InvalidArgument, "the tensor is {}, not {}", self.dtype, T::DTYPE);
        let n = self.len();
        let Some(p) = self.data_mut_ptr() else { bail!(InvalidArgument, "the tensor is shared or read-only") };
        // SAFETY: as in `as_slice`; Arc::get_mut showed that nobody else holds the storage.
        Ok(if n == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(p.cast(), n) } })
    }
    /// The strings, or an error if the elements are no strings.
    pub fn as_strings(&self) -> Result<&[String]> {
        match &*self.storage {
            Storage::Strings(s) => Ok(s),
            _ => bail!(InvalidArgument, "the tensor is {}, not string", self.dtype),
        }
    }
    /// An `ndarray` view of the elements.
    pub fn view<T: Element>(&self) -> Result<ndarray::ArrayViewD<'_, T>> {
        let s = self.as_slice::<T>()?;
        ndarray::ArrayViewD::from_shape(&self.shape[..], s).map_err(|e| crate::err!(Internal, "{e}"))
    }
    /// A copy of an `ndarray` array of any layout.
    pub fn from_array<T: Element, D: ndarray::Dimension>(a: ndarray::ArrayView<'_, T, D>) -> Result<Tensor> {
        let a = a.as_standard_layout();
        match a.as_slice() {
            Some(s) => Tensor::from_slice(a.shape(), s),
            None => bail!(Internal, "a standard-layout array has no slice"),
        }
    }
    /// The same elements under another shape of the same count.
    pub fn reshaped(&self, shape: &[usize]) -> Result<Tensor> {
        ensure!(
            checked::product(shape)? == self.len(),
            InvalidArgument,
            "{:?} cannot be reshaped to {shape:?}: {} elements",
            self.shape,
            self.len()
        );
        Ok(Tensor { dtype: self.dtype, shape: shape.into(), storage: self.storage.clone() })
    }
    /// A borrowed view.
    pub fn as_view(&self) -> TensorView<'_> {
        TensorView::of(self)
    }
    /// A copy that owns its memory.
    pub fn deep_clone(&self) -> Result<Tensor> {
        match &*self.storage {
            Storage::Strings(s) => Tensor::from_strings(&self.shape, s.clone()),
            _ => {
                let t = Tensor::uninit(self.dtype, &self.shape)?;
                // SAFETY: both have byte_len() bytes, and t's are new.
                unsafe { std::ptr::copy_nonoverlapping(self.data_ptr(), t.data_ptr().cast_mut(), self.byte_len()) };
                Ok(t)
            }
        }
    }
    /// Integers of any width (or bool) as i64, for shapes and axes; an error for other types.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        self.as_view().to_i64s()
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, &self.shape[..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_bools_become_zero_and_one() {
        let t = Tensor::from_bytes(DType::Bool, &[4], Bytes::from_static(&[0, 1, 2, 255])).unwrap();
        assert_eq!(t.bytes(), [0, 1, 1, 1]);
        assert_eq!(t.as_slice::<bool>().unwrap(), [false, true, true, true]);
    }
}
