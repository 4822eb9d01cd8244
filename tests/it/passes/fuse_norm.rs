//! Softmax and normalisations that do what comes before and after them.

use super::*;
use ortx::base::parallel::Serial;

const PASS: &str = "fuse_norm";

/// A normalisation of `x`, whose last axis has so many numbers.
pub(super) type Norm = fn(&mut Draft, ValueId, usize) -> ValueId;

pub(super) fn lists(d: &mut Draft, n: usize) -> [ValueId; 2] {
    [d.constant("w", &[n], 0.5, 1.5), d.constant("b", &[n], -1.0, 1.0)]
}

/// The name of the fused operator, and what becomes it; of 4 axes, the second of 6.
pub(super) const NORMS: [(&str, Norm); 7] = [
    ("FusedSoftmax", |d, x, _| d.op("n", "Softmax", &[x], vec![("axis", Attr::Int(-1))])),
    ("FusedLogSoftmax", |d, x, _| d.op("n", "LogSoftmax", &[x], vec![("axis", Attr::Int(3))])),
    ("FusedLayerNormalization", |d, x, n| {
        let [w, b] = lists(d, n);
        d.op("n", "LayerNormalization", &[x, w, b], vec![])
    }),
    ("FusedLayerNormalization", |d, x, n| {
        let w = d.constant("w", &[5, n], 0.5, 1.5);
        d.op("n", "LayerNormalization", &[x, w], vec![("axis", Attr::Int(-2))])
    }),
    ("FusedLpNormalization", |d, x, _| d.op("n", "LpNormalization", &[x], vec![])),
    ("FusedInstanceNormalization", |d, x, _| {
        let [w, b] = lists(d, 6);
        d.op("n", "InstanceNormalization", &[x, w, b], vec![])
    }),
    ("FusedGroupNormalization", |d, x, _| {
        let cut = d.ints("cut", &[0, 3, -1]);
        let [w, b] = [d.constant("one", &[3], 1.0, 1.0), d.constant("zero", &[3], 0.0, 0.0)];
        let back = d.ints("back", &[2, 6, 5, -1]);
        let r = d.op("r", "Reshape", &[x, cut], vec![]);
        let n = d.op("n", "InstanceNormalization", &[r, w, b], vec![]);
        d.op("back4", "Reshape", &[n, back], vec![])
    }),
];

/// Before: a scale and a shift by row, or the like; after: a gate. Rows as short as a vector, and longer than a tile.
#[test]
pub fn rows_between_programs() {
    for (name, norm) in NORMS.into_iter().take(6) {
        for n in [7, 16, 1500] {
            for (pre, post) in [(true, false), (false, true), (true, true)] {
                let mut d = Draft::new();
                let mut x = d.input("x", &[2, 6, 5, n]);
                // A number for each row, one for each place of a row, one for all.
                let by_row = d.input("by_row", &[2, 1, 5, 1]);
                let row = d.input("row", &[n]);
                if pre {
                    x = d.op("pre", "Mul", &[x, by_row], vec![]);
                }
                let mut y = norm(&mut d, x, n);
                if post {
                    y = d.op("post", "Add", &[row, y], vec![]);
                }
                let (_, after, report) = d.check(PASS, vec![y]);
                assert_eq!(report.fired, usize::from(pre) + usize::from(post), "{:?}", report.misses);
                assert_eq!(after.len(), 1, "{after:#?}");
                assert!(after[0].contains(&format!(" = {name}(%x, ")), "{after:#?}");
            }
        }
    }
}

