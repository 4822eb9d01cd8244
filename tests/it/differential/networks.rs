//! Parts of networks: branches that meet again, and what stands around sums.

use super::generator::{A, Gen, Id, SETS, each, fixed, tame};
use super::neural::Window;
use ortx::DType::F32;
use ortx::Tensor;

impl Gen<'_> {
    /// A convolution that keeps the picture's size.
    fn same_conv(&mut self, x: Id, size: usize, channels: usize, group: usize) -> Option<Id> {
        let n = self.val(x).rank() - 2;
        let w =
            Window { kernel: vec![size; n], strides: vec![1; n], dilations: vec![1; n], pads: vec![size / 2; 2 * n] };
        let bias = self.d.flag();
        self.conv(x, &w, channels, group, bias)
    }
    fn channels(&self, x: Id) -> usize {
        self.val(x).dims[1][0]
    }
}

/// Branches over one picture, joined along the channels, and a convolution over all.
pub fn branches(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let n = 2 + g.d.below(2);
        let mut all = Vec::new();
        for _ in 0..n {
            let c = g.channels(x);
            let channels = g.d.pick(&[1, 4, 8, 16, 17]);
            let size = g.d.pick(&[1, 3]);
            let y = match g.d.below(5) {
                0 => x,
                1 => g.same_conv(x, 3, c, c)?,
                2 => {
                    let rank = g.val(x).rank() - 2;
                    let v = g.get(x);
                    let attrs = vec![("kernel_shape", A::Is(vec![3; rank])), ("pads", A::Is(vec![1; 2 * rank]))];
                    g.one("MaxPool", &[x], attrs, v)?
                }
                _ => g.same_conv(x, size, channels, 1)?,
            };
            all.push(if g.d.flag() { g.activation(y)? } else { y });
        }
        let y = g.concat(&all, 1)?;
        if g.d.flag() && tame(g.val(y)) {
            return g.same_conv(y, 1, 8, 1);
        }
        Some(y)
    })
}

/// Channels weighed by their means.
pub fn squeezed(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let c = g.channels(x);
        let axes: Vec<usize> = (2..v.rank()).collect();
        let mean = g.reduce("ReduceMean", x, &axes, true)?;
        let few = g.same_conv(mean, 1, c.div_ceil(2), 1)?;
        let few = g.activation(few)?;
        let all = g.same_conv(few, 1, c, 1)?;
        let f = g.d.pick(&["Sigmoid", "HardSigmoid"]);
        let gate = g.unary(f, all)?;
        g.mul(x, gate)
    })
}

/// Channels of groups shuffled; a picture cut in halves, worked on, joined.
pub fn shuffled(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let c = g.channels(x);
        if c < 2 || c % 2 > 0 {
            return None;
        }
        let parts = g.split(x, 1, &[c / 2; 2])?;
        let left = g.same_conv(parts[0], 3, c / 2, 1)?;
        let left = g.activation(left)?;
        let y = g.concat(&[left, parts[1]], 1)?;
        let apart = [&[v.dims[0], [2; SETS], [c / 2; SETS]][..], &v.dims[2..]].concat();
        let y = g.reshape(y, apart)?;
        let mut perm: Vec<usize> = (0..v.rank() + 1).collect();
        perm.swap(1, 2);
        let y = g.transpose(y, &perm)?;
        g.reshape(y, v.dims.clone())
    })
}

/// Down by two and up again, beside what was there.
pub fn pyramid(g: &mut Gen) -> Option<Id> {
    let c = g.d.pick(&[3, 4, 8, 16]);
    let even = |s: super::generator::Size| each(|k| 2 * s[k].div_ceil(2));
    let dims = [g.full_size(2), [c; SETS], even(g.full_size(10)), even(g.full_size(10))];
    let x = match g.float(|v| v.dims == dims && v.dtype == F32) {
        Some(x) => x,
        None => g.feed(F32, &dims, -2.0, 2.0),
    };
    g.idiom(|g| {
        let w = Window { kernel: vec![2; 2], strides: vec![2; 2], dilations: vec![1; 2], pads: vec![0; 4] };
        let down = g.conv(x, &w, c, 1, true)?;
        let down = g.activation(down)?;
        let scales = g.constant(Tensor::from_slice(&[4], &[1.0f32, 1.0, 2.0, 2.0]).unwrap());
        let out = g.get(down).sized(dims.to_vec());
        let attrs = vec![
            ("mode", A::S("nearest")),
            ("coordinate_transformation_mode", A::S("asymmetric")),
            ("nearest_mode", A::S("floor")),
        ];
        let up = g.node("Resize", &[Some(down), None, Some(scales)], attrs, vec![out])?[0];
        if g.d.flag() { g.add(x, up) } else { g.concat(&[x, up], 1) }
    })
}

