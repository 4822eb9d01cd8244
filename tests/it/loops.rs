//! Loop, Scan and If: one plan and one memory for all iterations, counted, and that the numbers are right.

use crate::alone;
use crate::tiny::Tiny;
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};

const F32: i32 = 1;
const I64: i32 = 7;

fn session(model: Tiny) -> Session {
    opened(model.bytes())
}

fn opened(model: Vec<u8>) -> Session {
    let options = SessionOptions { threads: 1, ..SessionOptions::default() };
    Session::new(&Environment::new(), ModelSource::Bytes(model.into(), None), &options).unwrap()
}

fn floats(shape: &[usize], data: &[f32]) -> Value {
    Value::Tensor(Tensor::from_slice(shape, data).unwrap())
}

fn number(n: usize) -> Value {
    Value::Tensor(Tensor::scalar(n as i64).unwrap())
}

fn run(s: &Session, inputs: &[Value], outputs: &mut [Option<Value>]) {
    s.run_values(inputs, outputs, &RunOptions::default()).unwrap();
}

fn data(v: &Option<Value>) -> (Vec<usize>, Vec<f32>) {
    let t = v.as_ref().unwrap().as_tensor().unwrap();
    (t.shape().to_vec(), t.as_slice::<f32>().unwrap().to_vec())
}

/// `s = s + w`, with `s * s` of each iteration kept; the body takes `w` from outside.
fn sums() -> Tiny {
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["4"])
        .node("Identity", &["go"], &["go_on"])
        .node("Add", &["s", "w1"], &["s1"])
        .node("Mul", &["s1", "s1"], &["square"])
        .output("go_on")
        .output("s1")
        .output("square");
    Tiny::new("sums")
        .input("n", I64, &[])
        .input("s0", F32, &["4"])
        .input("w", F32, &["4"])
        .node("Neg", &["w"], &["w1"])
        .node("Loop", &["n", "", "s0"], &["last", "squares"])
        .graph("body", body)
        .output("last")
        .output("squares")
}

/// Running sums along an axis, from the end if `reversed`, put in reverse order too.
fn scan(axis: i64, reversed: i64) -> Tiny {
    let body = Tiny::new("body")
        .input("s", F32, &["4"])
        .input("x", F32, &["4"])
        .node("Add", &["s", "x"], &["s1"])
        .node("Neg", &["s1"], &["y"])
        .output("s1")
        .output("y");
    let shape: &[&str] = if axis == 0 { &["n", "4"] } else { &["4", "n"] };
    Tiny::new("scan")
        .input("s0", F32, &["4"])
        .input("xs", F32, shape)
        .node("Scan", &["s0", "xs"], &["last", "ys"])
        .int("num_scan_inputs", 1)
        .ints("scan_input_axes", &[axis])
        .ints("scan_output_axes", &[axis])
        .ints("scan_input_directions", &[reversed])
        .ints("scan_output_directions", &[reversed])
        .graph("body", body)
        .output("last")
        .output("ys")
}

/// Three rounds of `t = t * h + i` within each of `n` rounds, whose results are kept.
fn nested() -> Tiny {
    let inner = Tiny::new("inner")
        .input("j", I64, &[])
        .input("go_j", 9, &[])
        .input("t", F32, &["4"])
        .node("Identity", &["go_j"], &["go_on_j"])
        .node("Mul", &["t", "half"], &["t0"])
        .node("Add", &["t0", "fi"], &["t1"])
        .node("Identity", &["t1"], &["kept_t"])
        .output("go_on_j")
        .output("t1")
        .output("kept_t");
    let outer = Tiny::new("outer")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["4"])
        .node("Identity", &["go"], &["go_on"])
        .node("Cast", &["i"], &["fi"])
        .int("to", 1)
        .node("Loop", &["three", "", "s"], &["s1", "all"])
        .graph("body", inner)
        .node("ReduceSum", &["all", "zero"], &["sum"])
        .int("keepdims", 0)
        .output("go_on")
        .output("s1")
        .output("sum");
    Tiny::new("nested")
        .input("n", I64, &[])
        .input("s0", F32, &["4"])
        .numbers("three", &[], &[3])
        .numbers("zero", &[1], &[0])
        .constant("half", &[], &[0.5])
        .node("Loop", &["n", "", "s0"], &["last", "sums"])
        .graph("body", outer)
        .output("last")
        .output("sums")
}

