//! Tensors as the file stores them: raw bytes, typed fields, external files, sparse coordinates.

use crate::base::checked;
use crate::error::{Context, Result};
use crate::proto::external::External;
use crate::proto::onnx::tensor_proto::DataLocation;
use crate::proto::onnx::{
    MapProto, OptionalProto, SequenceProto, SparseTensorProto, TensorProto, optional_proto, sequence_proto,
};
use crate::tensor::{DType, Element, MapValue, Tensor, Value};
use crate::{bail, ensure, err};
use std::sync::Arc;

/// The tensor; raw data is shared with the file where alignment allows.
pub fn tensor_from_proto(p: &TensorProto, external: &External) -> Result<Tensor> {
    build(p, external).context(|| format!("tensor '{}'", p.name()))
}

fn build(p: &TensorProto, external: &External) -> Result<Tensor> {
    let dtype = DType::from_onnx(p.data_type())?;
    let shape = sizes(&p.dims)?;
    let n = checked::product(&shape)?;
    ensure!(p.segment.is_none(), Unsupported, "segmented tensors");
    if p.data_location() == DataLocation::External {
        let mut bytes = external.load(p)?;
        if !p.external_data.iter().any(|e| e.key() == "length") {
            // To the end of the file: what comes after the tensor is others'.
            bytes.truncate(stored_len(dtype, n)?);
        }
        return from_file(dtype, &shape, bytes, external);
    }
    if dtype == DType::String {
        return Tensor::from_strings(&shape, p.string_data.iter().map(text).collect::<Result<_>>()?);
    }
    if let Some(raw) = &p.raw_data {
        // An empty raw field beside filled typed ones is what some writers leave behind.
        if !raw.is_empty() || n == 0 || p.float_data.len() + p.int32_data.len() + p.int64_data.len() == 0 {
            return from_file(dtype, &shape, raw.clone(), external);
        }
    }
    macro_rules! cast {
        ($field:ident as $t:ty) => {{
            let v: Vec<$t> = p.$field.iter().map(|&x| x as $t).collect();
            Tensor::from_slice(&shape, &v)
        }};
    }
    match dtype {
        DType::F32 => Tensor::from_slice(&shape, &p.float_data),
        DType::F64 => Tensor::from_slice(&shape, &p.double_data),
        DType::I32 => Tensor::from_slice(&shape, &p.int32_data),
        DType::I64 => Tensor::from_slice(&shape, &p.int64_data),
        DType::I16 => cast!(int32_data as i16),
        DType::I8 => cast!(int32_data as i8),
        DType::U16 => cast!(int32_data as u16),
        DType::U8 => cast!(int32_data as u8),
        DType::U32 => cast!(uint64_data as u32),
        DType::U64 => Tensor::from_slice(&shape, &p.uint64_data),
        DType::C64 => raw(dtype, &shape, &p.float_data),
        DType::C128 => raw(dtype, &shape, &p.double_data),
        DType::F16 | DType::BF16 => {
            let v: Vec<u16> = p.int32_data.iter().map(|&x| x as u16).collect();
            raw(dtype, &shape, &v)
        }
        DType::Bool => {
            let v: Vec<u8> = p.int32_data.iter().map(|&x| u8::from(x != 0)).collect();
            raw(dtype, &shape, &v)
        }
        // Eight bits and fewer: each entry is a byte of the tensor's memory, packed where the type is.
        _ => {
            let v: Vec<u8> = p.int32_data.iter().map(|&x| x as u8).collect();
            raw(dtype, &shape, &v)
        }
    }
}

/// Bytes that `n` elements take in a file: floats of 6 bits stand four in three bytes there, in memory one in one.
fn stored_len(dtype: DType, n: usize) -> Result<usize> {
    match dtype {
        DType::F6E2M3 | DType::F6E3M2 => Ok(n / 4 * 3 + (n % 4 * 6).div_ceil(8)),
        _ => dtype.byte_len(n),
    }
}

/// Floats of 6 bits from a stream of bits, the lowest first.
fn six_bits(dtype: DType, shape: &[usize], data: &[u8]) -> Result<Tensor> {
    let n = checked::product(shape)?;
    let stored = stored_len(dtype, n)?;
    ensure!(data.len() == stored, InvalidModel, "{dtype} {shape:?} needs {stored} bytes, there are {}", data.len());
    let mut t = Tensor::uninit(dtype, shape)?;
    let Some(out) = t.data_mut_ptr() else { bail!(Internal, "a new tensor is shared") };
    for i in 0..n {
        let (at, shift) = (i / 4 * 3 + i % 4 * 6 / 8, i % 4 * 6 % 8);
        let pair = [data[at], data.get(at + 1).copied().unwrap_or(0)];
        // SAFETY: a byte an element in memory, and `n` of them.
        unsafe { *out.add(i) = (u16::from_le_bytes(pair) >> shift) as u8 & 63 };
    }
    Ok(t)
}

