//! What a run of the graphs tells: counts, and failing graphs as text and as files.

use super::compare::{Failure, Fired, Subject, Way, blamed, run, session};
use super::generator::SETS;
use crate::tiny::message;
use ortx::Tensor;
use ortx::import::tensor_from_proto;
use ortx::kernels::isa::Isa;
use ortx::ops::case::to_f64s;
use ortx::proto::external::External;
use ortx::proto::onnx::{AttributeProto, GraphProto};
use prost::Message;
use std::collections::BTreeMap;
use std::path::Path;

/// How much was covered.
#[derive(Default)]
pub struct Totals {
    pub graphs: usize,
    nodes: usize,
    dynamic: usize,
    pub operators: BTreeMap<String, usize>,
    pub fired: Fired,
}

impl Totals {
    pub fn count(&mut self, s: &Subject) {
        self.graphs += 1;
        self.dynamic += usize::from(s.dynamic());
        s.model.graph.iter().for_each(|g| self.nodes_of(g));
    }
    fn nodes_of(&mut self, g: &GraphProto) {
        for n in &g.node {
            self.nodes += 1;
            *self.operators.entry(n.op_type().into()).or_default() += 1;
            n.attribute.iter().filter_map(|a| a.g.as_ref()).for_each(|g| self.nodes_of(g));
        }
    }
    pub fn add(&mut self, fired: Fired) {
        for (pass, n) in fired.into_iter().filter(|f| f.1 > 0) {
            *self.fired.entry(pass).or_default() += n;
        }
    }
    pub fn print(&self) {
        println!(
            "{} graphs ({} with symbolic sizes), {} nodes of {} operators",
            self.graphs,
            self.dynamic,
            self.nodes,
            self.operators.len()
        );
        println!("operators: {:?}", self.operators);
        println!("passes: {:?}", self.fired);
    }
}

/// A failing graph: text, file, and how to run it again.
pub fn tell(seed: u64, s: &Subject, failure: &Failure) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("differential");
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(format!("{seed}.onnx"));
    std::fs::write(&path, s.bytes(None)).unwrap();
    println!("seed {seed}, smaller ({:?}): {}", failure.kind, failure.text);
    for (name, data) in &s.feeds {
        let shapes: Vec<_> = data.iter().map(Tensor::shape).collect();
        println!("    {name}: {}{:?} {}", data[0].dtype(), shapes, show(&data[0]));
    }
    s.model.graph.iter().for_each(|g| print_graph(g, 4));
    println!("    they agree without one of the passes {:?}", blamed(s));
    println!("    saved as {}", path.display());
    println!("    again: ORTX_GRAPHS=1 ORTX_GRAPHS_SEED={seed} cargo test --test it differential:: -- --nocapture");
}

fn show(t: &Tensor) -> String {
    match to_f64s(t) {
        Ok(v) if v.len() <= 12 => format!("{v:?}"),
        _ => String::new(),
    }
}

fn print_graph(g: &GraphProto, indent: usize) {
    let pad = " ".repeat(indent);
    for t in &g.initializer {
        let shown =
            tensor_from_proto(t, &External::none()).map(|t| format!("{}{:?} {}", t.dtype(), t.shape(), show(&t)));
        println!("{pad}{} = {}", t.name(), shown.unwrap_or_default());
    }
    let names: Vec<&str> = g.input.iter().map(|i| i.name()).collect();
    println!("{pad}({})", names.join(", "));
    for n in &g.node {
        let attrs: Vec<String> = n.attribute.iter().filter(|a| a.g.is_none()).map(attribute).collect();
        println!("{pad}{} = {}({}) {}", n.output.join(", "), n.op_type(), n.input.join(", "), attrs.join(" "));
        for a in &n.attribute {
            if let Some(inner) = &a.g {
                println!("{pad}  {}:", a.name());
                print_graph(inner, indent + 4);
            }
        }
    }
    let names: Vec<&str> = g.output.iter().map(|o| o.name()).collect();
    println!("{pad}-> {}", names.join(", "));
}

fn attribute(a: &AttributeProto) -> String {
    let text = match a {
        AttributeProto { i: Some(i), .. } => i.to_string(),
        AttributeProto { f: Some(f), .. } => f.to_string(),
        AttributeProto { s: Some(s), .. } => String::from_utf8_lossy(s).into_owned(),
        AttributeProto { t: Some(t), .. } => {
            tensor_from_proto(t, &External::none()).map(|t| show(&t)).unwrap_or_default()
        }
        _ => format!("{:?}", a.ints),
    };
    format!("{}={text}", a.name())
}

/// Writes a graph with its inputs and our answers, in the layout of the ONNX backend suite, and how far others may be from them.
pub fn dump(folder: &Path, seed: u64, s: &Subject) {
    let folder = folder.join(seed.to_string());
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("model.onnx"), s.bytes(None)).unwrap();
    let names: Vec<&str> = s.model.graph.iter().flat_map(|g| &g.output).map(|o| o.name()).collect();
    let bounds = names.iter().map(|n| format!("{n} {:e}\n", 2.0 * s.known.get(*n).map_or(0.0, |v| v.error)));
    std::fs::write(folder.join("bounds.txt"), bounds.collect::<String>()).unwrap();
    for k in 0..SETS {
        let set = folder.join(format!("test_data_set_{k}"));
        std::fs::create_dir_all(&set).unwrap();
        let write = |side: &str, i: usize, name: &str, t: &Tensor| {
            std::fs::write(set.join(format!("{side}_{i}.pb")), message(name, t).encode_to_vec()).unwrap();
        };
        let ours = session(s.bytes(Some(k)), Way { optimize: true, isa: Isa::detect(), threads: 1, without: &[] });
        let outputs = run(&ours.unwrap(), &s.inputs(k), None).unwrap();
        s.feeds.iter().enumerate().for_each(|(i, f)| write("input", i, &f.0, &f.1[k]));
        outputs.iter().enumerate().for_each(|(i, t)| write("output", i, names[i], t));
    }
}
