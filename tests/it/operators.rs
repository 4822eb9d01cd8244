//! `docs/operators.md` says what the operator table has: it is written from it, and compared with it.
//!
//! Element types are asked for, not listed: each operator's test cases are bound once with each type that the standard allows
//! in the place of their own.

use ortx::backend::cpu::CpuBackend;
use ortx::backend::opencl::OpenClBindings;
use ortx::backend::{NodeView, Operand};
use ortx::ir::build::GraphBuilder;
use ortx::ir::{Alias, Fact, Graph, OpDef, ParseCtx};
use ortx::kernels::isa::Isa;
use ortx::ops::case::{Case, CaseInput};
use ortx::plan::{Program, Target};
use ortx::{DType, ops};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

const PAGE: &str = "docs/operators.md";

/// A row of `tests/onnx_schemas.tsv`.
struct Schema {
    versions: Vec<u32>,
    /// The inputs that have the operator's first type parameter; the last one may stand for all after it.
    places: Vec<usize>,
    all_after: bool,
    types: Vec<DType>,
}

fn schemas() -> BTreeMap<(String, String), Schema> {
    let text = std::fs::read_to_string("tests/onnx_schemas.tsv").unwrap();
    let list = |s: &str| s.split(',').filter(|x| !x.is_empty()).map(String::from).collect::<Vec<_>>();
    let row = |line: &str| {
        let c: Vec<&str> = line.split('\t').collect();
        let types = list(c[5]);
        let schema = Schema {
            versions: list(c[2]).iter().map(|v| v.parse().unwrap()).collect(),
            places: list(c[4]).iter().map(|p| p.trim_end_matches('+').parse().unwrap()).collect(),
            all_after: c[4].ends_with('+'),
            types: DType::ALL.into_iter().filter(|d| types.iter().any(|t| t == d.name())).collect(),
        };
        ((c[0].to_string(), c[1].to_string()), schema)
    };
    text.lines().filter(|l| !l.starts_with('#')).map(row).collect()
}

/// The case's graph with inputs of another type in these places.
fn graph(def: &OpDef, case: &Case, swap: impl Fn(usize) -> Option<DType>) -> Option<Graph> {
    let mut b = GraphBuilder::new(case.op);
    let mut ids = Vec::new();
    for (i, input) in case.inputs.iter().enumerate() {
        let name = format!("x{i}");
        ids.push(match (input, swap(i)) {
            (CaseInput::Absent, _) => None,
            (CaseInput::Constant(t), None) => Some(b.constant(&name, t.clone())),
            (CaseInput::Constant(t) | CaseInput::Given(t), d) => {
                Some(b.input(&name, Fact::sized(d.unwrap_or(t.dtype()), t.shape())))
            }
            (CaseInput::Random(own, shape, ..), d) => Some(b.input(&name, Fact::sized(d.unwrap_or(*own), shape))),
        });
    }
    let mut cx = ParseCtx::new(&mut b, "case", case.op, case.version, ids, &case.outputs, case.attrs.clone());
    let op = (def.parse)(&mut cx).ok()?;
    let inputs = std::mem::take(&mut cx.inputs);
    let names: Vec<Option<&str>> = case.outputs.iter().map(|&on| on.then_some("y")).collect();
    let outputs = b.node("case", op, inputs, &names).ok()?;
    b.finish(outputs.into_iter().flatten().collect()).ok()
}

fn cpu_takes(graph: &Graph, target: &Arc<Target>) -> bool {
    let Ok(program) = Program::new(Arc::new(graph.clone()), target.clone()) else { return false };
    let facts: Vec<Fact> = graph.inputs().iter().map(|&v| graph.fact(v).clone()).collect();
    program.check(&facts).is_ok_and(|c| c.refusals.is_empty())
}