/// Chains become programs first, and the written-out group normalisation an operator.
#[test]
fn chains_on_both_sides() {
    for (name, norm) in NORMS {
        let mut d = Draft::new();
        let [x, gate] = ["x", "gate"].map(|n| d.input(n, &[2, 6, 5, 33]));
        let (k, on) = (d.number(0.25), d.constant("on", &[5, 1], -1.0, 1.0));
        let s = d.op("scaled", "Mul", &[x, k], vec![]);
        let s = d.op("shifted", "Add", &[s, on], vec![]);
        let s = d.op("tanh", "Tanh", &[s], vec![]);
        let y = norm(&mut d, s, 33);
        let y = d.op("swish", "Sigmoid", &[y], vec![]);
        let y = d.op("gated", "Mul", &[y, gate], vec![]);
        let before = d.b.finish(vec![y]).unwrap();
        let mut after = before.clone();
        let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
        let options = Options { strict: true, ..Options::default() };
        optimize(&mut after, &cpu, &Serial, &options).unwrap();
        assert_eq!(lines(&after).len(), 1, "{name}: {:#?}", lines(&after));
        for isa in Isa::detect().levels() {
            let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &d.inputs).unwrap();
            close(&run(&before)[0], &run(&after)[0], 1e-5, 1e-5).unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

/// A residual that goes on is written as well; positions that all items share are added on the way.
#[test]
fn a_sum_that_goes_on_is_kept() {
    for (shape, also) in [(&[2, 5, 8][..], true), (&[2, 5, 8], false), (&[1, 5, 8], true), (&[8], true)] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["", "rows", ""], &[2, 5, 8]);
        let axes = ["", "rows", ""];
        let r = d.named_input("r", &axes[3 - shape.len()..], shape);
        let [w, b] = lists(&mut d, 8);
        let s = d.op("s", "Add", &[x, r], vec![]);
        let y = d.op("y", "LayerNormalization", &[s, w, b], vec![]);
        let (_, after, report) = d.check(PASS, if also { vec![y, s] } else { vec![y] });
        assert_eq!(after.len(), 1, "{after:#?} {:?}", report.misses);
        assert!(after[0].contains("FusedLayerNormalization(%x, %r, #w, #b)"), "{after:#?}");
    }
}

/// What is no number stays none, and rows that are masked wholly come out as they did.
#[test]
fn nan_and_infinity_pass_through() {
    for (name, norm) in NORMS.into_iter().take(5) {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 6, 5, 19]);
        let Value::Tensor(t) = &d.inputs[0] else { panic!() };
        let mut v = t.as_slice::<f32>().unwrap().to_vec();
        (v[3], v[40], v[80]) = (f32::NAN, f32::INFINITY, f32::NEG_INFINITY);
        v[95..114].fill(f32::NEG_INFINITY);
        d.inputs[0] = Value::Tensor(Tensor::from_slice(&[2, 6, 5, 19], &v).unwrap());
        let (half, row) = (d.number(0.5), d.input("row", &[19]));
        let s = d.op("pre", "Mul", &[x, half], vec![]);
        let y = norm(&mut d, s, 19);
        let y = d.op("post", "Mul", &[y, row], vec![]);
        let (_, after, report) = d.check(PASS, vec![y]);
        assert_eq!((after.len(), report.fired), (1, 2), "{name} {:?}", report.misses);
    }
}

/// Narrow types are rounded after each operator, as they were: to the same bits.
#[test]
fn narrow_rows_to_the_same_bits() {
    for dtype in [DType::F16, DType::BF16] {
        for softmax in [true, false] {
            let mut d = Draft::new();
            let (x, r) = (d.input_of(dtype, "x", &[3, 5, 40]), d.input_of(dtype, "r", &[5, 40]));
            let s = d.op("s", "Add", &[x, r], vec![]);
            let n = match softmax {
                true => d.op("n", "Softmax", &[s], vec![]),
                false => {
                    let w = d.b.constant("w", random(dtype, &[40], 0.5, 1.5, 3).unwrap());
                    d.op("n", "LayerNormalization", &[s, w], vec![])
                }
            };
            let y = d.op("y", "Mul", &[n, r], vec![]);
            let (_, after, report) = d.check_within(0.0, PASS, vec![y, s]);
            assert_eq!((after.len(), report.fired), (1, 2), "{:?}", report.misses);
        }
    }
}

