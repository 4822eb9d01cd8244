//! Values: tensors and what is made of them.

use super::args::{array, get, out, out_ptr};
use super::guard::{guard, guard_or};
use super::handle::{self, handle};
use super::status::ortx_status;
use super::types::*;
use crate::error::{Context, Result};
use crate::tensor::{DType, MapValue, Tensor, Value};
use crate::{bail, ensure, err};
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// A tensor, sequence, optional or map. Values that come from others share their memory.
pub struct ortx_value {
    _opaque: [u8; 0],
}
handle!(ortx_value, Value, b"valu");

/// How deep values may be put in others: freeing them takes stack.
const MAX_DEPTH: usize = 32;

/// Tells what kind of value it is.
///
/// Parameters: `value`; `kind` receives an ORTX_KIND_ number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_value_kind(value: *const ortx_value, kind: *mut ortx_kind) -> *mut ortx_status {
    guard(|| {
        let kind = out!(kind);
        kind.set(match get!(value) {
            Value::Tensor(_) => ORTX_KIND_TENSOR,
            Value::Sequence(_) => ORTX_KIND_SEQUENCE,
            Value::Optional(_) => ORTX_KIND_OPTIONAL,
            Value::Map(_) => ORTX_KIND_MAP,
        })
    })
}

/// Makes another handle of a value. Both share the value's memory.
///
/// Parameters: `value`; `copy` receives the handle.
/// Ownership: the caller owns the copy and ends it with ortx_value_destroy.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_value_clone(value: *const ortx_value, copy: *mut *mut ortx_value) -> *mut ortx_status {
    guard(|| {
        let copy = out_ptr!(copy);
        copy.set(handle::create(get!(value).clone()))
    })
}

/// Frees a handle, and the value with its last handle.
///
/// Parameters: `value`, which may be NULL.
/// Ownership: takes the value; pointers to its data end with it.
/// Thread safety: any thread, once, when no other call uses it.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_value_destroy(value: *mut ortx_value) {
    // SAFETY: the function's contract.
    guard_or((), || Ok(unsafe { handle::destroy(value) }));
}

/// Makes a sequence.
///
/// Parameters: `elements`, `count` values of one kind and element type; `sequence` receives the handle.
/// Ownership: the caller owns the sequence and ends it with ortx_value_destroy; the elements stay the caller's, and share
/// their memory with the sequence.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or elements that differ in type.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_sequence_create(
    elements: *const *const ortx_value,
    count: usize,
    sequence: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let sequence = out_ptr!(sequence);
        let mut list = Vec::new();
        for (i, &element) in array!(elements, count).iter().enumerate() {
            // SAFETY: the function's contract.
            let v = unsafe { handle::get(element, "elements") }.context(|| format!("element {i}"))?;
            if let Some(first) = list.first() {
                ensure!(same_type(first, v), InvalidArgument, "element {i} is {}, the first is {}", of(v), of(first));
            }
            check_depth(v)?;
            list.push(v.clone());
        }
        sequence.set(handle::create(Value::Sequence(Arc::new(list))))
    })
}

/// Counts the elements of a sequence.
///
/// Parameters: `sequence`; `count` receives the number.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_sequence_count(sequence: *const ortx_value, count: *mut usize) -> *mut ortx_status {
    guard(|| {
        let count = out!(count);
        count.set(get!(sequence).as_sequence()?.len())
    })
}

/// Gives an element of a sequence.
///
/// Parameters: `sequence`; `index` below the count; `element` receives a handle.
/// Ownership: the caller owns the element's handle and ends it with ortx_value_destroy; its memory is shared.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or an index out of range.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_sequence_get(
    sequence: *const ortx_value,
    index: usize,
    element: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let element = out_ptr!(element);
        let list = get!(sequence).as_sequence()?;
        let v =
            list.get(index).ok_or_else(|| err!(InvalidArgument, "element {index} of a sequence of {}", list.len()))?;
        element.set(handle::create(v.clone()))
    })
}

/// Makes an optional.
///
/// Parameters: `element`, or NULL for an empty optional; `optional` receives the handle.
/// Ownership: the caller owns the optional and ends it with ortx_value_destroy; the element stays the caller's, and shares
/// its memory.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT where `optional` is NULL.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_optional_create(
    element: *const ortx_value,
    optional: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let optional = out_ptr!(optional);
        let inner = if element.is_null() {
            None
        } else {
            let v = get!(element);
            check_depth(v)?;
            Some(Box::new(v.clone()))
        };
        optional.set(handle::create(Value::Optional(inner)))
    })
}

