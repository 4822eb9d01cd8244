/* Wrong, short and out-of-order use of the C ABI, and one session in several threads. Argument: the digits model. */
#include <ortx.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int line_failed(int line, const char *what) {
  fprintf(stderr, "line %d: %s\n", line, what);
  exit(1);
}
#define CHECK(x) ((x) ? 0 : line_failed(__LINE__, #x))

static void expect(int line, ortx_status *status, ortx_code code, const char *word) {
  if (ortx_status_code(status) != code || (word && !strstr(ortx_status_text(status), word))) {
    fprintf(stderr, "wanted %s with '%s', got %s\n", ortx_code_name(code), word ? word : "", ortx_status_text(status));
    line_failed(line, "wrong outcome");
  }
  ortx_status_destroy(status);
}
#define OK(call) expect(__LINE__, call, ORTX_OK, NULL)
#define BAD(call, word) expect(__LINE__, call, ORTX_ERROR_INVALID_ARGUMENT, word)

static int released = 0;
static void release(void *user) {
  CHECK(user == &released);
  released++;
}

static ortx_session *session;
static void *run_many(void *unused) {
  int64_t shape[4] = {1, 1, 8, 8};
  ortx_value *x = NULL, *y = NULL;
  ortx_binding *b = NULL;
  int64_t answer[2] = {1, 10};
  int i;
  (void)unused;
  OK(ortx_tensor_create(ORTX_DTYPE_FLOAT32, shape, 4, &x));
  OK(ortx_tensor_create(ORTX_DTYPE_FLOAT32, answer, 2, &y));
  OK(ortx_binding_create(session, &b));
  BAD(ortx_binding_run(b, NULL), "is not set");
  OK(ortx_binding_set_input(b, 0, x));
  OK(ortx_binding_set_output(b, 0, y));
  for (i = 0; i < 5; i++) OK(ortx_binding_run(b, NULL));
  ortx_value_destroy(x);
  OK(ortx_binding_run(b, NULL));
  ortx_binding_destroy(b);
  ortx_value_destroy(y);
  return NULL;
}

