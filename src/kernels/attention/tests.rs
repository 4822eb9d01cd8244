//! Attention at every level against the plain rows in f64.

use super::*;
use crate::kernels::convert::store_strided;
use crate::kernels::testing::Rng;
use half::{bf16, f16};

struct Data {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Vec<f32>,
    keep: Vec<u8>,
    lengths: Vec<i64>,
    sinks: Vec<f32>,
}

fn spec(dims: [usize; 7]) -> AttentionSpec {
    let [batch, heads, kv_heads, rows, keys, size, value_size] = dims;
    AttentionSpec {
        elem: Elem::F32,
        batch,
        heads,
        kv_heads,
        rows,
        keys,
        size,
        value_size,
        q: Lie::heads_first(heads, rows, size),
        k: Lie::heads_first(kv_heads, keys, size),
        v: Lie::rows_first(kv_heads, keys, value_size),
        y: Lie::rows_first(heads, rows, value_size),
        scale: 1.0 / (size as f64).sqrt(),
        cap: 0.0,
        masks: [None, None],
        causal: false,
        left: None,
        right: None,
        offset: 0,
        scores: None,
        precise: false,
    }
}

impl Data {
    fn new(s: &AttentionSpec, rng: &mut Rng) -> Data {
        let (n, m) = (s.batch * s.heads * s.rows, s.batch * s.kv_heads * s.keys);
        let mut mask = rng.floats(n * s.keys);
        mask.iter_mut().for_each(|x| {
            if *x > 0.8 {
                *x = f32::NEG_INFINITY
            }
        });
        Data {
            q: rng.floats(n * s.size).iter().map(|x| x * 3.0).collect(),
            k: rng.floats(m * s.size),
            v: rng.floats(m * s.value_size),
            mask,
            keep: (0..n * s.keys).map(|_| u8::from(rng.below(4) > 0)).collect(),
            lengths: (0..s.batch).map(|_| rng.below(s.keys + 2) as i64).collect(),
            sinks: rng.floats(s.heads),
        }
    }
}

/// Result and scores at a level; `T` is what floats become.
fn run<T: Copy + Default>(
    s: &AttentionSpec,
    d: &Data,
    isa: Isa,
    [lengths, sinks]: [bool; 2],
    to: impl Fn(&[f32]) -> Vec<T>,
) -> (Vec<T>, Vec<T>) {
    let plan = Attention::new(isa, s.clone()).expect("a plan");
    let (q, k, v) = (to(&d.q), to(&d.k), to(&d.v));
    let mut y = vec![T::default(); s.batch * s.heads * s.rows * s.value_size];
    let mut scores = vec![T::default(); s.batch * s.heads * s.rows * s.keys];
    let mask = |i: usize| match s.masks[i] {
        Some(Mask { elem: Elem::Bool, .. }) => d.keep.as_ptr(),
        _ => d.mask.as_ptr().cast(),
    };
    let p = AttentionPtrs {
        q: q.as_ptr().cast(),
        k: k.as_ptr().cast(),
        v: v.as_ptr().cast(),
        masks: [mask(0), mask(1)],
        lengths: if lengths { d.lengths.as_ptr() } else { std::ptr::null() },
        starts: std::ptr::null(),
        sinks: if sinks { d.sinks.as_ptr() } else { std::ptr::null() },
        y: y.as_mut_ptr().cast(),
        scores: scores.as_mut_ptr().cast(),
    };
    let buffer = |n: usize| crate::base::alloc::Buffer::uninit(n).expect("memory");
    let (ws, scratch) = (buffer(plan.workspace_bytes()), buffer(plan.scratch_bytes()));
    // What is not initialised must not matter.
    for (b, n) in [(&ws, plan.workspace_bytes()), (&scratch, plan.scratch_bytes())] {
        // SAFETY: the buffer's own bytes.
        unsafe { std::ptr::write_bytes(b.ptr(), 0xff, n) };
    }
    for phase in 0..plan.phases() {
        for task in (0..plan.tasks(phase)).rev() {
            // SAFETY: the operands have the spec's shapes.
            unsafe { plan.run(phase, task, &p, ws.ptr(), scratch.ptr()) };
        }
    }
    (y, scores)
}

