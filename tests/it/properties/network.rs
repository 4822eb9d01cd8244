//! Recurrent networks and attention.

use super::draw::{Draw, case};
use super::family;
use super::reference::{Array, spread_offset};
use ortx::DType::*;
use ortx::Tensor;
use ortx::ir::parse::Attr;
use ortx::ops::case::{Case, CaseInput};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// The sums that gates are made of, for one direction.
struct Gates {
    w: Array,
    r: Array,
    b: Vec<f64>,
    hidden: usize,
    gates: usize,
}

impl Gates {
    /// x W' + Wb of a gate's unit.
    fn of_input(&self, direction: usize, gate: usize, unit: usize, x: &[f64]) -> f64 {
        let row = gate * self.hidden + unit;
        let sum: f64 = x.iter().enumerate().map(|(k, x)| x * self.w.at(&[direction, row, k])).sum();
        sum + self.b[direction * 2 * self.gates * self.hidden + row]
    }
    /// h R' + Rb.
    fn of_state(&self, direction: usize, gate: usize, unit: usize, h: &[f64]) -> f64 {
        let row = gate * self.hidden + unit;
        let sum: f64 = h.iter().enumerate().map(|(k, x)| x * self.r.at(&[direction, row, k])).sum();
        sum + self.b[(direction * 2 + 1) * self.gates * self.hidden + row]
    }
}

