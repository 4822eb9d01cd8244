//! Sizes that only a run tells: what follows them is right, planned once for each size, and allocates nothing when a size
//! comes again.

use crate::alone;
use crate::tiny::Tiny;
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};

const F32: i32 = 1;
const I64: i32 = 7;
const BOOL: i32 = 9;

/// The most elements that the models here take.
const MOST: usize = 60;

type Feed = fn(usize) -> Vec<Value>;
type Expect = fn(usize) -> Vec<Vec<f64>>;

struct Case {
    name: &'static str,
    model: Tiny,
    /// Inputs that make a size.
    feed: Feed,
    /// The elements of each output.
    expect: Expect,
    /// How many segments a size needs beyond the first.
    each: usize,
}

fn floats(shape: &[usize], data: impl Iterator<Item = f32>) -> Value {
    Value::Tensor(Tensor::from_slice(shape, &data.collect::<Vec<_>>()).unwrap())
}

fn ints(shape: &[usize], data: &[i64]) -> Value {
    Value::Tensor(Tensor::from_slice(shape, data).unwrap())
}

/// A list of which `n` elements are not zero: 1, 2, 3...
fn some(n: usize) -> Vec<Value> {
    vec![floats(&[MOST], (0..MOST).map(|i| if i < n { i as f32 + 1.0 } else { 0.0 }))]
}

fn up_to(n: usize, f: impl Fn(usize) -> f64) -> Vec<f64> {
    (1..=n).map(f).collect()
}

/// Boxes that lie apart, of which `n` score more than the rest; the rest score too little.
fn boxes(n: usize) -> Vec<Value> {
    let side = |i: usize| [i as f32, 0.0, i as f32 + 0.5, 1.0];
    let scores = (0..MOST).map(|i| if i < n { 0.9 - i as f32 / 100.0 } else { 0.1 });
    vec![floats(&[1, MOST, 4], (0..MOST).flat_map(side)), floats(&[1, 1, MOST], scores)]
}

fn mask(n: usize) -> Vec<Value> {
    let on: Vec<bool> = (0..MOST).map(|i| i < n).collect();
    let on = Tensor::from_slice(&[MOST], &on).unwrap();
    vec![floats(&[MOST, 2], (0..2 * MOST).map(|i| i as f32)), Value::Tensor(on)]
}

fn nonzero() -> Tiny {
    Tiny::new("nonzero")
        .input("x", F32, &["60"])
        .node("NonZero", &["x"], &["at"])
        .node("Transpose", &["at"], &["at1"])
        .ints("perm", &[1, 0])
        .node("GatherND", &["x", "at1"], &["kept"])
        .node("Mul", &["kept", "kept"], &["y"])
        .output("y")
}

fn suppression() -> Tiny {
    Tiny::new("boxes")
        .input("boxes", F32, &["1", "60", "4"])
        .input("scores", F32, &["1", "1", "60"])
        .numbers("most", &[1], &[100])
        .constant("overlap", &[1], &[0.5])
        .constant("lowest", &[1], &[0.2])
        .numbers("two", &[], &[2])
        .numbers("zero", &[1], &[0])
        .node("NonMaxSuppression", &["boxes", "scores", "most", "overlap", "lowest"], &["found"])
        .node("Gather", &["found", "two"], &["which"])
        .int("axis", 1)
        .node("Squeeze", &["boxes", "zero"], &["flat"])
        .node("Gather", &["flat", "which"], &["kept"])
        .node("ReduceSum", &["kept", "axis"], &["y"])
        .int("keepdims", 0)
        .numbers("axis", &[1], &[1])
        .output("y")
}

fn distinct() -> Tiny {
    Tiny::new("unique")
        .input("x", F32, &["60"])
        .node("Unique", &["x"], &["y", "first", "which", "count"])
        .node("Add", &["y", "y"], &["twice"])
        .node("Cast", &["count"], &["counts"])
        .int("to", 1)
        .node("Mul", &["twice", "counts"], &["z"])
        .output("z")
        .output("which")
}

fn compress() -> Tiny {
    Tiny::new("compress")
        .input("x", F32, &["60", "2"])
        .input("on", BOOL, &["60"])
        .node("Compress", &["x", "on"], &["kept"])
        .int("axis", 0)
        .node("MatMul", &["kept", "w"], &["y"])
        .constant("w", &[2, 1], &[1.0, 10.0])
        .output("y")
}

