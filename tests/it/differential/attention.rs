//! Attention as exporters write it out, and near-misses.

use super::generator::{A, Gen, Id, SETS, Size, Val, each, fixed, rounding};
use crate::properties::reference::tensor;
use ortx::DType::*;
use ortx::Tensor;

/// Heads and their size.
#[derive(Clone, Copy)]
struct Heads {
    n: usize,
    size: usize,
}

/// Self or cross attention over `[batch, seq, width]`, by heads or without.
pub fn attention(g: &mut Gen) -> Option<Id> {
    let wide = |v: &Val| {
        v.rank() == 3
            && v.full()
            && v.dims.last().is_some_and(|n| fixed(n) && n[0] <= 40)
            && v.most() <= 8.0
            && v.dtype != F64
    };
    let x = match g.float(wide) {
        Some(x) => x,
        None => {
            let dtype = if g.d.one_in(6) { F16 } else { F32 };
            let dims = [g.full_size(3), g.full_size(17), [g.d.pick(&[4, 8, 12, 16]); SETS]];
            g.feed(dtype, &dims, -2.0, 2.0)
        }
    };
    g.idiom(|g| {
        let v = g.get(x);
        let h = Heads { n: 1 + g.d.below(4), size: g.d.pick(&[2, 4, 5, 8, 16]) };
        // Without heads, or one.
        let flat = g.d.one_in(5);
        let (q, k, value) = g.operands(x, h, flat)?;
        if !flat && g.d.one_in(8) {
            return g.by_einsum(x, [q, k, value], h);
        }
        let rank = g.val(q).rank();
        let mut perm: Vec<usize> = (0..rank).collect();
        perm.swap(rank - 1, rank - 2);
        let (mut q, mut k) = (q, k);
        let factor = 1.0 / (h.size as f64).sqrt();
        let early = g.d.below(4);
        if early == 0 {
            q = g.with("Mul", q, factor)?;
        }
        if early == 1 {
            q = g.with("Mul", q, factor.sqrt())?;
            k = g.with("Mul", k, factor.sqrt())?;
        }
        let t = g.transpose(k, &perm)?;
        let mut s = g.matmul(q, t)?;
        s = match early {
            2 => g.with("Div", s, 1.0 / factor)?,
            3 => g.with("Mul", s, factor)?,
            _ => s,
        };
        if g.d.one_in(10) {
            // A cap.
            s = g.with("Div", s, 5.0)?;
            s = g.unary("Tanh", s)?;
            s = g.with("Mul", s, 5.0)?;
        }
        let axis = if g.d.one_in(12) { rank as i64 - 2 } else { -1 };
        let most = g.val(s).most();
        // Along rows a mask may leave nothing.
        s = if axis == -1 { g.mask(s)? } else { s };
        let mut p = g.softmax(s, axis, most)?;
        if axis == -1 && g.d.one_in(8) {
            // Models show their attention.
            g.keep(p);
        }
        if g.d.one_in(8) {
            let v = g.get(p);
            p = g.one("Dropout", &[p], vec![], v)?;
        }
        let y = g.matmul(p, value)?;
        g.mean_of(y, p, value, axis == -1);
        if flat {
            return Some(y);
        }
        let y = g.transpose(y, &[0, 2, 1, 3])?;
        let seq = g.val(y).dims[1];
        let y = g.reshape(y, vec![v.dims[0], seq, [h.n * h.size; SETS]])?;
        if g.d.flag() {
            let y = g.project(y, v.dims[2][0], 2.0)?;
            return g.add(y, x);
        }
        Some(y)
    })
}

