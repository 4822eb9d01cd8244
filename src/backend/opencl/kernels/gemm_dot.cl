// C = act(alpha * A B + beta * bias + residual) where both A and B are contiguous along k, for processors with wide
// vectors (CPUs): a work-item takes MR x NR dot products, vectors along k.
__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void gemm_dot(
    __global const float *restrict A, const long a_off, __global const float *restrict B, const long b_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *C, const long c_off, const int M, const int N, const int K, const int a_m, const int a_k,
    const int b_k, const int b_n, const int batch1, const int batch0, const int a_b2, const int a_b1, const int a_b0,
    const int b_b2, const int b_b1, const int b_b0, const float alpha, const float beta, const int bias_m,
    const int bias_n, const int has_residual, const int act, const float act_p, const float act_q) {
    const int m0 = get_global_id(0) * MR, n0 = get_global_id(1) * NR, batch = get_global_id(2);
    const int i0 = batch % batch0, i1 = batch / batch0 % batch1, i2 = batch / batch0 / batch1;
    A += a_off + (long)i2 * a_b2 + (long)i1 * a_b1 + (long)i0 * a_b0;
    B += b_off + (long)i2 * b_b2 + (long)i1 * b_b1 + (long)i0 * b_b0;
    C += c_off + (long)batch * M * N;
    bias += bias_off;
    residual += residual_off + (long)batch * M * N;

    __global const float *a[MR], *b[NR];
    vf acc[MR][NR];
#pragma unroll
    for (int r = 0; r < MR; ++r) a[r] = A + (long)min(m0 + r, M - 1) * a_m;
#pragma unroll
    for (int j = 0; j < NR; ++j) b[j] = B + (long)min(n0 + j, N - 1) * b_n;
#pragma unroll
    for (int r = 0; r < MR; ++r)
#pragma unroll
        for (int j = 0; j < NR; ++j) acc[r][j] = (vf)(0.0f);
    int k = 0;
    for (; k + VW <= K; k += VW) {
        vf y[NR];
#pragma unroll
        for (int j = 0; j < NR; ++j) y[j] = VLOAD(b[j] + k);
#pragma unroll
        for (int r = 0; r < MR; ++r) {
            const vf x = VLOAD(a[r] + k);
#pragma unroll
            for (int j = 0; j < NR; ++j) acc[r][j] = MAD(x, y[j], acc[r][j]);
        }
    }
#pragma unroll
    for (int r = 0; r < MR; ++r) {
#pragma unroll
        for (int j = 0; j < NR; ++j) {
            const int m = m0 + r, n = n0 + j;
            if (m < M && n < N) {
                float lane[VW], sum = 0.0f;
                VSTORE(acc[r][j], lane);
                // Halves onto halves, as a vector sum would.
                for (int h = VW / 2; h > 0; h /= 2)
                    for (int l = 0; l < h; ++l) lane[l] += lane[l + h];
                sum = lane[0];
                for (int t = k; t < K; ++t) sum = MAD(a[r][t], b[j][t], sum);
                float x = alpha * sum;
                if (beta != 0.0f) x += beta * bias[(long)m * bias_m + (long)n * bias_n];
                if (has_residual) x += residual[(long)m * N + n];
                C[(long)m * N + n] = activate(x, act, act_p, act_q);
            }
        }
    }
}
