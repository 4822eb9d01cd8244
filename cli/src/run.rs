//! `ortx run`: a model once, its outputs shown or saved.

use crate::args::RunArgs;
use crate::fail::Result;
use crate::report::{Report, number};
use crate::ui::{self, BAD, DIM, GOOD, NAME, Spinner, Table};
use crate::{inputs, npz, testdata, verify};
use anstyle::Style;
use ortx::tensor::{decode_narrow, unpack_bits};
use ortx::{DType, Environment, ModelSource, RunOptions, Session, Tensor, Value};
use serde_json::json;
use std::time::Instant;

/// Values of an output up to which JSON holds them.
const MAX_JSON: usize = 1000;

/// Runs the model.
pub fn run(a: &RunArgs) -> Result<Report> {
    if a.verify_passes {
        return verify::verify(a);
    }
    let spinner = Spinner::start("loading");
    let t = Instant::now();
    let session = Session::new(&Environment::new(), ModelSource::Path(a.model.clone()), &a.session.options())?;
    let load_ms = t.elapsed().as_secs_f64() * 1e3;
    ui::warn(&session);
    spinner.say("reading inputs");
    let values = inputs::gather(&session, &a.inputs, a.random)?;
    spinner.say("running");
    let mut outputs = vec![None; session.outputs().len()];
    let t = Instant::now();
    session.run_values(&values, &mut outputs, &RunOptions::default())?;
    let run_ms = t.elapsed().as_secs_f64() * 1e3;

    let mut tensors = Vec::new();
    for (io, v) in session.outputs().iter().zip(&outputs) {
        if let Some(v) = v {
            flatten(&io.name, v, &mut tensors);
        }
    }
    let wanted = match &a.inputs.test_data {
        Some(dir) => testdata::read(dir, "output", session.outputs())?,
        None => Vec::new(),
    };
    let mut wanted_tensors = Vec::new();
    session.outputs().iter().zip(&wanted).for_each(|(io, v)| flatten(&io.name, v, &mut wanted_tensors));
    if let Some(path) = &a.out {
        spinner.say("writing");
        npz::write(path, &tensors, a.compress)?;
    }
    drop(spinner);

    let mut titles = vec!["output", "type", ">min", ">max", ">mean", "values"];
    if !wanted.is_empty() {
        titles.insert(5, "difference");
    }
    let mut table = Table::new(&titles);
    let mut list = Vec::new();
    for (name, t) in &tensors {
        let s = Summary::of(t);
        let stat = |x: Option<f64>| (x.map_or(String::new(), short), Style::new());
        let all = s.preview.len() == t.len();
        let preview = format!("{}{}", s.preview.join(" "), if all { "" } else { " .." });
        let difference = wanted_tensors.iter().find(|w| w.0 == *name).map(|w| difference(t, w.1));
        let mut row =
            vec![(name.clone(), NAME), (format!("{t:?}"), Style::new()), stat(s.min), stat(s.max), stat(s.mean)];
        if !wanted.is_empty() {
            row.push(match &difference {
                None => ("-".into(), DIM),
                Some(Ok(d)) if *d == 0.0 => ("none".into(), GOOD),
                Some(Ok(d)) => (short(*d), Style::new()),
                Some(Err(e)) => (e.clone(), BAD),
            });
        }
        row.push((preview, DIM));
        table.row(row);
        list.push(json!({
            "name": name,
            "dtype": t.dtype().name(),
            "shape": t.shape(),
            "min": s.min.map(number),
            "max": s.max.map(number),
            "mean": s.mean.map(number),
            "difference": difference.as_ref().map(|d| match d {
                Ok(d) => number(*d),
                Err(e) => e.as_str().into(),
            }),
            "values": (t.len() <= MAX_JSON).then(|| values_json(t)),
        }));
    }
    let mut human = table.render();
    human += &format!("\n  loaded in {}, ran in {}\n", ui::time(load_ms), ui::time(run_ms));
    if let Some(path) = &a.out {
        let n = ui::plural(tensors.len(), "array");
        human += &format!("  {} {n} to {}\n", ui::paint(GOOD, "wrote"), path.display());
    }
    Ok(Report::new(
        human,
        json!({
            "model": a.model.display().to_string(),
            "load_ms": load_ms,
            "run_ms": run_ms,
            "outputs": list,
            "out": a.out.as_ref().map(|p| p.display().to_string()),
        }),
    ))
}

/// The tensors in a value, each with a name of its own.
pub fn flatten<'a>(name: &str, v: &'a Value, out: &mut Vec<(String, &'a Tensor)>) {
    match v {
        Value::Tensor(t) => out.push((name.to_string(), t)),
        Value::Sequence(s) => s.iter().enumerate().for_each(|(i, v)| flatten(&format!("{name}.{i}"), v, out)),
        Value::Optional(o) => o.iter().for_each(|v| flatten(name, v, out)),
        Value::Map(m) => {
            out.push((format!("{name}.keys"), &m.keys));
            flatten(&format!("{name}.values"), &m.values, out);
        }
    }
}

/// The largest difference of two elements, or why they cannot be compared. NaN equals NaN, infinity infinity.
pub fn difference(got: &Tensor, want: &Tensor) -> std::result::Result<f64, String> {
    // A NaN on one side only stays.
    Ok(apart(got, want)?.into_iter().fold(0.0, |largest, d| if d > largest || d.is_nan() { d } else { largest }))
}

