//! Arrays as numpy writes them (`.npy`, format versions 1 to 3), of every element type that ONNX has.

use ortx::tensor::{decode_narrow, encode_narrow, unpack_bits, write_packed};
use ortx::{DType, Tensor};

type Result<T> = std::result::Result<T, String>;

const MAGIC: &[u8] = b"\x93NUMPY";

/// An array: dense, row-major, little-endian.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// numpy's letter of the kind: `f i u b c U S V`.
    kind: char,
    /// Bytes an element takes.
    item: usize,
    shape: Vec<usize>,
    data: Vec<u8>,
}

/// Reads a file's bytes.
pub fn read(file: &[u8]) -> Result<Array> {
    let rest = file.strip_prefix(MAGIC).ok_or("it is no .npy array (it does not start with \\x93NUMPY)")?;
    let (&[major, _minor], rest) = rest.split_first_chunk::<2>().ok_or("it ends within its header")?;
    let (len, rest) = match major {
        1 => rest.split_first_chunk::<2>().map(|(n, r)| (usize::from(u16::from_le_bytes(*n)), r)),
        2 | 3 => rest.split_first_chunk::<4>().map(|(n, r)| (u32::from_le_bytes(*n) as usize, r)),
        v => return Err(format!("its format version {v} is not known")),
    }
    .ok_or("it ends within its header")?;
    let (header, data) = rest.split_at_checked(len).ok_or("it ends within its header")?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let descr = field(header, "descr")?;
    let (big, kind, item) = element(descr)?;
    let fortran = match field(header, "fortran_order")? {
        "True" => true,
        "False" => false,
        x => return Err(format!("its header says fortran_order {x}")),
    };
    let shape = field(header, "shape")?.trim_matches(['(', ')']).split(',').map(str::trim).filter(|s| !s.is_empty());
    let shape: Vec<usize> = shape
        .map(|s| s.trim_end_matches('L').parse().map_err(|_| format!("its header has the size '{s}'")))
        .collect::<Result<_>>()?;
    let bytes = shape.iter().try_fold(item, |n, &d| n.checked_mul(d)).ok_or("its sizes are too large")?;
    let data = data.get(..bytes).ok_or_else(|| format!("it needs {bytes} bytes of data, it has {}", data.len()))?;
    let mut data = data.to_vec();
    let word = match kind {
        'c' => item / 2,
        'U' => 4,
        _ => item,
    };
    if big && word > 1 {
        data.chunks_exact_mut(word).for_each(<[u8]>::reverse);
    }
    if fortran && shape.len() > 1 {
        data = row_major(&data, &shape, item);
    }
    Ok(Array { kind, item, shape, data })
}

/// The text of a field of the header, which is a Python dictionary.
fn field<'h>(header: &'h str, name: &str) -> Result<&'h str> {
    let start = [format!("'{name}'"), format!("\"{name}\"")].iter().find_map(|k| Some(header.find(k)? + k.len()));
    let rest = start.and_then(|at| header[at..].trim_start().strip_prefix(':')).map(str::trim_start);
    let rest = rest.ok_or_else(|| format!("its header lacks {name}"))?;
    let end = match rest.chars().next() {
        Some(q @ ('\'' | '"')) => rest[1..].find(q).map(|e| e + 2),
        Some('(') => rest.find(')').map(|e| e + 1),
        Some('[') => return Err("its elements have fields (a structured type), ONNX has no such type".into()),
        _ => rest.find([',', '}']),
    };
    let text = end.map(|e| rest[..e].trim()).ok_or_else(|| format!("its header's {name} does not end"))?;
    Ok(text.trim_matches(['\'', '"']))
}

/// Whether big-endian, the kind, and the bytes of an element, from a type like `<f4`.
fn element(descr: &str) -> Result<(bool, char, usize)> {
    let (order, rest) = match descr.chars().next() {
        Some(c @ ('<' | '>' | '|' | '=')) => (c, &descr[1..]),
        _ => ('|', descr),
    };
    let unknown = || format!("its element type '{descr}' is not one that ONNX has");
    let kind = rest.chars().next().ok_or_else(unknown)?;
    if kind == 'O' {
        return Err("it holds Python objects; save strings as np.array(x, dtype=str)".into());
    }
    let n: usize = rest[1..].parse().map_err(|_| unknown())?;
    let known = match kind {
        'b' => n == 1,
        'i' | 'u' => matches!(n, 1 | 2 | 4 | 8),
        'f' => matches!(n, 1 | 2 | 4 | 8),
        'c' => matches!(n, 8 | 16),
        'V' => matches!(n, 1 | 2),
        'U' | 'S' => true,
        _ => false,
    };
    let item = if kind == 'U' { n.checked_mul(4) } else { Some(n) };
    match item {
        Some(item) if known => Ok((order == '>', kind, item)),
        _ => Err(unknown()),
    }
}