/// Softmax, a reduction or a norm between elementwise operators.
pub fn framed(g: &mut Gen) -> Option<Id> {
    let x =
        g.operand(1, 4, |v| v.full() && v.dims.last().is_some_and(|n| fixed(n) && n[0] <= 100) && v.most() <= 8.0)?;
    g.idiom(|g| {
        let mut y = x;
        for _ in 0..g.d.below(3) {
            let other = g.partner(y)?;
            y = if g.d.flag() { g.activation(y)? } else { g.add(y, other)? };
            tame(g.val(y)).then_some(())?;
        }
        let v = g.get(y);
        y = match g.d.below(3) {
            0 => g.softmax(y, -1, v.most())?,
            1 => g.reduce("ReduceMean", y, &[v.rank() - 1], true)?,
            _ => {
                let rms = g.d.flag();
                g.written_norm(y, &[v.rank() - 1], rms)?
            }
        };
        for _ in 0..g.d.below(3) {
            let other = g.partner(y)?;
            let op = g.d.pick(&["Add", "Mul", "Sub"]);
            y = if g.d.flag() && g.val(y).most() <= 8.0 { g.activation(y)? } else { g.binary(op, y, other)? };
        }
        Some(y)
    })
}

/// What multiplies and adds channels before and behind a convolution, or a transposed one.
pub fn affine(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let mut y = x;
        let constant = |g: &mut Gen, y: Id| -> Option<Id> {
            let v = g.get(y);
            let c = g.channels(y);
            if g.d.one_in(3) {
                return g.batch_norm(y);
            }
            let shape = if g.d.one_in(4) { vec![] } else { [vec![c], vec![1; v.rank() - 2]].concat() };
            let k = g.spread(v.dtype, &shape, 0.25, 1.0);
            let op = g.d.pick(&["Mul", "Add", "Sub", "Mul", "Div"]);
            g.binary(op, y, k)
        };
        for _ in 0..g.d.below(3) {
            y = constant(g, y)?;
        }
        tame(g.val(y)).then_some(())?;
        let c = g.channels(y);
        y = match g.d.below(4) {
            0 => g.upward(y)?,
            1 => g.same_conv(y, 3, c, c)?,
            _ => {
                let v = g.get(y);
                let mut w = Window::draw(g, &v.dims[2..])?;
                if g.d.flag() {
                    w.pads.fill(0);
                }
                let channels = g.d.pick(&[1, 5, 8, 16, 18]);
                g.conv(y, &w, channels, 1, true)?
            }
        };
        for _ in 0..g.d.below(3) {
            y = constant(g, y)?;
        }
        if g.d.flag() && g.val(y).most() <= 16.0 { g.activation(y) } else { Some(y) }
    })
}

