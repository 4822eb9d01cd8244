//! `ortx inspect`: what a model is made of, and all that is not supported.

use crate::args::InspectArgs;
use crate::fail::{Failure, Result};
use crate::report::Report;
use crate::ui::{self, BAD, DIM, GOOD, NAME, Spinner, TITLE, Table, WARN};
use crate::{inputs, passes, plan};
use anstyle::Style;
use ortx::import::{Gap, Reason};
use ortx::plan::{Check, Refusal};
use ortx::proto::source::Mode;
use ortx::session::{Inspection, Io, inspect as look};
use ortx::{Environment, ErrorKind, ModelSource, Session};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Nodes of one kind of problem that people are shown.
const SHOWN: usize = 3;

/// Looks into a model.
pub fn inspect(a: &InspectArgs) -> Result<Report> {
    let spinner = Spinner::start("reading");
    let (env, source) = (Environment::new(), ModelSource::Path(a.model.clone()));
    let found = look(&env, &source, Mode::default())?;
    let file_bytes = std::fs::metadata(&a.model).map_or(0, |m| m.len());
    let shapes = inputs::shapes(&found.inputs, &a.inputs)?;
    let mut verdict = Verdict { gaps: &found.gaps, fault: found.fault.as_ref().map(ToString::to_string), check: None };
    let (mut plan, mut optimised) = (None, None);
    if found.gaps.is_empty() && found.fault.is_none() {
        spinner.say("trying each node");
        match Session::new(&env, source, &a.session.options()) {
            Ok(session) => {
                ui::warn(&session);
                verdict.check = Some(session.check(&shapes)?);
                if a.passes {
                    optimised = Some(passes::show(&session, a.all));
                }
                if a.plan {
                    spinner.say("planning");
                    plan = Some(plan::show(&session, &a.inputs)?);
                }
            }
            // A device that is not there is the caller's affair, not the model's.
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::Device) => return Err(e.into()),
            Err(e) => verdict.fault = Some(e.to_string()),
        }
    }
    if a.plan && plan.is_none() || a.passes && optimised.is_none() {
        return Err(Failure::new("there is no plan: the model cannot be loaded")
            .hint("`ortx inspect MODEL` without --plan and --passes says why"));
    }
    drop(spinner);
    let (human, json) = match (optimised, plan) {
        (Some((one, passes)), Some((two, plan))) => {
            (one + "\n" + &two, json!({ "model": a.model.display().to_string(), "passes": passes, "plan": plan }))
        }
        (Some((human, json)), None) => (human, json!({ "model": a.model.display().to_string(), "passes": json })),
        (None, Some((human, json))) => (human, json!({ "model": a.model.display().to_string(), "plan": json })),
        (None, None) => {
            (describe(a, &found, file_bytes) + &verdict.human(a.all), to_json(a, &found, file_bytes, &verdict))
        }
    };
    let code = match &verdict.fault {
        _ if !a.check => 0,
        Some(_) => 10 + ErrorKind::InvalidModel as i32 as u8,
        None if verdict.is_good() => 0,
        None => 10 + ErrorKind::Unsupported as i32 as u8,
    };
    Ok(Report { human, json, code })
}

