// What every other source starts with. Kernels take each tensor as a buffer and an offset in elements, so that tensors
// of one arena need no buffers of their own. Sizes and strides are in elements; the host has checked that they fit.
#ifdef HAS_FMA
#define MAD(a, b, c) fma(a, b, c)
#else
#define MAD(a, b, c) ((a) * (b) + (c))
#endif

// The activations that an epilogue can apply; the numbers are those of `Activation` on the host. NaN passes through all.
inline float activate(const float x, const int act, const float p, const float q) {
    switch (act) {
    case 1: return x <= 0.0f ? 0.0f : x;                             // relu
    case 2: return x < p ? p : (x > q ? q : x);                      // clip to [p, q]
    case 3: return x < 0.0f ? x * p : x;                             // leaky relu
    case 4: return 1.0f / (1.0f + exp(-x));                          // sigmoid
    case 5: {                                                        // hard sigmoid
        const float y = p * x + q;
        return y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y);
    }
    case 6: {                                                        // hard swish
        const float y = x / 6.0f + 0.5f;
        return x * (y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y));
    }
    case 7: return x / (1.0f + exp(-x));                             // silu
    case 8: return tanh(x);
    default: return x;
    }
}

#ifdef VW
#if VW == 1
typedef float vf;
#define VLOAD(p) (*(p))
#define VSTORE(v, p) (*(p) = (v))
#else
#define CAT_(a, b) a##b
#define CAT(a, b) CAT_(a, b)
typedef CAT(float, VW) vf;
#define VLOAD(p) CAT(vload, VW)(0, p)
#define VSTORE(v, p) CAT(vstore, VW)(v, 0, p)
#endif
#endif