impl Gen<'_> {
    /// Weighted means are bounded by what they are means of.
    fn mean_of(&mut self, y: Id, p: Id, value: Id, sums_to_one: bool) {
        let (pv, vv) = (self.get(p), self.get(value));
        let n = pv.dims.last().and_then(|d| d.iter().max().copied()).unwrap_or(1) as f64;
        if sums_to_one {
            let error = vv.error + n * vv.most() * pv.error + rounding(vv.dtype, n + 2.0, vv.most());
            let most = vv.most() * (1.0 + n * pv.error);
            self.refine(y, -most, most, error);
        }
    }
    /// Queries, keys and values, projected from x in one of the ways there are.
    fn operands(&mut self, x: Id, h: Heads, flat: bool) -> Option<(Id, Id, Id)> {
        let v = self.get(x);
        let width = h.n * h.size;
        let way = self.d.below(6);
        if way < 2 {
            // Packed: split where it lies, or as an axis of three.
            let all = self.project(x, 3 * width, 2.0)?;
            let all = self.biased(all)?;
            if way == 0 && !flat {
                let all = self.reshape(all, vec![v.dims[0], v.dims[1], [3; SETS], [h.n; SETS], [h.size; SETS]])?;
                let all = self.transpose(all, &[2, 0, 3, 1, 4])?;
                let one = |g: &mut Self, i: i64| {
                    let i = g.int(i);
                    g.gather(all, i, 0)
                };
                return Some((one(self, 0)?, one(self, 1)?, one(self, 2)?));
            }
            let parts = self.split(all, 2, &[width; 3])?;
            let one = |g: &mut Self, i: usize| if flat { Some(parts[i]) } else { g.heads(parts[i], h) };
            return Some((one(self, 0)?, one(self, 1)?, one(self, 2)?));
        }
        let from = if way == 2 {
            // Keys and values of something else.
            let dims = [v.dims[0], self.full_size(17), [self.d.pick(&[4, 8]); SETS]];
            self.feed(v.dtype, &dims, -1.0, 1.0)
        } else {
            x
        };
        let groups = if !flat && way == 3 && h.n.is_multiple_of(2) { 2 } else { 1 };
        let one = |g: &mut Self, from: Id, n: usize| {
            let y = g.project(from, n * h.size, 2.0)?;
            let y = if g.d.flag() { g.biased(y)? } else { y };
            if flat { Some(y) } else { g.heads(y, Heads { n, ..h }) }
        };
        let mut q = one(self, x, h.n)?;
        let (mut k, mut value) = (one(self, from, h.n / groups)?, one(self, from, h.n / groups)?);
        if h.size.is_multiple_of(2) && self.d.one_in(4) {
            (q, k) = (self.turn(q)?, self.turn(k)?);
        }
        if !flat && self.d.one_in(4) {
            let few = Heads { n: h.n / groups, ..h };
            let n = self.size();
            let rows = each(|k| n[k].min(9));
            (k, value) = (self.past(k, few, rows)?, self.past(value, few, rows)?);
            if self.d.flag() {
                self.keep(k);
                self.keep(value);
            }
        }
        if groups > 1 {
            (k, value) = (self.repeated(k, groups)?, self.repeated(value, groups)?);
        }
        Some((q, k, value))
    }
    /// Each head as often as told.
    fn repeated(&mut self, x: Id, times: usize) -> Option<Id> {
        let v = self.get(x);
        let wide = self.unsqueeze(x, 2)?;
        let mut dims = self.val(wide).dims.clone();
        dims[2] = [times; SETS];
        let wide = self.expand(wide, dims)?;
        self.reshape(wide, vec![v.dims[0], each(|k| v.dims[1][k] * times), v.dims[2], v.dims[3]])
    }
    /// Keras' own spelling.
    fn by_einsum(&mut self, x: Id, [q, k, value]: [Id; 3], h: Heads) -> Option<Id> {
        let (a, b) = (self.get(q), self.get(k));
        if a.dtype == F16 {
            return None;
        }
        let most = h.size as f64 * a.most() * b.most();
        let error =
            h.size as f64 * (a.most() * b.error + b.most() * a.error) + rounding(a.dtype, h.size as f64 + 2.0, most);
        let dims = vec![a.dims[0], a.dims[1], a.dims[2], b.dims[2]];
        let out = a.clone().sized(dims).bounds(-most, most, error);
        let s = self.one("Einsum", &[q, k], vec![("equation", A::S("bhqd,bhkd->bhqk"))], out)?;
        let s = self.with("Mul", s, 0.5)?;
        let most = self.val(s).most();
        let p = self.softmax(s, -1, most)?;
        let (pv, vv) = (self.get(p), self.get(value));
        let dims = vec![pv.dims[0], pv.dims[2], pv.dims[1], vv.dims[3]];
        let n = pv.dims[3].iter().copied().max()? as f64;
        let out = vv.clone().sized(dims).bounds(-n * vv.most(), n * vv.most(), f64::INFINITY);
        let y = self.one("Einsum", &[p, value], vec![("equation", A::S("bhqk,bhkd->bqhd"))], out)?;
        self.mean_of(y, p, value, true);
        let v = self.get(x);
        self.reshape(y, vec![v.dims[0], a.dims[2], [h.n * h.size; SETS]])
    }
    /// `[batch, seq, width]` as `[batch, heads, seq, size]`.
    fn heads(&mut self, x: Id, h: Heads) -> Option<Id> {
        let v = self.get(x);
        let y = self.reshape(x, vec![v.dims[0], v.dims[1], [h.n; SETS], [h.size; SETS]])?;
        self.transpose(y, &[0, 2, 1, 3])
    }
    /// Neighbours turned by angles of their own: stack(a cos - b sin, b cos + a sin), or by angles that stand twice.
    fn turn_neighbours(&mut self, x: Id) -> Option<Id> {
        let v = self.get(x);
        let (axis, n) = (v.rank() - 1, v.dims.last()?[0]);
        let mut wide = v.dims.clone();
        wide[axis] = [n / 2; SETS];
        wide.push([2; SETS]);
        let (a, b) = if self.d.flag() {
            (self.slice(x, axis, 0, i64::MAX, 2)?, self.slice(x, axis, 1, i64::MAX, 2)?)
        } else {
            let r = self.reshape(x, wide)?;
            let at = |g: &mut Self, i: i64| {
                let i = g.int(i);
                g.gather(r, i, axis + 1)
            };
            (at(self, 0)?, at(self, 1)?)
        };
        let stacked = |g: &mut Self, a: Id, b: Id, dims: Vec<Size>| {
            let axis = g.val(a).rank();
            let (a, b) = (g.unsqueeze(a, axis)?, g.unsqueeze(b, axis)?);
            let s = g.concat(&[a, b], axis)?;
            g.reshape(s, dims)
        };
        let [cos, sin] = [0, 1].map(|_| self.spread(v.dtype, &[n / 2], -1.0, 1.0));
        if self.d.flag() {
            let neg = self.unary("Neg", b)?;
            let turned = stacked(self, neg, a, v.dims.clone())?;
            let (cos, sin) = (stacked(self, cos, cos, vec![[n; SETS]])?, stacked(self, sin, sin, vec![[n; SETS]])?);
            let (p, q) = (self.mul(x, cos)?, self.mul(turned, sin)?);
            return self.add(p, q);
        }
        let (ac, bs, bc, sa) = (self.mul(a, cos)?, self.mul(b, sin)?, self.mul(b, cos)?, self.mul(a, sin)?);
        let low = self.binary("Sub", ac, bs)?;
        let high = self.add(bc, sa)?;
        stacked(self, low, high, v.dims)
    }
    fn turn(&mut self, x: Id) -> Option<Id> {
        if self.d.one_in(3) {
            return self.turn_neighbours(x);
        }
        let v = self.get(x);
        let (axis, n) = (v.rank() - 1, v.dims.last()?[0]);
        let (left, right) = if self.d.flag() {
            let parts = self.split(x, axis, &[n / 2; 2])?;
            (parts[0], parts[1])
        } else {
            (self.slice(x, axis, 0, n as i64 / 2, 1)?, self.slice(x, axis, n as i64 / 2, i64::MAX, 1)?)
        };
        let turned = self.unary("Neg", right)?;
        let other = self.concat(&[turned, left], axis)?;
        // An angle a place, where their number is fixed.
        let rows = v.dims[axis - 1];
        let shape = if fixed(&rows) && self.d.flag() { vec![rows[0], n] } else { vec![n] };
        let halved = self.d.flag();
        let mut angles = || {
            // Both halves turn by the same angles, or do not.
            let Some((last, lead)) = shape.split_last().filter(|_| halved) else {
                return Some(self.spread(v.dtype, &shape, -1.0, 1.0));
            };
            let half = self.spread(v.dtype, &[lead, &[last / 2]].concat(), -1.0, 1.0);
            self.concat(&[half, half], lead.len())
        };
        let (cos, sin) = (angles()?, angles()?);
        let (a, b) = (self.mul(x, cos)?, self.mul(other, sin)?);
        self.add(a, b)
    }
    /// Earlier rows before these.
    fn past(&mut self, x: Id, h: Heads, rows: Size) -> Option<Id> {
        let v = self.get(x);
        let past = self.feed(v.dtype, &[v.dims[0], [h.n; SETS], rows, [h.size; SETS]], -1.0, 1.0);
        self.concat(&[past, x], 2)
    }
    /// Scores with a mask, in one of the spellings. Every row keeps a key: softmax of nothing is another matter.
    fn mask(&mut self, s: Id) -> Option<Id> {
        let v = self.get(s);
        let rank = v.rank();
        let (rows, keys) = (v.dims[rank - 2], v.dims[rank - 1]);
        let causal = |v: &Size, w: &Size| fixed(v) && fixed(w) && v[0] <= w[0];
        match self.d.below(6) {
            0 if causal(&rows, &keys) => {
                // Added: 0 and a very low number, above the diagonal.
                let (r, n) = (rows[0], keys[0]);
                let low = self.d.pick(&[-1e4, f64::NEG_INFINITY]);
                let past = n - r;
                let all: Vec<f64> = (0..r * n).map(|i| if i % n > i / n + past { low } else { 0.0 }).collect();
                let c = self.constant(tensor(v.dtype, &[r, n], &all));
                self.masked("Add", s, c, low)
            }
            1 if causal(&rows, &keys) => {
                let (r, n) = (rows[0], keys[0]);
                let all: Vec<bool> = (0..r * n).map(|i| i % n <= i / n + n - r).collect();
                let by = self.constant(Tensor::from_slice(&[r, n], &all).unwrap());
                self.chosen(s, by)
            }
            2 => {
                // 1 and 0 for each key, as (1 - mask) * low, added.
                let batch = v.dims[0];
                let dims =
                    if rank == 4 { vec![batch, [1; SETS], [1; SETS], keys] } else { vec![batch, [1; SETS], keys] };
                let m = self.feed(I64, &dims, 0.0, 1.0);
                let m = self.cast(m, v.dtype)?;
                let one = self.constant(tensor(v.dtype, &[], &[1.0]));
                let left = self.binary("Sub", one, m)?;
                let low = self.with("Mul", left, -1e4)?;
                {
                    let most = self.val(low).low;
                    self.masked("Add", s, low, most)
                }
            }
            3 => {
                // Truths, of which the first key is never out: made by an Or with a constant.
                let n = if fixed(&keys) { keys[0] } else { return Some(s) };
                let given = self.feed(Bool, &[rows, [n; SETS]], 0.0, 1.0);
                let first: Vec<bool> = (0..n).map(|i| i == 0).collect();
                let first = self.constant(Tensor::from_slice(&[n], &first).unwrap());
                let v = self.get(given);
                let by = self.one("Or", &[given, first], vec![], v)?;
                self.chosen(s, by)
            }
            4 => {
                // A bias that is small.
                let bias = self.feed(v.dtype, &[rows, keys], -1.0, 1.0);
                self.add(s, bias)
            }
            _ => Some(s),
        }
    }
    fn masked(&mut self, op: &str, s: Id, mask: Id, low: f64) -> Option<Id> {
        let v = self.get(s);
        // Scores that are pushed out keep no digits, and no weight. A row all of whose keys are pushed by a finite number
        // keeps its order, and loses digits.
        let error = v.error + rounding(v.dtype, 2.0, if low.is_finite() { low.abs() + v.most() } else { v.most() });
        let out = v.clone().bounds(v.low + low, v.high, error);
        let (a, b) = if self.d.flag() { (s, mask) } else { (mask, s) };
        self.one(op, &[a, b], vec![], out)
    }
    fn chosen(&mut self, s: Id, by: Id) -> Option<Id> {
        let v = self.get(s);
        let low = if v.dtype == F16 { -6e4 } else { self.d.pick(&[-1e9, f64::NEG_INFINITY, -3.4e38]) };
        let v = v.clone().bounds(low, v.high, v.error);
        let low = self.constant(tensor(v.dtype, &[], &[low]));
        if self.d.one_in(3) {
            let truth = self.get(by);
            let not = self.one("Not", &[by], vec![], truth.bounds(0.0, 1.0, 0.0))?;
            return self.one("Where", &[not, low, s], vec![], v);
        }
        self.one("Where", &[by, s, low], vec![], v)
    }
}

/// A rotation of halves by angles that are constant, as models with rotary positions have it.
pub fn rotary(g: &mut Gen) -> Option<Id> {
    let even = |v: &Val| v.dims.last().is_some_and(|n| fixed(n) && n[0] >= 2 && n[0] % 2 == 0);
    let heads = |v: &Val| v.rank() == 4 && fixed(&v.dims[2]) && v.full();
    let x = if g.d.flag() {
        g.operand(3, 4, even)?
    } else if let Some(x) = g.float(|v| even(v) && heads(v)) {
        x
    } else {
        let dims = [g.full_size(3), g.full_size(4), [1 + g.d.below(9); SETS], [g.d.pick(&[2, 4, 8]); SETS]];
        g.feed(F32, &dims, -2.0, 2.0)
    };
    g.idiom(|g| g.turn(x))
}
