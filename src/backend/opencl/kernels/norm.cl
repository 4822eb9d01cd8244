// Normalisation of dense lines of n elements to mean 0 and variance 1 (RMS: to mean square 1), then scaled and shifted. A
// work-group of G work-items takes a line; a group of one (CPUs) goes alone, with vectors of VW. Element i of line l is
// scaled by number l % period * per_line + i / step.
#if G > 1
#define SHARED(m)                                                                                                      \
    do {                                                                                                               \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        part[l] = m;                                                                                                   \
        for (int h = G / 2; h > 0; h /= 2) {                                                                           \
            barrier(CLK_LOCAL_MEM_FENCE);                                                                              \
            if (l < h) part[l] += part[l + h];                                                                         \
        }                                                                                                              \
        barrier(CLK_LOCAL_MEM_FENCE);                                                                                  \
        m = part[0];                                                                                                   \
    } while (0)
#else
#define SHARED(m)
#endif

inline float sum_lanes(const vf v) {
    float lane[VW];
    VSTORE(v, lane);
    for (int h = VW / 2; h > 0; h /= 2)
        for (int k = 0; k < h; ++k) lane[k] += lane[k + h];
    return lane[0];
}

__kernel __attribute__((reqd_work_group_size(G, 1, 1))) void normalise(
    __global const float *x, const long x_off, __global const float *scale, const long scale_off,
    __global const float *shift, const long shift_off, __global float *y, const long y_off, const int n,
    const int period, const int per_line, const int step, const int has_shift, const float epsilon) {
    const int l = get_local_id(0), line = get_global_id(1);
    x += x_off + (long)line * n;
    y += y_off + (long)line * n;
    scale += scale_off + line % period * per_line;
    shift += shift_off + line % period * per_line;
#if G > 1
    __local float part[G];
#endif
    float mean = 0.0f;
    int t;
#ifndef RMS
    t = l;
#if G == 1 && VW > 1
    {
        vf v = (vf)(0.0f);
        for (t = 0; t + VW <= n; t += VW) v += VLOAD(x + t);
        mean = sum_lanes(v);
    }
#endif
    for (; t < n; t += G) mean += x[t];
    SHARED(mean);
    mean /= n;
#endif
    float square = 0.0f;
    t = l;
#if G == 1 && VW > 1
    {
        vf v = (vf)(0.0f);
        for (t = 0; t + VW <= n; t += VW) {
            const vf d = VLOAD(x + t) - (vf)(mean);
            v = MAD(d, d, v);
        }
        square = sum_lanes(v);
    }
#endif
    for (; t < n; t += G) {
        const float d = x[t] - mean;
        square = MAD(d, d, square);
    }
    SHARED(square);
    const float factor = 1.0f / sqrt(square / n + epsilon);
    if (step == 1 && per_line == 0) {
        if (has_shift)
            for (t = l; t < n; t += G)
                y[t] = MAD((x[t] - mean) * factor, scale[t], shift[t]);
        else
            for (t = l; t < n; t += G) y[t] = (x[t] - mean) * factor * scale[t];
    } else {
        for (t = l; t < n; t += G) {
            const int k = t / step;
            const float v = (x[t] - mean) * factor * scale[k];
            y[t] = has_shift ? v + shift[k] : v;
        }
    }
}
