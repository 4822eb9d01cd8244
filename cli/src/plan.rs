//! `ortx inspect --plan`: the steps that a model runs for inputs of given sizes.

use crate::args::InputArgs;
use crate::fail::Result;
use crate::inputs;
use crate::ui::{self, DIM, NAME, TITLE, Table};
use anstyle::Style;
use ortx::backend::Layout;
use ortx::base::parallel::Serial;
use ortx::ir::NodeId;
use ortx::plan::{Cost, Item, Program, Segment, Slot, SlotKind};
use ortx::{RunOptions, Session};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// The plan for people and for machines.
pub fn show(session: &Session, args: &InputArgs) -> Result<(String, Value)> {
    let values = inputs::gather(session, args, true)?;
    let program = session.program();
    let first = program.first_segment(&values, &Serial)?;
    let mut rest = None;
    if first.tail.is_some() {
        // What follows hangs on values that only a run gives.
        let mut outputs = vec![None; session.outputs().len()];
        rest = Some(session.run_values(&values, &mut outputs, &RunOptions::default()));
    }
    let mut segments: Vec<Arc<Segment>> = vec![first];
    while let Some(next) = segments.last().and_then(|s| program.after(s)) {
        segments.push(next);
    }
    let mut human = String::new();
    let mut list = Vec::new();
    for (i, s) in segments.iter().enumerate() {
        let (h, j) = segment(program, s, i, segments.len());
        human += &h;
        list.push(j);
    }
    if let Some(Err(e)) = rest {
        human += &ui::paint(
            DIM,
            format_args!("\nwhat follows could not be planned, as the made-up inputs do not run: {e}\n"),
        );
    }
    let without = without_step(program, &segments);
    if !without.is_empty() {
        let counts: Vec<String> = without.iter().map(|(op, n)| format!("{n} {op}")).collect();
        let counts = counts.join(", ");
        human +=
            &ui::paint(DIM, format_args!("\nwithout a step (planning computes them, or nothing moves): {counts}\n"));
    }
    Ok((human, json!({ "segments": list, "without_step": without })))
}

/// How many nodes of each operator have no step: what hangs on sizes alone is computed by planning, views move nothing.
fn without_step<'a>(program: &'a Program, segments: &[Arc<Segment>]) -> BTreeMap<&'a str, usize> {
    let node = |i: &Item| match i {
        Item::Step(s) => Some(s.node),
        Item::Eager(d) | Item::Control(d) => Some(d.node),
        Item::CopyIn { .. } | Item::CopyOut { .. } => None,
    };
    let with: HashSet<NodeId> = segments.iter().flat_map(|s| s.items.iter().filter_map(node)).collect();
    let mut counts = BTreeMap::new();
    for id in program.graph().order().iter().filter(|id| !with.contains(id)) {
        *counts.entry(program.graph().node(*id).op.name()).or_insert(0) += 1;
    }
    counts
}

fn layout(l: Layout) -> String {
    match l {
        Layout::Dense => "dense".into(),
        Layout::Blocked(c) => format!("blocked({c})"),
    }
}

