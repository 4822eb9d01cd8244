//! The ONNX backend test suite: all 2,033 cases, at the suite's tolerances (but for those in `TOLERANCES`). `tests/conformance_list.txt` names those that
//! do not pass yet, each with its reason; a case on the list that passes is an error, so that the list can only shrink.
//!
//! `ORTX_CASE=part-of-name` runs only the cases so named and says how each fares; `ORTX_BLESS=1` writes the list anew.

use crate::{cache, values};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const LIST: &str = "tests/conformance_list.txt";
const TOTAL: usize = 2033;
/// A case that runs longer is named; one that runs ten times longer ends the process, since a thread cannot be stopped.
const SLOW: Duration = Duration::from_secs(60);

/// Cases whose expected answer is not exact, with the errors they are allowed instead of the suite's, relative and absolute.
const TOLERANCES: &[(&str, f64, f64)] = &[
    // JPEG: the standard leaves the rounding of the inverse cosine transform and of the colours open (a unit each); the
    // expected pictures are another decoder's.
    ("test_image_decoder_decode_jpeg_bgr", 0.0, 2.0),
    ("test_image_decoder_decode_jpeg_grayscale", 0.0, 1.0),
    ("test_image_decoder_decode_jpeg_rgb", 0.0, 2.0),
];

/// Cases compared by type, shape and distribution, not by value, and what makes the probability of a 1 from the input: no
/// standard fixes which random numbers Bernoulli draws, seeded or not, and the suite's own runner skips them for that reason.
/// The expanded cases are the operator's function body, which gives 1 where a uniform number is GREATER than the input.
const RANDOM: [(&str, fn(f64) -> f64); 6] = [
    ("test_bernoulli", |p| p),
    ("test_bernoulli_double", |p| p),
    ("test_bernoulli_double_expanded", |p| 1.0 - p),
    ("test_bernoulli_expanded", |p| 1.0 - p),
    ("test_bernoulli_seed", |p| p),
    ("test_bernoulli_seed_expanded", |p| 1.0 - p),
];

struct Case {
    kind: String,
    name: String,
    rtol: f64,
    atol: f64,
    sets: usize,
}

/// The start of the content digest names the folder.
fn folder_name() -> String {
    let text = std::fs::read_to_string("tests/conformance.digest").unwrap();
    let digest = text.lines().find_map(|l| l.strip_prefix("content ")).expect("a content digest");
    format!("conformance/{}", &digest[..16])
}

fn cases(folder: &Path) -> Vec<Case> {
    let number = |s: &str| s.parse::<f64>().unwrap();
    let rows = cache::index(folder).into_iter();
    rows.map(|r| {
        let own = TOLERANCES.iter().find(|t| t.0 == r[1]);
        let (rtol, atol) = own.map_or((number(&r[2]), number(&r[3])), |t| (t.1, t.2));
        Case { kind: r[0].clone(), name: r[1].clone(), rtol, atol, sets: r[4].parse().unwrap() }
    })
    .collect()
}

fn listed() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(LIST).unwrap_or_default();
    let rows = text.lines().filter(|l| !l.starts_with('#') && !l.trim().is_empty());
    rows.map(|l| {
        let (name, reason) = l.split_once('\t').unwrap_or_else(|| panic!("{LIST}: no tab in {l:?}"));
        assert!(!reason.trim().is_empty(), "{LIST}: {name} has no reason");
        (name.to_string(), reason.to_string())
    })
    .collect()
}

#[test]
fn conformance() {
    let Some(folder) = cache::folder(&folder_name(), "data") else { return };
    let mut cases = cases(&folder);
    assert_eq!(cases.len(), TOTAL, "run make data again");
    let only = std::env::var("ORTX_CASE").ok();
    if let Some(part) = &only {
        cases.retain(|c| c.name.contains(part.as_str()));
    }
    let results = run_all(&folder, &cases, &|model| Ok(model.to_path_buf()));

    let list = listed();
    let mut report = String::new();
    let (mut passed, mut expected) = (0, 0);
    for (case, result) in cases.iter().zip(&results) {
        match (result, list.contains_key(&case.name)) {
            (Ok(()), false) => passed += 1,
            (Ok(()), true) => {
                passed += 1;
                writeln!(report, "{}: passes, take it off {LIST}", case.name).unwrap();
            }
            (Err(_), true) => expected += 1,
            (Err(e), false) => writeln!(report, "{}: {e}", case.name).unwrap(),
        }
        if only.is_some() {
            println!("{}: {}", case.name, result.as_ref().err().map_or("passes", |e| e));
        }
    }
    for name in list.keys() {
        if only.is_none() && !cases.iter().any(|c| c.name == *name) {
            writeln!(report, "{name}: on {LIST}, but there is no such case").unwrap();
        }
    }
    if std::env::var_os("ORTX_BLESS").is_some() && only.is_none() {
        bless(&cases, &results, &list);
        report.clear();
    }
    println!("conformance: {passed} passed, {expected} listed, {} total", cases.len());
    assert!(report.is_empty(), "{} cases are not as {LIST} says:\n{report}", report.lines().count());
}

