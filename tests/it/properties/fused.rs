//! Chains of elementwise operators through the optimiser: fused against unfused, and both against f64.

use super::draw::Draw;
use super::reference::{Array, broadcast};
use super::{trials, two_threads};
use crate::cases::cpu;
use ortx::DType::{BF16, F16, F32, F64};
use ortx::backend::cpu::CpuBackend;
use ortx::base::parallel::Serial;
use ortx::ir::build::GraphBuilder;
use ortx::ir::parse::Attr;
use ortx::ir::{Fact, Graph, ParseCtx, ValueId};
use ortx::kernels::isa::Isa;
use ortx::ops::case::close;
use ortx::{DType, Result, Tensor, Value, ensure, ops, optimize};

/// A value of the graph, and what it is. Values stay between -4 and 4.
struct Node {
    id: ValueId,
    value: Array,
}

struct Chain {
    graph: Graph,
    inputs: Vec<Value>,
    want: Vec<Tensor>,
    text: String,
}

const ONE: [(&str, u32, fn(f64) -> f64); 8] = [
    ("Relu", 14, |x| x.max(0.0)),
    ("Sigmoid", 13, |x| 1.0 / (1.0 + (-x).exp())),
    ("Tanh", 13, f64::tanh),
    ("Neg", 13, |x| -x),
    ("Abs", 13, f64::abs),
    ("Erf", 13, erf_of),
    ("Sin", 7, f64::sin),
    ("Identity", 13, |x| x),
];

unsafe extern "C" {
    safe fn erf(x: f64) -> f64;
}
fn erf_of(x: f64) -> f64 {
    erf(x)
}

fn op(
    b: &mut GraphBuilder,
    name: &str,
    op: &str,
    version: u32,
    inputs: &[ValueId],
    attrs: Vec<(&'static str, Attr)>,
) -> Result<ValueId> {
    let registry = ops::registry();
    let def = registry.find("", op).expect("an operator of the table");
    let ids = inputs.iter().map(|&v| Some(v)).collect();
    let mut cx = ParseCtx::new(b, name, op, version, ids, &[true], attrs);
    let parsed = (def.parse)(&mut cx)?;
    let inputs = std::mem::take(&mut cx.inputs);
    Ok(b.node(name, parsed, inputs, &[Some(name)])?[0].expect("one output"))
}

fn chain(d: &mut Draw, dtype: DType) -> Result<Chain> {
    let mut b = GraphBuilder::new("chain");
    let to = d.shape(0..=4);
    let (mut nodes, mut inputs, mut text) = (Vec::<Node>::new(), vec![], String::new());
    for i in 0..1 + d.below(3) {
        let shape = if i == 0 { to.clone() } else { d.broadcast(&to) };
        let t = d.values(dtype, &shape, -2.0, 2.0);
        let value = Array::of(&t);
        let id = if i > 0 && d.flag() {
            b.constant(&format!("c{i}"), t)
        } else {
            inputs.push(Value::Tensor(t));
            b.input(&format!("x{i}"), Fact::sized(dtype, &shape))
        };
        text += &format!("v{i}: {shape:?}; ");
        nodes.push(Node { id, value });
    }
    for k in 0..1 + d.below(9) {
        let a = d.below(nodes.len());
        let name = format!("n{k}");
        let n = nodes.len();
        let (id, value) = if d.flag() {
            let (o, version, f) = d.pick(&ONE);
            text += &format!("v{n} = {o}(v{a}); ");
            let x = &nodes[a].value;
            let value = Array { shape: x.shape.clone(), data: x.data.iter().map(|&x| f(x)).collect() };
            (op(&mut b, &name, o, version, &[nodes[a].id], vec![])?, value)
        } else {
            let c = d.below(nodes.len());
            let (x, y) = (&nodes[a].value, &nodes[c].value);
            let shape = broadcast(&x.shape, &y.shape);
            // Bounded: the mean, the product of sigmoids and the like.
            let (o, f): (&str, fn(f64, f64) -> f64) = d.pick(&[
                ("Add", (|a, b| a + b) as fn(f64, f64) -> f64),
                ("Sub", |a, b| a - b),
                ("Mul", |a, b| a * b),
                ("Max", f64::max),
                ("Min", f64::min),
            ]);
            text += &format!("v{n} = {o}(v{a}, v{c}); ");
            let value = Array::from_fn(&shape, |i| f(x.spread(i), y.spread(i)));
            let id = op(&mut b, &name, o, 13, &[nodes[a].id, nodes[c].id], vec![])?;
            // What grows is brought back.
            (
                op(&mut b, &format!("{name}b"), "Tanh", 13, &[id], vec![])?,
                Array { data: value.data.iter().map(|x| x.tanh()).collect(), ..value },
            )
        };
        nodes.push(Node { id, value });
    }
    let last = nodes.pop().expect("a node");
    let mut outputs = vec![last.id];
    let mut want = vec![last.value.tensor(dtype)];
    if d.one_in(3) {
        // One on the way is asked for too.
        let first = nodes.len() - d.below(nodes.len().min(3)) - 1;
        let other = &nodes[first];
        outputs.push(other.id);
        want.push(other.value.tensor(dtype));
        text += &format!("and v{first}");
    }
    Ok(Chain { graph: b.finish(outputs)?, inputs, want, text })
}

fn check(chain: &Chain, dtype: DType) -> Result<()> {
    // A dozen steps that each round once, none of which makes an error much larger.
    let eps = super::draw::epsilon(dtype, 100.0);
    for isa in Isa::detect().levels() {
        let mut fused = chain.graph.clone();
        let backend = CpuBackend::new(isa, ops::cpu_bindings());
        optimize::optimize(&mut fused, &backend, &Serial, &optimize::Options::default())?;
        for (what, graph) in [("as it is", &chain.graph), ("optimised", &fused)] {
            let at = |e: ortx::Error| e.context(what).context(isa.level().name());
            let one = super::run(graph.clone(), cpu(isa), &Serial, &chain.inputs).map_err(at)?;
            for (want, got) in chain.want.iter().zip(&one) {
                close(want, got, eps, eps).map_err(at)?;
            }
            let two = super::run(graph.clone(), cpu(isa), &**two_threads(), &chain.inputs).map_err(at)?;
            let same = one.iter().zip(&two).all(|(a, b)| a.bytes() == b.bytes());
            ensure!(same, Run, "two threads give other bits than one, {what}");
        }
    }
    Ok(())
}

#[test]
fn chains() {
    trials("chains", |d| {
        let dtype = d.pick(&[F32, F32, F16, BF16, F64]);
        let chain = chain(d, dtype).map_err(|e| e.context("building"))?;
        check(&chain, dtype).map_err(|e| e.context(format!("{dtype} {}", chain.text)))
    });
}
