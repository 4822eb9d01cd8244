/**
 * @file ortx.h
 * @mainpage ortx: runs ONNX models
 *
 * Made by cbindgen from src/capi/: do not edit.
 *
 * Conventions, for every function unless its own words say otherwise:
 *
 * Errors. A function that can fail returns an ortx_status: NULL is success; anything else belongs to the caller, who
 * reads it with ortx_status_code, ortx_status_text and the like, and ends it with ortx_status_destroy. There is no global
 * "last error". What a function gives stands in arguments at the end of its list: they are set to NULL, 0 or -1 on entry,
 * and written on success only. No error, and no fault of ortx itself, ends the process or unwinds through the caller.
 *
 * Handles. What _create makes _destroy ends. Each _destroy takes NULL, and may be called in any order: what is still
 * needed inside lives on until its last user is gone. Do not use a handle after its _destroy. A handle of the wrong
 * kind is an error, not a crash.
 *
 * Borrowed memory. A pointer that a function gives out (names, texts, types, tensor data) stays the owner's, and is
 * valid until that owner's _destroy. Memory that is lent to ortx comes with a release callback, which is called exactly
 * once, also where the lending call fails.
 *
 * Text is UTF-8 and ends with a zero byte, but for the strings in tensors, which have a length. Bools are int32_t, 0 or
 * 1; enumerations are int32_t with named constants, to which later versions may add.
 *
 * Options are structures whose first field is their size in bytes, which the caller sets with sizeof; all other fields
 * may be zero, which is the default. So a program keeps its meaning when a later header adds fields at the end. NULL
 * options are all defaults.
 *
 * Shapes list sizes as int64_t, outermost axis first; tensors lie in memory row by row without gaps.
 *
 * Threads. Any function may be called on any thread. Sessions, environments, types and cancel tokens may be used by many
 * threads at once. A value may be read by many threads at once; a binding, and a value that is written to, belong to one
 * thread at a time. Threads of ortx's own live as long as their session; there are no others.
 *
 * The symbols and their meaning stay as long as ORTX_ABI_VERSION does; more may be added.
 */


#ifndef ORTX_H
#define ORTX_H

#include <stddef.h>
#include <stdint.h>

/**
 * The version of this ABI. Within one number functions, constants and fields at the ends of structures are only added.
 */
#define ORTX_ABI_VERSION 1

/**
 * The inputs and outputs of repeated runs. One thread at a time may use it; make one for each thread.
 */
typedef struct ortx_binding ortx_binding;

/**
 * Stops runs from another thread.
 */
typedef struct ortx_cancel_token ortx_cancel_token;

/**
 * What sessions share: the operators known, the devices found.
 */
typedef struct ortx_environment ortx_environment;

/**
 * A model, ready to run, by any number of threads at once.
 */
typedef struct ortx_session ortx_session;

/**
 * The result of a call that failed. NULL is success.
 */
typedef struct ortx_status ortx_status;

/**
 * The type of an input or output: what is known before the model runs. A part of its session.
 */
typedef struct ortx_type ortx_type;

/**
 * A tensor, sequence, optional or map. Values that come from others share their memory.
 */
typedef struct ortx_value ortx_value;

/**
 * A level of processor instructions, each including those before it.
 */
typedef int32_t ortx_isa;

/**
 * An element type. The numbers are those of ONNX's TensorProto.DataType. Elements of fewer than 8 bits are packed, the
 * first in the low bits of each byte; of the other types each element takes whole bytes, in the machine's byte order.
 */
typedef int32_t ortx_dtype;

/**
 * What went wrong; ORTX_OK where nothing did. Numbers are never changed, but may be added: treat one that you do not know
 * as ORTX_ERROR_INTERNAL.
 */
typedef int32_t ortx_code;

/**
 * What kind of processor a device is.
 */
typedef int32_t ortx_device_type;

/**
 * A device that a session may use before the processor. Arrays of it never grow.
 */
typedef struct ortx_device_choice {
  /**
   * The device's name, as ortx_environment_device_name tells it.
   */
  const char *name;
  /**
   * 1: it is an error if the device is not there, or cannot run an operator. 0: the processor takes its place; where the
   * device is not there at all, ortx_session_warning tells.
   */
  int32_t required;
  /**
   * Must be 0.
   */
  int32_t reserved;
} ortx_device_choice;

/**
 * How a model file comes into memory.
 */
typedef int32_t ortx_load;

/**
 * Does one task of a parallel loop: handed to a host's thread pool, which calls it with the `context` that it was given.
 * It returns normally in all cases.
 */
typedef void (*ortx_task)(void *context, size_t worker, size_t index);

/**
 * Runs a parallel loop on the host's threads: calls `task(context, worker, index)` once for each `index` below `count`, in
 * any order, and returns when all these calls have returned. `worker` is below the pool's width, and no two calls at
 * one time have the same worker within one loop. Loops may come from several threads at once, one for each session run.
 */
typedef void (*ortx_parallel)(void *user, size_t count, ortx_task task, void *context);

/**
 * Called once with the `user` pointer given beside it, when ortx needs what it stands for no more. It may be called on
 * any thread, and before the call that it was given to returns.
 */
typedef void (*ortx_release)(void *user);

/**
 * A host's thread pool for session options.
 */
typedef struct ortx_thread_pool {
  /**
   * sizeof(ortx_thread_pool).
   */
  size_t struct_size;
  /**
   * How many workers there are, the calling thread included; 1 to 1024.
   */
  size_t width;
  /**
   * Given back to the functions.
   */
  void *user;
  /**
   * Runs a loop.
   */
  ortx_parallel parallel;
  /**
   * Called when the last session that has the pool is gone, or could not be made; may be NULL.
   */
  ortx_release release;
} ortx_thread_pool;

/**
 * A rarely needed option as text. Arrays of it never grow.
 */
typedef struct ortx_setting {
  /**
   * The option's name.
   */
  const char *key;
  /**
   * Its value.
   */
  const char *value;
} ortx_setting;

