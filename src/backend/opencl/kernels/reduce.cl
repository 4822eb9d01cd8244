// Reductions and softmax. A work-group of G work-items takes one result (reduce) or one line (softmax); a group of one
// (CPUs) goes alone, with vectors of VW along contiguous lines.

// What each kind of reduction starts with, does with an element, with two partial results, and at the end.
// 0 sum, 1 mean, 2 max, 3 min, 4 product, 5 sum of squares, 6 sum of magnitudes, 7 Euclidean norm, 8 log of the sum
// The comparisons keep a NaN.
#if KIND == 2
#define START (-INFINITY)
#define JOIN(a, b) select(select(a, b, isgreater(b, a)), (a) + (b), isunordered(a, b))
#define ENTER(x) (x)
#elif KIND == 3
#define START INFINITY
#define JOIN(a, b) select(select(a, b, isless(b, a)), (a) + (b), isunordered(a, b))
#define ENTER(x) (x)
#elif KIND == 4
#define START 1.0f
#define JOIN(a, b) ((a) * (b))
#define ENTER(x) (x)
#else
#define START 0.0f
#define JOIN(a, b) ((a) + (b))
#if KIND == 5 || KIND == 7
#define ENTER(x) ((x) * (x))
#elif KIND == 6
#define ENTER(x) fabs(x)
#else
#define ENTER(x) (x)
#endif
#endif

// Joins the lanes of a vector, halves onto halves.
inline float join_lanes(const vf v) {
    float lane[VW];
    VSTORE(v, lane);
    for (int h = VW / 2; h > 0; h /= 2)
        for (int l = 0; l < h; ++l) lane[l] = JOIN(lane[l], lane[l + h]);
    return lane[0];
}

// The result of dimensions `kept` over dimensions `gone`, each up to 4 with the strides of x; those before the first used
// are 1.
__kernel __attribute__((reqd_work_group_size(G, 1, 1))) void reduce(
    __global const float *x, const long x_off, __global float *y, const long y_off, const int8 shape,
    const int8 strides, const float scale) {
    int d[8], s[8];
    vstore8(shape, 0, d);
    vstore8(strides, 0, s);
    int rest = get_global_id(1);
    const int out = rest;
    x += x_off;
    for (int i = 3; i >= 0; --i) {
        x += (long)(rest % d[i]) * s[i];
        rest /= d[i];
    }
    const int n = d[7], step = s[7], l = get_local_id(0);
    float m = START;
    for (int i = 0; i < d[4]; ++i)
        for (int j = 0; j < d[5]; ++j)
            for (int k = 0; k < d[6]; ++k) {
                __global const float *line = x + (long)i * s[4] + (long)j * s[5] + (long)k * s[6];
                int t = l;
#if G == 1 && VW > 1
                if (step == 1 && n >= VW) {
                    vf v = VLOAD(line);
                    v = ENTER(v);
                    for (t = VW; t + VW <= n; t += VW) {
                        const vf e = VLOAD(line + t);
                        v = JOIN(v, ENTER(e));
                    }
                    m = JOIN(m, join_lanes(v));
                }
#endif
                for (; t < n; t += G) {
                    const float e = line[(long)t * step];
                    m = JOIN(m, ENTER(e));
                }
            }
#if G > 1
    __local float part[G];
    part[l] = m;
    for (int h = G / 2; h > 0; h /= 2) {
        barrier(CLK_LOCAL_MEM_FENCE);
        if (l < h) part[l] = JOIN(part[l], part[l + h]);
    }
    m = part[0];
#endif
    if (l == 0) {
#if KIND == 1
        m *= scale;
#elif KIND == 7
        m = sqrt(m);
#elif KIND == 8
        m = log(m);
#endif
        y[y_off + out] = m;
    }
}

#if G > 1
#define SHARED(m, op)                                                                                                  \
    do {                                                                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        part[l] = m;                                                                                                   \
        for (int h = G / 2; h > 0; h /= 2) {                                                                           \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (l < h) part[l] = op(part[l], part[l + h]);                                                             \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        m = part[0];                                                                                                   \
    } while (0)
#else
#define SHARED(m, op)
#endif
#define GREATER(a, b) ((b) > (a) ? (b) : (a))
#define PLUS(a, b) ((a) + (b))

// Softmax (or its logarithm) of lines of n elements, `inner` apart: x is outer x n x inner. Each element is read before the
// one at its place is written.
__kernel __attribute__((reqd_work_group_size(G, 1, 1))) void softmax(__global const float *x, const long x_off,
                                                                     __global float *y, const long y_off, const int n,
                                                                     const int inner, const int logarithm) {
    const int l = get_local_id(0);
    const int line = get_global_id(1), o = line / inner, i = line % inner;
    x += x_off + (long)o * n * inner + i;
    y += y_off + (long)o * n * inner + i;
#if G > 1
    __local float part[G];
#endif
    float m = -INFINITY, sum = 0.0f;
    int t = l;
#if G == 1 && VW > 1
    if (inner == 1 && n >= VW) {
        vf v = VLOAD(x);
        for (t = VW; t + VW <= n; t += VW) {
            const vf e = VLOAD(x + t);
            v = select(v, e, isgreater(e, v));
        }
        float lane[VW];
        VSTORE(v, lane);
        for (int k = 0; k < VW; ++k) m = GREATER(m, lane[k]);
    }
#endif
    for (; t < n; t += G) m = GREATER(m, x[(long)t * inner]);
    SHARED(m, GREATER);
    t = l;
#if G == 1 && VW > 1
    if (inner == 1 && n >= VW) {
        vf v = (vf)(0.0f);
        for (t = 0; t + VW <= n; t += VW) {
            const vf d = VLOAD(x + t) - (vf)(m), e = exp(d);
            v += e;
            if (logarithm) VSTORE(d, y + t);
            else VSTORE(e, y + t);
        }
        float lane[VW];
        VSTORE(v, lane);
        for (int k = 0; k < VW; ++k) sum += lane[k];
    }
#endif
    for (; t < n; t += G) {
        const float d = x[(long)t * inner] - m, e = exp(d);
        sum += e;
        y[(long)t * inner] = logarithm ? d : e;
    }
    SHARED(sum, PLUS);
    if (logarithm) {
        const float shift = log(sum);
        for (t = l; t < n; t += G) y[(long)t * inner] -= shift;
    } else {
        const float scale = 1.0f / sum;
        for (t = l; t < n; t += G) y[(long)t * inner] *= scale;
    }
}
