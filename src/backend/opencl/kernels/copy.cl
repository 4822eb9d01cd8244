// Copies between arrays of up to 8 dimensions with any strides: transpose, slice, concat, expand. T is an unsigned type of
// the element's size. The last dimension is walked by the work-item, the others are numbered by its row.
#define ROWS(dims, row, a, b, xs, ys)                                                                                  \
    do {                                                                                                               \
        int rest_ = (row);                                                                                             \
        for (int d_ = RANK - 2; d_ >= 0; --d_) {                                                                       \
            const int i_ = rest_ % dims[d_];                                                                           \
            rest_ /= dims[d_];                                                                                         \
            a += (long)i_ * xs[d_];                                                                                    \
            b += (long)i_ * ys[d_];                                                                                    \
        }                                                                                                              \
    } while (0)

__kernel void copy_strided(__global const T *x, const long x_off, __global T *y, const long y_off, const long x_start,
                           const long y_start, const int8 shape, const int8 x_strides, const int8 y_strides,
                           const int rows, const int chunk, const int items) {
    int dims[8], xs[8], ys[8];
    vstore8(shape, 0, dims);
    vstore8(x_strides, 0, xs);
    vstore8(y_strides, 0, ys);
    const int n = dims[RANK - 1], sx = xs[RANK - 1], sy = ys[RANK - 1];
    x += x_off + x_start;
    y += y_off + y_start;
    const int from = get_global_id(0) * chunk, to = min(n, from + chunk);
    const int first = get_global_id(1) * items, last = min(rows, first + items);
    for (int row = first; row < last; ++row) {
        __global const T *a = x;
        __global T *b = y;
        ROWS(dims, row, a, b, xs, ys);
        if (sx == 1 && sy == 1)
            for (int i = from; i < to; ++i) b[i] = a[i];
        else if (sx == 0 && sy == 1)
            for (int i = from; i < to; ++i) b[i] = *a;
        else
            for (int i = from; i < to; ++i) b[(long)i * sy] = a[(long)i * sx];
    }
}

// Swaps two dimensions of many matrices, both ways through a block that fits the nearest cache: x is planes of n x m with
// rows x_pitch apart, y planes of m x n with rows y_pitch apart.
#define BLOCK 16
__kernel void transpose_blocks(__global const T *x, const long x_off, __global T *y, const long y_off, const long x_start,
                               const long y_start, const int n, const int m, const int x_pitch, const int y_pitch,
                               const int x_plane, const int y_plane) {
    const int i0 = get_global_id(0) * BLOCK, j0 = get_global_id(1) * BLOCK, p = get_global_id(2);
    x += x_off + x_start + (long)p * x_plane;
    y += y_off + y_start + (long)p * y_plane;
    const int i1 = min(n, i0 + BLOCK), j1 = min(m, j0 + BLOCK);
    for (int j = j0; j < j1; ++j)
        for (int i = i0; i < i1; ++i) y[(long)j * y_pitch + i] = x[(long)i * x_pitch + j];
}

// Puts `before` elements in front of each dimension (fewer than none cuts them away); mode 0 fills with a value, 1 repeats
// the edge, 2 reflects without it, 3 wraps around.
inline int source(const int i, const int n, const int mode) {
    if (mode == 1) return clamp(i, 0, n - 1);
    if (mode == 2) {
        const int period = max(2 * n - 2, 1);
        const int k = ((i % period) + period) % period;
        return k < n ? k : period - k;
    }
    if (mode == 3) return ((i % n) + n) % n;
    return i >= 0 && i < n ? i : -1;
}

__kernel void pad(__global const T *x, const long x_off, __global T *y, const long y_off, const int8 in_shape,
                  const int8 out_shape, const int8 before, const int rows, const int mode, const long value,
                  const int items) {
    int in[8], out[8], front[8];
    vstore8(in_shape, 0, in);
    vstore8(out_shape, 0, out);
    vstore8(before, 0, front);
    const int n = out[RANK - 1];
    const int first = get_global_id(0) * items, last = min(rows, first + items);
    for (int row = first; row < last; ++row) {
        __global T *b = y + y_off + (long)row * n;
        long at = 0, step = in[RANK - 1];
        int rest = row;
        bool inside = true;
        for (int d = RANK - 2; d >= 0; --d) {
            const int s = source(rest % out[d] - front[d], in[d], mode);
            rest /= out[d];
            inside = inside && s >= 0;
            at += s * step;
            step *= in[d];
        }
        __global const T *a = x + x_off + at;
        const int f = front[RANK - 1], w = in[RANK - 1];
        for (int i = 0; i < n; ++i) {
            const int s = inside ? source(i - f, w, mode) : -1;
            b[i] = s >= 0 ? a[s] : (T)value;
        }
    }
}

// Picks slices along an axis by a table of indices that the host has checked: y[o, k, :] = x[o, table[k], :].
__kernel void gather(__global const T *x, const long x_off, __global T *y, const long y_off,
                     __global const int *restrict table, const int count, const int axis, const int inner,
                     const int chunk) {
    const int k = get_global_id(1), o = get_global_id(2);
    const int from = get_global_id(0) * chunk, to = min(inner, from + chunk);
    __global const T *a = x + x_off + ((long)o * axis + table[k]) * inner;
    __global T *b = y + y_off + ((long)o * count + k) * inner;
    for (int i = from; i < to; ++i) b[i] = a[i];
}

// The same by indices of type I that came with the run; negative ones count from the end. One that is outside leaves
// itself and the axis in `fault`, and reads nothing.
#ifdef I
__kernel void gather_checked(__global const T *x, const long x_off, __global const I *index, const long index_off,
                             __global T *y, const long y_off, __global int *fault, const long fault_off, const int count,
                             const int axis, const int inner, const int chunk) {
    const int k = get_global_id(1), o = get_global_id(2);
    const int from = get_global_id(0) * chunk, to = min(inner, from + chunk);
    const long given = index[index_off + k], i = given < 0 ? given + axis : given;
    if (i < 0 || i >= axis) {
        fault[fault_off] = 1;
        fault[fault_off + 1] = (int)clamp(given, (long)INT_MIN, (long)INT_MAX);
        fault[fault_off + 2] = axis;
        return;
    }
    __global const T *a = x + x_off + ((long)o * axis + i) * inner;
    __global T *b = y + y_off + ((long)o * count + k) * inner;
    for (int j = from; j < to; ++j) b[j] = a[j];
}
#endif