fn opencl_takes(graph: &Graph, bindings: &OpenClBindings) -> bool {
    let operand = |f: &Fact| Some(Operand::dense(f.dtype()?, &f.shape()?));
    // Views need no kernel.
    let mut nodes = graph.nodes().filter(|(_, n)| n.op.alias() != Alias::View);
    graph.nodes().next().is_some()
        && nodes.all(|(_, n)| {
            let of = |v: &Option<ortx::ir::ValueId>| match v {
                None => Some(None),
                Some(v) => {
                    let constant = graph.fact(*v).constant().cloned();
                    operand(graph.fact(*v)).map(|o| Some(Operand { constant, ..o }))
                }
            };
            let (ins, outs): (Option<Vec<_>>, Option<Vec<_>>) =
                (n.inputs.iter().map(of).collect(), n.outputs.iter().map(of).collect());
            let (Some(ins), Some(outs)) = (ins, outs) else { return false };
            bindings.takes(&NodeView { name: &n.name, op: &*n.op, inputs: &ins, outputs: &outs })
        })
}

/// For an operator without cases: one to four small inputs of one type, in the hope that it takes as many.
fn guesses(def: &OpDef) -> Vec<Case> {
    let x = || CaseInput::Random(DType::F32, vec![2, 3], 0.0, 1.0);
    let version = def.versions.last().copied().unwrap_or(1);
    let case = |n: usize| Case { domain: def.domain, ..Case::new(def.name, version, "", vec![x(); n]) };
    (1..=4).map(case).collect()
}

/// Types in few words: those allowed, if there are any that are missing.
fn words(have: &[DType], allowed: &[DType]) -> String {
    let names = |list: &[DType]| list.iter().map(|d| d.name()).collect::<Vec<_>>().join(" ");
    let missing: Vec<DType> = allowed.iter().copied().filter(|d| !have.contains(d)).collect();
    match (have.len(), missing.len()) {
        (0, _) => "–".into(),
        (_, 0) => "all".into(),
        (h, m) if h > m => format!("all but {}", names(&missing)),
        _ => names(have),
    }
}