#[test]
pub fn rows_that_others_need_stay_apart() {
    type Make = fn(&mut Draft, ValueId) -> Vec<ValueId>;
    let row = |d: &mut Draft| d.constant("row", &[8], -1.0, 1.0);
    let cases: [(&str, Make); 6] = [
        ("does not stay in the cache", |d, _| {
            let x = d.input("long", &[1, 300_000]);
            let n = d.op("n", "Softmax", &[x], vec![]);
            vec![d.op("y", "Sqrt", &[n], vec![])]
        }),
        ("other users", |d, x| {
            let n = d.op("n", "Softmax", &[x], vec![]);
            vec![d.op("y", "Relu", &[n], vec![]), n]
        }),
        ("rows lie apart", |d, x| {
            let s = d.op("s", "Relu", &[x], vec![]);
            vec![d.op("y", "Softmax", &[s], vec![("axis", Attr::Int(1))])]
        }),
        ("is broadcast", |d, x| {
            let n = d.op("n", "Softmax", &[x], vec![]);
            let more = d.input("more", &[4, 2, 5, 8]);
            vec![d.op("y", "Add", &[n, more], vec![])]
        }),
        ("not known to be a row", |d, x| {
            let s = d.op("s", "Relu", &[x], vec![]);
            let one = d.constant("one", &[1], 1.0, 1.0);
            vec![d.op("y", "LayerNormalization", &[s, one], vec![])]
        }),
        ("made from more than one", |d, _| {
            let [a, b] = ["a", "c"].map(|n| d.input(n, &[2, 6, 3, 3]));
            let [w, shift] = lists(d, 6);
            let s = d.op("s", "Add", &[a, b], vec![]);
            vec![d.op("y", "InstanceNormalization", &[s, w, shift], vec![])]
        }),
    ];
    for (why, make) in cases {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 5, 8]);
        let y = make(&mut d, x);
        let (before, after, report) = d.check(PASS, y);
        assert_eq!(before, after, "{why}");
        assert!(report.misses.iter().any(|m| m.contains("CheckFailed: ") && m.contains(why)), "{:?}", report.misses);
    }
    // Programs compute no f64.
    let mut d = Draft::new();
    let x = d.input_of(DType::F64, "x", &[2, 8]);
    let s = d.op("s", "Relu", &[x], vec![]);
    let y = d.op("y", "Softmax", &[s], vec![]);
    let (before, after, _) = d.check(PASS, vec![y]);
    assert_eq!(before, after);

    // What is done to the result needs the rows that it would be made with: one side only.
    let mut d = Draft::new();
    let (x, row) = (d.input("x", &[2, 5, 8]), row(&mut d));
    let s = d.op("s", "Mul", &[x, row], vec![]);
    let n = d.op("n", "Softmax", &[s], vec![]);
    let y = d.op("y", "Add", &[n, s], vec![]);
    let (_, after, report) = d.check(PASS, vec![y]);
    assert_eq!((after.len(), report.fired), (2, 1), "{after:#?}");
    assert!(report.misses.is_empty() || report.misses[0].contains("needs its rows"), "{:?}", report.misses);
}

/// BERT's embeddings: three tables, two sums, a normalisation, which is one step with the sums.
#[test]
fn embeddings_are_summed_and_normalised_at_once() {
    let mut d = Draft::new();
    let table = |d: &mut Draft, name: &str, at: &[i64], axes: &[&str], shape: &[usize]| {
        let dims = axes.iter().zip(shape).map(|(a, &n)| if a.is_empty() { Dim::of(n) } else { Dim::symbol(a) });
        d.inputs.push(Value::Tensor(Tensor::from_slice(shape, at).unwrap()));
        let ids = d.b.input(&format!("{name}.ids"), Fact::tensor(DType::I64, dims.collect()));
        let rows = d.constant(name, &[7, 8], -1.0, 1.0);
        d.op(&format!("{name}.rows"), "Gather", &[rows, ids], vec![])
    };
    let words = table(&mut d, "words", &[3, 1, 4, 1, 5, 0], &["batch", "seq"], &[2, 3]);
    let segments = table(&mut d, "segments", &[0, 0, 1, 1, 1, 0], &["batch", "seq"], &[2, 3]);
    let places = table(&mut d, "places", &[0, 1, 2], &["", "seq"], &[1, 3]);
    let s = d.op("s", "Add", &[words, segments], vec![]);
    let s = d.op("t", "Add", &[s, places], vec![]);
    let [w, b] = lists(&mut d, 8);
    let y = d.op("y", "LayerNormalization", &[s, w, b], vec![]);
    let before = d.b.finish(vec![y]).unwrap();
    let mut after = before.clone();
    let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
    optimize(&mut after, &cpu, &Serial, &Options { strict: true, ..Options::default() }).unwrap();
    let after_lines = lines(&after);
    assert_eq!(after_lines.len(), 4, "{after_lines:#?}");
    let last = after_lines.last().unwrap();
    assert!(
        last.starts_with("y = FusedLayerNormalization(%words.rows, %segments.rows, %places.rows, #w, #b)"),
        "{last}"
    );
    let run = |g: Graph| run_graph(g, cpu_at(Isa::detect()), &d.inputs).unwrap();
    close(&run(before)[0], &run(after)[0], 1e-5, 1e-5).unwrap();
}
