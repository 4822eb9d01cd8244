//! Operators that move elements, and the arithmetic on sizes that goes with them.

use super::generator::{A, Gen, Id, SETS, Size, Val, broadcast, each, fixed, sizes, tame};
use ortx::DType::*;
use ortx::Tensor;

/// Anything that can be moved: bounds stay what they are.
fn movable(v: &Val) -> bool {
    !v.loose && (tame(v) || !v.is_float())
}

impl Gen<'_> {
    fn something(&mut self, low: usize, high: usize, ok: impl Fn(&Val) -> bool + Copy) -> Option<Id> {
        let fits = |v: &Val| movable(v) && v.rank() >= low && v.rank() <= high && ok(v);
        match self.pick(fits) {
            Some(v) if !self.d.one_in(10) => Some(v),
            _ => self.operand(low, high, ok),
        }
    }
    pub fn transpose(&mut self, x: Id, perm: &[usize]) -> Option<Id> {
        let v = self.get(x);
        let dims = perm.iter().map(|&p| v.dims[p]).collect();
        let reversed = perm.iter().rev().copied().eq(0..perm.len());
        let attrs = if reversed && self.d.flag() {
            vec![]
        } else {
            vec![("perm", A::Is(perm.iter().map(|&p| p as i64).collect()))]
        };
        self.one("Transpose", &[x], attrs, v.sized(dims))
    }
    /// One size as a list of one number, read from `x` where it lies or multiplied from two of its sizes.
    fn size_of(&mut self, x: Id, size: &Size) -> Option<Id> {
        let dims = self.val(x).dims.clone();
        let one = |g: &mut Self, at: usize| -> Option<Id> {
            let n = dims.iter().flatten().copied().max()? as f64;
            let list = Val { dtype: I64, ..g.get(x) }.bounds(0.0, n, 0.0);
            match g.d.below(4) {
                0 => g.one(
                    "Shape",
                    &[x],
                    vec![("start", A::I(at as i64)), ("end", A::I(at as i64 + 1))],
                    list.sized(sizes(&[1])),
                ),
                1 => {
                    let all = g.one("Shape", &[x], vec![], list.clone().sized(sizes(&[dims.len()])))?;
                    let (from, to) = (g.ints(&[at as i64]), g.ints(&[at as i64 + 1]));
                    g.one("Slice", &[all, from, to], vec![], list.sized(sizes(&[1])))
                }
                2 => {
                    let all = g.one("Shape", &[x], vec![], list.clone().sized(sizes(&[dims.len()])))?;
                    let i = g.int(at as i64);
                    let n = g.one("Gather", &[all, i], vec![("axis", A::I(0))], list.clone().sized(vec![]))?;
                    let axes = g.ints(&[0]);
                    g.one("Unsqueeze", &[n, axes], vec![], list.sized(sizes(&[1])))
                }
                _ => {
                    let all = g.one("Shape", &[x], vec![], list.clone().sized(sizes(&[dims.len()])))?;
                    let i = g.ints(&[at as i64]);
                    g.one("Gather", &[all, i], vec![], list.sized(sizes(&[1])))
                }
            }
        };
        if let Some(at) = dims.iter().position(|d| d == size) {
            return one(self, at);
        }
        for i in 0..dims.len() {
            for j in i + 1..dims.len() {
                if each(|k| dims[i][k] * dims[j][k]) == *size {
                    let (a, b) = (one(self, i)?, one(self, j)?);
                    let most = *size.iter().max()? as f64;
                    let out = self.get(a).bounds(0.0, most, 0.0);
                    return self.one("Mul", &[a, b], vec![], out);
                }
            }
        }
        None
    }
    /// A shape as a value that Reshape or Expand takes, computed from the sizes of `x`.
    pub fn computed_shape(&mut self, x: Id, dims: &[Size]) -> Option<Id> {
        if dims.is_empty() {
            return None;
        }
        let mut parts = Vec::new();
        for d in dims {
            let plain = fixed(d) && (self.d.flag() || !self.val(x).dims.contains(d));
            parts.push(if plain { self.ints(&[d[0] as i64]) } else { self.size_of(x, d)? });
        }
        let most = dims.iter().flatten().copied().max().unwrap_or(0) as f64;
        let out = Val { dtype: I64, ..self.get(x) }.bounds(0.0, most, 0.0).sized(sizes(&[dims.len()]));
        self.one("Concat", &parts, vec![("axis", A::I(0))], out)
    }
    /// Another shape of as many elements, said in one of the ways there are.
    pub fn reshape(&mut self, x: Id, dims: Vec<Size>) -> Option<Id> {
        let v = self.get(x);
        let out = v.clone().sized(dims.clone());
        let mut list = Vec::new();
        let mut free = false;
        for (i, d) in dims.iter().enumerate() {
            let kept = v.dims.get(i) == Some(d);
            let others = || dims.iter().enumerate().all(|(j, d)| i == j || d.iter().all(|&n| n > 0));
            list.push(match () {
                _ if fixed(d) && d[0] > 0 => d[0] as i64,
                _ if kept => 0,
                _ if !free && others() => {
                    free = true;
                    -1
                }
                _ => {
                    let shape = self.computed_shape(x, &dims)?;
                    // A computed zero is a zero.
                    let zero = dims.iter().flatten().any(|&n| n == 0);
                    return self.one("Reshape", &[x, shape], vec![("allowzero", A::I(zero.into()))], out);
                }
            });
        }
        if self.d.one_in(4)
            && !dims.iter().flatten().any(|&n| n == 0)
            && let Some(shape) = self.computed_shape(x, &dims)
        {
            return self.one("Reshape", &[x, shape], vec![], out);
        }
        let shape = self.ints(&list);
        self.one("Reshape", &[x, shape], vec![], out)
    }
    pub fn concat(&mut self, all: &[Id], axis: usize) -> Option<Id> {
        let list: Vec<Val> = all.iter().map(|&v| self.get(v)).collect();
        let first = &list[0];
        let same = |v: &Val| {
            v.dtype == first.dtype
                && v.rank() == first.rank()
                && (0..v.rank()).all(|i| i == axis || v.dims[i] == first.dims[i])
        };
        if !list.iter().all(same) || axis >= first.rank() {
            return None;
        }
        let mut dims = first.dims.clone();
        dims[axis] = each(|k| list.iter().map(|v| v.dims[axis][k]).sum());
        let fold = |f: fn(&Val) -> f64, g: fn(f64, f64) -> f64| list.iter().map(f).reduce(g).unwrap_or(0.0);
        let out = first.clone().sized(dims).bounds(
            fold(|v| v.low, f64::min),
            fold(|v| v.high, f64::max),
            fold(|v| v.error, f64::max),
        );
        let axis = if self.d.flag() { axis as i64 - first.rank() as i64 } else { axis as i64 };
        self.one("Concat", all, vec![("axis", A::I(axis))], out)
    }
    /// A part along an axis; negative `from` counts from the end.
    pub fn slice(&mut self, x: Id, axis: usize, from: i64, to: i64, step: i64) -> Option<Id> {
        let v = self.get(x);
        let mut dims = v.dims.clone();
        let n = dims[axis];
        dims[axis] = each(|k| {
            let n = n[k] as i64;
            if n == 0 {
                return 0;
            }
            let at = |i: i64| if i < 0 { i + n } else { i };
            if step > 0 {
                let (a, b) = (at(from).clamp(0, n), at(to).clamp(0, n));
                ((b - a).max(0) as usize).div_ceil(step as usize)
            } else {
                let (a, b) = (at(from).clamp(0, n - 1), at(to).clamp(-1, n - 1));
                ((a - b).max(0) as usize).div_ceil(-step as usize)
            }
        });
        let axis = if self.d.flag() { axis as i64 } else { axis as i64 - v.rank() as i64 };
        let mut inputs = vec![x, self.ints(&[from]), self.ints(&[to]), self.ints(&[axis])];
        if step != 1 || self.d.flag() {
            inputs.push(self.ints(&[step]));
        }
        self.one("Slice", &inputs, vec![], v.sized(dims))
    }
    /// Cut along an axis, in parts as long as told.
    pub fn split(&mut self, x: Id, axis: usize, parts: &[usize]) -> Option<Vec<Id>> {
        let v = self.get(x);
        let outs = parts
            .iter()
            .map(|&n| {
                let mut dims = v.dims.clone();
                dims[axis] = [n; SETS];
                v.clone().sized(dims)
            })
            .collect();
        let lengths = self.ints(&parts.iter().map(|&n| n as i64).collect::<Vec<_>>());
        self.node("Split", &[Some(x), Some(lengths)], vec![("axis", A::I(axis as i64))], outs)
    }
    pub fn expand(&mut self, x: Id, dims: Vec<Size>) -> Option<Id> {
        let v = self.get(x);
        let shape = if dims.iter().all(fixed) {
            self.ints(&dims.iter().map(|d| d[0] as i64).collect::<Vec<_>>())
        } else {
            self.computed_shape(x, &dims)?
        };
        self.one("Expand", &[x, shape], vec![], v.sized(dims))
    }
    pub fn perm(&mut self, rank: usize) -> Vec<usize> {
        let mut perm: Vec<usize> = (0..rank).collect();
        for i in (1..rank).rev() {
            let j = self.d.below(i + 1);
            perm.swap(i, j);
        }
        perm
    }
    /// Axes squeezed or made.
    pub fn unsqueeze(&mut self, x: Id, axis: usize) -> Option<Id> {
        let v = self.get(x);
        let mut dims = v.dims.clone();
        dims.insert(axis, [1; SETS]);
        let axes = self.ints(&[axis as i64]);
        self.one("Unsqueeze", &[x, axes], vec![], v.sized(dims))
    }
    pub fn gather(&mut self, x: Id, i: Id, axis: usize) -> Option<Id> {
        let v = self.get(x);
        let dims = [&v.dims[..axis], &self.val(i).dims.clone()[..], &v.dims[axis + 1..]].concat();
        let axis = if self.d.flag() { axis as i64 } else { axis as i64 - v.rank() as i64 };
        self.one("Gather", &[x, i], vec![("axis", A::I(axis))], v.sized(dims))
    }
    /// Places along an axis of at least `n` elements: constants, or an input.
    fn places(&mut self, dims: &[Size], n: usize) -> Option<Id> {
        let low = if self.d.flag() { 0.0 } else { -(n as f64) };
        if dims.iter().all(fixed) && self.d.flag() {
            let shape: Vec<usize> = dims.iter().map(|d| d[0]).collect();
            return Some(self.spread(I64, &shape, low, n as f64 - 1.0));
        }
        self.fits(dims)?;
        Some(self.feed(I64, dims, low, n as f64 - 1.0))
    }
}

