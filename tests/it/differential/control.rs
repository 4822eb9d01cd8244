//! If, Loop and Scan, whose bodies are random graphs that use values from around them.

use super::generator::{A, Gen, Id, SETS, Val, broadcast, each, rounding, tame};
use super::step;
use ortx::DType::*;
use ortx::Tensor;

/// The deepest nesting.
const DEEPEST: usize = 2;

impl Gen<'_> {
    fn deeper(&self) -> Option<()> {
        (self.depth() < DEEPEST).then_some(())
    }
    /// Some steps of a random graph, then a value of the same type and shape as `like` that hangs on them where it can.
    fn toward(&mut self, like: &Val, from: Id) -> Option<Id> {
        for _ in 0..1 + self.d.below(3) {
            step(self);
        }
        let fits = |v: &Val| {
            tame(v) && v.dtype == like.dtype && broadcast(&v.dims, &like.dims).is_some_and(|d| d == like.dims)
        };
        let other = self.pick(fits).unwrap_or(from);
        let y = self.add(from, other)?;
        let y = self.clip(y, -2.0, 2.0)?;
        (self.val(y).dims == like.dims).then_some(y)
    }
}

pub fn branch(g: &mut Gen) -> Option<Id> {
    g.deeper()?;
    let x = g.operand(0, 4, |v| v.most() <= 8.0)?;
    let like = g.get(x);
    let by = match g.d.below(4) {
        0 => {
            let on = g.d.flag();
            g.constant(Tensor::scalar(on).unwrap())
        }
        1 => {
            // Computed from data.
            let x = g.operand(1, 3, |v| v.exact() && v.full())?;
            let (rank, dtype) = (g.val(x).rank(), g.val(x).dtype);
            let most = g.reduce("ReduceMax", x, &(0..rank).collect::<Vec<_>>(), false)?;
            let k = g.spread(dtype, &[], -1.0, 2.0);
            let v = g.get(most).of(Bool).bounds(0.0, 1.0, 0.0);
            g.one("Greater", &[most, k], vec![], v)?
        }
        _ => g.feed(Bool, &[], 0.0, 1.0),
    };
    let side = |g: &mut Gen| {
        g.body(&[], |g, _| {
            let y = g.toward(&like, x)?;
            Some(vec![y])
        })
    };
    let (then, a) = side(g)?;
    let (other, b) = side(g)?;
    let out = like.clone().bounds(a[0].low.min(b[0].low), a[0].high.max(b[0].high), a[0].error.max(b[0].error));
    g.node("If", &[Some(by)], vec![("then_branch", A::G(then)), ("else_branch", A::G(other))], vec![out])
        .map(|ids| ids[0])
}

/// What a state may be before each turn, and the error it may have: turns make it greater by no more than the first does.
fn assumed(v: &Val) -> Val {
    v.clone().bounds(-2.0, 2.0, v.error.max(rounding(v.dtype, 8.0, 1.0)))
}
/// The error after so many turns. One turn makes `before` to `after`; errors add up linearly, so a greater one is made greater
/// by no larger a factor.
fn after(before: f64, after: f64, turns: usize) -> f64 {
    before.max(after) * (after / before).max(1.0).powi(turns as i32)
}

pub fn repeat(g: &mut Gen) -> Option<Id> {
    g.deeper()?;
    let x = g.operand(0, 3, |v| v.most() <= 2.0 && v.count() <= 500)?;
    let turns = g.d.below(5);
    let before = assumed(&g.get(x));
    let counter = Val { dtype: I64, ..before.clone() }.sized(vec![]).bounds(0.0, 8.0, 0.0);
    let go = Val { dtype: Bool, ..counter.clone() }.bounds(0.0, 1.0, 0.0);
    let early = g.d.one_in(4);
    // How large nothing is, the standard does not say.
    let gathers = turns > 0 && g.d.flag();
    let mut state_error = 0.0;
    let (body, outs) = g.body(&[counter.clone(), go, before.clone()], |g, ids| {
        let y = g.toward(&before, ids[2])?;
        state_error = g.val(y).error;
        let on = if early {
            let two = g.int(2);
            let v = g.get(ids[1]);
            g.one("Less", &[ids[0], two], vec![], v)?
        } else {
            ids[1]
        };
        let mut outs = vec![on, y];
        if gathers {
            outs.push(g.unary("Tanh", y)?);
        }
        Some(outs)
    })?;
    let error = after(before.error, state_error, turns);
    if error > 0.05 {
        return None;
    }
    let most = match g.d.below(3) {
        0 => g.feed(I64, &[], turns as f64, turns as f64),
        _ => g.int(turns as i64),
    };
    let on = g.constant(Tensor::scalar(true).unwrap());
    let mut made = vec![before.clone().bounds(-2.0, 2.0, error)];
    if gathers {
        // Turns: 0, 1 and so on, while the one before was below 2.
        let n = if early { turns.min(3) } else { turns };
        let dims = [&[[n; SETS]][..], &before.dims].concat();
        made.push(outs[2].clone().sized(dims).bounds(-1.0, 1.0, error + rounding(before.dtype, 8.0, 1.0)));
    }
    g.node("Loop", &[Some(most), Some(on), Some(x)], vec![("body", A::G(body))], made)
        .map(|ids| *ids.last().expect("a state"))
}

pub fn scan(g: &mut Gen) -> Option<Id> {
    g.deeper()?;
    let x = g.operand(2, 4, |v| v.dims[0].iter().all(|&n| (1..=6).contains(&n)) && v.most() <= 8.0)?;
    let v = g.get(x);
    let row = v.clone().sized(v.dims[1..].to_vec());
    let start = g.partner(x).filter(|&s| g.val(s).dims == row.dims && g.val(s).most() <= 2.0);
    let start = match start {
        Some(s) => s,
        None => g.feed(v.dtype, &row.dims, -1.0, 1.0),
    };
    let before = assumed(&g.get(start));
    let turns = v.dims[0].iter().copied().max()?;
    let mut state_error = 0.0;
    let (body, outs) = g.body(&[before.clone(), row.clone()], |g, ids| {
        let sum = g.add(ids[0], ids[1])?;
        let small = g.unary("Tanh", sum)?;
        let y = g.toward(&before, small)?;
        state_error = g.val(y).error;
        let seen = if g.d.flag() { g.unary("Sigmoid", y)? } else { g.mul(y, ids[1])? };
        Some(vec![y, seen])
    })?;
    let error = after(before.error, state_error, turns);
    let grown = outs[1].error * (error / before.error.max(state_error)).max(1.0);
    if error > 0.05 || grown > 0.05 {
        return None;
    }
    let all = [&[each(|k| v.dims[0][k])][..], &row.dims].concat();
    let made = vec![
        before.clone().bounds(-2.0, 2.0, error),
        outs[1].clone().sized(all).bounds(outs[1].low, outs[1].high, grown),
    ];
    let attrs = vec![("body", A::G(body)), ("num_scan_inputs", A::I(1))];
    g.node("Scan", &[Some(start), Some(x)], attrs, made).map(|ids| ids[1])
}