fn check(what: &str, s: &AttentionSpec, flags: [bool; 2]) {
    let mut rng = Rng::new(what.len() as u64 * 77 + s.keys as u64);
    let mut d = Data::new(s, &mut rng);
    if what.starts_with("no numbers") {
        let first = s.size.min(d.q.len());
        d.q[..first].fill(f32::NAN);
    }
    if what.starts_with("replaced") {
        // Of a key that is masked for most rows: a number takes the place of what is none.
        let first = s.size.min(d.k.len());
        d.k[..first].fill(f32::INFINITY);
        d.keep.iter_mut().step_by(s.keys.max(1)).skip(1).for_each(|k| *k = 0);
    }
    let wide = |v: &[f32]| v.iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
    if s.elem != Elem::F32 {
        let round = |v: &mut Vec<f32>| {
            v.iter_mut().for_each(|x| {
                *x = if s.elem == Elem::F16 { f16::from_f32(*x).to_f32() } else { bf16::from_f32(*x).to_f32() }
            })
        };
        round(&mut d.q);
        round(&mut d.k);
        round(&mut d.v);
    }
    let (want, want_scores) = run(&AttentionSpec { elem: Elem::F64, ..s.clone() }, &d, Isa::SCALAR, flags, wide);
    for isa in Isa::detect().levels() {
        let (got, scores): (Vec<f32>, Vec<f32>) = if s.elem == Elem::F32 {
            run(s, &d, isa, flags, |v| v.to_vec())
        } else {
            let narrow = |v: &[f32]| {
                let mut out = vec![0u16; v.len()];
                // SAFETY: both have as many elements.
                unsafe { store_strided(isa, v.as_ptr(), 1, s.elem, out.as_mut_ptr().cast(), 1, v.len()) };
                out
            };
            let back = |v: Vec<u16>| {
                let f = |&x: &u16| match s.elem {
                    Elem::F16 => f16::from_bits(x).to_f32(),
                    _ => bf16::from_bits(x).to_f32(),
                };
                v.iter().map(f).collect()
            };
            let (y, c) = run(s, &d, isa, flags, narrow);
            (back(y), back(c))
        };
        // Weights carry the rounding of scores of size ten and less; values are at most one. Narrow types round once more.
        let tolerance = match s.elem {
            Elem::F32 => 1e-5,
            Elem::F16 => 1e-3,
            _ => 8e-3,
        };
        let mut pairs = vec![("result", &got, &want)];
        if s.scores.is_some() {
            pairs.push(("scores", &scores, &want_scores));
        }
        for (which, got, want) in pairs {
            for (i, (g, w)) in got.iter().zip(want).enumerate() {
                let (g, bound) = (f64::from(*g), tolerance * w.abs().max(1.0));
                let ok = g == *w || (g - w).abs() <= bound || g.is_nan() && w.is_nan();
                assert!(ok, "{what} at {}: {which}[{i}] = {g}, want {w}", isa.level().name());
            }
        }
    }
}

const SHAPES: [[usize; 7]; 10] = [
    [2, 3, 3, 5, 7, 8, 8],
    [1, 4, 2, 70, 300, 16, 24],
    [2, 4, 1, 1, 600, 20, 33],
    [1, 2, 2, 1, 2200, 64, 64],
    [1, 8, 8, 130, 130, 32, 32],
    [1, 2, 1, 3, 1, 1, 1],
    [1, 1, 1, 200, 1100, 40, 7],
    [1, 2, 2, 9, 0, 8, 8],
    [0, 2, 2, 9, 5, 8, 8],
    [1, 12, 4, 33, 65, 64, 48],
];

#[test]
fn plain_shapes() {
    for dims in SHAPES {
        check("plain", &spec(dims), [false, false]);
        check("sinks", &spec(dims), [false, true]);
    }
}

