//! Tensors: made of zeros, copies, borrowed memory, strings; looked at and written to.

use super::args::{array, get, get_mut, out, out_ptr};
use super::guard::guard;
use super::handle;
use super::pool::{Release, ortx_release};
use super::status::ortx_status;
use super::types::{ORTX_DTYPE_UNDEFINED, dtype, ortx_dtype};
use super::value::ortx_value;
use crate::base::alloc::Buffer;
use crate::base::checked;
use crate::error::{Context, Result};
use crate::tensor::{DType, Dims, Tensor, Value};
use crate::{bail, ensure, err};
use std::any::Any;
use std::ffi::{c_char, c_void};

/// No real tensor has more axes; a larger rank is a number that was not set.
const MAX_RANK: usize = 64;

/// # Safety
/// `shape` is NULL or valid for `rank` entries.
unsafe fn sizes(shape: *const i64, rank: usize) -> Result<Dims> {
    ensure!(rank <= MAX_RANK, InvalidArgument, "a rank of {rank}: at most {MAX_RANK} is possible");
    let shape = array!(shape, rank);
    let size = |(axis, &n): (usize, &i64)| {
        usize::try_from(n).map_err(|_| err!(InvalidArgument, "axis {axis} of shape {shape:?} has a negative size"))
    };
    shape.iter().enumerate().map(size).collect()
}

/// Memory for a tensor that the host asked for, and may write through any of its handles.
fn lend(dtype: DType, shape: &[usize], buffer: Buffer) -> Result<Tensor> {
    let (ptr, keep): (_, Box<dyn Any + Send + Sync>) = (buffer.ptr(), Box::new(buffer));
    // SAFETY: the buffer has the tensor's length (see the callers), and lives as long as `keep`.
    unsafe { Tensor::borrow_raw(dtype, shape, ptr, true, Some(keep)) }
}

/// Fails where a bool is neither 0 nor 1: kernels rely on it.
pub(super) fn check_bools(t: &Tensor) -> Result<()> {
    if t.dtype() == DType::Bool
        && let Some(i) = t.bytes().iter().position(|&b| b > 1)
    {
        bail!(InvalidArgument, "element {i} is the byte {}: bools are 0 or 1", t.bytes()[i]);
    }
    Ok(())
}

/// Makes a tensor of zeros (empty strings for ORTX_DTYPE_STRING) in memory of its own, aligned to 64 bytes.
///
/// Parameters: `dtype`, an ORTX_DTYPE_ number; `shape`, `rank` sizes, outermost first (NULL and 0 for a scalar); `tensor`
/// receives the handle.
/// Ownership: the caller owns the tensor and ends it with ortx_value_destroy.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type or a negative size; ORTX_ERROR_OUT_OF_MEMORY.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_create(
    dtype: ortx_dtype,
    shape: *const i64,
    rank: usize,
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let tensor = out_ptr!(tensor);
        // SAFETY: the function's contract.
        let (dtype, shape) = (self::dtype(dtype)?, unsafe { sizes(shape, rank) }?);
        let n = elements(dtype, &shape)?;
        let made = match dtype {
            DType::String => Tensor::zeroed(dtype, &shape)?,
            d => lend(d, &shape, Buffer::zeroed(d.byte_len(n)?)?)?,
        };
        tensor.set(handle::create(Value::Tensor(made)))
    })
}

/// The element count of a host's shape, if memory could hold it.
fn elements(dtype: DType, shape: &[usize]) -> Result<usize> {
    let n = checked::product(shape)
        .map_err(|_| err!(OutOfMemory, "shape {shape:?} has more elements than memory can hold"))?;
    if dtype == DType::String {
        // Vec would abort the process instead of failing.
        let mut probe: Vec<String> = Vec::new();
        probe.try_reserve_exact(n).map_err(|_| err!(OutOfMemory, "cannot allocate {n} strings"))?;
    }
    Ok(n)
}

/// Makes a tensor that holds a copy of data. Bytes of bools other than 0 become 1.
///
/// Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
/// without gaps, packed where elements have fewer than 8 bits; `size` must be what the shape needs; `tensor` receives the
/// handle.
/// Ownership: the caller owns the tensor and ends it with ortx_value_destroy; the data may go after the call.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size or another number of bytes;
/// ORTX_ERROR_OUT_OF_MEMORY.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_create_from_copy(
    dtype: ortx_dtype,
    shape: *const i64,
    rank: usize,
    data: *const c_void,
    size: usize,
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let tensor = out_ptr!(tensor);
        // SAFETY: the function's contract.
        let (dtype, shape) = (self::dtype(dtype)?, unsafe { sizes(shape, rank) }?);
        let need = byte_size(dtype, &shape, size)?;
        let data = data.cast::<u8>();
        let bytes = array!(data, size);
        let buffer = Buffer::uninit(need)?;
        // SAFETY: both have `need` bytes, and the buffer is new.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), buffer.ptr(), need) };
        if dtype == DType::Bool {
            for i in 0..need {
                // SAFETY: i is below the buffer's length, and all of it was written above.
                unsafe { buffer.ptr().add(i).write(u8::from(buffer.ptr().add(i).read() != 0)) };
            }
        }
        tensor.set(handle::create(Value::Tensor(lend(dtype, &shape, buffer)?)))
    })
}

