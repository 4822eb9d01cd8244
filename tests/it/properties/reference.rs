//! Arrays as the references see them: f64 or i128, and an index at a time.

use half::{bf16, f16};
use ortx::ops::case::to_f64s;
use ortx::{DType, Tensor};

/// A dense array of real numbers.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub data: Vec<f64>,
}

impl Array {
    pub fn of(t: &Tensor) -> Array {
        Array { shape: t.shape().to_vec(), data: to_f64s(t).unwrap() }
    }
    /// The elements by index.
    pub fn from_fn(shape: &[usize], mut f: impl FnMut(&[usize]) -> f64) -> Array {
        Array { shape: shape.to_vec(), data: indices(shape).iter().map(|i| f(i)).collect() }
    }
    pub fn at(&self, index: &[usize]) -> f64 {
        self.data[offset(&self.shape, index)]
    }
    /// The element at the index of a shape that this one's is broadcast to.
    pub fn spread(&self, index: &[usize]) -> f64 {
        self.data[spread_offset(&self.shape, index)]
    }
    /// The element at signed indices, `None` where one is outside.
    pub fn inside(&self, index: &[i64]) -> Option<f64> {
        let all = index.iter().zip(&self.shape).all(|(&i, &n)| i >= 0 && i < n as i64);
        all.then(|| self.at(&index.iter().map(|&i| i as usize).collect::<Vec<_>>()))
    }
    pub fn tensor(&self, dtype: DType) -> Tensor {
        tensor(dtype, &self.shape, &self.data)
    }
}

/// Where an index lies in a dense array.
pub fn offset(shape: &[usize], index: &[usize]) -> usize {
    assert_eq!(shape.len(), index.len());
    shape.iter().zip(index).fold(0, |at, (n, i)| {
        assert!(i < n);
        at * n + i
    })
}

/// The same for the index of a shape that this one is broadcast to.
pub fn spread_offset(shape: &[usize], index: &[usize]) -> usize {
    let skipped = index.len() - shape.len();
    let index: Vec<usize> = shape.iter().zip(&index[skipped..]).map(|(&n, &i)| if n == 1 { 0 } else { i }).collect();
    offset(shape, &index)
}

/// All indices, in order.
pub fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    let count: usize = shape.iter().product();
    let mut all = Vec::with_capacity(count);
    let mut index = vec![0; shape.len()];
    for _ in 0..count {
        all.push(index.clone());
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    all
}

/// What both shapes are broadcast to.
pub fn broadcast(a: &[usize], b: &[usize]) -> Vec<usize> {
    let rank = a.len().max(b.len());
    let at = |s: &[usize], d: usize| if d + s.len() < rank { 1 } else { s[d + s.len() - rank] };
    (0..rank).map(|d| if at(a, d) == 1 { at(b, d) } else { at(a, d) }).collect()
}

macro_rules! ints {
    ($dtype:expr, $shape:expr, $v:expr, $($d:ident $t:ty),*) => {
        match $dtype {
            $(DType::$d => Tensor::from_slice($shape, &$v.map(|x| x as $t).collect::<Vec<_>>()),)*
            DType::Bool => Tensor::from_slice($shape, &$v.map(|x| x != 0).collect::<Vec<_>>()),
            d => panic!("no integer type {d}"),
        }
    };
}

/// Integers, wrapped to the type.
pub fn int_tensor(dtype: DType, shape: &[usize], data: &[i128]) -> Tensor {
    let v = data.iter().copied();
    ints!(dtype, shape, v, I8 i8, I16 i16, I32 i32, I64 i64, U8 u8, U16 u16, U32 u32, U64 u64).unwrap()
}

/// Real numbers, rounded to the type (integers saturate).
pub fn tensor(dtype: DType, shape: &[usize], data: &[f64]) -> Tensor {
    let v = data.iter().copied();
    match dtype {
        DType::F64 => Tensor::from_slice(shape, data).unwrap(),
        DType::F32 => Tensor::from_slice(shape, &v.map(|x| x as f32).collect::<Vec<_>>()).unwrap(),
        DType::F16 => Tensor::from_slice(shape, &v.map(|x| f16::from_f32(to_odd(x))).collect::<Vec<_>>()).unwrap(),
        DType::BF16 => Tensor::from_slice(shape, &v.map(|x| bf16::from_f32(to_odd(x))).collect::<Vec<_>>()).unwrap(),
        DType::Bool => Tensor::from_slice(shape, &v.map(|x| x != 0.0).collect::<Vec<_>>()).unwrap(),
        _ => int_tensor(dtype, shape, &v.map(|x| x as i128).collect::<Vec<_>>()),
    }
}

/// To f32 so that rounding on to 16 bits rounds as if once: what is cut off sets the last bit. (The crate `half` drops the low
/// bits of a f64.)
pub fn to_odd(x: f64) -> f32 {
    let y = x as f32;
    if y.is_nan() || f64::from(y) == x {
        return y;
    }
    let cut = if f64::from(y).abs() > x.abs() { y.to_bits() - 1 } else { y.to_bits() };
    f32::from_bits(cut | 1)
}

/// Integers and bool of any width.
pub fn ints(t: &Tensor) -> Vec<i128> {
    match t.dtype() {
        DType::U64 => t.as_slice::<u64>().unwrap().iter().map(|&x| i128::from(x)).collect(),
        DType::Bool => t.bytes().iter().map(|&x| i128::from(x)).collect(),
        _ => t.to_i64s().unwrap().into_iter().map(i128::from).collect(),
    }
}

/// The elements at these places of `t`, a fresh shape on them; `None` is `fill`'s only element, or zero.
pub fn pick(t: &Tensor, shape: &[usize], places: &[Option<usize>], fill: Option<&Tensor>) -> Tensor {
    let size = t.byte_len() / t.len().max(1);
    let size = if t.is_empty() { t.dtype().size().unwrap() } else { size };
    let mut bytes = Vec::with_capacity(size * places.len());
    for place in places {
        match (place, fill) {
            (Some(i), _) => bytes.extend_from_slice(&t.bytes()[i * size..(i + 1) * size]),
            (None, Some(f)) => bytes.extend_from_slice(f.bytes()),
            (None, None) => bytes.extend(std::iter::repeat_n(0u8, size)),
        }
    }
    Tensor::from_bytes(t.dtype(), shape, bytes.into()).unwrap()
}