/// Gives what an optional holds.
///
/// Parameters: `optional`; `element` receives a handle, NULL where the optional is empty.
/// Ownership: the caller owns the element's handle and ends it with ortx_value_destroy; its memory is shared.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_optional_get(
    optional: *const ortx_value,
    element: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let element = out_ptr!(element);
        match get!(optional) {
            Value::Optional(None) => Ok(()),
            Value::Optional(Some(v)) => element.set(handle::create((**v).clone())),
            v => bail!(InvalidArgument, "an optional is needed here, not {}", v.kind()),
        }
    })
}

/// Makes a map.
///
/// Parameters: `keys`, a tensor of rank 1 of integers or strings without repeats; `values`, a tensor whose first axis has an
/// entry a key, or a sequence with an element a key; `map` receives the handle.
/// Ownership: the caller owns the map and ends it with ortx_value_destroy; keys and values stay the caller's, and share their
/// memory.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, keys that are not as said, or another number of values.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_map_create(
    keys: *const ortx_value,
    values: *const ortx_value,
    map: *mut *mut ortx_value,
) -> *mut ortx_status {
    guard(|| {
        let map = out_ptr!(map);
        let (keys, values) = (get!(keys).as_tensor()?.clone(), get!(values).clone());
        check_keys(&keys)?;
        let count = match &values {
            Value::Tensor(t) => t.shape().first().copied(),
            Value::Sequence(s) => Some(s.len()),
            v => bail!(InvalidArgument, "a map's values are a tensor or a sequence, not {}", v.kind()),
        };
        ensure!(count == Some(keys.len()), InvalidArgument, "{} keys, but {}", keys.len(), of(&values));
        check_depth(&values)?;
        map.set(handle::create(Value::Map(MapValue { keys, values: Box::new(values) })))
    })
}

/// Gives the keys of a map.
///
/// Parameters: `map`; `keys` receives a handle of a tensor of rank 1.
/// Ownership: the caller owns the handle and ends it with ortx_value_destroy; its memory is shared.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_map_keys(map: *const ortx_value, keys: *mut *mut ortx_value) -> *mut ortx_status {
    guard(|| {
        let keys = out_ptr!(keys);
        keys.set(handle::create(Value::Tensor(as_map(get!(map))?.keys.clone())))
    })
}

/// Gives the values of a map, in the order of its keys.
///
/// Parameters: `map`; `values` receives a handle of a tensor or sequence.
/// Ownership: the caller owns the handle and ends it with ortx_value_destroy; its memory is shared.
/// Thread safety: any thread.
/// Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
/// Since: 0.1.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ortx_map_values(map: *const ortx_value, values: *mut *mut ortx_value) -> *mut ortx_status {
    guard(|| {
        let values = out_ptr!(values);
        values.set(handle::create((*as_map(get!(map))?.values).clone()))
    })
}

fn as_map(v: &Value) -> Result<&MapValue> {
    match v {
        Value::Map(m) => Ok(m),
        v => bail!(InvalidArgument, "a map is needed here, not {}", v.kind()),
    }
}

fn check_keys(keys: &Tensor) -> Result<()> {
    ensure!(
        keys.shape().len() == 1 && (keys.dtype() == DType::String || keys.dtype().is_int()),
        InvalidArgument,
        "a map's keys are a tensor of rank 1 of integers or strings, not {keys:?}"
    );
    fn unique<T: Hash + Eq>(all: impl IntoIterator<Item = T>) -> bool {
        let mut seen = HashSet::new();
        all.into_iter().all(|k| seen.insert(k))
    }
    let ok = match keys.dtype() {
        DType::String => unique(keys.as_strings()?),
        DType::U64 => unique(keys.as_slice::<u64>()?),
        _ => unique(keys.to_i64s()?),
    };
    ensure!(ok, InvalidArgument, "a map's keys repeat");
    Ok(())
}

fn same_type(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Tensor(a), Value::Tensor(b)) => a.dtype() == b.dtype(),
        (a, b) => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// For messages.
fn of(v: &Value) -> String {
    match v {
        Value::Tensor(t) => format!("a tensor {t:?}"),
        Value::Sequence(s) => format!("a sequence of {}", s.len()),
        v => v.kind().into(),
    }
}

fn check_depth(v: &Value) -> Result<()> {
    fn depth(v: &Value) -> usize {
        match v {
            Value::Tensor(_) => 1,
            Value::Sequence(s) => 1 + s.iter().map(depth).max().unwrap_or(0),
            Value::Optional(o) => 1 + o.as_deref().map_or(0, depth),
            Value::Map(m) => 1 + depth(&m.values),
        }
    }
    ensure!(depth(v) < MAX_DEPTH, InvalidArgument, "values nest deeper than {MAX_DEPTH}");
    Ok(())
}