/// `s = s + w` in even rounds, `s = s * w` in odd ones.
fn branches() -> Tiny {
    let branch = |op: &str, y: &str| Tiny::new(y).node(op, &["s", "w"], &[y]).output(y);
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["4"])
        .node("Identity", &["go"], &["go_on"])
        .node("Mod", &["i", "two"], &["odd"])
        .node("Cast", &["odd"], &["is_odd"])
        .int("to", 9)
        .node("If", &["is_odd"], &["s1"])
        .graph("then_branch", branch("Mul", "times"))
        .graph("else_branch", branch("Add", "plus"))
        .output("go_on")
        .output("s1");
    Tiny::new("branches")
        .input("n", I64, &[])
        .input("s0", F32, &["4"])
        .input("w", F32, &["4"])
        .numbers("two", &[], &[2])
        .node("Loop", &["n", "", "s0"], &["last"])
        .graph("body", body)
        .output("last")
}

/// `s = s + x` along both items of a batch, by a Scan of version 8; the second is one shorter.
fn batched() -> Vec<u8> {
    let body = Tiny::new("body")
        .input("s", F32, &["4"])
        .input("x", F32, &["4"])
        .node("Add", &["s", "x"], &["s1"])
        .node("Identity", &["s1"], &["y"])
        .output("s1")
        .output("y");
    let model = Tiny::new("batched")
        .input("lengths", I64, &["2"])
        .input("s0", F32, &["2", "4"])
        .input("xs", F32, &["2", "n", "4"])
        .node("Scan", &["lengths", "s0", "xs"], &["last", "ys"])
        .int("num_scan_inputs", 1)
        .graph("body", body)
        .output("last")
        .output("ys");
    let mut model = model.model();
    model.opset_import[0].version = Some(8);
    prost::Message::encode_to_vec(&model)
}

fn batch(n: usize) -> Vec<Value> {
    let lengths = Tensor::from_slice(&[2], &[n as i64, n as i64 - 1]).unwrap();
    let xs: Vec<f32> = (0..8 * n).map(|i| (i % 13) as f32).collect();
    vec![Value::Tensor(lengths), floats(&[2, 4], &[0.0; 8]), floats(&[2, n, 4], &xs)]
}

/// `s = s + f(w)` by operators without a planned kernel: their results have sizes that the data tells, the same each time.
fn found() -> Tiny {
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["4"])
        .node("Identity", &["go"], &["go_on"])
        .node("NonZero", &["s"], &["at"])
        .node("Cast", &["at"], &["places"])
        .int("to", 1)
        .node("Greater", &["w", "w0"], &["on"])
        .node("Compress", &["w", "on"], &["some"])
        .node("ReduceSum", &["some"], &["sum"])
        .node("Unique", &["w"], &["different", "first", "which", "count"])
        .node("Mul", &["different", "sum"], &["more"])
        .node("Add", &["more", "s"], &["s1"])
        .output("go_on")
        .output("s1")
        .output("places")
        .output("count");
    Tiny::new("found")
        .input("n", I64, &[])
        .input("s0", F32, &["4"])
        .input("w", F32, &["4"])
        .constant("w0", &[], &[0.0])
        .node("Loop", &["n", "", "s0"], &["last", "all", "counts"])
        .graph("body", body)
        .output("last")
        .output("all")
        .output("counts")
}