/// A size as an input: TopK, Range, ConstantOfShape and Expand.
fn sized() -> Tiny {
    Tiny::new("sized")
        .input("x", F32, &["60"])
        .input("n", I64, &["1"])
        .constant("zero", &[], &[0.0])
        .constant("one", &[], &[1.0])
        .node("TopK", &["x", "n"], &["best", "places"])
        .node("Neg", &["best"], &["worst"])
        .node("Cast", &["n"], &["limit1"])
        .int("to", 1)
        .node("Squeeze", &["limit1"], &["limit"])
        .node("Range", &["zero", "limit", "one"], &["range"])
        .node("Mul", &["range", "range"], &["squares"])
        .node("ConstantOfShape", &["n"], &["zeros"])
        .node("Add", &["zeros", "one"], &["ones"])
        .node("Expand", &["one", "n"], &["more"])
        .node("Add", &["more", "ones"], &["twos"])
        .output("worst")
        .output("squares")
        .output("twos")
}

/// A branch whose size the data tells.
fn branch() -> Tiny {
    let branch = |y: &str, op: &str| {
        let at = format!("{y}_at");
        Tiny::new(y)
            .node("NonZero", &["x"], &[&at])
            .node("Cast", &[&at], &[&format!("{y}_f")])
            .int("to", 1)
            .node(op, &[&format!("{y}_f")], &[y])
            .output(y)
    };
    Tiny::new("branch")
        .input("x", F32, &["60"])
        .node("ReduceSum", &["x"], &["sum"])
        .int("keepdims", 0)
        .constant("limit", &[], &[20.0])
        .node("Less", &["sum", "limit"], &["few"])
        .node("If", &["few"], &["places"])
        .graph("then_branch", branch("negative", "Neg"))
        .graph("else_branch", branch("same", "Abs"))
        .node("Add", &["places", "places"], &["y"])
        .output("y")
}

/// Three rounds of `s = s + sum of the squares of what is not zero`, each behind NonZero and GatherND in the body.
fn rounds() -> Tiny {
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", BOOL, &[])
        .input("s", F32, &[])
        .node("Identity", &["go"], &["go_on"])
        .node("NonZero", &["x"], &["at"])
        .node("Transpose", &["at"], &["at1"])
        .ints("perm", &[1, 0])
        .node("GatherND", &["x", "at1"], &["kept"])
        .node("Mul", &["kept", "kept"], &["square"])
        .node("ReduceSum", &["square"], &["sum"])
        .int("keepdims", 0)
        .node("Add", &["s", "sum"], &["s1"])
        .output("go_on")
        .output("s1")
        .output("square");
    Tiny::new("rounds")
        .input("x", F32, &["60"])
        .numbers("three", &[], &[3])
        .constant("start", &[], &[0.0])
        .node("Loop", &["three", "", "start"], &["last", "all"])
        .graph("body", body)
        .output("last")
        .output("all")
}

/// For each of two rows how many distinct elements it has, by Unique in the body of a Scan.
fn counted() -> Tiny {
    let body = Tiny::new("body")
        .input("row", F32, &["30"])
        .node("Unique", &["row"], &["y"])
        .node("Mul", &["y", "y"], &["squares"])
        .node("ReduceSum", &["squares"], &["sum"])
        .int("keepdims", 0)
        .output("sum");
    Tiny::new("counted")
        .input("x", F32, &["60"])
        .numbers("shape", &[2], &[2, 30])
        .node("Reshape", &["x", "shape"], &["rows"])
        .node("Scan", &["rows"], &["y"])
        .int("num_scan_inputs", 1)
        .graph("body", body)
        .output("y")
}

fn squares(n: usize) -> f64 {
    up_to(n, |i| (i * i) as f64).iter().sum()
}

