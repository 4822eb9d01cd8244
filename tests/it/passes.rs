//! Every pass: the graph before and after it, near-misses, and the same answers from both.

use crate::cases::{cpu as cpu_at, run_graph};
use ortx::backend::cpu::CpuBackend;
use ortx::ir::build::GraphBuilder;
use ortx::ir::parse::Attr;
use ortx::ir::{Fact, Graph, ParseCtx, ValueId, dump};
use ortx::kernels::isa::Isa;
use ortx::ops;
use ortx::ops::case::{close, random};
use ortx::optimize::{Options, PassReport, optimize, passes};
use ortx::{DType, Tensor, Value};

/// A graph made line by line.
struct Draft {
    b: GraphBuilder,
    inputs: Vec<Value>,
}

impl Draft {
    fn new() -> Draft {
        Draft { b: GraphBuilder::new("g"), inputs: Vec::new() }
    }
    /// An input of seeded f32 values.
    fn input(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let seed = self.inputs.len() as u64;
        self.inputs.push(Value::Tensor(random(DType::F32, shape, -2.0, 2.0, seed).unwrap()));
        self.b.input(name, Fact::sized(DType::F32, shape))
    }
    /// A constant of seeded f32 values.
    fn constant(&mut self, name: &str, shape: &[usize], low: f64, high: f64) -> ValueId {
        self.b.constant(name, random(DType::F32, shape, low, high, name.len() as u64 + 7).unwrap())
    }
    /// `name = op(inputs)`, in operator set 20.
    fn op(&mut self, name: &str, op: &str, inputs: &[ValueId], attrs: Vec<(&'static str, Attr)>) -> ValueId {
        let registry = ops::registry();
        let def = registry.find("", op).unwrap();
        let ids = inputs.iter().map(|&v| Some(v)).collect();
        let mut cx = ParseCtx::new(&mut self.b, name, op, 20, ids, &[true], attrs);
        let parsed = (def.parse)(&mut cx).unwrap();
        let inputs = std::mem::take(&mut cx.inputs);
        self.b.node(name, parsed, inputs, &[Some(name)]).unwrap()[0].unwrap()
    }
    /// Runs the pass alone, and holds the answers of both graphs against each other at every ISA level. Returns the operators
    /// before and after it (with what they were given), and the pass's report.
    fn check(self, pass: &str, outputs: Vec<ValueId>) -> (Vec<String>, Vec<String>, PassReport) {
        let before = self.b.finish(outputs).unwrap();
        let mut after = before.clone();
        let cpu = CpuBackend::new(Isa::detect(), ops::cpu_bindings());
        let others = passes::all().iter().map(|p| p.name().to_string()).filter(|n| n != pass).collect();
        let reports = optimize(&mut after, &cpu, &Options { disabled: others, stop_after: None }).unwrap();
        for isa in Isa::detect().levels() {
            let run = |g: &Graph| run_graph(g.clone(), cpu_at(isa), &self.inputs).unwrap();
            for (want, got) in run(&before).iter().zip(&run(&after)) {
                // Other roundings in another order: some ten of f32, for values of a few units.
                close(want, got, 1e-5, 1e-5).unwrap_or_else(|e| panic!("{pass} at {}: {e}", isa.level().name()));
            }
        }
        let report = reports.into_iter().find(|r| r.pass == pass).unwrap();
        (lines(&before), lines(&after), report)
    }
}

/// `y = Op(a, b)` for each node.
fn lines(g: &Graph) -> Vec<String> {
    let text = dump::dump(g);
    let nodes = text.lines().filter(|l| l.contains(" = "));
    nodes
        .map(|l| {
            let (left, right) = l.trim().split_once(" = ").unwrap();
            let name = left.split(' ').next().unwrap().trim_start_matches('%');
            let call = &right[..right.find(')').unwrap() + 1];
            format!("{name} = {call}")
        })
        .collect()
}

fn ints(v: &[i64]) -> Attr {
    Attr::Ints(v.to_vec())
}

/// A 3x3 convolution from 4 to `out` channels that keeps the size.
fn conv(d: &mut Draft, name: &str, x: ValueId, out: usize) -> ValueId {
    let w = d.constant("w", &[out, 4, 3, 3], -0.5, 0.5);
    let b = d.constant("b", &[out], -1.0, 1.0);
    d.op(name, "Conv", &[x, w, b], vec![("pads", ints(&[1, 1, 1, 1]))])
}

#[test]
fn every_pass_is_tested_here() {
    let tested = ["conv_batch_norm", "conv_epilogue", "fold", "fuse_pointwise", "identity", "matmul_bias"];
    let mut all: Vec<_> = passes::all().iter().map(|p| p.name()).collect();
    all.sort_unstable();
    assert_eq!(all, tested);
}

#[test]
fn fold_computes_constants() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3]);
    let (a, b) = (d.constant("a", &[2, 3], -1.0, 1.0), d.constant("b", &[3], -1.0, 1.0));
    let c = d.op("c", "Add", &[a, b], vec![]);
    let y = d.op("y", "Mul", &[x, c], vec![]);
    let (before, after, report) = d.check("fold", vec![y]);
    assert_eq!(before, ["c = Add(#a, #b)", "y = Mul(%x, %c)"]);
    assert_eq!(after, ["y = Mul(%x, #c)"]);
    assert_eq!(report.fired, 1);
}

