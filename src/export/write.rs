//! A model's bytes, streamed: weights go from where they lie into the file.

use super::{Exported, types};
use crate::base::alloc::round_up;
use crate::error::Result;
use crate::proto::onnx::tensor_proto::DataLocation;
use crate::proto::onnx::{StringStringEntryProto, TensorProto};
use crate::tensor::Tensor;
use crate::{bail, err};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint};
use std::io::Write;

/// Field numbers of `proto/onnx.proto`, of messages that are written in pieces.
const MODEL_GRAPH: u32 = 7;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;
/// Bytes of one of these numbers with its wire type.
const KEY: usize = 1;

/// Writes the model as one message.
pub fn write(mut exported: Exported, out: &mut dyn Write) -> Result<()> {
    let Some(graph) = exported.model.graph.take() else { bail!(Internal, "a model without a graph") };
    let heads: Vec<TensorProto> = exported.weights.iter().map(|(name, t)| types::tensor(name, t)).collect();
    let field = |len: usize| KEY + encoded_len_varint(len as u64) + len;
    let raw = |t: &Tensor| if types::is_raw(t.dtype()) { field(t.byte_len()) } else { 0 };
    let lengths: Vec<usize> =
        heads.iter().zip(&exported.weights).map(|(head, (_, t))| head.encoded_len() + raw(t)).collect();
    let total = lengths.iter().try_fold(graph.encoded_len(), |sum, &n| sum.checked_add(field(n)));
    let total = total.ok_or_else(|| err!(OutOfMemory, "the weights pass the address space"))?;

    let mut buffer = Vec::new();
    exported.model.encode(&mut buffer).map_err(|e| err!(Internal, "{e}"))?;
    let begin = |buffer: &mut Vec<u8>, field: u32, len: usize| {
        encode_key(field, WireType::LengthDelimited, buffer);
        encode_varint(len as u64, buffer);
    };
    begin(&mut buffer, MODEL_GRAPH, total);
    graph.encode(&mut buffer).map_err(|e| err!(Internal, "{e}"))?;
    for ((head, (_, t)), len) in heads.iter().zip(&exported.weights).zip(lengths) {
        begin(&mut buffer, GRAPH_INITIALIZER, len);
        head.encode(&mut buffer).map_err(|e| err!(Internal, "{e}"))?;
        if types::is_raw(t.dtype()) {
            begin(&mut buffer, TENSOR_RAW_DATA, t.byte_len());
            out.write_all(&buffer)?;
            buffer.clear();
            out.write_all(t.bytes())?;
        }
    }
    out.write_all(&buffer)?;
    Ok(())
}

/// Moves weights of `least` bytes and more out of the model into `location`, each at a multiple of `align`. Returns them with
/// their places there, in order.
pub fn externalise(
    exported: &mut Exported,
    location: &str,
    least: usize,
    align: usize,
) -> Result<Vec<(usize, Tensor)>> {
    let (mut placed, mut end) = (Vec::new(), 0usize);
    let Some(graph) = &mut exported.model.graph else { bail!(Internal, "a model without a graph") };
    for (name, t) in std::mem::take(&mut exported.weights) {
        if !types::is_raw(t.dtype()) || t.byte_len() < least.max(1) {
            exported.weights.push((name, t));
            continue;
        }
        let offset = round_up(end, align);
        end =
            offset.checked_add(t.byte_len()).ok_or_else(|| err!(OutOfMemory, "the weights pass the address space"))?;
        let entry = |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        let mut p = types::tensor(&name, &t);
        p.data_location = Some(DataLocation::External as i32);
        p.external_data = vec![
            entry("location", location.into()),
            entry("offset", offset.to_string()),
            entry("length", t.byte_len().to_string()),
        ];
        graph.initializer.push(p);
        placed.push((offset, t));
    }
    Ok(placed)
}
