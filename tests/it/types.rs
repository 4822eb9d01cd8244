//! Every operator with every type that its newest schema allows, on small random inputs, against onnx's reference evaluator or
//! float64 numpy: `scripts/dump_types.py` makes the cases. `tests/types_list.txt` names those that do not pass yet, each with
//! its reason; a case on the list that passes is an error, so that the list can only shrink.
//!
//! `ORTX_CASE=part-of-name` runs only the cases so named; `ORTX_BLESS=1` writes the list and `docs/types.md` anew.

use crate::{cache, values};
use ortx::DType;
use ortx::import::{tensor_from_proto, value_from_map, value_from_optional, value_from_sequence};
use ortx::kernels::isa::{Isa, Level};
use ortx::proto::external::External;
use ortx::proto::onnx::{MapProto, OptionalProto, SequenceProto, TensorProto};
use ortx::proto::read;
use ortx::session::{Environment, ModelSource, RunOptions, Session, SessionOptions};
use ortx::tensor::{Tensor, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const LIST: &str = "tests/types_list.txt";
const PAGE: &str = "docs/types.md";
const SCRIPTS: [&str; 6] = [
    "dump_types.py",
    "type_values.py",
    "type_recipes.py",
    "type_recipes_more.py",
    "type_graphs.py",
    "type_expected.py",
];

/// A row of the index.
struct Case {
    name: String,
    domain: String,
    op: String,
    types: String,
    check: Check,
    slack: f64,
    /// Where its model, its inputs and its outputs lie.
    model: std::ops::Range<usize>,
    inputs: Vec<(String, std::ops::Range<usize>)>,
    outputs: Vec<(String, std::ops::Range<usize>)>,
}

enum Check {
    /// Conversions and what is only moved.
    Exact,
    Near,
    /// Random numbers: type, shape and bounds.
    Range(f64, f64),
}

#[test]
fn types() {
    let Some(folder) = cache::folder(&format!("types/{:016x}", key()), "data") else { return };
    let only = std::env::var("ORTX_CASE").ok();
    let mut cases: Vec<Case> = cache::index(&folder).iter().map(|r| case(r)).collect();
    cases.retain(|c| only.as_ref().is_none_or(|part| c.name.contains(part.as_str())));
    let data = bytes::Bytes::from(std::fs::read(folder.join("cases.bin")).unwrap());
    let results = run_all(&cases, &data);
    let list = listed();
    let mut report = String::new();
    let mut passed = 0;
    for (c, result) in cases.iter().zip(&results) {
        passed += usize::from(result.is_ok());
        match (result, list.contains_key(&c.name)) {
            (Ok(()), true) => writeln!(report, "{}: passes, take it off {LIST}", c.name).unwrap(),
            (Err(e), false) => writeln!(report, "{}: {e}", c.name).unwrap(),
            _ => {}
        }
    }
    if only.is_none() {
        let gone = list.keys().filter(|n| !cases.iter().any(|c| c.name == **n));
        gone.for_each(|n| writeln!(report, "{n}: on {LIST}, but there is no such case").unwrap());
        let page = page(&cases, &results);
        if std::env::var_os("ORTX_BLESS").is_some() {
            bless(&cases, &results);
            std::fs::write(PAGE, &page).unwrap();
            report.clear();
        } else if std::fs::read_to_string(PAGE).unwrap_or_default() != page {
            writeln!(report, "{PAGE} is stale: run ORTX_BLESS=1 cargo test --test it types:: and commit it").unwrap();
        }
        println!("{page}");
    }
    println!("types: {passed} of {} cases pass, {} listed", cases.len(), list.len());
    assert!(report.is_empty(), "{} cases are not as {LIST} says:\n{report}", report.lines().count());
}

/// The 64-bit FNV-1a hash of the scripts, as they name the folder themselves.
fn key() -> u64 {
    let bytes = SCRIPTS.iter().flat_map(|name| std::fs::read(format!("scripts/{name}")).unwrap());
    bytes.fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3))
}

fn case(row: &[String]) -> Case {
    let check: Vec<&str> = row[5].split(':').collect();
    let check = match check[..] {
        ["range", lo, hi] => Check::Range(lo.parse().unwrap(), hi.parse().unwrap()),
        ["exact"] => Check::Exact,
        _ => Check::Near,
    };
    let mut at: usize = row[7].parse().unwrap();
    let split = |s: &str| s.split(',').filter(|s| !s.is_empty()).map(String::from).collect::<Vec<_>>();
    let lengths: Vec<Vec<String>> = row[8].split(';').map(split).collect();
    let kinds: Vec<Vec<String>> = row[9].split(';').map(split).collect();
    let mut take = |length: &String| {
        at += length.parse::<usize>().unwrap();
        at - length.parse::<usize>().unwrap()..at
    };
    let model = take(&lengths[0][0]);
    let mut side = |i: usize| kinds[i - 1].iter().cloned().zip(lengths[i].iter().map(&mut take)).collect();
    let (inputs, outputs) = (side(1), side(2));
    let [name, domain, op, types] = [0, 1, 2, 4].map(|i| row[i].clone());
    Case { name, domain, op, types, check, slack: row[6].parse().unwrap(), model, inputs, outputs }
}

