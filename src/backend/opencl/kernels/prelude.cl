// What every other source starts with. Kernels take each tensor as a buffer and an offset in elements, so that tensors
// of one arena need no buffers of their own. Sizes and strides are in elements; the host has checked that they fit.
#ifdef HAS_FMA
#define MAD(a, b, c) fma(a, b, c)
#else
#define MAD(a, b, c) ((a) * (b) + (c))
#endif

// A float as the upper half of its bits, rounded to even; a NaN stays one.
inline ushort to_bf16(const float x) {
    const uint u = as_uint(x);
    return isnan(x) ? (ushort)((u >> 16) | 0x40u) : (ushort)((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

// The activation of an epilogue, with the numbers that `activation` in call.rs gives it: simple ones are chosen when the
// kernel runs, those with a function in them when it is built, as ACT. NaN passes through all.
inline float activate(const float x, const int act, const float p, const float q) {
#if !defined(ACT)
    switch (act) {
    case 1: return x <= 0.0f ? 0.0f : x;                 // relu
    case 2: return x < p ? p : (x > q ? q : x);          // clip to [p, q]
    case 3: return x < 0.0f ? x * p : x;                 // leaky relu
    case 4: {                                            // hard sigmoid
        const float y = p * x + q;
        return y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y);
    }
    case 5: {                                            // hard swish
        const float y = x / 6.0f + 0.5f;
        return x * (y < 0.0f ? 0.0f : (y > 1.0f ? 1.0f : y));
    }
    default: return x;
    }
#elif ACT == 10 // sigmoid
    const float e = exp(-fabs(x));
    return (x < 0.0f ? e : 1.0f) / (1.0f + e);
#elif ACT == 11
    return tanh(x);
#elif ACT == 12 // swish
    return x / (1.0f + exp(-p * x));
#elif ACT == 13 // gelu
    return 0.5f * x * (1.0f + erf(x * M_SQRT1_2_F));
#elif ACT == 14 // gelu by tanh
    return 0.5f * x * (1.0f + tanh(0.7978846f * (x + 0.044715f * x * x * x)));
#elif ACT == 15 // elu
    return x < 0.0f ? p * expm1(x) : x;
#elif ACT == 16 // mish
    return x * tanh(fmax(x, 0.0f) + log1p(exp(-fabs(x))));
#endif
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
