//! Transpositions that meet, or are taken in by what stands between them.

use super::*;
use ortx::base::parallel::Serial;

const LAST: [i64; 4] = [0, 2, 3, 1];
const FIRST: [i64; 4] = [0, 3, 1, 2];

/// The operators left, without what was transposed.
fn names(lines: &[String]) -> Vec<&str> {
    lines.iter().map(|l| l.split(" = ").nth(1).unwrap().split('(').next().unwrap()).collect()
}

#[test]
pub(super) fn transpositions_meet() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4, 5]);
    let bias = d.constant("bias", &[3], -1.0, 1.0);
    let t = d.op("t", "Transpose", &[x], perm(&LAST));
    let s = d.op("s", "Add", &[t, bias], vec![]);
    let r = d.op("r", "Relu", &[s], vec![]);
    let y = d.op("y", "Transpose", &[r], perm(&FIRST));
    let z = d.op("z", "Exp", &[y], vec![]);
    let (before, after, report) = d.check("transposes", vec![z]);
    assert_eq!(before.len(), 5);
    assert_eq!(after, ["s.turned = Add(%x, #s.1)", "r.turned = Relu(%s.turned)", "z = Exp(%r.turned)"]);
    assert_eq!(report.fired, 2);
}

#[test]
pub(super) fn a_transposition_that_meets_none_stays() {
    // One before an operator as good as one behind it.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4, 5]);
    let t = d.op("t", "Transpose", &[x], perm(&LAST));
    let y = d.op("y", "Exp", &[t], vec![]);
    let (before, after, _) = d.check("transposes", vec![y]);
    assert_eq!(before, after);

    // What stands between needs its axes where they are.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4, 5]);
    let w = d.input("w", &[3, 6]);
    let t = d.op("t", "Transpose", &[x], perm(&LAST));
    let m = d.op("m", "MatMul", &[t, w], vec![]);
    let u = d.op("u", "Transpose", &[m], perm(&FIRST));
    let y = d.op("y", "Exp", &[u], vec![]);
    let (before, after, report) = d.check("transposes", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("'m' (MatMul) needs its axes"), "{:?}", report.misses);
}

#[test]
fn operators_take_their_axes_elsewhere() {
    let int = |name, v| (name, Attr::Int(v));
    type Between = fn(&mut Draft, ValueId) -> ValueId;
    let between: [(&str, Between); 11] = [
        ("ArgMax", |d, t| {
            let most = d.op("most", "ArgMax", &[t], vec![("axis", Attr::Int(-1))]);
            d.op("o", "Cast", &[most], vec![("to", Attr::Int(1))])
        }),
        ("Resize", |d, t| {
            let empty = d.constant("empty", &[0], 0.0, 1.0);
            let scales = d.b.constant("scales", Tensor::from_slice(&[4], &[1.0f32, 2.0, 1.5, 1.0]).unwrap());
            d.op("o", "Resize", &[t, empty, scales], vec![])
        }),
        ("Softmax", |d, t| d.op("o", "Softmax", &[t], vec![("axis", Attr::Int(1))])),
        ("Concat", |d, t| d.op("o", "Concat", &[t, t], vec![("axis", Attr::Int(-1))])),
        ("ReduceMean", |d, t| {
            let axes = d.ints("axes", &[1, -2]);
            d.op("o", "ReduceMean", &[t, axes], vec![])
        }),
        ("Pad", |d, t| {
            let widths = d.ints("widths", &[0, 1, 2, 0, 0, 0, 1, 3]);
            d.op("o", "Pad", &[t, widths], vec![])
        }),
        ("Slice", |d, t| {
            let (from, to) = (d.ints("from", &[0, 1, 1]), d.ints("to", &[2, 3, 9]));
            d.op("o", "Slice", &[t, from, to], vec![])
        }),
        ("Tile", |d, t| {
            let times = d.ints("times", &[1, 2, 3, 1]);
            d.op("o", "Tile", &[t, times], vec![])
        }),
        ("Gather", |d, t| {
            let at = d.ints("at", &[2, 0]);
            d.op("o", "Gather", &[t, at], vec![("axis", Attr::Int(3))])
        }),
        ("Where", |d, t| {
            let large = d.constant("large", &[4, 5, 3], -1.0, 1.0);
            let is = d.op("is", "Less", &[t, large], vec![]);
            d.op("o", "Where", &[is, t, large], vec![])
        }),
        ("Clip", |d, t| {
            let (low, high) = (d.number(-0.5), d.number(0.75));
            d.op("o", "Clip", &[t, low, high], vec![])
        }),
    ];
    for (name, make) in between {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 3, 4, 5]);
        let t = d.op("t", "Transpose", &[x], perm(&LAST));
        let o = make(&mut d, t);
        let y = d.op("y", "Transpose", &[o], perm(&FIRST));
        let z = d.op("z", "Exp", &[y], vec![]);
        let (_, after, _) = d.check("transposes", vec![z]);
        assert!(!names(&after).contains(&"Transpose"), "{name}: {after:?}");
    }
    // Means over places need no transposition behind them.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4, 5]);
    let axes = d.ints("axes", &[1, 2]);
    let t = d.op("t", "Transpose", &[x], perm(&LAST));
    let y = d.op("y", "ReduceMean", &[t, axes], vec![int("keepdims", 0)]);
    let (_, after, _) = d.check("transposes", vec![y]);
    assert_eq!(names(&after), ["ReduceMean"]);
    // Nor do the greatest of channels.
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3, 4, 5]);
    let t = d.op("t", "Transpose", &[x], perm(&LAST));
    let most = d.op("most", "ArgMax", &[t], vec![int("axis", 3), int("keepdims", 0)]);
    let y = d.op("y", "Cast", &[most], vec![int("to", 1)]);
    let (_, after, _) = d.check("transposes", vec![y]);
    assert_eq!(names(&after), ["ArgMax", "Cast"]);
}

