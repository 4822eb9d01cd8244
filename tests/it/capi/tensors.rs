//! Tensors and the values made of them.

use super::*;
use std::ffi::c_void;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A release callback that counts.
pub unsafe extern "C" fn count(user: *mut c_void) {
    // SAFETY: the tests pass an AtomicUsize.
    unsafe { &*user.cast::<AtomicUsize>() }.fetch_add(1, Ordering::SeqCst);
}

fn user(counter: &AtomicUsize) -> *mut c_void {
    std::ptr::from_ref(counter).cast_mut().cast()
}

#[test]
fn tensors_are_made_and_read() {
    let mut t = null_mut();
    let (mut n, mut p) = (7, null_mut());
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_tensor_create(ORTX_DTYPE_INT16, [2i64, 3].as_ptr(), 2, &mut t));
        ok(ortx_tensor_byte_size(t, &mut n));
        assert_eq!((n, shape(t)), (12, vec![2, 3]));
        ok(ortx_tensor_data_mut(t, &mut p));
        assert!(p.is_aligned() && (p as usize).is_multiple_of(64));
        assert_eq!(std::slice::from_raw_parts(p.cast::<i16>(), 6), [0; 6]);
        p.cast::<i16>().write(5);
        // What one handle writes, the other sees.
        let (mut copy, mut q) = (null_mut(), null());
        ok(ortx_value_clone(t, &mut copy));
        ortx_value_destroy(t);
        ok(ortx_tensor_data(copy, &mut q));
        assert_eq!(q.cast::<i16>().read(), 5);
        ok(ortx_tensor_data_mut(copy, &mut p));
        ortx_value_destroy(copy);

        // A scalar, and packed elements.
        ok(ortx_tensor_create(ORTX_DTYPE_FLOAT64, null(), 0, &mut t));
        ok(ortx_tensor_count(t, &mut n));
        assert_eq!((n, shape(t)), (1, vec![]));
        ortx_value_destroy(t);
        ok(ortx_tensor_create(ORTX_DTYPE_INT4, [5i64].as_ptr(), 1, &mut t));
        ok(ortx_tensor_byte_size(t, &mut n));
        assert_eq!(n, 3);
        ortx_value_destroy(t);
        ok(ortx_tensor_create(ORTX_DTYPE_FLOAT32, [4i64, 0].as_ptr(), 2, &mut t));
        assert!(read(t).is_empty());
        ortx_value_destroy(t);
    }
}

#[test]
fn wrong_tensors_are_refused() {
    let mut t = null_mut();
    let bad = ORTX_ERROR_INVALID_ARGUMENT;
    let data = [0u8; 64];
    // SAFETY: live pointers throughout.
    unsafe {
        fails(ortx_tensor_create(1, [2i64, -3].as_ptr(), 2, &mut t), bad, &["axis 1", "negative"]);
        fails(ortx_tensor_create(99, null(), 0, &mut t), bad, &["element type 99"]);
        fails(ortx_tensor_create(1, null(), 2, &mut t), bad, &["'shape'", "NULL"]);
        fails(ortx_tensor_create(1, null(), usize::MAX, &mut t), bad, &["rank"]);
        fails(ortx_tensor_create(1, null(), 0, null_mut()), bad, &["'tensor'", "NULL"]);
        let huge = [i64::MAX / 8, 8];
        fails(ortx_tensor_create(1, huge.as_ptr(), 2, &mut t), ORTX_ERROR_OUT_OF_MEMORY, &["elements"]);
        fails(ortx_tensor_create(8, [1i64 << 55].as_ptr(), 1, &mut t), ORTX_ERROR_OUT_OF_MEMORY, &["strings"]);
        fails(ortx_tensor_create(2, [1i64 << 60].as_ptr(), 1, &mut t), ORTX_ERROR_OUT_OF_MEMORY, &["allocate"]);
        let copy = |dtype, n: i64, size, t: &mut *mut ortx_value| {
            ortx_tensor_create_from_copy(dtype, &n, 1, data.as_ptr().cast(), size, t)
        };
        fails(copy(1, 3, 13, &mut t), bad, &["float [3] takes 12 bytes, 13"]);
        fails(copy(8, 3, 13, &mut t), bad, &["strings"]);
        fails(ortx_tensor_create_from_copy(1, [3i64].as_ptr(), 1, null(), 12, &mut t), bad, &["'data'", "NULL"]);
        assert!(t.is_null());
    }
}