fn least(s: &Size) -> usize {
    s.iter().copied().min().unwrap_or(0)
}

pub fn turned(g: &mut Gen) -> Option<Id> {
    let x = g.something(1, 5, |_| true)?;
    let rank = g.val(x).rank();
    let perm = g.perm(rank);
    let y = g.transpose(x, &perm)?;
    if g.d.flag() {
        return Some(y);
    }
    // Back again, perhaps with something in between.
    let mut y = y;
    if g.d.flag() && g.val(y).is_float() {
        y = g.unary("Relu", y)?;
    }
    let mut back = vec![0; rank];
    perm.iter().enumerate().for_each(|(i, &p)| back[p] = i);
    let perm = if g.d.one_in(4) { g.perm(rank) } else { back };
    g.transpose(y, &perm)
}

pub fn shaped(g: &mut Gen) -> Option<Id> {
    let x = g.something(0, 4, |_| true)?;
    let v = g.get(x);
    let rank = v.rank();
    match g.d.below(6) {
        0 => g.reshape(x, vec![each(|k| v.dims.iter().map(|d| d[k]).product())]),
        1 if rank >= 2 => {
            let i = g.d.below(rank - 1);
            let mut dims = v.dims.clone();
            let next = dims.remove(i + 1);
            dims[i] = each(|k| dims[i][k] * next[k]);
            g.reshape(x, dims)
        }
        2 if rank >= 1 => {
            // An axis in two.
            let i = g.d.below(rank);
            let by = (2..8).find(|b| v.dims[i].iter().all(|n| n % b == 0))?;
            let mut dims = v.dims.clone();
            dims[i] = each(|k| v.dims[i][k] / by);
            let at = if g.d.flag() { i } else { i + 1 };
            dims.insert(at, [by; SETS]);
            g.reshape(x, dims)
        }
        3 if rank >= 1 => {
            let axis = g.d.below(rank + 1);
            let side = |d: &[Size]| each(|k| d.iter().map(|d| d[k]).product());
            let dims = vec![side(&v.dims[..axis]), side(&v.dims[axis..])];
            g.one("Flatten", &[x], vec![("axis", A::I(axis as i64))], v.sized(dims))
        }
        4 if v.dims.contains(&[1; SETS]) => {
            let at = v.dims.iter().position(|d| *d == [1; SETS])?;
            let mut dims = v.dims.clone();
            dims.remove(at);
            let axes = g.ints(&[at as i64]);
            g.one("Squeeze", &[x, axes], vec![], v.sized(dims))
        }
        _ => {
            let at = g.d.below(rank + 1);
            g.unsqueeze(x, at)
        }
    }
}