fn describe(a: &InspectArgs, f: &Inspection, file_bytes: u64) -> String {
    let m = &f.metadata;
    let mut s = format!(
        "{} {}\n",
        ui::paint(TITLE, a.model.display()),
        ui::paint(DIM, format_args!("({})", ui::bytes(file_bytes)))
    );
    let domain = |d: &str| if d.is_empty() { "ai.onnx".to_string() } else { d.to_string() };
    let opsets: Vec<String> = m.opsets.iter().map(|(d, v)| format!("{} {v}", domain(d))).collect();
    let producer = [m.producer.0.as_str(), m.producer.1.as_str()].join(" ").trim().to_string();
    let version = if m.version != 0 || !m.domain.is_empty() {
        format!("{} {}", m.domain, m.version).trim().to_string()
    } else {
        String::new()
    };
    let mut t = Table::new(&["", ""]);
    for (what, text) in [
        ("graph", m.graph_name.clone()),
        ("made by", producer),
        ("model version", version),
        ("format", format!("IR {}", m.ir_version)),
        ("operator sets", opsets.join(", ")),
        ("about", one_line(&m.doc)),
    ] {
        if !text.is_empty() {
            t.row([(what.into(), DIM), (text, Style::new())]);
        }
    }
    for (key, value) in &m.properties {
        t.row([(key.clone(), DIM), (one_line(value), Style::new())]);
    }
    s += &t.render();
    let open = ("Inputs with a default, which a run may override", &f.overridable);
    for (title, list) in [("Inputs", &f.inputs), open, ("Outputs", &f.outputs)] {
        if list.is_empty() && title == open.0 {
            continue;
        }
        let mut t = Table::new(&["", ""]);
        list.iter().for_each(|io| t.row([(io.name.to_string(), NAME), (io.fact.to_string(), Style::new())]));
        s += &format!("\n{}\n{}", ui::paint(TITLE, title), t.render());
    }
    let (elements, bytes): (u64, u64) =
        f.weights.iter().fold((0, 0), |n, w| (n.0.saturating_add(w.elements), n.1.saturating_add(w.bytes)));
    s += &format!(
        "\n{} {}\n",
        ui::paint(TITLE, "Parameters"),
        ui::paint(DIM, format_args!("{} ({})", ui::count(elements), ui::bytes(bytes)))
    );
    let mut t = Table::new(&["type", ">tensors", ">elements", ">size"]);
    for w in &f.weights {
        t.plain([w.dtype.to_string(), ui::count(w.tensors as u64), ui::count(w.elements), ui::bytes(w.bytes)]);
    }
    if !t.is_empty() {
        s += &t.render();
    }
    let nodes: usize = f.operators.iter().map(|o| o.nodes).sum();
    s += &format!("\n{} {}\n", ui::paint(TITLE, "Operators"), ui::paint(DIM, ui::plural(nodes, "node")));
    let mut t = Table::new(&["operator", ">version", ">nodes", ""]);
    for o in &f.operators {
        let name = if o.domain == "ai.onnx" { o.op.clone() } else { format!("{}::{}", o.domain, o.op) };
        let (mark, style) = match (o.known, o.function) {
            (_, true) => ("function of the model", DIM),
            (true, _) => ("", Style::new()),
            (false, _) => ("not supported", BAD),
        };
        let version = o.version.map_or("-".into(), |v| v.to_string());
        t.row([
            (name, if o.known { NAME } else { BAD }),
            (version, Style::new()),
            (o.nodes.to_string(), Style::new()),
            (mark.into(), style),
        ]);
    }
    s + &t.render()
}

/// The first line of a text, shortened.
fn one_line(text: &str) -> String {
    let line = text.lines().next().unwrap_or("");
    let short: String = line.chars().take(100).collect();
    if short.len() < text.trim_end().len() { format!("{short} ..") } else { short }
}

/// What stands against running the model.
struct Verdict<'a> {
    gaps: &'a [Gap],
    fault: Option<String>,
    check: Option<Check>,
}

