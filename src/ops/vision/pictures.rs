//! ImageDecoder: pictures in files' formats, within bounds.

use crate::backend::cpu::{Arg, CpuBindings, EagerCtx, Values};
use crate::bail;
use crate::error::Result;
use crate::ir::{Dim, Fact, InferCtx, Op, OpDef, ParseCtx};
use crate::tensor::{DType, Tensor, Value};
use image::{ImageReader, Limits};
use smallvec::smallvec;
use std::io::Cursor;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

pub(super) const OPS: &[OpDef] = &[OpDef { domain: "", name: "ImageDecoder", versions: &[20], parse }];

pub(super) fn cpu(b: &mut CpuBindings) {
    b.eager::<ImageDecoder>(run);
}

/// Most bytes that decoding may take, and most pixels of a side: a few bytes can claim to be a huge picture.
const MOST_BYTES: u64 = 512 << 20;
const MOST_SIDE: u32 = 1 << 16;
/// Bytes that decoding JPEG 2000 takes an element: samples and coefficients in f32, and what is made of them.
const WAVELET_BYTES: u64 = 12;

/// What a pixel of the result is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PixelFormat {
    /// Red, green, blue.
    Rgb,
    /// Blue, green, red.
    Bgr,
    /// Luma.
    Grayscale,
}

/// The picture `[H, W, channels]` in a file's bytes; what is no picture gives an empty one, as the standard asks.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageDecoder {
    /// What a pixel of the result is.
    pub format: PixelFormat,
}

fn parse(cx: &mut ParseCtx<'_>) -> Result<Arc<dyn Op>> {
    cx.expect_inputs(1, 1)?;
    let format = match cx.string_or("pixel_format", "RGB")?.as_str() {
        "RGB" => PixelFormat::Rgb,
        "BGR" => PixelFormat::Bgr,
        "Grayscale" => PixelFormat::Grayscale,
        f => bail!(InvalidModel, "pixel_format is '{f}'"),
    };
    Ok(Arc::new(ImageDecoder { format }))
}

impl ImageDecoder {
    fn channels(&self) -> usize {
        if self.format == PixelFormat::Grayscale { 1 } else { 3 }
    }
}

impl Op for ImageDecoder {
    fn name(&self) -> &'static str {
        "ImageDecoder"
    }
    fn infer(&self, cx: &mut InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.expect_dtype(0, &[DType::U8])?;
        Ok(vec![Fact::tensor(DType::U8, vec![Dim::Unknown, Dim::Unknown, Dim::of(self.channels())])])
    }
}

/// A decoded picture: height, width, and its pixels as red, green, blue.
struct Picture {
    height: usize,
    width: usize,
    rgb: Vec<u8>,
}

fn run(op: &ImageDecoder, _: &mut EagerCtx<'_>, args: &[Arg<'_>]) -> Result<Values> {
    let [file] = args else { bail!(InvalidModel, "ImageDecoder takes one input") };
    let file = file.tensor()?.as_slice::<u8>()?;
    // The decoders are others' code, and this is the place where they meet what anybody may have made: a panic of theirs is
    // one more way to say that it cannot be decoded.
    let found = catch_unwind(AssertUnwindSafe(|| decode(file))).ok().flatten();
    let p = found.unwrap_or(Picture { height: 0, width: 0, rgb: Vec::new() });
    let mut out = Tensor::zeroed(DType::U8, &[p.height, p.width, op.channels()])?;
    let to = out.as_mut_slice::<u8>()?;
    match op.format {
        PixelFormat::Rgb => to.copy_from_slice(&p.rgb),
        PixelFormat::Bgr => {
            for (t, f) in to.chunks_exact_mut(3).zip(p.rgb.chunks_exact(3)) {
                t.copy_from_slice(&[f[2], f[1], f[0]]);
            }
        }
        PixelFormat::Grayscale => {
            for (t, f) in to.iter_mut().zip(p.rgb.chunks_exact(3)) {
                *t = luma(f);
            }
        }
    }
    Ok(smallvec![Value::Tensor(out)])
}

/// ITU-R 601-2 luma in 16 bits of fraction, rounded.
fn luma(rgb: &[u8]) -> u8 {
    let sum = 19595 * u32::from(rgb[0]) + 38470 * u32::from(rgb[1]) + 7471 * u32::from(rgb[2]);
    ((sum + (1 << 15)) >> 16) as u8
}

fn decode(file: &[u8]) -> Option<Picture> {
    const BOXES: &[u8] = b"\x00\x00\x00\x0cjP  ";
    const CODESTREAM: &[u8] = b"\xff\x4f\xff\x51";
    if file.starts_with(BOXES) || file.starts_with(CODESTREAM) {
        return wavelet(file);
    }
    let mut reader = ImageReader::new(Cursor::new(file)).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(MOST_SIDE), Some(MOST_SIDE));
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    let picture = reader.decode().ok()?;
    let (width, height) = (picture.width() as usize, picture.height() as usize);
    Some(Picture { height, width, rgb: picture.into_rgb8().into_raw() })
}