/**
 * How a session is made. Set struct_size to sizeof(ortx_session_options) and all else to zero, then change what you want.
 */
typedef struct ortx_session_options {
  /**
   * sizeof(ortx_session_options).
   */
  size_t struct_size;
  /**
   * Threads that work on one run, the calling one included. 0: as many as ortx_threads_available tells.
   */
  int32_t threads;
  /**
   * The highest level of instructions to use; ORTX_ISA_DEFAULT for the processor's own.
   */
  ortx_isa isa;
  /**
   * How long idle threads spin before they sleep, in nanoseconds. 0: a few dozen microseconds, so that the steps of one
   * run do not each pay a wake-up. -1: they sleep at once.
   */
  int64_t spin_ns;
  /**
   * Devices in order of preference, before the processor.
   */
  const struct ortx_device_choice *devices;
  /**
   * How many.
   */
  size_t device_count;
  /**
   * How a model file comes into memory: ORTX_LOAD_MAP or ORTX_LOAD_READ.
   */
  ortx_load load;
  /**
   * 1: denormal numbers count as they are. 0: they are flushed to zero while running, which is faster.
   */
  int32_t keep_denormals;
  /**
   * 1: the graph runs as it stands in the file. 0: it is optimised first.
   */
  int32_t disable_optimization;
  /**
   * Must be 0.
   */
  int32_t reserved;
  /**
   * The most bytes that the session's tensors may take at once: weights that are not read where they lie (in a mapped
   * file or borrowed memory), packed constants, intermediate values, outputs as long as they live. 0: no limit. What
   * passes it is ORTX_ERROR_OUT_OF_MEMORY; ortx_session_memory tells how much is in use.
   */
  uint64_t memory_limit;
  /**
   * The host's threads instead of threads of the session's own; NULL for the latter. `threads` has no effect then.
   */
  const struct ortx_thread_pool *pool;
  /**
   * Further options as text, stronger than the fields above: the keys are "threads", "isa", "spin_us", "devices" (a
   * list with commas, "!" after a required one), "load" (map, read), "denormals" (flush, keep), "optimize" (0, 1),
   * "disabled_passes" (a list with commas), "stop_after" (a pass), "memory_limit" (bytes), "cache" (a file in which the
   * model is kept compiled: opened if it is there and current, else made, of which ortx_session_warning tells the reason),
   * "rebuild" (0, 1: make that file anew), "plan_bytes".
   */
  const struct ortx_setting *settings;
  /**
   * How many.
   */
  size_t setting_count;
  /**
   * About how many bytes the plans take that are kept for shapes seen before: those of the model, and as many of each
   * loop's body and branch. The ones that were not used for the longest time go first. 0: 64 MiB.
   */
  uint64_t plan_bytes;
} ortx_session_options;

/**
 * What kind of thing a value is.
 */
typedef int32_t ortx_kind;

/**
 * A text of a model's metadata.
 */
typedef int32_t ortx_text;

/**
 * How one run goes. Set struct_size to sizeof(ortx_run_options) and all else to zero, then change what you want.
 */
typedef struct ortx_run_options {
  /**
   * sizeof(ortx_run_options).
   */
  size_t struct_size;
  /**
   * Stops the run when cancelled; may be NULL.
   */
  const struct ortx_cancel_token *cancel_token;
  /**
   * Nanoseconds after which the run stops with ORTX_ERROR_CANCELLED, counted from the call. 0: no limit.
   */
  uint64_t timeout_ns;
} ortx_run_options;

/**
 * Success.
 */
#define ORTX_OK 0

/**
 * An argument is wrong: NULL, a wrong element type, rank, name or count.
 */
#define ORTX_ERROR_INVALID_ARGUMENT 1

/**
 * The model file is damaged or breaks the ONNX specification.
 */
#define ORTX_ERROR_INVALID_MODEL 2

/**
 * The model is fine, but something in it is not supported here.
 */
#define ORTX_ERROR_UNSUPPORTED 3

/**
 * A file, name or device does not exist.
 */
#define ORTX_ERROR_NOT_FOUND 4

/**
 * The operating system refused a read, a write or a mapping.
 */
#define ORTX_ERROR_IO 5

/**
 * Memory ran out, or a memory limit was reached.
 */
#define ORTX_ERROR_OUT_OF_MEMORY 6

/**
 * The values met while running make the operation impossible (an index out of range, a division by zero).
 */
#define ORTX_ERROR_RUN 7

/**
 * The run was cancelled, or its time was over.
 */
#define ORTX_ERROR_CANCELLED 8

/**
 * A device or its driver failed.
 */
#define ORTX_ERROR_DEVICE 9

/**
 * A fault of ortx itself: please report it.
 */
#define ORTX_ERROR_INTERNAL 10

/**
 * No tensor, or a type that is not known.
 */
#define ORTX_DTYPE_UNDEFINED 0

#define ORTX_DTYPE_FLOAT32 1

#define ORTX_DTYPE_UINT8 2

#define ORTX_DTYPE_INT8 3

#define ORTX_DTYPE_UINT16 4

#define ORTX_DTYPE_INT16 5

#define ORTX_DTYPE_INT32 6

#define ORTX_DTYPE_INT64 7

/**
 * UTF-8 text of any length; reached with ortx_tensor_string, not through a data pointer.
 */
#define ORTX_DTYPE_STRING 8

/**
 * One byte, 0 or 1.
 */
#define ORTX_DTYPE_BOOL 9

/**
 * IEEE 754 binary16.
 */
#define ORTX_DTYPE_FLOAT16 10

#define ORTX_DTYPE_FLOAT64 11

#define ORTX_DTYPE_UINT32 12

#define ORTX_DTYPE_UINT64 13

/**
 * Two float32: real, imaginary.
 */
#define ORTX_DTYPE_COMPLEX64 14

/**
 * Two float64: real, imaginary.
 */
#define ORTX_DTYPE_COMPLEX128 15

/**
 * The upper half of a float32.
 */
#define ORTX_DTYPE_BFLOAT16 16

#define ORTX_DTYPE_FLOAT8E4M3FN 17