fn from_file(dtype: DType, shape: &[usize], data: bytes::Bytes, external: &External) -> Result<Tensor> {
    if stored_len(dtype, 4)? != dtype.byte_len(4)? {
        return six_bits(dtype, shape, &data);
    }
    let mapped = external.maps(&data);
    // SAFETY: just asked.
    unsafe { Tensor::from_file(dtype, shape, data, mapped) }
}

fn raw<T: Element>(dtype: DType, shape: &[usize], data: &[T]) -> Result<Tensor> {
    let flat = Tensor::from_slice(&[data.len()], data)?;
    Tensor::from_bytes(dtype, shape, bytes::Bytes::copy_from_slice(flat.bytes()))
}

/// Dims as sizes.
pub fn sizes(dims: &[i64]) -> Result<Vec<usize>> {
    dims.iter().map(|&d| usize::try_from(d).map_err(|_| err!(InvalidModel, "a tensor has size {d}"))).collect()
}

/// A sparse tensor, made dense.
pub fn dense_from_sparse(p: &SparseTensorProto, external: &External) -> Result<Tensor> {
    let (Some(values), Some(indices)) = (&p.values, &p.indices) else {
        bail!(InvalidModel, "a sparse tensor lacks values or indices")
    };
    let (values, indices) = (tensor_from_proto(values, external)?, tensor_from_proto(indices, external)?);
    let shape = sizes(&p.dims)?;
    let Some(size) = values.dtype().size() else { bail!(Unsupported, "sparse tensors of type {}", values.dtype()) };
    let n = values.len();
    let idx = indices.to_i64s()?;
    let flat: Vec<i64> = match indices.shape() {
        [k] if *k == n => idx,
        [k, r] if *k == n && *r == shape.len() => idx
            .chunks(*r)
            .map(|c| {
                let inside = c.iter().zip(&shape).all(|(&i, &d)| (0..d as i64).contains(&i));
                let flat = c.iter().zip(&shape).fold(0i64, |a, (&i, &d)| a.wrapping_mul(d as i64).wrapping_add(i));
                if inside { flat } else { -1 }
            })
            .collect(),
        s => bail!(InvalidModel, "indices of shape {s:?} for {n} values of a tensor {shape:?}"),
    };
    let mut out = Tensor::zeroed(values.dtype(), &shape)?;
    let total = out.len();
    let Some(dst) = out.data_mut_ptr() else { bail!(Internal, "a new tensor is shared") };
    for (k, &i) in flat.iter().enumerate() {
        let i = usize::try_from(i)
            .ok()
            .filter(|&i| i < total)
            .ok_or_else(|| err!(InvalidModel, "index {k} is outside {shape:?}"))?;
        // SAFETY: i and k were checked against the element counts of both tensors.
        unsafe { std::ptr::copy_nonoverlapping(values.data_ptr().add(k * size), dst.add(i * size), size) };
    }
    Ok(out)
}

/// A sequence as test data stores it.
pub fn value_from_sequence(p: &SequenceProto) -> Result<Value> {
    use sequence_proto::DataType as D;
    let external = External::none();
    let items: Vec<Value> = match D::try_from(p.elem_type()).unwrap_or(D::Undefined) {
        D::Tensor => p
            .tensor_values
            .iter()
            .map(|t| Ok(Value::Tensor(tensor_from_proto(t, &external)?)))
            .collect::<Result<_>>()?,
        D::SparseTensor => p
            .sparse_tensor_values
            .iter()
            .map(|t| Ok(Value::Tensor(dense_from_sparse(t, &external)?)))
            .collect::<Result<_>>()?,
        D::Sequence => p.sequence_values.iter().map(value_from_sequence).collect::<Result<_>>()?,
        D::Optional => p.optional_values.iter().map(value_from_optional).collect::<Result<_>>()?,
        D::Map => p.map_values.iter().map(value_from_map).collect::<Result<_>>()?,
        D::Undefined => Vec::new(),
    };
    Ok(Value::Sequence(Arc::new(items)))
}

/// An optional as test data stores it.
pub fn value_from_optional(p: &OptionalProto) -> Result<Value> {
    use optional_proto::DataType as D;
    let external = External::none();
    let inner = match D::try_from(p.elem_type()).unwrap_or(D::Undefined) {
        D::Undefined => None,
        D::Tensor => p
            .tensor_value
            .as_ref()
            .map(|t| Ok::<_, crate::Error>(Value::Tensor(tensor_from_proto(t, &external)?)))
            .transpose()?,
        D::SparseTensor => p
            .sparse_tensor_value
            .as_ref()
            .map(|t| Ok::<_, crate::Error>(Value::Tensor(dense_from_sparse(t, &external)?)))
            .transpose()?,
        D::Sequence => p.sequence_value.as_ref().map(value_from_sequence).transpose()?,
        D::Optional => p.optional_value.as_deref().map(value_from_optional).transpose()?,
        D::Map => p.map_value.as_ref().map(value_from_map).transpose()?,
    };
    Ok(Value::Optional(inner.map(Box::new)))
}