#[test]
fn borrowed_memory_is_released_once() {
    let counter = AtomicUsize::new(0);
    let mut data = [1f32, 2., 3.];
    let n = 3i64;
    let (mut t, mut p) = (null_mut(), null_mut());
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_tensor_create_borrowed(1, &n, 1, data.as_ptr().cast(), 12, Some(count), user(&counter), &mut t));
        let (mut copy, mut q) = (null_mut(), null());
        ok(ortx_value_clone(t, &mut copy));
        ok(ortx_tensor_data(t, &mut q));
        assert_eq!(q, data.as_ptr().cast(), "not copied");
        fails(ortx_tensor_data_mut(t, &mut p), ORTX_ERROR_INVALID_ARGUMENT, &["read-only"]);
        ortx_value_destroy(t);
        assert_eq!(counter.load(Ordering::SeqCst), 0);
        ortx_value_destroy(copy);
        assert_eq!(counter.load(Ordering::SeqCst), 1);

        // Where the call fails too.
        let at = data.as_mut_ptr().cast::<c_void>();
        let wrong = ortx_tensor_create_borrowed_mut(1, &n, 1, at, 11, Some(count), user(&counter), &mut t);
        fails(wrong, ORTX_ERROR_INVALID_ARGUMENT, &["12 bytes, 11"]);
        assert_eq!(counter.load(Ordering::SeqCst), 2);
        let odd = at.cast::<u8>().add(1).cast();
        let wrong = ortx_tensor_create_borrowed_mut(1, [2i64].as_ptr(), 1, odd, 8, Some(count), user(&counter), &mut t);
        fails(wrong, ORTX_ERROR_INVALID_ARGUMENT, &["aligned"]);
        fails(
            ortx_tensor_create_borrowed_mut(1, &n, 1, at, 12, Some(count), user(&counter), null_mut()),
            ORTX_ERROR_INVALID_ARGUMENT,
            &["'tensor'"],
        );
        assert_eq!(counter.load(Ordering::SeqCst), 4);
        ok(ortx_tensor_create_borrowed_mut(1, &n, 1, at, 12, None, null_mut(), &mut t));
        ok(ortx_tensor_data_mut(t, &mut p));
        assert_eq!(p, at);
        ortx_value_destroy(t);
    }
}

#[test]
fn bools_are_zero_or_one() {
    let (mut t, mut p) = (null_mut(), null());
    let bytes = [0u8, 1, 7];
    let n = 3i64;
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_tensor_create_from_copy(ORTX_DTYPE_BOOL, &n, 1, bytes.as_ptr().cast(), 3, &mut t));
        ok(ortx_tensor_data(t, &mut p));
        assert_eq!(std::slice::from_raw_parts(p.cast::<u8>(), 3), [0, 1, 1]);
        ortx_value_destroy(t);
        let wrong =
            ortx_tensor_create_borrowed(ORTX_DTYPE_BOOL, &n, 1, bytes.as_ptr().cast(), 3, None, null_mut(), &mut t);
        fails(wrong, ORTX_ERROR_INVALID_ARGUMENT, &["element 2", "byte 7"]);
    }
}

#[test]
fn strings_go_in_and_out() {
    let (mut t, mut p, mut n) = (null_mut(), null(), 0);
    let words = [c"one".as_ptr(), c"zwei \xc3\xa4".as_ptr(), c"".as_ptr()];
    let zero_inside = b"a\0b";
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_tensor_create_from_strings([3i64].as_ptr(), 1, words.as_ptr(), null(), 3, &mut t));
        ok(ortx_tensor_string(t, 1, &mut p, &mut n));
        assert_eq!(std::slice::from_raw_parts(p.cast::<u8>(), n), "zwei ä".as_bytes());
        fails(ortx_tensor_string(t, 3, &mut p, &mut n), ORTX_ERROR_INVALID_ARGUMENT, &["string 3"]);
        assert!(p.is_null() && n == 0);
        let mut data = null();
        fails(ortx_tensor_data(t, &mut data), ORTX_ERROR_INVALID_ARGUMENT, &["strings"]);
        ortx_value_destroy(t);

        ok(ortx_tensor_create_from_strings(null(), 0, &zero_inside.as_ptr().cast(), &3, 1, &mut t));
        ok(ortx_tensor_string(t, 0, &mut p, &mut n));
        assert_eq!(std::slice::from_raw_parts(p.cast::<u8>(), n), zero_inside);
        ortx_value_destroy(t);
        let latin = [c"ok".as_ptr(), c"\xff\xfe".as_ptr()];
        let wrong = ortx_tensor_create_from_strings([2i64].as_ptr(), 1, latin.as_ptr(), null(), 2, &mut t);
        fails(wrong, ORTX_ERROR_INVALID_ARGUMENT, &["string 1", "UTF-8"]);
        let wrong = ortx_tensor_create_from_strings([2i64].as_ptr(), 1, words.as_ptr(), null(), 3, &mut t);
        fails(wrong, ORTX_ERROR_INVALID_ARGUMENT, &["2 strings, 3"]);
        ok(ortx_tensor_create(ORTX_DTYPE_STRING, [2i64].as_ptr(), 1, &mut t));
        ok(ortx_tensor_string(t, 1, &mut p, &mut n));
        assert_eq!(n, 0);
        ortx_value_destroy(t);
    }
}