#define ORTX_DTYPE_FLOAT8E4M3FNUZ 18

#define ORTX_DTYPE_FLOAT8E5M2 19

#define ORTX_DTYPE_FLOAT8E5M2FNUZ 20

/**
 * Two to a byte.
 */
#define ORTX_DTYPE_UINT4 21

/**
 * Two to a byte.
 */
#define ORTX_DTYPE_INT4 22

/**
 * Two to a byte.
 */
#define ORTX_DTYPE_FLOAT4E2M1 23

/**
 * A power of two.
 */
#define ORTX_DTYPE_FLOAT8E8M0 24

/**
 * Four to a byte.
 */
#define ORTX_DTYPE_UINT2 25

/**
 * Four to a byte.
 */
#define ORTX_DTYPE_INT2 26

/**
 * One to a byte.
 */
#define ORTX_DTYPE_FLOAT6E2M3 27

/**
 * One to a byte.
 */
#define ORTX_DTYPE_FLOAT6E3M2 28

/**
 * Not known before the model runs.
 */
#define ORTX_KIND_UNKNOWN 0

#define ORTX_KIND_TENSOR 1

/**
 * A list of values of one type.
 */
#define ORTX_KIND_SEQUENCE 2

/**
 * A value that may be missing.
 */
#define ORTX_KIND_OPTIONAL 3

/**
 * Integer or string keys, each with a value.
 */
#define ORTX_KIND_MAP 4

/**
 * In options: the processor's highest level.
 */
#define ORTX_ISA_DEFAULT 0

/**
 * Nothing beyond what every processor of the family has.
 */
#define ORTX_ISA_SCALAR 1

/**
 * x86-64 with AVX2, FMA and F16C.
 */
#define ORTX_ISA_AVX2 2

/**
 * x86-64 with AVX-512 F, BW, DQ and VL.
 */
#define ORTX_ISA_AVX512 3

/**
 * The host's processor, or one like it.
 */
#define ORTX_DEVICE_CPU 1

#define ORTX_DEVICE_GPU 2

/**
 * An FPGA or another dedicated processor.
 */
#define ORTX_DEVICE_ACCELERATOR 3

/**
 * Mapped: read as needed, shared between processes. Whoever shortens the file while a session lives ends the process with
 * SIGBUS.
 */
#define ORTX_LOAD_MAP 0

/**
 * Read at once: the file may change afterwards.
 */
#define ORTX_LOAD_READ 1

/**
 * The tool that wrote the model.
 */
#define ORTX_TEXT_PRODUCER_NAME 1

/**
 * The version of that tool.
 */
#define ORTX_TEXT_PRODUCER_VERSION 2

/**
 * The name of the model's graph.
 */
#define ORTX_TEXT_GRAPH_NAME 3

/**
 * The domain that the model's author gave it, as "org.example".
 */
#define ORTX_TEXT_DOMAIN 4

/**
 * A description for humans.
 */
#define ORTX_TEXT_DOC 5

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Tells the version of the ABI that the loaded library has. Compare it with ORTX_ABI_VERSION, which is what the program
 * was compiled against: they must be equal.
 *
 * Thread safety: any thread.
 * Since: 0.1.
 */
uint32_t ortx_abi_version(void);

/**
 * Tells the version of the library, as "0.1.0".
 *
 * Returns: text that lives forever.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_version(void);

/**
 * Tells how many threads a session uses unless told otherwise: the cores that this process may use, by its affinity mask
 * and its container's quota.
 *
 * Returns: at least 1.
 * Thread safety: any thread.
 * Since: 0.1.
 */
int32_t ortx_threads_available(void);

/**
 * Tells the level of instructions that a session uses unless told otherwise: the processor's highest, or what the
 * environment variable ORTX_ISA ("scalar", "avx2", "avx512") caps it to.
 *
 * Returns: an ORTX_ISA_ number other than ORTX_ISA_DEFAULT.
 * Thread safety: any thread.
 * Since: 0.1.
 */
ortx_isa ortx_isa_available(void);

/**
 * Names a level of instructions.
 *
 * Parameters: `isa`, an ORTX_ISA_ number.
 * Returns: text that lives forever ("avx2"); "?" for a number that is none.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_isa_name(ortx_isa isa);

/**
 * Names an element type, as ONNX does in `tensor(float16)`.
 *
 * Parameters: `dtype`, an ORTX_DTYPE_ number.
 * Returns: text that lives forever; "?" for a number that is none.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_dtype_name(ortx_dtype dtype);

/**
 * Tells how many bits an element takes in a tensor's memory.
 *
 * Parameters: `dtype`, an ORTX_DTYPE_ number.
 * Returns: 2, 4 (packed), 8, 16, 32, 64 or 128; 0 for strings, and for a number that is no element type.
 * Thread safety: any thread.
 * Since: 0.1.
 */
int32_t ortx_dtype_bits(ortx_dtype dtype);

/**
 * Names an error code, as "invalid argument".
 *
 * Parameters: `code`, ORTX_OK or an ORTX_ERROR_ number.
 * Returns: text that lives forever; "?" for a number that is none.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_code_name(ortx_code code);

/**
 * Tells what went wrong, as a number.
 *
 * Parameters: `status`, which may be NULL.
 * Returns: an ORTX_ERROR_ number; ORTX_OK for NULL.
 * Thread safety: any thread.
 * Since: 0.1.
 */
ortx_code ortx_status_code(const struct ortx_status *status);

/**
 * Tells what went wrong, in one line: the places that the error passed, outermost first, and the message.
 *
 * Parameters: `status`, which may be NULL.
 * Returns: UTF-8 text that lives as long as the status; "" for NULL.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_status_text(const struct ortx_status *status);

/**
 * Tells what went wrong, without the places.
 *
 * Parameters: `status`, which may be NULL.
 * Returns: UTF-8 text that lives as long as the status; "" for NULL.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_status_message(const struct ortx_status *status);

/**
 * Counts the places that the error passed.
 *
 * Parameters: `status`, which may be NULL.
 * Returns: the count; 0 for NULL.
 * Thread safety: any thread.
 * Since: 0.1.
 */
