//! What a new shape costs: `cargo bench --bench plan -- MODEL.onnx`, a decoder with `past_key_values` and a dynamic past.
//! Feeds one token after another, the past longer by one each time, as a chat does, and prints the time of the first run at
//! each length beside that of a second one: the difference is what the plan costs. One run against one, and the median of the
//! differences: the best of several runs beside one would count the noise as the plan's. Then resident memory over many shapes.

use ortx::base::parallel::Serial;
use ortx::{DType, Environment, ModelSource, RunOptions, Session, SessionOptions, Tensor, Value};
use std::time::Instant;

const FIRST: usize = 64;
const TOKENS: usize = 64;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let [model, rest @ ..] = &args[..] else {
        println!("plan: name a decoder with past_key_values; nothing is measured without one");
        return;
    };
    let threads = rest.first().and_then(|n| n.parse().ok()).unwrap_or(0);
    let options = SessionOptions { threads, ..SessionOptions::default() };
    let t = Instant::now();
    let session =
        Session::new(&Environment::new(), ModelSource::Path(model.into()), &options).expect("the model loads");
    println!("load {:.1} ms", ms(t));
    let t = Instant::now();
    run(&session, FIRST - 1);
    println!("first run {:.1} ms", ms(t));
    let mut costs = Vec::new();
    for past in FIRST..FIRST + TOKENS {
        let (new, known) = (run(&session, past), run(&session, past));
        costs.push((new - known, known));
    }
    let extra = median(costs.iter().map(|c| c.0));
    let known = median(costs.iter().map(|c| c.1));
    let share = extra / known * 100.0;
    println!("{TOKENS} tokens: a plan costs {extra:.3} ms (median) of a run of {known:.3} ms: {share:.1} %");
    println!("planning alone, one thread: {:.3} ms", plan(&session, TOKENS));
    let shapes = rest.get(1).and_then(|n| n.parse().ok()).unwrap_or(0);
    for i in 0..shapes {
        if i % (shapes / 10).max(1) == 0 {
            println!("{i} shapes, {} KB resident", resident());
        }
        run(&session, 1 + (i * 7919) % 500);
    }
}

fn median(all: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = all.collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

/// The time of making one plan on one thread, in milliseconds, over so many lengths.
fn plan(session: &Session, lengths: usize) -> f64 {
    let all: Vec<_> = (0..lengths).map(|i| inputs(session, 1000 + i)).collect();
    let t = Instant::now();
    for inputs in &all {
        session.program().first_segment(inputs, &Serial).expect("a plan");
    }
    ms(t) / lengths as f64
}

/// The time of one run with a past of so many tokens, in milliseconds.
fn run(session: &Session, past: usize) -> f64 {
    let inputs = inputs(session, past);
    let mut outputs = vec![None; session.outputs().len()];
    let t = Instant::now();
    session.run_values(&inputs, &mut outputs, &RunOptions::default()).expect("it runs");
    ms(t)
}

fn inputs(session: &Session, past: usize) -> Vec<Value> {
    session
        .inputs()
        .iter()
        .map(|io| {
            let t = io.fact.as_tensor().expect("tensors only");
            let dims = t.dims.as_ref().expect("a rank");
            let shape: Vec<usize> = dims
                .iter()
                .map(|d| match (d.known(), d.to_string().as_str()) {
                    (Some(n), _) => n as usize,
                    (_, "past") => past,
                    (_, "total") => past + 1,
                    _ => 1,
                })
                .collect();
            let ones = |n| Tensor::from_slice(&shape, &vec![1i64; n]);
            let n = shape.iter().product();
            let tensor = if t.dtype == DType::I64 { ones(n) } else { Tensor::zeroed(t.dtype, &shape) };
            Value::Tensor(tensor.expect("memory"))
        })
        .collect()
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    line.unwrap_or("?").trim().trim_end_matches(" kB").to_string()
}
