// Proves a device before it is used: a mirror within each work-group through local memory, a scale, a vector dot product.
__kernel void self_test(__global float *data, const long out, const int n, const float scale, __local float *tile) {
    const int i = get_global_id(0), l = get_local_id(0), size = get_local_size(0);
    tile[l] = i < n ? data[i] : 0.0f;
    barrier(CLK_LOCAL_MEM_FENCE);
    const float4 v = (float4)(1.0f, 2.0f, 3.0f, 4.0f);
    if (i < n)
        data[out + i] = tile[size - 1 - l] * scale + dot(v, (float4)(1.0f));
}
