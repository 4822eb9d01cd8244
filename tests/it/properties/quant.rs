//! Quantisation and back: by tensor, axis and block.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, offset, tensor};
use ortx::DType::{self, *};
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

fn range(t: DType) -> (f64, f64) {
    match t {
        U8 => (0.0, 255.0),
        I8 => (-128.0, 127.0),
        U16 => (0.0, 65535.0),
        I16 => (-32768.0, 32767.0),
        _ => (-1000.0, 1000.0),
    }
}

/// How scales lie over a shape: their shape, the place of the scale of an index, and the attributes.
struct Scales {
    shape: Vec<usize>,
    axis: usize,
    block: usize,
    attrs: Vec<(&'static str, Attr)>,
}

impl Scales {
    fn draw(d: &mut Draw, shape: &[usize]) -> Scales {
        let kind = if shape.is_empty() { 0 } else { d.below(3) };
        let (axis, signed) = if shape.is_empty() { (0, 0) } else { d.axis(shape.len()) };
        let attr = ("axis", Attr::Int(signed));
        match kind {
            0 => Scales { shape: vec![], axis, block: 0, attrs: vec![] },
            1 => Scales { shape: vec![shape[axis]], axis, block: 0, attrs: vec![attr] },
            _ => {
                let block = 1 + d.below(shape[axis].max(1));
                let mut all = shape.to_vec();
                all[axis] = shape[axis].div_ceil(block);
                Scales { shape: all, axis, block, attrs: vec![attr, ("block_size", Attr::Int(block as i64))] }
            }
        }
    }
    fn place(&self, index: &[usize]) -> usize {
        match (self.block, self.shape.len()) {
            (0, 0) => 0,
            (0, _) => index[self.axis],
            (block, _) => {
                let mut i = index.to_vec();
                i[self.axis] /= block;
                offset(&self.shape, &i)
            }
        }
    }
}

/// Scales that are powers of two, so that a quotient is exact.
fn powers(d: &mut Draw, dtype: DType, shape: &[usize]) -> Tensor {
    let t = d.values(I32, shape, -4.0, 2.0);
    let v: Vec<f64> = Array::of(&t).data.iter().map(|x| x.exp2()).collect();
    tensor(dtype, shape, &v)
}

fn quantize(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=4);
    let scales = Scales::draw(d, &shape);
    let dtype = d.pick(&[F32, F32, F16]);
    let to = d.pick(&[U8, I8, U16, I16]);
    let x = d.values(dtype, &shape, -40.0, 40.0);
    let s = powers(d, dtype, &scales.shape);
    let z = (!d.one_in(3)).then(|| d.values(to, &scales.shape, range(to).0, range(to).1));
    let to = if z.is_some() { to } else { U8 };
    let (a, k, zero) = (Array::of(&x), Array::of(&s).data, z.as_ref().map(|z| Array::of(z).data));
    let (low, high) = range(to);
    let want = Array::from_fn(&shape, |i| {
        let p = scales.place(i);
        ((a.at(i) / k[p]).round_ties_even() + zero.as_ref().map_or(0.0, |z| z[p])).clamp(low, high)
    });
    let mut inputs = vec![d.place(x), d.place(s)];
    inputs.push(z.map_or(CaseInput::Absent, |z| d.place(z)));
    Some(case("QuantizeLinear", 21, inputs, scales.attrs, vec![want.tensor(to)], 0.0, 0.0))
}

fn dequantize(d: &mut Draw) -> Option<Case> {
    let shape = d.shape(0..=4);
    let scales = Scales::draw(d, &shape);
    let from = d.pick(&[U8, I8, U16, I16, I32]);
    let dtype = d.pick(&[F32, F32, F16, BF16]);
    let x = d.values(from, &shape, range(from).0, range(from).1);
    let s = d.values(dtype, &scales.shape, 0.01, 0.1);
    let z = (from != I32 && !d.one_in(3)).then(|| d.values(from, &scales.shape, range(from).0, range(from).1));
    let (a, k, zero) = (Array::of(&x), Array::of(&s).data, z.as_ref().map(|z| Array::of(z).data));
    let want = Array::from_fn(&shape, |i| {
        let p = scales.place(i);
        (a.at(i) - zero.as_ref().map_or(0.0, |z| z[p])) * k[p]
    });
    let mut inputs = vec![d.place(x), d.place(s)];
    inputs.push(z.map_or(CaseInput::Absent, |z| d.place(z)));
    // The difference may be rounded to the type before the product is.
    Some(case("DequantizeLinear", 21, inputs, scales.attrs, vec![want.tensor(dtype)], 3.0, 1e-3))
}

fn dynamic(d: &mut Draw) -> Option<Case> {
    let shape = d.full_shape(1..=4);
    let (low, high) = d.pick(&[(-3.0, 5.0), (0.5, 3.0), (-7.0, -1.0), (-0.01, 0.01)]);
    let x = d.values(F32, &shape, low, high);
    let a: Vec<f32> = x.as_slice::<f32>().unwrap().to_vec();
    // In f32, as the function's own graph computes it.
    let top = a.iter().copied().fold(0.0f32, f32::max);
    let least = a.iter().copied().fold(0.0f32, f32::min);
    let scale = (top - least) / 255.0;
    let zero = (0.0 - least / scale).clamp(0.0, 255.0).round_ties_even();
    let v: Vec<f64> = a.iter().map(|&x| f64::from(((x / scale).round_ties_even() + zero).clamp(0.0, 255.0))).collect();
    let want =
        vec![tensor(U8, &shape, &v), Tensor::from_slice(&[], &[scale]).unwrap(), tensor(U8, &[], &[f64::from(zero)])];
    Some(case("DynamicQuantizeLinear", 11, vec![d.place(x)], vec![], want, 0.0, 0.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { quantize dequantize dynamic }
