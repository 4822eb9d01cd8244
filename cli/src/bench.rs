//! `ortx bench`: how fast a model runs, and how much memory it takes.

use crate::args::BenchArgs;
use crate::fail::Result;
use crate::inputs;
use crate::report::Report;
use crate::ui::{self, DIM, NAME, Spinner, TITLE, Table};
use anstyle::Style;
use ortx::base::cores::available_cores;
use ortx::kernels::isa::Isa;
use ortx::plan::Timing;
use ortx::{Environment, ModelSource, RunOptions, Session, Value};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Rows of a profile that people are shown.
const TOP: usize = 25;
/// How long the runs with a profile take together, at most.
const PROFILE_SECONDS: f64 = 1.0;

/// Measures.
pub fn bench(a: &BenchArgs) -> Result<Report> {
    let spinner = Spinner::start("loading");
    let base = status_bytes("VmRSS");
    let t = Instant::now();
    let options = a.session.options();
    let session = Session::new(&Environment::new(), ModelSource::Path(a.model.clone()), &options)?;
    ui::warn(&session);
    let load_ms = ms(t);
    let loaded = status_bytes("VmRSS");
    let values = inputs::gather(&session, &a.inputs, true)?;
    let mut outputs: Vec<Option<Value>> = vec![None; session.outputs().len()];
    let mut run = || session.run_values(&values, &mut outputs, &RunOptions::default());

    spinner.say("first run");
    let t = Instant::now();
    run()?;
    let first_ms = ms(t);
    spinner.say("warming up");
    let start = Instant::now();
    for _ in 0..a.warmup {
        run()?;
        if start.elapsed().as_secs_f64() > a.seconds {
            break;
        }
    }
    let (min, max) = (a.min_runs as usize, (a.max_runs as usize).max(a.min_runs as usize));
    let mut times = Vec::with_capacity(max.min(1 << 16));
    let start = Instant::now();
    let mut told = start;
    while times.len() < max && (times.len() < min || start.elapsed().as_secs_f64() < a.seconds) {
        let t = Instant::now();
        run()?;
        times.push(ms(t));
        if told.elapsed() > Duration::from_millis(500) {
            told = Instant::now();
            spinner.say(format!("measuring: {} so far", ui::plural(times.len(), "run")));
        }
    }
    let took = start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    let peak = status_bytes("VmHWM");

    let profile = match a.profile {
        true => {
            spinner.say("profiling");
            Some(Profile::take(&session, &values, &mut outputs)?)
        }
        false => None,
    };
    drop(spinner);

    let threads = if options.threads == 0 { available_cores() } else { options.threads };
    let isa = options.isa.map_or(Isa::detect(), |l| Isa::detect().cap(l)).level().name();
    let used: Vec<&str> = session.program().target().devices.iter().map(|d| d.name()).collect();
    let device = if used.is_empty() { "cpu".to_string() } else { used.join(", ") };
    let mean = times.iter().sum::<f64>() / times.len() as f64;
    let (median, p90, p99) = (at(&times, 0.5), at(&times, 0.9), at(&times, 0.99));
    let (fastest, slowest) = (times[0], times[times.len() - 1]);
    let shapes: Vec<_> = session
        .inputs()
        .iter()
        .zip(&values)
        .map(|(io, v)| json!({ "name": &*io.name, "dtype": io.fact.dtype().map(|d| d.name()), "shape": v.as_tensor().ok().map(|t| t.shape()) }))
        .collect();

    let mut human = format!(
        "{} {}\n",
        ui::paint(TITLE, a.model.display()),
        ui::paint(DIM, format_args!("({device}, {}, {isa})", ui::plural(threads, "thread")))
    );
    for (io, v) in session.inputs().iter().zip(&values) {
        if let Ok(t) = v.as_tensor() {
            human += &format!("  {} {t:?}\n", ui::paint(NAME, &io.name));
        }
    }
    let mut table = Table::new(&["", ">", ""]);
    let memory =
        |grown: u64| if peak == 0 { String::new() } else { format!("({} more than before loading)", ui::bytes(grown)) };
    for (what, value, remark) in [
        ("median", ui::time(median), format!("of {} in {}", ui::plural(times.len(), "run"), ui::time(took * 1e3))),
        ("p90", ui::time(p90), String::new()),
        ("p99", ui::time(p99), String::new()),
        ("min", ui::time(fastest), String::new()),
        ("max", ui::time(slowest), String::new()),
        ("mean", ui::time(mean), format!("{:.1} runs a second", 1e3 / mean)),
        ("load", ui::time(load_ms), String::new()),
        ("first run", ui::time(first_ms), String::new()),
        ("loaded", ui::bytes(loaded), memory(loaded.saturating_sub(base))),
        ("peak", ui::bytes(peak), memory(peak.saturating_sub(base))),
    ] {
        let strong = if what == "median" { TITLE } else { Style::new() };
        table.row([(what.into(), Style::new()), (value, strong), (remark, DIM)]);
    }
    human += &table.render();
    if let Some(p) = &profile {
        human += &p.human();
    }
    let bytes = |n: u64| (n > 0).then_some(n);
    Ok(Report::new(
        human,
        json!({
            "model": a.model.display().to_string(),
            "version": env!("CARGO_PKG_VERSION"),
            "device": device,
            "threads": threads,
            "isa": isa,
            "inputs": shapes,
            "load_ms": load_ms,
            "first_ms": first_ms,
            "runs": times.len(),
            "median_ms": median,
            "p90_ms": p90,
            "p99_ms": p99,
            "min_ms": fastest,
            "max_ms": slowest,
            "mean_ms": mean,
            "base_rss_bytes": bytes(base),
            "loaded_rss_bytes": bytes(loaded),
            "peak_rss_bytes": bytes(peak),
            "profile": profile.as_ref().map(Profile::json),
        }),
    ))
}

fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}

/// The value below which a part of the sorted times lies, by the nearest rank; the median of an even count is the mean of both
/// middle ones.
fn at(sorted: &[f64], part: f64) -> f64 {
    let n = sorted.len();
    if part == 0.5 && n.is_multiple_of(2) {
        return (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0;
    }
    sorted[((part * n as f64).ceil() as usize).clamp(1, n) - 1]
}

/// A number that the system keeps of this process; 0 where it does not.
fn status_bytes(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse::<u64>().ok()).map_or(0, |kb| kb * 1024)
}

/// Mean times of a plan's items.
struct Profile {
    runs: usize,
    /// Of a whole run, milliseconds.
    total: f64,
    items: Vec<Entry>,
}

struct Entry {
    node: String,
    op: &'static str,
    kernel: String,
    /// Times a run.
    count: f64,
    /// Milliseconds a run.
    ms: f64,
}

impl Profile {
    fn take(session: &Session, values: &[Value], outputs: &mut [Option<Value>]) -> Result<Profile> {
        let all = Mutex::new(Vec::new());
        let start = Instant::now();
        let (mut runs, mut total) = (0, 0.0);
        let mut index: HashMap<(String, &'static str, String), usize> = HashMap::new();
        let mut items: Vec<Entry> = Vec::new();
        while runs < 100 && (runs == 0 || start.elapsed().as_secs_f64() < PROFILE_SECONDS) {
            let t = Instant::now();
            session.run_profiled(values, outputs, &RunOptions::default(), Some(&all))?;
            total += ms(t);
            runs += 1;
            let timings: Vec<Timing> = std::mem::take(&mut *all.lock().unwrap_or_else(|p| p.into_inner()));
            for t in timings {
                let key = (t.node.to_string(), t.op, t.kernel);
                let i = *index.entry(key.clone()).or_insert_with(|| {
                    items.push(Entry { node: key.0, op: key.1, kernel: key.2, count: 0.0, ms: 0.0 });
                    items.len() - 1
                });
                items[i].count += 1.0;
                items[i].ms += t.ns as f64 / 1e6;
            }
        }
        let n = runs as f64;
        for e in &mut items {
            e.count /= n;
            e.ms /= n;
        }
        Ok(Profile { runs, total: total / n, items })
    }

    fn share(&self, ms: f64) -> String {
        format!("{:.1}%", 100.0 * ms / self.total.max(f64::MIN_POSITIVE))
    }

    fn human(&self) -> String {
        let mut kernels: Vec<(&str, &str, usize, f64)> = Vec::new();
        for e in &self.items {
            match kernels.iter_mut().find(|k| (k.0, k.1) == (e.op, &*e.kernel)) {
                Some(k) => {
                    k.2 += 1;
                    k.3 += e.ms;
                }
                None => kernels.push((e.op, &e.kernel, 1, e.ms)),
            }
        }
        kernels.sort_by(|a, b| b.3.total_cmp(&a.3));
        let mut t = Table::new(&["operator", "kernel", ">nodes", ">time", ">share"]);
        for (op, kernel, n, ms) in kernels {
            t.row([
                (op.to_string(), NAME),
                (kernel.to_string(), Style::new()),
                (n.to_string(), Style::new()),
                (ui::time(ms), Style::new()),
                (self.share(ms), DIM),
            ]);
        }
        let title =
            format!("Profile: {} at {} (without: see median)", ui::plural(self.runs, "run"), ui::time(self.total));
        let mut s = format!("\n{}\n{}", ui::paint(TITLE, title), t.render());
        let mut by_time: Vec<&Entry> = self.items.iter().collect();
        by_time.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        let mut t = Table::new(&["node", "operator", "kernel", ">time", ">share"]);
        for e in by_time.iter().take(TOP) {
            let times = if e.count > 1.0 { format!(" x{:.0}", e.count) } else { String::new() };
            t.row([
                (format!("{}{times}", e.node), NAME),
                (e.op.to_string(), Style::new()),
                (e.kernel.clone(), Style::new()),
                (ui::time(e.ms), Style::new()),
                (self.share(e.ms), DIM),
            ]);
        }
        s += &format!("\n{}\n{}", ui::paint(TITLE, "Nodes by time"), t.render());
        if let Some(rest) = self.items.len().checked_sub(TOP).filter(|&n| n > 0) {
            s += &ui::paint(DIM, format_args!("  and {rest} more (all with --json)\n"));
        }
        s
    }

    fn json(&self) -> serde_json::Value {
        let items: Vec<_> = self
            .items
            .iter()
            .map(|e| json!({ "node": e.node, "op": e.op, "kernel": e.kernel, "count": e.count, "ms": e.ms }))
            .collect();
        json!({ "runs": self.runs, "total_ms": self.total, "items": items })
    }
}

#[cfg(test)]
mod tests {
    use super::at;

    #[test]
    fn percentiles_by_nearest_rank() {
        let t: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!((at(&t, 0.5), at(&t, 0.9), at(&t, 0.99)), (50.5, 90.0, 99.0));
        assert_eq!((at(&[7.0], 0.5), at(&[7.0], 0.99)), (7.0, 7.0));
        assert_eq!(at(&[1.0, 2.0, 4.0], 0.5), 2.0);
    }
}