/// The root of the mean square of the differences.
pub fn noise(got: &Tensor, want: &Tensor) -> std::result::Result<f64, String> {
    let all = apart(got, want)?;
    Ok((all.iter().map(|d| d * d).sum::<f64>() / all.len().max(1) as f64).sqrt())
}

/// How far elements are apart.
fn apart(got: &Tensor, want: &Tensor) -> std::result::Result<Vec<f64>, String> {
    if (got.dtype(), got.shape()) != (want.dtype(), want.shape()) {
        return Err(format!("{want:?} is expected"));
    }
    if got.dtype() == DType::String {
        let same = got.as_strings().ok() == want.as_strings().ok();
        return if same { Ok(Vec::new()) } else { Err("other strings are expected".into()) };
    }
    let all = |t: &Tensor| {
        let mut v = Vec::with_capacity(t.len());
        numbers(t, |x, im| v.extend([x].into_iter().chain(im)));
        v
    };
    let apart = |(a, b): (f64, f64)| if a == b || a.is_nan() && b.is_nan() { 0.0 } else { (a - b).abs() };
    Ok(all(got).into_iter().zip(all(want)).map(apart).collect())
}

struct Summary {
    min: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    preview: Vec<String>,
}

impl Summary {
    fn of(t: &Tensor) -> Summary {
        const PREVIEW: usize = 6;
        if let Ok(s) = t.as_strings() {
            return Summary {
                min: None,
                max: None,
                mean: None,
                preview: s.iter().take(PREVIEW).map(|s| format!("{s:?}")).collect(),
            };
        }
        let (mut min, mut max, mut sum, mut n) = (f64::INFINITY, f64::NEG_INFINITY, 0.0, 0usize);
        let mut preview = Vec::new();
        let exact = t.dtype().is_int() || t.dtype() == DType::Bool;
        let real = numbers(t, |x, im| {
            (min, max) = (min.min(x), max.max(x));
            sum += x;
            n += 1;
            if preview.len() < PREVIEW {
                preview.push(match im {
                    Some(im) => format!("{}{}{}i", short(x), if im < 0.0 { "" } else { "+" }, short(im)),
                    None if exact => format!("{x}"),
                    None => short(x),
                });
            }
        });
        let some = |x: f64| (real && n > 0).then_some(x);
        Summary { min: some(min), max: some(max), mean: some(sum / n.max(1) as f64), preview }
    }
}

/// Gives each element as a number (and its imaginary part); says whether they are real.
fn numbers(t: &Tensor, mut f: impl FnMut(f64, Option<f64>)) -> bool {
    macro_rules! all {
        ($t:ty) => {
            t.as_slice::<$t>().unwrap_or_default().iter().for_each(|&x| f(x as f64, None))
        };
    }
    let f64s = |b: &[u8]| b.first_chunk().map_or(0.0, |c| f64::from_le_bytes(*c));
    let f32s = |b: &[u8]| b.first_chunk().map_or(0.0, |c| f64::from(f32::from_le_bytes(*c)));
    match t.dtype() {
        DType::F32 => all!(f32),
        DType::F64 => all!(f64),
        DType::I8 => all!(i8),
        DType::I16 => all!(i16),
        DType::I32 => all!(i32),
        DType::I64 => all!(i64),
        DType::U8 => all!(u8),
        DType::U16 => all!(u16),
        DType::U32 => all!(u32),
        DType::U64 => all!(u64),
        DType::Bool => t.bytes().iter().for_each(|&b| f(f64::from(b), None)),
        DType::F16 => t.as_slice::<half::f16>().unwrap_or_default().iter().for_each(|x| f(x.to_f64(), None)),
        DType::BF16 => t.as_slice::<half::bf16>().unwrap_or_default().iter().for_each(|x| f(x.to_f64(), None)),
        DType::C64 => t.bytes().chunks_exact(8).for_each(|c| f(f32s(c), Some(f32s(&c[4..])))),
        DType::C128 => t.bytes().chunks_exact(16).for_each(|c| f(f64s(c), Some(f64s(&c[8..])))),
        DType::String => {}
        d if d.is_packed() => unpack_bits(d, t.bytes(), t.len(), |_, b| f(f64::from(decode_narrow(d, b)), None)),
        d => t.bytes().iter().for_each(|&b| f(f64::from(decode_narrow(d, b)), None)),
    }
    !matches!(t.dtype(), DType::C64 | DType::C128 | DType::String)
}

fn values_json(t: &Tensor) -> serde_json::Value {
    if let Ok(s) = t.as_strings() {
        return json!(s);
    }
    // 64-bit integers pass the floats' exact range.
    if let Ok(v) = t.as_slice::<i64>() {
        return json!(v);
    }
    if let Ok(v) = t.as_slice::<u64>() {
        return json!(v);
    }
    if t.dtype() == DType::Bool {
        return t.bytes().iter().map(|&b| json!(b != 0)).collect();
    }
    let exact = t.dtype().is_int();
    let mut all = Vec::with_capacity(t.len());
    numbers(t, |x, im| {
        all.push(match im {
            Some(im) => json!([number(x), number(im)]),
            None if exact => json!(x as i64),
            None => number(x),
        })
    });
    all.into()
}

/// Four significant digits.
fn short(x: f64) -> String {
    match x.abs() {
        a if a == 0.0 || !x.is_finite() => format!("{x}"),
        a if (1e-3..1e5).contains(&a) => {
            let digits = 3 - (a.log10().floor() as i32);
            format!("{x:.*}", digits.clamp(0, 6) as usize)
        }
        _ => format!("{x:.3e}"),
    }
}
