//! Conversions of the types that Rust lacks: floats of 8, 6 and 4 bits, integers of 4 and 2.
//! Formats: OCP "8-bit Floating Point Specification" and "Microscaling Formats"; the FNUZ variants as in ONNX.

use super::DType;

/// A narrow format: exponent bits, mantissa bits, bias, and how its ends are used.
struct Format {
    exp: u32,
    man: u32,
    bias: i32,
    ends: Ends,
    /// Bits per element.
    width: u32,
}

#[derive(PartialEq, Clone, Copy)]
enum Ends {
    /// Infinities and NaNs as in IEEE 754.
    Ieee,
    /// No infinity; all ones is NaN.
    Fn,
    /// No infinity, no minus zero; its code (sign bit alone) is NaN.
    Fnuz,
    /// Neither infinity nor NaN.
    Finite,
}

fn format(d: DType) -> Option<Format> {
    let (exp, man, bias, ends, width) = match d {
        DType::F8E4M3FN => (4, 3, 7, Ends::Fn, 8),
        DType::F8E4M3FNUZ => (4, 3, 8, Ends::Fnuz, 8),
        DType::F8E5M2 => (5, 2, 15, Ends::Ieee, 8),
        DType::F8E5M2FNUZ => (5, 2, 16, Ends::Fnuz, 8),
        DType::F4E2M1 => (2, 1, 1, Ends::Finite, 4),
        DType::F6E2M3 => (2, 3, 1, Ends::Finite, 6),
        DType::F6E3M2 => (3, 2, 3, Ends::Finite, 6),
        _ => return None,
    };
    Some(Format { exp, man, bias, ends, width })
}

/// The value of one element's bits. For integers of 2 and 4 bits too. 0 for types that are not narrow.
pub fn decode_narrow(d: DType, bits: u8) -> f32 {
    match d {
        DType::U4 => return f32::from(bits & 15),
        DType::I4 => return f32::from(((bits << 4) as i8) >> 4),
        DType::U2 => return f32::from(bits & 3),
        DType::I2 => return f32::from(((bits << 6) as i8) >> 6),
        DType::F8E8M0 => {
            return if bits == 255 { f32::NAN } else { 2f64.powi(i32::from(bits) - 127) as f32 };
        }
        _ => {}
    }
    let Some(f) = format(d) else { return 0.0 };
    let (sign_bit, mag_mask) = (1u8 << (f.width - 1), (1u8 << (f.width - 1)) - 1);
    let (neg, mag) = (bits & sign_bit != 0, bits & mag_mask);
    if f.ends == Ends::Fnuz && bits == 0x80 || f.ends == Ends::Fn && mag == mag_mask {
        return f32::NAN;
    }
    let (e, m) = (i32::from(mag >> f.man), i32::from(mag & ((1 << f.man) - 1)));
    let v = if f.ends == Ends::Ieee && e == (1 << f.exp) - 1 {
        if m == 0 { f32::INFINITY } else { f32::NAN }
    } else if e == 0 {
        m as f32 * 2f32.powi(1 - f.bias - f.man as i32)
    } else {
        (m + (1 << f.man)) as f32 * 2f32.powi(e - f.bias - f.man as i32)
    };
    if neg { -v } else { v }
}

/// The bits of `x`, rounded to nearest even. Where `x` passes the format's range: the largest finite value if
/// `saturate`, else infinity (or NaN where the format has none). `F8E8M0` rounds to the nearest power of two, ties up.
pub fn encode_narrow(d: DType, x: f32, saturate: bool) -> u8 {
    if d == DType::F8E8M0 {
        return encode_e8m0(x, saturate);
    }
    let Some(f) = format(d) else { return 0 };
    let sign = if x.is_sign_negative() { 1u8 << (f.width - 1) } else { 0 };
    let mag_mask = (1u8 << (f.width - 1)) - 1;
    let max_mag = match f.ends {
        Ends::Ieee => (((1u8 << f.exp) - 1) << f.man) - 1,
        Ends::Fn => mag_mask - 1,
        Ends::Fnuz | Ends::Finite => mag_mask,
    };
    let (nan, inf) = match f.ends {
        Ends::Ieee => (mag_mask | sign, Some(max_mag + 1)),
        Ends::Fn => (mag_mask | sign, None),
        Ends::Fnuz => (0x80, None),
        // Nothing stands for NaN: as ml_dtypes has it, zero of the other sign.
        Ends::Finite => (sign ^ (1 << (f.width - 1)), None),
    };
    if x.is_nan() {
        // Ieee (E5M2) has several NaNs: numpy's ml_dtypes and onnx use the quiet one with the top mantissa bit.
        return if f.ends == Ends::Ieee { (max_mag + 1) | (1 << (f.man - 1)) | sign } else { nan };
    }
    let over = |sat: bool| match (sat, inf) {
        (true, _) => max_mag | sign,
        (false, Some(i)) => i | sign,
        (false, None) if f.ends == Ends::Finite => max_mag | sign,
        (false, None) => nan,
    };
    if x.is_infinite() {
        return over(saturate);
    }
    let a = f64::from(x.abs());
    if a == 0.0 {
        return if f.ends == Ends::Fnuz { 0 } else { sign };
    }
    // The spacing of the format's values around a; a / spacing rounds to even exactly in f64.
    let e = (((a.to_bits() >> 52) as i32) - 1023).max(1 - f.bias);
    let spacing = 2f64.powi(e - f.man as i32);
    let steps = (a / spacing).round_ties_even() as u32;
    // steps counts within the binade from its exponent field: subnormals have field 0.
    let field = (e + f.bias) as u32;
    let code = if steps < (1 << f.man) { steps } else { (field << f.man) + steps - (1 << f.man) };
    if code > u32::from(max_mag) {
        return over(saturate);
    }
    let code = code as u8;
    if code == 0 && f.ends == Ends::Fnuz { 0 } else { code | sign }
}