fn value(kind: &str, data: bytes::Bytes) -> ortx::Result<Value> {
    match kind.split('(').next() {
        Some("seq") => value_from_sequence(&read::decode::<SequenceProto>(data)?),
        Some("optional") => value_from_optional(&read::decode::<OptionalProto>(data)?),
        Some("map") => value_from_map(&read::decode::<MapProto>(data)?),
        _ => Ok(Value::Tensor(tensor_from_proto(&read::decode::<TensorProto>(data)?, &External::none())?)),
    }
}

/// Runs the cases on all cores; a panic counts as a failure of its case.
fn run_all(cases: &[Case], data: &bytes::Bytes) -> Vec<Result<(), String>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Result<(), String>>> = cases.iter().map(|_| Mutex::new(Ok(()))).collect();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                let env = Environment::new();
                while let Some((i, c)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
                {
                    let run = catch_unwind(AssertUnwindSafe(|| run_one(c, data, &env)));
                    *results[i].lock().unwrap() = run.unwrap_or_else(|_| Err("panics".into()));
                }
            });
        }
    });
    results.into_iter().map(|r| r.into_inner().unwrap()).collect()
}

fn run_one(c: &Case, data: &bytes::Bytes, env: &Environment) -> Result<(), String> {
    // What comes out must not hang on the processor: at the lowest and at the highest level of instructions.
    let mut levels: Vec<Level> = Isa::detect().levels().map(Isa::level).collect();
    levels.drain(1..levels.len().saturating_sub(1).max(1));
    levels.into_iter().try_for_each(|level| run_at(c, data, env, level).map_err(|e| format!("{level:?}: {e}")))
}

fn run_at(c: &Case, data: &bytes::Bytes, env: &Environment, level: Level) -> Result<(), String> {
    let say = |e: ortx::Error| format!("{e:#}").replace("model of ", "");
    let options = SessionOptions { threads: 1, isa: Some(level), ..SessionOptions::default() };
    let session = Session::new(env, ModelSource::Bytes(data.slice(c.model.clone()), None), &options).map_err(say)?;
    let read = |list: &[(String, std::ops::Range<usize>)]| -> Result<Vec<Value>, String> {
        list.iter().map(|(kind, r)| value(kind, data.slice(r.clone())).map_err(say)).collect()
    };
    let (inputs, wanted) = (read(&c.inputs)?, read(&c.outputs)?);
    let mut outputs = vec![None; session.outputs().len()];
    session.run_values(&inputs, &mut outputs, &RunOptions::default()).map_err(say)?;
    for (i, (got, want)) in outputs.iter().zip(&wanted).enumerate() {
        let got = got.as_ref().ok_or_else(|| format!("output {i} was not made"))?;
        near(got, want, c).map_err(|e| format!("output {i}: {e}"))?;
    }
    Ok(())
}

fn near(got: &Value, want: &Value, c: &Case) -> Result<(), String> {
    match (got, want) {
        (Value::Tensor(g), Value::Tensor(w))
            if g.dtype().is_float() && g.dtype() == w.dtype() && g.shape() == w.shape() =>
        {
            near_floats(g, w, c)
        }
        (Value::Tensor(g), Value::Tensor(w)) if matches!(c.check, Check::Range(..)) && g.dtype() == w.dtype() => {
            let Check::Range(lo, hi) = c.check else { return Ok(()) };
            let outside = values::integers(g).into_iter().find(|&x| (x as f64) < lo || x as f64 > hi);
            outside.map_or(Ok(()), |x| Err(format!("{x} is not in {lo}..{hi}")))
        }
        (Value::Sequence(g), Value::Sequence(w)) if g.len() == w.len() => {
            g.iter().zip(w.iter()).try_for_each(|(g, w)| near(g, w, c))
        }
        (Value::Optional(Some(g)), Value::Optional(Some(w))) => near(g, w, c),
        // Everything else is exact; that includes complex numbers, which are only moved.
        _ => values::compare(got, want, 0.0, 0.0),
    }
}

/// The distance between 1 and the next number.
fn epsilon(d: DType) -> f64 {
    let bits = match d {
        DType::F64 => 52,
        DType::F32 => 23,
        DType::F16 => 10,
        DType::BF16 => 7,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F6E2M3 => 3,
        DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F6E3M2 => 2,
        DType::F4E2M1 => 1,
        _ => 0,
    };
    2f64.powi(-bits)
}