#[test]
fn fold_does_not_grow_a_model() {
    let mut d = Draft::new();
    let x = d.input("x", &[1]);
    let one = d.constant("one", &[1], 1.0, 1.0);
    let shape = d.b.constant("shape", Tensor::from_slice(&[2], &[300i64, 300]).unwrap());
    let wide = d.op("wide", "Expand", &[one, shape], vec![]);
    let y = d.op("y", "Add", &[wide, x], vec![]);
    let (before, after, report) = d.check("fold", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("360000 bytes"), "{:?}", report.misses);
}

#[test]
fn identity_goes() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 3]);
    let same = d.b.constant("same", Tensor::from_slice(&[2], &[2i64, 3]).unwrap());
    let other = d.b.constant("other", Tensor::from_slice(&[2], &[3i64, 2]).unwrap());
    let i = d.op("i", "Identity", &[x], vec![]);
    let r = d.op("r", "Reshape", &[i, same], vec![]);
    let z = d.op("z", "Reshape", &[r, other], vec![]);
    let y = d.op("y", "Relu", &[z], vec![]);
    let (before, after, report) = d.check("identity", vec![y]);
    assert_eq!(before.len(), 4);
    assert_eq!(after, ["z = Reshape(%x, #other)", "y = Relu(%z)"], "a view that changes the shape stays");
    assert_eq!(report.fired, 2);
}

#[test]
fn matmul_takes_a_row() {
    let mut d = Draft::new();
    let x = d.input("x", &[5, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[c, m], vec![]);
    let (before, after, _) = d.check("matmul_bias", vec![y]);
    assert_eq!(before, ["m = MatMul(%x, #w)", "y = Add(#c, %m)"]);
    assert_eq!(after, ["y = MatMul(%x, #w, #c)"]);
}

#[test]
fn matmul_leaves_what_is_no_row_or_is_used_twice() {
    let mut d = Draft::new();
    let x = d.input("x", &[3, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3, 1], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[m, c], vec![]);
    let (before, after, report) = d.check("matmul_bias", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("not one value a column"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[3, 4]);
    let (w, c) = (d.constant("w", &[4, 3], -1.0, 1.0), d.constant("c", &[3], -1.0, 1.0));
    let m = d.op("m", "MatMul", &[x, w], vec![]);
    let y = d.op("y", "Add", &[m, c], vec![]);
    let (before, after, report) = d.check("matmul_bias", vec![y, m]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);
}

fn normalised(d: &mut Draft, x: ValueId, channels: usize) -> ValueId {
    let scale = d.constant("scale", &[channels], 0.5, 1.5);
    let bias = d.constant("bias", &[channels], -1.0, 1.0);
    let mean = d.constant("mean", &[channels], -1.0, 1.0);
    let var = d.constant("var", &[channels], 0.5, 2.0);
    d.op("y", "BatchNormalization", &[x, scale, bias, mean, var], vec![("epsilon", Attr::Float(1e-3))])
}

#[test]
fn conv_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[2, 4, 6, 5]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, _) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(before, ["c = Conv(%x, #w, #b)", "y = BatchNormalization(%c, #scale, #bias, #mean, #var)"]);
    assert_eq!(after, ["y = Conv(%x, #y.weights, #y.bias)"]);
}

#[test]
fn conv_without_bias_takes_a_batch_norm() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let w = d.constant("w", &[4, 1, 3, 3], -0.5, 0.5);
    let c = d.op("c", "Conv", &[x, w], vec![("group", Attr::Int(4))]);
    let y = normalised(&mut d, c, 4);
    let (_, after, _) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(after, ["y = Conv(%x, #y.weights, #y.bias)"]);
}

