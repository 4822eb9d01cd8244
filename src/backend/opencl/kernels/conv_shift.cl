// Convolution for processors with wide vectors (CPUs), as a matrix product that never stores its columns: for each tap
// of the kernel the input is the same rows shifted, so that vectors of neighbouring outputs load contiguous inputs.
// `pad_phase` first lays the input out with its zero padding, one plane for each phase of the strides; then a step of the
// stride is a step of one element in a plane. An input without padding and strides is read as it lies.
#define NR (NV * VW)

// An output "line" is `line` elements: a row of the output; or with `wrap` all of it, rows `pitch` apart as they lie in
// the planes, and what falls between two rows is thrown away. A work-item makes MR channels of NR elements of a line.
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void conv_shift(
    __global const float *restrict x, const long x_off, __global const float *restrict w, const long w_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *y, const long y_off, __global const int *restrict taps, const int tap_count, const int groups,
    const int group_in, const int group_out, const int channel, const int pitch, const int line, const int tiles,
    const int out_w, const int out_size, const int wrap, const int has_bias, const int has_residual, const int act,
    const float act_p, const float act_q) {
    const int m0 = get_global_id(0) * MR, row = get_global_id(1) / tiles, q0 = get_global_id(1) % tiles * NR;
    const int group = get_global_id(2) % groups, image = get_global_id(2) / groups;
    const int qb = min(q0, line - NR);
    x += x_off + (long)(image * groups + group) * group_in * channel + (long)row * pitch + qb;
    w += w_off + (long)group * group_out * group_in * tap_count;
    const long first = (long)(image * groups + group) * group_out * out_size;
    y += y_off + first;
    residual += residual_off + first;
    bias += bias_off + group * group_out;

    __global const float *a[MR];
    vf acc[MR][NV];
#pragma unroll
    for (int r = 0; r < MR; ++r) {
        a[r] = w + (long)min(m0 + r, group_out - 1) * group_in * tap_count;
#pragma unroll
        for (int v = 0; v < NV; ++v) acc[r][v] = (vf)(0.0f);
    }
    for (int c = 0; c < group_in; ++c) {
        for (int t = 0; t < tap_count; ++t) {
            __global const float *s = x + taps[t];
            vf b[NV];
#pragma unroll
            for (int v = 0; v < NV; ++v) b[v] = VLOAD(s + v * VW);
#pragma unroll
            for (int r = 0; r < MR; ++r) {
                const vf k = (vf)(*a[r]++);
#pragma unroll
                for (int v = 0; v < NV; ++v) acc[r][v] = MAD(k, b[v], acc[r][v]);
            }
        }
        x += channel;
    }

#pragma unroll
    for (int r = 0; r < MR; ++r) {
        const int m = m0 + r;
        if (m >= group_out) break;
        float out[NR];
#pragma unroll
        for (int v = 0; v < NV; ++v) VSTORE(acc[r][v], out + v * VW);
        const float add = has_bias ? bias[m] : 0.0f;
        // Pieces that are contiguous in the output too.
        int j = q0 - qb, oy = wrap ? q0 / pitch : row, ox = wrap ? q0 % pitch : q0;
        while (j < NR) {
            const int length = wrap ? min(NR - j, pitch - ox) : NR - j;
            const int keep = min(length, out_w - ox);
            const long at = (long)m * out_size + (long)oy * out_w + ox;
            for (int i = 0; i < keep; ++i) {
                float v = out[j + i] + add;
                if (has_residual) v += residual[at + i];
                y[at + i] = activate(v, act, act_p, act_q);
            }
            j += length;
            ox = 0;
            ++oy;
        }
    }
}

// Lays out the planes: for each channel, count_y * count_x planes of plane_h x plane_w, where element (y, x) of plane
// (py, px) is input (y * stride_y + py - pad_y, x * stride_x + px - pad_x), or zero outside.
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void pad_phase(
    __global const float *restrict x, const long x_off, __global float *planes, const long planes_off, const int h,
    const int w, const int pad_y, const int pad_x, const int stride_y, const int stride_x, const int count_y,
    const int count_x, const int plane_h, const int plane_w) {
    const int row = get_global_id(0), plane = get_global_id(1), c = get_global_id(2);
    const int iy = row * stride_y + plane / count_x - pad_y, shift = plane % count_x - pad_x;
    __global float *to = planes + planes_off + (((long)c * count_y * count_x + plane) * plane_h + row) * plane_w;
    if (iy < 0 || iy >= h) {
        for (int i = 0; i < plane_w; ++i) to[i] = 0.0f;
        return;
    }
    __global const float *from = x + x_off + ((long)c * h + iy) * w;
    // The elements inside the input: 0 <= i * stride_x + shift < w.
    const int begin = min(shift >= 0 ? 0 : (stride_x - 1 - shift) / stride_x, plane_w);
    const int end = clamp(w > shift ? (w - shift + stride_x - 1) / stride_x : 0, begin, plane_w);
    for (int i = 0; i < begin; ++i) to[i] = 0.0f;
    if (stride_x == 1)
        for (int i = begin; i < end; ++i) to[i] = from[i + shift];
    else
        for (int i = begin; i < end; ++i) to[i] = from[i * stride_x + shift];
    for (int i = end; i < plane_w; ++i) to[i] = 0.0f;
}
