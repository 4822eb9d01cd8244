//! Opening models: zero copy, damaged files, files that are no models.

use super::super::onnx::*;
use super::*;
use crate::base::counting::counted;
use crate::error::ErrorKind;
use crate::proto::scan::tests::Rng;
use prost::Message as _;

fn text(s: &str) -> Option<String> {
    Some(s.to_string())
}

/// A model with a bit of everything: nodes, attributes of several types, a subgraph, constants, a function.
fn model() -> ModelProto {
    let weights: Vec<u8> = (0..64).collect();
    let tensor = |name: &str| TensorProto {
        name: text(name),
        dims: vec![4, 4],
        data_type: Some(tensor_proto::DataType::Float as i32),
        raw_data: Some(Bytes::from(weights.clone())),
        ..Default::default()
    };
    let int = |name: &str, i: i64| AttributeProto {
        name: text(name),
        i: Some(i),
        r#type: Some(attribute_proto::AttributeType::Int as i32),
        ..Default::default()
    };
    let node = |op: &str, attribute: Vec<AttributeProto>| NodeProto {
        op_type: text(op),
        input: vec!["x".into(), "w".into()],
        output: vec!["y".into()],
        attribute,
        ..Default::default()
    };
    let body =
        GraphProto { node: vec![node("Gemm", vec![int("transB", 1)])], name: text("then"), ..Default::default() };
    let branch = AttributeProto { name: text("then_branch"), g: Some(Box::new(body)), ..Default::default() };
    let dim = |v| tensor_shape_proto::Dimension { value: Some(v), denotation: None };
    use tensor_shape_proto::dimension::Value;
    let shape = TensorShapeProto { dim: vec![dim(Value::DimParam("batch".into())), dim(Value::DimValue(4))] };
    let ty = type_proto::Value::TensorType(type_proto::Tensor { elem_type: Some(1), shape: Some(shape) });
    let value = |name: &str| ValueInfoProto {
        name: text(name),
        r#type: Some(TypeProto { value: Some(ty.clone()), denotation: None }),
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(10),
        producer_name: text("ortx's tests"),
        opset_import: vec![OperatorSetIdProto { domain: text(""), version: Some(21) }],
        graph: Some(GraphProto {
            name: text("main"),
            node: vec![node("MatMul", vec![]), node("If", vec![branch]), node("Softmax", vec![int("axis", -1)])],
            initializer: vec![tensor("w"), TensorProto { int64_data: vec![1, -1, 300], ..tensor("shape") }],
            input: vec![value("x")],
            output: vec![value("y")],
            ..Default::default()
        }),
        functions: vec![FunctionProto { name: text("F"), node: vec![node("Add", vec![])], ..Default::default() }],
        ..Default::default()
    }
}

#[test]
fn weights_are_not_copied() {
    let mut wanted = model();
    let weights = Bytes::from(vec![5u8; 1 << 20]);
    wanted.graph.as_mut().unwrap().initializer[0].raw_data = Some(weights);
    let path = std::env::temp_dir().join(format!("ortx-read-{}.onnx", std::process::id()));
    std::fs::write(&path, wanted.encode_to_vec()).unwrap();
    for mode in [Mode::Map, Mode::Read] {
        let source = Source::open(&path, mode).unwrap();
        let (opened, counts) = counted(|| open_bytes(source.bytes().clone()).unwrap());
        assert_eq!(opened, wanted);
        assert!(counts.peak < 64 << 10, "{counts:?}");
        let raw = opened.graph.unwrap().initializer[0].raw_data.clone().unwrap();
        let file = source.bytes().as_ptr_range();
        assert!(file.contains(&raw.as_ptr()), "the weights lie in the file's own bytes");
        drop(source);
        assert_eq!(raw[raw.len() - 1], 5, "and keep them alive");
        assert_eq!(open_path(&path, mode).unwrap().0, wanted);
    }
    std::fs::remove_file(path).unwrap();
}

#[test]
fn no_damage_panics_or_takes_much_memory() {
    let good = model().encode_to_vec();
    let mut rng = Rng(0x2545_f491_4f6c_dd1d);
    let (mut opened, mut refused) = (0, 0);
    let mut try_open = |bytes: Vec<u8>| {
        let limit = Limits::for_len(bytes.len()).decoded + (64 << 10);
        let (result, counts) = counted(|| open_bytes(Bytes::from(bytes)));
        assert!(counts.peak <= limit, "{counts:?}");
        match result {
            Ok(_) => opened += 1,
            Err(e) => {
                assert_eq!(e.kind(), ErrorKind::InvalidModel, "{e}");
                refused += 1;
            }
        }
    };
    for len in 0..good.len() {
        try_open(good[..len].to_vec());
    }
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        try_open(bytes);
    }
    for _ in 0..4000 {
        let mut bytes = good.clone();
        for _ in 0..=rng.below(4) {
            let at = rng.below(bytes.len());
            match rng.below(4) {
                0 => bytes[at] = rng.next() as u8,
                1 => bytes[at] = 0xff,
                2 => drop(bytes.splice(at..at, (0..rng.below(9)).map(|_| 0x80 | at as u8))),
                _ => drop(bytes.drain(at..(at + rng.below(30)).min(bytes.len()))),
            }
            if bytes.is_empty() {
                break;
            }
        }
        try_open(bytes);
    }
    assert!(opened > 1000 && refused > 1000, "both ways are taken: {opened} opened, {refused} refused");
}

#[test]
fn files_that_are_no_models_say_what_they_are() {
    let says = |bytes: &[u8], word: &str| {
        let e = open_bytes(Bytes::copy_from_slice(bytes)).unwrap_err();
        assert!(e.to_string().contains(word), "{e}");
        assert_eq!(e.kind(), ErrorKind::InvalidModel);
    };
    says(b"", "0 bytes");
    says(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "git lfs pull");
    says(b"<!doctype html>\n<html>", "web page");
    says(b"PK\x03\x04\x14\x00\x06\x00", "zip");
    says(b"\x08\x0a", "no graph");
    let tensor = TensorProto { dims: vec![2], data_type: Some(1), ..Default::default() };
    says(&tensor.encode_to_vec(), "");
    let e = open_path(Path::new("/no/such/model.onnx"), Mode::Map).unwrap_err();
    assert_eq!(e.kind(), ErrorKind::NotFound);
    assert!(e.to_string().contains("/no/such/model.onnx"), "{e}");
}

#[test]
fn values_of_test_data_decode() {
    let tensor = TensorProto { dims: vec![2], data_type: Some(7), int64_data: vec![3, 4], ..Default::default() };
    let sequence = SequenceProto { elem_type: Some(1), tensor_values: vec![tensor.clone()], ..Default::default() };
    let optional = OptionalProto { elem_type: Some(3), sequence_value: Some(sequence.clone()), ..Default::default() };
    assert_eq!(decode::<TensorProto>(Bytes::from(tensor.encode_to_vec())).unwrap(), tensor);
    assert_eq!(decode::<SequenceProto>(Bytes::from(sequence.encode_to_vec())).unwrap(), sequence);
    assert_eq!(decode::<OptionalProto>(Bytes::from(optional.encode_to_vec())).unwrap(), optional);
    assert_eq!(decode::<OptionalProto>(Bytes::new()).unwrap(), OptionalProto::default());
}
