//! Integer products and convolutions against naive ones, with every set of instructions, over all values of bytes.

use super::conv::{IntConv, IntConvPtrs, IntConvSpec};
use super::gemm::{IntGemm, IntGemmPtrs, IntGemmSpec};
use super::micro::{TileSet, sets};
use super::post::{Out, Residual, bounds};
use super::turn::turn_bytes;
use super::{Post, Zero};
use crate::base::alloc::Buffer;
use crate::kernels::conv::ConvSpec;
use crate::kernels::gemm::Strides;
use crate::kernels::isa::Isa;
use crate::kernels::testing::Rng;

fn value(byte: u8, signed: bool) -> i32 {
    if signed { i32::from(byte as i8) } else { i32::from(byte) }
}

/// Random bytes, with the extremes often among them.
fn bytes(rng: &mut Rng, n: usize) -> Vec<u8> {
    (0..n).map(|_| [rng.next() as u8, 0, 255, 127, 128][if rng.below(2) == 0 { 0 } else { rng.below(5) }]).collect()
}

fn all_sets() -> Vec<(Isa, &'static TileSet)> {
    Isa::detect().levels().flat_map(|isa| sets(isa).into_iter().map(move |s| (isa, s))).collect()
}

/// What becomes of a sum, one at a time.
fn plain_post(out: Out, sum: i32, scale: f32, bias: f32, zero: f32) -> Vec<u8> {
    let scaled = sum as f32 * scale;
    match out {
        Out::I32 => sum.to_le_bytes().to_vec(),
        Out::F32 => (scaled + bias).to_le_bytes().to_vec(),
        Out::Int8 { signed } => {
            let (lo, hi) = if signed { (-128.0, 127.0) } else { (0.0, 255.0) };
            vec![((scaled + bias).round_ties_even() + zero).clamp(lo, hi) as i32 as u8]
        }
    }
}