fn cases() -> Vec<Case> {
    let with_size = |n: usize| {
        let mut all = some(MOST);
        all.push(ints(&[1], &[n as i64]));
        all
    };
    let list = |n: usize| {
        vec![up_to(n, |i| i as f64 - (MOST + 1) as f64), up_to(n, |i| ((i - 1) * (i - 1)) as f64), vec![2.0; n]]
    };
    let repeats = |n: usize| {
        // n distinct elements; the last of them as often as there is room.
        vec![floats(&[MOST], (0..MOST).map(|i| i.min(n - 1) as f32))]
    };
    let repeated = |n: usize| {
        let times = |i: usize| if i + 1 == n { MOST - i } else { 1 };
        let which = (0..MOST).map(|i| i.min(n - 1) as f64).collect();
        vec![(0..n).map(|i| (2 * i * times(i)) as f64).collect(), which]
    };
    let sums = |n: usize| {
        let half = |from: usize| (from + 1..=n).take(30).map(|i| (i * i) as f64).sum();
        vec![vec![half(0), half(30)]]
    };
    let case = |name, model, feed: Feed, expect: Expect, each| Case { name, model, feed, expect, each };
    vec![
        case("NonZero", nonzero(), some, |n| vec![up_to(n, |i| (i * i) as f64)], 1),
        case("NonMaxSuppression", suppression(), boxes, |n| vec![up_to(n, |i| 2.0 * i as f64 - 0.5)], 1),
        case("Unique", distinct(), repeats, repeated, 1),
        case("Compress", compress(), mask, |n| vec![up_to(n, |i| (2 * (i - 1) + 10 * (2 * (i - 1) + 1)) as f64)], 1),
        case("sizes as inputs", sized(), with_size, list, 2),
        case("If", branch(), some, |n| vec![up_to(n, |i| if n < 6 { -2.0 } else { 2.0 } * (i - 1) as f64)], 3),
        case("Loop", rounds(), some, |n| vec![vec![3.0 * squares(n)], up_to(3 * n, |_| 0.0)], 1),
        case("Scan", counted(), some, sums, 2),
    ]
}

fn session(model: Tiny) -> Session {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(model.bytes().into(), None), &options).unwrap()
}

fn run(s: &Session, inputs: &[Value], outputs: &mut [Option<Value>]) {
    s.run_values(inputs, outputs, &RunOptions::default()).unwrap();
}

fn elements(v: &Option<Value>) -> Vec<f64> {
    let t = v.as_ref().unwrap().as_tensor().unwrap();
    match t.dtype() {
        DType::F32 => t.as_slice::<f32>().unwrap().iter().map(|&x| f64::from(x)).collect(),
        _ => t.to_i64s().unwrap().into_iter().map(|x| x as f64).collect(),
    }
}

const SIZES: [usize; 6] = [3, 7, 1, 40, 7, 3];

#[test]
fn sizes_told_by_data_are_planned_once() {
    for c in cases() {
        let s = session(c.model);
        let mut made = Vec::new();
        for _ in 0..3 {
            for n in SIZES {
                let mut outputs = vec![None; s.outputs().len()];
                run(&s, &(c.feed)(n), &mut outputs);
                let (got, mut want) = (outputs.iter().map(elements).collect::<Vec<_>>(), (c.expect)(n));
                if c.name == "Loop" {
                    // The same squares in each round.
                    want[1] = up_to(n, |i| (i * i) as f64).repeat(3);
                }
                assert_eq!(got, want, "{} of {n}", c.name);
            }
            made.push(s.program().segments_made());
        }
        println!("{}: {made:?} segments after each round of {SIZES:?}", c.name);
        assert!(made.iter().all(|m| *m == made[0]), "{}: {made:?} segments after each round", c.name);
        // Four sizes, and the first segments of the graph and its subgraphs.
        assert!(made[0] <= 3 + 4 * c.each, "{}: {made:?} segments for 4 sizes", c.name);
    }
}

#[test]
fn sizes_met_before_allocate_nothing() {
    alone::alone("segments::sizes_met_before_allocate_nothing", count, String::new);
}

fn count() {
    for c in cases() {
        let s = session(c.model);
        let mut sizes: Vec<_> = SIZES[..4].iter().map(|&n| ((c.feed)(n), vec![None; s.outputs().len()])).collect();
        let mut all = || sizes.iter_mut().for_each(|(inputs, outputs)| run(&s, inputs, outputs));
        (0..4).for_each(|_| all());
        let (calls, live) = (alone::calls(), alone::live());
        (0..5).for_each(|_| all());
        assert_eq!((alone::calls() - calls, alone::live() - live), (0, 0), "{}: allocations and bytes", c.name);
    }
}