/// A border, then a pool.
pub fn padded_pool(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let n = v.rank() - 2;
        let mut pads = vec![0i64; 2 * v.rank()];
        for i in 2..v.rank() {
            (pads[i], pads[i + v.rank()]) = (g.d.within(0, 1), g.d.within(0, 1));
        }
        let grown = |i: usize| each(|k| v.dims[i][k] + (pads[i] + pads[i + v.rank()]) as usize);
        let dims: Vec<_> = (0..v.rank()).map(grown).collect();
        let low = g.d.pick(&[0.0, 0.0, f64::NEG_INFINITY, -3.0]);
        let fill = g.constant(crate::properties::reference::tensor(v.dtype, &[], &[low]));
        let p = g.ints(&pads);
        let out = v.clone().sized(dims.clone()).bounds(v.low.min(low), v.high.max(0.0), v.error);
        let y = g.one("Pad", &[x, p, fill], vec![], out)?;
        let w = Window { kernel: vec![3; n], strides: vec![2; n], dilations: vec![1; n], pads: vec![0; 2 * n] };
        let dims = [&dims[..2], &w.output(&dims[2..])?].concat();
        let (op, low) = if low == 0.0 && g.d.flag() {
            ("AveragePool", v.low.min(0.0))
        } else {
            // A window of three has something of the picture: the border is one wide.
            ("MaxPool", v.low)
        };
        let error = v.error + super::generator::rounding(v.dtype, 12.0, v.most());
        let out = v.clone().sized(dims).bounds(low, v.high.max(0.0), error);
        g.one(op, &[y], w.attrs(true), out)
    })
}

/// Channels last, as tf2onnx and ConvNeXt have it: turned for each convolution and back, and worked on in between.
pub fn channels_last(g: &mut Gen) -> Option<Id> {
    let c = g.d.pick(&[3, 4, 8, 16]);
    let dims = [g.full_size(3), g.full_size(12), g.full_size(12), [c; SETS]];
    let x = match g.float(|v| v.rank() == 4 && v.full() && fixed(&v.dims[3]) && v.dims[3][0] <= 32) {
        Some(x) if !g.d.one_in(3) => x,
        _ => {
            g.fits(&dims)?;
            g.feed(F32, &dims, -2.0, 2.0)
        }
    };
    g.idiom(|g| {
        let mut y = x;
        for _ in 0..1 + g.d.below(4) {
            let v = g.get(y);
            let c = v.dims[3][0];
            tame(&v).then_some(())?;
            y = match g.d.below(7) {
                0..=2 => {
                    let first = g.transpose(y, &[0, 3, 1, 2])?;
                    let channels = g.d.pick(&[4, 8, 5, 16]);
                    let size = g.d.pick(&[1, 3]);
                    let mut z = if g.d.one_in(4) {
                        g.same_conv(first, 3, c, c)?
                    } else {
                        g.same_conv(first, size, channels, 1)?
                    };
                    if g.d.one_in(3) {
                        z = g.activation(z)?;
                    }
                    g.transpose(z, &[0, 2, 3, 1])?
                }
                3 => g.biased(y)?,
                4 => g.activation(y)?,
                5 => g.written_norm(y, &[3], false)?,
                _ => {
                    let like = v.clone();
                    let other = g.pick(|w| tame(w) && w.dtype == like.dtype && w.dims == like.dims).unwrap_or(y);
                    if g.d.flag() { g.add(y, other)? } else { g.concat(&[y, other], 3)? }
                }
            };
        }
        match g.d.below(3) {
            0 => g.reduce("ReduceMean", y, &[1, 2], false),
            1 => g.transpose(y, &[0, 3, 1, 2]),
            _ => Some(y),
        }
    })
}

/// From a picture to classes.
pub fn head(g: &mut Gen) -> Option<Id> {
    let x = g.picture()?;
    g.idiom(|g| {
        let v = g.get(x);
        let out = v.clone().sized(v.dims.iter().enumerate().map(|(i, d)| if i < 2 { *d } else { [1; SETS] }).collect());
        let n = super::neural::count_along(&v, &(2..v.rank()).collect::<Vec<_>>()).into_iter().max()? as f64;
        let out = out.bounds(v.low, v.high, v.error + super::generator::rounding(v.dtype, n + 2.0, v.most()));
        let y = g.one("GlobalAveragePool", &[x], vec![], out)?;
        let flat = vec![v.dims[0], v.dims[1]];
        let y = if g.d.flag() {
            let out = g.get(y).sized(flat);
            g.one("Flatten", &[y], vec![], out)?
        } else {
            g.reshape(y, flat)?
        };
        let y = g.project(y, 10, 3.0)?;
        let y = g.biased(y)?;
        let most = g.val(y).most();
        g.softmax(y, -1, most)
    })
}
