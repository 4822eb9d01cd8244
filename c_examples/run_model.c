/*
 * Runs any model on random numbers: prints its inputs and outputs, then what it gives. Sizes that the model leaves open are
 * 1, or what the command line says: run_model MODEL.onnx batch=4 height=224
 *
 * run: models/digits.onnx N=2
 */
#include <ortx.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RANK 16

static int failed(ortx_status *status) {
  size_t i;
  if (!status) return 0;
  fprintf(stderr, "error: %s: %s\n", ortx_code_name(ortx_status_code(status)), ortx_status_message(status));
  for (i = 0; i < ortx_status_context_count(status); i++) fprintf(stderr, "  in %s\n", ortx_status_context(status, i));
  ortx_status_destroy(status);
  return 1;
}

/* xorshift: the same numbers everywhere. */
static uint64_t state = 88172645463325252u;
static uint64_t next_random(void) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state;
}

/* "float[batch,3]" */
static int print_type(const ortx_type *type) {
  static const char *const kinds[] = {"?", "tensor", "sequence", "optional", "map"};
  ortx_kind kind = 0;
  ortx_dtype dtype = 0;
  int64_t rank = 0, size = 0, i;
  const char *symbol = NULL;
  const ortx_type *element = NULL;
  if (failed(ortx_type_kind(type, &kind)) || failed(ortx_type_dtype(type, &dtype)) ||
      failed(ortx_type_rank(type, &rank)) || failed(ortx_type_element(type, &element)))
    return 1;
  if (kind != ORTX_KIND_TENSOR) {
    printf("%s", kind >= 0 && kind <= 4 ? kinds[kind] : "?");
    if (dtype != ORTX_DTYPE_UNDEFINED) printf(" from %s", ortx_dtype_name(dtype));
    if (!element) return 0;
    printf(" of ");
    return print_type(element);
  }
  printf("%s", ortx_dtype_name(dtype));
  if (rank < 0) {
    printf("[..]");
    return 0;
  }
  printf("[");
  for (i = 0; i < rank; i++) {
    if (failed(ortx_type_dim(type, (size_t)i, &size, &symbol))) return 1;
    if (i) printf(",");
    if (size >= 0) printf("%lld", (long long)size);
    else printf("%s", symbol ? symbol : "?");
  }
  printf("]");
  return 0;
}

/* The size that the command line gives a name, or 1. */
static int64_t size_of(const char *symbol, int argc, char **argv) {
  size_t length = symbol ? strlen(symbol) : 0;
  int i;
  for (i = 2; symbol && i < argc; i++)
    if (!strncmp(argv[i], symbol, length) && argv[i][length] == '=') return strtoll(argv[i] + length + 1, NULL, 10);
  return 1;
}

/* A tensor of random numbers: floats in 0..1, integers 0 or 1, strings empty. */
static int make_input(const ortx_type *type, int argc, char **argv, ortx_value **tensor) {
  ortx_kind kind = 0;
  ortx_dtype dtype = 0;
  int64_t rank = 0, shape[MAX_RANK], i;
  size_t count = 0, k;
  const char *symbol = NULL;
  void *data = NULL;
  if (failed(ortx_type_kind(type, &kind)) || failed(ortx_type_dtype(type, &dtype)) ||
      failed(ortx_type_rank(type, &rank)))
    return 1;
  if (kind != ORTX_KIND_TENSOR || rank > MAX_RANK) {
    fprintf(stderr, "this program makes tensors of rank up to %d only\n", MAX_RANK);
    return 1;
  }
  if (rank < 0) rank = 0; /* any will do */
  for (i = 0; i < rank; i++) {
    if (failed(ortx_type_dim(type, (size_t)i, &shape[i], &symbol))) return 1;
    if (shape[i] < 0) shape[i] = size_of(symbol, argc, argv);
  }
  if (failed(ortx_tensor_create(dtype, shape, (size_t)rank, tensor)) || failed(ortx_tensor_count(*tensor, &count)))
    return 1;
  if (dtype == ORTX_DTYPE_STRING) return 0;
  if (failed(ortx_tensor_data_mut(*tensor, &data))) return 1;
  for (k = 0; k < count; k++) {
    uint64_t r = next_random();
    switch (dtype) {
      case ORTX_DTYPE_FLOAT32: ((float *)data)[k] = (float)(r >> 40) / 16777216.0f; break;
      case ORTX_DTYPE_FLOAT64: ((double *)data)[k] = (double)(r >> 11) / 9007199254740992.0; break;
      case ORTX_DTYPE_INT64:
      case ORTX_DTYPE_UINT64: ((uint64_t *)data)[k] = r >> 63; break;
      case ORTX_DTYPE_INT32:
      case ORTX_DTYPE_UINT32: ((uint32_t *)data)[k] = (uint32_t)(r >> 63); break;
      case ORTX_DTYPE_UINT8:
      case ORTX_DTYPE_INT8:
      case ORTX_DTYPE_BOOL: ((uint8_t *)data)[k] = (uint8_t)(r >> 63); break;
      default: break; /* zeros */
    }
  }
  return 0;
}

