//! `ortx run --verify-passes`: the answers after each optimiser pass against those of the graph as the model has it.

use crate::args::RunArgs;
use crate::fail::Result;
use crate::inputs;
use crate::report::{Report, number};
use crate::run::{difference, flatten, noise};
use crate::ui::{self, BAD, DIM, GOOD, NAME, Spinner, TITLE, Table};
use anstyle::Style;
use ortx::{Environment, ModelSource, RunOptions, Session, SessionOptions, Value};
use serde_json::json;

/// Differences up to this part of an output's largest number are roundings in another order.
const ROUNDING: f64 = 1e-3;

/// What integers in the place of floats may make of it, by root mean square: a sum that lies between two steps of a quantisation
/// goes to the other one, and the layers after it carry that on. For noise as pictures it is 0.8 % of a resnet50, 1.5 % of a
/// mobilenet_v2, 0.9 to 6.3 % of a mobilenet_v3, whose largest difference is 13 % of the largest number. (A zero point off by 4
/// of 256 in one layer, or a scale by a tenth, makes 2 to 5 % of the first two and 7 to 17 % of the last: less is for the tests of
/// single steps.) What follows is compared with the integers' answers.
const NOISE: f64 = 0.1;

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
        let integers = name == "quantised" && fired > 0;
        let (measure, bound): (fn(&_, &_) -> _, _) = if integers { (noise, NOISE) } else { (difference, ROUNDING) };
        let mut worst: std::result::Result<f64, String> = Ok(0.0);
        for ((io, w), g) in plain.outputs().iter().zip(&want).zip(&got) {
            let (mut ws, mut gs) = (Vec::new(), Vec::new());
            w.iter().for_each(|v| flatten(&io.name, v, &mut ws));
            g.iter().for_each(|v| flatten(&io.name, v, &mut gs));
            if ws.len() != gs.len() {
                worst = Err(format!("output '{}' has another structure", io.name));
                break;
            }
            for ((_, w), (_, g)) in ws.iter().zip(&gs) {
                // Against nothing but zeros the difference is the output's largest number.
                let zeros = ortx::Tensor::zeroed(w.dtype(), w.shape())?;
                let size = measure(w, &zeros).ok().filter(|s| s.is_finite() && *s > 0.0).unwrap_or(1.0);
                worst = match (worst, measure(g, w)) {
                    (Ok(a), Ok(b)) => Ok(a.max(b / size)),
                    (Err(e), _) | (_, Err(e)) => Err(e),
                };
            }
        }
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
            match (good, integers) {
                (false, _) => ("differs".into(), BAD),
                (true, true) => {
                    ("steps of integers, by root mean square; what follows is compared with them".into(), DIM)
                }
                (true, false) => ("".into(), BAD),
            },
        ]);
        let worst = worst.map_or_else(|e| e.into(), number);
        list.push(json!({ "pass": name, "fired": fired, "difference": worst, "good": good }));
        if integers {
            want = got;
        }
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