fn byte_size(dtype: DType, shape: &[usize], size: usize) -> Result<usize> {
    ensure!(dtype != DType::String, InvalidArgument, "strings are not bytes: use ortx_tensor_create_from_strings");
    let need = dtype.byte_len(elements(dtype, shape)?)?;
    ensure!(need == size, InvalidArgument, "{dtype} {shape:?} takes {need} bytes, {size} are given");
    Ok(need)
}

/// Makes a tensor over memory that the caller has and may not be written, without copying it.
///
/// Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
/// without gaps, aligned to an element; `size` must be what the shape needs; `release`, or NULL, is called once with `user`
/// when the memory is not needed any more: after the last value that shares it is gone, or by this call where it fails;
/// `tensor` receives the handle.
/// Ownership: the caller owns the tensor and ends it with ortx_value_destroy. The memory must stay until the release, and
/// must not change while a run reads it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size, another number of bytes, a wrong
/// alignment, or bools other than 0 and 1.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_create_borrowed(
    dtype: ortx_dtype,
    shape: *const i64,
    rank: usize,
    data: *const c_void,
    size: usize,
    release: ortx_release,
    user: *mut c_void,
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    // SAFETY: the function's contract; the memory is not written to.
    unsafe { borrow(dtype, shape, rank, data.cast_mut(), size, false, (release, user), tensor) }
}

/// Makes a tensor over memory that the caller has and lets ortx write to, without copying it: for outputs, and for inputs
/// as well.
///
/// Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
/// without gaps, aligned to an element; `size` must be what the shape needs; `release`, or NULL, is called once with `user`
/// when the memory is not needed any more: after the last value that shares it is gone, or by this call where it fails;
/// `tensor` receives the handle.
/// Ownership: the caller owns the tensor and ends it with ortx_value_destroy. The memory must stay until the release, and
/// must not be read while a run writes it, nor written while a run reads it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size, another number of bytes, a wrong
/// alignment, or bools other than 0 and 1.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_create_borrowed_mut(
    dtype: ortx_dtype,
    shape: *const i64,
    rank: usize,
    data: *mut c_void,
    size: usize,
    release: ortx_release,
    user: *mut c_void,
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    // SAFETY: the function's contract.
    unsafe { borrow(dtype, shape, rank, data, size, true, (release, user), tensor) }
}

#[allow(clippy::too_many_arguments)]
unsafe fn borrow(
    dtype: ortx_dtype,
    shape: *const i64,
    rank: usize,
    data: *mut c_void,
    size: usize,
    writable: bool,
    (release, user): (ortx_release, *mut c_void),
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let release = Release::new(release, user);
        let tensor = out_ptr!(tensor);
        // SAFETY: the function's contract.
        let (dtype, shape) = (self::dtype(dtype)?, unsafe { sizes(shape, rank) }?);
        byte_size(dtype, &shape, size)?;
        // SAFETY: the function's contract: `size` bytes, which were checked to be the tensor's, until the release.
        let t = unsafe { Tensor::borrow_raw(dtype, &shape, data.cast(), writable, Some(Box::new(release))) }?;
        check_bools(&t)?;
        tensor.set(handle::create(Value::Tensor(t)))
    })
}

/// Makes a tensor of strings, which are copied.
///
/// Parameters: `shape`, `rank` sizes, outermost first; `strings`, `count` pointers to UTF-8 text; `lengths`, the bytes of
/// each text, or NULL where each ends with a zero byte; `count` must be what the shape needs; `tensor` receives the handle.
/// Ownership: the caller owns the tensor and ends it with ortx_value_destroy.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, text that is not UTF-8, a negative size or another count.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_create_from_strings(
    shape: *const i64,
    rank: usize,
    strings: *const *const c_char,
    lengths: *const usize,
    count: usize,
    tensor: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let tensor = out_ptr!(tensor);
        // SAFETY: the function's contract.
        let shape = unsafe { sizes(shape, rank) }?;
        let need = elements(DType::Bool, &shape)?;
        ensure!(need == count, InvalidArgument, "shape {shape:?} has {need} strings, {count} are given");
        let all = array!(strings, count);
        let lengths = if lengths.is_null() { None } else { Some(array!(lengths, count)) };
        let mut list = Vec::new();
        for (i, &string) in all.iter().enumerate() {
            // SAFETY: the function's contract.
            let s = unsafe {
                match lengths {
                    None => handle::text(string, "strings"),
                    Some(l) => std::str::from_utf8(handle::array(string.cast::<u8>(), l[i], "strings")?)
                        .map_err(|_| err!(InvalidArgument, "the text is not UTF-8")),
                }
            };
            list.push(s.context(|| format!("string {i}"))?.to_string());
        }
        tensor.set(handle::create(Value::Tensor(Tensor::from_strings(&shape, list)?)))
    })
}

