//! The C ABI, called as a C program calls it.

mod devices;
mod null;
mod optimize;
mod options;
mod overridable;
mod refusals;
mod tensors;

#[allow(unused_imports)]
use ortx::capi::{binding::*, environment::*, info::*, metadata::*, options::*, run::*, session::*, status::*};
use ortx::capi::{tensor::*, types::*, value::*};
use std::ffi::{CStr, c_char};
use std::ptr::{null, null_mut};

/// Text from C.
pub fn text(p: *const c_char) -> String {
    assert!(!p.is_null());
    // SAFETY: the API gives NUL-terminated strings that are alive here.
    unsafe { CStr::from_ptr(p) }.to_str().unwrap().to_string()
}

/// Panics unless a call succeeded.
#[track_caller]
pub fn ok(status: *mut ortx_status) {
    if !status.is_null() {
        let e = failed(status);
        panic!("{e:?}");
    }
}

/// The code and text of a call that had to fail.
#[track_caller]
pub fn failed(status: *mut ortx_status) -> (ortx_code, String) {
    assert!(!status.is_null(), "success where an error was due");
    // SAFETY: a status that the call gave us.
    unsafe {
        let result = (ortx_status_code(status), text(ortx_status_text(status)));
        ortx_status_destroy(status);
        result
    }
}

/// Panics unless a call failed with this code, and says all of these words.
#[track_caller]
pub fn fails(status: *mut ortx_status, code: ortx_code, words: &[&str]) {
    let (got, said) = failed(status);
    assert_eq!(got, code, "{said}");
    for w in words {
        assert!(said.contains(w), "'{w}' is not in: {said}");
    }
}

/// A session of a model in memory.
pub fn session(model: &[u8]) -> *mut ortx_session {
    session_with(model, null()).unwrap_or_else(|(_, e)| panic!("{e}"))
}

/// The same with options, or the error.
pub fn session_with(
    model: &[u8],
    options: *const ortx_session_options,
) -> Result<*mut ortx_session, (ortx_code, String)> {
    let mut s = null_mut();
    // SAFETY: the slice is alive during the call.
    let status =
        unsafe { ortx_session_create_from_memory(null(), model.as_ptr().cast(), model.len(), null(), options, &mut s) };
    if status.is_null() {
        assert!(!s.is_null());
        return Ok(s);
    }
    assert!(s.is_null());
    Err(failed(status))
}

/// A float tensor with a copy of the data.
pub fn floats(shape: &[i64], data: &[f32]) -> *mut ortx_value {
    let mut t = null_mut();
    // SAFETY: the slices are alive during the call.
    ok(unsafe {
        ortx_tensor_create_from_copy(
            ORTX_DTYPE_FLOAT32,
            shape.as_ptr(),
            shape.len(),
            data.as_ptr().cast(),
            size_of_val(data),
            &mut t,
        )
    });
    t
}

/// A float tensor's elements.
pub fn read(t: *const ortx_value) -> Vec<f32> {
    let (mut dtype, mut n, mut p) = (0, 0, null());
    // SAFETY: a live handle.
    unsafe {
        ok(ortx_tensor_dtype(t, &mut dtype));
        ok(ortx_tensor_count(t, &mut n));
        ok(ortx_tensor_data(t, &mut p));
        assert_eq!(dtype, ORTX_DTYPE_FLOAT32);
        std::slice::from_raw_parts(p.cast(), n).to_vec()
    }
}

/// A tensor's shape.
pub fn shape(t: *const ortx_value) -> Vec<i64> {
    let (mut dims, mut rank) = ([0; 8], 0);
    // SAFETY: a live handle.
    ok(unsafe { ortx_tensor_shape(t, dims.as_mut_ptr(), 8, &mut rank) });
    dims[..rank].to_vec()
}

#[test]
fn a_model_runs() {
    let s = session(&crate::tiny::product());
    let x = floats(&[2, 3], &[1., 0., 0., 0., 1., 1.]);
    let mut y = null_mut();
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), &mut y, 1));
        assert_eq!((shape(y), read(y)), (vec![2, 2], vec![1., 2., 8., 10.]));
        // Everything that came from the session outlives it.
        ortx_session_destroy(s);
        ortx_value_destroy(x);
        assert_eq!(read(y).len(), 4);
        ortx_value_destroy(y);
    }
}

#[test]
fn a_model_tells_about_itself() {
    let s = session(&crate::tiny::product());
    let (mut n, mut p, mut ty, mut index) = (0, null(), null(), 9);
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_session_input_count(s, &mut n));
        assert_eq!(n, 1);
        ok(ortx_session_output_count(s, &mut n));
        assert_eq!(n, 1);
        ok(ortx_session_input_name(s, 0, &mut p));
        assert_eq!(text(p), "x");
        ok(ortx_session_output_name(s, 0, &mut p));
        assert_eq!(text(p), "y");
        ok(ortx_session_output_index(s, c"y".as_ptr(), &mut index));
        assert_eq!(index, 0);
        fails(ortx_session_input_index(s, c"z".as_ptr(), &mut index), ORTX_ERROR_INVALID_ARGUMENT, &["'z'", "x"]);

        let (mut kind, mut dtype, mut rank, mut size, mut symbol) = (0, 0, 0, 0, null());
        ok(ortx_session_input_type(s, 0, &mut ty));
        ok(ortx_type_kind(ty, &mut kind));
        ok(ortx_type_dtype(ty, &mut dtype));
        ok(ortx_type_rank(ty, &mut rank));
        assert_eq!((kind, dtype, rank), (ORTX_KIND_TENSOR, ORTX_DTYPE_FLOAT32, 2));
        ok(ortx_type_dim(ty, 0, &mut size, &mut symbol));
        assert_eq!((size, text(symbol)), (-1, "batch".into()));
        ok(ortx_type_dim(ty, 1, &mut size, &mut symbol));
        assert!(size == 3 && symbol.is_null());
        ok(ortx_type_dim(ty, 1, &mut size, null_mut()));
        fails(ortx_type_dim(ty, 2, &mut size, null_mut()), ORTX_ERROR_INVALID_ARGUMENT, &["axis 2"]);
        ok(ortx_session_output_type(s, 0, &mut ty));
        ok(ortx_type_dim(ty, 1, &mut size, &mut symbol));
        assert_eq!(size, 2);

        let texts = ["tiny", "1.2", "product", "org.example", "made by a test"];
        for (which, want) in (1..).zip(texts) {
            ok(ortx_session_text(s, which, &mut p));
            assert_eq!(text(p), want);
        }
        let (mut version, mut value) = (0, null());
        ok(ortx_session_model_version(s, &mut version));
        assert_eq!(version, 42);
        ok(ortx_session_ir_version(s, &mut version));
        assert_eq!(version, 10);
        ok(ortx_session_opset_count(s, &mut n));
        ok(ortx_session_opset(s, n - 1, &mut p, &mut version));
        assert_eq!((text(p), version), (String::new(), 21));
        ok(ortx_session_property_count(s, &mut n));
        assert_eq!(n, 2);
        ok(ortx_session_property(s, 0, &mut p, &mut value));
        assert_eq!((text(p), text(value)), ("classes".into(), "cat,dog".into()));
        let (mut threads, mut isa) = (0, 0);
        ok(ortx_session_threads(s, &mut threads));
        ok(ortx_session_isa(s, &mut isa));
        assert_eq!((threads, isa), (ortx_threads_available(), ortx_isa_available()));
        ortx_session_destroy(s);
    }
}
