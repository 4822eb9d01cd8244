//! Rows that are divided by their sum or length, sums that are normalised, norms between casts and before activations, rows that
//! change places with items.

use super::generator::{A, Gen, Id, SETS, each, fixed, rounding};
use super::neural::count_along;
use ortx::DType::*;

pub fn rows(g: &mut Gen) -> Option<Id> {
    match g.d.below(9) {
        0 => softmax(g),
        1 => length(g),
        2 => between_casts(g),
        3 => activated(g),
        4 | 5 => between(g),
        6 | 7 => exchanged(g),
        _ => sum(g),
    }
}

fn operand(g: &mut Gen) -> Option<Id> {
    g.operand(1, 4, |v| v.full() && v.most() <= 8.0)
}

/// exp(x - max) / sum(exp(x - max)), or its logarithm.
fn softmax(g: &mut Gen) -> Option<Id> {
    let x = operand(g)?;
    g.idiom(|g| {
        let v = g.get(x);
        let axis = if g.d.one_in(4) { g.d.below(v.rank()) } else { v.rank() - 1 };
        let n = count_along(&v, &[axis]).into_iter().max()? as f64;
        let m = g.reduce("ReduceMax", x, &[axis], true)?;
        let c = g.binary("Sub", x, m)?;
        // Slopes of at most one, twice for the greatest; an exponential's rounding grows with its argument.
        let error = (4.0 * v.error + rounding(v.dtype, 40.0 + 4.0 * v.most() + n, 1.0)).min(1.0);
        let e = g.one("Exp", &[c], vec![], v.clone().bounds(0.0, 1.0, error))?;
        let s = g.reduce("ReduceSum", e, &[axis], true)?;
        if g.d.flag() {
            return g.one("Div", &[e, s], vec![], v.bounds(0.0, 1.0, error));
        }
        let low = v.low - v.high - n.ln() - 1.0;
        let error = 4.0 * v.error + rounding(v.dtype, 40.0 + 2.0 * n, low.abs() + 1.0);
        let log = g.get(s).bounds(-1.0, n.ln() + 1.0, error);
        let l = g.one("Log", &[s], vec![], log)?;
        g.one("Sub", &[c, l], vec![], v.bounds(low, 1.0, 2.0 * error))
    })
}

/// x / max(norm(x), 1/2)
fn length(g: &mut Gen) -> Option<Id> {
    let x = operand(g)?;
    g.idiom(|g| {
        let v = g.get(x);
        let axis = if g.d.one_in(4) { g.d.below(v.rank()) } else { v.rank() - 1 };
        let n = count_along(&v, &[axis]).into_iter().max()? as f64;
        let op = g.d.pick(&["ReduceL2", "ReduceL2", "ReduceL1"]);
        let norm = if g.d.one_in(4) {
            // Paddle's way.
            let sizes = g.unary("Abs", x)?;
            let squares = g.power(sizes, 2.0)?;
            let sum = g.reduce("ReduceSum", squares, &[axis], true)?;
            let root = g.get(sum).bounds(0.0, f64::INFINITY, f64::INFINITY);
            let half = g.number(x, 0.5);
            g.one("Pow", &[sum, half], vec![], root)?
        } else {
            g.reduce(op, x, &[axis], true)?
        };
        let half = g.number(x, 0.5);
        let length = g.get(norm);
        let (low, high, error) = (length.low.max(0.5), length.high.max(0.5), length.error);
        let norm = g.one("Max", &[norm, half], vec![], length.bounds(low, high, error))?;
        // No element is longer than its row. What a row's length is off by, all elements are.
        let error = 2.0 * v.error * (1.0 + n) + rounding(v.dtype, 20.0 + 2.0 * n, 2.0);
        g.one("Div", &[x, norm], vec![], v.bounds(-1.1, 1.1, error))
    })
}

/// Narrow numbers that are worked on in f32.
fn between_casts(g: &mut Gen) -> Option<Id> {
    let dims = g.shape(1, 3);
    if dims.iter().flatten().any(|&n| n == 0) {
        return None;
    }
    let x = g.feed(F16, &dims, -2.0, 2.0);
    g.idiom(|g| {
        let wide = g.cast(x, F32)?;
        let y = g.softmax(wide, -1, 2.0)?;
        g.cast(y, F16)
    })
}

/// An instance normalisation, then an activation.
fn activated(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let c = v.dims[1][0];
        let (scale, shift) = (g.weights(v.dtype, &[c], 1.0), g.weights(v.dtype, &[c], 1.0));
        let n = count_along(&v, &(2..v.rank()).collect::<Vec<_>>()).into_iter().max()?;
        let (most, error) = Gen::normalised(&v, n, 0.1);
        let out = v.bounds(-most - 1.0, most + 1.0, error);
        let y = g.one("InstanceNormalization", &[x, scale, shift], vec![("epsilon", A::F(0.1))], out)?;
        let op = g.d.pick(&["Relu", "Sigmoid", "LeakyRelu", "HardSwish"]);
        g.unary(op, y)
    })
}