fn recurrent(d: &mut Draw) -> Option<Case> {
    let op = d.pick(&["RNN", "GRU", "LSTM"]);
    let gates = match op {
        "RNN" => 1,
        "GRU" => 3,
        _ => 4,
    };
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let (seq, batch, input, hidden) = (1 + d.below(6), 1 + d.below(4), 1 + d.below(9), 1 + d.below(20));
    let direction = d.pick(&["forward", "reverse", "bidirectional"]);
    let dirs = if direction == "bidirectional" { 2 } else { 1 };
    let layout = d.flag();
    let after = op == "GRU" && d.flag();
    let side =
        |a: usize, b: usize, rest: &[usize]| if layout { [&[b, a], rest].concat() } else { [&[a, b], rest].concat() };
    let x = d.values(dtype, &side(seq, batch, &[input]), -1.0, 1.0);
    let w = d.values(dtype, &[dirs, gates * hidden, input], -0.5, 0.5);
    let r = d.values(dtype, &[dirs, gates * hidden, hidden], -0.5, 0.5);
    let bias = d.flag().then(|| d.values(dtype, &[dirs, 2 * gates * hidden], -0.5, 0.5));
    let lens = d.flag().then(|| (0..batch).map(|_| d.within(1, seq as i64) as i32).collect::<Vec<_>>());
    let state = side(dirs, batch, &[hidden]);
    let h0 = d.flag().then(|| d.values(dtype, &state, -1.0, 1.0));
    let c0 = (op == "LSTM" && d.flag()).then(|| d.values(dtype, &state, -1.0, 1.0));
    let peep = (op == "LSTM" && d.flag()).then(|| d.values(dtype, &[dirs, 3 * hidden], -0.5, 0.5));

    let at = |a: &Array, p: usize, q: usize, k: usize| a.at(&if layout { [q, p, k] } else { [p, q, k] });
    let b = bias.as_ref().map_or(vec![0.0; dirs * 2 * gates * hidden], |b| Array::of(b).data);
    let g = Gates { w: Array::of(&w), r: Array::of(&r), b, hidden, gates };
    let (ax, ah, ac) = (Array::of(&x), h0.as_ref().map(Array::of), c0.as_ref().map(Array::of));
    let ap = peep.as_ref().map_or(vec![0.0; dirs * 3 * hidden], |p| Array::of(p).data);
    // Y is (seq, dirs, batch, hidden), or (batch, seq, dirs, hidden).
    let mut y = vec![0.0; seq * dirs * batch * hidden];
    let mut last = vec![vec![0.0; dirs * batch * hidden]; 2];
    for dir in 0..dirs {
        let backwards = direction == "reverse" || dir == 1;
        for n in 0..batch {
            let start = |a: &Option<Array>| -> Vec<f64> {
                (0..hidden).map(|k| a.as_ref().map_or(0.0, |a| at(a, dir, n, k))).collect()
            };
            let (mut h, mut c) = (start(&ah), start(&ac));
            let len = lens.as_ref().map_or(seq, |l| l[n] as usize);
            for step in 0..len {
                let t = if backwards { len - 1 - step } else { step };
                let row: Vec<f64> = (0..input).map(|k| at(&ax, t, n, k)).collect();
                let both = |gate: usize, u: usize| g.of_input(dir, gate, u, &row) + g.of_state(dir, gate, u, &h);
                let p = |gate: usize, u: usize| ap[(dir * 3 + gate) * hidden + u];
                let next: Vec<(f64, f64)> = match op {
                    "RNN" => (0..hidden).map(|u| (both(0, u).tanh(), 0.0)).collect(),
                    "GRU" => {
                        let reset: Vec<f64> = (0..hidden).map(|u| sigmoid(both(1, u))).collect();
                        let gated: Vec<f64> = reset.iter().zip(&h).map(|(r, h)| r * h).collect();
                        let unit = |u: usize| {
                            let z = sigmoid(both(0, u));
                            let inner = if after {
                                reset[u] * g.of_state(dir, 2, u, &h)
                            } else {
                                g.of_state(dir, 2, u, &gated)
                            };
                            let new = (g.of_input(dir, 2, u, &row) + inner).tanh();
                            ((1.0 - z) * new + z * h[u], 0.0)
                        };
                        (0..hidden).map(unit).collect()
                    }
                    _ => {
                        let unit = |u: usize| {
                            let i = sigmoid(both(0, u) + p(0, u) * c[u]);
                            let f = sigmoid(both(2, u) + p(2, u) * c[u]);
                            let cell = f * c[u] + i * both(3, u).tanh();
                            (sigmoid(both(1, u) + p(1, u) * cell) * cell.tanh(), cell)
                        };
                        (0..hidden).map(unit).collect()
                    }
                };
                (h, c) = next.into_iter().unzip();
                let place = if layout {
                    ((n * seq + t) * dirs + dir) * hidden
                } else {
                    ((t * dirs + dir) * batch + n) * hidden
                };
                y[place..place + hidden].copy_from_slice(&h);
            }
            let place = if layout { (n * dirs + dir) * hidden } else { (dir * batch + n) * hidden };
            last[0][place..place + hidden].copy_from_slice(&h);
            last[1][place..place + hidden].copy_from_slice(&c);
        }
    }
    let shape = if layout { vec![batch, seq, dirs, hidden] } else { vec![seq, dirs, batch, hidden] };
    let array = |shape: &[usize], data: &[f64]| Array { shape: shape.to_vec(), data: data.to_vec() }.tensor(dtype);
    let mut want = vec![array(&shape, &y), array(&state, &last[0])];
    if op == "LSTM" {
        want.push(array(&state, &last[1]));
    }
    let mut place = |t: Option<Tensor>| t.map_or(CaseInput::Absent, |t| d.place(t));
    let lens = lens.map(|l| Tensor::from_slice(&[batch], &l).unwrap());
    let mut inputs = vec![place(Some(x)), place(Some(w)), place(Some(r)), place(bias), place(lens), place(h0)];
    if op == "LSTM" {
        inputs.extend([place(c0), place(peep)]);
    }
    let mut attrs = vec![
        ("hidden_size", Attr::Int(hidden as i64)),
        ("direction", Attr::String(direction.into())),
        ("layout", Attr::Int(layout.into())),
    ];
    if op == "GRU" {
        attrs.push(("linear_before_reset", Attr::Int(after.into())));
    }
    // Some roundings a step.
    Some(case(op, 14, inputs, attrs, want, 60.0, 1.0))
}