size_t ortx_status_context_count(const struct ortx_status *status);

/**
 * Names one of the places that the error passed, such as "node 'conv1' (Conv)".
 *
 * Parameters: `status`, which may be NULL; `index`, 0 for the outermost.
 * Returns: UTF-8 text that lives as long as the status; NULL where there is no such place.
 * Thread safety: any thread.
 * Since: 0.1.
 */
const char *ortx_status_context(const struct ortx_status *status, size_t index);

/**
 * Frees a status.
 *
 * Parameters: `status`, which may be NULL.
 * Ownership: takes the status; its texts end with it.
 * Thread safety: any thread, once.
 * Since: 0.1.
 */
void ortx_status_destroy(struct ortx_status *status);

/**
 * Makes an environment. Sessions can be made without one; then they share nothing.
 *
 * Parameters: `environment` receives the handle.
 * Ownership: the caller owns the environment and ends it with ortx_environment_destroy, before or after its sessions.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_create(struct ortx_environment **environment);

/**
 * Ends an environment. Sessions made with it go on.
 *
 * Parameters: `environment`, which may be NULL.
 * Ownership: takes the environment; names and descriptions of its devices end with it.
 * Thread safety: any thread, once, when no other call uses it.
 * Since: 0.1.
 */
void ortx_environment_destroy(struct ortx_environment *environment);

/**
 * Counts the devices beside the processor itself that sessions can use. They are looked for at the first call and kept;
 * where there is no OpenCL the answer is 0 at once.
 *
 * Parameters: `environment`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL; ORTX_ERROR_DEVICE where a driver fails.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_device_count(const struct ortx_environment *environment,
                                                  size_t *count);

/**
 * Tells the name that session options take for a device, as "opencl:0".
 *
 * Parameters: `environment`; `index` below the count; `name` receives UTF-8 text.
 * Ownership: the text lives as long as the environment.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_device_name(const struct ortx_environment *environment,
                                                 size_t index,
                                                 const char **name);

/**
 * Describes a device for a human: model, kind, size, driver.
 *
 * Parameters: `environment`; `index` below the count; `description` receives UTF-8 text of one line.
 * Ownership: the text lives as long as the environment.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_device_description(const struct ortx_environment *environment,
                                                        size_t index,
                                                        const char **description);

/**
 * Tells what kind of processor a device is.
 *
 * Parameters: `environment`; `index` below the count; `device_type` receives an ORTX_DEVICE_ number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_device_type(const struct ortx_environment *environment,
                                                 size_t index,
                                                 ortx_device_type *device_type);

/**
 * Tells how much memory a device has.
 *
 * Parameters: `environment`; `index` below the count; `bytes` receives the size.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_environment_device_memory(const struct ortx_environment *environment,
                                                   size_t index,
                                                   uint64_t *bytes);

/**
 * Makes a session from a model file. Tensors that the model keeps in other files are looked for in its folder, and nowhere
 * else.
 *
 * Parameters: `environment`, or NULL; `path`, UTF-8; `options`, or NULL for the defaults; `session` receives the handle.
 * Ownership: the caller owns the session and ends it with ortx_session_destroy. The arguments may go after the call, but
 * for the host's thread pool, which is released with the session, or by this call where it fails.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_NOT_FOUND, ORTX_ERROR_IO for the file; ORTX_ERROR_INVALID_MODEL for what is in it;
 * ORTX_ERROR_UNSUPPORTED, with all operators that are missing; ORTX_ERROR_INVALID_ARGUMENT for options and NULL;
 * ORTX_ERROR_OUT_OF_MEMORY.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_create_from_file(const struct ortx_environment *environment,
                                                  const char *path,
                                                  const struct ortx_session_options *options,
                                                  struct ortx_session **session);

/**
 * Makes a session from a model in memory, which is copied.
 *
 * Parameters: `environment`, or NULL; `data`, `size` bytes; `folder`, UTF-8, where the files are that the model keeps
 * tensors in, or NULL if there are none; `options`, or NULL for the defaults; `session` receives the handle.
 * Ownership: as ortx_session_create_from_file.
 * Thread safety: any thread.
 * Errors: as ortx_session_create_from_file.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_create_from_memory(const struct ortx_environment *environment,
                                                    const void *data,
                                                    size_t size,
                                                    const char *folder,
                                                    const struct ortx_session_options *options,
                                                    struct ortx_session **session);

/**
 * Makes a session from a model in memory that is used where it is. Weights that need no conversion are read from there
 * during runs.
 *
 * Parameters: `environment`, or NULL; `data`, `size` bytes; `release`, or NULL, is called once with `user` when the memory
 * is not needed any more: after the session and all values that came from it are gone, or by this call where it fails;
 * `folder` and `options` as in ortx_session_create_from_memory; `session` receives the handle.
 * Ownership: the caller owns the session and ends it with ortx_session_destroy. The memory must stay, unchanged, until
 * the release.
 * Thread safety: any thread.
 * Errors: as ortx_session_create_from_file.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_create_from_borrowed_memory(const struct ortx_environment *environment,
                                                             const void *data,
                                                             size_t size,
                                                             ortx_release release,
                                                             void *user,
                                                             const char *folder,
                                                             const struct ortx_session_options *options,
                                                             struct ortx_session **session);

/**
 * Ends a session. Runs that are going on in other threads must be over; bindings, values and cancel tokens made with it
 * live on.
 *
 * Parameters: `session`, which may be NULL.
 * Ownership: takes the session; names, types and texts that it gave out end with it.
 * Thread safety: any thread, once, when no other call uses it.
 * Since: 0.1.
 */
void ortx_session_destroy(struct ortx_session *session);

