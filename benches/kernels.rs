//! Speed of the kernels on the shapes of real networks, one thread:
//! `cargo bench --bench kernels [-- WORD...]` (words of labels or levels; all must match; default: the highest level).

use ortx::base::alloc::Buffer;
use ortx::kernels::conv::blocked::{BlockedConv, Input};
use ortx::kernels::conv::dense::DenseConv;
use ortx::kernels::conv::depthwise::DepthwiseConv;
use ortx::kernels::conv::{ConvPtrs, ConvSpec};
use ortx::kernels::gemm::{Activation, Gemm, GemmPtrs, GemmSpec};
use ortx::kernels::isa::{Isa, Level};
use ortx::kernels::pool::{Indices, Kind, Pool, PoolSpec};
use ortx::kernels::reorder::{Direction, Reorder, blocked_len};
use std::time::Instant;

/// Time that this thread has run, so that other programs on the machine disturb less.
fn cpu_seconds() -> f64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: t is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut t) };
    t.tv_sec as f64 + t.tv_nsec as f64 * 1e-9
}

/// The best of enough runs to fill a fifth of a second, in seconds.
fn best(mut f: impl FnMut()) -> f64 {
    f();
    let (start, mut best) = (Instant::now(), f64::MAX);
    let mut runs = 0;
    while runs < 5 || start.elapsed().as_secs_f64() < 0.2 {
        let t = cpu_seconds();
        f();
        best = best.min(cpu_seconds() - t);
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

struct Bench {
    isa: Isa,
    words: Vec<String>,
}

impl Bench {
    fn wants(&self, label: &str) -> bool {
        let text = format!("{label} {}", self.isa.level().name());
        self.words.iter().all(|w| text.contains(w.as_str()))
    }

    fn report(&self, name: &str, label: &str, tasks: usize, flops: f64, floats: f64, f: impl FnMut()) {
        let s = best(f);
        println!(
            "{name:<26} {label:<34} {:>9.1} us {:>7.1} GFLOP/s {:>6.1} GB/s {tasks:>4} tasks of {:.0} us",
            s * 1e6,
            flops / s / 1e9,
            floats * 4.0 / s / 1e9,
            s * 1e6 / tasks as f64
        );
    }

    fn gemm(&self, m: usize, n: usize, k: usize, b_constant: bool) {
        let label = format!("gemm {m}x{n}x{k}{}", if b_constant { "" } else { " dynamic" });
        if !self.wants(&label) {
            return;
        }
        let g = Gemm::new(self.isa, GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) }).unwrap();
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
        let (flops, moved) = (2.0 * (m * n * k) as f64, (m * k + k * n + m * n) as f64);
        self.report(g.name(), &label, tasks, flops, moved, || {
            for phase in 0..g.phases() {
                for task in 0..g.tasks(phase) {
                    // SAFETY: as above.
                    unsafe { g.run(phase, task, &p, work.ptr(), scratch.ptr()) };
                }
            }
        });
    }

    /// A convolution with everything fused, by its best kernel and, if asked, by the dense one.
    fn conv(&self, net: &str, s: ConvSpec, dense: bool) {
        let s = ConvSpec { bias: true, activation: Activation::Relu, ..s };
        let label = format!(
            "{net} {}{}x{} {}x{}-{} /{}",
            if s.groups > 1 { "dw " } else { "" },
            s.kernel[1],
            s.kernel[2],
            s.input[1],
            s.c_in,
            s.c_out,
            s.stride[2]
        );
        if !self.wants(&label) {
            return;
        }
        let c = self.isa.f32_lanes();
        let x = floats(blocked_len(s.n, s.c_in, s.in_size(), c).unwrap());
        let y = floats(blocked_len(s.n, s.c_out, s.out_size(), c).unwrap());
        let w = floats(s.c_out * s.c_in / s.groups * s.taps());
        let bias = floats(s.c_out.next_multiple_of(c));
        let p = ConvPtrs {
            x: x.ptr().cast(),
            w: w.ptr().cast(),
            y: y.ptr().cast(),
            bias: bias.ptr().cast(),
            residual: std::ptr::null(),
        };
        let (flops, moved) = (s.flops() as f64, (x.len() + y.len() + w.len()) as f64 / 4.0);
        // The kernels share their methods' names, not a trait: nothing but this bench treats them alike.
        macro_rules! run {
            ($conv:expr, $p:expr) => {{
                let (conv, p) = ($conv, $p);
                let scratch = floats(conv.scratch_bytes() / 4);
                let work = floats(conv.workspace_bytes() / 4);
                let tasks = (0..conv.phases()).map(|p| conv.tasks(p)).sum();
                self.report(conv.name(), &label, tasks, flops, moved, || {
                    for phase in 0..conv.phases() {
                        for task in 0..conv.tasks(phase) {
                            // SAFETY: all buffers are as long as the plan asks.
                            unsafe { conv.run(phase, task, &p, work.ptr(), scratch.ptr()) };
                        }
                    }
                })
            }};
        }
        macro_rules! packed {
            ($conv:expr) => {{
                let conv = $conv;
                let packed = floats(conv.packed_bytes() / 4);
                // SAFETY: as above.
                unsafe { conv.pack(p.w, packed.ptr().cast()) };
                run!(conv, ConvPtrs { w: packed.ptr().cast(), ..p })
            }};
        }
        let input = if s.c_in < c && s.groups == 1 { Input::Dense } else { Input::Blocked };
        if DepthwiseConv::supports(&s) {
            packed!(DepthwiseConv::new(self.isa, s).unwrap());
        } else if BlockedConv::supports(self.isa, &s, input) {
            packed!(BlockedConv::new(self.isa, s, input).unwrap());
        }
        if dense {
            run!(DenseConv::new(self.isa, s).unwrap(), p);
        }
    }

    fn pool(&self, label: &str, s: PoolSpec) {
        for blocked in [true, false] {
            let label = format!("pool {label}{}", if blocked { "" } else { " dense" });
            if !self.wants(&label) {
                continue;
            }
            let pool = Pool::new(self.isa, s, blocked).unwrap();
            let size = |d: [usize; 3]| s.n * s.channels.next_multiple_of(16) * d.iter().product::<usize>();
            let (x, y) = (floats(size(s.input)), floats(size(s.output)));
            let flops = (size(s.output) * s.kernel.iter().product::<usize>()) as f64;
            self.report(pool.name(), &label, pool.tasks(), flops, (size(s.input) + size(s.output)) as f64, || {
                for task in 0..pool.tasks() {
                    // SAFETY: both are as long as the shape.
                    unsafe { pool.run(task, x.ptr().cast(), y.ptr().cast(), Indices::NONE) };
                }
            });
        }
    }

    fn reorder(&self, n: usize, channels: usize, size: usize) {
        for direction in [Direction::ToBlocked, Direction::ToDense] {
            let label = format!("reorder {direction:?} {n}x{channels}x{size}");
            if !self.wants(&label) {
                continue;
            }
            let r = Reorder::new(self.isa, direction, n, channels, size).unwrap();
            let len = blocked_len(n, channels, size, 16).unwrap();
            let (x, y) = (floats(len), floats(len));
            self.report(r.name(), &label, r.tasks(), 0.0, 2.0 * len as f64, || {
                for task in 0..r.tasks() {
                    // SAFETY: both are as long as the layouts.
                    unsafe { r.run(task, x.ptr().cast(), y.ptr().cast()) };
                }
            });
        }
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let named = words.iter().any(|w| Level::from_name(w).is_some());
    for isa in Isa::detect().levels().filter(|i| named || *i == Isa::detect()) {
        let b = Bench { isa, words: words.clone() };
        for (m, n, k) in [
            (128, 768, 768),
            (128, 3072, 768),
            (128, 768, 3072),
            (1, 768, 768),
            (1, 4096, 4096),
            (4, 4096, 4096),
            (128, 128, 64),
            (1000, 1000, 1000),
        ] {
            b.gemm(m, n, k, true);
            b.gemm(m, n, k, false);
        }
        let sq =
            |c: [usize; 2], size: usize, kernel, stride, pad| ConvSpec::square(1, c, [size, size], kernel, stride, pad);
        b.conv("resnet50", sq([3, 64], 224, 7, 2, 3), true);
        let mut c_in = 64;
        for (stage, size) in [56, 28, 14, 7].into_iter().enumerate() {
            let mid = 64 << stage;
            let (wide, stride) = (4 * mid, if stage > 0 { 2 } else { 1 });
            b.conv("resnet50", sq([c_in, mid], size * stride, 1, 1, 0), false);
            b.conv("resnet50", sq([c_in, wide], size * stride, 1, stride, 0), false);
            if stride > 1 {
                b.conv("resnet50", sq([mid, mid], size * stride, 3, stride, 1), false);
            }
            b.conv("resnet50", sq([mid, mid], size, 3, 1, 1), true);
            b.conv("resnet50", sq([mid, wide], size, 1, 1, 0), false);
            b.conv("resnet50", sq([wide, mid], size, 1, 1, 0), false);
            c_in = wide;
        }
        let dw = |c: usize, size: usize, kernel, stride| ConvSpec {
            groups: c,
            ..sq([c, c], size, kernel, stride, kernel / 2)
        };
        for (c, size, stride) in [(32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1)] {
            b.conv("mobilenet", dw(c, size, 3, stride), false);
        }
        b.conv("mobilenet", sq([16, 96], 112, 1, 1, 0), false);
        b.conv("mobilenet", sq([160, 960], 7, 1, 1, 0), false);
        let max = PoolSpec {
            output: [1, 56, 56],
            kernel: [1, 3, 3],
            stride: [1, 2, 2],
            pad: [0, 1, 1],
            pad_end: [0, 1, 1],
            ..PoolSpec::global(1, 64, [1, 112, 112], Kind::Max)
        };
        b.pool("max 3x3/2 112x64", max);
        b.pool("global 7x2048", PoolSpec::global(1, 2048, [1, 7, 7], Kind::Average { include_pad: false }));
        b.reorder(1, 64, 112 * 112);
        b.reorder(1, 512, 49);
    }
}