fn encode_e8m0(x: f32, saturate: bool) -> u8 {
    if x.is_nan() {
        return 255;
    }
    let a = x.abs();
    if a.is_infinite() {
        return if saturate { 254 } else { 255 };
    }
    if a == 0.0 {
        return 0;
    }
    let l = f64::from(a).log2();
    let lo = l.floor();
    let up = f64::from(a) >= 1.5 * 2f64.powf(lo);
    let e = lo as i32 + i32::from(up) + 127;
    match e {
        ..0 => 0,
        255.. if saturate => 254,
        255.. => 255,
        e => e as u8,
    }
}

/// Calls `f` with each of the `n` elements' bits of a tensor's memory, one byte an element, whether packed or not.
pub fn unpack_bits(d: DType, data: &[u8], n: usize, mut f: impl FnMut(usize, u8)) {
    let bits = d.bits();
    if bits >= 8 {
        data.iter().take(n).enumerate().for_each(|(i, &b)| f(i, b));
        return;
    }
    let (per, mask) = (8 / bits, (1u8 << bits) - 1);
    for i in 0..n {
        f(i, (data[i / per] >> (bits * (i % per))) & mask);
    }
}

/// Writes `n` elements' bits, as `f` gives them, into a tensor's memory.
pub fn write_packed(d: DType, data: &mut [u8], n: usize, mut f: impl FnMut(usize) -> u8) {
    let bits = d.bits();
    if bits >= 8 {
        data.iter_mut().take(n).enumerate().for_each(|(i, b)| *b = f(i));
        return;
    }
    let (per, mask) = (8 / bits, (1u8 << bits) - 1);
    for (j, b) in data.iter_mut().enumerate().take(n.div_ceil(per)) {
        *b = (0..per.min(n - j * per)).fold(0, |acc, k| acc | ((f(j * per + k) & mask) << (bits * k)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_survives_a_round_trip() {
        for d in DType::ALL.into_iter().filter(|d| d.is_narrow_float()) {
            let codes = if d == DType::F4E2M1 {
                16
            } else if format(d).is_some_and(|f| f.width == 6) {
                64
            } else {
                256
            };
            for c in 0..codes {
                let v = decode_narrow(d, c as u8);
                let back = encode_narrow(d, v, false);
                if v.is_nan() {
                    assert!(decode_narrow(d, back).is_nan(), "{d} {c}");
                } else {
                    assert_eq!(back, c as u8, "{d} {c} {v}");
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even_and_saturates_on_request() {
        assert_eq!(decode_narrow(DType::F8E4M3FN, encode_narrow(DType::F8E4M3FN, 1e9, true)), 448.0);
        assert!(decode_narrow(DType::F8E4M3FN, encode_narrow(DType::F8E4M3FN, 1e9, false)).is_nan());
        assert_eq!(decode_narrow(DType::F8E5M2, encode_narrow(DType::F8E5M2, 1e9, false)), f32::INFINITY);
        assert_eq!(decode_narrow(DType::F4E2M1, encode_narrow(DType::F4E2M1, 2.5, true)), 2.0);
        assert_eq!(decode_narrow(DType::F4E2M1, encode_narrow(DType::F4E2M1, 3.5, true)), 4.0);
        assert_eq!(decode_narrow(DType::F8E8M0, encode_narrow(DType::F8E8M0, 3.0, true)), 4.0);
        assert_eq!(encode_narrow(DType::F4E2M1, f32::NAN, true), 8);
    }

    #[test]
    fn packing_and_unpacking_agree() {
        let v = [1u8, 15, 7, 8, 3];
        let mut mem = [0u8; 3];
        write_packed(DType::U4, &mut mem, 5, |i| v[i]);
        assert_eq!(mem, [0xf1, 0x87, 0x03]);
        let mut got = [0; 5];
        unpack_bits(DType::U4, &mem, 5, |i, b| got[i] = b);
        assert_eq!(got, v);
    }
}
