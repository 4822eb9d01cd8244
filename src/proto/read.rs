//! Opening models and values: sniffed, scanned, then decoded without copying the weights.

use super::{
    onnx::ModelProto,
    scan::{self, Limits, Scanned},
    sniff,
    source::{Mode, Source},
};
use crate::{
    bail, err,
    error::{Context, Error, Result},
};
use bytes::Bytes;
use std::path::Path;

/// The largest message that the protobuf libraries of other languages read or write.
const PROTOBUF_LIMIT: usize = 2 << 30;

/// Opens the model file at `path`. The weights are slices of the file's bytes, which live as long as one of them does.
pub fn open_path(path: &Path, mode: Mode) -> Result<(ModelProto, Source)> {
    let source = Source::open(path, mode)?;
    let model = open_bytes(source.bytes().clone()).context(|| format!("'{}'", path.display()))?;
    Ok((model, source))
}

/// Opens a model that is in memory. The weights are slices of `bytes`.
pub fn open_bytes(bytes: Bytes) -> Result<ModelProto> {
    if bytes.is_empty() {
        bail!(InvalidModel, "the model is empty: it has 0 bytes");
    }
    let model: ModelProto = decode(bytes.clone()).map_err(|e| explain(e, &bytes))?;
    if model.graph.is_none() {
        return Err(explain(err!(InvalidModel, "it has no graph: not an ONNX model, or cut off"), &bytes));
    }
    Ok(model)
}

/// Decodes one message, such as a `TensorProto` of a test-data file, under the same limits as a model.
pub fn decode<T: Scanned>(bytes: Bytes) -> Result<T> {
    let limits = Limits::for_len(bytes.len());
    decode_within(bytes, limits)
}

/// Decodes one message within `limits`.
pub fn decode_within<T: Scanned>(bytes: Bytes, limits: Limits) -> Result<T> {
    scan::scan::<T>(&bytes, limits)?;
    // The scan refuses whatever prost would, with a place; this is for the case that they differ.
    T::decode(bytes).map_err(|e| err!(InvalidModel, "cannot decode a {}: {e}", T::NAME))
}

/// Says what the bytes are if they are no model, and what to do about sizes that protobuf cannot hold.
fn explain(e: Error, bytes: &[u8]) -> Error {
    if let Some(what) = sniff::what(bytes) {
        return err!(InvalidModel, "{what}");
    }
    if bytes.len() >= PROTOBUF_LIMIT {
        return e.context(format!(
            "the file has {} bytes, more than the 2 GiB that a protobuf message may have (larger models keep their \
             weights as external data, in files beside the model)",
            bytes.len()
        ));
    }
    e
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