fn page() -> String {
    let (schemas, registry, cases, opencl) = (schemas(), ops::registry(), ops::cases(), ops::opencl_bindings());
    let target = Arc::new(Target::cpu(Arc::new(CpuBackend::new(Isa::SCALAR, ops::cpu_bindings()))));
    let (mut rows, mut domains) = (String::new(), BTreeMap::<&str, Vec<String>>::new());
    let (mut known, mut asked) = (0, 0);
    for def in registry.all() {
        let domain = if def.domain.is_empty() { "ai.onnx" } else { def.domain };
        let schema = schemas.get(&(domain.to_string(), def.name.to_string()));
        known += usize::from(schema.is_some());
        let mut own: Vec<Case> = cases.iter().filter(|c| c.domain == def.domain && c.op == def.name).cloned().collect();
        let guessed = own.is_empty();
        if guessed {
            own = guesses(def);
        }
        let types = schema.map_or(DType::ALL.to_vec(), |s| s.types.clone());
        let try_all = |takes: &dyn Fn(&Graph) -> bool| -> Vec<DType> {
            let with = |d: DType| {
                own.iter().any(|case| {
                    let first = case.inputs.iter().find_map(|i| match i {
                        CaseInput::Random(d, ..) => Some(*d),
                        CaseInput::Given(t) | CaseInput::Constant(t) => Some(t.dtype()),
                        CaseInput::Absent => None,
                    });
                    let same = |i: usize| match &case.inputs[i] {
                        CaseInput::Random(d, ..) => Some(*d) == first,
                        CaseInput::Given(t) | CaseInput::Constant(t) => Some(t.dtype()) == first,
                        CaseInput::Absent => false,
                    };
                    let swap = |i: usize| {
                        let here = match schema {
                            Some(s) => s.places.contains(&i) || s.all_after && s.places.last().is_some_and(|&l| i > l),
                            None => same(i),
                        };
                        here.then_some(d)
                    };
                    graph(def, case, swap).is_some_and(|g| takes(&g))
                })
            };
            types.iter().copied().filter(|&d| with(d)).collect()
        };
        let fixed = schema.is_some_and(|s| s.places.is_empty() || s.types.is_empty());
        let unasked = guessed && (fixed || try_all(&|g| cpu_takes(g, &target)).is_empty());
        let (cpu, gpu) = if unasked {
            ("not asked".to_string(), "not asked".to_string())
        } else if fixed {
            let any = |takes: &dyn Fn(&Graph) -> bool| {
                let yes = own.iter().any(|c| graph(def, c, |_| None).is_some_and(|g| takes(&g)));
                if yes { "yes".to_string() } else { "–".to_string() }
            };
            (any(&|g| cpu_takes(g, &target)), any(&|g| opencl_takes(g, &opencl)))
        } else {
            let cpu = try_all(&|g| cpu_takes(g, &target));
            // Beyond the standard there is no list of what could be missing.
            let allowed = if schema.is_some() { &types } else { &cpu };
            (words(&cpu, allowed), words(&try_all(&|g| opencl_takes(g, &opencl)), allowed))
        };
        asked += usize::from(!unasked);
        let first = def.versions.first().copied().unwrap_or(1);
        let older: Vec<String> =
            schema.map_or(Vec::new(), |s| s.versions.iter().filter(|&&v| v < first).map(u32::to_string).collect());
        let from = if older.is_empty() { first.to_string() } else { format!("{first} (not {})", older.join(", ")) };
        domains.entry(domain).or_default().push(format!("| {} | {from} | {cpu} | {gpu} |", def.name));
    }
    for (domain, list) in &domains {
        writeln!(rows, "\n## {domain}\n\n| operator | from version | CPU | OpenCL |\n| --- | --- | --- | --- |")
            .unwrap();
        list.iter().for_each(|r| writeln!(rows, "{r}").unwrap());
    }
    let missing: Vec<String> = schemas
        .keys()
        .filter(|(d, n)| registry.find(if d == "ai.onnx" { "" } else { d }, n).is_none())
        .map(|(d, n)| if d == "ai.onnx" { n.clone() } else { format!("{d}.{n}") })
        .collect();
    let missing = if missing.is_empty() { "nothing".to_string() } else { missing.join(", ") };
    format!(
        "# Operators\n\n\
         Written by `ORTX_BLESS=1 cargo test --test it operators::` from the operator table; do not edit.\n\n\
         {known} of the {} operators of onnx 1.23.2 that are not deprecated. **Missing:** {missing}.\n\n\
         *From version*: the oldest operator set whose form of it is understood; all newer ones are, as far as they change what it\n\
         means. *CPU*, *OpenCL*: the element types of its first type parameter, as far as the newest version of the standard has them\n\
         (all that bind, for operators beyond it). They are found by binding the operator's test cases with each type. *Not asked*\n\
         stands where there is no such case (control flow, sequences, what the suite of ONNX tests instead): {} of {}. OpenCL\n\
         devices may lack some types themselves; what a device does not take runs on the CPU. [types.md](types.md) has what ran on\n\
         the CPU of every type parameter, *not asked* included.\n{rows}",
        schemas.len(),
        registry.all().len() - asked,
        registry.all().len(),
    )
}

#[test]
fn the_page_of_operators_is_up_to_date() {
    let fresh = page();
    if std::env::var_os("ORTX_BLESS").is_some() {
        std::fs::write(PAGE, &fresh).unwrap();
    }
    let stored = std::fs::read_to_string(PAGE).unwrap_or_default();
    let line = fresh.lines().zip(stored.lines()).find(|(a, b)| a != b);
    assert!(
        fresh == stored,
        "{PAGE} is stale{}. Run ORTX_BLESS=1 cargo test --test it operators:: and commit it",
        line.map_or(String::new(), |(new, old)| format!(": it says\n  {old}\nand should say\n  {new}\n"))
    );
}