/// Slices, splits, and parts put together again: views, where they can be.
pub fn parts(g: &mut Gen) -> Option<Id> {
    let x = g.something(1, 5, |_| true)?;
    let v = g.get(x);
    let axis = g.d.below(v.rank());
    match g.d.below(5) {
        0 | 1 => {
            let (from, to) = (g.d.within(-3, 3), g.d.pick(&[i64::MAX, 5, 2, -1]));
            let step = g.d.pick(&[1, 1, 1, 2, 3, -1, -2]);
            let (from, to) = if step < 0 { (g.d.pick(&[-1, 4]), g.d.pick(&[i64::MIN, 0, -4])) } else { (from, to) };
            g.slice(x, axis, from, to, step)
        }
        2 | 3 if fixed(&v.dims[axis]) && v.dims[axis][0] >= 2 => {
            let n = v.dims[axis][0];
            let cut = 1 + g.d.below(n - 1);
            let mut lengths = vec![cut, n - cut];
            if n - cut >= 2 && g.d.flag() {
                lengths = vec![cut, 1, n - cut - 1];
            }
            let mut made = g.split(x, axis, &lengths)?;
            if g.d.flag() && v.is_float() {
                let at = g.d.below(made.len());
                made[at] = g.unary("Neg", made[at])?;
            }
            match g.d.below(3) {
                0 => Some(made[0]),
                1 => g.concat(&made, axis),
                _ => {
                    made.reverse();
                    g.concat(&made, axis)
                }
            }
        }
        _ => {
            let like = v.clone();
            let fits = |w: &Val| {
                movable(w)
                    && w.dtype == like.dtype
                    && w.rank() == like.rank()
                    && (0..w.rank()).all(|i| i == axis || w.dims[i] == like.dims[i])
            };
            let y = g.pick(fits).unwrap_or(x);
            g.concat(&[x, y], axis)
        }
    }
}