#[test]
fn products_are_exact_with_every_instruction_set() {
    let mut rng = Rng::new(11);
    let sizes = [
        (1, 1, 1),
        (1, 70, 33),
        (2, 16, 4),
        (7, 65, 19),
        (13, 100, 64),
        (100, 130, 7),
        (5, 8, 300),
        (0, 4, 4),
        (4, 0, 4),
        (4, 5, 0),
    ];
    let outs = [Out::I32, Out::F32, Out::Int8 { signed: true }, Out::Int8 { signed: false }];
    for (isa, set) in all_sets() {
        for (case, &(m, n, k)) in sizes.iter().enumerate() {
            for flags in 0..8 {
                let (a_signed, b_unsigned, each) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                let (ta, tb, constant) = (rng.below(3) == 0, rng.below(2) == 0, rng.below(2) == 0);
                let (zero_points, out) = (rng.below(4) > 0, outs[(case + flags) % 4]);
                let bs = 1 + rng.below(2);
                let items: Vec<(usize, usize)> = (0..3).map(|i| (i % 2, i % bs)).collect();
                let (a, b) = (bytes(&mut rng, 2 * m * k), bytes(&mut rng, bs * k * n));
                let strides = |cols: usize, rows: usize, t: bool| match t {
                    true => Strides { row: 1, col: rows },
                    false => Strides { row: cols, col: 1 },
                };
                let spec = IntGemmSpec {
                    m,
                    n,
                    k,
                    a: strides(k, m, ta),
                    b: strides(n, k, tb),
                    a_signed,
                    b_unsigned,
                    items: items.clone(),
                    bs,
                    b_constant: constant,
                    out,
                };
                let gemm = IntGemm::with(isa, set, spec.clone()).unwrap();
                let (za, zb) = (bytes(&mut rng, (2 * m).max(1)), bytes(&mut rng, (bs * n).max(1)));
                let zero = |z: &[u8]| if zero_points { Zero { at: z.as_ptr(), each } } else { Zero::NONE };
                let zp = |z: &[u8], i: usize, signed: bool| match zero_points {
                    true => value(z[if each { i } else { 0 }], signed),
                    false => 0,
                };
                let int_bias: Vec<i32> = (0..n).map(|_| rng.next() as i32 >> 16).collect();
                let scale: Vec<f32> = (0..n.max(1)).map(|_| 0.001 + rng.float().abs() * 0.01).collect();
                let bias = rng.floats(n);
                let post = Post {
                    out,
                    int_bias: int_bias.as_ptr(),
                    scale: scale.as_ptr(),
                    scale_each: each,
                    bias: bias.as_ptr(),
                    zero: if out == Out::F32 { 0.0 } else { 3.0 },
                    relu: false,
                    residual: None,
                };
                let packed = Buffer::uninit(gemm.packed_bytes()).unwrap();
                if constant {
                    // SAFETY: the buffer has the size asked for.
                    unsafe { gemm.pack(b.as_ptr(), packed.ptr()) };
                }
                let mut got = vec![0u8; 3 * m * n * out.size()];
                let p = IntGemmPtrs {
                    a: a.as_ptr(),
                    b: if constant { packed.ptr() } else { b.as_ptr() },
                    c: got.as_mut_ptr(),
                    a_zero: zero(&za),
                    a_zero_items: true,
                    b_zero: zero(&zb),
                    b_zero_items: true,
                    post,
                };
                let work = Buffer::uninit(gemm.workspace_bytes()).unwrap();
                let scratch = Buffer::uninit(gemm.scratch_bytes()).unwrap();
                for phase in 0..gemm.phases() {
                    for task in 0..gemm.tasks(phase) {
                        // SAFETY: operands of the spec's sizes, buffers of those asked for.
                        unsafe { gemm.run(phase, task, &p, work.ptr(), scratch.ptr()) };
                    }
                }
                let mut want = Vec::new();
                for &(ia, ib) in &items {
                    for i in 0..m {
                        for j in 0..n {
                            let mut sum = int_bias[j];
                            for x in 0..k {
                                let av = a[ia * m * k + i * spec.a.row + x * spec.a.col];
                                let bv = b[ib * k * n + x * spec.b.row + j * spec.b.col];
                                let av = value(av, a_signed) - zp(&za, ia * m + i, a_signed);
                                let bv = value(bv, !b_unsigned) - zp(&zb, ib * n + j, !b_unsigned);
                                sum = sum.wrapping_add(av * bv);
                            }
                            want.extend(plain_post(out, sum, scale[if each { j } else { 0 }], bias[j], post.zero));
                        }
                    }
                }
                assert!(got == want, "{} {m}x{n}x{k} {spec:?} {each} {zero_points}", set.name);
            }
        }
    }
}

