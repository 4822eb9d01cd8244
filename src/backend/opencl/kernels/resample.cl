// Kernels that read images at places of their own: resizing, and the second half of the transposed convolution.

// Each output is TAPS x TAPS inputs by weights. `index` and `weight` have TAPS entries for each output row, then for each
// output column; the host made them from the operator's rules.
__kernel void resize(__global const float *restrict x, const long x_off, __global float *y, const long y_off,
                     __global const int *restrict index, __global const float *restrict weight, const int in_h,
                     const int in_w, const int out_h, const int out_w) {
    const int oy = get_global_id(0), plane = get_global_id(1), depth = get_global_size(2);
    x += x_off + (long)plane * in_h * in_w * depth + get_global_id(2);
    y += y_off + ((long)plane * out_h + oy) * out_w * depth + get_global_id(2);
    __global const int *columns = index + out_h * TAPS;
#if TAPS == 1
    __global const float *row = x + (long)index[oy] * in_w * depth;
    for (int i = 0; i < out_w; ++i) y[(long)i * depth] = row[(long)columns[i] * depth];
#else
    __global const float *column_weights = weight + out_h * TAPS;
    for (int i = 0; i < out_w; ++i) {
        float sum = 0.0f;
        for (int a = 0; a < TAPS; ++a) {
            __global const float *row = x + (long)index[oy * TAPS + a] * in_w * depth;
            float line = 0.0f;
            for (int b = 0; b < TAPS; ++b)
                line = MAD(column_weights[i * TAPS + b], row[(long)columns[i * TAPS + b] * depth], line);
            sum = MAD(weight[oy * TAPS + a], line, sum);
        }
        y[(long)i * depth] = sum;
    }
#endif
}

// Adds up what a matrix product made for each tap of a transposed convolution: columns are channel x tap x input position.
__kernel void columns_to_image(__global const float *restrict columns, const long columns_off,
                               __global const float *bias, const long bias_off, __global float *y, const long y_off,
                               const int channels, const int in_h, const int in_w, const int kernel_h, const int kernel_w,
                               const int stride_h, const int stride_w, const int dilation_h, const int dilation_w,
                               const int pad_y, const int pad_x, const int out_h, const int out_w, const int has_bias,
                               const int act, const float act_p, const float act_q) {
    const int oy = get_global_id(0), plane = get_global_id(1);
    columns += columns_off + (long)plane * kernel_h * kernel_w * in_h * in_w;
    y += y_off + ((long)plane * out_h + oy) * out_w;
    const float start = has_bias ? bias[bias_off + plane % channels] : 0.0f;
    for (int ox = 0; ox < out_w; ++ox) {
        float sum = start;
        for (int ky = 0; ky < kernel_h; ++ky) {
            const int fy = oy + pad_y - ky * dilation_h;
            if (fy < 0 || fy % stride_h != 0 || fy / stride_h >= in_h) continue;
            for (int kx = 0; kx < kernel_w; ++kx) {
                const int fx = ox + pad_x - kx * dilation_w;
                if (fx < 0 || fx % stride_w != 0 || fx / stride_w >= in_w) continue;
                sum += columns[((long)(ky * kernel_w + kx) * in_h + fy / stride_h) * in_w + fx / stride_w];
            }
        }
        y[ox] = activate(sum, act, act_p, act_q);
    }
}
