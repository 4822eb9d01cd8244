//! The scan against prost: what it passes decodes, in no more memory than it says.

use super::*;
use crate::base::counting::counted;
use crate::proto::onnx::*;
use bytes::Bytes;
use prost::Message as _;

/// A small generator of pseudo-random numbers (xorshift).
pub(crate) struct Rng(pub u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}

fn varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn block(content: &[u8], out: &mut Vec<u8>) {
    varint(content.len() as u64, out);
    out.extend(content);
}

/// A random message of the schema, all fields and forms of encoding in any order.
fn generate(rng: &mut Rng, index: usize, depth: usize, out: &mut Vec<u8>) {
    let fields = MESSAGES[index].fields;
    for _ in 0..rng.below(if depth == 0 { 40 } else { 5 }) {
        if rng.below(20) == 0 {
            varint(999 << 3 | 2, out); // a field of the future
            block(b"later", out);
            continue;
        }
        let field = &fields[rng.below(fields.len())];
        let key = |wire: u64| u64::from(field.number) << 3 | wire;
        let any = match rng.below(4) {
            0 => rng.next(),
            _ => rng.next() % 200,
        };
        let text = "ab\u{e9}c".repeat(rng.below(6));
        let packed = field.repeated && rng.below(2) == 0;
        let count = rng.below(70);
        let mut values = Vec::new();
        match field.kind {
            Kind::Varint(_) if packed => (0..count).for_each(|_| varint(rng.next() >> rng.below(64), &mut values)),
            Kind::Fixed32 if packed => values.resize(4 * count, 7),
            Kind::Fixed64 if packed => values.resize(8 * count, 7),
            Kind::Varint(_) => {
                varint(key(0), out);
                varint(any, out);
                continue;
            }
            Kind::Fixed32 => {
                varint(key(5), out);
                out.extend([1, 2, 3, 4]);
                continue;
            }
            Kind::Fixed64 => {
                varint(key(1), out);
                out.extend([1, 2, 3, 4, 5, 6, 7, 8]);
                continue;
            }
            Kind::Text | Kind::Bytes => values.extend(text.as_bytes()),
            Kind::Message(_) if depth >= 6 => continue,
            Kind::Message(child) => generate(rng, child, depth + 1, &mut values),
        }
        varint(key(2), out);
        block(&values, out);
    }
}

#[test]
fn what_passes_decodes_in_the_memory_it_says() {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15);
    fn check<T: Scanned>(bytes: Vec<u8>) -> f64 {
        let report = scan::<T>(&bytes, Limits { decoded: usize::MAX }).expect("well-formed");
        let bytes = Bytes::from_owner(bytes);
        let (decoded, counts) = counted(|| T::decode(bytes.clone()));
        decoded.expect("prost takes what the scan passes");
        let real = counts.peak + size_of::<T>();
        assert!(real <= report.decoded, "{}: {real} bytes, the scan says {}", T::NAME, report.decoded);
        report.decoded as f64 / real as f64
    }
    let mut worst = 0f64;
    for _ in 0..3000 {
        let mut bytes = Vec::new();
        generate(&mut rng, ModelProto::INDEX, 0, &mut bytes);
        worst = worst.max(check::<ModelProto>(bytes));
        let mut bytes = Vec::new();
        generate(&mut rng, OptionalProto::INDEX, 0, &mut bytes);
        check::<OptionalProto>(bytes);
    }
    println!("the scan's bound is at most {worst:.1} times what decoding takes");
}

#[test]
fn many_small_messages_are_refused() {
    // 2 MB of empty initialisers would take 700 MB once decoded.
    let graph = [0x2a, 0x00].repeat(1 << 20);
    let mut model = vec![0x08, 0x08, 0x3a];
    block(&graph, &mut model);
    let limits = Limits::for_len(model.len());
    let e = scan::<ModelProto>(&model, limits).unwrap_err();
    assert!(e.to_string().contains("no real model"), "{e}");
    assert!(limits.decoded < 120 << 20);
    // The same wish as ten-byte numbers that decode to eight bytes each is no bomb.
    let tensor = TensorProto { int64_data: vec![-1; 100_000], ..Default::default() }.encode_to_vec();
    scan::<TensorProto>(&tensor, Limits::for_len(tensor.len())).unwrap();
}

#[test]
fn nesting_stops_where_prost_stops() {
    let nested = |depth: usize| {
        let mut bytes = Vec::new();
        for _ in 0..depth {
            let mut outer = vec![0x3a];
            block(&bytes, &mut outer);
            bytes = outer;
        }
        bytes
    };
    let limits = Limits { decoded: usize::MAX };
    let deepest = nested(MAX_DEPTH);
    scan::<OptionalProto>(&deepest, limits).unwrap();
    OptionalProto::decode(Bytes::from(deepest)).unwrap();
    let deeper = nested(MAX_DEPTH + 1);
    let e = scan::<OptionalProto>(&deeper, limits).unwrap_err();
    assert!(e.to_string().contains("nest deeper than 100"), "{e}");
    OptionalProto::decode(Bytes::from(deeper)).unwrap_err();
}

#[test]
fn faults_are_named_with_their_place() {
    let fault = |bytes: &[u8], words: &[&str]| {
        let e = scan::<ModelProto>(bytes, Limits::for_len(bytes.len())).unwrap_err().to_string();
        for word in words {
            assert!(e.contains(word), "{bytes:?}: '{e}' lacks '{word}'");
        }
        ModelProto::decode(bytes).expect_err("prost refuses it too");
    };
    fault(&[0x08], &["byte 1", "truncated"]);
    fault(&[0x08, 0x08, 0x3a, 0x05, 0x0a], &["byte 4", "5 bytes, where 1 are left"]);
    fault(&[0x3a, 0x02, 0x0a, 0x05], &["byte 4", "ModelProto.graph:", "5 bytes, where 0 are left"]);
    fault(&[0x3a, 0x04, 0x0a, 0x02, 0x1a, 0x7f], &["byte 6", "ModelProto.graph.node:"]);
    fault(&[0x3a, 0x03, 0x12, 0x01, 0xff], &["byte 4", "ModelProto.graph:", "'name' is not UTF-8"]);
    fault(&[0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], &["byte 1", "64 bits"]);
    fault(&[0x0a, 0x00], &["byte 0", "'ir_version' has wire type 2"]);
    fault(&[0x08, 0x01, 0x00, 0x00], &["byte 2", "field number 0"]);
    fault(&[0x0f], &["wire type"]);
    fault(&[0xff, 0x0f], &["wire type 7"]);
    // A tensor's float_data of five bytes; its int64_data that ends within a number.
    fault(&[0x3a, 0x09, 0x2a, 0x07, 0x22, 0x05, 0, 0, 0, 0, 0], &["graph.initializer:", "5 bytes"]);
    fault(&[0x3a, 0x06, 0x2a, 0x04, 0x3a, 0x02, 0x01, 0x80], &["byte 7", "'int64_data'"]);
}