#[test]
fn sequences_optionals_and_maps() {
    let bad = ORTX_ERROR_INVALID_ARGUMENT;
    let (a, b) = (floats(&[1], &[1.]), floats(&[2], &[2., 3.]));
    let (mut seq, mut opt, mut empty, mut map) = (null_mut(), null_mut(), null_mut(), null_mut());
    let (mut v, mut n, mut kind) = (null_mut(), 0, 0);
    // SAFETY: live handles and pointers throughout.
    unsafe {
        ok(ortx_sequence_create([a.cast_const(), b].as_ptr(), 2, &mut seq));
        ortx_value_destroy(a);
        ok(ortx_sequence_count(seq, &mut n));
        ok(ortx_sequence_get(seq, 0, &mut v));
        assert_eq!((n, read(v)), (2, vec![1.]));
        ortx_value_destroy(v);
        fails(ortx_sequence_get(seq, 2, &mut v), bad, &["element 2"]);
        assert!(v.is_null());
        fails(ortx_sequence_create([b.cast_const(), seq].as_ptr(), 2, &mut v), bad, &["element 1", "sequence"]);
        fails(ortx_sequence_create([b.cast_const(), null()].as_ptr(), 2, &mut v), bad, &["element 1", "NULL"]);
        fails(ortx_sequence_count(b, &mut n), bad, &["a sequence is needed", "a tensor"]);
        fails(ortx_tensor_count(seq, &mut n), bad, &["a tensor is needed", "a sequence"]);

        ok(ortx_optional_create(seq, &mut opt));
        ok(ortx_optional_create(null(), &mut empty));
        ok(ortx_optional_get(opt, &mut v));
        ok(ortx_value_kind(v, &mut kind));
        assert_eq!(kind, ORTX_KIND_SEQUENCE);
        ortx_value_destroy(v);
        ok(ortx_optional_get(empty, &mut v));
        assert!(v.is_null());

        let mut keys = null_mut();
        ok(ortx_tensor_create_from_strings(
            [2i64].as_ptr(),
            1,
            [c"k".as_ptr(), c"l".as_ptr()].as_ptr(),
            null(),
            2,
            &mut keys,
        ));
        ok(ortx_map_create(keys, b, &mut map));
        ok(ortx_map_values(map, &mut v));
        assert_eq!(read(v), [2., 3.]);
        ortx_value_destroy(v);
        ok(ortx_map_keys(map, &mut v));
        assert_eq!(shape(v), [2]);
        ortx_value_destroy(v);
        fails(ortx_map_create(b, b, &mut v), bad, &["keys"]);
        ok(ortx_map_create(keys, seq, &mut v));
        ortx_value_destroy(v);
        fails(ortx_map_create(keys, opt, &mut v), bad, &["optional"]);
        let mut twice = null_mut();
        ok(ortx_tensor_create(ORTX_DTYPE_INT64, [2i64].as_ptr(), 1, &mut twice));
        fails(ortx_map_create(twice, b, &mut v), bad, &["repeat"]);

        // Nesting without end is refused before the stack is.
        let mut deep = empty;
        let refused = loop {
            let mut next = null_mut();
            let status = ortx_optional_create(deep, &mut next);
            if !status.is_null() {
                break status;
            }
            ortx_value_destroy(deep);
            deep = next;
        };
        fails(refused, bad, &["nest"]);
        [b, seq, opt, deep, map, keys, twice].iter().for_each(|&v| ortx_value_destroy(v));
    }
}
