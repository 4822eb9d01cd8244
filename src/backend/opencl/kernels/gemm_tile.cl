// C = act(alpha * A B + beta * bias + residual) for processors with local memory (GPUs), any strides: a work-group of
// 16 x 16 shares tiles of TM x TK and TK x TN, each work-item keeps (TM / 16) x (TN / 16) sums.
#define RM (TM / 16)
#define RN (TN / 16)

__attribute__((reqd_work_group_size(16, 16, 1))) __kernel void gemm_tile(
    __global const float *restrict A, const long a_off, __global const float *restrict B, const long b_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *C, const long c_off, const int M, const int N, const int K, const int a_m, const int a_k,
    const int b_k, const int b_n, const int batch1, const int batch0, const int a_b2, const int a_b1, const int a_b0,
    const int b_b2, const int b_b1, const int b_b0, const float alpha, const float beta, const int bias_m,
    const int bias_n, const int has_residual, const int act, const float act_p, const float act_q) {
    // One column more, so that a column's elements lie in different banks.
    __local float at[TK][TM + 1], bt[TK][TN + 1];
    const int lx = get_local_id(0), ly = get_local_id(1), l = ly * 16 + lx;
    const int n0 = get_group_id(0) * TN, m0 = get_group_id(1) * TM, batch = get_global_id(2);
    const int i0 = batch % batch0, i1 = batch / batch0 % batch1, i2 = batch / batch0 / batch1;
    A += a_off + (long)i2 * a_b2 + (long)i1 * a_b1 + (long)i0 * a_b0;
    B += b_off + (long)i2 * b_b2 + (long)i1 * b_b1 + (long)i0 * b_b0;
    C += c_off + (long)batch * M * N;
    bias += bias_off;
    residual += residual_off + (long)batch * M * N;

    float acc[RM][RN];
#pragma unroll
    for (int r = 0; r < RM; ++r)
#pragma unroll
        for (int j = 0; j < RN; ++j) acc[r][j] = 0.0f;

    for (int k0 = 0; k0 < K; k0 += TK) {
        // Neighbouring work-items load neighbouring addresses, whichever way the matrix lies.
        for (int t = l; t < TM * TK; t += 256) {
            const int k = a_k == 1 ? t % TK : t / TM, m = a_k == 1 ? t / TK : t % TM;
            at[k][m] = m0 + m < M && k0 + k < K ? A[(long)(m0 + m) * a_m + (long)(k0 + k) * a_k] : 0.0f;
        }
        for (int t = l; t < TK * TN; t += 256) {
            const int k = b_k == 1 ? t % TK : t / TN, n = b_k == 1 ? t / TK : t % TN;
            bt[k][n] = n0 + n < N && k0 + k < K ? B[(long)(k0 + k) * b_k + (long)(n0 + n) * b_n] : 0.0f;
        }
        barrier(CLK_LOCAL_MEM_FENCE);
#pragma unroll 4
        for (int k = 0; k < TK; ++k) {
            float y[RN];
#pragma unroll
            for (int j = 0; j < RN; ++j) y[j] = bt[k][lx + 16 * j];
#pragma unroll
            for (int r = 0; r < RM; ++r) {
                const float x = at[k][ly + 16 * r];
#pragma unroll
                for (int j = 0; j < RN; ++j) acc[r][j] = MAD(x, y[j], acc[r][j]);
            }
        }
        barrier(CLK_LOCAL_MEM_FENCE);
    }

#pragma unroll
    for (int r = 0; r < RM; ++r) {
#pragma unroll
        for (int j = 0; j < RN; ++j) {
            const int m = m0 + ly + 16 * r, n = n0 + lx + 16 * j;
            if (m < M && n < N) {
                float x = alpha * acc[r][j];
                if (beta != 0.0f) x += beta * bias[(long)m * bias_m + (long)n * bias_n];
                if (has_residual) x += residual[(long)m * N + n];
                C[(long)m * N + n] = activate(x, act, act_p, act_q);
            }
        }
    }
}
