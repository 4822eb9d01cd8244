//! A walk over the wire format before prost decodes it: everything lies within its bounds, nests within reason, and
//! decodes to an amount of memory that fits the file's size.
//!
//! The decoder allocates as it goes and cannot fail gently, and a two-byte message may stand for hundreds of bytes of
//! struct. The walk reads the headers only, so a mapped file's weights stay on disk.

use super::onnx;
use crate::{bail, ensure, error::Result};

/// What the scan knows of a message type; the table is generated from `proto/onnx.proto`.
pub(super) struct Message {
    /// Bytes of the generated struct.
    size: usize,
    fields: &'static [Field],
}

pub(super) struct Field {
    number: u32,
    name: &'static str,
    kind: Kind,
    repeated: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// An integer of this many bytes once decoded.
    Varint(usize),
    Fixed32,
    Fixed64,
    Text,
    Bytes,
    /// By its place in `MESSAGES`.
    Message(usize),
}

/// A message that the scan can check.
pub trait Scanned: prost::Message + Default {
    /// The message's name in the schema.
    const NAME: &str;
    /// Its place in the scan's table.
    const INDEX: usize;
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// How deep messages may nest: what prost itself follows.
pub const MAX_DEPTH: usize = 100;

/// What a file may ask for.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The bytes of memory that the decoded messages may take.
    pub decoded: usize,
}

impl Limits {
    /// For a file of `len` bytes. Weights are not copied; what else is in a file takes 10 to 30 times its size, up to
    /// 48 in small models of convolutions, full of short attributes.
    pub fn for_len(len: usize) -> Self {
        Limits { decoded: len.saturating_mul(48).saturating_add(16 << 20) }
    }
}

/// What a scan counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Messages of all types.
    pub messages: usize,
    /// An upper bound of the memory that decoding takes, from the sizes of the generated structs.
    pub decoded: usize,
}

/// An allocation's own cost beyond its size.
const ALLOC: usize = 16;

/// One open message.
#[derive(Clone, Copy)]
struct Frame {
    message: usize,
    end: usize,
    /// The field that it is the value of; empty at the root.
    name: &'static str,
    /// A bit for each field of the table met so far.
    seen: u64,
}

/// Checks that `bytes` is a well-formed message of type `T`, within `limits`.
pub fn scan<T: Scanned>(bytes: &[u8], limits: Limits) -> Result<Report> {
    let mut scan = Scan { bytes, at: 0, limits, report: Report::default(), stack: Vec::with_capacity(16) };
    match scan.run(T::INDEX) {
        Ok(()) => Ok(scan.report),
        Err(e) => {
            let mut path = T::NAME.to_string();
            for frame in scan.stack.iter().filter(|f| !f.name.is_empty()) {
                path.push('.');
                path.push_str(frame.name);
            }
            Err(e.context(format!("byte {}, in {path}", scan.at)))
        }
    }
}

struct Scan<'a> {
    bytes: &'a [u8],
    at: usize,
    limits: Limits,
    report: Report,
    stack: Vec<Frame>,
}

impl<'a> Scan<'a> {
    fn run(&mut self, root: usize) -> Result<()> {
        self.report.messages = 1;
        self.charge(MESSAGES[root].size)?;
        self.stack.push(Frame { message: root, end: self.bytes.len(), name: "", seen: 0 });
        while let Some(&frame) = self.stack.last() {
            if self.at == frame.end {
                self.stack.pop();
            } else {
                self.field(frame)?;
            }
        }
        Ok(())
    }

    /// One field of the message `frame`: its key and value, or its key alone where a nested message opens.
    fn field(&mut self, frame: Frame) -> Result<()> {
        let start = self.at;
        let key = self.varint(frame.end)?;
        let (number, wire) = (key >> 3, key & 7);
        if number == 0 || key > u64::from(u32::MAX) {
            self.at = start;
            bail!(InvalidModel, "field number {number} does not exist");
        }
        let fields = MESSAGES[frame.message].fields;
        let Some(place) = fields.iter().position(|f| u64::from(f.number) == number) else {
            return self.skip(wire, frame.end);
        };
        let field = &fields[place];
        let expected = match field.kind {
            Kind::Varint(_) => 0,
            Kind::Fixed64 => 1,
            Kind::Fixed32 => 5,
            Kind::Text | Kind::Bytes | Kind::Message(_) => 2,
        };
        let packed = expected != 2 && wire == 2 && field.repeated;
        if wire != expected && !packed {
            self.at = start;
            bail!(InvalidModel, "field '{}' has wire type {wire} where {expected} is due", field.name);
        }
        // A Vec of four is what the first element costs; later ones cost two, since a full Vec doubles.
        let elements = if !field.repeated {
            0
        } else if frame.seen & (1 << place) == 0 {
            4
        } else {
            2
        };
        if let Some(top) = self.stack.last_mut() {
            top.seen |= 1 << place;
        }
        if packed {
            return self.packed(field, frame.end);
        }
        match field.kind {
            Kind::Varint(size) => {
                self.varint(frame.end)?;
                self.charge(elements * size)
            }
            Kind::Fixed32 => {
                self.advance(4, frame.end)?;
                self.charge(elements * 4)
            }
            Kind::Fixed64 => {
                self.advance(8, frame.end)?;
                self.charge(elements * 8)
            }
            Kind::Bytes => {
                self.block(frame.end)?;
                self.charge(elements * size_of::<bytes::Bytes>())
            }
            Kind::Text => {
                let text = self.block(frame.end)?;
                if let Err(e) = std::str::from_utf8(text) {
                    self.at -= text.len() - e.valid_up_to();
                    bail!(InvalidModel, "field '{}' is not UTF-8 text", field.name);
                }
                let copy = if text.is_empty() { 0 } else { text.len() + ALLOC };
                self.charge(elements * size_of::<String>() + copy)
            }
            Kind::Message(index) => {
                let len = self.length(frame.end)?;
                ensure!(
                    self.stack.len() <= MAX_DEPTH,
                    InvalidModel,
                    "messages nest deeper than {MAX_DEPTH}, at field '{}'",
                    field.name
                );
                self.report.messages += 1;
                // A single one may be boxed, or lie in its parent: then this counts it twice.
                self.charge(elements.max(1) * MESSAGES[index].size + ALLOC)?;
                self.stack.push(Frame { message: index, end: self.at + len, name: field.name, seen: 0 });
                Ok(())
            }
        }
    }