/// A state that goes through operators of classic machine learning.
fn classic() -> Vec<u8> {
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["1", "4"])
        .node("Identity", &["go"], &["go_on"])
        .node("Scaler", &["s"], &["scaled"])
        .ml()
        .floats("offset", &[0.25])
        .floats("scale", &[0.5, 1.0, 1.5, 2.0])
        .node("Normalizer", &["scaled"], &["unit"])
        .ml()
        .text("norm", "L2")
        .node("Imputer", &["unit"], &["x"])
        .ml()
        .floats("imputed_value_floats", &[1.0])
        .node("LinearClassifier", &["x"], &["class", "scores"])
        .ml()
        .floats("coefficients", &[1.0, 0.5, -0.5, 0.25, -1.0, 0.75, 0.5, 0.125, 0.25, -0.5, 1.0, -0.25])
        .floats("intercepts", &[0.1, 0.2, 0.3])
        .ints("classlabels_ints", &[4, 5, 6])
        .node("LabelEncoder", &["class"], &["number"])
        .ml()
        .ints("keys_int64s", &[4, 5, 6])
        .floats("values_floats", &[0.4, 0.5, 0.6])
        .node("OneHotEncoder", &["class"], &["hot"])
        .ml()
        .ints("cats_int64s", &[4, 5, 6])
        .node("Squeeze", &["hot"], &["row"])
        .node("Unsqueeze", &["row", "zero"], &["row1"])
        .node("ArrayFeatureExtractor", &["scores", "places"], &["two"])
        .ml()
        .node("Binarizer", &["x"], &["signs"])
        .ml()
        .node("FeatureVectorizer", &["number", "row1"], &["features"])
        .ml()
        .ints("inputdimensions", &[1, 3])
        .node("Add", &["features", "signs"], &["s1"])
        .output("go_on")
        .output("s1")
        .output("two");
    let model = Tiny::new("classic")
        .input("n", I64, &[])
        .input("s0", F32, &["1", "4"])
        .numbers("zero", &[1], &[0])
        .numbers("places", &[2], &[2, 0])
        .node("Loop", &["n", "", "s0"], &["last", "all"])
        .graph("body", body)
        .output("last")
        .output("all");
    let mut model = model.model();
    let ml = ortx::proto::onnx::OperatorSetIdProto { domain: Some("ai.onnx.ml".into()), version: Some(3) };
    model.opset_import.push(ml);
    prost::Message::encode_to_vec(&model)
}

#[test]
fn iterations_allocate_nothing() {
    alone::alone("loops::iterations_allocate_nothing", count, String::new);
}

fn count() {
    let s0 = || floats(&[4], &[0.1, 0.2, 0.3, 0.4]);
    let w = || floats(&[4], &[0.9, -0.8, 0.7, -0.6]);
    let xs = |n: usize, axis: i64| floats(&if axis == 0 { [n, 4] } else { [4, n] }, &vec![0.5; 4 * n]);
    type Inputs = Box<dyn Fn(usize) -> Vec<Value>>;
    let cases: Vec<(&str, Tiny, Inputs)> = vec![
        ("eager operators", found(), Box::new(move |n| vec![number(n), s0(), w()])),
        ("loop", sums(), Box::new(move |n| vec![number(n), s0(), w()])),
        ("scan", scan(0, 0), Box::new(move |n| vec![s0(), xs(n, 0)])),
        ("scan backwards", scan(0, 1), Box::new(move |n| vec![s0(), xs(n, 0)])),
        ("scan of columns", scan(1, 1), Box::new(move |n| vec![s0(), xs(n, 1)])),
        ("nested", nested(), Box::new(move |n| vec![number(n), s0()])),
        ("branches", branches(), Box::new(move |n| vec![number(n), s0(), w()])),
    ];
    let cases = cases.into_iter().map(|(what, model, inputs)| (what, model.bytes(), inputs));
    let state = |n: usize| vec![number(n), floats(&[1, 4], &[0.1, 0.2, 0.3, 0.4])];
    let more: [(_, _, Inputs); 2] =
        [("scan of version 8", batched(), Box::new(batch)), ("classic", classic(), Box::new(state))];
    for (what, model, inputs) in cases.chain(more) {
        let s = opened(model);
        let counted = |n: usize| {
            let inputs = inputs(n);
            let mut outputs = vec![None; s.outputs().len()];
            (0..4).for_each(|_| run(&s, &inputs, &mut outputs));
            let (calls, live) = (alone::calls(), alone::live());
            run(&s, &inputs, &mut outputs);
            (alone::calls() - calls, alone::live() - live)
        };
        let (few, many) = (counted(10), counted(1000));
        println!("{what}: {few:?} with 10 iterations, {many:?} with 1000");
        assert_eq!(few, many, "{what}: allocations and bytes with 10 iterations, and with 1000");
    }
}

/// Each model twice in one session, so that the second run meets the memory of the first; sizes change in between.
fn twice(s: &Session, inputs: &[Value]) -> Vec<(Vec<usize>, Vec<f32>)> {
    let mut outputs = vec![None; s.outputs().len()];
    run(s, inputs, &mut outputs);
    let first: Vec<_> = outputs.iter().map(data).collect();
    let (mut again, mut fresh) = (outputs, vec![None; s.outputs().len()]);
    run(s, inputs, &mut again);
    run(s, inputs, &mut fresh);
    assert_eq!(again.iter().map(data).collect::<Vec<_>>(), first);
    assert_eq!(fresh.iter().map(data).collect::<Vec<_>>(), first);
    first
}

