//! Drawing shapes, types, values and attributes from a list of numbers.

use super::reference::{Array, tensor};
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};
use ortx::{DType, Tensor};
use std::ops::RangeInclusive;

/// The list; what lies behind its end is zero. Lesser numbers draw simpler things.
pub struct Draw<'a> {
    choices: &'a [u32],
    at: usize,
}

impl<'a> Draw<'a> {
    pub fn new(choices: &'a [u32]) -> Self {
        Draw { choices, at: 0 }
    }
    fn next(&mut self) -> u32 {
        self.at += 1;
        self.choices.get(self.at - 1).copied().unwrap_or(0)
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((u64::from(self.next()) * n as u64) >> 32) as usize
    }
    /// Both ends included.
    pub fn within(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
    /// The size of a dimension: small mostly, 0 and sizes about a vector's now and then.
    pub fn size(&mut self) -> usize {
        match self.below(40) {
            0..=5 => 2,
            6..=11 => 3,
            12..=16 => 1,
            17..=21 => 4,
            22..=25 => 5,
            26..=33 => 6 + self.below(12),
            34..=37 => 15 + self.below(60),
            38 => 0,
            _ => 100 + self.below(200),
        }
    }
    /// A shape of not too many elements.
    pub fn shape(&mut self, ranks: RangeInclusive<usize>) -> Vec<usize> {
        let rank = self.within(*ranks.start() as i64, *ranks.end() as i64) as usize;
        let mut shape: Vec<usize> = (0..rank).map(|_| self.size()).collect();
        while shape.iter().map(|&n| n.max(1)).product::<usize>() > 6000 {
            let most = shape.iter_mut().max().unwrap();
            *most = (*most / 2).max(1);
        }
        shape
    }
    /// A shape without empty dimensions.
    pub fn full_shape(&mut self, ranks: RangeInclusive<usize>) -> Vec<usize> {
        let mut shape = self.shape(ranks);
        shape.iter_mut().for_each(|n| *n = (*n).max(1));
        shape
    }
    /// A shape that can be broadcast with `to`.
    pub fn broadcast(&mut self, to: &[usize]) -> Vec<usize> {
        let kept = self.below(to.len() + 1);
        let mut shape: Vec<usize> = to[kept..].to_vec();
        for n in &mut shape {
            if self.one_in(3) {
                *n = 1;
            }
        }
        shape
    }
    /// An axis of `rank`, counted from the end half of the time.
    pub fn axis(&mut self, rank: usize) -> (usize, i64) {
        let axis = self.below(rank);
        (axis, if self.flag() { axis as i64 - rank as i64 } else { axis as i64 })
    }
    /// Evenly spread values that the type has exactly; integers are whole.
    pub fn values(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Tensor {
        ortx::ops::case::random(dtype, shape, low, high, u64::from(self.next())).unwrap()
    }
    /// Floats, among them the special ones now and then.
    pub fn odd_values(&mut self, dtype: DType, shape: &[usize], low: f64, high: f64) -> Tensor {
        let t = self.values(dtype, shape, low, high);
        if !dtype.is_float() || !self.one_in(4) || t.is_empty() {
            return t;
        }
        let mut a = Array::of(&t);
        for _ in 0..1 + self.below(4) {
            let i = self.below(a.data.len());
            a.data[i] = self.pick(&[0.0, -0.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN, 1.0, -1.0, 60000.0]);
        }
        tensor(dtype, &a.shape, &a.data)
    }
    /// An input of the graph, or a constant of it.
    pub fn place(&mut self, t: Tensor) -> CaseInput {
        if self.one_in(3) { CaseInput::Constant(t) } else { CaseInput::Given(t) }
    }
    /// A list of integers, mostly a constant, as in most models.
    pub fn list(&mut self, v: &[i64]) -> CaseInput {
        let t = Tensor::from_slice(&[v.len()], v).unwrap();
        if self.one_in(4) { CaseInput::Given(t) } else { CaseInput::Constant(t) }
    }
}

/// How far a result of the type may lie from the reference, relative to its size: `roundings` of the type.
pub fn epsilon(dtype: DType, roundings: f64) -> f64 {
    roundings
        * match dtype {
            DType::F64 => 1.2e-16,
            DType::F16 => 4.9e-4,
            DType::BF16 => 3.95e-3,
            DType::F32 => 6e-8,
            _ => 0.0,
        }
}

/// A case with what must come out of it; `roundings` of the first result's type are allowed, relative to the result, and
/// as many relative to `scale`, the size of what is added up.
pub fn case(
    op: &'static str,
    version: u32,
    inputs: Vec<CaseInput>,
    attrs: Vec<(&'static str, Attr)>,
    want: Vec<Tensor>,
    roundings: f64,
    scale: f64,
) -> Case {
    let eps = want.first().map_or(0.0, |t| epsilon(t.dtype(), roundings));
    Case {
        attrs,
        outputs: vec![true; want.len()],
        expect: want,
        rtol: eps,
        atol: eps * scale,
        ..Case::new(op, version, "random", inputs)
    }
}
