//! Speed of every kernel in the table (`src/kernels/table`), one thread, beside a plain copy of as many bytes:
//! `cargo bench --bench kernels [-- WORD...]` (words of kernels' names, labels or levels; all must match; default: the
//! highest level). "of memcpy" compares bytes read and written a second, taken in turns with the copy.

use ortx::base::alloc::Buffer;
use ortx::kernels::isa::{Isa, Level};
use ortx::kernels::table::{KERNELS, Sample, Work};
use std::time::Instant;

/// Time that this thread has run, so that other programs on the machine disturb less.
fn cpu_seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: t is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The best times, of the kernel and of the copy, of enough rounds to fill a fifth of a second.
fn best(work: &mut Work, bytes: usize) -> (f64, f64) {
    let half = (bytes / 2).max(1);
    let (from, to) = (Buffer::zeroed(half).unwrap(), Buffer::zeroed(half).unwrap());
    let (start, mut best, mut copy, mut rounds) = (Instant::now(), f64::MAX, f64::MAX, 0);
    (work.run)().unwrap();
    while rounds < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let t = cpu_seconds();
        (work.run)().unwrap();
        let u = cpu_seconds();
        // SAFETY: both buffers hold that many bytes.
        unsafe { std::ptr::copy_nonoverlapping(from.ptr(), to.ptr(), half) };
        std::hint::black_box(to.ptr());
        (best, copy) = (best.min(u - t), copy.min(cpu_seconds() - u));
        rounds += 1;
    }
    (best, copy)
}

fn report(sample: &Sample, work: &mut Work) {
    let (s, copy) = best(work, sample.bytes as usize);
    let speed = match sample.flops {
        0.0 => format!("{:>5.0} % of memcpy ", copy / s * 100.0),
        flops => format!("{:>7.1} GFLOP/s    ", flops / s / 1e9),
    };
    println!(
        "{:<28} {:<36} {:>9.1} us {speed} {:>6.1} GB/s {:>5} tasks of {:.0} us",
        work.kernel,
        sample.label,
        s * 1e6,
        sample.bytes / s / 1e9,
        work.tasks,
        s * 1e6 / work.tasks.max(1) as f64
    );
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let named = words.iter().any(|w| Level::from_name(w).is_some());
    for isa in Isa::detect().levels().filter(|i| named || *i == Isa::detect()) {
        for kind in KERNELS {
            for sample in (kind.samples)() {
                let text = format!("{} {} {}", kind.name, sample.label, isa.level().name());
                if words.iter().all(|w| text.contains(w.as_str())) {
                    report(&sample, &mut (sample.ready)(isa).unwrap());
                }
            }
        }
    }
}
