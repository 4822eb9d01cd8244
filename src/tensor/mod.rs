//! Element types, shapes, tensors and views.

mod dtype;
pub mod join;
mod narrow;
mod storage;
mod value;
mod view;

pub use dtype::{DType, Element};
pub use narrow::{decode_narrow, encode_narrow, unpack_bits, write_packed};
pub use value::{MapValue, SequenceValue, Value};
pub use view::TensorView;

use crate::base::alloc::{Buffer, Pile, filled, gathered};
use crate::base::checked;
use crate::error::Result;
use crate::{bail, ensure};
use bytes::Bytes;
use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use storage::{Late, Storage};

/// Sizes of a tensor's axes, outermost first.
pub type Dims = smallvec::SmallVec<[usize; 6]>;

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
            DType::String => {
                return Tensor::from_strings(shape, filled(n, String::new())?);
            }
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
    /// Elements that `fill` computes, all of them, when they are first read; the memory is there from the start.
    pub(crate) fn late<T: Element>(
        memory: &Pile,
        shape: &[usize],
        fill: impl FnOnce(&mut [T]) + Send + 'static,
    ) -> Result<Tensor> {
        let n = checked::product(shape)?;
        let buffer = memory.take(T::DTYPE.byte_len(n)?)?;
        // SAFETY: the storage calls this once, with its buffer of n elements, before anyone reads it.
        let fill = move |to: *mut u8| fill(unsafe { std::slice::from_raw_parts_mut(to.cast::<T>(), n) });
        let storage = Storage::Late(Late::new(buffer, Box::new(fill)));
        Ok(Tensor { dtype: T::DTYPE, shape: shape.into(), storage: Arc::new(storage) })
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
    /// The elements of an iterator, which must give as many as the shape has: no list of them is made in between.
    pub(crate) fn gathered<T: Element>(shape: &[usize], items: impl Iterator<Item = T>) -> Result<Tensor> {
        Tensor::try_gathered(shape, items.map(Ok))
    }
    /// The same for elements that may be errors.
    pub(crate) fn try_gathered<T: Element>(shape: &[usize], items: impl Iterator<Item = Result<T>>) -> Result<Tensor> {
        Tensor::uninit(T::DTYPE, shape)?.fill(items)
    }
    /// The same tensor with other elements, as many as it has; it must be nobody else's.
    pub(crate) fn fill<T: Element>(mut self, items: impl Iterator<Item = Result<T>>) -> Result<Tensor> {
        let (n, mut made) = (self.len(), 0);
        let to = self.data_mut_ptr().filter(|_| T::DTYPE == self.dtype);
        let Some(to) = to.map(<*mut u8>::cast::<T>) else { bail!(Internal, "{self:?} cannot be filled") };
        for x in items.take(n) {
            // SAFETY: `made` is below n, the number of its elements, which are of this type; nobody else sees them.
            unsafe { to.add(made).write(x?) };
            made += 1;
        }
        ensure!(made == n, Internal, "{made} elements for {self:?}");
        Ok(self)
    }
    /// A scalar.
    pub fn scalar<T: Element>(x: T) -> Result<Tensor> {
        Tensor::from_slice(&[], &[x])
    }
    /// A tensor of strings.
    pub fn from_strings(shape: &[usize], data: Vec<String>) -> Result<Tensor> {
        let n = checked::product(shape)?;
        ensure!(n == data.len(), InvalidArgument, "shape {shape:?} has {n} elements, the data has {}", data.len());
        Ok(Tensor { dtype: DType::String, shape: shape.into(), storage: Arc::new(Storage::strings(data)?) })
    }
    /// A tensor over raw little-endian bytes, which are shared where that is worth while, else copied. Not for strings.
    /// Bools other than 0 and 1 become 1.
    pub fn from_bytes(dtype: DType, shape: &[usize], data: Bytes) -> Result<Tensor> {
        // SAFETY: they are not said to be mapped.
        unsafe { Self::from_file(dtype, shape, data, false) }
    }
    /// As [`Tensor::from_bytes`], for bytes of a file, which need no alignment. Large ones that lie askew are copied only
    /// when somebody needs them aligned ([`Tensor::settle`]).
    ///
    /// # Safety
    /// If `mapped`, the bytes are a part of a read-only file mapping.
    pub(crate) unsafe fn from_file(dtype: DType, shape: &[usize], data: Bytes, mapped: bool) -> Result<Tensor> {
        ensure!(dtype != DType::String, InvalidArgument, "strings are not raw bytes");
        let want = dtype.byte_len(checked::product(shape)?)?;
        ensure!(data.len() == want, InvalidModel, "{dtype} {shape:?} needs {want} bytes, there are {}", data.len());
        // Any other byte in a Rust `bool` is undefined behaviour.
        let (data, mapped) = match dtype {
            DType::Bool if data.iter().any(|&b| b > 1) => (data.iter().map(|&b| u8::from(b != 0)).collect(), false),
            _ => (data, mapped),
        };
        Ok(Tensor { dtype, shape: shape.into(), storage: Arc::new(Storage::of_file(dtype, data, mapped)?) })
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
    /// The first element's address; null for strings. Valid for `byte_len()` bytes as long as a clone lives; aligned for
    /// the type, but for a large constant of a model file that nobody has settled yet.
    pub fn data_ptr(&self) -> *const u8 {
        self.storage.ptr()
    }
    /// Makes sure that `data_ptr` is aligned: copies what lies askew in a file, once for all clones.
    pub fn settle(&self) -> Result<()> {
        self.storage.settle()
    }
    /// The same elements at an aligned address, for one look: what lies askew in a file is copied for as long as this lives.
    pub(crate) fn aligned(&self) -> Result<Tensor> {
        Ok(match self.storage.passing()? {
            Some(copy) => Tensor { storage: Arc::new(Storage::Owned(copy)), ..self.clone() },
            None => self.clone(),
        })
    }
    /// For a constant that its kernels hold in a form of their own by now: gives the memory of the file's pages back.
    /// They are read again when touched.
    pub(crate) fn release(&self) {
        self.storage.release();
    }
    /// An address that tells tensors of different storage apart, and stays.
    pub(crate) fn identity(&self) -> usize {
        self.storage.identity()
    }
    /// The first element's address for writing: `None` if the storage is shared, read-only, or strings.
    pub fn data_mut_ptr(&mut self) -> Option<*mut u8> {
        // `Arc::get_mut` would lock out weak references, of which nobody makes any.
        if Arc::strong_count(&self.storage) != 1 {
            return None;
        }
        // What former holders did to the memory is done.
        fence(Ordering::Acquire);
        match &*self.storage {
            Storage::Owned(b) => Some(b.ptr()),
            Storage::Foreign { ptr, writable: true, .. } => Some(*ptr),
            _ => None,
        }
    }
    /// How many bytes its memory has, if that is its own and nobody else holds it.
    pub(crate) fn room(&self) -> Option<usize> {
        match &*self.storage {
            Storage::Owned(b) if Arc::strong_count(&self.storage) == 1 => {
                fence(Ordering::Acquire);
                Some(b.len())
            }
            _ => None,
        }
    }
    /// The same, if it is for these elements; a small tensor must not keep a large one's memory.
    pub(crate) fn room_for(&self, dtype: DType, shape: &[usize]) -> Option<usize> {
        let bytes = dtype.byte_len(checked::product(shape).ok()?).ok()?;
        let most = bytes.saturating_mul(8).max(1 << 20);
        self.room().filter(|room| dtype != DType::String && (bytes..=most).contains(room))
    }
    /// Elements of anything in the same memory, which must be its own and have the room.
    pub(crate) fn remade(mut self, dtype: DType, shape: &[usize]) -> Result<Tensor> {
        let want = dtype.byte_len(checked::product(shape)?)?;
        ensure!(dtype != DType::String && self.room() >= Some(want), Internal, "no room for {dtype} {shape:?}");
        self.dtype = dtype;
        self.shape.clear();
        self.shape.extend_from_slice(shape);
        Ok(self)
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
        self.settle()?;
        let n = self.len();
        // SAFETY: T matches the dtype, the pointer is aligned (checked where it came in, or settled), n elements are there.
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
            Storage::Strings(s, _) => Ok(s),
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
            Storage::Strings(s, _) => Tensor::from_strings(&self.shape, gathered(s.iter().cloned())?),
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
    #[test]
    fn what_lies_askew_in_a_file_is_copied_when_needed() {
        let values: Vec<f32> = (0..40_000).map(|i| i as f32).collect();
        let mut file = vec![0u8; 8];
        file.extend(values.iter().flat_map(|x| x.to_le_bytes()));
        file.extend([0u8; 8]);
        let file = Bytes::from(file);
        let skew = (1..5).find(|&k| !(file.as_ptr() as usize + k).is_multiple_of(4)).unwrap();
        let moved = Bytes::from([vec![0u8; skew], file[8..8 + 160_000].to_vec()].concat());
        let at = moved.slice(skew..);
        let askew = !(at.as_ptr() as usize).is_multiple_of(4);
        let t = Tensor::from_bytes(DType::F32, &[40_000], at.clone()).unwrap();
        let (id, clone) = (t.identity(), t.clone());
        assert_eq!(t.data_ptr(), at.as_ptr(), "nothing is copied before it is needed");
        {
            let once = t.aligned().unwrap();
            assert!(once.data_ptr().cast::<f32>().is_aligned());
            assert_eq!(once.as_slice::<f32>().unwrap(), values);
        }
        assert_eq!(t.data_ptr(), at.as_ptr(), "the copy for one look is gone");
        assert_eq!(t.as_slice::<f32>().unwrap(), values);
        assert_eq!(t.data_ptr() != at.as_ptr(), askew);
        assert_eq!(clone.data_ptr(), t.data_ptr(), "one copy for all clones");
        assert_eq!(t.identity(), id);
        assert_eq!(t.bytes(), &at[..]);
    }
}