/// Items and rows of torch's transformers change places: what works on each row by itself does not mind.
#[test]
fn rows_stand_in_any_order() {
    let rows = |d: &mut Draft, cut: &[i64]| {
        let x = d.named_input("x", &["batch", "rows", ""], &[2, 5, 6]);
        let t = d.op("t", "Transpose", &[x], perm(&[1, 0, 2]));
        let (w, r) = (d.constant("w", &[6, 8], -1.0, 1.0), d.input("r", &[8]));
        let (g, b) = (d.constant("g", &[8], 0.5, 1.5), d.constant("b", &[8], -1.0, 1.0));
        let m = d.op("m", "MatMul", &[t, w], vec![]);
        let s = d.op("s", "Add", &[m, r], vec![]);
        let n = d.op("n", "LayerNormalization", &[s, g, b], vec![]);
        let cut = d.ints("cut", cut);
        d.op("v", "Reshape", &[n, cut], vec![])
    };
    let mut d = Draft::new();
    let v = rows(&mut d, &[0, 0, 2, 4]);
    let y = d.op("y", "Transpose", &[v], perm(&[1, 0, 2, 3]));
    let z = d.op("z", "Exp", &[y], vec![]);
    let (_, after, report) = d.check("transposes", vec![z]);
    let wanted = ["MatMul", "Add", "LayerNormalization", "Reshape", "Exp"];
    assert_eq!(names(&after), wanted, "{:?}", report.misses);

    // Another order is made of either.
    let mut d = Draft::new();
    let v = rows(&mut d, &[0, 0, 2, 4]);
    let y = d.op("y", "Transpose", &[v], perm(&[1, 2, 0, 3]));
    let (_, after, _) = d.check("transposes", vec![y]);
    assert_eq!(names(&after), ["MatMul", "Add", "LayerNormalization", "Reshape", "Transpose"]);

    // A view that lays rows of several items together needs them where they are.
    let mut d = Draft::new();
    let v = rows(&mut d, &[0, -1, 4]);
    let y = d.op("y", "Transpose", &[v], perm(&[1, 0, 2]));
    let (before, after, report) = d.check("transposes", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses.iter().any(|m| m.contains("'v' (Reshape) needs its axes")), "{:?}", report.misses);
}

/// Attention over the places of an image has its queries, keys and values by convolutions of one place.
#[test]
fn places_are_turned_before_several_products() {
    // How many convolutions there are, and the channels of each; what of them a third place is wanted for.
    for (count, channels, kernel, wanted) in [(3, 6, 1, true), (1, 6, 1, false), (2, 2, 1, false), (2, 6, 3, false)] {
        let mut d = Draft::new();
        let x = d.named_input("x", &["n", "", "", ""], &[2, 6, 4, 5]);
        let flat = d.ints("flat", &[0, channels, 20]);
        let pads = vec![("pads", ints(&[kernel / 2; 4]))];
        let all: Vec<ValueId> = (0..count)
            .map(|i| {
                let (c, k) = (channels as usize, kernel as usize);
                let w = d.constant(&format!("w{i}"), &[c, 6, k, k], -0.5, 0.5);
                let b = d.constant(&format!("b{i}"), &[c], -0.5, 0.5);
                let y = d.op(&format!("c{i}"), "Conv", &[x, w, b], pads.clone());
                let y = d.op(&format!("v{i}"), "Reshape", &[y, flat], vec![]);
                d.op(&format!("t{i}"), "Transpose", &[y], perm(&[0, 2, 1]))
            })
            .collect();
        let y = d.op("y", "Concat", &all, vec![("axis", Attr::Int(2))]);
        let z = d.op("z", "Softmax", &[y], vec![]);
        let (before, after, _) = d.check("transposes", vec![z]);
        match wanted {
            true => {
                assert_eq!(names(&after)[..5], ["Reshape", "Transpose", "MatMul", "MatMul", "MatMul"], "{after:#?}")
            }
            false => assert_eq!(names(&before).len(), names(&after).len(), "{after:#?}"),
        }
    }
}

