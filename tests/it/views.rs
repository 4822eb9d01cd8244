//! Slices, splits and joins that are no work: which tensors share memory in a plan, which do not, and that the numbers are
//! right either way.

use crate::tiny::Tiny;
use ortx::base::parallel::Serial;
use ortx::plan::{Item, Segment, Slot, SlotKind};
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::sync::Arc;

const F32: i32 = 1;

struct Case {
    session: Session,
    inputs: Vec<Value>,
}

/// The model as it is written, no pass over it, with inputs of 1, 2, 3, ...
fn case(model: Tiny, shapes: &[&[usize]]) -> Case {
    let options = SessionOptions { threads: 2, optimize: false, ..SessionOptions::default() };
    let session = Session::new(&Environment::new(), ModelSource::Bytes(model.bytes().into(), None), &options).unwrap();
    let inputs = shapes.iter().map(|s| Value::Tensor(Tensor::from_slice(s, &counting(s.iter().product())).unwrap()));
    Case { session, inputs: inputs.collect() }
}

fn counting(n: usize) -> Vec<f32> {
    (1..=n).map(|i| i as f32).collect()
}

impl Case {
    fn plan(&self) -> Arc<Segment> {
        self.session.program().first_segment(&self.inputs, &Serial).unwrap()
    }
    /// What runs, by name.
    fn kernels(&self) -> Vec<String> {
        self.plan().items.iter().map(|i| self.session.program().item_names(i).1.to_string()).collect()
    }
    fn has(&self, kernel: &str) -> bool {
        self.kernels().iter().any(|k| k == kernel)
    }
    fn run(&self) -> Vec<Vec<f32>> {
        let mut outputs = vec![None; self.session.outputs().len()];
        // Twice: the second run finds the memory as the first left it.
        for _ in 0..2 {
            self.session.run_values(&self.inputs, &mut outputs, &RunOptions::default()).unwrap();
        }
        let floats = |v: Option<Value>| v.unwrap().as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec();
        outputs.into_iter().map(floats).collect()
    }
    /// How many slots lie in the memory of another.
    fn shared(&self) -> usize {
        self.plan().slots.iter().filter(|s| s.within.is_some()).count()
    }
}

fn map(x: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
    x.iter().copied().map(f).collect()
}

#[test]
fn a_split_is_read_where_it_lies() {
    for (shape, axis, reads) in [([6, 4, 1], 0, true), ([1, 6, 4], 1, true), ([4, 1, 6], 2, false)] {
        let model = Tiny::new("split")
            .input("x", F32, &["?", "?", "?"])
            .node("Neg", &["x"], &["t"])
            .node("Split", &["t"], &["a", "b"])
            .int("axis", axis)
            .int("num_outputs", 2)
            .node("Relu", &["a"], &["c"])
            .node("Abs", &["b"], &["d"])
            .output("c")
            .output("d");
        let c = case(model, &[&shape]);
        assert_eq!(!c.has("split"), reads, "{shape:?}: {:?}", c.kernels());
        let half = |k: usize| match axis {
            2 => (0..4).flat_map(|r| (1..=3).map(move |i| (r * 6 + k * 3 + i) as f32)).collect(),
            _ => counting(24)[k * 12..][..12].to_vec(),
        };
        assert_eq!(c.run(), [vec![0.0; 12], half(1)]);
    }
}

