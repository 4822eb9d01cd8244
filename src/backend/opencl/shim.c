/* Stands in for libOpenCL at link time. Each function looks the real one up at its first call, so that ortx loads on
 * machines without OpenCL, where the list of platforms is simply empty. Nothing here is exported.
 *
 * Where the real functions come from, in this order: the process itself (a program that already carries OpenCL, or a
 * tool preloaded to watch it), the library that ORTX_OPENCL_LIB names (and then no other), the system's OpenCL loader.
 *
 * Prototypes are our own: P is any pointer or handle, U a cl_uint or an enumeration, uint64_t a bit field.
 */
#if defined(__linux__) && !defined(_GNU_SOURCE)
#define _GNU_SOURCE /* RTLD_DEFAULT, secure_getenv */
#endif
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

typedef void *P;
typedef unsigned int U;

#define INVALID_OPERATION (-59)
#define PLATFORM_NOT_FOUND (-1001)

#if defined(_WIN32)
#include <windows.h>
#define API
#define CALL __stdcall
static INIT_ONCE once = INIT_ONCE_STATIC_INIT;
static HMODULE library;

static BOOL CALLBACK open_library(PINIT_ONCE o, PVOID a, PVOID *b) {
    char name[MAX_PATH];
    DWORD n = GetEnvironmentVariableA("ORTX_OPENCL_LIB", name, sizeof name);
    (void)o, (void)a, (void)b;
    library = LoadLibraryA(n > 0 && n < sizeof name ? name : "OpenCL.dll");
    return TRUE;
}

static void *look_up(const char *name) {
    InitOnceExecuteOnce(&once, open_library, NULL, NULL);
    return library ? (void *)(uintptr_t)GetProcAddress(library, name) : NULL;
}
#define LOAD(slot) InterlockedCompareExchangePointer((PVOID volatile *)&(slot), NULL, NULL)
#define STORE(slot, f) InterlockedExchangePointer((PVOID volatile *)&(slot), (f))
#else
#include <dlfcn.h>
#include <pthread.h>
#define API __attribute__((visibility("hidden")))
#define CALL
static pthread_once_t once = PTHREAD_ONCE_INIT;
static void *library;

API int clGetPlatformIDs(U a, P b, U *c);

static void open_library(void) {
    const char *name;
    void *own;
#if defined(__GLIBC__)
    name = secure_getenv("ORTX_OPENCL_LIB");
#else
    name = getenv("ORTX_OPENCL_LIB");
#endif
    own = dlsym(RTLD_DEFAULT, "clGetPlatformIDs");
    if (own && own != (void *)(uintptr_t)&clGetPlatformIDs) {
        library = RTLD_DEFAULT;
        return;
    }
    library = dlopen(name && *name ? name : "libOpenCL.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library && !(name && *name)) {
        library = dlopen("libOpenCL.so", RTLD_NOW | RTLD_LOCAL);
    }
}

static void *look_up(const char *name) {
    pthread_once(&once, open_library);
    return library ? dlsym(library, name) : NULL;
}
#define LOAD(slot) __atomic_load_n(&(slot), __ATOMIC_ACQUIRE)
#define STORE(slot, f) __atomic_store_n(&(slot), (f), __ATOMIC_RELEASE)
#endif

/* A looked-up function, NULL where there is none. Two threads may both look it up; they find the same. */
static void *forward(void **slot, const char *name) {
    void *f = LOAD(*slot);
    if (!f) {
        f = look_up(name);
        if (f) {
            STORE(*slot, f);
        }
    }
    return f;
}

