//! Any bytes, opened as a model and as the values of test data: `RUSTC_BOOTSTRAP=1 cargo fuzz run load`.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ortx::proto::{
    external::External,
    onnx::{OptionalProto, SequenceProto, TensorProto},
    read::{decode, open_bytes},
};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(model) = open_bytes(bytes.clone()) {
        let external = External::none();
        for tensor in model.graph.iter().flat_map(|g| &g.initializer) {
            let _ = external.load(tensor);
        }
    }
    let _ = decode::<TensorProto>(bytes.clone());
    let _ = decode::<SequenceProto>(bytes.clone());
    let _ = decode::<OptionalProto>(bytes);
});