pub fn chosen(g: &mut Gen) -> Option<Id> {
    let x = g.something(1, 4, |v| v.full() && v.count() > 0)?;
    let v = g.get(x);
    let axis = g.d.below(v.rank());
    let n = least(&v.dims[axis]);
    if n == 0 {
        return None;
    }
    match g.d.below(4) {
        0 => {
            let dims = g.shape(0, 2);
            let i = g.places(&dims, n)?;
            g.gather(x, i, axis)
        }
        1 => {
            let mut dims = v.dims.clone();
            dims[axis] = [1 + g.d.below(4); SETS];
            let i = g.places(&dims, n)?;
            g.one("GatherElements", &[x, i], vec![("axis", A::I(axis as i64))], v.sized(dims))
        }
        2 => {
            let mut dims = v.dims.clone();
            dims[axis] = [1; SETS];
            let i = g.places(&dims, n)?;
            let updates = g.get(x);
            let (low, high) = (updates.low.max(-2.0).floor(), updates.high.min(2.0).floor());
            if low > high || v.dtype == Bool {
                return None;
            }
            let u = g.feed(v.dtype, &dims, low, high);
            g.one(
                "ScatterElements",
                &[x, i, u],
                vec![("axis", A::I(axis as i64))],
                v.clone().bounds(v.low.min(low), v.high.max(high), v.error),
            )
        }
        _ => {
            let (rows, k) = (1 + g.d.below(5), 1 + g.d.below(v.rank()));
            let n = v.dims[..k].iter().map(least).min()?;
            let i = g.places(&sizes(&[rows, k]), n)?;
            let dims = [&sizes(&[rows])[..], &v.dims[k..]].concat();
            g.one("GatherND", &[x, i], vec![], v.sized(dims))
        }
    }
}