/// `Slice` of an input, a constant, and what a step made, by starts and ends on axes, and `Gather` of one index.
#[test]
fn a_slice_is_read_where_it_lies() {
    let slice = |starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]| {
        let n = [starts.len() as i64];
        Tiny::new("slice")
            .input("x", F32, &["?", "?", "?"])
            .numbers("starts", &n, starts)
            .numbers("ends", &n, ends)
            .numbers("axes", &n, axes)
            .numbers("steps", &n, steps)
    };
    let cut = ["starts", "ends", "axes", "steps"];
    let end = i64::MAX;
    // [2, 3, 4] holds 1 to 24.
    let cases: [(&[i64], &[i64], &[i64], &[i64], bool, &[usize]); 8] = [
        (&[1], &[end], &[0], &[1], true, &[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
        (&[1, 1], &[2, end], &[0, 1], &[1, 1], true, &[16, 17, 18, 19, 20, 21, 22, 23]),
        (&[0, 2, 1], &[1, 3, 3], &[0, 1, 2], &[1, 1, 1], true, &[9, 10]),
        // One element: its step does not matter.
        (&[1, 0], &[-9, end], &[0, 1], &[-7, 1], true, &[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23]),
        (&[0, 0], &[1, end], &[0, 1], &[1, 2], false, &[0, 1, 2, 3, 8, 9, 10, 11]),
        (&[1], &[end], &[1], &[1], false, &[4, 5, 6, 7, 8, 9, 10, 11, 16, 17, 18, 19, 20, 21, 22, 23]),
        (&[3], &[end], &[2], &[1], false, &[3, 7, 11, 15, 19, 23]),
        (
            &[-1],
            &[-9],
            &[0],
            &[-1],
            false,
            &[12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        ),
    ];
    for (starts, ends, axes, steps, reads, want) in cases {
        let what = format!("{starts:?} {ends:?} {axes:?} {steps:?}");
        let [s, e, a, t] = cut;
        let model = slice(starts, ends, axes, steps);
        let of_input = model.clone().node("Slice", &["x", s, e, a, t], &["y"]).node("Neg", &["y"], &["z"]).output("z");
        let c = case(of_input, &[&[2, 3, 4]]);
        let want: Vec<f32> = want.iter().map(|&i| -1.0 - i as f32).collect();
        assert_eq!((!c.has("slice"), c.run()), (reads, vec![want.clone()]), "{what} of an input");

        // Of a step's result, which another step reads later: the memory is there anyway.
        let of_step = model
            .clone()
            .node("Neg", &["x"], &["n"])
            .node("Slice", &["n", s, e, a, t], &["y"])
            .node("Abs", &["y"], &["y1"])
            .node("Neg", &["y1"], &["z"])
            .node("Relu", &["n"], &["r"])
            .output("z")
            .output("r");
        let c = case(of_step, &[&[2, 3, 4]]);
        assert_eq!((!c.has("slice"), c.run()), (reads, vec![want, vec![0.0; 24]]), "{what} of a step");
    }
    // A constant too large to be folded.
    let data: Vec<f32> = counting(4096);
    let model = slice(&[3], &[35], &[0], &[1])
        .constant("table", &[64, 64], &data)
        .node("Slice", &["table", "starts", "ends", "axes", "steps"], &["part"])
        .node("Add", &["part", "x"], &["y"])
        .output("y");
    let c = case(model, &[&[1, 1, 1]]);
    assert_eq!(c.run(), [map(&data[3 * 64..35 * 64], |v| v + 1.0)]);
    // One index.
    for (index, axis, reads) in [(1, 0, true), (-1, 0, true), (1, 1, false)] {
        let model = Tiny::new("gather")
            .input("x", F32, &["?", "?", "?"])
            .numbers("i", &[], &[index])
            .node("Gather", &["x", "i"], &["y"])
            .int("axis", axis)
            .node("Neg", &["y"], &["z"])
            .output("z");
        let c = case(model, &[&[2, 3, 4]]);
        let want: Vec<usize> = if axis == 0 { (13..=24).collect() } else { vec![5, 6, 7, 8, 17, 18, 19, 20] };
        let want = want.into_iter().map(|v| -(v as f32)).collect();
        assert_eq!((!c.has("gather"), c.run()), (reads, vec![want]), "index {index}");
    }
}

/// A part that outlives a much larger whole is copied: the whole's memory is of more use to others.
#[test]
fn a_small_part_does_not_keep_a_large_whole() {
    let model = |rows: i64| {
        Tiny::new("row")
            .input("x", F32, &["8", "16"])
            .numbers("from", &[1], &[0])
            .numbers("to", &[1], &[rows])
            .node("Neg", &["x"], &["n"])
            .node("Slice", &["n", "from", "to"], &["y"])
            .node("Abs", &["y"], &["z"])
            .output("z")
    };
    for (rows, reads) in [(1, false), (3, false), (4, true), (7, true)] {
        let c = case(model(rows), &[&[8, 16]]);
        assert_eq!((!c.has("slice"), c.run()), (reads, vec![counting(16 * rows as usize)]), "{rows} rows");
    }
}

fn joined(axis: i64) -> Tiny {
    Tiny::new("joined")
        .input("x", F32, &["?", "?", "?"])
        .node("Neg", &["x"], &["n"])
        .node("Relu", &["x"], &["r"])
        .node("Concat", &["n", "r"], &["y"])
        .int("axis", axis)
}

#[test]
fn a_concat_is_made_in_place() {
    // Into the caller's memory, and into the arena.
    for more in [false, true] {
        for (shape, axis, writes) in [([2, 3, 4], 0, true), ([1, 6, 4], 1, true), ([2, 3, 4], 1, false)] {
            let model = joined(axis);
            let model = if more { model.node("Neg", &["y"], &["z"]).output("z") } else { model.output("y") };
            let c = case(model, &[&shape]);
            let sign = if more { -1.0 } else { 1.0 };
            let x = counting(24);
            let parts: Vec<&[f32]> = if writes { vec![&x] } else { x.chunks(12).collect() };
            let want = parts.iter().flat_map(|p| [map(p, |v| -v * sign), map(p, |v| v * sign)]).flatten().collect();
            assert_eq!((!c.has("concat"), c.run()), (writes, vec![want]), "{shape:?} {axis} {more}");
        }
    }
    // One within another, by way of a view.
    let model = joined(0)
        .numbers("flat", &[1], &[-1])
        .node("Reshape", &["y", "flat"], &["y1"])
        .node("Reshape", &["x", "flat"], &["x1"])
        .node("Abs", &["x1"], &["a"])
        .node("Concat", &["y1", "a", "y1"], &["z"])
        .int("axis", 0)
        .output("z");
    let c = case(model, &[&[2, 3, 4]]);
    let x = counting(24);
    let y = [map(&x, |v| -v), x.clone()].concat();
    assert_eq!(c.run(), [[y.clone(), x, y].concat()]);
    // The second y is copied, the rest is where it belongs.
    assert_eq!(c.kernels().iter().filter(|k| *k == "concat").count(), 1, "{:?}", c.kernels());
    assert!(c.plan().slots.iter().filter(|s| s.within.is_some()).count() >= 4);
}

/// Inputs that have other work to do are copied, the others are in place all the same.
#[test]
fn what_cannot_be_made_in_place_is_copied() {
    let base = || {
        Tiny::new("copied").input("x", F32, &["?", "?"]).weights("w", &[1, 4]).node("Neg", &["x"], &["n"]).node(
            "Abs",
            &["x"],
            &["a"],
        )
    };
    let concat = |t: Tiny, inputs: &[&str], y: &str| t.node("Concat", inputs, &[y]).int("axis", 0);
    let x = counting(8);
    let n = map(&x, |v| -v);
    let w: Vec<f32> = (0..4).map(|i| ((i * 37 + 11) % 101) as f32 / 200.0 - 0.25).collect();
    let both = |a: &[f32], b: &[f32]| [a, b].concat();
    let cases: [(&str, Tiny, Vec<Vec<f32>>, usize); 5] = [
        ("an input", concat(base(), &["n", "x"], "y").output("y"), vec![both(&n, &x)], 1),
        ("a constant", concat(base(), &["n", "w"], "y").output("y"), vec![both(&n, &w)], 1),
        ("one twice", concat(base(), &["n", "n"], "y").output("y"), vec![both(&n, &n)], 1),
        (
            "one in two",
            concat(concat(base(), &["n", "a"], "y"), &["a", "n"], "z").output("y").output("z"),
            vec![both(&n, &x), both(&x, &n)],
            2,
        ),
        ("an output", concat(base(), &["n", "a"], "y").output("n").output("y"), vec![n.clone(), both(&n, &x)], 1),
    ];
    for (what, model, want, shared) in cases {
        let c = case(model, &[&[2, 4]]);
        assert!(c.has("concat"), "{what}");
        assert_eq!((c.run(), c.shared()), (want, shared), "{what}");
    }
    // A part of something else that does not fill it.
    let model = concat(base().node("Split", &["n"], &["p", "q"]).int("num_outputs", 2), &["q", "a", "p"], "y")
        .node("Neg", &["y"], &["z"])
        .output("z");
    let c = case(model, &[&[2, 4]]);
    assert!(c.has("concat") && !c.has("split"));
    assert_eq!(c.run(), [[&x[4..], &n, &x[..4]].concat()]);
}

/// A part is overwritten where nobody needs it, or what overlaps it, any more.
#[test]
fn parts_are_overwritten_only_when_they_are_dead() {
    let base = || {
        Tiny::new("parts")
            .input("x", F32, &["2", "8"])
            .node("Neg", &["x"], &["t"])
            .node("Split", &["t"], &["a", "b"])
            .int("num_outputs", 2)
            .node("Abs", &["a"], &["c"])
    };
    let x = counting(16);
    let (p, q) = x.split_at(8);
    let cases = [
        // c takes the memory of a: b keeps the whole as long.
        ("dead", base().node("Sub", &["c", "b"], &["y"]), true, (0..8).map(|i| p[i] + q[i]).collect::<Vec<_>>()),
        // a is read again.
        (
            "read again",
            base().node("Mul", &["c", "a"], &["d"]).node("Sub", &["d", "b"], &["y"]),
            false,
            (0..8).map(|i| q[i] - p[i] * p[i]).collect(),
        ),
        // The whole is read again.
        (
            "whole read again",
            base().node("Sub", &["c", "b"], &["d"]).node("Add", &["d", "t"], &["y"]),
            false,
            (0..16).map(|i| p[i % 8] + q[i % 8] - x[i]).collect(),
        ),
        // c would keep the whole longer than b does.
        (
            "kept longer",
            base().node("Abs", &["b"], &["d"]).node("Add", &["d", "d"], &["e"]).node("Add", &["c", "e"], &["y"]),
            false,
            (0..8).map(|i| p[i] + 2.0 * q[i]).collect(),
        ),
    ];
    for (what, model, in_place, want) in cases {
        let c = case(model.output("y"), &[&[2, 8]]);
        let plan = c.plan();
        let step = plan.items.iter().find_map(|i| match i {
            Item::Step(s) if s.inputs.len() == 1 && plan.slots[s.inputs[0] as usize].bytes == 32 => Some(s),
            _ => None,
        });
        let step = step.unwrap();
        let same = Slot::place(&plan.slots, step.inputs[0]) == Slot::place(&plan.slots, step.outputs[0]);
        assert_eq!((same, c.run()), (in_place, vec![want]), "{what}");
    }
}

/// Blocks of channels: parts of whole blocks, of one picture, lie together.
#[test]
fn parts_of_blocked_layouts_are_blocks() {
    let Some(block) = ortx::kernels::isa::Isa::detect().levels().last().map(|i| i.f32_lanes()) else { return };
    let c = block as i64;
    let conv = |t: Tiny, x: &str, y: &str, from: i64, to: i64| {
        let w = format!("{y}.w");
        t.weights(&w, &[to, from, 3, 3]).node("Conv", &[x, &w], &[y]).ints("pads", &[1, 1, 1, 1])
    };
    // Where blocks are cut through, the whole becomes dense, and its parts lie together there.
    for (batch, first, in_place) in [(1usize, c, true), (2, c, false), (1, c + c / 2, true)] {
        let all = 3 * c;
        let t = Tiny::new("blocks").input("x", F32, &["?", "3", "8", "8"]);
        // So much that what is joined later never is the most that is alive.
        let t = conv(conv(t, "x", "early", 3, 4 * all), "early", "stem", 4 * all, all);
        let t = conv(t, "stem", "wide", all, all)
            .numbers("lengths", &[2], &[first, all - first])
            .node("Split", &["wide", "lengths"], &["a", "b"])
            .int("axis", 1);
        let t = conv(conv(t, "a", "a1", first, c), "b", "b1", all - first, 2 * c);
        let t = t.node("Concat", &["a1", "b1"], &["joined"]).int("axis", 1);
        let model = conv(t, "joined", "y", all, c).output("y");
        let x = ortx::ops::case::random(DType::F32, &[batch, 3, 8, 8], -1.0, 1.0, 7).unwrap();
        let mut c = case(model, &[]);
        c.inputs = vec![Value::Tensor(x)];
        let is_blocked = c.plan().slots.iter().any(|s| s.layout != ortx::backend::Layout::Dense);
        if !is_blocked {
            println!("skipped: no blocked layouts at this level");
            return;
        }
        assert_eq!(!c.has("split") && !c.has("concat"), in_place, "{:?}", c.kernels());
        // The same pictures one by one, where the copies of a larger batch are not needed, give the same.
        let all = c.run();
        let Value::Tensor(x) = c.inputs[0].clone() else { unreachable!() };
        let one = |k: usize| {
            let n = 3 * 64;
            let data = &x.as_slice::<f32>().unwrap()[k * n..][..n];
            vec![Value::Tensor(Tensor::from_slice(&[1, 3, 8, 8], data).unwrap())]
        };
        let mut single = Vec::new();
        for k in 0..batch {
            c.inputs = one(k);
            single.extend(c.run().remove(0));
        }
        assert_eq!(all[0], single);
    }
}

/// What shares the caller's memory is the output alone, whole.
#[test]
fn an_output_that_is_a_part_is_copied() {
    let model = Tiny::new("part")
        .input("x", F32, &["4", "4"])
        .numbers("from", &[1], &[1])
        .numbers("to", &[1], &[4])
        .numbers("flat", &[1], &[-1])
        .node("Neg", &["x"], &["n"])
        .node("Slice", &["n", "from", "to"], &["s"])
        .node("Reshape", &["s", "flat"], &["y"])
        .node("Abs", &["n"], &["z"])
        .output("y")
        .output("z");
    let c = case(model, &[&[4, 4]]);
    assert_eq!(c.run(), [map(&counting(16)[4..], |v| -v), counting(16)]);
    let plan = c.plan();
    let owned: Vec<_> = plan.slots.iter().filter(|s| matches!(s.kind, SlotKind::Output(_))).map(|s| s.bytes).collect();
    assert_eq!(owned, [64]);
}

/// The whole is alive from its first part on: not where there would be more at one time than without.
#[test]
fn a_concat_does_not_raise_the_peak() {
    for early in [true, false] {
        let t = Tiny::new("peak").input("x", F32, &["4"]).input("z", F32, &["20", "20"]);
        let first = |t: Tiny| t.node("Neg", &["x"], &["a"]);
        let t = if early { first(t) } else { t };
        let t = t.node("Abs", &["z"], &["m0"]).numbers("flat", &[1], &[-1]);
        let t = (0..4).fold(t, |t, i| t.node("Transpose", &[&format!("m{i}")], &[&format!("m{}", i + 1)]));
        let t = if early { t } else { first(t) };
        let t = t.node("Reshape", &["m4", "flat"], &["b"]);
        let t = t.node("Concat", &["a", "b"], &["c"]).int("axis", 0).node("Neg", &["c"], &["y"]).output("y");
        let c = case(t, &[&[4], &[20, 20]]);
        let want = [counting(4), map(&counting(400), |v| -v)].concat();
        assert_eq!((c.has("concat"), c.run()), (early, vec![want]), "early: {early}, {:?}", c.kernels());
        let segment = c.plan();
        assert_eq!(segment.arena[0], segment.needed().live);
    }
}