/// Tells a tensor's element type.
///
/// Parameters: `tensor`; `dtype` receives an ORTX_DTYPE_ number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_dtype(tensor: *const ortx_value, dtype: *mut ortx_dtype) -> *mut ortx_status {
    guard(|| {
        let dtype = out!(dtype, ORTX_DTYPE_UNDEFINED);
        dtype.set(get!(tensor).as_tensor()?.dtype() as i32)
    })
}

/// Tells a tensor's shape.
///
/// Parameters: `tensor`; `shape`, room for `capacity` sizes, receives as many of the axes' sizes as fit, outermost first (NULL
/// and 0 to ask for the rank alone); `rank`, which may be NULL if `shape` is not, receives the number of axes.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or too little room where `rank` is NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_shape(
    tensor: *const ortx_value,
    shape: *mut i64,
    capacity: usize,
    rank: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        ensure!(!(shape.is_null() && capacity > 0), InvalidArgument, "argument 'shape' is NULL");
        ensure!(!(shape.is_null() && rank.is_null()), InvalidArgument, "arguments 'shape' and 'rank' are NULL");
        let rank = if rank.is_null() { None } else { Some(out!(rank)) };
        let dims = get!(tensor).as_tensor()?.shape();
        match rank {
            Some(r) => r.set(dims.len())?,
            None => {
                ensure!(dims.len() <= capacity, InvalidArgument, "room for {capacity} sizes, there are {}", dims.len())
            }
        }
        for (i, &n) in dims.iter().take(capacity).enumerate() {
            // SAFETY: i is below the capacity, which the function's contract says there is room for.
            unsafe { shape.add(i).write(n as i64) };
        }
        Ok(())
    })
}

/// Counts a tensor's elements.
///
/// Parameters: `tensor`; `count` receives the product of its sizes, 1 for a scalar.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_count(tensor: *const ortx_value, count: *mut usize) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(tensor).as_tensor()?.len())
    })
}

/// Tells the size of a tensor's data in bytes.
///
/// Parameters: `tensor`; `size` receives the number, 0 for strings.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_byte_size(tensor: *const ortx_value, size: *mut usize) -> *mut ortx_status {
    guard(|| {
        let size = out!(size);
        size.set(get!(tensor).as_tensor()?.byte_len())
    })
}

/// Gives a tensor's data to read: row by row, without gaps.
///
/// Parameters: `tensor`, not of strings; `data` receives the address of the first element; it is not NULL, but where there
/// are no elements nothing may be read there.
/// Ownership: the memory is the tensor's, and ends with the last value that shares it.
/// Thread safety: any thread; not while a run writes to the tensor.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or strings.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_data(tensor: *const ortx_value, data: *mut *const c_void) -> *mut ortx_status {
    guard(|| {
        let data = out_ptr!(data, const);
        let t = get!(tensor).as_tensor()?;
        no_strings(t)?;
        t.settle()?;
        data.set(t.data_ptr().cast())
    })
}

/// Gives a tensor's data to write: row by row, without gaps. What is written is seen by all values that share the memory.
///
/// Parameters: `tensor`, not of strings, made by ortx_tensor_create, _create_from_copy or _create_borrowed_mut, or else the
/// only value that has this memory; `data` receives the address of the first element.
/// Ownership: the memory is the tensor's, and ends with the last value that shares it.
/// Thread safety: any thread; write only while no run uses the tensor.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, strings, or memory that may not be written.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_data_mut(tensor: *mut ortx_value, data: *mut *mut c_void) -> *mut ortx_status {
    guard(|| {
        let data = out_ptr!(data);
        match get_mut!(tensor) {
            Value::Tensor(t) => data.set(writable(t)?.cast()),
            v => bail!(InvalidArgument, "a tensor is needed here, not {}", v.kind()),
        }
    })
}

/// The address for writing, if the host may.
pub(super) fn writable(t: &mut Tensor) -> Result<*mut u8> {
    no_strings(t)?;
    match t.lent_ptr().or_else(|| t.data_mut_ptr()) {
        Some(p) => Ok(p),
        None => bail!(InvalidArgument, "the tensor's memory is read-only, or shared with another value"),
    }
}

fn no_strings(t: &Tensor) -> Result<()> {
    ensure!(t.dtype() != DType::String, InvalidArgument, "strings are not bytes: use ortx_tensor_string");
    Ok(())
}

/// Gives one string of a tensor of strings.
///
/// Parameters: `tensor`; `index` below its count; `text` receives the address of the first byte of UTF-8 text that does not
/// end with a zero byte; `length` receives the number of bytes.
/// Ownership: the text is the tensor's, and ends with the last value that shares it.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, other elements, or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_tensor_string(
    tensor: *const ortx_value,
    index: usize,
    text: *mut *const c_char,
    length: *mut usize,
) -> *mut ortx_status {
    guard(|| {
        let text = out_ptr!(text, const);
        let length = out!(length);
        let all = get!(tensor).as_tensor()?.as_strings()?;
        let s = all.get(index).ok_or_else(|| err!(InvalidArgument, "string {index} of a tensor of {}", all.len()))?;
        text.set(s.as_ptr().cast())?;
        length.set(s.len())
    })
}
