//! NULL for every pointer that must be there, in every function that can fail.

use super::*;
use ortx::capi::memory::*;
use ortx::capi::optimize::ortx_model_optimize;

/// The functions of the header that return a status.
fn fallible() -> Vec<String> {
    let header = std::fs::read_to_string("include/ortx.h").unwrap();
    let names = header.lines().filter_map(|l| l.strip_prefix("struct ortx_status *")?.split('(').next());
    names.map(String::from).collect()
}

#[test]
fn null_is_an_error_everywhere() {
    let mut tested = Vec::new();
    /// `try_null!(function(arguments), word...)`: the call fails, and the message has the words.
    macro_rules! try_null {
        ($($f:ident($($arg:expr),*), $($word:expr),+;)*) => {
            $(
                tested.push(stringify!($f).to_string());
                // SAFETY: what is not NULL is live; that the rest is NULL is what is tested.
                let (code, said) = failed(unsafe { $f($($arg),*) });
                assert_eq!(code, ORTX_ERROR_INVALID_ARGUMENT, "{}: {said}", stringify!($f));
                for word in [$($word),+, "NULL"] {
                    assert!(said.contains(word), "{}: '{word}' is not in: {said}", stringify!($f));
                }
            )*
        };
    }
    let s = session(&crate::tiny::product());
    let x = floats(&[2, 3], &[0.; 6]);
    let (mut b, mut env, mut ty, mut y) = (null_mut(), null_mut(), null(), null_mut());
    let mut text = null();
    let (mut n, mut i, mut u, mut size, mut kind, mut v, mut data) =
        (0usize, 0i64, 0u64, 0usize, 0i32, null_mut(), null());
    let mut data_mut = null_mut();
    // SAFETY: live handles and pointers.
    unsafe {
        ok(ortx_binding_create(s, &mut b));
        ok(ortx_environment_create(&mut env));
        ok(ortx_session_input_type(s, 0, &mut ty));
    }
    let bytes = [0u8; 8];
    let model = bytes.as_ptr().cast();
    try_null! {
        ortx_environment_create(null_mut()), "'environment'";
        ortx_environment_device_count(null(), &mut n), "'environment'";
        ortx_environment_device_count(env, null_mut()), "'count'";
        ortx_environment_device_name(null(), 0, &mut text), "'environment'";
        ortx_environment_device_name(env, 0, null_mut()), "'name'";
        ortx_environment_device_description(null(), 0, &mut text), "'environment'";
        ortx_environment_device_description(env, 0, null_mut()), "'description'";
        ortx_environment_device_type(null(), 0, &mut kind), "'environment'";
        ortx_environment_device_type(env, 0, null_mut()), "'device_type'";
        ortx_environment_device_memory(null(), 0, &mut u), "'environment'";
        ortx_environment_device_memory(env, 0, null_mut()), "'bytes'";
        ortx_model_optimize(null(), null(), null(), c"y".as_ptr()), "'path'";
        ortx_model_optimize(null(), c"x".as_ptr(), null(), null()), "'file'";
        ortx_session_create_from_file(null(), null(), null(), &mut null_mut()), "'path'";
        ortx_session_create_from_file(null(), c"x".as_ptr(), null(), null_mut()), "'session'";
        ortx_session_create_from_memory(null(), null(), 8, null(), null(), &mut null_mut()), "'data'", "8";
        ortx_session_create_from_memory(null(), model, 8, null(), null(), null_mut()), "'session'";
        ortx_session_create_from_borrowed_memory(null(), null(), 8, None, null_mut(), null(), null(), &mut null_mut()), "'data'";
        ortx_session_create_from_borrowed_memory(null(), model, 8, None, null_mut(), null(), null(), null_mut()), "'session'";
        ortx_session_input_count(null(), &mut n), "'session'", "ortx_session";
        ortx_session_input_count(s, null_mut()), "'count'";
        ortx_session_overridable_count(null(), &mut n), "'session'";
        ortx_session_overridable_count(s, null_mut()), "'count'";
        ortx_session_output_count(null(), &mut n), "'session'";
        ortx_session_output_count(s, null_mut()), "'count'";
        ortx_session_input_name(null(), 0, &mut text), "'session'";
        ortx_session_input_name(s, 0, null_mut()), "'name'";
        ortx_session_output_name(null(), 0, &mut text), "'session'";
        ortx_session_output_name(s, 0, null_mut()), "'name'";
        ortx_session_input_index(null(), c"x".as_ptr(), &mut n), "'session'";
        ortx_session_input_index(s, null(), &mut n), "'name'";
        ortx_session_input_index(s, c"x".as_ptr(), null_mut()), "'index'";
        ortx_session_output_index(null(), c"x".as_ptr(), &mut n), "'session'";
        ortx_session_output_index(s, null(), &mut n), "'name'";
        ortx_session_output_index(s, c"y".as_ptr(), null_mut()), "'index'";
        ortx_session_input_type(null(), 0, &mut null()), "'session'";
        ortx_session_input_type(s, 0, null_mut()), "'value_type'";
        ortx_session_output_type(null(), 0, &mut null()), "'session'";
        ortx_session_output_type(s, 0, null_mut()), "'value_type'";
        ortx_session_threads(null(), &mut kind), "'session'";
        ortx_session_threads(s, null_mut()), "'threads'";
        ortx_session_isa(null(), &mut kind), "'session'";
        ortx_session_isa(s, null_mut()), "'isa'";
        ortx_session_memory(null(), &mut u, null_mut()), "'session'";
        ortx_session_memory(s, null_mut(), null_mut()), "'used'";
        ortx_session_trim(null()), "'session'";
        ortx_session_text(null(), 1, &mut text), "'session'";
        ortx_session_text(s, 1, null_mut()), "'text'";
        ortx_session_model_version(null(), &mut i), "'session'";
        ortx_session_model_version(s, null_mut()), "'version'";
        ortx_session_ir_version(null(), &mut i), "'session'";
        ortx_session_ir_version(s, null_mut()), "'version'";
        ortx_session_opset_count(null(), &mut n), "'session'";
        ortx_session_opset_count(s, null_mut()), "'count'";
        ortx_session_opset(null(), 0, &mut text, &mut i), "'session'";
        ortx_session_opset(s, 0, null_mut(), &mut i), "'domain'";
        ortx_session_opset(s, 0, &mut text, null_mut()), "'version'";
        ortx_session_property_count(null(), &mut n), "'session'";
        ortx_session_property_count(s, null_mut()), "'count'";
        ortx_session_property(null(), 0, &mut text, &mut null()), "'session'";
        ortx_session_property(s, 0, null_mut(), &mut text), "'key'";
        ortx_session_property(s, 0, &mut text, null_mut()), "'value'";
        ortx_session_warning_count(null(), &mut n), "'session'";
        ortx_session_warning_count(s, null_mut()), "'count'";
        ortx_session_warning(null(), 0, &mut text), "'session'";
        ortx_session_warning(s, 0, null_mut()), "'text'";
        ortx_session_run(null(), null(), null(), &x.cast_const(), 1, null(), &mut y, 1), "'session'";
        ortx_session_run(s, null(), null(), null(), 1, null(), &mut y, 1), "'inputs'", "1";
        ortx_session_run(s, null(), null(), &null(), 1, null(), &mut y, 1), "input 'x'";
        ortx_session_run(s, null(), null(), &x.cast_const(), 1, null(), null_mut(), 1), "'outputs'";
        ortx_type_kind(null(), &mut kind), "'value_type'";
        ortx_type_kind(ty, null_mut()), "'kind'";
        ortx_type_dtype(null(), &mut kind), "'value_type'";
        ortx_type_dtype(ty, null_mut()), "'dtype'";
        ortx_type_rank(null(), &mut i), "'value_type'";
        ortx_type_rank(ty, null_mut()), "'rank'";
        ortx_type_dim(null(), 0, &mut i, null_mut()), "'value_type'";
        ortx_type_dim(ty, 0, null_mut(), null_mut()), "'size'";
        ortx_type_element(null(), &mut null()), "'value_type'";
        ortx_type_element(ty, null_mut()), "'element'";
        ortx_value_kind(null(), &mut kind), "'value'", "ortx_value";
        ortx_value_kind(x, null_mut()), "'kind'";
        ortx_value_clone(null(), &mut v), "'value'";
        ortx_value_clone(x, null_mut()), "'copy'";
        ortx_sequence_create(null(), 1, &mut v), "'elements'";
        ortx_sequence_create(&null(), 1, &mut v), "element 0";
        ortx_sequence_create(&x.cast_const(), 1, null_mut()), "'sequence'";
        ortx_sequence_count(null(), &mut n), "'sequence'";
        ortx_sequence_count(x, null_mut()), "'count'";
        ortx_sequence_get(null(), 0, &mut v), "'sequence'";
        ortx_sequence_get(x, 0, null_mut()), "'element'";
        ortx_optional_create(x, null_mut()), "'optional'";
        ortx_optional_get(null(), &mut v), "'optional'";
        ortx_optional_get(x, null_mut()), "'element'";
        ortx_map_create(null(), x, &mut v), "'keys'";
        ortx_map_create(x, null(), &mut v), "'values'";
        ortx_map_create(x, x, null_mut()), "'map'";
        ortx_map_keys(null(), &mut v), "'map'";
        ortx_map_keys(x, null_mut()), "'keys'";
        ortx_map_values(null(), &mut v), "'map'";
        ortx_map_values(x, null_mut()), "'values'";
        ortx_tensor_create(1, null(), 2, &mut v), "'shape'";
        ortx_tensor_create(1, null(), 0, null_mut()), "'tensor'";
        ortx_tensor_create_from_copy(1, null(), 0, null(), 4, &mut v), "'data'";
        ortx_tensor_create_from_copy(1, null(), 0, model, 4, null_mut()), "'tensor'";
        ortx_tensor_create_borrowed(1, null(), 1, model, 4, None, null_mut(), &mut v), "'shape'";
        ortx_tensor_create_borrowed(1, null(), 0, model, 4, None, null_mut(), null_mut()), "'tensor'";
        ortx_tensor_create_borrowed_mut(1, null(), 1, null_mut(), 4, None, null_mut(), &mut v), "'shape'";
        ortx_tensor_create_borrowed_mut(1, null(), 0, null_mut(), 4, None, null_mut(), null_mut()), "'tensor'";
        ortx_tensor_create_from_strings(null(), 0, null(), null(), 1, &mut v), "'strings'";
        ortx_tensor_create_from_strings(null(), 0, &null(), null(), 1, &mut v), "string 0";
        ortx_tensor_create_from_strings(null(), 0, &c"".as_ptr(), null(), 1, null_mut()), "'tensor'";
        ortx_tensor_dtype(null(), &mut kind), "'tensor'";
        ortx_tensor_dtype(x, null_mut()), "'dtype'";
        ortx_tensor_shape(null(), &mut i, 1, null_mut()), "'tensor'";
        ortx_tensor_shape(x, null_mut(), 0, null_mut()), "'shape'", "'rank'";
        ortx_tensor_shape(x, null_mut(), 4, &mut n), "'shape'";
        ortx_tensor_count(null(), &mut n), "'tensor'";
        ortx_tensor_count(x, null_mut()), "'count'";
        ortx_tensor_byte_size(null(), &mut n), "'tensor'";
        ortx_tensor_byte_size(x, null_mut()), "'size'";
        ortx_tensor_data(null(), &mut data), "'tensor'";
        ortx_tensor_data(x, null_mut()), "'data'";
        ortx_tensor_data_mut(null_mut(), &mut data_mut), "'tensor'";
        ortx_tensor_data_mut(x, null_mut()), "'data'";
        ortx_tensor_string(null(), 0, &mut text, &mut size), "'tensor'";
        ortx_tensor_string(x, 0, null_mut(), &mut size), "'text'";
        ortx_tensor_string(x, 0, &mut text, null_mut()), "'length'";
        ortx_cancel_token_create(null_mut()), "'token'";
        ortx_cancel_token_cancel(null()), "'token'";
        ortx_cancel_token_reset(null()), "'token'";
        ortx_cancel_token_is_cancelled(null(), &mut kind), "'token'";
        ortx_binding_create(null(), &mut null_mut()), "'session'";
        ortx_binding_create(s, null_mut()), "'binding'";
        ortx_binding_set_input(null(), 0, x), "'binding'";
        ortx_binding_set_input(b, 0, null()), "'value'";
        ortx_binding_set_output(null(), 0, x), "'binding'";
        ortx_binding_run(null(), null()), "'binding'";
        ortx_binding_output(null(), 0, &mut v), "'binding'";
        ortx_binding_output(b, 0, null_mut()), "'value'";
    }
    let all = fallible();
    assert!(all.len() > 60);
    let missing: Vec<_> = all.iter().filter(|f| !tested.contains(f)).collect();
    assert!(missing.is_empty(), "functions that were not tried: {missing:?}");
    assert!(v.is_null() && y.is_null());
    // SAFETY: live handles, and NULL, which all of these take.
    unsafe {
        ortx_binding_destroy(b);
        ortx_environment_destroy(env);
        ortx_value_destroy(x);
        ortx_session_destroy(s);
        ortx_value_destroy(null_mut());
        ortx_session_destroy(null_mut());
        ortx_binding_destroy(null_mut());
        ortx_environment_destroy(null_mut());
        ortx_cancel_token_destroy(null_mut());
        ortx_status_destroy(null_mut());
        assert_eq!(ortx_status_code(null()), ORTX_OK);
        assert!(ortx_status_context(null(), 0).is_null() && ortx_status_context_count(null()) == 0);
    }
}