/// A narrow type may be one unit off: what is computed in f32 lies within a hair of the exact value, and where that is next to
/// a tie, it rounds to the other side. f32 and f64 may be 4 units off, as their functions of functions are. What cancels is off
/// by units of the numbers it came from, which are of the size of the largest result: 16 of them of the type computed in.
fn near_floats(got: &Tensor, want: &Tensor, c: &Case) -> Result<(), String> {
    let (g, w) = (values::numbers(got), values::numbers(want));
    if let Check::Range(lo, hi) = c.check {
        let outside = g.iter().map(|x| x.0).find(|x| !(lo..=hi).contains(x));
        return outside.map_or(Ok(()), |x| Err(format!("{x} is not in {lo}..{hi}")));
    }
    let d = want.dtype();
    let (units, computed) = match d {
        DType::F64 | DType::F32 => (4.0, d),
        _ => (1.0, DType::F32),
    };
    let largest = w.iter().map(|x| x.0.abs()).filter(|x| x.is_finite()).fold(1.0, f64::max);
    for (i, (&(g, _), &(w, _))) in g.iter().zip(&w).enumerate() {
        let exact = if matches!(c.check, Check::Exact) { 0.0 } else { 1.0 };
        let bound = exact * c.slack * (units * epsilon(d) * w.abs() + 16.0 * epsilon(computed) * largest);
        let off = (g - w).abs();
        if !(g == w || g.is_nan() && w.is_nan() || off <= bound && w.is_finite()) {
            return Err(format!(
                "element {i} is {g:e} instead of {w:e}, {:.1} units of {d}",
                off / (w.abs() * epsilon(d))
            ));
        }
    }
    Ok(())
}

fn listed() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(LIST).unwrap_or_default();
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    let split = |l: &str| l.split_once('\t').map(|(a, b)| (a.to_string(), b.to_string()));
    rows.map(|l| split(l).unwrap_or_else(|| panic!("{LIST}: no tab in {l:?}"))).collect()
}

fn bless(cases: &[Case], results: &[Result<(), String>]) {
    let mut text = "# Cases of operators and types that do not pass yet: name, tab, reason.\n\
                    # A case here that passes fails the tests. ORTX_BLESS=1 cargo test --test it types:: writes the list anew.\n"
        .to_string();
    for (c, r) in cases.iter().zip(results) {
        if let Err(e) = r {
            let brief: String = e.replace(['\n', '\t'], " ").chars().take(160).collect();
            writeln!(text, "{}\t{brief}", c.name).unwrap();
        }
    }
    std::fs::write(LIST, text).unwrap();
}

/// The element types that a case varies.
fn varied(c: &Case) -> BTreeSet<DType> {
    let words = c.types.split(|ch: char| !ch.is_alphanumeric());
    words.filter_map(|w| DType::ALL.into_iter().find(|d| d.name() == w)).collect()
}

/// The table: operators by element types, in all the places that the schema has for them.
fn page(cases: &[Case], results: &[Result<(), String>]) -> String {
    let mut table: BTreeMap<(&str, &str), BTreeMap<DType, bool>> = BTreeMap::new();
    for (c, r) in cases.iter().zip(results) {
        let row = table.entry((&c.domain, &c.op)).or_default();
        varied(c).into_iter().for_each(|d| *row.entry(d).or_insert(true) &= r.is_ok());
    }
    let passed = results.iter().filter(|r| r.is_ok()).count();
    let mut text = format!(
        "# Operators and types\n\n\
         Written by `ORTX_BLESS=1 cargo test --test it types::` from what ran; do not edit.\n\n\
         Each operator of onnx 1.23.2 was run on the CPU with each element type that its newest schema allows, for every type\n\
         parameter of it (casts and quantisation: every pair), and compared with onnx's reference evaluator or float64 numpy:\n\
         {passed} of {} cases pass.\n\n\
         `.` passes, `F` fails, `-` is not allowed by the schema.\n\n```\n",
        cases.len()
    );
    let names: Vec<&str> = DType::ALL.iter().map(|d| d.name()).collect();
    let width = table.keys().map(|(_, op)| op.len()).max().unwrap_or(0);
    let tall = names.iter().map(|n| n.len()).max().unwrap_or(0);
    for line in 0..tall {
        let column = |n: &&str| n.chars().nth((line + n.len()).wrapping_sub(tall)).unwrap_or(' ');
        let head: Vec<String> = names.iter().map(|n| column(n).to_string()).collect();
        writeln!(text, "{}", format!("{:width$}  {}", "", head.join(" ")).trim_end()).unwrap();
    }
    let mut domain = "";
    for ((d, op), row) in &table {
        if *d != domain {
            writeln!(text, "{d}").unwrap();
            domain = d;
        }
        let cell = |d: &DType| row.get(d).map_or("-", |&ok| if ok { "." } else { "F" });
        let cells: Vec<&str> = DType::ALL.iter().map(cell).collect();
        writeln!(text, "{op:width$}  {}", cells.join(" ")).unwrap();
    }
    text + "```\n"
}
