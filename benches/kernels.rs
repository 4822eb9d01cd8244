//! Speed of the kernels on the shapes of real networks: `cargo bench --bench kernels [-- FILTER] [ISA]`.

use ortx::base::alloc::Buffer;
use ortx::kernels::gemm::{Gemm, GemmPtrs, GemmSpec};
use ortx::kernels::isa::{Isa, Level};
use std::time::Instant;

/// The best of enough runs to fill a fifth of a second, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut best) = (Instant::now(), f64::MAX);
    let mut runs = 0;
    while runs < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let t = Instant::now();
        f();
        best = best.min(t.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

fn floats(n: usize) -> Buffer {
    let b = Buffer::zeroed(n * 4).unwrap();
    for i in 0..n {
        // SAFETY: n floats were allocated.
        unsafe { *b.ptr().cast::<f32>().add(i) = (i % 17) as f32 * 0.1 - 0.8 };
    }
    b
}

fn gemm(isa: Isa, label: &str, m: usize, n: usize, k: usize, b_constant: bool) {
    let g = Gemm::new(isa, GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) }).unwrap();
    let (a, b, c) = (floats(m * k), floats(k * n), floats(m * n));
    let packed = floats(g.packed_bytes() / 4);
    let (work, scratch) = (floats(g.workspace_bytes() / 4), floats(g.scratch_bytes() / 4));
    // SAFETY: all buffers are as long as the plan asks.
    unsafe {
        if b_constant {
            g.pack(b.ptr().cast(), packed.ptr().cast())
        }
    }
    let p = GemmPtrs {
        a: a.ptr().cast(),
        b: if b_constant { packed.ptr().cast() } else { b.ptr().cast() },
        c: c.ptr().cast(),
        bias: std::ptr::null(),
        residual: std::ptr::null(),
    };
    let tasks: usize = (0..g.phases()).map(|p| g.tasks(p)).sum();
    let s = best(|| {
        for phase in 0..g.phases() {
            for task in 0..g.tasks(phase) {
                // SAFETY: as above.
                unsafe { g.run(phase, task, &p, work.ptr(), scratch.ptr()) };
            }
        }
    });
    let flops = 2.0 * (m * n * k) as f64;
    let bytes = 4.0 * (m * k + k * n + m * n) as f64;
    println!(
        "{:<26} {label:<28} {:>9.1} us {:>7.1} GFLOP/s {:>6.1} GB/s  {tasks} tasks of {:.0} us",
        g.name(),
        s * 1e6,
        flops / s / 1e9,
        bytes / s / 1e9,
        s * 1e6 / tasks as f64
    );
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let wanted = |name: &str| args.is_empty() || args.iter().any(|a| name.contains(a.as_str()));
    for isa in Isa::detect().levels().filter(|i| i.level() != Level::Scalar || wanted("scalar")) {
        for (m, n, k) in [
            (128, 768, 768),
            (128, 3072, 768),
            (128, 768, 3072),
            (1, 768, 768),
            (1, 4096, 4096),
            (4, 4096, 4096),
            (128, 128, 64),
            (3136, 64, 64),
            (1000, 1000, 1000),
        ] {
            for constant in [true, false] {
                let label = format!("gemm {m}x{n}x{k}{}", if constant { "" } else { " dynamic" });
                if wanted(&label) || wanted(isa.level().name()) {
                    gemm(isa, &label, m, n, k, constant);
                }
            }
        }
    }
}
