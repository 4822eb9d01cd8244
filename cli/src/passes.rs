//! `ortx inspect --passes`: how often each optimiser pass fired, and where it nearly did.

use crate::ui::{self, DIM, NAME, TITLE, Table};
use anstyle::Style;
use ortx::Session;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Near-misses of a kind of which nodes are shown.
const SHOWN: usize = 3;

/// The passes for people and for machines.
pub fn show(session: &Session, all: bool) -> (String, Value) {
    let reports = session.passes();
    let mut table = Table::new(&["pass", ">fired", ">missed"]);
    for r in reports {
        table.row([
            (r.pass.into(), NAME),
            (r.fired.to_string(), if r.fired == 0 { DIM } else { Style::new() }),
            (r.misses.len().to_string(), if r.misses.is_empty() { DIM } else { Style::new() }),
        ]);
    }
    let mut human = format!("{}\n{}", ui::paint(TITLE, "Passes"), table.render());
    for r in reports.iter().filter(|r| !r.misses.is_empty()) {
        human += &format!("\n{} {}\n", ui::paint(NAME, r.pass), ui::paint(DIM, "nearly fired"));
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for m in &r.misses {
            // CheckFailed: node 'name' (Op): reason
            let (node, why) = m.split_once("): ").unwrap_or(("", m));
            kinds.entry(why).or_default().push(node.trim_start_matches("CheckFailed: "));
        }
        for (why, nodes) in kinds {
            human += &format!("  CheckFailed: {why}\n");
            let shown = if all { nodes.len() } else { nodes.len().min(SHOWN) };
            nodes[..shown].iter().for_each(|n| human += &format!("      {n})\n"));
            if shown < nodes.len() {
                human += &ui::paint(DIM, format_args!("      and {} more (--all lists them)\n", nodes.len() - shown));
            }
        }
    }
    let list: Vec<_> =
        reports.iter().map(|r| json!({ "pass": r.pass, "fired": r.fired, "misses": r.misses })).collect();
    (human, json!(list))
}
