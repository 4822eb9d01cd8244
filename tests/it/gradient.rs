//! Gradient against differences of values, in f64: first and second derivatives, and values other than the graph's own.

use crate::cases::{cpu, run_graph};
use ortx::ir::build::GraphBuilder;
use ortx::ir::parse::Attr;
use ortx::ir::{Fact, Graph, ParseCtx, ValueId};
use ortx::kernels::isa::Isa;
use ortx::tensor::DType;
use ortx::{Result, Tensor, Value, ops};

/// A node as a file has it; its outputs are named `name`, `name1`, ...
fn node(
    b: &mut GraphBuilder,
    op: &str,
    inputs: &[ValueId],
    attrs: Vec<(&str, Attr)>,
    name: &str,
    outputs: usize,
) -> Result<Vec<ValueId>> {
    let registry = ops::registry();
    let domain = if op == "Gradient" { "ai.onnx.preview.training" } else { "" };
    let def = registry.find(domain, op).expect("the operator is there");
    let ids = inputs.iter().map(|&v| Some(v)).collect();
    let asked = vec![true; outputs];
    let mut cx = ParseCtx::new(b, name, op, *def.versions.last().unwrap(), ids, &asked, attrs);
    let op = (def.parse)(&mut cx)?;
    let inputs = std::mem::take(&mut cx.inputs);
    let names: Vec<String> =
        (0..outputs).map(|i| if i == 0 { name.to_string() } else { format!("{name}{i}") }).collect();
    let names: Vec<Option<&str>> = names.iter().map(|n| Some(n.as_str())).collect();
    Ok(b.node(name, op, inputs, &names)?.into_iter().flatten().collect())
}

fn one(b: &mut GraphBuilder, op: &str, inputs: &[ValueId], name: &str) -> ValueId {
    node(b, op, inputs, vec![], name, 1).unwrap()[0]
}

/// x[3, 4], w[4, 4], c[4], and a scalar y made of them by most of the operators that can be differentiated.
fn forward(b: &mut GraphBuilder) -> [ValueId; 4] {
    let x = b.input("x", Fact::sized(DType::F64, &[3, 4]));
    let w = b.input("w", Fact::sized(DType::F64, &[4, 4]));
    let c = b.input("c", Fact::sized(DType::F64, &[4]));
    let product = one(b, "MatMul", &[x, w], "product");
    let h = one(b, "Add", &[product, c], "h");
    let t = one(b, "Tanh", &[h], "t");
    let s = one(b, "Sigmoid", &[x], "s");
    let p = one(b, "Mul", &[t, s], "p");
    let e = one(b, "Exp", &[c], "e");
    let d = one(b, "Div", &[p, e], "d");
    let turned = one(b, "Transpose", &[d], "turned");
    let relu = one(b, "Relu", &[turned], "relu");
    let q = one(b, "Sub", &[relu, turned], "q");
    let sum = one(b, "Sum", &[q, relu, turned], "sum");
    let axes = b.constant("axes", Tensor::from_slice(&[1], &[1i64]).unwrap());
    let mean = node(b, "ReduceMean", &[sum, axes], vec![("keepdims", Attr::Int(0))], "mean", 1).unwrap()[0];
    let square = one(b, "Mul", &[mean, mean], "square");
    let three = b.constant("three", Tensor::from_slice(&[1], &[3f64]).unwrap());
    let more = one(b, "Add", &[square, three], "more");
    let root = one(b, "Sqrt", &[more], "root");
    let log = one(b, "Log", &[root], "log");
    let power = one(b, "Pow", &[log, three], "power");
    let flat = node(b, "ReduceSum", &[power], vec![("keepdims", Attr::Int(0))], "y", 1).unwrap()[0];
    [x, w, c, flat]
}

fn names(list: &[&str]) -> Attr {
    Attr::Strings(list.iter().map(|n| n.as_bytes().to_vec()).collect())
}

fn run(graph: Graph, inputs: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let shapes = [&[3usize, 4][..], &[4, 4], &[4], &[3, 4]];
    let values: Vec<Value> =
        inputs.iter().zip(shapes).map(|(v, s)| Value::Tensor(Tensor::from_slice(s, v).unwrap())).collect();
    let outputs = run_graph(graph, cpu(Isa::detect()), &values).unwrap();
    outputs.iter().map(|t| t.as_slice::<f64>().unwrap().to_vec()).collect()
}