fn segment(program: &Program, s: &Segment, number: usize, of: usize) -> (String, Value) {
    let target = program.target();
    let mut table =
        Table::new(&[">", "node", "operator", "kernel", "on", "result", "layout", "place", ">bytes", ">flops"]);
    let mut list = Vec::new();
    let mut total = Cost::default();
    for (i, item) in s.items.iter().enumerate() {
        let (node, kernel) = program.item_names(item);
        let cost = program.cost(s, item);
        total.flops += cost.flops;
        total.read += cost.read;
        total.written += cost.written;
        let (name, op) = node.map_or(("", ""), |n| (&*n.name, n.op.name()));
        let workspace = if let Item::Step(x) = item { x.step.workspace_bytes() } else { 0 };
        let (backend, slots): (&str, Vec<u32>) = match item {
            Item::Step(x) => (target.backend(x.backend).name(), x.outputs.to_vec()),
            Item::CopyIn { backend, to, .. } | Item::CopyOut { backend, to, .. } => {
                (target.backend(*backend).name(), vec![*to])
            }
            Item::Eager(x) | Item::Control(x) => (target.backend(target.cpu_index()).name(), x.outputs.to_vec()),
        };
        let results: Vec<Placed> = slots.iter().filter_map(|&k| Placed::of(s, k)).collect();
        let empty = Placed { kind: "values of the run".into(), ..Placed::default() };
        for (k, r) in results.iter().chain(results.is_empty().then_some(&empty)).enumerate() {
            let text = |x: &str| (if k == 0 { x.to_string() } else { String::new() }, Style::new());
            table.row([
                (text(&i.to_string()).0, DIM),
                (text(name).0, NAME),
                text(op),
                text(kernel),
                text(backend),
                (r.what.clone(), Style::new()),
                (r.layout.clone(), Style::new()),
                (r.place(), Style::new()),
                (r.bytes.map(|b| ui::count(b as u64)).unwrap_or_default(), Style::new()),
                (if k == 0 && cost.flops > 0 { ui::count(cost.flops) } else { String::new() }, Style::new()),
            ]);
        }
        list.push(json!({
            "node": name,
            "op": op,
            "kernel": kernel,
            "backend": backend,
            "flops": cost.flops,
            "bytes_read": cost.read,
            "bytes_written": cost.written,
            "workspace_bytes": workspace,
            "results": results.iter().map(Placed::json).collect::<Vec<_>>(),
        }));
    }
    let title = if of == 1 { "Plan".to_string() } else { format!("Plan, segment {} of {of}", number + 1) };
    let (arena, needed) = (s.arena.first().copied().unwrap_or(0), s.needed());
    let about = format!(
        "{}, arena {} ({:.2} of the largest live set, {}), workspace {}, scratch {} a thread; about {} operations, {} \
         read, {} written",
        ui::plural(s.items.len(), "step"),
        ui::bytes(arena as u64),
        arena as f64 / needed.live.max(1) as f64,
        ui::bytes(needed.live as u64),
        ui::bytes(needed.workspace as u64),
        ui::bytes(s.scratch as u64),
        ui::count(total.flops),
        ui::bytes(total.read),
        ui::bytes(total.written)
    );
    let mut human = format!(
        "{}{} {}\n{}",
        if number > 0 { "\n" } else { "" },
        ui::paint(TITLE, title),
        ui::paint(DIM, about),
        table.render()
    );
    let mut watched = Vec::new();
    if let Some(tail) = &s.tail {
        for (v, contents) in &tail.watch {
            watched.push(json!({ "value": &*program.graph().value(*v).name, "contents": contents }));
            let what = if *contents { "contents" } else { "size" };
            let name = &program.graph().value(*v).name;
            human += &ui::paint(DIM, format_args!("  what follows hangs on the {what} of '{name}'\n"));
        }
    }
    let json = json!({
        "arena_bytes": s.arena, "live_bytes": needed.live, "workspace_bytes": needed.workspace,
        "scratch_bytes": s.scratch, "flops": total.flops, "bytes_read": total.read, "bytes_written": total.written,
        "steps": list, "watches": watched,
    });
    (human, json)
}

/// Where a step's result lies.
#[derive(Default)]
struct Placed {
    what: String,
    layout: String,
    kind: String,
    offset: Option<usize>,
    bytes: Option<usize>,
    view: bool,
}

impl Placed {
    fn of(s: &Segment, k: u32) -> Option<Placed> {
        let slot = s.slots.get(k as usize)?;
        let within = Slot::place(&s.slots, k);
        let (kind, offset) = match &s.slots[within.root as usize].kind {
            SlotKind::Arena(at) => ("arena".to_string(), Some(at + within.offset)),
            SlotKind::Output(i) => (format!("output {i}"), None),
            SlotKind::Input(i) => (format!("input {i}"), None),
            SlotKind::Constant(_) => ("constant".into(), None),
            SlotKind::Dynamic => ("value of the run".into(), None),
            SlotKind::Carried(_) => ("earlier segment".into(), None),
            SlotKind::Unused => ("nowhere".into(), None),
        };
        let shape: Vec<String> = slot.shape.iter().map(usize::to_string).collect();
        Some(Placed {
            what: format!("{}[{}]", slot.dtype, shape.join(",")),
            layout: layout(slot.layout),
            kind,
            offset,
            bytes: Some(slot.bytes),
            view: slot.within.is_some(),
        })
    }

    fn place(&self) -> String {
        let offset = self.offset.map_or(String::new(), |o| format!(" +{o}"));
        format!("{}{offset}{}", self.kind, if self.view { " (shared)" } else { "" })
    }

    fn json(&self) -> Value {
        json!({
            "type": self.what, "layout": self.layout, "place": self.kind, "offset": self.offset, "bytes": self.bytes,
            "shared": self.view,
        })
    }
}