int main(int argc, char **argv) {
  ortx_environment *environment = NULL;
  ortx_binding *binding = NULL;
  ortx_cancel_token *token = NULL;
  ortx_value *x = NULL, *y = NULL, *wrong = NULL;
  ortx_session *none = (ortx_session *)&released;
  ortx_session_options options;
  ortx_run_options run;
  ortx_type *no_type = NULL;
  int64_t shape[4] = {2, 1, 8, 8};
  float pixels[128] = {0};
  size_t count = 7, index = 7;
  const void *data = &released;
  const char *text = argv[0];
  pthread_t threads[4];
  int i;
  (void)argc;

  /* NULL everywhere. */
  ortx_status_destroy(NULL), ortx_session_destroy(NULL), ortx_value_destroy(NULL), ortx_binding_destroy(NULL);
  ortx_environment_destroy(NULL), ortx_cancel_token_destroy(NULL);
  CHECK(ortx_status_code(NULL) == ORTX_OK && !*ortx_status_text(NULL) && !ortx_status_context(NULL, 0));
  BAD(ortx_environment_create(NULL), "'environment'");
  BAD(ortx_session_create_from_file(NULL, NULL, NULL, &none), "'path'");
  CHECK(!none);
  BAD(ortx_session_create_from_file(NULL, argv[1], NULL, NULL), "'session'");
  BAD(ortx_session_create_from_memory(NULL, NULL, 9, NULL, NULL, &none), "'data'");
  BAD(ortx_session_input_count(NULL, &count), "'session'");
  CHECK(count == 0);
  BAD(ortx_type_kind(no_type, &i), "NULL");
  BAD(ortx_session_run(NULL, NULL, NULL, NULL, 0, NULL, NULL, 0), "'session'");
  BAD(ortx_binding_run(NULL, NULL), "'binding'");
  BAD(ortx_binding_create(NULL, &binding), "'session'");
  BAD(ortx_tensor_data(NULL, &data), "'tensor'");
  CHECK(!data);
  BAD(ortx_cancel_token_cancel(NULL), "'token'");
  expect(__LINE__, ortx_session_create_from_file(NULL, "nowhere.onnx", NULL, &none), ORTX_ERROR_NOT_FOUND, "nowhere.onnx");

  /* Options of another size: shorter is older, longer is newer, none is a mistake. */
  memset(&options, 0, sizeof options);
  BAD(ortx_session_create_from_file(NULL, argv[1], &options, &none), "struct_size");
  options.struct_size = sizeof(size_t) + 2 * sizeof(int32_t);
  options.threads = 1;
  options.setting_count = 99; /* beyond the size given: not read */
  OK(ortx_environment_create(&environment));
  OK(ortx_session_create_from_file(environment, argv[1], &options, &session));
  options.struct_size = sizeof options;
  BAD(ortx_session_create_from_file(NULL, argv[1], &options, &none), "settings");
  options.setting_count = 0;
  options.memory_limit = 1;
  expect(__LINE__, ortx_session_create_from_file(NULL, argv[1], &options, &none), ORTX_ERROR_OUT_OF_MEMORY, "limit of 1 ");
  options.memory_limit = 0, options.isa = 77;
  BAD(ortx_session_create_from_file(NULL, argv[1], &options, &none), "77");
  options.isa = 0, options.reserved = 1;
  BAD(ortx_session_create_from_file(NULL, argv[1], &options, &none), "reserved");
  ortx_environment_destroy(environment); /* before its session */

  /* Handles of another kind. */
  OK(ortx_cancel_token_create(&token));
  BAD(ortx_session_input_count((ortx_session *)token, &count), "not of type ortx_session");
  ortx_session_destroy((ortx_session *)token); /* left alone */
  BAD(ortx_session_input_name(session, 1, &text), "no input of index 1");
  CHECK(!text);
  BAD(ortx_session_input_index(session, "nobody", &index), "nobody");

  /* Lent memory comes back once, whatever happens. */
  BAD(ortx_tensor_create_borrowed(ORTX_DTYPE_FLOAT32, shape, 4, pixels, 8, release, &released, &x), "512 bytes");
  CHECK(released == 1);
  OK(ortx_tensor_create_borrowed_mut(ORTX_DTYPE_FLOAT32, shape, 4, pixels, sizeof pixels, release, &released, &x));
  BAD(ortx_session_run(session, NULL, NULL, NULL, 0, NULL, &y, 1), "1 inputs (image)");
  index = 7;
  BAD(ortx_session_run(session, NULL, &index, (const ortx_value *const *)&x, 1, NULL, &y, 1), "no input of index");
  index = 0;
  wrong = x;
  BAD(ortx_session_run(session, NULL, NULL, (const ortx_value *const *)&x, 1, NULL, &wrong, 1), "overlaps");
  OK(ortx_tensor_create(ORTX_DTYPE_INT64, shape, 4, &wrong));
  BAD(ortx_session_run(session, NULL, NULL, (const ortx_value *const *)&wrong, 1, NULL, &y, 1), "int64");
  BAD(ortx_session_run(session, NULL, NULL, (const ortx_value *const *)&x, 1, NULL, &wrong, 1), "'probabilities'");
  CHECK(!y);
  OK(ortx_session_run(session, NULL, &index, (const ortx_value *const *)&x, 1, &index, &y, 1));
  OK(ortx_binding_create(session, &binding));
  BAD(ortx_binding_set_input(binding, 0, wrong), "int64");
  ortx_value_destroy(wrong);
  BAD(ortx_binding_output(binding, 0, &wrong), "did not run");
  CHECK(!wrong);

  /* Cancelled, and out of time. */
  memset(&run, 0, sizeof run);
  run.struct_size = sizeof run, run.cancel_token = token;
  OK(ortx_cancel_token_cancel(token));
  OK(ortx_binding_set_input(binding, 0, x));
  expect(__LINE__, ortx_binding_run(binding, &run), ORTX_ERROR_CANCELLED, "cancelled");
  OK(ortx_cancel_token_reset(token));
  run.timeout_ns = 1;
  expect(__LINE__, ortx_binding_run(binding, &run), ORTX_ERROR_CANCELLED, "time");
  run.timeout_ns = UINT64_MAX;
  OK(ortx_binding_run(binding, &run));

  for (i = 0; i < 4; i++) CHECK(!pthread_create(&threads[i], NULL, run_many, NULL));
  for (i = 0; i < 4; i++) pthread_join(threads[i], NULL);

  /* The session first, then what came from it. */
  ortx_session_destroy(session);
  OK(ortx_binding_run(binding, NULL));
  ortx_value_destroy(x);
  CHECK(released == 1); /* the binding still has the memory */
  ortx_binding_destroy(binding);
  CHECK(released == 2);
  OK(ortx_tensor_data(y, &data));
  CHECK(((const float *)data)[19] >= 0);
  ortx_value_destroy(y), ortx_cancel_token_destroy(token);
  printf("abi: misuse gives errors, teardown in any order is safe\n");
  return 0;
}