/**
 * Counts the model's inputs, without those that have a default (see ortx_session_overridable_count).
 *
 * Parameters: `session`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_input_count(const struct ortx_session *session, size_t *count);

/**
 * Counts the inputs that have a default: initialisers that a model of IR version 4 or later lists as inputs too. Their
 * indices follow those of the inputs that ortx_session_input_count counts; a run may give them another value, and then
 * is slower than one that leaves them as they are.
 *
 * Parameters: `session`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_overridable_count(const struct ortx_session *session,
                                                   size_t *count);

/**
 * Counts the model's outputs.
 *
 * Parameters: `session`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_output_count(const struct ortx_session *session, size_t *count);

/**
 * Tells the name of an input.
 *
 * Parameters: `session`; `index` below the count; `name` receives UTF-8 text.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_input_name(const struct ortx_session *session,
                                            size_t index,
                                            const char **name);

/**
 * Tells the name of an output.
 *
 * Parameters: `session`; `index` below the count; `name` receives UTF-8 text.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_output_name(const struct ortx_session *session,
                                             size_t index,
                                             const char **name);

/**
 * Finds an input by name. Do it once, and run by index.
 *
 * Parameters: `session`; `name`, UTF-8; `index` receives the place in the model's order.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an unknown name; the message lists the names there are.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_input_index(const struct ortx_session *session,
                                             const char *name,
                                             size_t *index);

/**
 * Finds an output by name. Do it once, and run by index.
 *
 * Parameters: `session`; `name`, UTF-8; `index` receives the place in the model's order.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an unknown name; the message lists the names there are.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_output_index(const struct ortx_session *session,
                                              const char *name,
                                              size_t *index);

/**
 * Tells the type of an input.
 *
 * Parameters: `session`; `index` below the count; `value_type` receives it.
 * Ownership: the type is a part of the session and ends with it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_input_type(const struct ortx_session *session,
                                            size_t index,
                                            const struct ortx_type **value_type);

/**
 * Tells the type of an output.
 *
 * Parameters: `session`; `index` below the count; `value_type` receives it.
 * Ownership: the type is a part of the session and ends with it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_output_type(const struct ortx_session *session,
                                             size_t index,
                                             const struct ortx_type **value_type);

/**
 * Tells what kind of value a type is of.
 *
 * Parameters: `value_type`; `kind` receives an ORTX_KIND_ number; ORTX_KIND_UNKNOWN where the model does not tell.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_type_kind(const struct ortx_type *value_type,
                                   ortx_kind *kind);

/**
 * Tells the element type of a tensor, or the type of a map's keys.
 *
 * Parameters: `value_type`; `dtype` receives an ORTX_DTYPE_ number; ORTX_DTYPE_UNDEFINED for other kinds.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_type_dtype(const struct ortx_type *value_type, ortx_dtype *dtype);

/**
 * Tells how many axes a tensor has.
 *
 * Parameters: `value_type`; `rank` receives the number; -1 where it is not known, and for other kinds.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_type_rank(const struct ortx_type *value_type, int64_t *rank);

/**
 * Tells the size of an axis of a tensor.
 *
 * Parameters: `value_type`; `axis` below the rank; `size` receives the number of elements, -1 where it depends on the run;
 * `symbol` receives the name that the model gives such a size ("batch", or an expression of such names), else NULL.
 * `symbol` itself may be NULL.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an axis out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_type_dim(const struct ortx_type *value_type,
                                  size_t axis,
                                  int64_t *size,
                                  const char **symbol);

/**
 * Tells the type of what a sequence or optional holds, or of a map's values.
 *
 * Parameters: `value_type`; `element` receives the type; NULL for other kinds.
 * Ownership: the type is a part of the session and ends with it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_type_element(const struct ortx_type *value_type, const struct ortx_type **element);

/**
 * Tells how many threads work on a run, the calling one included.
 *
 * Parameters: `session`; `threads` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_threads(const struct ortx_session *session, int32_t *threads);

/**
 * Tells the level of instructions that the session uses.
 *
 * Parameters: `session`; `isa` receives an ORTX_ISA_ number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_isa(const struct ortx_session *session, ortx_isa *isa);

/**
 * Writes an optimised model to a file. If the file's name ends in ".ortx" it is a compiled model: weights as this library's
 * kernels want them on this processor, mapped and used where they lie, so that a session opens in a fraction of the time;
 * other versions of the library and other levels of instructions refuse it. Else it is an ONNX file, of ONNX's own
 * operators, for any reader. Sessions open both as they do any model. (The setting "cache" of a session's options does
 * both at once: it opens a compiled model, and makes it where it must.)
 *
 * A compiled model that is there already, and current, stays. One that is stale, damaged or another library's is refused
 * with the reason, unless the setting "rebuild" is "1". The file appears whole or not at all.
 *
 * Parameters: `environment`, or NULL; `path`, the model, UTF-8; `options`, or NULL for the defaults: those of the optimiser,
 * `isa`, `load` and the pool count; `file`, what to write, UTF-8.
 * Ownership: the arguments may go after the call; the host's thread pool is released by it.
 * Thread safety: any thread.
 * Errors: as ortx_session_create_from_file; ORTX_ERROR_UNSUPPORTED or ORTX_ERROR_INVALID_MODEL with the reason for which a
 * compiled model is refused, or with the nodes that ONNX has no operator for; ORTX_ERROR_IO.
 * Since: 0.1.
 */
struct ortx_status *ortx_model_optimize(const struct ortx_environment *environment,
                                        const char *path,
                                        const struct ortx_session_options *options,
                                        const char *file);

