//! Files taken apart by the wire format alone, and the damage that is done to them.

use std::fmt::Write;
use std::rc::Rc;

/// A small generator of pseudo-random numbers (splitmix64).
#[derive(Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

#[derive(Clone)]
pub struct Field {
    number: u32,
    value: Wire,
}

#[derive(Clone)]
enum Wire {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Rc<[u8]>),
    Message(Vec<Field>),
    /// A message with this length written before it, whatever its own is.
    Lying(Vec<Field>, u64),
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut v = 0u64;
    for i in 0..10 {
        let b = *bytes.get(*at)?;
        *at += 1;
        v |= u64::from(b & 0x7f).checked_shl(7 * i)?;
        if b < 0x80 {
            return Some(v);
        }
    }
    None
}

fn write_varint(mut v: u64, out: &mut Vec<u8>) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

/// The fields of a message, where the bytes look like one: text and weights hardly ever do.
pub fn parse(bytes: &[u8], depth: usize) -> Option<Vec<Field>> {
    let (mut at, mut fields) = (0, Vec::new());
    while at < bytes.len() {
        let key = read_varint(bytes, &mut at)?;
        let number = u32::try_from(key >> 3).ok().filter(|n| (1..=60).contains(n))?;
        let value = match key & 7 {
            0 => Wire::Varint(read_varint(bytes, &mut at)?),
            1 => Wire::Fixed64(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?)),
            5 => Wire::Fixed32(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?)),
            2 => {
                let len = usize::try_from(read_varint(bytes, &mut at)?).ok()?;
                let part = bytes.get(at..at.checked_add(len)?)?;
                at += len;
                let message = if len > 1 && depth < 24 { parse(part, depth + 1) } else { None };
                message.filter(|m| encode(m) == part).map_or_else(|| Wire::Bytes(part.into()), Wire::Message)
            }
            _ => return None,
        };
        at += match value {
            Wire::Fixed64(_) => 8,
            Wire::Fixed32(_) => 4,
            _ => 0,
        };
        fields.push(Field { number, value });
    }
    Some(fields)
}

pub fn encode(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for f in fields {
        let key = |wire: u64, out: &mut Vec<u8>| write_varint(u64::from(f.number) << 3 | wire, out);
        match &f.value {
            Wire::Varint(v) => {
                key(0, &mut out);
                write_varint(*v, &mut out);
            }
            Wire::Fixed64(v) => {
                key(1, &mut out);
                out.extend(v.to_le_bytes());
            }
            Wire::Fixed32(v) => {
                key(5, &mut out);
                out.extend(v.to_le_bytes());
            }
            Wire::Bytes(b) => {
                key(2, &mut out);
                write_varint(b.len() as u64, &mut out);
                out.extend_from_slice(b);
            }
            Wire::Message(m) | Wire::Lying(m, _) => {
                key(2, &mut out);
                let inner = encode(m);
                write_varint(if let Wire::Lying(_, n) = f.value { n } else { inner.len() as u64 }, &mut out);
                out.extend(inner);
            }
        }
    }
    out
}

fn inner(f: &Field) -> &[Field] {
    match &f.value {
        Wire::Message(m) | Wire::Lying(m, _) => m,
        _ => &[],
    }
}

/// How many fields there are, at all depths.
fn total(fields: &[Field]) -> usize {
    fields.iter().map(|f| 1 + total(inner(f))).sum()
}

/// The `k`-th field in the file's order.
fn nth<'a>(fields: &'a [Field], k: &mut usize) -> Option<&'a Field> {
    for f in fields {
        if *k == 0 {
            return Some(f);
        }
        *k -= 1;
        if let Some(found) = nth(inner(f), k) {
            return Some(found);
        }
    }
    None
}

/// Calls `change` with the list that has the `k`-th field, and its place there.
fn at<R>(fields: &mut Vec<Field>, k: &mut usize, change: &mut dyn FnMut(&mut Vec<Field>, usize) -> R) -> Option<R> {
    for i in 0..fields.len() {
        if *k == 0 {
            return Some(change(fields, i));
        }
        *k -= 1;
        if let Wire::Message(m) | Wire::Lying(m, _) = &mut fields[i].value
            && let Some(r) = at(m, k, change)
        {
            return Some(r);
        }
    }
    None
}