/// Items and rows change places around what works on each row by itself, now and then with all rows in one axis.
fn exchanged(g: &mut Gen) -> Option<Id> {
    let x = g.operand(3, 3, |v| v.full() && v.most() <= 8.0 && v.dims.last().is_some_and(fixed))?;
    g.idiom(|g| {
        let mut y = g.transpose(x, &[1, 0, 2])?;
        let v = g.get(y);
        let (flat, n) = (g.d.one_in(3), g.d.pick(&[4, 6, 8]));
        if flat {
            y = g.reshape(y, vec![each(|k| v.dims[0][k] * v.dims[1][k]), v.dims[2]])?;
        }
        y = g.project(y, n, 2.0)?;
        y = g.biased(y)?;
        if flat {
            y = g.reshape(y, vec![v.dims[0], v.dims[1], [n; SETS]])?;
        }
        if g.d.flag() {
            y = elementwise(g, y)?;
        }
        match g.d.below(4) {
            0 => {
                // Halves of rows as rows: these need their items first.
                let y = g.reshape(y, vec![v.dims[0], each(|k| v.dims[1][k] * 2), [n / 2; SETS]])?;
                g.transpose(y, &[1, 0, 2])
            }
            1 => {
                let y = g.reshape(y, vec![v.dims[0], v.dims[1], [2; SETS], [n / 2; SETS]])?;
                g.transpose(y, &[1, 0, 2, 3])
            }
            2 => g.transpose(y, &[2, 0, 1]),
            _ => g.transpose(y, &[1, 0, 2]),
        }
    })
}

/// A softmax or a norm of scaled or masked rows, and what is done to it.
fn between(g: &mut Gen) -> Option<Id> {
    let x = g.operand(1, 4, |v| v.full() && v.most() <= 8.0 && v.dims.last().is_some_and(fixed))?;
    g.idiom(|g| {
        let mut y = x;
        for _ in 0..g.d.below(3) {
            y = elementwise(g, y)?;
        }
        let v = g.get(y);
        y = if g.d.flag() {
            g.softmax(y, -1, v.most())?
        } else {
            let n = v.dims.last()?[0];
            let (scale, shift) = (g.weights(v.dtype, &[n], 1.0), g.weights(v.dtype, &[n], 1.0));
            let (most, error) = Gen::normalised(&v, n, 0.1);
            let out = v.clone().bounds(-most - 1.0, most + 1.0, error + rounding(v.dtype, 2.0, most));
            g.one("LayerNormalization", &[y, scale, shift], vec![("axis", A::I(-1)), ("epsilon", A::F(0.1))], out)?
        };
        if g.d.one_in(4) {
            g.keep(y);
        }
        for _ in 0..g.d.below(3) {
            y = elementwise(g, y)?;
        }
        Some(y)
    })
}

/// A number for all, one for each place of a row, one for each row, or a function.
fn elementwise(g: &mut Gen, x: Id) -> Option<Id> {
    let v = g.get(x);
    match g.d.below(4) {
        0 => g.with("Mul", x, 0.5),
        1 => {
            let row = g.weights(v.dtype, &[v.dims.last()?[0]], 1.0);
            g.add(x, row)
        }
        2 => {
            let mut dims = v.dims.clone();
            *dims.last_mut()? = [1; SETS];
            let by_row = g.feed(v.dtype, &dims, -1.0, 1.0);
            g.binary("Mul", x, by_row)
        }
        _ => g.unary("Sigmoid", x),
    }
}

/// A sum, whose rows are normalised, and which goes on now and then.
fn sum(g: &mut Gen) -> Option<Id> {
    let x = g.operand(2, 4, |v| v.full() && v.most() <= 8.0 && v.dims.last().is_some_and(fixed))?;
    let like = g.get(x);
    let other = g.pick(|v| v.is_float() && v.dtype == like.dtype && v.dims == like.dims && v.most() <= 8.0 && !v.loose);
    let other = other.filter(|&o| o != x).unwrap_or_else(|| g.feed(like.dtype, &like.dims, -2.0, 2.0));
    g.idiom(|g| {
        let s = g.add(x, other)?;
        let v = g.get(s);
        let n = v.dims.last()?[0];
        let (scale, shift) = (g.weights(v.dtype, &[n], 1.0), g.weights(v.dtype, &[n], 1.0));
        let (most, error) = Gen::normalised(&v, n, 0.1);
        let out = v.clone().bounds(-most - 1.0, most + 1.0, error + rounding(v.dtype, 2.0, most));
        let y =
            g.one("LayerNormalization", &[s, scale, shift], vec![("axis", A::I(-1)), ("epsilon", A::F(0.1))], out)?;
        if g.d.flag() { Some(y) } else { g.add(y, s) }
    })
}