#[test]
fn loops_and_scans_are_right() {
    let (s0, w) = ([1f32, 2.0, 3.0, 4.0], [1f32, -1.0, 0.5, 0.25]);
    let s = session(sums());
    for n in [3, 0, 1, 40, 2] {
        let (mut state, mut squares) = (s0, Vec::new());
        for _ in 0..n {
            state = std::array::from_fn(|k| state[k] - w[k]);
            squares.extend(state.map(|x| x * x));
        }
        let out = twice(&s, &[number(n), floats(&[4], &s0), floats(&[4], &w)]);
        assert_eq!(out, [(vec![4], state.to_vec()), (vec![n, 4], squares)], "{n} rounds");
    }
    for (axis, reversed) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        let s = session(scan(axis, reversed));
        for n in [5usize, 1, 9] {
            let x = |i: usize, k: usize| (i * 4 + k) as f32;
            let place = |i: usize, k: usize| if axis == 0 { i * 4 + k } else { k * n + i };
            let (mut xs, mut ys, mut state) = (vec![0.0; 4 * n], vec![0.0; 4 * n], s0);
            (0..4 * n).for_each(|j| xs[place(j / 4, j % 4)] = x(j / 4, j % 4));
            for i in 0..n {
                let at = if reversed == 1 { n - 1 - i } else { i };
                state = std::array::from_fn(|k| state[k] + x(at, k));
                (0..4).for_each(|k| ys[place(at, k)] = -state[k]);
            }
            let shape = if axis == 0 { vec![n, 4] } else { vec![4, n] };
            let out = twice(&s, &[floats(&[4], &s0), floats(&shape, &xs)]);
            assert_eq!(out, [(vec![4], state.to_vec()), (shape, ys)], "{n} along {axis}, reversed {reversed}");
        }
    }
    // Elements of nothing.
    let body = Tiny::new("body")
        .input("s", 11, &["0", "2"])
        .input("x", 11, &["0", "2"])
        .node("Add", &["s", "x"], &["s1"])
        .node("Neg", &["s1"], &["y"])
        .output("s1")
        .output("y");
    let model = Tiny::new("empty")
        .input("s0", 11, &["0", "2"])
        .input("xs", 11, &["n", "0", "2"])
        .node("Scan", &["s0", "xs"], &["last", "ys"])
        .int("num_scan_inputs", 1)
        .graph("body", body)
        .output("last")
        .output("ys");
    let nothing = |shape: &[usize]| Value::Tensor(Tensor::zeroed(ortx::DType::F64, shape).unwrap());
    let (s, mut outputs) = (session(model), [None, None]);
    run(&s, &[nothing(&[0, 2]), nothing(&[3, 0, 2])], &mut outputs);
    assert_eq!(outputs[1].as_ref().unwrap().as_tensor().unwrap().shape(), [3, 0, 2]);
    let s = session(nested());
    for n in [2usize, 0, 5] {
        let (mut state, mut sums) = (s0, Vec::new());
        for i in 0..n {
            let mut sum = [0f32; 4];
            for _ in 0..3 {
                state = state.map(|t| t * 0.5 + i as f32);
                sum = std::array::from_fn(|k| sum[k] + state[k]);
            }
            sums.extend(sum);
        }
        let out = twice(&s, &[number(n), floats(&[4], &s0)]);
        assert_eq!(out[0], (vec![4], state.to_vec()), "{n} rounds");
        assert_eq!(out[1].1, sums, "{n} rounds");
    }
    let s = session(branches());
    for n in [1usize, 2, 7] {
        let step = |s: [f32; 4], i: usize| std::array::from_fn(|k| if i % 2 == 1 { s[k] * w[k] } else { s[k] + w[k] });
        let state = (0..n).fold(s0, step);
        assert_eq!(twice(&s, &[number(n), floats(&[4], &s0), floats(&[4], &w)]), [(vec![4], state.to_vec())]);
    }
}