/// JPEG 2000.
fn wavelet(file: &[u8]) -> Option<Picture> {
    use hayro_jpeg2000::{ColorSpace, DecodeSettings, Image};
    let (area, parts) = wavelet_size(file)?;
    if area.checked_mul(parts)?.checked_mul(WAVELET_BYTES)? > MOST_BYTES {
        return None;
    }
    let image = Image::new(file, &DecodeSettings::default()).ok()?;
    let (width, height) = (image.width(), image.height());
    if width > MOST_SIDE || height > MOST_SIDE || u64::from(width) * u64::from(height) > area {
        return None;
    }
    let colours = match image.color_space() {
        ColorSpace::Gray => 1,
        ColorSpace::RGB => 3,
        ColorSpace::Icc { num_channels, .. } if matches!(num_channels, 1 | 3) => usize::from(*num_channels),
        _ => return None,
    };
    let each = colours + usize::from(image.has_alpha());
    let pixels = image.decode().ok()?;
    let (width, height) = (width as usize, height as usize);
    if pixels.len() != width * height * each {
        return None;
    }
    let mut rgb = Vec::new();
    rgb.try_reserve_exact(width * height * 3).ok()?;
    for p in pixels.chunks_exact(each) {
        rgb.extend(if colours == 1 { [p[0]; 3] } else { [p[0], p[1], p[2]] });
    }
    Some(Picture { height, width, rgb })
}

/// Area and components that a JPEG 2000 codestream's first segment (SIZ) claims.
fn wavelet_size(file: &[u8]) -> Option<(u64, u64)> {
    // Start of codestream and SIZ marker; length and capabilities; then four sizes of 32 bits a pair, and the components.
    let at = file.windows(4).position(|w| w == b"\xff\x4f\xff\x51")? + 4;
    let number = |from: usize, n: usize| -> Option<u64> {
        Some(file.get(at + from..at + from + n)?.iter().fold(0, |a, &b| a << 8 | u64::from(b)))
    };
    // The grid from its origin; tiles may not be so small that there are more of them than the format can number.
    let (width, height) = (number(4, 4)?, number(8, 4)?);
    let tiles = width.div_ceil(number(20, 4)?.max(1)) * height.div_ceil(number(24, 4)?.max(1));
    (tiles <= 65535).then_some((width * height, number(36, 2)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header that claims a large picture, in as few bytes as each format takes.
    fn bombs() -> Vec<(&'static str, Vec<u8>)> {
        let mut bmp = b"BM\0\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
        bmp.extend(60000u32.to_le_bytes().iter().chain(&60000u32.to_le_bytes()));
        bmp.extend([1, 0, 24, 0]);
        bmp.extend([0; 24]);
        let mut wavelet = b"\xff\x4f\xff\x51\x00\x29\x00\x00".to_vec();
        for n in [60000u32, 60000, 0, 0, 60000, 60000, 0, 0] {
            wavelet.extend(n.to_be_bytes());
        }
        wavelet.extend([0, 3, 7, 1, 1, 7, 1, 1, 7, 1, 1]);
        let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR\0\0\xea\x60\0\0\xea\x60\x08\x02\0\0\0".to_vec();
        // The CRC of that header.
        png.extend(crc(&png[12..]).to_be_bytes());
        png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        vec![("bmp", bmp), ("jpeg 2000", wavelet), ("png", png), ("pnm", b"P6 60000 60000 255\n".to_vec())]
    }

    fn crc(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0u32, |c, &b| {
            (0..8).fold(c ^ u32::from(b), |c, _| if c & 1 == 1 { c >> 1 ^ 0xEDB8_8320 } else { c >> 1 })
        })
    }

    #[test]
    fn claims_of_size_are_not_believed() {
        for (name, file) in bombs() {
            assert!(decode(&file).is_none(), "{name}");
        }
    }

    #[test]
    fn what_is_no_picture_is_empty() {
        let op = ImageDecoder { format: PixelFormat::Grayscale };
        let mut cx = EagerCtx::new(&crate::base::parallel::Serial, 1, Default::default());
        for bytes in [&b""[..], b"hello", b"\xff\xd8\xff\xe0broken", b"\x00\x00\x00\x0cjP  \r\n\x87\n"] {
            let t = Tensor::from_slice(&[bytes.len()], bytes).unwrap();
            let out = run(&op, &mut cx, &[Arg::Tensor(t.as_view())]).unwrap();
            assert_eq!(out[0].as_tensor().unwrap().shape(), [0, 0, 1]);
        }
    }

    #[test]
    fn pixels_come_in_the_order_asked_for() {
        let file = b"P6 2 1 255\n\x01\x02\x03\xff\x80\x00";
        let t = Tensor::from_slice(&[file.len()], file).unwrap();
        let mut cx = EagerCtx::new(&crate::base::parallel::Serial, 1, Default::default());
        for (format, want) in [
            (PixelFormat::Rgb, &[1, 2, 3, 255, 128, 0][..]),
            (PixelFormat::Bgr, &[3, 2, 1, 0, 128, 255]),
            // 0.299 + 2 * 0.587 + 3 * 0.114 = 1.8, 0.299 * 255 + 0.587 * 128 = 151.4
            (PixelFormat::Grayscale, &[2, 151]),
        ] {
            let out = run(&ImageDecoder { format }, &mut cx, &[Arg::Tensor(t.as_view())]).unwrap();
            assert_eq!(out[0].as_tensor().unwrap().as_slice::<u8>().unwrap(), want);
        }
    }
}