#[test]
fn parts_and_residuals_between_convolutions() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = super::conv::conv(&mut d, "c", x, 8);
    let t = d.op("t", "Transpose", &[c], perm(&LAST));
    let lengths = d.ints("lengths", &[4, 4]);
    let parts = d.split("s", t, lengths, 3, 2);
    let r = d.op("r", "Sigmoid", &[parts[0]], vec![]);
    let m = d.op("m", "Mul", &[r, parts[1]], vec![]);
    let u = d.op("u", "Transpose", &[x], perm(&LAST));
    let a = d.op("a", "Add", &[m, u], vec![]);
    let b = d.op("b", "Transpose", &[a], perm(&FIRST));
    let y = super::conv::conv(&mut d, "y", b, 8);
    let (_, after, _) = d.check("transposes", vec![y]);
    assert_eq!(names(&after), ["Conv", "Split", "Sigmoid", "Mul", "Add", "Conv"]);
}

#[test]
fn a_block_over_channels_keeps_its_layout() {
    for rms in [false, true] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 4, 6, 5]);
        let c = super::conv::conv(&mut d, "c", x, 19);
        let t = d.op("t", "Transpose", &[c], perm(&LAST));
        let (g, b) = (d.constant("g", &[19], 0.5, 1.5), d.constant("b", &[19], -1.0, 1.0));
        let n = match rms {
            true => d.op("n", "RMSNormalization", &[t, g], vec![]),
            false => d.op("n", "LayerNormalization", &[t, g, b], vec![]),
        };
        let w = d.constant("w2", &[19, 8], -0.5, 0.5);
        let m = d.op("m", "MatMul", &[n, w], vec![]);
        let y = d.op("y", "Transpose", &[m], perm(&FIRST));
        let z = d.op("z", "Relu", &[y], vec![]);
        let (_, after, _) = d.check_within(2e-5, "transposes", vec![z]);
        assert_eq!(names(&after), ["Conv", "ChannelLayerNorm", "Conv", "Relu"]);
    }
}

/// What the pass makes of a block runs on OpenCL devices too.
#[cfg(feature = "opencl")]
#[test]
fn a_block_over_channels_on_opencl() {
    let env = ortx::session::Environment::new();
    if env.devices().expect("listing devices").is_empty() {
        println!("skipped: no OpenCL device");
        return;
    }
    let device = env.device("opencl").expect("opening the device");
    for rms in [false, true] {
        let mut d = Draft::new();
        let x = d.input("x", &[2, 19, 6, 5]);
        let t = d.op("t", "Transpose", &[x], perm(&LAST));
        let (g, b) = (d.constant("g", &[19], 0.5, 1.5), d.constant("b", &[19], -1.0, 1.0));
        let n = match rms {
            true => d.op("n", "RMSNormalization", &[t, g], vec![]),
            false => d.op("n", "LayerNormalization", &[t, g, b], vec![]),
        };
        let y = d.op("y", "Transpose", &[n], perm(&FIRST));
        let z = d.op("z", "Relu", &[y], vec![]);
        let before = d.b.finish(vec![z]).unwrap();
        let mut after = before.clone();
        let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
        let stop = Options { stop_after: Some("transposes".into()), strict: true, ..Options::default() };
        optimize(&mut after, &cpu, &Serial, &stop).unwrap();
        assert_eq!(names(&lines(&after)), ["ChannelLayerNorm", "Relu"]);
        let want = run_graph(before, cpu_at(Isa::detect()), &d.inputs).unwrap();
        let target = ortx::plan::Target { devices: vec![device.clone()], required: true, ..cpu_at(Isa::detect()) };
        let got = run_graph(after, target, &d.inputs).unwrap();
        close(&want[0], &got[0], 2e-5, 2e-5).unwrap();
    }
}

/// What is turned, stacked and turned back, as TensorFlow's GPT-2 has its keys and values.
#[test]
fn parts_of_a_stack_that_is_turned_back() {
    for (back, meets) in [([0, 2, 3, 1, 4], true), ([0, 3, 2, 1, 4], false)] {
        let mut d = Draft::new();
        let (axis, stack) = (d.ints("axis", &[2]), vec![("axis", Attr::Int(2))]);
        let parts = ["a", "b"].map(|n| {
            let x = d.named_input(n, &["n", "", "rows", ""], &[2, 4, 5, 8]);
            let t = d.op(&format!("{n}.t"), "Transpose", &[x], perm(&[0, 2, 1, 3]));
            d.op(&format!("{n}.one"), "Unsqueeze", &[t, axis], vec![])
        });
        let s = d.op("s", "Concat", &parts, stack);
        let t = d.op("t", "Transpose", &[s], perm(&back));
        let y = d.op("y", "Exp", &[t], vec![]);
        let (before, after, report) = d.check("transposes", vec![y]);
        if meets {
            assert_eq!(names(&after), ["Reshape", "Reshape", "Concat", "Exp"], "{:?}", report.misses);
        } else {
            assert_eq!(before, after);
        }
    }
}