/// A state that grows by one element a round, kept as a whole in the end; and a loop that only the data ends.
#[test]
fn states_may_grow_and_data_may_end_a_loop() {
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &["?"])
        .node("Identity", &["go"], &["go_on"])
        .node("Concat", &["s", "one"], &["s1"])
        .int("axis", 0)
        .output("go_on")
        .output("s1");
    let model = Tiny::new("grows")
        .input("n", I64, &[])
        .input("s0", F32, &["?"])
        .constant("one", &[1], &[1.0])
        .node("Loop", &["n", "", "s0"], &["y"])
        .graph("body", body)
        .output("y");
    let s = session(model);
    for n in [3, 0, 50] {
        let want = [vec![7.0, 8.0], vec![1.0; n]].concat();
        assert_eq!(twice(&s, &[number(n), floats(&[2], &[7.0, 8.0])]), [(vec![n + 2], want)]);
    }
    // Doubled until it passes the limit; each value is kept, also with a trip count that is never reached.
    let body = Tiny::new("body")
        .input("i", I64, &[])
        .input("go", 9, &[])
        .input("s", F32, &[])
        .node("Add", &["s", "step"], &["s1"])
        .node("Less", &["s1", "limit"], &["go_on"])
        .node("Neg", &["s1"], &["y"])
        .output("go_on")
        .output("s1")
        .output("y");
    let model = |trips: &str| {
        Tiny::new("until")
            .input("n", I64, &[])
            .input("limit", F32, &[])
            .constant("step", &[], &[1.0])
            .constant("zero", &[], &[0.0])
            .node("Loop", &[trips, "", "zero"], &["last", "all"])
            .graph("body", body.clone())
            .node("Identity", &["n"], &["n1"])
            .output("last")
            .output("all")
    };
    for trips in ["", "n"] {
        let s = session(model(trips));
        for n in [1usize, 16, 17, 100, 5] {
            let want: Vec<f32> = (1..=n).map(|i| -(i as f32)).collect();
            let out = twice(&s, &[number(1 << 40), floats(&[], &[n as f32])]);
            assert_eq!(out, [(vec![], vec![n as f32]), (vec![n], want)]);
        }
    }
}

#[test]
fn batches_of_scans_are_right() {
    let s = opened(batched());
    for n in [1usize, 2, 5, 2] {
        let x = |b: usize, i: usize, k: usize| (((b * n + i) * 4 + k) % 13) as f32;
        let (mut last, mut ys) = (vec![0.0; 8], vec![0.0; 8 * n]);
        for b in 0..2 {
            for i in 0..n - b {
                for k in 0..4 {
                    last[b * 4 + k] += x(b, i, k);
                    ys[(b * n + i) * 4 + k] = last[b * 4 + k];
                }
            }
        }
        assert_eq!(twice(&s, &batch(n)), [(vec![2, 4], last), (vec![2, n, 4], ys)], "{n} elements");
    }
}

/// What the body does not tell of a scan output that no iteration made has a size of 0, as in onnxruntime 1.32.
#[test]
fn no_iteration_gives_what_the_body_tells() {
    // What the body's output says of itself, and the result's shape.
    let cases: [(Option<&[&str]>, &[usize]); 5] = [
        (None, &[0]),
        (Some(&[]), &[0]),
        (Some(&["a", "7"]), &[0, 0, 7]),
        (Some(&["?", "?"]), &[0, 0, 0]),
        (Some(&["3", "7"]), &[0, 3, 7]),
    ];
    for (declared, want) in cases {
        let mut body = Tiny::new("body").input("i", I64, &[]).input("go", 9, &[]).input("s", F32, &[]);
        // A state of any shape.
        body.0.input[2].r#type = None;
        let body = body.node("Identity", &["go"], &["go_on"]).node("Identity", &["s"], &["s1"]);
        let body = body.node("Neg", &["s"], &["y"]).output("go_on").output("s1");
        let body = match declared {
            Some(dims) => body.output_of("y", F32, dims),
            None => body.output("y"),
        };
        let model = Tiny::new("none")
            .input("n", I64, &[])
            .input("x", F32, &["N", "7"])
            .node("Loop", &["n", "", "x"], &["last", "ys"])
            .graph("body", body)
            .output("ys");
        let out = twice(&session(model), &[number(0), floats(&[3, 7], &[0.5; 21])]);
        assert_eq!(out, [(want.to_vec(), vec![])], "{declared:?}");
    }
}
