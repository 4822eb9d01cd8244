//! `ortx run --verify-passes`: the answers after each optimiser pass against those of the graph as the model has it.

use crate::args::RunArgs;
use crate::fail::Result;
use crate::inputs;
use crate::report::{Report, number};
use crate::run::{difference, flatten, noise};
use crate::ui::{self, BAD, DIM, GOOD, NAME, Spinner, TITLE, Table};
use anstyle::Style;
use ortx::ir::{Graph, Node};
use ortx::session::Io;
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use serde_json::json;

/// Differences up to this part of an output's largest number are roundings in another order.
const ROUNDING: f64 = 1e-3;

/// What rounding may make of a model that quantises what it computes, by root mean square: a number that lies between two steps of
/// a quantisation goes to the other one, and the layers after it carry that on. For noise as pictures integers in the place of
/// floats make 0.8 % of a resnet50, 1.5 % of a mobilenet_v2, 0.9 to 6.3 % of a mobilenet_v3, whose largest difference is 13 % of the
/// largest number; a Gelu that differs in its last digit makes 3 % of a BERT quantised as it runs. (A zero point off by 4 of 256 in
/// one layer, or a scale by a tenth, makes 2 to 5 % of the first two and 7 to 17 % of the last: less is for the tests of single
/// steps.)
const NOISE: f64 = 0.1;

/// Whether floats become steps of integers somewhere in a model.
fn quantises(g: &Graph) -> bool {
    let makes_steps = |n: &Node| {
        let inner = n.op.subgraphs().into_iter().any(quantises);
        inner || ["Quantize", "DynamicQuantize"].iter().any(|p| n.op.name().starts_with(p))
    };
    g.nodes().any(|(_, n)| makes_steps(n))
}

/// Runs the model with one pass more each time.
pub fn verify(a: &RunArgs) -> Result<Report> {
    let spinner = Spinner::start("running as the model has it");
    let env = Environment::new();
    let load = |options: &SessionOptions| Session::new(&env, ModelSource::Path(a.model.clone()), options);
    let plain = load(&SessionOptions { optimize: false, ..a.session.options() })?;
    ui::warn(&plain);
    let values = inputs::gather(&plain, &a.inputs, a.random)?;
    let run = |s: &Session| -> Result<Vec<Option<Value>>> {
        let mut outputs = vec![None; s.outputs().len()];
        s.run_values(&values, &mut outputs, &RunOptions::default())?;
        Ok(outputs)
    };
    let mut want = run(&plain)?;
    let in_steps = quantises(plain.program().graph());
    let off = &a.session.without_pass;
    let names = ortx::optimize::passes::all().into_iter().map(|p| p.name()).filter(|n| !off.iter().any(|d| d == n));
    let mut stages: Vec<(String, Option<String>)> = names.map(|n| (n.into(), Some(n.into()))).collect();
    stages.push(("all, until nothing changes".into(), a.session.stop_after.clone()));
    let mut table = Table::new(&["after pass", ">fired", ">difference", ""]);
    let (mut list, mut first) = (Vec::new(), None);
    for (name, stop_after) in stages {
        spinner.say(&name);
        let session = load(&SessionOptions { optimize: true, strict_passes: true, stop_after, ..a.session.options() })?;
        let fired: usize = match session.passes().iter().find(|r| r.pass == name) {
            Some(r) => r.fired,
            None => session.passes().iter().map(|r| r.fired).sum(),
        };
        let got = run(&session)?;
        let apart = |measure| worst(plain.outputs(), &want, &got, measure);
        let mut worst = apart(difference)?;
        let steps = in_steps && matches!(worst, Ok(d) if d > ROUNDING);
        if steps {
            worst = apart(noise)?;
        }
        let bound = if steps { NOISE } else { ROUNDING };
        let good = matches!(worst, Ok(d) if d <= bound);
        if !good && first.is_none() {
            first = Some(name.clone());
        }
        let (text, style) = match &worst {
            Ok(d) => (format!("{d:.1e}"), if good { Style::new() } else { BAD }),
            Err(e) => (e.clone(), BAD),
        };
        table.row([
            (name.clone(), NAME),
            (fired.to_string(), if fired == 0 { DIM } else { Style::new() }),
            (text, style),
            match (good, steps) {
                (false, _) => ("differs".into(), BAD),
                (true, true) => {
                    ("steps of a quantisation, by root mean square; what follows is compared with them".into(), DIM)
                }
                (true, false) => ("".into(), BAD),
            },
        ]);
        let worst = worst.map_or_else(|e| e.into(), number);
        if steps && good {
            want = got;
        }
        list.push(json!({ "pass": name, "fired": fired, "difference": worst, "good": good }));
    }
    drop(spinner);
    let mut human =
        format!("{}\n{}", ui::paint(TITLE, "Difference by the largest number of an output"), table.render());
    human += &match &first {
        None => format!("\n{}\n", ui::paint(GOOD, "No pass changes the answers beyond rounding.")),
        Some(p) => format!("\n{} {p}\n", ui::paint(BAD, "The first pass that changes the answers:")),
    };
    let code = u8::from(first.is_some());
    let json = json!({ "model": a.model.display().to_string(), "passes": list, "first_bad": first });
    Ok(Report { human, json, code })
}

/// A measure of two tensors' differences.
type Measure = fn(&Tensor, &Tensor) -> std::result::Result<f64, String>;

/// The largest difference of all outputs, each by its own size; or what cannot be compared.
fn worst(
    outputs: &[Io],
    want: &[Option<Value>],
    got: &[Option<Value>],
    measure: Measure,
) -> Result<std::result::Result<f64, String>> {
    let mut worst = 0.0f64;
    for ((io, w), g) in outputs.iter().zip(want).zip(got) {
        let (mut ws, mut gs) = (Vec::new(), Vec::new());
        w.iter().for_each(|v| flatten(&io.name, v, &mut ws));
        g.iter().for_each(|v| flatten(&io.name, v, &mut gs));
        if ws.len() != gs.len() {
            return Ok(Err(format!("output '{}' has another structure", io.name)));
        }
        for ((_, w), (_, g)) in ws.iter().zip(&gs) {
            // Against nothing but zeros the difference is the output's own size.
            let zeros = Tensor::zeroed(w.dtype(), w.shape())?;
            let size = measure(w, &zeros).ok().filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0);
            match measure(g, w) {
                Ok(d) => worst = worst.max(d / size),
                Err(e) => return Ok(Err(e)),
            }
        }
    }
    Ok(Ok(worst))
}