#[test]
fn convolutions_are_exact_with_every_instruction_set() {
    let mut rng = Rng::new(12);
    let square = ConvSpec::square;
    let mut specs = vec![
        square(2, [3, 5], [7, 9], 3, 1, 1),
        square(1, [8, 70], [6, 5], 1, 1, 0),
        square(1, [17, 33], [12, 11], 3, 2, 1),
        ConvSpec { groups: 2, ..square(1, [6, 8], [5, 6], 3, 1, 0) },
        ConvSpec { groups: 20, ..square(2, [20, 20], [9, 8], 3, 1, 1) },
        ConvSpec { groups: 70, ..square(1, [70, 70], [11, 7], 5, 2, 2) },
        ConvSpec { groups: 3, ..square(1, [3, 6], [5, 5], 3, 1, 1) },
        ConvSpec { groups: 32, ..square(2, [32, 32], [5, 4], 3, 1, 1) },
        ConvSpec { groups: 144, ..square(1, [144, 144], [6, 9], 3, 2, 1) },
        // Lines whose ends are not all seen, and a kernel wider than the input.
        square(2, [3, 8], [11, 12], 7, 4, 3),
        ConvSpec { output: [1, 2, 2], ..square(1, [3, 8], [5, 2], 5, 1, 2) },
        // Many places of few products: tasks of more than 48.
        square(1, [8, 4], [30, 29], 1, 1, 0),
        square(1, [4, 9], [3, 3], 3, 1, 0),
    ];
    let dilated = ConvSpec { dilation: [1, 2, 3], output: [1, 6, 4], ..square(1, [5, 6], [10, 10], 3, 1, 0) };
    specs.push(dilated);
    let volume =
        ConvSpec { input: [4, 5, 6], output: [3, 4, 5], kernel: [2, 2, 2], ..square(1, [3, 4], [5, 6], 2, 1, 0) };
    specs.push(volume);
    for (isa, set) in all_sets() {
        for conv in &specs {
            for flags in 0..32 {
                let (x_signed, w_unsigned, w_constant) = (flags & 1 != 0, flags & 2 != 0, flags & 4 != 0);
                let last = [flags & 8 != 0, flags & 16 != 0];
                let w_centred = rng.below(2) == 0;
                let out = [Out::I32, Out::Int8 { signed: x_signed }][rng.below(2)];
                let each = rng.below(2) == 0;
                let spec = IntConvSpec { conv: *conv, x_signed, w_unsigned, w_constant, w_centred, out, last };
                let kernel = IntConv::with(isa, set, spec).unwrap();
                let (ci, co) = (conv.c_in / conv.groups, conv.c_out / conv.groups);
                let x = bytes(&mut rng, conv.n * conv.c_in * conv.in_size());
                let w = bytes(&mut rng, conv.c_out * ci * conv.taps());
                let (zx, mut zw) = (bytes(&mut rng, 1), bytes(&mut rng, conv.c_out));
                if w_centred {
                    zw.fill(if w_unsigned { 128 } else { 0 });
                }
                let total = conv.n * conv.c_out * conv.out_size();
                let (addends, relu) = (bytes(&mut rng, total), rng.below(2) == 0);
                let residual = Residual {
                    at: addends.as_ptr(),
                    signed: !x_signed,
                    zero: 3.0,
                    scale: 0.02,
                    own_bounds: bounds(x_signed, 5.0, false),
                    own_scale: 0.04,
                    sum_scale: 0.05,
                };
                let residual = (out != Out::I32 && rng.below(2) == 0).then_some(residual);
                let bias: Vec<i32> = (0..conv.c_out).map(|_| rng.next() as i32 >> 12).collect();
                let scale: Vec<f32> = (0..conv.c_out).map(|_| 0.0002 * (1.0 + rng.float().abs())).collect();
                let post = Post {
                    out,
                    int_bias: bias.as_ptr(),
                    scale: scale.as_ptr(),
                    scale_each: each,
                    bias: std::ptr::null(),
                    zero: 7.0,
                    relu,
                    residual,
                };
                let packed = Buffer::uninit(kernel.packed_bytes()).unwrap();
                let packs = w_constant && kernel.packed_bytes() > 0;
                if packs {
                    // SAFETY: the buffer has the size asked for.
                    unsafe { kernel.pack(w.as_ptr(), packed.ptr()) };
                }
                let mut got = vec![0u8; conv.n * conv.c_out * conv.out_size() * out.size()];
                let p = IntConvPtrs {
                    x: x.as_ptr(),
                    w: if packs { packed.ptr() } else { w.as_ptr() },
                    y: got.as_mut_ptr(),
                    x_zero: Zero { at: zx.as_ptr(), each: false },
                    w_zero: Zero { at: zw.as_ptr(), each },
                    post,
                };
                let work = Buffer::uninit(kernel.workspace_bytes()).unwrap();
                let scratch = Buffer::uninit(kernel.scratch_bytes()).unwrap();
                for phase in 0..kernel.phases() {
                    for task in 0..kernel.tasks(phase) {
                        // SAFETY: operands of the spec's sizes, buffers of those asked for.
                        unsafe { kernel.run(phase, task, &p, work.ptr(), scratch.ptr()) };
                    }
                }
                let mut want = Vec::new();
                for plane in 0..conv.n * conv.c_out {
                    let (image, channel) = (plane / conv.c_out, plane % conv.c_out);
                    for o in 0..conv.out_size() {
                        let at = |i: usize, s: [usize; 3]| [i / (s[1] * s[2]), i / s[2] % s[1], i % s[2]];
                        let mut sum = bias[channel];
                        for c in 0..ci {
                            for tap in 0..conv.taps() {
                                let (o, t) = (at(o, conv.output), at(tap, conv.kernel));
                                let place: Option<Vec<usize>> = (0..3)
                                    .map(|d| {
                                        let i = o[d] * conv.stride[d] + t[d] * conv.dilation[d];
                                        i.checked_sub(conv.pad[d]).filter(|&i| i < conv.input[d])
                                    })
                                    .collect();
                                let Some(i) = place else { continue };
                                let i = (i[0] * conv.input[1] + i[1]) * conv.input[2] + i[2];
                                let from = image * conv.c_in + channel / co * ci + c;
                                let (plane, size) = (from % conv.c_in, conv.in_size());
                                let from =
                                    if last[0] { (image * size + i) * conv.c_in + plane } else { from * size + i };
                                let xv = value(x[from], x_signed) - value(zx[0], x_signed);
                                let wv = value(w[(channel * ci + c) * conv.taps() + tap], !w_unsigned);
                                let zw = value(zw[if each { channel } else { 0 }], !w_unsigned);
                                sum = sum.wrapping_add(xv * (wv - zw));
                            }
                        }
                        let mut scaled = sum as f32 * scale[if each { channel } else { 0 }];
                        if out == Out::I32 {
                            want.extend(sum.to_le_bytes());
                            continue;
                        }
                        if let Some(r) = residual {
                            let i =
                                if last[1] { (image * conv.out_size() + o) * conv.c_out + channel } else { want.len() };
                            let own =
                                (scaled.round_ties_even() + 5.0).clamp(r.own_bounds[0] + 5.0, r.own_bounds[1] + 5.0);
                            let other = value(addends[i], r.signed) as f32;
                            scaled = ((own - 5.0) * r.own_scale + (other - r.zero) * r.scale) / r.sum_scale;
                        }
                        let scaled = if relu { scaled.max(0.0) } else { scaled };
                        let (lo, hi) = if x_signed { (-128.0, 127.0) } else { (0.0, 255.0) };
                        want.push((scaled.round_ties_even() + 7.0).clamp(lo, hi) as i32 as u8);
                    }
                }
                if last[1] {
                    let (n, size) = (out.size(), conv.out_size());
                    let place = |i: usize| (i / n / size % conv.c_out, i / n % size, i / n / size / conv.c_out);
                    let at = |i: usize| {
                        let (channel, o, image) = place(i);
                        ((image * size + o) * conv.c_out + channel) * n + i % n
                    };
                    got = (0..got.len()).map(|i| got[at(i)]).collect();
                }
                assert!(got == want, "{} {spec:?} {each}", set.name);
            }
        }
    }
}

#[test]
fn bytes_are_turned() {
    let mut rng = Rng::new(13);
    for (rows, cols) in [(1, 1), (8, 8), (19, 33), (64, 17), (0, 5)] {
        let (src, mut dst) = (bytes(&mut rng, rows * (cols + 3)), vec![0u8; cols * (rows + 2)]);
        // SAFETY: the vectors have those places.
        unsafe { turn_bytes(src.as_ptr(), cols + 3, dst.as_mut_ptr(), rows + 2, rows, cols, 0x80) };
        for i in 0..rows {
            for j in 0..cols {
                assert_eq!(dst[j * (rows + 2) + i], src[i * (cols + 3) + j] ^ 0x80);
            }
        }
    }
}
