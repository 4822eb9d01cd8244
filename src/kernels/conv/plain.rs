//! Convolution of any type on dense memory: the way for what has no faster kernel.

use super::ConvSpec;
use crate::kernels::elem::Number;

impl ConvSpec {
    /// Computes one output plane: image and channel are `plane / c_out` and `plane % c_out`. Neither residual nor activation.
    /// # Safety
    /// The operands are dense and valid by the spec's shapes; `bias` may be null. The sizes were checked.
    pub unsafe fn plain_plane<T: Number>(&self, plane: usize, x: *const T, w: *const T, bias: *const T, y: *mut T) {
        let (image, channel) = (plane / self.c_out, plane % self.c_out);
        let (ci, co) = (self.c_in / self.groups, self.c_out / self.groups);
        let group = channel / co;
        let (in_size, out_size, taps) = (self.in_size(), self.out_size(), self.taps());
        let [_, ih, iw] = self.input;
        let [od, oh, ow] = self.output;
        // SAFETY: indices are bounded by the spec's sizes; taps outside the input are skipped.
        unsafe {
            let y = y.add(plane * out_size);
            let start = if bias.is_null() { T::ZERO } else { *bias.add(channel) };
            for i in 0..out_size {
                *y.add(i) = start;
            }
            for c in 0..ci {
                let x = x.add((image * self.c_in + group * ci + c) * in_size);
                for tap in 0..taps {
                    let weight = *w.add((channel * ci + c) * taps + tap);
                    let at = [tap / (self.kernel[1] * self.kernel[2]), tap / self.kernel[2] % self.kernel[1]];
                    let kx = tap % self.kernel[2];
                    for z in 0..od {
                        let Some(iz) = self.source(0, z, at[0]) else { continue };
                        for line in 0..oh {
                            let Some(iy) = self.source(1, line, at[1]) else { continue };
                            let (from, to) = (x.add((iz * ih + iy) * iw), y.add((z * oh + line) * ow));
                            for o in 0..ow {
                                if let Some(ix) = self.source(2, o, kx) {
                                    *to.add(o) = (*to.add(o)).add(weight.mul(*from.add(ix)));
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    /// The input place that an output place sees through a tap, unless it is padding.
    #[inline(always)]
    fn source(&self, d: usize, out: usize, tap: usize) -> Option<usize> {
        (out * self.stride[d] + tap * self.dilation[d]).checked_sub(self.pad[d]).filter(|&i| i < self.input[d])
    }
}