/// From column-major to row-major.
fn row_major(data: &[u8], shape: &[usize], item: usize) -> Vec<u8> {
    let mut strides = Vec::with_capacity(shape.len());
    let mut step = item;
    for &d in shape {
        strides.push(step);
        step *= d;
    }
    let mut out = Vec::with_capacity(data.len());
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    while out.len() < data.len() {
        out.extend_from_slice(&data[at..at + item]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            at -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out
}

impl Array {
    /// The type that the elements have by themselves.
    fn natural(&self) -> Option<DType> {
        Some(match (self.kind, self.item) {
            ('b', _) => DType::Bool,
            ('i', 1) => DType::I8,
            ('i', 2) => DType::I16,
            ('i', 4) => DType::I32,
            ('i', _) => DType::I64,
            ('u', 1) => DType::U8,
            ('u', 2) => DType::U16,
            ('u', 4) => DType::U32,
            ('u', _) => DType::U64,
            // So ml_dtypes writes this one of the float8 types.
            ('f', 1) => DType::F8E5M2,
            ('f', 2) => DType::F16,
            ('f', 4) => DType::F32,
            ('f', _) => DType::F64,
            ('c', 8) => DType::C64,
            ('c', _) => DType::C128,
            ('U' | 'S', _) => DType::String,
            _ => return None,
        })
    }

    /// The tensor. `want` is the type that the model takes: it tells what the elements of types that numpy has not are
    /// (raw bytes of bfloat16 or float8; integers of 2 and 4 bits and floats of 4, one a byte). Otherwise nothing is converted.
    pub fn into_tensor(self, want: Option<DType>) -> Result<Tensor> {
        let shape = self.shape.clone();
        if let Some(want) = want {
            if want.is_packed() && self.item == 1 && matches!(self.kind, 'i' | 'u' | 'V') {
                return self.packed(want);
            }
            let raw = want.size() == Some(self.item) && (want == DType::BF16 || want.is_narrow_float());
            if raw && (self.kind == 'V' || want.is_narrow_float() && self.kind == 'u') {
                return Tensor::from_bytes(want, &shape, self.data.into()).map_err(|e| e.to_string());
            }
        }
        match self.natural() {
            Some(DType::String) => {
                let n = shape.iter().product::<usize>();
                let strings = (0..n).map(|i| self.string(i)).collect::<Result<_>>()?;
                Tensor::from_strings(&shape, strings).map_err(|e| e.to_string())
            }
            Some(d) => Tensor::from_bytes(d, &shape, self.data.into()).map_err(|e| e.to_string()),
            None => Err(format!(
                "its elements are raw ({} bytes each) and the model takes {}",
                self.item,
                want.map_or("something else", DType::name)
            )),
        }
    }

    fn string(&self, i: usize) -> Result<String> {
        let b = &self.data[i * self.item..(i + 1) * self.item];
        if self.kind == 'S' {
            let end = b.iter().rposition(|&c| c != 0).map_or(0, |p| p + 1);
            return String::from_utf8(b[..end].to_vec()).map_err(|_| format!("its string {i} is not UTF-8"));
        }
        let codes: Vec<u32> = b.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        let end = codes.iter().rposition(|&c| c != 0).map_or(0, |p| p + 1);
        let chars = codes[..end].iter().map(|&c| char::from_u32(c));
        chars.collect::<Option<_>>().ok_or_else(|| format!("its string {i} is no Unicode"))
    }

    fn packed(self, want: DType) -> Result<Tensor> {
        let mut codes = vec![0; want.byte_len(self.data.len()).map_err(|e| e.to_string())?];
        let bits = want.bits() as u32;
        for (i, &x) in self.data.iter().enumerate() {
            let fits = match want {
                DType::I4 | DType::I2 if self.kind == 'i' => {
                    let (x, half) = (i32::from(x as i8), 1 << (bits - 1));
                    (-half..half).contains(&x)
                }
                DType::I4 | DType::I2 if self.kind == 'u' => u32::from(x) < 1 << (bits - 1),
                _ if self.kind == 'i' => (x as i8) >= 0 && u32::from(x) < 1 << bits,
                // numpy's extension types fill the byte's upper bits with the sign.
                _ if self.kind == 'V' => true,
                _ => u32::from(x) < 1 << bits,
            };
            if !fits {
                return Err(format!("its element {i} does not fit {want}"));
            }
        }
        let n = self.data.len();
        write_packed(want, &mut codes, n, |i| self.data[i] & ((1u16 << bits) - 1) as u8);
        Tensor::from_bytes(want, &self.shape, codes.into()).map_err(|e| e.to_string())
    }
}

/// A tensor as a `.npy` file. Types that numpy has not stand as they would for its extension `ml_dtypes`: bfloat16 and
/// float8 as raw bytes, integers of 2 and 4 bits as int8 and uint8, floats of 4 bits as the codes, one a byte.
pub fn write(t: &Tensor) -> Result<Vec<u8>> {
    let n = t.len();
    let (descr, data): (String, std::borrow::Cow<[u8]>) = match t.dtype() {
        DType::String => {
            let strings = t.as_strings().map_err(|e| e.to_string())?;
            let longest = strings.iter().map(|s| s.chars().count()).max().unwrap_or(0).max(1);
            let mut data = Vec::with_capacity(n * longest * 4);
            for s in strings {
                let before = data.len();
                s.chars().for_each(|c| data.extend_from_slice(&u32::from(c).to_le_bytes()));
                data.resize(before + longest * 4, 0);
            }
            (format!("<U{longest}"), data.into())
        }
        d if d.is_packed() => {
            let mut data = vec![0; n];
            let signed = matches!(d, DType::I4 | DType::I2);
            unpack_bits(d, t.bytes(), n, |i, b| data[i] = if signed { decode_narrow(d, b) as i8 as u8 } else { b });
            (if signed { "|i1" } else { "|u1" }.into(), data.into())
        }
        d => (descr(d).into(), t.bytes().into()),
    };
    let sizes: Vec<String> = t.shape().iter().map(usize::to_string).collect();
    let shape = if sizes.len() == 1 { format!("({},)", sizes[0]) } else { format!("({})", sizes.join(", ")) };
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length (2 bytes, or 4 in version 2), header, newline: together a multiple of 64.
    let (version, fixed) = if header.len() < 65_000 { (1, 10) } else { (2, 12) };
    let padded = (fixed + header.len() + 1).next_multiple_of(64) - fixed;
    header.extend(std::iter::repeat_n(' ', padded - header.len() - 1));
    header.push('\n');
    let mut file = Vec::with_capacity(fixed + padded + data.len());
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[version, 0]);
    match version {
        1 => file.extend_from_slice(&(padded as u16).to_le_bytes()),
        _ => file.extend_from_slice(&(padded as u32).to_le_bytes()),
    }
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    Ok(file)
}

fn descr(d: DType) -> &'static str {
    match d {
        DType::Bool => "|b1",
        DType::I8 => "|i1",
        DType::I16 => "<i2",
        DType::I32 => "<i4",
        DType::I64 => "<i8",
        DType::U8 => "|u1",
        DType::U16 => "<u2",
        DType::U32 => "<u4",
        DType::U64 => "<u8",
        DType::F16 => "<f2",
        DType::F32 => "<f4",
        DType::F64 => "<f8",
        DType::C64 => "<c8",
        DType::C128 => "<c16",
        DType::BF16 => "|V2",
        _ => "|V1",
    }
}