#[test]
fn conv_keeps_away_from_a_batch_norm_that_others_look_past() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let y = normalised(&mut d, c, 8);
    let (before, after, report) = d.check("conv_batch_norm", vec![y, c]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("other users"), "{:?}", report.misses);

    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let mean = d.input("mean", &[8]);
    let (scale, bias) = (d.constant("scale", &[8], 0.5, 1.5), d.constant("bias", &[8], -1.0, 1.0));
    let var = d.constant("var", &[8], 0.5, 2.0);
    let y = d.op("y", "BatchNormalization", &[c, scale, bias, mean, var], vec![]);
    let (before, after, report) = d.check("conv_batch_norm", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("not constant"), "{:?}", report.misses);
}

#[test]
fn conv_takes_each_activation() {
    let float = |name, x| vec![(name, Attr::Float(x))];
    let all = [
        ("Relu", vec![]),
        ("LeakyRelu", float("alpha", 0.1)),
        ("HardSigmoid", float("alpha", 0.3)),
        ("HardSwish", vec![]),
        ("Sigmoid", vec![]),
        ("Tanh", vec![]),
        ("Elu", float("alpha", 0.7)),
        ("Gelu", vec![]),
        ("Gelu", vec![("approximate", Attr::String(b"tanh".to_vec()))]),
        ("Mish", vec![]),
    ];
    for (op, attrs) in all {
        let mut d = Draft::new();
        let x = d.input("x", &[1, 4, 6, 7]);
        let c = conv(&mut d, "c", x, 20);
        let y = d.op("y", op, &[c], attrs);
        let (before, after, _) = d.check("conv_epilogue", vec![y]);
        assert_eq!(before.len(), 2, "{op}");
        assert_eq!(after, ["y = Conv(%x, #w, #b)"], "{op}");
    }
}

#[test]
fn conv_takes_a_residual_and_an_activation() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let r = d.input("r", &[1, 8, 6, 6]);
    let c = conv(&mut d, "c", x, 8);
    let s = d.op("s", "Add", &[r, c], vec![]);
    let y = d.op("y", "Relu", &[s], vec![]);
    let (before, after, report) = d.check("conv_epilogue", vec![y]);
    assert_eq!(before, ["c = Conv(%x, #w, #b)", "s = Add(%r, %c)", "y = Relu(%s)"]);
    assert_eq!(after, ["y = Conv(%x, #w, #b, %r)"]);
    assert_eq!(report.fired, 2);
}

#[test]
fn conv_leaves_a_residual_of_another_shape() {
    let mut d = Draft::new();
    let x = d.input("x", &[1, 4, 6, 6]);
    let r = d.input("r", &[1, 8, 1, 1]);
    let c = conv(&mut d, "c", x, 8);
    let y = d.op("y", "Add", &[r, c], vec![]);
    let (before, after, report) = d.check("conv_epilogue", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("shape"), "{:?}", report.misses);
}

#[test]
fn pointwise_chains_become_one() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 5]), d.input("b", &[5]));
    let s = d.op("s", "Sigmoid", &[a], vec![]);
    let m = d.op("m", "Mul", &[a, s], vec![]);
    let y = d.op("y", "Add", &[m, b], vec![]);
    let (before, after, report) = d.check("fuse_pointwise", vec![y]);
    assert_eq!(before.len(), 3);
    assert_eq!(after, ["y = Pointwise(%a, %b)"]);
    assert_eq!(report.fired, 2);
}

#[test]
fn pointwise_leaves_what_would_be_computed_twice() {
    let mut d = Draft::new();
    let (a, b) = (d.input("a", &[2, 5]), d.input("b", &[5]));
    let e = d.op("e", "Exp", &[b], vec![]);
    let y = d.op("y", "Add", &[a, e], vec![]);
    let (before, after, report) = d.check("fuse_pointwise", vec![y]);
    assert_eq!(before, after);
    assert!(report.misses[0].contains("broadcast"), "{:?}", report.misses);

    let mut d = Draft::new();
    let a = d.input("a", &[2, 5]);
    let e = d.op("e", "Exp", &[a], vec![]);
    let y = d.op("y", "Neg", &[e], vec![]);
    let (before, after, _) = d.check("fuse_pointwise", vec![y, e]);
    assert_eq!(before, after, "an output of the graph stays");
}