/**
 * Tells one of the texts that a model carries.
 *
 * Parameters: `session`; `which`, an ORTX_TEXT_ number; `text` receives UTF-8 text, "" where the model says nothing.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a number that is none.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_text(const struct ortx_session *session,
                                      ortx_text which,
                                      const char **text);

/**
 * Tells the version that the model's author gave it.
 *
 * Parameters: `session`; `version` receives the number, 0 where the model says nothing.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_model_version(const struct ortx_session *session, int64_t *version);

/**
 * Tells the version of the ONNX file format (the IR version) that the model uses.
 *
 * Parameters: `session`; `version` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_ir_version(const struct ortx_session *session, int64_t *version);

/**
 * Counts the operator sets that the model imports.
 *
 * Parameters: `session`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_opset_count(const struct ortx_session *session, size_t *count);

/**
 * Tells an operator set that the model imports.
 *
 * Parameters: `session`; `index` below the count; `domain` receives UTF-8 text, "" for ONNX's own; `version` receives the
 * version.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_opset(const struct ortx_session *session,
                                       size_t index,
                                       const char **domain,
                                       int64_t *version);

/**
 * Counts the model's key/value pairs.
 *
 * Parameters: `session`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_property_count(const struct ortx_session *session, size_t *count);

/**
 * Tells one of the model's key/value pairs, such as its classes' names.
 *
 * Parameters: `session`; `index` below the count; `key` and `value` receive UTF-8 text.
 * Ownership: the texts live as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_property(const struct ortx_session *session,
                                          size_t index,
                                          const char **key,
                                          const char **value);

/**
 * Counts what the caller should hear of: devices that the options prefer and that cannot be used, so that the processor takes
 * their place. They are known when the session is made, and stay.
 *
 * Parameters: `session`; `count` receives the number, 0 where all is as asked for.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_warning_count(const struct ortx_session *session,
                                               size_t *count);

/**
 * Tells one of them.
 *
 * Parameters: `session`; `index` below the count; `text` receives UTF-8 text of one line.
 * Ownership: the text lives as long as the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_warning(const struct ortx_session *session, size_t index, const char **text);

/**
 * Tells how much memory a session takes: what `memory_limit` of the options bounds.
 *
 * Parameters: `session`; `used` receives the bytes in use now; `peak`, which may be NULL, the most at one time.
 * Thread safety: any thread, also during runs.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_memory(const struct ortx_session *session,
                                        uint64_t *used,
                                        uint64_t *peak);

/**
 * Frees the memory for intermediate values that no run uses now; the next run takes it again.
 *
 * Parameters: `session`.
 * Thread safety: any thread, also during runs.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_trim(const struct ortx_session *session);

/**
 * Tells what kind of value it is.
 *
 * Parameters: `value`; `kind` receives an ORTX_KIND_ number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_value_kind(const struct ortx_value *value, ortx_kind *kind);

/**
 * Makes another handle of a value. Both share the value's memory.
 *
 * Parameters: `value`; `copy` receives the handle.
 * Ownership: the caller owns the copy and ends it with ortx_value_destroy.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_value_clone(const struct ortx_value *value, struct ortx_value **copy);

/**
 * Frees a handle, and the value with its last handle.
 *
 * Parameters: `value`, which may be NULL.
 * Ownership: takes the value; pointers to its data end with it.
 * Thread safety: any thread, once, when no other call uses it.
 * Since: 0.1.
 */
void ortx_value_destroy(struct ortx_value *value);

/**
 * Makes a sequence.
 *
 * Parameters: `elements`, `count` values of one kind and element type; `sequence` receives the handle.
 * Ownership: the caller owns the sequence and ends it with ortx_value_destroy; the elements stay the caller's, and share
 * their memory with the sequence.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or elements that differ in type.
 * Since: 0.1.
 */
struct ortx_status *ortx_sequence_create(const struct ortx_value *const *elements,
                                         size_t count,
                                         struct ortx_value **sequence);

/**
 * Counts the elements of a sequence.
 *
 * Parameters: `sequence`; `count` receives the number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_sequence_count(const struct ortx_value *sequence, size_t *count);

/**
 * Gives an element of a sequence.
 *
 * Parameters: `sequence`; `index` below the count; `element` receives a handle.
 * Ownership: the caller owns the element's handle and ends it with ortx_value_destroy; its memory is shared.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_sequence_get(const struct ortx_value *sequence,
                                      size_t index,
                                      struct ortx_value **element);

/**
 * Makes an optional.
 *
 * Parameters: `element`, or NULL for an empty optional; `optional` receives the handle.
 * Ownership: the caller owns the optional and ends it with ortx_value_destroy; the element stays the caller's, and shares
 * its memory.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT where `optional` is NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_optional_create(const struct ortx_value *element,
                                         struct ortx_value **optional);

/**
 * Gives what an optional holds.
 *
 * Parameters: `optional`; `element` receives a handle, NULL where the optional is empty.
 * Ownership: the caller owns the element's handle and ends it with ortx_value_destroy; its memory is shared.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_optional_get(const struct ortx_value *optional, struct ortx_value **element);

/**
 * Makes a map.
 *
 * Parameters: `keys`, a tensor of rank 1 of integers or strings without repeats; `values`, a tensor whose first axis has an
 * entry a key, or a sequence with an element a key; `map` receives the handle.
 * Ownership: the caller owns the map and ends it with ortx_value_destroy; keys and values stay the caller's, and share their
 * memory.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, keys that are not as said, or another number of values.
 * Since: 0.1.
 */
struct ortx_status *ortx_map_create(const struct ortx_value *keys,
                                    const struct ortx_value *values,
                                    struct ortx_value **map);