static int print_value(const ortx_value *value) {
  ortx_kind kind = 0;
  ortx_dtype dtype = 0;
  int64_t shape[MAX_RANK];
  size_t rank = 0, count = 0, i, shown, length = 0;
  const void *data = NULL;
  const char *text = NULL;
  if (failed(ortx_value_kind(value, &kind))) return 1;
  if (kind == ORTX_KIND_SEQUENCE) {
    if (failed(ortx_sequence_count(value, &count))) return 1;
    printf("a sequence of %lu\n", (unsigned long)count);
    return 0;
  }
  if (kind != ORTX_KIND_TENSOR) {
    printf(kind == ORTX_KIND_MAP ? "a map\n" : "an optional\n");
    return 0;
  }
  if (failed(ortx_tensor_dtype(value, &dtype)) || failed(ortx_tensor_shape(value, shape, MAX_RANK, &rank)) ||
      failed(ortx_tensor_count(value, &count)))
    return 1;
  printf("%s[", ortx_dtype_name(dtype));
  for (i = 0; i < rank && i < MAX_RANK; i++) printf("%s%lld", i ? "," : "", (long long)shape[i]);
  printf("]");
  if (dtype != ORTX_DTYPE_STRING && failed(ortx_tensor_data(value, &data))) return 1;
  shown = count < 8 ? count : 8;
  for (i = 0; i < shown; i++) {
    switch (dtype) {
      case ORTX_DTYPE_FLOAT32: printf(" %g", (double)((const float *)data)[i]); break;
      case ORTX_DTYPE_FLOAT64: printf(" %g", ((const double *)data)[i]); break;
      case ORTX_DTYPE_INT64: printf(" %lld", (long long)((const int64_t *)data)[i]); break;
      case ORTX_DTYPE_INT32: printf(" %ld", (long)((const int32_t *)data)[i]); break;
      case ORTX_DTYPE_UINT8:
      case ORTX_DTYPE_BOOL: printf(" %u", ((const uint8_t *)data)[i]); break;
      case ORTX_DTYPE_STRING:
        if (failed(ortx_tensor_string(value, i, &text, &length))) return 1;
        printf(" '%.*s'", (int)(length < 40 ? length : 40), text);
        break;
      default: break;
    }
  }
  printf(count > shown ? " ...\n" : "\n");
  return 0;
}

static int run(const ortx_session *session, int argc, char **argv) {
  size_t inputs = 0, outputs = 0, i;
  ortx_value **in = NULL, **out = NULL;
  const ortx_type *type = NULL;
  const char *name = NULL;
  int result = 1;
  if (failed(ortx_session_input_count(session, &inputs)) || failed(ortx_session_output_count(session, &outputs)))
    return 1;
  in = calloc(inputs + 1, sizeof *in);
  out = calloc(outputs + 1, sizeof *out);
  if (!in || !out) goto done;
  for (i = 0; i < inputs; i++) {
    if (failed(ortx_session_input_name(session, i, &name)) || failed(ortx_session_input_type(session, i, &type)))
      goto done;
    printf("input  %s: ", name);
    if (print_type(type)) goto done;
    printf("\n");
    if (make_input(type, argc, argv, &in[i])) goto done;
  }
  if (failed(ortx_session_run(session, NULL, NULL, (const ortx_value *const *)in, inputs, NULL, out, outputs)))
    goto done;
  for (i = 0; i < outputs; i++) {
    if (failed(ortx_session_output_name(session, i, &name)) || failed(ortx_session_output_type(session, i, &type)))
      goto done;
    printf("output %s: ", name);
    if (print_type(type)) goto done;
    printf(" = ");
    if (print_value(out[i])) goto done;
  }
  result = 0;
done:
  for (i = 0; in && i < inputs; i++) ortx_value_destroy(in[i]);
  for (i = 0; out && i < outputs; i++) ortx_value_destroy(out[i]);
  free(in);
  free(out);
  return result;
}

int main(int argc, char **argv) {
  ortx_session *session = NULL;
  int result = 1;
  if (argc < 2) {
    fprintf(stderr, "usage: %s MODEL.onnx [SYMBOL=SIZE ...]\n", argv[0]);
    return 2;
  }
  if (!failed(ortx_session_create_from_file(NULL, argv[1], NULL, &session))) result = run(session, argc, argv);
  ortx_session_destroy(session);
  return result;
}