fn inputs() -> Vec<Vec<f64>> {
    let wave = |n: usize, by: f64| (0..n).map(|i| (i as f64 * by + 0.3).sin()).collect();
    vec![wave(12, 0.7), wave(16, 1.3), wave(4, 2.1)]
}

/// Compares gradients with central differences. Their error is h^2 = 1e-8 times a third derivative, and rounding, 1e-16 / h.
fn check(gradients: &[Vec<f64>], at: &[Vec<f64>], value: &dyn Fn(&[Vec<f64>]) -> f64) {
    let h = 1e-4;
    for (k, g) in gradients.iter().enumerate() {
        for (i, g) in g.iter().enumerate() {
            let moved = |by: f64| {
                let mut v = at.to_vec();
                v[k][i] += by;
                value(&v)
            };
            let want = (moved(h) - moved(-h)) / (2.0 * h);
            assert!((g - want).abs() < 1e-6 * (1.0 + want.abs()), "input {k}, element {i}: {g}, not {want}");
        }
    }
}

#[test]
fn first_derivatives() {
    let mut b = GraphBuilder::new("first");
    let [x, w, c, y] = forward(&mut b);
    let attrs = vec![("xs", names(&["x", "w", "c"])), ("y", Attr::String(b"y".to_vec()))];
    let g = node(&mut b, "Gradient", &[x, w, c], attrs, "g", 3).unwrap();
    let mut outputs = g;
    outputs.push(y);
    let graph = b.finish(outputs).unwrap();
    let at = inputs();
    let got = run(graph.clone(), &at);
    assert!(got[0].iter().any(|g| g.abs() > 1e-3), "all is flat: {:?}", got[0]);
    check(&got[..3], &at, &|v| run(graph.clone(), v)[3][0]);
}

#[test]
fn second_derivatives() {
    let mut b = GraphBuilder::new("second");
    let [x, w, c, _] = forward(&mut b);
    let attrs = |y: &str| vec![("xs", names(&["x"])), ("zs", names(&["w", "c"])), ("y", Attr::String(y.into()))];
    let first = node(&mut b, "Gradient", &[x, w, c], attrs("y"), "dx", 1).unwrap()[0];
    let square = one(&mut b, "Mul", &[first, first], "square_of_dx");
    let sum = node(&mut b, "ReduceSum", &[square], vec![("keepdims", Attr::Int(0))], "z", 1).unwrap()[0];
    let second = node(&mut b, "Gradient", &[x, w, c], attrs("z"), "ddx", 1).unwrap()[0];
    let graph = b.finish(vec![second, sum]).unwrap();
    let at = inputs();
    let got = run(graph.clone(), &at);
    assert!(got[0].iter().any(|g| g.abs() > 1e-6), "all is flat: {:?}", got[0]);
    check(&got[..1], &at, &|v| run(graph.clone(), v)[1][0]);
}

/// The graph is differentiated at another x than its own.
#[test]
fn at_other_values() {
    let mut b = GraphBuilder::new("other");
    let [_, w, c, y] = forward(&mut b);
    let other = b.input("other", Fact::sized(DType::F64, &[3, 4]));
    let attrs = vec![("xs", names(&["x", "w", "c"])), ("y", Attr::String(b"y".to_vec()))];
    let mut outputs = node(&mut b, "Gradient", &[other, w, c], attrs, "g", 3).unwrap();
    outputs.push(y);
    let moved = b.finish(outputs).unwrap();
    let mut b = GraphBuilder::new("plain");
    let [.., y] = forward(&mut b);
    let plain = b.finish(vec![y]).unwrap();
    let at = inputs();
    let mut all = at.clone();
    all.push((0..12).map(|i| (i as f64 * 0.4 - 1.0).cos()).collect());
    let got = run(moved, &all);
    let there = vec![all[3].clone(), at[1].clone(), at[2].clone()];
    check(&got[..3], &there, &|v| run(plain.clone(), v)[0][0]);
    assert_eq!(got[3], run(plain, &at)[0], "the graph itself stays as it was");
}