/// Larger than before: Expand, Tile, Pad, Resize; and the blocks of pictures.
pub fn grown(g: &mut Gen) -> Option<Id> {
    let x = g.something(0, 4, |_| true)?;
    let v = g.get(x);
    match g.d.below(6) {
        0 => {
            let mut dims = v.dims.clone();
            for d in &mut dims {
                if *d == [1; SETS] && g.d.flag() {
                    *d = g.full_size(5);
                }
            }
            if g.d.flag() {
                dims.insert(0, [2; SETS]);
            }
            (broadcast(&dims, &v.dims)? == dims).then_some(())?;
            g.expand(x, dims)
        }
        1 if v.rank() > 0 => {
            let times: Vec<i64> = v.dims.iter().map(|_| g.d.within(1, 3)).collect();
            let dims = v.dims.iter().zip(&times).map(|(d, &t)| each(|k| d[k] * t as usize)).collect();
            let t = g.ints(&times);
            g.one("Tile", &[x, t], vec![], v.sized(dims))
        }
        2 | 3 if v.rank() > 0 && v.full() => {
            let mode = if v.dtype == F16 { "constant" } else { g.d.pick(&["constant", "constant", "reflect", "edge"]) };
            let most = |d: &Size| if mode == "reflect" { least(d).saturating_sub(1).min(2) } else { 2 };
            let mut pads = vec![0; 2 * v.rank()];
            for (i, d) in v.dims.iter().enumerate() {
                pads[i] = g.d.below(most(d) + 1) as i64;
                pads[i + v.rank()] = g.d.below(most(d) + 1) as i64;
            }
            let dims = v
                .dims
                .iter()
                .enumerate()
                .map(|(i, d)| each(|k| d[k] + (pads[i] + pads[i + v.rank()]) as usize))
                .collect();
            let p = g.ints(&pads);
            let out = if mode == "constant" { v.clone().bounds(v.low.min(0.0), v.high.max(0.0), v.error) } else { v };
            g.one("Pad", &[x, p], vec![("mode", A::S(mode))], out.sized(dims))
        }
        4 if v.rank() == 4 && v.is_float() && v.dtype == F32 => {
            let (c, block) = (v.dims[1], 2);
            if fixed(&c) && c[0] % (block * block) == 0 && g.d.flag() {
                let dims = vec![v.dims[0], each(|_| c[0] / 4), each(|k| v.dims[2][k] * 2), each(|k| v.dims[3][k] * 2)];
                let mode = g.d.pick(&["DCR", "CRD"]);
                return g.one("DepthToSpace", &[x], vec![("blocksize", A::I(2)), ("mode", A::S(mode))], v.sized(dims));
            }
            let even = |d: &Size| d.iter().all(|n| n % 2 == 0);
            if even(&v.dims[2]) && even(&v.dims[3]) {
                let dims = vec![v.dims[0], each(|k| c[k] * 4), each(|k| v.dims[2][k] / 2), each(|k| v.dims[3][k] / 2)];
                return g.one("SpaceToDepth", &[x], vec![("blocksize", A::I(2))], v.sized(dims));
            }
            let dims = vec![v.dims[0], c, each(|k| v.dims[2][k] * 2), each(|k| v.dims[3][k] * 2)];
            let scales = g.constant(Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 2.0]).unwrap());
            let attrs = vec![
                ("mode", A::S("nearest")),
                ("coordinate_transformation_mode", A::S("asymmetric")),
                ("nearest_mode", A::S("floor")),
            ];
            g.node("Resize", &[Some(x), None, Some(scales)], attrs, vec![v.sized(dims)]).map(|ids| ids[0])
        }
        _ if v.rank() >= 2 => {
            let k = g.int(0);
            let out = v.clone().bounds(v.low.min(0.0), v.high.max(0.0), v.error);
            let upper = g.d.flag();
            g.one("Trilu", &[x, k], vec![("upper", A::I(upper.into()))], out)
        }
        _ => None,
    }
}