/// A number as an element of the type, for made-up inputs.
pub fn encode(d: DType, x: f64, out: &mut Vec<u8>) {
    match d {
        DType::F32 => out.extend((x as f32).to_le_bytes()),
        DType::F64 => out.extend(x.to_le_bytes()),
        DType::F16 => out.extend(half::f16::from_f64(x).to_le_bytes()),
        DType::BF16 => out.extend(half::bf16::from_f64(x).to_le_bytes()),
        DType::Bool => out.push(u8::from(x >= 0.5)),
        DType::I8 => out.push(x as i8 as u8),
        DType::U8 => out.push(x as u8),
        DType::I16 => out.extend((x as i16).to_le_bytes()),
        DType::U16 => out.extend((x as u16).to_le_bytes()),
        DType::I32 => out.extend((x as i32).to_le_bytes()),
        DType::U32 => out.extend((x as u32).to_le_bytes()),
        DType::I64 => out.extend((x as i64).to_le_bytes()),
        DType::U64 => out.extend((x as u64).to_le_bytes()),
        DType::C64 => [x as f32, 0.0].iter().for_each(|v| out.extend(v.to_le_bytes())),
        DType::C128 => [x, 0.0].iter().for_each(|v| out.extend(v.to_le_bytes())),
        d => out.push(encode_narrow(d, x as f32, true)),
    }
}

#[cfg(test)]
#[path = "npy_tests.rs"]
mod tests;