impl Verdict<'_> {
    fn refusals(&self) -> &[Refusal] {
        self.check.as_ref().map_or(&[], |c| &c.refusals)
    }

    fn is_good(&self) -> bool {
        self.gaps.is_empty() && self.fault.is_none() && self.refusals().is_empty()
    }

    fn human(&self, all: bool) -> String {
        if let Some(fault) = &self.fault {
            return format!("\n{} {fault}\n", ui::paint(BAD, "The model cannot be loaded:"));
        }
        if self.is_good() {
            let open = self.check.as_ref().map_or(0, |c| c.open);
            let remark = match open {
                0 => String::new(),
                n => format!(
                    " {}\n",
                    ui::paint(
                        DIM,
                        format_args!(
                            "(the sizes that {} will meet are not known: --shape or --dim says more)",
                            ui::plural(n, "node")
                        )
                    )
                ),
            };
            return format!(
                "\n{}{}",
                ui::paint(GOOD, "Everything is supported."),
                if remark.is_empty() { "\n".into() } else { remark }
            );
        }
        let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for g in self.gaps {
            let what = match &g.reason {
                Reason::Unknown { domain, .. } | Reason::TooOld { domain, .. } => {
                    format!("{domain}::{} ({})", g.op, g.reason)
                }
                Reason::Refused(message) => format!("{}: {message}", g.op),
            };
            kinds.entry(what).or_default().push(g.node.clone());
        }
        for r in self.refusals() {
            kinds.entry(format!("{}: {}", r.op, r.message)).or_default().push(format!(
                "{} of {}",
                r.node,
                r.inputs.join(", ")
            ));
        }
        let n = self.gaps.len() + self.refusals().len();
        let mut s = format!("\n{} {}\n", ui::paint(BAD, "Not supported"), ui::paint(DIM, ui::plural(n, "node")));
        for (what, nodes) in kinds {
            s += &format!("  {}\n", ui::paint(WARN, what));
            let shown = if all { nodes.len() } else { nodes.len().min(SHOWN) };
            nodes[..shown].iter().for_each(|n| s += &format!("      {n}\n"));
            if shown < nodes.len() {
                s += &ui::paint(DIM, format_args!("      and {} more (--all lists them)\n", nodes.len() - shown));
            }
        }
        s
    }

    fn json(&self) -> Value {
        let gaps: Vec<_> = self
            .gaps
            .iter()
            .map(|g| {
                let (reason, domain, version, oldest) = match &g.reason {
                    Reason::Unknown { domain, version } => ("unknown operator", Some(domain), *version, None),
                    Reason::TooOld { domain, version, oldest } => {
                        ("too old", Some(domain), Some(*version), Some(*oldest))
                    }
                    Reason::Refused(_) => ("refused", None, None, None),
                };
                json!({
                    "node": g.node, "op": g.op, "reason": reason, "domain": domain, "version": version,
                    "oldest_version": oldest, "message": g.reason.to_string(),
                })
            })
            .collect();
        let refusals: Vec<_> = self
            .refusals()
            .iter()
            .map(|r| json!({ "node": r.node, "op": r.op, "inputs": r.inputs, "message": r.message }))
            .collect();
        json!({
            "supported": self.is_good(),
            "fault": self.fault,
            "gaps": gaps,
            "refusals": refusals,
            "nodes_fine": self.check.as_ref().map(|c| c.fine),
            "nodes_open": self.check.as_ref().map(|c| c.open),
        })
    }
}

/// An input or output for machines; `null` stands for sizes that are unknown.
fn io_json(io: &Io) -> Value {
    let dims = io.fact.as_tensor().and_then(|t| t.dims.as_ref());
    let shape = dims.map(|dims| {
        let size = |d: &ortx::ir::Dim| match d.known() {
            Some(n) => json!(n),
            None => Some(d.to_string()).filter(|s| s != "?").map_or(Value::Null, Value::from),
        };
        dims.iter().map(size).collect::<Vec<_>>()
    });
    json!({ "name": &*io.name, "type": io.fact.to_string(), "dtype": io.fact.dtype().map(|d| d.name()), "shape": shape })
}

fn to_json(a: &InspectArgs, f: &Inspection, file_bytes: u64, verdict: &Verdict) -> Value {
    let m = &f.metadata;
    let opsets: serde_json::Map<String, Value> =
        m.opsets.iter().map(|(d, v)| (if d.is_empty() { "ai.onnx".into() } else { d.clone() }, json!(v))).collect();
    let properties: serde_json::Map<String, Value> = m.properties.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
    let operators: Vec<_> = f
        .operators
        .iter()
        .map(|o| {
            json!({ "domain": o.domain, "op": o.op, "version": o.version, "nodes": o.nodes, "function": o.function, "supported": o.known })
        })
        .collect();
    let weights: Vec<_> = f
        .weights
        .iter()
        .map(|w| json!({ "dtype": w.dtype.name(), "tensors": w.tensors, "elements": w.elements, "bytes": w.bytes }))
        .collect();
    json!({
        "model": a.model.display().to_string(),
        "file_bytes": file_bytes,
        "ir_version": m.ir_version,
        "producer": m.producer.0,
        "producer_version": m.producer.1,
        "graph": m.graph_name,
        "domain": m.domain,
        "model_version": m.version,
        "doc": m.doc,
        "opsets": opsets,
        "metadata": properties,
        "inputs": f.inputs.iter().map(io_json).collect::<Vec<_>>(),
        "outputs": f.outputs.iter().map(io_json).collect::<Vec<_>>(),
        "inputs_with_default": f.overridable.iter().map(io_json).collect::<Vec<_>>(),
        "operators": operators,
        "parameters": weights,
        "support": verdict.json(),
    })
}
