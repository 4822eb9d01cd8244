//! Folders of test data as the ONNX backend suite and model zoos have them: `input_0.pb`, `output_0.pb`, ...

use crate::fail::{Failure, Result};
use bytes::Bytes;
use ortx::Value;
use ortx::import::{tensor_from_proto, value_from_optional, value_from_sequence};
use ortx::ir::Fact;
use ortx::proto::external::External;
use ortx::proto::onnx::{OptionalProto, SequenceProto, TensorProto};
use ortx::proto::read::decode;
use ortx::session::Io;
use std::path::Path;

/// The values of one side (`input` or `output`), in the model's order; fewer where files are missing.
pub fn read(folder: &Path, side: &str, edges: &[Io]) -> Result<Vec<Value>> {
    let mut found = Vec::new();
    for (i, io) in edges.iter().enumerate() {
        let path = folder.join(format!("{side}_{i}.pb"));
        let place = |e: String| Failure::new(format!("'{}': {e}", path.display()));
        let file = match std::fs::read(&path) {
            Ok(file) => Bytes::from(file),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => break,
            Err(e) => return Err(place(e.to_string())),
        };
        found.push(value(file, &io.fact).map_err(|e| place(e.to_string()))?);
    }
    if side == "input" && found.is_empty() && !edges.is_empty() {
        return Err(Failure::new(format!("'{}' holds no input_0.pb", folder.display()))
            .hint("give the folder of one data set, such as test_data_set_0"));
    }
    Ok(found)
}

fn value(file: Bytes, fact: &Fact) -> ortx::Result<Value> {
    match fact {
        Fact::Sequence(_) => value_from_sequence(&decode::<SequenceProto>(file)?),
        Fact::Optional(_) => value_from_optional(&decode::<OptionalProto>(file)?),
        _ => Ok(Value::Tensor(tensor_from_proto(&decode::<TensorProto>(file)?, &External::none())?)),
    }
}
