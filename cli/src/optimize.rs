//! `ortx optimize`: writes an optimised model to a file.

use crate::args::{OptimizeArgs, Shape};
use crate::fail::Result;
use crate::inputs::input_index;
use crate::report::Report;
use crate::ui::{self, GOOD, Spinner};
use ortx::{Environment, ModelSource, session};
use serde_json::json;

/// Writes the model.
pub fn optimize(a: &OptimizeArgs) -> Result<Report> {
    let spinner = Spinner::start("optimising");
    let source = ModelSource::Path(a.model.clone());
    let (env, options, out) = (Environment::new(), a.session.options(), a.out.display().to_string());
    let size = || std::fs::metadata(&a.out).map_or(0, |m| m.len());
    if a.out.extension().is_some_and(|e| e == "ortx") {
        let inputs = session::inspect(&env, &source, options.mode)?.inputs;
        let named = |s: &Shape| -> Result<_> {
            let io = &inputs[input_index(&inputs, s.name.as_deref())?];
            Ok((io.name.to_string(), s.sizes.clone()))
        };
        let shapes = a.shape.iter().map(named).collect::<Result<Vec<_>>>()?;
        let written = session::compile(&env, &source, &options, &a.out, a.session.rebuild, &shapes)?;
        drop(spinner);
        let said = if written { "wrote" } else { "is current:" };
        let human = format!("{} {out} ({})\n", ui::paint(GOOD, said), ui::bytes(size()));
        return Ok(Report::new(human, json!({ "file": out, "bytes": size(), "written": written })));
    }
    let passes = session::write_optimized(&env, &source, &options, &a.out)?;
    drop(spinner);
    let bytes = size();
    let fired: Vec<_> = passes.iter().filter(|p| p.fired > 0).collect();
    let list: Vec<String> = fired.iter().map(|p| format!("{} {}", p.pass, p.fired)).collect();
    let list = if list.is_empty() { "nothing to do".into() } else { list.join(", ") };
    let human = format!("{} {out} ({}): {list}\n", ui::paint(GOOD, "wrote"), ui::bytes(bytes));
    let passes: Vec<_> = fired.iter().map(|p| json!({ "pass": p.pass, "fired": p.fired })).collect();
    Ok(Report::new(human, json!({ "file": out, "bytes": bytes, "passes": passes })))
}