/// Sizes as values: Shape, Size, Range, ConstantOfShape, EyeLike, OneHot.
pub fn counted(g: &mut Gen) -> Option<Id> {
    let x = g.something(1, 4, |_| true)?;
    let v = g.get(x);
    let list = |n: usize| Val { dtype: I64, ..v.clone() }.bounds(0.0, 1e5, 0.0).sized(sizes(&[n]));
    match g.d.below(5) {
        0 => g.idiom(|g| {
            // Positions along an axis, as numbers beside x.
            let at = g.d.below(v.rank());
            let n = g.size_of(x, &v.dims[at])?;
            let axes = g.ints(&[0]);
            let n = g.one("Squeeze", &[n, axes], vec![], list(1).sized(vec![]))?;
            let (zero, one) = (g.int(0), g.int(1));
            let range = g.one("Range", &[zero, n, one], vec![], list(1).sized(vec![v.dims[at]]))?;
            let f = g.cast(range, F32)?;
            g.with("Mul", f, 0.001)
        }),
        1 => g.idiom(|g| {
            let shape = g.one("Shape", &[x], vec![], list(v.rank()))?;
            let fill = Tensor::from_slice(&[1], &[0.5f32]).unwrap();
            let out = v.clone().of(F32).bounds(0.5, 0.5, 0.0);
            g.one("ConstantOfShape", &[shape], vec![("value", A::T(fill))], out)
        }),
        2 if v.rank() == 2 && v.dtype == F32 => g.one("EyeLike", &[x], vec![], v.bounds(0.0, 1.0, 0.0)),
        3 => g.one("Size", &[x], vec![], list(1).sized(vec![])),
        _ => {
            let depth = 2 + g.d.below(6);
            let dims = g.shape(1, 2);
            let i = g.places(&dims, depth)?;
            let d = g.int(depth as i64);
            let values = g.constant(Tensor::from_slice(&[2], &[0.0f32, 1.5]).unwrap());
            let out = Val { dtype: F32, ..v }.bounds(0.0, 1.5, 0.0).sized([&dims[..], &sizes(&[depth])[..]].concat());
            g.one("OneHot", &[i, d, values], vec![], out)
        }
    }
}

/// Sizes that hang on data, and what is known again behind them.
pub fn found(g: &mut Gen) -> Option<Id> {
    let x = g.something(1, 3, |v| v.exact() && v.full() && matches!(v.dtype, F32 | I64 | Bool | I32))?;
    let v = g.get(x);
    let rank = v.rank();
    let all = each(|k| v.dims.iter().map(|d| d[k]).product());
    g.idiom(|g| {
        let loose = Val { dtype: I64, loose: true, ..v.clone() }.bounds(0.0, 1e5, 0.0);
        let places = g.one("NonZero", &[x], vec![], loose.clone().sized(vec![[rank; SETS], all]))?;
        let rows = g.one("Transpose", &[places], vec![], loose.sized(vec![all, [rank; SETS]]))?;
        let taken = g.one("GatherND", &[x, rows], vec![], Val { loose: true, ..v.clone() }.sized(vec![all]))?;
        let taken = if v.dtype == F32 {
            taken
        } else {
            g.one(
                "Cast",
                &[taken],
                vec![("to", A::I(1))],
                Val { dtype: F32, loose: true, ..v.clone() }.sized(vec![all]),
            )?
        };
        let half = g.with("Mul", taken, 0.25)?;
        let curved = g.unary("Tanh", half)?;
        let n = all.iter().copied().max()? as f64;
        let out = g.get(curved);
        let error = n * out.error + super::generator::rounding(F32, n, n * out.most());
        let out = Val { loose: false, ..out.clone() }.sized(vec![]).bounds(
            n * out.low.min(0.0),
            n * out.high.max(0.0),
            error,
        );
        let sum = g.one("ReduceSum", &[curved], vec![("keepdims", A::I(0))], out)?;
        g.settle(sum)
    })
}