/// Numbers at the edges of what code counts with.
const EDGES: [u64; 24] = [
    0,
    1,
    2,
    3,
    7,
    8,
    16,
    100,
    255,
    1 << 16,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    u32::MAX as u64,
    1 << 32,
    1 << 40,
    i64::MAX as u64 / 8,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
    u64::MAX - 1,
    u64::MAX - 7,
    -1000i64 as u64,
    i32::MIN as i64 as u64,
];

const FLOATS: [f32; 8] = [0.0, -1.0, 1e-45, 1e9, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];

fn edge(old: u64, rng: &mut Rng) -> u64 {
    match rng.below(6) {
        0 => old.wrapping_add(1),
        1 => old.wrapping_sub(1),
        2 => old ^ 1 << rng.below(64),
        3 => rng.below(40) as u64,
        _ => *rng.pick(&EDGES),
    }
}

/// Changes what stands in a field.
fn tweak(f: &mut Field, rng: &mut Rng) -> &'static str {
    match &mut f.value {
        Wire::Varint(v) => {
            *v = edge(*v, rng);
            "an edge number"
        }
        Wire::Fixed64(v) => {
            *v = if rng.one_in(2) { edge(*v, rng) } else { f64::from(*rng.pick(&FLOATS)).to_bits() };
            "an edge double"
        }
        Wire::Fixed32(v) => {
            *v = if rng.one_in(2) { edge(u64::from(*v), rng) as u32 } else { rng.pick(&FLOATS).to_bits() };
            "an edge float"
        }
        Wire::Bytes(b) => {
            let mut own = b.to_vec();
            let what = match rng.below(7) {
                0 => {
                    own.truncate(rng.below(own.len()));
                    "a cut text"
                }
                1 => {
                    own.extend((0..1 + rng.below(16)).map(|i| (i * 37) as u8));
                    "a longer text"
                }
                2 => {
                    own.clear();
                    "an empty text"
                }
                3 if !own.is_empty() => {
                    let i = rng.below(own.len());
                    own[i] ^= 1 << rng.below(8);
                    "a flipped bit in a text"
                }
                4 => {
                    own = vec![b'a'; 70_000];
                    "a long text"
                }
                // Little-endian numbers: shapes, axes, indices.
                n if own.len() >= 8 => {
                    let i = rng.below(own.len() / 8) * 8;
                    let word = if n == 5 { *rng.pick(&EDGES) } else { rng.below(9) as u64 };
                    own[i..i + 8].copy_from_slice(&word.to_le_bytes());
                    "an edge number among bytes"
                }
                _ => {
                    own = vec![rng.next() as u8; 1 + rng.below(12)];
                    "other bytes"
                }
            };
            f.value = Wire::Bytes(own.into());
            what
        }
        Wire::Message(m) => {
            let m = std::mem::take(m);
            match rng.below(3) {
                0 => {
                    f.value = Wire::Message(Vec::new());
                    "an empty message"
                }
                1 => {
                    f.value = Wire::Lying(m, *rng.pick(&EDGES));
                    "a wrong length"
                }
                _ => {
                    let n = encode(&m).len() as u64;
                    f.value = Wire::Lying(m, if rng.one_in(2) { n + 1 } else { n.saturating_sub(1) });
                    "a length off by one"
                }
            }
        }
        Wire::Lying(_, n) => {
            *n = edge(*n, rng);
            "a wrong length"
        }
    }
}