/// A query of NaN has scores of NaN, and so an answer: a row that sees nothing gives zeros, this one does not.
#[test]
fn no_numbers_give_no_numbers() {
    for dims in SHAPES {
        let s = spec(dims);
        let (y, _) = {
            let mut d = Data::new(&s, &mut Rng::new(3));
            let first = s.size.min(d.q.len());
            d.q[..first].fill(f32::NAN);
            run(&s, &d, Isa::detect(), [false, false], |v| v.to_vec())
        };
        let seen = s.batch * s.keys > 0;
        assert!(!seen || y[..s.value_size].iter().all(|x| x.is_nan()), "{dims:?}");
        check("no numbers", &s, [false, false]);
        check("no numbers", &AttentionSpec { causal: true, ..s }, [false, true]);
    }
}

#[test]
fn narrow_types() {
    for dims in SHAPES {
        for elem in [Elem::F16, Elem::Bf16] {
            check("narrow", &AttentionSpec { elem, causal: true, offset: 3, ..spec(dims) }, [false, false]);
        }
    }
}

#[test]
fn precise_in_any_type() {
    for elem in [Elem::F32, Elem::F16, Elem::Bf16] {
        check("precise", &AttentionSpec { elem, precise: true, causal: true, ..spec(SHAPES[0]) }, [true, true]);
    }
}

#[test]
fn what_rows_may_see() {
    for dims in SHAPES {
        let s = spec(dims);
        let offset = s.keys as i64 - s.rows as i64;
        check("causal", &AttentionSpec { causal: true, ..s.clone() }, [false, false]);
        check("causal from the end", &AttentionSpec { causal: true, offset, ..s.clone() }, [false, false]);
        check("lengths", &s, [true, false]);
        check("causal lengths", &AttentionSpec { causal: true, ..s.clone() }, [true, false]);
        let window = AttentionSpec { left: Some(3), right: Some(20), offset, ..s.clone() };
        check("window", &window, [false, false]);
        check("left only", &AttentionSpec { left: Some(40), right: None, causal: true, ..window }, [false, true]);
    }
}

#[test]
fn masks_and_caps() {
    for dims in SHAPES {
        let s = spec(dims);
        let full = Lie { batch: s.heads * s.rows * s.keys, head: s.rows * s.keys, row: s.keys };
        let mask = Mask {
            elem: Elem::F32,
            lie: full,
            items: s.batch.max(1),
            col: 1,
            cols: s.keys,
            fill: 0.0,
            replaces: false,
        };
        let keep = Mask { elem: Elem::Bool, fill: f32::NEG_INFINITY, ..mask };
        let by_key = Mask { lie: Lie { batch: s.keys, head: 0, row: 0 }, fill: -2.0, ..keep };
        let with = |a: Option<Mask>, b: Option<Mask>| AttentionSpec { masks: [a, b], ..s.clone() };
        check("float mask", &with(Some(mask), None), [false, false]);
        check("one item's", &with(Some(Mask { items: 1, ..mask }), None), [false, false]);
        check("bool mask", &with(Some(keep), None), [false, false]);
        check("both", &with(Some(mask), Some(by_key)), [false, false]);
        check("by key", &AttentionSpec { causal: true, ..with(Some(by_key), None) }, [true, false]);
        check("short", &with(Some(Mask { cols: s.keys / 2, ..mask }), None), [false, false]);
        for fill in [-1e4, f32::NEG_INFINITY] {
            let instead = Mask { fill, replaces: true, ..keep };
            check("replaced", &with(Some(instead), None), [false, false]);
            check(
                "added, then replaced",
                &with(Some(mask), Some(Mask { fill, replaces: true, ..by_key })),
                [false, false],
            );
            check("replaced, then added", &with(Some(instead), Some(mask)), [false, false]);
        }
        check("one column", &with(None, Some(Mask { col: 0, ..keep })), [false, false]);
        check("cap", &AttentionSpec { cap: 1.5, ..with(Some(mask), None) }, [false, false]);
        for scores in [Scores::Product, Scores::Capped, Scores::Masked, Scores::Seen, Scores::Softmax] {
            let s = AttentionSpec { cap: 2.0, scores: Some(scores), causal: true, ..with(Some(keep), None) };
            check("scores", &s, [false, false]);
        }
    }
}
