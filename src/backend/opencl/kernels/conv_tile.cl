// Convolution for processors with local memory (GPUs): a matrix product of the weights with columns that are made while
// they are loaded. Any groups, strides, dilations and padding.
#define RM (TM / 16)
#define RN (TN / 16)

__attribute__((reqd_work_group_size(16, 16, 1))) __kernel void conv_tile(
    __global const float *restrict x, const long x_off, __global const float *restrict w, const long w_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *y, const long y_off, const int groups, const int group_in, const int group_out, const int in_h,
    const int in_w, const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int dilation_h,
    const int dilation_w, const int pad_y, const int pad_x, const int out_h, const int out_w, const int has_bias,
    const int has_residual, const int act, const float act_p, const float act_q) {
    __local float at[TK][TM + 1], bt[TK][TN + 1];
    const int lx = get_local_id(0), ly = get_local_id(1), l = ly * 16 + lx;
    const int n0 = get_group_id(0) * TN, m0 = get_group_id(1) * TM;
    const int group = get_global_id(2) % groups, image = get_global_id(2) / groups;
    const int taps = kernel_h * kernel_w, K = group_in * taps, N = out_h * out_w;
    x += x_off + (long)(image * groups + group) * group_in * in_h * in_w;
    w += w_off + (long)group * group_out * K;
    const long first = (long)(image * groups + group) * group_out * N;
    y += y_off + first;
    residual += residual_off + first;
    bias += bias_off + group * group_out;

    float acc[RM][RN];
#pragma unroll
    for (int r = 0; r < RM; ++r)
#pragma unroll
        for (int j = 0; j < RN; ++j) acc[r][j] = 0.0f;

    // 256 work-items are a multiple of TN: each loads one column only, always the same.
    const int column = n0 + l % TN;
    const int top = column / out_w * stride_h - pad_y, left = column % out_w * stride_w - pad_x;
    for (int k0 = 0; k0 < K; k0 += TK) {
        for (int t = l; t < TM * TK; t += 256) {
            const int k = t % TK, m = t / TK;
            at[k][m] = m0 + m < group_out && k0 + k < K ? w[(long)(m0 + m) * K + k0 + k] : 0.0f;
        }
        for (int t = l; t < TK * TN; t += 256) {
            const int k = k0 + t / TN, c = k / taps, tap = k % taps;
            const int iy = top + tap / kernel_w * dilation_h, ix = left + tap % kernel_w * dilation_w;
            const bool inside = column < N && k < K && iy >= 0 && iy < in_h && ix >= 0 && ix < in_w;
            bt[t / TN][t % TN] = inside ? x[((long)c * in_h + iy) * in_w + ix] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int k = 0; k < TK; ++k) {
            float b[RN];
#pragma unroll
            for (int j = 0; j < RN; ++j) b[j] = bt[k][lx + 16 * j];
#pragma unroll
            for (int r = 0; r < RM; ++r) {
                const float a = at[k][ly + 16 * r];
#pragma unroll
                for (int j = 0; j < RN; ++j) acc[r][j] = MAD(a, b[j], acc[r][j]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

#pragma unroll
    for (int r = 0; r < RM; ++r) {
#pragma unroll
        for (int j = 0; j < RN; ++j) {
            const int m = m0 + ly + 16 * r, n = n0 + lx + 16 * j;
            if (m < group_out && n < N) {
                float v = acc[r][j] + (has_bias ? bias[m] : 0.0f);
                if (has_residual) v += residual[(long)m * N + n];
                y[(long)m * N + n] = activate(v, act, act_p, act_q);
            }
        }
    }
}

// One output a work-item, without sharing: for groups of few channels (depthwise), where a tile would stand empty.
__kernel void conv_direct(
    __global const float *restrict x, const long x_off, __global const float *restrict w, const long w_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *y, const long y_off, const int groups, const int group_in, const int group_out, const int in_h,
    const int in_w, const int kernel_h, const int kernel_w, const int stride_h, const int stride_w, const int dilation_h,
    const int dilation_w, const int pad_y, const int pad_x, const int out_h, const int out_w, const int has_bias,
    const int has_residual, const int act, const float act_p, const float act_q) {
    const int n = get_global_id(0), channel = get_global_id(1), image = get_global_id(2);
    if (n >= out_h * out_w) return;
    const int group = channel / group_out;
    const int top = n / out_w * stride_h - pad_y, left = n % out_w * stride_w - pad_x;
    x += x_off + (long)(image * groups + group) * group_in * in_h * in_w;
    w += w_off + (long)channel * group_in * kernel_h * kernel_w;
    float sum = 0.0f;
    for (int c = 0; c < group_in; ++c)
        for (int ky = 0; ky < kernel_h; ++ky) {
            const int iy = top + ky * dilation_h;
            if (iy < 0 || iy >= in_h) continue;
            for (int kx = 0; kx < kernel_w; ++kx) {
                const int ix = left + kx * dilation_w;
                if (ix >= 0 && ix < in_w)
                    sum = MAD(x[((long)c * in_h + iy) * in_w + ix], w[(c * kernel_h + ky) * kernel_w + kx], sum);
            }
        }
    const long at = ((long)image * groups * group_out + channel) * out_h * out_w + n;
    float v = sum + (has_bias ? bias[bias_off + channel] : 0.0f);
    if (has_residual) v += residual[residual_off + at];
    y[y_off + at] = activate(v, act, act_p, act_q);
}
