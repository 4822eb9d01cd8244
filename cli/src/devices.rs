//! `ortx devices`: what models can run on.

use crate::args::DevicesArgs;
use crate::fail::Result;
use crate::report::Report;
use crate::ui::{self, DIM, NAME, Table};
use anstyle::Style;
use ortx::Environment;
use ortx::base::cores::available_cores;
use ortx::kernels::isa::Isa;
use serde_json::json;

/// Lists them.
pub fn devices(_: &DevicesArgs) -> Result<Report> {
    let mut all = vec![("cpu".to_string(), describe_cpu())];
    let others = {
        let _spinner = ui::Spinner::start("looking for devices");
        Environment::new().devices()?
    };
    all.extend(others.into_iter().map(|d| (d.name, d.description)));
    let mut table = Table::new(&["device", "description"]);
    for (name, description) in &all {
        table.row([(name.clone(), NAME), (description.clone(), Style::new())]);
    }
    let mut human = table.render();
    if all.len() == 1 {
        human += &ui::paint(DIM, "  (no OpenCL device was found)\n");
    }
    let list: Vec<_> =
        all.iter().map(|(name, description)| json!({ "name": name, "description": description })).collect();
    Ok(Report::new(human, json!({ "devices": list })))
}

fn describe_cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |m| m.1.trim());
    let n = available_cores();
    format!("{model} ({}, {})", ui::plural(n, "core"), Isa::detect().level().name())
}