/**
 * Gives the keys of a map.
 *
 * Parameters: `map`; `keys` receives a handle of a tensor of rank 1.
 * Ownership: the caller owns the handle and ends it with ortx_value_destroy; its memory is shared.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_map_keys(const struct ortx_value *map, struct ortx_value **keys);

/**
 * Gives the values of a map, in the order of its keys.
 *
 * Parameters: `map`; `values` receives a handle of a tensor or sequence.
 * Ownership: the caller owns the handle and ends it with ortx_value_destroy; its memory is shared.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_map_values(const struct ortx_value *map, struct ortx_value **values);

/**
 * Makes a tensor of zeros (empty strings for ORTX_DTYPE_STRING) in memory of its own, aligned to 64 bytes.
 *
 * Parameters: `dtype`, an ORTX_DTYPE_ number; `shape`, `rank` sizes, outermost first (NULL and 0 for a scalar); `tensor`
 * receives the handle.
 * Ownership: the caller owns the tensor and ends it with ortx_value_destroy.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type or a negative size; ORTX_ERROR_OUT_OF_MEMORY.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_create(ortx_dtype dtype,
                                       const int64_t *shape,
                                       size_t rank,
                                       struct ortx_value **tensor);

/**
 * Makes a tensor that holds a copy of data. Bytes of bools other than 0 become 1.
 *
 * Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
 * without gaps, packed where elements have fewer than 8 bits; `size` must be what the shape needs; `tensor` receives the
 * handle.
 * Ownership: the caller owns the tensor and ends it with ortx_value_destroy; the data may go after the call.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size or another number of bytes;
 * ORTX_ERROR_OUT_OF_MEMORY.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_create_from_copy(ortx_dtype dtype,
                                                 const int64_t *shape,
                                                 size_t rank,
                                                 const void *data,
                                                 size_t size,
                                                 struct ortx_value **tensor);

/**
 * Makes a tensor over memory that the caller has and may not be written, without copying it.
 *
 * Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
 * without gaps, aligned to an element; `size` must be what the shape needs; `release`, or NULL, is called once with `user`
 * when the memory is not needed any more: after the last value that shares it is gone, or by this call where it fails;
 * `tensor` receives the handle.
 * Ownership: the caller owns the tensor and ends it with ortx_value_destroy. The memory must stay until the release, and
 * must not change while a run reads it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size, another number of bytes, a wrong
 * alignment, or bools other than 0 and 1.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_create_borrowed(ortx_dtype dtype,
                                                const int64_t *shape,
                                                size_t rank,
                                                const void *data,
                                                size_t size,
                                                ortx_release release,
                                                void *user,
                                                struct ortx_value **tensor);

/**
 * Makes a tensor over memory that the caller has and lets ortx write to, without copying it: for outputs, and for inputs
 * as well.
 *
 * Parameters: `dtype`, not ORTX_DTYPE_STRING; `shape`, `rank` sizes, outermost first; `data`, `size` bytes, row by row
 * without gaps, aligned to an element; `size` must be what the shape needs; `release`, or NULL, is called once with `user`
 * when the memory is not needed any more: after the last value that shares it is gone, or by this call where it fails;
 * `tensor` receives the handle.
 * Ownership: the caller owns the tensor and ends it with ortx_value_destroy. The memory must stay until the release, and
 * must not be read while a run writes it, nor written while a run reads it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an unknown type, a negative size, another number of bytes, a wrong
 * alignment, or bools other than 0 and 1.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_create_borrowed_mut(ortx_dtype dtype,
                                                    const int64_t *shape,
                                                    size_t rank,
                                                    void *data,
                                                    size_t size,
                                                    ortx_release release,
                                                    void *user,
                                                    struct ortx_value **tensor);

/**
 * Makes a tensor of strings, which are copied.
 *
 * Parameters: `shape`, `rank` sizes, outermost first; `strings`, `count` pointers to UTF-8 text; `lengths`, the bytes of
 * each text, or NULL where each ends with a zero byte; `count` must be what the shape needs; `tensor` receives the handle.
 * Ownership: the caller owns the tensor and ends it with ortx_value_destroy.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, text that is not UTF-8, a negative size or another count.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_create_from_strings(const int64_t *shape,
                                                    size_t rank,
                                                    const char *const *strings,
                                                    const size_t *lengths,
                                                    size_t count,
                                                    struct ortx_value **tensor);

/**
 * Tells a tensor's element type.
 *
 * Parameters: `tensor`; `dtype` receives an ORTX_DTYPE_ number.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_dtype(const struct ortx_value *tensor, ortx_dtype *dtype);

/**
 * Tells a tensor's shape.
 *
 * Parameters: `tensor`; `shape`, room for `capacity` sizes, receives as many of the axes' sizes as fit, outermost first (NULL
 * and 0 to ask for the rank alone); `rank`, which may be NULL if `shape` is not, receives the number of axes.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or too little room where `rank` is NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_shape(const struct ortx_value *tensor,
                                      int64_t *shape,
                                      size_t capacity,
                                      size_t *rank);

/**
 * Counts a tensor's elements.
 *
 * Parameters: `tensor`; `count` receives the product of its sizes, 1 for a scalar.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_count(const struct ortx_value *tensor, size_t *count);

/**
 * Tells the size of a tensor's data in bytes.
 *
 * Parameters: `tensor`; `size` receives the number, 0 for strings.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL or a value of another kind.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_byte_size(const struct ortx_value *tensor, size_t *size);

/**
 * Gives a tensor's data to read: row by row, without gaps.
 *
 * Parameters: `tensor`, not of strings; `data` receives the address of the first element; it is not NULL, but where there
 * are no elements nothing may be read there.
 * Ownership: the memory is the tensor's, and ends with the last value that shares it.
 * Thread safety: any thread; not while a run writes to the tensor.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, or strings.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_data(const struct ortx_value *tensor,
                                     const void **data);

/**
 * Gives a tensor's data to write: row by row, without gaps. What is written is seen by all values that share the memory.
 *
 * Parameters: `tensor`, not of strings, made by ortx_tensor_create, _create_from_copy or _create_borrowed_mut, or else the
 * only value that has this memory; `data` receives the address of the first element.
 * Ownership: the memory is the tensor's, and ends with the last value that shares it.
 * Thread safety: any thread; write only while no run uses the tensor.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, strings, or memory that may not be written.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_data_mut(struct ortx_value *tensor,
                                         void **data);

/**
 * Gives one string of a tensor of strings.
 *
 * Parameters: `tensor`; `index` below its count; `text` receives the address of the first byte of UTF-8 text that does not
 * end with a zero byte; `length` receives the number of bytes.
 * Ownership: the text is the tensor's, and ends with the last value that shares it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a value of another kind, other elements, or an index out of range.
 * Since: 0.1.
 */
struct ortx_status *ortx_tensor_string(const struct ortx_value *tensor,
                                       size_t index,
                                       const char **text,
                                       size_t *length);