/* A function that answers a status. */
#define STATUS(name, params, args)                                                                                     \
    API int CALL name params {                                                                                         \
        static void *slot;                                                                                             \
        int(CALL * real) params = (int(CALL *) params)(uintptr_t)forward(&slot, #name);                                \
        return real ? real args : INVALID_OPERATION;                                                                   \
    }

/* A function that answers an object, and a status through its last parameter. */
#define OBJECT(name, params, args)                                                                                     \
    API P CALL name params {                                                                                           \
        static void *slot;                                                                                             \
        P(CALL * real) params = (P(CALL *) params)(uintptr_t)forward(&slot, #name);                                    \
        if (!real) {                                                                                                   \
            if (err) {                                                                                                 \
                *err = INVALID_OPERATION;                                                                              \
            }                                                                                                          \
            return NULL;                                                                                               \
        }                                                                                                              \
        return real args;                                                                                              \
    }

/* A function that answers an address. */
#define ADDRESS(name, params, args)                                                                                    \
    API P CALL name params {                                                                                           \
        static void *slot;                                                                                             \
        P(CALL * real) params = (P(CALL *) params)(uintptr_t)forward(&slot, #name);                                    \
        return real ? real args : NULL;                                                                                \
    }

/* No library, or a loader without drivers: no platform, and no error (for which ocl would wait ten seconds). */
API int CALL clGetPlatformIDs(U a, P b, U *c) {
    static void *slot;
    int(CALL * f)(U, P, U *) = (int(CALL *)(U, P, U *))(uintptr_t)forward(&slot, "clGetPlatformIDs");
    int status = f ? f(a, b, c) : PLATFORM_NOT_FOUND;
    if (status == PLATFORM_NOT_FOUND) {
        if (c) {
            *c = 0;
        }
        return 0;
    }
    return status;
}

STATUS(clGetPlatformInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clGetDeviceIDs, (P a, uint64_t b, U c, P d, P e), (a, b, c, d, e))
STATUS(clGetDeviceInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clRetainDevice, (P a), (a))
STATUS(clReleaseDevice, (P a), (a))
OBJECT(clCreateContext, (P a, U b, P c, P d, P e, int *err), (a, b, c, d, e, err))
OBJECT(clCreateContextFromType, (P a, uint64_t b, P c, P d, int *err), (a, b, c, d, err))
STATUS(clRetainContext, (P a), (a))
STATUS(clReleaseContext, (P a), (a))
STATUS(clGetContextInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
OBJECT(clCreateCommandQueue, (P a, P b, uint64_t c, int *err), (a, b, c, err))
STATUS(clRetainCommandQueue, (P a), (a))
STATUS(clReleaseCommandQueue, (P a), (a))
STATUS(clGetCommandQueueInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
OBJECT(clCreateBuffer, (P a, uint64_t b, size_t c, P d, int *err), (a, b, c, d, err))
OBJECT(clCreateSubBuffer, (P a, uint64_t b, U c, P d, int *err), (a, b, c, d, err))
OBJECT(clCreateImage, (P a, uint64_t b, P c, P d, P e, int *err), (a, b, c, d, e, err))
STATUS(clRetainMemObject, (P a), (a))
STATUS(clReleaseMemObject, (P a), (a))
STATUS(clGetSupportedImageFormats, (P a, uint64_t b, U c, U d, P e, P f), (a, b, c, d, e, f))
STATUS(clGetMemObjectInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clGetImageInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clSetMemObjectDestructorCallback, (P a, P b, P c), (a, b, c))
OBJECT(clCreateSampler, (P a, U b, U c, U d, int *err), (a, b, c, d, err))
STATUS(clRetainSampler, (P a), (a))
STATUS(clReleaseSampler, (P a), (a))
STATUS(clGetSamplerInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
OBJECT(clCreateProgramWithSource, (P a, U b, P c, P d, int *err), (a, b, c, d, err))
OBJECT(clCreateProgramWithBinary, (P a, U b, P c, P d, P e, P f, int *err), (a, b, c, d, e, f, err))
STATUS(clRetainProgram, (P a), (a))
STATUS(clReleaseProgram, (P a), (a))
STATUS(clBuildProgram, (P a, U b, P c, P d, P e, P f), (a, b, c, d, e, f))
STATUS(clCompileProgram, (P a, U b, P c, P d, U e, P f, P g, P h, P i), (a, b, c, d, e, f, g, h, i))
OBJECT(clLinkProgram, (P a, U b, P c, P d, U e, P f, P g, P h, int *err), (a, b, c, d, e, f, g, h, err))
STATUS(clGetProgramInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clGetProgramBuildInfo, (P a, P b, U c, size_t d, P e, P f), (a, b, c, d, e, f))
OBJECT(clCreateKernel, (P a, P b, int *err), (a, b, err))
STATUS(clCreateKernelsInProgram, (P a, U b, P c, P d), (a, b, c, d))
STATUS(clRetainKernel, (P a), (a))
STATUS(clReleaseKernel, (P a), (a))
STATUS(clSetKernelArg, (P a, U b, size_t c, P d), (a, b, c, d))
STATUS(clGetKernelInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clGetKernelArgInfo, (P a, U b, U c, size_t d, P e, P f), (a, b, c, d, e, f))
STATUS(clGetKernelWorkGroupInfo, (P a, P b, U c, size_t d, P e, P f), (a, b, c, d, e, f))
STATUS(clWaitForEvents, (U a, P b), (a, b))
STATUS(clGetEventInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
OBJECT(clCreateUserEvent, (P a, int *err), (a, err))
STATUS(clRetainEvent, (P a), (a))
STATUS(clReleaseEvent, (P a), (a))
STATUS(clSetUserEventStatus, (P a, int b), (a, b))
STATUS(clSetEventCallback, (P a, int b, P c, P d), (a, b, c, d))
STATUS(clGetEventProfilingInfo, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
STATUS(clFlush, (P a), (a))
STATUS(clFinish, (P a), (a))
STATUS(clEnqueueReadBuffer, (P a, P b, U c, size_t d, size_t e, P f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueReadBufferRect, (P a, P b, U c, P d, P e, P f, size_t g, size_t h, size_t i, size_t j, P k, U l, P m, P n),
       (a, b, c, d, e, f, g, h, i, j, k, l, m, n))
STATUS(clEnqueueWriteBuffer, (P a, P b, U c, size_t d, size_t e, P f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueWriteBufferRect, (P a, P b, U c, P d, P e, P f, size_t g, size_t h, size_t i, size_t j, P k, U l, P m, P n),
       (a, b, c, d, e, f, g, h, i, j, k, l, m, n))
STATUS(clEnqueueFillBuffer, (P a, P b, P c, size_t d, size_t e, size_t f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueCopyBuffer, (P a, P b, P c, size_t d, size_t e, size_t f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueCopyBufferRect, (P a, P b, P c, P d, P e, P f, size_t g, size_t h, size_t i, size_t j, U k, P l, P m),
       (a, b, c, d, e, f, g, h, i, j, k, l, m))
STATUS(clEnqueueReadImage, (P a, P b, U c, P d, P e, size_t f, size_t g, P h, U i, P j, P k),
       (a, b, c, d, e, f, g, h, i, j, k))
STATUS(clEnqueueWriteImage, (P a, P b, U c, P d, P e, size_t f, size_t g, P h, U i, P j, P k),
       (a, b, c, d, e, f, g, h, i, j, k))
STATUS(clEnqueueFillImage, (P a, P b, P c, P d, P e, U f, P g, P h), (a, b, c, d, e, f, g, h))
STATUS(clEnqueueCopyImage, (P a, P b, P c, P d, P e, P f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueCopyImageToBuffer, (P a, P b, P c, P d, P e, size_t f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueCopyBufferToImage, (P a, P b, P c, size_t d, P e, P f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
OBJECT(clEnqueueMapBuffer, (P a, P b, U c, uint64_t d, size_t e, size_t f, U g, P h, P i, int *err),
       (a, b, c, d, e, f, g, h, i, err))
OBJECT(clEnqueueMapImage, (P a, P b, U c, uint64_t d, P e, P f, P g, P h, U i, P j, P k, int *err),
       (a, b, c, d, e, f, g, h, i, j, k, err))
STATUS(clEnqueueUnmapMemObject, (P a, P b, P c, U d, P e, P f), (a, b, c, d, e, f))
STATUS(clEnqueueMigrateMemObjects, (P a, U b, P c, uint64_t d, U e, P f, P g), (a, b, c, d, e, f, g))
STATUS(clEnqueueNDRangeKernel, (P a, P b, U c, P d, P e, P f, U g, P h, P i), (a, b, c, d, e, f, g, h, i))
STATUS(clEnqueueTask, (P a, P b, U c, P d, P e), (a, b, c, d, e))
STATUS(clEnqueueNativeKernel, (P a, P b, P c, size_t d, U e, P f, P g, U h, P i, P j), (a, b, c, d, e, f, g, h, i, j))
STATUS(clEnqueueMarkerWithWaitList, (P a, U b, P c, P d), (a, b, c, d))
STATUS(clEnqueueBarrierWithWaitList, (P a, U b, P c, P d), (a, b, c, d))
ADDRESS(clGetExtensionFunctionAddressForPlatform, (P a, P b), (a, b))
OBJECT(clCreateFromGLBuffer, (P a, uint64_t b, U c, int *err), (a, b, c, err))
OBJECT(clCreateFromGLTexture, (P a, uint64_t b, U c, int d, U e, int *err), (a, b, c, d, e, err))
OBJECT(clCreateFromGLRenderbuffer, (P a, uint64_t b, U c, int *err), (a, b, c, err))
STATUS(clEnqueueAcquireGLObjects, (P a, U b, P c, U d, P e, P f), (a, b, c, d, e, f))
STATUS(clEnqueueReleaseGLObjects, (P a, U b, P c, U d, P e, P f), (a, b, c, d, e, f))
STATUS(clGetGLContextInfoKHR, (P a, U b, size_t c, P d, P e), (a, b, c, d, e))
OBJECT(clCreateFromGLTexture2D, (P a, uint64_t b, U c, int d, U e, int *err), (a, b, c, d, e, err))
OBJECT(clCreateFromGLTexture3D, (P a, uint64_t b, U c, int d, U e, int *err), (a, b, c, d, e, err))