    /// A repeated number field whose values stand in one block.
    fn packed(&mut self, field: &Field, limit: usize) -> Result<()> {
        let block = self.block(limit)?;
        let (count, size) = match field.kind {
            Kind::Fixed32 => (block.len() / 4, 4),
            Kind::Fixed64 => (block.len() / 8, 8),
            Kind::Varint(size) => {
                let (mut count, mut run) = (0usize, 0usize);
                for (i, &b) in block.iter().enumerate() {
                    run += 1;
                    let last = b < 0x80;
                    if run > 10 || (run == 10 && b > 1) || (!last && i + 1 == block.len()) {
                        self.at -= block.len() - i;
                        bail!(InvalidModel, "a number of field '{}' does not end or is too large", field.name);
                    }
                    if last {
                        count += 1;
                        run = 0;
                    }
                }
                (count, size)
            }
            Kind::Text | Kind::Bytes | Kind::Message(_) => (0, 1),
        };
        if !matches!(field.kind, Kind::Varint(_)) && block.len() % size != 0 {
            bail!(InvalidModel, "field '{}' has {} bytes, which are not whole numbers", field.name, block.len());
        }
        self.charge(count.max(4).saturating_mul(2 * size).saturating_add(ALLOC))
    }

    /// Passes over a field that the schema does not know.
    fn skip(&mut self, wire: u64, limit: usize) -> Result<()> {
        match wire {
            0 => self.varint(limit).map(|_| ()),
            1 => self.advance(8, limit),
            2 => self.block(limit).map(|_| ()),
            5 => self.advance(4, limit),
            3 | 4 => bail!(InvalidModel, "wire type {wire} is a group, which ONNX does not have"),
            _ => bail!(InvalidModel, "wire type {wire} does not exist"),
        }
    }

    /// The bytes of a length-delimited field.
    fn block(&mut self, limit: usize) -> Result<&'a [u8]> {
        let len = self.length(limit)?;
        let block = &self.bytes[self.at..self.at + len];
        self.at += len;
        Ok(block)
    }

    /// A length that fits before `limit`.
    fn length(&mut self, limit: usize) -> Result<usize> {
        let len = self.varint(limit)?;
        let left = limit - self.at;
        match usize::try_from(len) {
            Ok(len) if len <= left => Ok(len),
            _ => bail!(InvalidModel, "a length of {len} bytes, where {left} are left"),
        }
    }

    fn advance(&mut self, len: usize, limit: usize) -> Result<()> {
        let left = limit - self.at;
        ensure!(len <= left, InvalidModel, "a number of {len} bytes, where {left} are left");
        self.at += len;
        Ok(())
    }

    fn varint(&mut self, limit: usize) -> Result<u64> {
        let mut value = 0u64;
        for (i, &b) in self.bytes[self.at..limit].iter().take(10).enumerate() {
            value |= u64::from(b & 0x7f) << (7 * i);
            if b < 0x80 {
                ensure!(i < 9 || b <= 1, InvalidModel, "a number of more than 64 bits");
                self.at += i + 1;
                return Ok(value);
            }
        }
        if limit - self.at < 10 {
            bail!(InvalidModel, "the data ends within a number: truncated?");
        }
        bail!(InvalidModel, "a number of more than 64 bits")
    }

    fn charge(&mut self, bytes: usize) -> Result<()> {
        self.report.decoded = self.report.decoded.saturating_add(bytes);
        ensure!(
            self.report.decoded <= self.limits.decoded,
            InvalidModel,
            "its {} bytes would take more than {} bytes in memory after {} messages, which no real model does",
            self.bytes.len(),
            self.limits.decoded,
            self.report.messages
        );
        Ok(())
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
pub(crate) mod tests;
