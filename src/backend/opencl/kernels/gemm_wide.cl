// C = act(alpha * A B + beta * bias + residual) for processors with wide vectors and big caches (CPUs): a work-item keeps
// MR rows of NV vectors in registers and walks k. B must be contiguous along n, and N at least NV * VW.
// The last tiles overlap those before them, and write only what is theirs.
#define NR (NV * VW)

__attribute__((reqd_work_group_size(1, 1, 1))) __kernel void gemm_wide(
    __global const float *restrict A, const long a_off, __global const float *restrict B, const long b_off,
    __global const float *bias, const long bias_off, __global const float *residual, const long residual_off,
    __global float *C, const long c_off, const int M, const int N, const int K, const int a_m, const int a_k,
    const int b_k, const int b_n, const int batch1, const int batch0, const int a_b2, const int a_b1, const int a_b0,
    const int b_b2, const int b_b1, const int b_b0, const float alpha, const float beta, const int bias_m,
    const int bias_n, const int has_residual, const int act, const float act_p, const float act_q) {
    const int m0 = get_global_id(0) * MR, n0 = get_global_id(1) * NR, batch = get_global_id(2);
    const int i0 = batch % batch0, i1 = batch / batch0 % batch1, i2 = batch / batch0 / batch1;
    const int nb = min(n0, N - NR);
    A += a_off + (long)i2 * a_b2 + (long)i1 * a_b1 + (long)i0 * a_b0;
    B += b_off + (long)i2 * b_b2 + (long)i1 * b_b1 + (long)i0 * b_b0 + nb;
    C += c_off + (long)batch * M * N;
    bias += bias_off;
    residual += residual_off + (long)batch * M * N;

    __global const float *a[MR];
    vf acc[MR][NV];
#pragma unroll
    for (int r = 0; r < MR; ++r) {
        a[r] = A + (long)min(m0 + r, M - 1) * a_m;
#pragma unroll
        for (int v = 0; v < NV; ++v) acc[r][v] = (vf)(0.0f);
    }
    for (int k = 0; k < K; ++k) {
        vf b[NV];
#pragma unroll
        for (int v = 0; v < NV; ++v) b[v] = VLOAD(B + v * VW);
        B += b_k;
#pragma unroll
        for (int r = 0; r < MR; ++r) {
            const vf x = (vf)(*a[r]);
            a[r] += a_k;
#pragma unroll
            for (int v = 0; v < NV; ++v) acc[r][v] = MAD(x, b[v], acc[r][v]);
        }
    }

#pragma unroll
    for (int r = 0; r < MR; ++r) {
        const int m = m0 + r;
        if (m >= M) break;
        float row[NR];
#pragma unroll
        for (int v = 0; v < NV; ++v) VSTORE(acc[r][v], row + v * VW);
        __global float *c = C + (long)m * N + nb;
        for (int j = n0 - nb; j < NR; ++j) {
            float x = alpha * row[j];
            if (beta != 0.0f) x += beta * bias[(long)m * bias_m + (long)(nb + j) * bias_n];
            if (has_residual) x += residual[(long)m * N + nb + j];
            c[j] = activate(x, act, act_p, act_q);
        }
    }
}
