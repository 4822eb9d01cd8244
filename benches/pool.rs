//! What a fork-join costs: `cargo bench --bench pool`. Prints medians and minima in microseconds.

use ortx::base::{cores::available_cores, parallel::Parallel, pool::Pool};
use std::hint::{black_box, spin_loop};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Median and minimum of `f`'s time in microseconds.
fn time(times: usize, f: impl FnMut()) -> (f64, f64) {
    time_after(times, || (), f)
}

/// The same, with `before` each time, not counted.
fn time_after(times: usize, mut before: impl FnMut(), mut f: impl FnMut()) -> (f64, f64) {
    let mut all: Vec<f64> = (0..times)
        .map(|_| {
            before();
            let t = Instant::now();
            f();
            t.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    all.sort_by(f64::total_cmp);
    (all[all.len() / 2], all[0])
}

/// About `us` microseconds of arithmetic.
fn work(us: f64, per_us: f64) {
    let mut x = 1.0f64;
    for _ in 0..(us * per_us) as usize {
        x = black_box(x * 1.000_000_1);
    }
}

fn main() {
    let cores = available_cores();
    let steps = 1_000_000;
    let (_, t) = time(5, || work(steps as f64, 1.0));
    let per_us = steps as f64 / t;
    println!("{cores} cores; median (minimum), microseconds");
    for (name, spin) in [("parked", 0u64), ("spinning", 2000)] {
        let pool = Pool::new(cores, Duration::from_micros(spin)).expect("threads start");
        println!("{name} workers, {} threads", pool.width());
        let show = |what: &str, (median, min): (f64, f64)| println!("  {what:<44} {median:8.2} ({min:.2})");
        show("one task (runs on the caller)", time(20_000, || pool.run(1, &|_, _| ())));
        show("empty tasks, as many as threads", time(20_000, || pool.run(cores, &|_, _| ())));
        let meet = |arrived: &AtomicUsize| {
            pool.run(cores, &|_, _| {
                arrived.fetch_add(1, Ordering::Relaxed);
                while arrived.load(Ordering::Relaxed) < cores {
                    spin_loop();
                }
            });
        };
        show("all threads meet in one job", time(5_000, || meet(&AtomicUsize::new(0))));
        let rest = || work(100.0, per_us);
        show("empty tasks, after 100 us of rest", time_after(2_000, rest, || pool.run(cores, &|_, _| ())));
        show("all threads meet, after 100 us of rest", time_after(2_000, rest, || meet(&AtomicUsize::new(0))));
        for us in [5.0, 20.0, 100.0, 1000.0] {
            let serial = time(300, || work(us, per_us));
            let tasks = 16;
            let parallel = time(300, || pool.run(tasks, &|_, _| work(us / tasks as f64, per_us)));
            show(&format!("{us} us of work (alone {:.1}) in {tasks} tasks", serial.0), parallel);
        }
    }
}