/// One change to the fields of a model; `donor` is another model, or the same.
pub fn change(fields: &mut Vec<Field>, donor: &[Field], rng: &mut Rng, said: &mut String) {
    let n = total(fields);
    if n == 0 {
        return;
    }
    // Small parts of a model are many fields, so weights do not drown them.
    let mut k = rng.below(n);
    let place = k;
    let kind = rng.below(16);
    let gift = nth(donor, &mut rng.below(total(donor))).cloned();
    // Text that stands somewhere in a field of the same number: names and operators change places.
    let mut same: Vec<Rc<[u8]>> = Vec::new();
    if kind >= 13 {
        let mut j = k;
        if let Some(Field { number, value: Wire::Bytes(_) }) = nth(fields, &mut j) {
            collect(donor, *number, &mut same);
            collect(fields, *number, &mut same);
        }
    }
    let what = at(fields, &mut k, &mut |list, i| match kind {
        0 => {
            list.remove(i);
            "removed"
        }
        1 => {
            list.insert(i, list[i].clone());
            "doubled"
        }
        2 => {
            list[i].number = 1 + rng.below(30) as u32;
            "another field number"
        }
        3 => {
            let j = rng.below(list.len());
            let (a, b) = (list[i].number, list[j].number);
            (list[i].number, list[j].number) = (b, a);
            "field numbers swapped"
        }
        4 => {
            let j = rng.below(list.len());
            list.swap(i, j);
            "order swapped"
        }
        5 => {
            let copies = if list.len() > 200 { 3 } else { 300 };
            let small = encode(&list[i..=i]).len() < 2000;
            let copy = list[i].clone();
            list.extend(std::iter::repeat_n(copy, if small { copies } else { 3 }));
            "many copies"
        }
        6 => {
            list.extend(gift.clone());
            "a field from elsewhere"
        }
        7 => {
            if let Some(g) = &gift {
                list[i].value = g.value.clone();
            }
            "the value of another field"
        }
        8 => {
            let edge = *rng.pick(&EDGES);
            list[i].value = match &list[i].value {
                Wire::Varint(v) => Wire::Bytes(v.to_le_bytes().as_slice().into()),
                Wire::Bytes(_) => Wire::Varint(edge),
                Wire::Message(_) => Wire::Fixed32(edge as u32),
                _ => Wire::Varint(edge),
            };
            "another wire type"
        }
        13.. if !same.is_empty() => {
            list[i].value = Wire::Bytes(rng.pick(&same).clone());
            "a name from elsewhere"
        }
        _ => tweak(&mut list[i], rng),
    });
    let _ = write!(said, "field {place} of {n}: {}; ", what.unwrap_or("nothing"));
}

fn collect(fields: &[Field], number: u32, into: &mut Vec<Rc<[u8]>>) {
    for f in fields {
        match &f.value {
            Wire::Bytes(b) if f.number == number && b.len() < 300 => into.push(b.clone()),
            _ => collect(inner(f), number, into),
        }
    }
}

/// One change to the bytes of a file.
pub fn damage(bytes: &mut Vec<u8>, rng: &mut Rng, said: &mut String) {
    if bytes.is_empty() {
        return;
    }
    // Half of it where the structure is dense.
    let end = if rng.one_in(2) { bytes.len().min(1024) } else { bytes.len() };
    let i = rng.below(end);
    let len = (1 + rng.below(64)).min(bytes.len() - i);
    let what = match rng.below(8) {
        0 => {
            bytes.truncate(i);
            "cut off"
        }
        1 => {
            let part = bytes[i..i + len].to_vec();
            bytes.splice(i..i, part);
            "bytes doubled"
        }
        2 => {
            bytes.drain(i..i + len);
            "bytes removed"
        }
        3 => {
            let noise: Vec<u8> = (0..len).map(|_| rng.next() as u8).collect();
            bytes.splice(i..i, noise);
            "noise inserted"
        }
        4 => {
            bytes[i..i + len.min(12)].fill(0xff);
            "a number without end"
        }
        5 => {
            let (size, byte) = (1 << (10 + rng.below(9)), rng.next() as u8);
            bytes.extend(std::iter::repeat_n(byte, size));
            "oversized"
        }
        _ => {
            for _ in 0..1 + rng.below(4) {
                let i = rng.below(end.min(bytes.len()));
                bytes[i] ^= 1 << rng.below(8);
            }
            "bits flipped"
        }
    };
    let _ = write!(said, "byte {i}: {what}; ");
}

#[test]
fn files_are_taken_apart_and_put_together() {
    let bytes = std::fs::read("models/digits.onnx").unwrap();
    let fields = parse(&bytes, 0).unwrap();
    assert!(total(&fields) > 100);
    assert!(encode(&fields) == bytes);
}