/**
 * Makes a cancel token, for as many runs as wanted.
 *
 * Parameters: `token` receives the handle.
 * Ownership: the caller owns the token and ends it with ortx_cancel_token_destroy, also while runs have it.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_cancel_token_create(struct ortx_cancel_token **token);

/**
 * Ends a cancel token. Runs that have it go on.
 *
 * Parameters: `token`, which may be NULL.
 * Ownership: takes the token.
 * Thread safety: any thread, once, when no other call uses it.
 * Since: 0.1.
 */
void ortx_cancel_token_destroy(struct ortx_cancel_token *token);

/**
 * Asks all runs that have the token to stop; each returns ORTX_ERROR_CANCELLED within a task's time, far below a
 * millisecond on the processor. Runs that start later stop at once, until the token is reset.
 *
 * Parameters: `token`.
 * Thread safety: any thread, also during runs.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_cancel_token_cancel(const struct ortx_cancel_token *token);

/**
 * Makes a cancelled token usable again.
 *
 * Parameters: `token`.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_cancel_token_reset(const struct ortx_cancel_token *token);

/**
 * Tells whether a token is cancelled.
 *
 * Parameters: `token`; `cancelled` receives 0 or 1.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_cancel_token_is_cancelled(const struct ortx_cancel_token *token, int32_t *cancelled);

/**
 * Runs the model once. Names are resolved beforehand, with ortx_session_input_index and _output_index.
 *
 * Parameters: `session`; `options`, or NULL; `input_indices`, the place of each input in the model's order, or NULL for
 * 0, 1, 2...; `inputs`, `input_count` values: all that the model has, of those with a default as many as wanted; `output_indices`, the place of each output that is
 * wanted, or NULL for 0, 1, 2...; `outputs`, `output_count` handles: each is NULL on entry and receives a new value, or is
 * a tensor of the output's type and shape, which is written to. If the call fails NULL handles are still NULL, and what
 * is in the tensors is not defined.
 * Ownership: inputs stay the caller's; the caller owns new outputs and ends them with ortx_value_destroy. An output that
 * the model passes through may share memory with an input.
 * Thread safety: any number of threads may run one session, with outputs of their own each.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, a wrong count, index, kind, element type or shape, an output given twice or
 * overlapping an input; ORTX_ERROR_CANCELLED; ORTX_ERROR_RUN, ORTX_ERROR_OUT_OF_MEMORY, ORTX_ERROR_DEVICE,
 * ORTX_ERROR_UNSUPPORTED for what the operators meet, with the node in the context.
 * Since: 0.1.
 */
struct ortx_status *ortx_session_run(const struct ortx_session *session,
                                     const struct ortx_run_options *options,
                                     const size_t *input_indices,
                                     const struct ortx_value *const *inputs,
                                     size_t input_count,
                                     const size_t *output_indices,
                                     struct ortx_value **outputs,
                                     size_t output_count);

/**
 * Makes a binding of a session.
 *
 * Parameters: `session`; `binding` receives the handle.
 * Ownership: the caller owns the binding and ends it with ortx_binding_destroy, before or after the session.
 * Thread safety: any thread.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL.
 * Since: 0.1.
 */
struct ortx_status *ortx_binding_create(const struct ortx_session *session, struct ortx_binding **binding);

/**
 * Ends a binding.
 *
 * Parameters: `binding`, which may be NULL.
 * Ownership: takes the binding; values set in it stay the caller's.
 * Thread safety: any thread, once, when no other call uses it.
 * Since: 0.1.
 */
void ortx_binding_destroy(struct ortx_binding *binding);

/**
 * Sets an input for all runs to come. Later runs see what is written to its memory between them.
 *
 * Parameters: `binding`; `index`, the input's place in the model's order; `value`, or NULL for an input that has a default,
 * which it has again then.
 * Ownership: the value stays the caller's, who may end it at once; the binding shares its memory.
 * Thread safety: one thread at a time for each binding.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an index out of range, a wrong kind, element type or shape, or memory that
 * overlaps that of an output.
 * Since: 0.1.
 */
struct ortx_status *ortx_binding_set_input(const struct ortx_binding *binding,
                                           size_t index,
                                           const struct ortx_value *value);

/**
 * Sets the tensor that runs write an output to.
 *
 * Parameters: `binding`; `index`, the output's place in the model's order; `tensor`, of the type and shape that the output
 * has, in memory that may be written (see ortx_tensor_data_mut); or NULL, which is how a binding begins: then it has memory
 * of its own, used again by each run whose output has the same shape.
 * Ownership: the tensor stays the caller's, who may end it at once; the binding shares its memory.
 * Thread safety: one thread at a time for each binding.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for a NULL binding, an index out of range, a value that is no tensor, memory that may
 * not be written, or overlaps that of an input or another output.
 * Since: 0.1.
 */
struct ortx_status *ortx_binding_set_output(const struct ortx_binding *binding,
                                            size_t index,
                                            struct ortx_value *tensor);

/**
 * Runs the model on the inputs set. With shapes that were there before and outputs that are set, or whose values nobody
 * else has, this allocates nothing.
 *
 * Parameters: `binding`; `options`, or NULL.
 * Ownership: nothing changes hands.
 * Thread safety: one thread at a time for each binding.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an input that is not set, an output tensor of another type or shape than the
 * model gives; else as ortx_session_run.
 * Since: 0.1.
 */
struct ortx_status *ortx_binding_run(const struct ortx_binding *binding,
                                     const struct ortx_run_options *options);

/**
 * Gives an output of the last run.
 *
 * Parameters: `binding`; `index`, the output's place in the model's order; `value` receives a handle.
 * Ownership: the caller owns the handle and ends it with ortx_value_destroy. A tensor that was set is overwritten by the
 * next run; another value stays as it is, as the next run finds it taken and allocates.
 * Thread safety: one thread at a time for each binding.
 * Errors: ORTX_ERROR_INVALID_ARGUMENT for NULL, an index out of range, or before the first run.
 * Since: 0.1.
 */
struct ortx_status *ortx_binding_output(const struct ortx_binding *binding,
                                        size_t index,
                                        struct ortx_value **value);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* ORTX_H */
