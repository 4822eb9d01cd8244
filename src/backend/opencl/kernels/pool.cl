// Pooling over windows of an image. KIND 0 takes the greatest (NaN if one is among them), 1 the mean over the window's
// elements inside the image, 2 the mean over those inside the padded image.
#define MEAN (KIND != 0)
#define START (MEAN ? 0.0f : -INFINITY)
#define TAKE(m, v) (MEAN ? (m) + (v) : ((v) > (m) || (v) != (v) ? (v) : (m)))

// Elements of a window along one dimension, as the mean counts them.
inline int counted(const int start, const int kernel_size, const int dilation, const int size, const int pad_end) {
#if KIND == 2
    // Inside the padded image; `start` is not before it.
    const int end = size + pad_end;
    return start >= end ? 0 : min(kernel_size, (end - start + dilation - 1) / dilation);
#else
    const int first = start < 0 ? (-start + dilation - 1) / dilation : 0;
    const int last = start >= size ? 0 : min(kernel_size, (size - start + dilation - 1) / dilation);
    return max(last - first, 0);
#endif
}

// A row of outputs a work-item, tap by tap over the row, so that the compiler finds long plain loops (CPUs).
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void pool_rows(
    __global const float *restrict x, const long x_off, __global float *restrict y, const long y_off, const int in_h,
    const int in_w, const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int dilation_h,
    const int dilation_w, const int pad_y, const int pad_x, const int end_y, const int end_x, const int out_h,
    const int out_w) {
    const int oy = get_global_id(0), plane = get_global_id(1);
    const int top = oy * stride_h - pad_y;
    x += x_off + (long)plane * in_h * in_w;
    y += y_off + ((long)plane * out_h + oy) * out_w;
    for (int i = 0; i < out_w; ++i) y[i] = START;
    for (int ky = 0; ky < kernel_h; ++ky) {
        const int iy = top + ky * dilation_h;
        if (iy < 0 || iy >= in_h) continue;
        for (int kx = 0; kx < kernel_w; ++kx) {
            // The outputs whose tap is inside: 0 <= i * stride_w + shift < in_w.
            const int shift = kx * dilation_w - pad_x;
            const int from = shift >= 0 ? 0 : (stride_w - 1 - shift) / stride_w;
            const int to = min(out_w, in_w > shift ? (in_w - shift + stride_w - 1) / stride_w : 0);
            __global const float *s = x + (long)iy * in_w + shift;
            if (stride_w == 1)
                for (int i = from; i < to; ++i) y[i] = TAKE(y[i], s[i]);
            else if (stride_w == 2)
                for (int i = from; i < to; ++i) y[i] = TAKE(y[i], s[2 * i]);
            else
                for (int i = from; i < to; ++i) y[i] = TAKE(y[i], s[i * stride_w]);
        }
    }
    if (MEAN) {
        const int rows = counted(top, kernel_h, dilation_h, in_h, end_y);
        for (int i = 0; i < out_w; ++i)
            y[i] /= (float)(rows * counted(i * stride_w - pad_x, kernel_w, dilation_w, in_w, end_x));
    }
}

// An output a work-item (GPUs).
__kernel void pool_items(__global const float *restrict x, const long x_off, __global float *restrict y, const long y_off,
                         const int in_h, const int in_w, const int kernel_h, const int kernel_w, const int stride_h,
                         const int stride_w, const int dilation_h, const int dilation_w, const int pad_y, const int pad_x,
                         const int end_y, const int end_x, const int out_h, const int out_w) {
    const int n = get_global_id(0), plane = get_global_id(1);
    if (n >= out_h * out_w) return;
    const int top = n / out_w * stride_h - pad_y, left = n % out_w * stride_w - pad_x;
    x += x_off + (long)plane * in_h * in_w;
    float m = START;
    for (int ky = 0; ky < kernel_h; ++ky) {
        const int iy = top + ky * dilation_h;
        if (iy < 0 || iy >= in_h) continue;
        for (int kx = 0; kx < kernel_w; ++kx) {
            const int ix = left + kx * dilation_w;
            if (ix >= 0 && ix < in_w) m = TAKE(m, x[(long)iy * in_w + ix]);
        }
    }
    if (MEAN)
        m /= (float)(counted(top, kernel_h, dilation_h, in_h, end_y) * counted(left, kernel_w, dilation_w, in_w, end_x));
    y[y_off + (long)plane * out_h * out_w + n] = m;
}