/// What of each case's model is run: the file itself, or one that was made of it.
type Prepare<'a> = &'a (dyn Fn(&Path) -> Result<PathBuf, String> + Sync);

/// Every case with a file that `prepare` makes of its model: the names of those that fail, and why.
pub fn failures(prepare: Prepare<'_>) -> Vec<(String, String)> {
    let Some(folder) = cache::folder(&folder_name(), "data") else { return Vec::new() };
    let mut cases = cases(&folder);
    let only = std::env::var("ORTX_CASE").unwrap_or_default();
    cases.retain(|c| c.name.contains(&only));
    let results = run_all(&folder, &cases, prepare);
    cases.into_iter().zip(results).filter_map(|(c, r)| Some((c.name, r.err()?))).collect()
}

/// Runs the cases on all cores; a panic counts as a failure of its case.
fn run_all(folder: &Path, cases: &[Case], prepare: Prepare<'_>) -> Vec<Result<(), String>> {
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<(), String>>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    let running: Mutex<BTreeMap<usize, Instant>> = Mutex::default();
    let done = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |n| n.get()) {
            scope.spawn(|| {
                while let Some((i, case)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, cases.get(i)?)))
                {
                    running.lock().unwrap().insert(i, Instant::now());
                    *results[i].lock().unwrap() = Some(run_one(folder, case, prepare));
                    running.lock().unwrap().remove(&i);
                    done.fetch_add(1, Ordering::Release);
                }
            });
        }
        scope.spawn(|| {
            let mut named = Vec::new();
            while done.load(Ordering::Acquire) < cases.len() {
                std::thread::sleep(Duration::from_millis(20));
                for (&i, start) in running.lock().unwrap().iter() {
                    if start.elapsed() > SLOW && !named.contains(&i) {
                        named.push(i);
                        eprintln!("conformance: {} has been running for {SLOW:?}", cases[i].name);
                    }
                    if start.elapsed() > SLOW * 10 {
                        eprintln!("conformance: {} hangs", cases[i].name);
                        std::process::exit(1);
                    }
                }
            }
        });
    });
    results.into_iter().map(|r| r.into_inner().unwrap().expect("every case was run")).collect()
}

fn run_one(folder: &Path, case: &Case, prepare: Prepare<'_>) -> Result<(), String> {
    let data = folder.join(&case.kind).join(&case.name);
    let model = data.join("model.onnx");
    let run = || {
        let model = prepare(&model)?;
        match RANDOM.iter().find(|r| r.0 == case.name) {
            Some((name, chance)) => values::check_bernoulli(&model, &data, name.contains("_seed"), *chance),
            None => values::check_model(&model, &data, case.sets, case.rtol, case.atol),
        }
    };
    let shorten = |e: String| e.replace(&format!("{}/", folder.display()), "");
    catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|p| Err(format!("panic: {}", message(&*p)))).map_err(shorten)
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_string()
}

/// Writes the list of what fails now. Reasons that somebody wrote by hand are kept.
fn bless(cases: &[Case], results: &[Result<(), String>], old: &BTreeMap<String, String>) {
    let generated = |reason: &str| reason.starts_with("needs ") || reason.starts_with("fails: ");
    let mut rows: Vec<String> = cases
        .iter()
        .zip(results)
        .filter_map(|(case, result)| {
            let error = result.as_ref().err()?;
            let reason = match old.get(&case.name) {
                Some(reason) if !generated(reason) => reason.clone(),
                _ => reason(case, error),
            };
            Some(format!("{}\t{reason}", case.name))
        })
        .collect();
    rows.sort();
    let head = "# Cases of the ONNX backend suite that do not pass yet: name, tab, reason.\n\
                # A case here that passes fails the tests. ORTX_BLESS=1 make conformance writes the list anew.\n";
    std::fs::write(LIST, head.to_string() + &rows.join("\n") + "\n").unwrap();
    println!("{LIST}: {} cases", rows.len());
}

/// `needs Cast, Where` for operators that are not there yet, else `fails: ` and the error.
fn reason(case: &Case, error: &str) -> String {
    let brief = match error.split_once("operators not supported: ") {
        Some((_, list)) => {
            // `ai.onnx::Cast (opset 25; node 'y' and 2 more), ...`
            let operators = list.split("), ").map(|item| item.split(" (").next().unwrap_or(item));
            let operators: Vec<&str> = operators.map(|name| name.trim_start_matches("ai.onnx::")).collect();
            format!("needs {}", operators.join(", "))
        }
        // The model's own path says nothing that the case's name does not.
        None => {
            "fails: ".to_string() + &error.replace(&format!("model '{}/{}/model.onnx': ", case.kind, case.name), "")
        }
    };
    brief.replace(['\n', '\t'], " ").chars().take(160).collect()
}
