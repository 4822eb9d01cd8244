//! Products, convolutions and poolings.

use super::{Sample, Work, floats, read, vectors};
use crate::base::alloc::Buffer;
use crate::error::Result;
use crate::kernels::conv::blocked::{BlockedConv, Input};
use crate::kernels::conv::dense::DenseConv;
use crate::kernels::conv::depthwise::DepthwiseConv;
use crate::kernels::conv::{ConvPtrs, ConvSpec};
use crate::kernels::gemm::{Activation, Gemm, GemmPtrs, GemmSpec};
use crate::kernels::isa::Isa;
use crate::kernels::pool::{Indices, Kind, Pool, PoolSpec};
use crate::kernels::reorder::{Direction, Reorder, blocked_len};
use std::rc::Rc;

/// The textbook bound of a sum of `terms` products of values of at most 1.5.
fn bound(terms: usize) -> f32 {
    2.25 * terms as f32 * f32::EPSILON * (terms as f32).sqrt()
}

pub fn gemm() -> Vec<Sample> {
    let shapes = [
        (128, 768, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (1, 768, 768),
        (1, 4096, 4096),
        (4, 4096, 4096),
        (128, 128, 64),
        (1000, 1000, 1000),
        (37, 129, 65),
        (1, 1, 300),
        (5, 31, 1),
    ];
    let both = shapes.into_iter().flat_map(|s| [(s, true), (s, false)]);
    both.map(|((m, n, k), constant)| Sample {
        label: format!("{m}x{n}x{k}{}", if constant { "" } else { " strided B" }),
        flops: 2.0 * (m * n * k) as f64,
        bytes: 4.0 * (m * k + k * n + m * n) as f64,
        bound: bound(k),
        ready: Box::new(move |isa| product(isa, m, n, k, constant)),
    })
    .collect()
}

fn product(isa: Isa, m: usize, n: usize, k: usize, b_constant: bool) -> Result<Work> {
    let g = Gemm::new(isa, GemmSpec { b_constant, ..GemmSpec::dense(m, n, k) })?;
    let (a, b, c) = (floats(m * k)?, floats(k * n)?, Rc::new(floats(m * n)?));
    let packed = Buffer::uninit(g.packed_bytes())?;
    if b_constant {
        // SAFETY: B has the spec's shape, the buffer the size that was asked for.
        unsafe { g.pack(b.ptr().cast(), packed.ptr().cast()) }
    }
    let (work, scratch) = (Buffer::uninit(g.workspace_bytes())?, Buffer::uninit(g.scratch_bytes())?);
    let out = c.clone();
    Ok(Work {
        kernel: g.name().into(),
        tasks: (0..g.phases()).map(|p| g.tasks(p)).sum(),
        run: Box::new(move || {
            let p = GemmPtrs {
                a: a.ptr().cast(),
                b: if b_constant { packed.ptr().cast() } else { b.ptr().cast() },
                c: c.ptr().cast(),
                bias: std::ptr::null(),
                residual: std::ptr::null(),
            };
            for phase in 0..g.phases() {
                for task in 0..g.tasks(phase) {
                    // SAFETY: all buffers are as long as the plan asks.
                    unsafe { g.run(phase, task, &p, work.ptr(), scratch.ptr()) };
                }
            }
            Ok(())
        }),
        output: Box::new(move || read(&out, m * n)),
    })
}

fn square(c: [usize; 2], size: usize, kernel: usize, stride: usize, pad: usize) -> ConvSpec {
    let s = ConvSpec::square(1, c, [size, size], kernel, stride, pad);
    ConvSpec { bias: true, activation: Activation::Relu, ..s }
}

fn deep(c: usize, size: usize, kernel: usize, stride: usize) -> ConvSpec {
    ConvSpec { groups: c, ..square([c, c], size, kernel, stride, kernel / 2) }
}

/// A convolution as a sample; `make` makes it at a level.
fn sample(net: &str, s: ConvSpec, make: fn(Isa, ConvSpec) -> Result<Work>) -> Sample {
    let elements = s.n * (s.c_in * s.in_size() + s.c_out * s.out_size()) + s.c_out * s.c_in / s.groups * s.taps();
    Sample {
        label: format!("{net} {}x{} {}x{}-{} /{}", s.kernel[1], s.kernel[2], s.input[1], s.c_in, s.c_out, s.stride[2]),
        flops: s.flops() as f64,
        bytes: 4.0 * elements as f64,
        bound: bound(s.c_in / s.groups * s.taps()),
        ready: Box::new(move |isa| make(isa, s)),
    }
}

pub fn conv() -> Vec<Sample> {
    let mut specs = vec![("resnet50", square([3, 64], 224, 7, 2, 3))];
    let mut c_in = 64;
    for (stage, size) in [56, 28, 14, 7].into_iter().enumerate() {
        let mid = 64 << stage;
        let (wide, stride) = (4 * mid, if stage > 0 { 2 } else { 1 });
        specs.push(("resnet50", square([c_in, mid], size * stride, 1, 1, 0)));
        specs.push(("resnet50", square([c_in, wide], size * stride, 1, stride, 0)));
        if stride > 1 {
            specs.push(("resnet50", square([mid, mid], size * stride, 3, stride, 1)));
        }
        specs.push(("resnet50", square([mid, mid], size, 3, 1, 1)));
        specs.push(("resnet50", square([mid, wide], size, 1, 1, 0)));
        c_in = wide;
    }
    specs.push(("mobilenet", square([16, 96], 112, 1, 1, 0)));
    specs.push(("mobilenet", square([160, 960], 7, 1, 1, 0)));
    specs.push(("odd", square([19, 37], 13, 3, 1, 1)));
    specs.into_iter().map(|(net, s)| sample(net, s, blocked)).collect()
}

pub fn conv_dense() -> Vec<Sample> {
    let specs = [
        ("resnet50", square([3, 64], 224, 7, 2, 3)),
        ("resnet50", square([64, 64], 56, 3, 1, 1)),
        ("resnet50", square([512, 512], 7, 3, 1, 1)),
        ("odd", square([19, 37], 13, 3, 1, 1)),
    ];
    specs.into_iter().map(|(net, s)| sample(net, s, dense)).collect()
}

pub fn depthwise() -> Vec<Sample> {
    let shapes = [(32, 112, 1), (96, 112, 2), (144, 56, 1), (192, 28, 1), (384, 14, 1), (960, 7, 1), (35, 11, 1)];
    let of = |(c, size, stride)| sample("mobilenet", deep(c, size, 3, stride), by_channel);
    shapes.into_iter().map(of).collect()
}

/// Weights, bias, input and output of a convolution; in blocks where `c` is not 0.
struct Maps {
    x: Buffer,
    y: Rc<Buffer>,
    w: Buffer,
    bias: Buffer,
}

fn maps(isa: Isa, s: &ConvSpec, blocked_in: bool, blocked_out: bool) -> Result<Maps> {
    let c = isa.f32_lanes();
    let plain = floats(s.n * s.c_in * s.in_size())?;
    let x = if blocked_in { to_blocks(isa, &plain, s.n, s.c_in, s.in_size())? } else { plain };
    let out = if blocked_out { blocked_len(s.n, s.c_out, s.out_size(), c)? } else { s.n * s.c_out * s.out_size() };
    let bias = Buffer::zeroed(s.c_out.next_multiple_of(c) * 4)?;
    for i in 0..s.c_out {
        // SAFETY: i is below the bias's length.
        unsafe { *bias.ptr().cast::<f32>().add(i) = i as f32 / s.c_out as f32 };
    }
    Ok(Maps { x, y: Rc::new(floats(out)?), w: floats(s.c_out * s.c_in / s.groups * s.taps())?, bias })
}

fn to_blocks(isa: Isa, plain: &Buffer, n: usize, channels: usize, size: usize) -> Result<Buffer> {
    let to = Buffer::uninit(blocked_len(n, channels, size, isa.f32_lanes())? * 4)?;
    let r = Reorder::new(isa, Direction::ToBlocked, n, channels, size)?;
    for task in 0..r.tasks() {
        // SAFETY: both are as long as their layouts.
        unsafe { r.run(task, plain.ptr().cast(), to.ptr().cast()) };
    }
    Ok(to)
}

fn to_plain(isa: Isa, blocks: &Buffer, n: usize, channels: usize, size: usize) -> Result<Buffer> {
    let to = Buffer::uninit(n * channels * size * 4)?;
    let r = Reorder::new(isa, Direction::ToDense, n, channels, size)?;
    for task in 0..r.tasks() {
        // SAFETY: as above.
        unsafe { r.run(task, blocks.ptr().cast(), to.ptr().cast()) };
    }
    Ok(to)
}

// The kernels share their methods' names, not a trait: nothing but this table treats them alike.
macro_rules! work {
    ($isa:expr, $s:expr, $conv:expr, $maps:expr, $weights:expr, $blocked:expr, $name:expr) => {{
        let (isa, s, conv, maps, weights): (Isa, ConvSpec, _, Maps, Option<Buffer>) =
            ($isa, $s, $conv, $maps, $weights);
        let (scratch, room) = (Buffer::uninit(conv.scratch_bytes())?, Buffer::uninit(conv.workspace_bytes())?);
        let out = maps.y.clone();
        Ok(Work {
            kernel: $name,
            tasks: (0..conv.phases()).map(|p| conv.tasks(p)).sum(),
            run: Box::new(move || {
                let p = ConvPtrs {
                    x: maps.x.ptr().cast(),
                    w: weights.as_ref().unwrap_or(&maps.w).ptr().cast(),
                    y: maps.y.ptr().cast(),
                    bias: maps.bias.ptr().cast(),
                    residual: std::ptr::null(),
                };
                for phase in 0..conv.phases() {
                    for task in 0..conv.tasks(phase) {
                        // SAFETY: all buffers are as long as the plan asks.
                        unsafe { conv.run(phase, task, &p, room.ptr(), scratch.ptr()) };
                    }
                }
                Ok(())
            }),
            output: Box::new(move || {
                let n = s.n * s.c_out * s.out_size();
                match $blocked {
                    true => to_plain(isa, &out, s.n, s.c_out, s.out_size()).map_or(Vec::new(), |b| read(&b, n)),
                    false => read(&out, n),
                }
            }),
        })
    }};
}

fn blocked(isa: Isa, s: ConvSpec) -> Result<Work> {
    let input = if s.c_in < 8 { Input::Dense } else { Input::Blocked };
    let conv = BlockedConv::new(isa, s, input)?;
    let maps = maps(isa, &s, input == Input::Blocked, true)?;
    let packed = Buffer::uninit(conv.packed_bytes())?;
    // SAFETY: weights of the spec's shape into a buffer of the size that was asked for.
    unsafe { conv.pack(maps.w.ptr().cast(), packed.ptr().cast()) };
    let name = conv.name().to_string();
    work!(isa, s, conv, maps, Some(packed), true, name)
}

fn by_channel(isa: Isa, s: ConvSpec) -> Result<Work> {
    let conv = DepthwiseConv::new(isa, s)?;
    let maps = maps(isa, &s, true, true)?;
    let packed = Buffer::uninit(conv.packed_bytes())?;
    // SAFETY: as above.
    unsafe { conv.pack(maps.w.ptr().cast(), packed.ptr().cast()) };
    work!(isa, s, conv, maps, Some(packed), true, vectors("f32_depthwise", isa))
}

fn dense(isa: Isa, s: ConvSpec) -> Result<Work> {
    let conv = DenseConv::new(isa, s)?;
    let maps = maps(isa, &s, false, false)?;
    // Its tiles are those of the product.
    let name = conv.name().replace("f32_gemm", "f32_conv_dense");
    work!(isa, s, conv, maps, None, false, name)
}

pub fn pool() -> Vec<Sample> {
    let max = PoolSpec {
        output: [1, 56, 56],
        kernel: [1, 3, 3],
        stride: [1, 2, 2],
        pad: [0, 1, 1],
        pad_end: [0, 1, 1],
        ..PoolSpec::global(1, 64, [1, 112, 112], Kind::Max)
    };
    let mean = PoolSpec::global(1, 2048, [1, 7, 7], Kind::Average { include_pad: false });
    let shapes = [("max 3x3/2 112x64", max), ("global 7x2048", mean)];
    let both = shapes.into_iter().flat_map(|s| [(s, true), (s, false)]);
    both.map(|((label, s), blocked)| {
        let size = |d: [usize; 3]| s.n * s.channels * d.iter().product::<usize>();
        Sample {
            label: format!("{label}{}", if blocked { "" } else { " dense" }),
            flops: (size(s.output) * s.kernel.iter().product::<usize>()) as f64,
            bytes: 4.0 * (size(s.input) + size(s.output)) as f64,
            bound: bound(s.kernel.iter().product()),
            ready: Box::new(move |isa| pooled(isa, s, blocked)),
        }
    })
    .collect()
}

fn pooled(isa: Isa, s: PoolSpec, blocked: bool) -> Result<Work> {
    let pool = Pool::new(isa, s, blocked)?;
    let [from, to] = [s.input, s.output].map(|d| d.iter().product::<usize>());
    let plain = floats(s.n * s.channels * from)?;
    let x = if blocked { to_blocks(isa, &plain, s.n, s.channels, from)? } else { plain };
    let len = if blocked { blocked_len(s.n, s.channels, to, isa.f32_lanes())? } else { s.n * s.channels * to };
    let y = Rc::new(floats(len)?);
    let out = y.clone();
    Ok(Work {
        kernel: vectors(pool.name(), isa),
        tasks: pool.tasks(),
        run: Box::new(move || {
            for task in 0..pool.tasks() {
                // SAFETY: both are as long as the shape.
                unsafe { pool.run(task, x.ptr().cast(), y.ptr().cast(), Indices::NONE) };
            }
            Ok(())
        }),
        output: Box::new(move || {
            let n = s.n * s.channels * to;
            match blocked {
                true => to_plain(isa, &out, s.n, s.channels, to).map_or(Vec::new(), |b| read(&b, n)),
                false => read(&out, n),
            }
        }),
    })
}