fn attention(d: &mut Draw) -> Option<Case> {
    let dtype = d.pick(&[F32, F32, F64, F16]);
    let (batch, kv_heads, share) = (1 + d.below(3), 1 + d.below(3), 1 + d.below(3));
    let heads = kv_heads * share;
    let (q_len, kv_len) = (1 + d.below(20), 1 + d.below(40));
    let (size, v_size) = (d.pick(&[1usize, 3, 8, 16, 17]), d.pick(&[1usize, 4, 16, 19]));
    let past = if d.flag() { 1 + d.below(9) } else { 0 };
    let total = past + kv_len;
    let flat = d.flag();
    let causal = d.flag();
    let scale = d.flag().then_some(0.3f32);
    let cap = if d.one_in(3) { 2.0f32 } else { 0.0 };
    let q = d.values(dtype, &[batch, heads, q_len, size], -1.0, 1.0);
    let k = d.values(dtype, &[batch, kv_heads, kv_len, size], -1.0, 1.0);
    let v = d.values(dtype, &[batch, kv_heads, kv_len, v_size], -1.0, 1.0);
    let (pk, pv) = (
        d.values(dtype, &[batch, kv_heads, past, size], -1.0, 1.0),
        d.values(dtype, &[batch, kv_heads, past, v_size], -1.0, 1.0),
    );
    let mask_shape = match d.below(4) {
        0 => None,
        1 => Some(vec![q_len, total]),
        2 => Some(vec![batch, 1, q_len, total]),
        _ => Some(vec![batch, heads, q_len, total]),
    };
    let truth = d.flag();
    let mask = mask_shape.map(|s| if truth { d.values(Bool, &s, 0.0, 1.0) } else { d.values(dtype, &s, -2.0, 2.0) });

    let (aq, ak, av, apk, apv) = (Array::of(&q), Array::of(&k), Array::of(&v), Array::of(&pk), Array::of(&pv));
    let am = mask.as_ref().map(Array::of);
    let joined = |old: &Array, new: &Array, n: usize, h: usize, j: usize, e: usize| {
        if j < past { old.at(&[n, h, j, e]) } else { new.at(&[n, h, j - past, e]) }
    };
    let factor = scale.map_or(1.0 / (size as f64).sqrt(), f64::from);
    let want = Array::from_fn(&[batch, heads, q_len, v_size], |i| {
        let (n, h, row) = (i[0], i[1], i[2]);
        let of = h / share;
        let scores: Vec<f64> = (0..total)
            .map(|j| {
                let dot: f64 = (0..size).map(|e| aq.at(&[n, h, row, e]) * joined(&apk, &ak, n, of, j, e)).sum();
                let mut s = dot * factor;
                if cap > 0.0 {
                    s = (s / f64::from(cap)).tanh() * f64::from(cap);
                }
                if let Some(m) = &am {
                    let m = m.data[spread_offset(&m.shape, &[n, h, row, j])];
                    s = if truth { if m != 0.0 { s } else { f64::NEG_INFINITY } } else { s + m };
                }
                if causal && j > row + past { f64::NEG_INFINITY } else { s }
            })
            .collect();
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        if top == f64::NEG_INFINITY {
            // Nothing to look at.
            return 0.0;
        }
        let e: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
        let sum: f64 = e.iter().sum();
        (0..total).map(|j| e[j] / sum * joined(&apv, &av, n, of, j, i[3])).sum()
    });
    // (batch, heads, length, size) as (batch, length, heads * size).
    let fold = |a: &Array| {
        let [n, h, l, s] = a.shape[..] else { unreachable!("four dimensions") };
        Array::from_fn(&[n, l, h * s], |i| a.at(&[i[0], i[2] / s, i[1], i[2] % s]))
    };
    let present = |old: &Array, new: &Array, s: usize| {
        Array::from_fn(&[batch, kv_heads, total, s], |i| joined(old, new, i[0], i[1], i[2], i[3])).tensor(dtype)
    };
    let form = |a: &Array| if flat { fold(a).tensor(dtype) } else { a.tensor(dtype) };
    let mut wants = vec![form(&want)];
    let mut inputs = vec![d.place(form(&aq)), d.place(form(&ak)), d.place(form(&av))];
    inputs.push(mask.map_or(CaseInput::Absent, |m| d.place(m)));
    if past > 0 {
        inputs.extend([d.place(pk), d.place(pv)]);
        wants.extend([present(&apk, &ak, size), present(&apv, &av, v_size)]);
    }
    let mut attrs = vec![("is_causal", Attr::Int(causal.into())), ("softcap", Attr::Float(cap))];
    if let Some(s) = scale {
        attrs.push(("scale", Attr::Float(s)));
    }
    if flat {
        attrs.push(("q_num_heads", Attr::Int(heads as i64)));
        attrs.push(("kv_num_heads", Attr::Int(kv_heads as i64)));
    }
    Some(case("Attention", 24, inputs, attrs, wants, 40.0, 1.0))
}

macro_rules! families {
    ($($name:ident)*) => {
        mod run {
            $(#[test] fn $name() { super::family(stringify!($name), super::$name); })*
        }
    };
}
families! { recurrent attention }