/// A map as test data stores it. Values that are scalars of one type become one tensor.
pub fn value_from_map(p: &MapProto) -> Result<Value> {
    let dtype = DType::from_onnx(p.key_type())?;
    let keys = if dtype == DType::String {
        Tensor::from_strings(&[p.string_keys.len()], p.string_keys.iter().map(text).collect::<Result<_>>()?)?
    } else {
        ensure!(dtype.is_int() && !dtype.is_packed(), InvalidModel, "keys of type {dtype}");
        let size = dtype.byte_len(1)?;
        let raw: Vec<u8> = p.keys.iter().flat_map(|k| k.to_le_bytes().into_iter().take(size)).collect();
        Tensor::from_bytes(dtype, &[p.keys.len()], raw.into())?
    };
    let Some(values) = &p.values else { bail!(InvalidModel, "a map has no values") };
    let values = value_from_sequence(values)?;
    let entries = values.as_sequence()?;
    ensure!(entries.len() == keys.len(), InvalidModel, "a map has {} keys and {} values", keys.len(), entries.len());
    let scalars: Vec<&Tensor> =
        entries.iter().filter_map(|v| v.as_tensor().ok().filter(|t| t.shape().is_empty())).collect();
    let first = scalars.first().map(|t| t.dtype());
    if scalars.len() < entries.len() || scalars.iter().any(|t| Some(t.dtype()) != first || t.dtype().is_packed()) {
        return Ok(Value::Map(MapValue { keys, values: Box::new(values) }));
    }
    let values = match first {
        None => values,
        Some(DType::String) => {
            let all = scalars.iter().map(|t| Ok(t.as_strings()?.concat())).collect::<Result<_>>()?;
            Value::Tensor(Tensor::from_strings(&[scalars.len()], all)?)
        }
        Some(d) => {
            let all: Vec<u8> = scalars.iter().flat_map(|t| t.bytes().iter().copied()).collect();
            Value::Tensor(Tensor::from_bytes(d, &[scalars.len()], all.into())?)
        }
    };
    Ok(Value::Map(MapValue { keys, values: Box::new(values) }))
}

fn text(b: &bytes::Bytes) -> Result<String> {
    String::from_utf8(b.to_vec()).map_err(|_| err!(InvalidModel, "a string is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_of_six_bits_stand_four_in_three_bytes() {
        let codes = [1u8, 62, 33, 18, 63];
        let stream = codes.iter().rev().fold(0u64, |bits, &c| bits << 6 | u64::from(c));
        for n in [0, 1, 4, 5] {
            let raw = stream.to_le_bytes()[..(n * 6usize).div_ceil(8)].to_vec();
            let mut p = TensorProto { data_type: Some(27), dims: vec![n as i64], ..TensorProto::default() };
            p.raw_data = Some(raw.clone().into());
            assert_eq!(tensor_from_proto(&p, &External::none()).unwrap().bytes(), &codes[..n]);
            p.raw_data = Some([raw, vec![0]].concat().into());
            assert!(tensor_from_proto(&p, &External::none()).is_err(), "a byte too many for {n}");
        }
    }

    #[test]
    fn maps_are_read_with_their_keys_and_values() {
        let scalar = |x: f32| TensorProto { data_type: Some(1), float_data: vec![x], ..Default::default() };
        let values = SequenceProto {
            elem_type: Some(sequence_proto::DataType::Tensor as i32),
            tensor_values: vec![scalar(0.5), scalar(2.0)],
            ..Default::default()
        };
        let map = MapProto {
            key_type: Some(DType::I64 as i32),
            keys: vec![-7, 1 << 40],
            values: Some(values.clone()),
            ..Default::default()
        };
        let Value::Map(m) = value_from_map(&map).unwrap() else { panic!("no map") };
        assert_eq!(m.keys.as_slice::<i64>().unwrap(), [-7, 1 << 40]);
        assert_eq!(m.values.as_tensor().unwrap().as_slice::<f32>().unwrap(), [0.5, 2.0]);

        let named = MapProto {
            key_type: Some(DType::String as i32),
            string_keys: vec!["a".into(), "b".into()],
            values: Some(values.clone()),
            ..Default::default()
        };
        let Value::Map(m) = value_from_map(&named).unwrap() else { panic!("no map") };
        assert_eq!(m.keys.as_strings().unwrap(), ["a", "b"]);

        let short = MapProto { keys: vec![1], ..map };
        assert!(value_from_map(&short).unwrap_err().to_string().contains("1 keys and 2 values"));
    }
}
