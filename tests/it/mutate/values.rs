//! Random values of a declared type, made and read through the C ABI.

use super::Outcome;
use super::wire::Rng;
use crate::capi::text;
use ortx::capi::{info::*, session::*, tensor::*, types::*, value::*};
use std::collections::BTreeMap;
use std::ptr::{null, null_mut};

/// The most elements of an input. A model that asks for more is given another shape, which it must refuse.
const MOST: i64 = 1 << 15;

/// Sizes given to symbols so far: one name, one size.
pub type Symbols = BTreeMap<String, i64>;

/// A value of a type; none where there is no way to make one.
pub unsafe fn random(
    ty: *const ortx_type,
    symbols: &mut Symbols,
    rng: &mut Rng,
    outcome: &mut Outcome,
) -> Option<*mut ortx_value> {
    // SAFETY: a live type, a part of a live session; values made here.
    unsafe {
        let (mut kind, mut element, mut v) = (0, null(), null_mut());
        assert!(ortx_type_kind(ty, &mut kind).is_null());
        match kind {
            ORTX_KIND_SEQUENCE => {
                assert!(ortx_type_element(ty, &mut element).is_null());
                let all: Vec<_> = (0..rng.below(4)).filter_map(|_| random(element, symbols, rng, outcome)).collect();
                let pointers: Vec<_> = all.iter().map(|v| v.cast_const()).collect();
                let good = outcome.good("sequence", ortx_sequence_create(pointers.as_ptr(), all.len(), &mut v));
                all.into_iter().for_each(|v| ortx_value_destroy(v));
                good.then_some(v)
            }
            ORTX_KIND_OPTIONAL => {
                assert!(ortx_type_element(ty, &mut element).is_null());
                let inner = if rng.one_in(3) { None } else { random(element, symbols, rng, outcome) };
                let status = ortx_optional_create(inner.unwrap_or(null_mut()), &mut v);
                let good = outcome.good("optional", status);
                ortx_value_destroy(inner.unwrap_or(null_mut()));
                good.then_some(v)
            }
            ORTX_KIND_TENSOR => tensor(ty, symbols, rng, outcome),
            _ => {
                let shape = [2i64];
                outcome.good("tensor", ortx_tensor_create(ORTX_DTYPE_FLOAT32, shape.as_ptr(), 1, &mut v)).then_some(v)
            }
        }
    }
}

unsafe fn tensor(
    ty: *const ortx_type,
    symbols: &mut Symbols,
    rng: &mut Rng,
    outcome: &mut Outcome,
) -> Option<*mut ortx_value> {
    // SAFETY: as above.
    unsafe {
        let (mut dtype, mut rank) = (0, 0);
        assert!(ortx_type_dtype(ty, &mut dtype).is_null());
        assert!(ortx_type_rank(ty, &mut rank).is_null());
        let mut shape = Vec::new();
        if rank < 0 {
            shape = (0..rng.below(4)).map(|_| 1 + rng.below(4) as i64).collect();
        }
        for axis in 0..usize::try_from(rank).unwrap_or(0) {
            let (mut size, mut symbol) = (0, null());
            assert!(ortx_type_dim(ty, axis, &mut size, &mut symbol).is_null());
            let any = if rng.one_in(20) { 0 } else { 1 + rng.below(4) as i64 };
            shape.push(match size {
                n if n >= 0 => n,
                _ if symbol.is_null() => any,
                _ => *symbols.entry(text(symbol)).or_insert(any),
            });
        }
        if shape.len() > 8 || shape.iter().try_fold(1i64, |n, &d| n.checked_mul(d)).is_none_or(|n| n > MOST) {
            shape = vec![2; shape.len().min(3)];
        }
        let n = shape.iter().product::<i64>() as usize;
        let mut v = null_mut();
        if dtype == ORTX_DTYPE_STRING {
            let words = [c"".as_ptr(), c"a b".as_ptr(), c"zw\xc3\xb6lf".as_ptr(), c"NaN".as_ptr(), c"-7".as_ptr()];
            let all: Vec<_> = (0..n).map(|_| *rng.pick(&words)).collect();
            let made = ortx_tensor_create_from_strings(shape.as_ptr(), shape.len(), all.as_ptr(), null(), n, &mut v);
            return outcome.good("strings", made).then_some(v);
        }
        let made = ortx_tensor_create(dtype, shape.as_ptr(), shape.len(), &mut v);
        if !outcome.good("tensor", made) {
            return None;
        }
        let (mut data, mut bytes) = (null_mut(), 0);
        assert!(ortx_tensor_data_mut(v, &mut data).is_null());
        assert!(ortx_tensor_byte_size(v, &mut bytes).is_null());
        let out = std::slice::from_raw_parts_mut(data.cast::<u8>(), bytes);
        fill(dtype, out, rng);
        Some(v)
    }
}

/// Numbers that are mostly small, and sometimes extreme.
fn fill(dtype: ortx_dtype, out: &mut [u8], rng: &mut Rng) {
    let wild = rng.one_in(6);
    let float = |rng: &mut Rng| match rng.below(40) {
        0 if wild => f32::NAN,
        1 if wild => f32::INFINITY,
        2 if wild => 3e38,
        _ => rng.below(4000) as f32 / 1000.0 - 2.0,
    };
    let int = |rng: &mut Rng| match rng.below(20) {
        0 if wild => rng.next() as i64,
        1 if wild => i64::MIN,
        _ => rng.below(8) as i64 - if wild { 3 } else { 0 },
    };
    let width = ortx_dtype_bits(dtype) as usize / 8;
    for c in out.chunks_mut(width.max(1)) {
        let word = match dtype {
            ORTX_DTYPE_FLOAT32 | ORTX_DTYPE_COMPLEX64 => u64::from(float(rng).to_bits()),
            ORTX_DTYPE_FLOAT64 | ORTX_DTYPE_COMPLEX128 => f64::from(float(rng)).to_bits(),
            ORTX_DTYPE_FLOAT16 => u64::from(half::f16::from_f32(float(rng)).to_bits()),
            ORTX_DTYPE_BFLOAT16 => u64::from(half::bf16::from_f32(float(rng)).to_bits()),
            ORTX_DTYPE_BOOL => rng.next() & 1,
            _ => int(rng) as u64,
        };
        c.iter_mut().zip(word.to_le_bytes().iter().cycle()).for_each(|(to, from)| *to = *from);
    }
}

/// Reads all of a result, as a host would: memory tools see what is not there.
pub unsafe fn read(v: *const ortx_value) {
    // SAFETY: a live value.
    unsafe {
        let (mut kind, mut dtype, mut data, mut bytes) = (0, 0, null(), 0);
        assert!(ortx_value_kind(v, &mut kind).is_null());
        if kind != ORTX_KIND_TENSOR {
            return;
        }
        assert!(ortx_tensor_dtype(v, &mut dtype).is_null());
        if dtype == ORTX_DTYPE_STRING {
            return;
        }
        assert!(ortx_tensor_data(v, &mut data).is_null());
        assert!(ortx_tensor_byte_size(v, &mut bytes).is_null());
        let all = std::slice::from_raw_parts(data.cast::<u8>(), bytes);
        std::hint::black_box(all.iter().fold(0u64, |a, &b| a.wrapping_mul(31).wrapping_add(u64::from(b))));
    }
}
