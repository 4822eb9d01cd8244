//! What the library and the machine are: versions, instruction sets, element types.

use super::guard::guard_or;
use super::types::*;
use crate::base::cores::available_cores;
use crate::kernels::isa::Isa;
use std::ffi::{CStr, c_char};

/// The version of this ABI. Within one number functions, constants and fields at the ends of structures are only added.
pub const ORTX_ABI_VERSION: u32 = 1;

/// Tells the version of the ABI that the loaded library has. Compare it with ORTX_ABI_VERSION, which is what the program
/// was compiled against: they must be equal.
///
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_abi_version() -> u32 {
    ORTX_ABI_VERSION
}

/// Tells the version of the library, as "0.1.0".
///
/// Returns: text that lives forever.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// Tells how many threads a session uses unless told otherwise: the cores that this process may use, by its affinity mask
/// and its container's quota.
///
/// Returns: at least 1.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_threads_available() -> i32 {
    guard_or(1, || Ok(i32::try_from(available_cores()).unwrap_or(i32::MAX)))
}

/// Tells the level of instructions that a session uses unless told otherwise: the processor's highest, or what the
/// environment variable ORTX_ISA ("scalar", "avx2", "avx512") caps it to.
///
/// Returns: an ORTX_ISA_ number other than ORTX_ISA_DEFAULT.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_isa_available() -> ortx_isa {
    guard_or(ORTX_ISA_SCALAR, || Ok(isa(Isa::detect().level())))
}

/// Names a level of instructions.
///
/// Parameters: `isa`, an ORTX_ISA_ number.
/// Returns: text that lives forever ("avx2"); "?" for a number that is none.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_isa_name(isa: ortx_isa) -> *const c_char {
    match isa {
        ORTX_ISA_DEFAULT => c"default",
        ORTX_ISA_SCALAR => c"scalar",
        ORTX_ISA_AVX2 => c"avx2",
        ORTX_ISA_AVX512 => c"avx512",
        _ => c"?",
    }
    .as_ptr()
}

/// Names an element type, as ONNX does in `tensor(float16)`.
///
/// Parameters: `dtype`, an ORTX_DTYPE_ number.
/// Returns: text that lives forever; "?" for a number that is none.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_dtype_name(dtype: ortx_dtype) -> *const c_char {
    const NAMES: [&CStr; 29] = [
        c"?",
        c"float",
        c"uint8",
        c"int8",
        c"uint16",
        c"int16",
        c"int32",
        c"int64",
        c"string",
        c"bool",
        c"float16",
        c"double",
        c"uint32",
        c"uint64",
        c"complex64",
        c"complex128",
        c"bfloat16",
        c"float8e4m3fn",
        c"float8e4m3fnuz",
        c"float8e5m2",
        c"float8e5m2fnuz",
        c"uint4",
        c"int4",
        c"float4e2m1",
        c"float8e8m0",
        c"uint2",
        c"int2",
        c"float6e2m3",
        c"float6e3m2",
    ];
    usize::try_from(dtype).ok().and_then(|n| NAMES.get(n)).unwrap_or(&NAMES[0]).as_ptr()
}

/// Tells how many bits an element takes in a tensor's memory.
///
/// Parameters: `dtype`, an ORTX_DTYPE_ number.
/// Returns: 2, 4 (packed), 8, 16, 32, 64 or 128; 0 for strings, and for a number that is no element type.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_dtype_bits(dtype: ortx_dtype) -> i32 {
    super::types::dtype(dtype).map_or(0, |d| d.bits() as i32)
}

/// Names an error code, as "invalid argument".
///
/// Parameters: `code`, ORTX_OK or an ORTX_ERROR_ number.
/// Returns: text that lives forever; "?" for a number that is none.
/// Thread safety: any thread.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub extern "C" fn ortx_code_name(code: ortx_code) -> *const c_char {
    match code {
        ORTX_OK => c"ok",
        ORTX_ERROR_INVALID_ARGUMENT => c"invalid argument",
        ORTX_ERROR_INVALID_MODEL => c"invalid model",
        ORTX_ERROR_UNSUPPORTED => c"unsupported",
        ORTX_ERROR_NOT_FOUND => c"not found",
        ORTX_ERROR_IO => c"i/o error",
        ORTX_ERROR_OUT_OF_MEMORY => c"out of memory",
        ORTX_ERROR_RUN => c"run failed",
        ORTX_ERROR_CANCELLED => c"cancelled",
        ORTX_ERROR_DEVICE => c"device error",
        ORTX_ERROR_INTERNAL => c"internal error",
        _ => c"?",
    }
    .as_ptr()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn text(p: *const c_char) -> &'static str {
        // SAFETY: the functions give static strings.
        unsafe { CStr::from_ptr(p) }.to_str().unwrap()
    }

    #[test]
    fn names_are_those_of_the_library() {
        for d in DType::ALL {
            assert_eq!((text(ortx_dtype_name(d as i32)), ortx_dtype_bits(d as i32)), (d.name(), d.bits() as i32));
        }
        for n in [i32::MIN, -1, 0, 29, i32::MAX] {
            assert_eq!((text(ortx_dtype_name(n)), ortx_dtype_bits(n)), ("?", 0));
        }
        assert_eq!(text(ortx_version()), env!("CARGO_PKG_VERSION"));
        assert_eq!(text(ortx_isa_name(ortx_isa_available())), Isa::detect().level().name());
        assert!(ortx_threads_available() >= 1);
        assert_eq!((text(ortx_code_name(2)), text(ortx_code_name(-2))), ("invalid model", "?"));
    }
}
