/*
 * Classifies handwritten digits: shows some pictures with the model's ten probabilities, then the accuracy over all of
 * them. The exit status is 0 if at least 98 % are right.
 *
 * run: models/digits.onnx models/digits_test.bin
 */
#include <ortx.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CLASSES 10
#define SHOWN 3

/* The held-out digits: see scripts/train_digits.py for the file's layout. */
typedef struct {
  uint32_t count, height, width, levels;
  unsigned char *labels; /* one for each picture */
  unsigned char *pixels; /* height * width for each picture, 0..levels */
} digits;

static uint32_t little_endian(const unsigned char *b) {
  return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static void free_digits(digits *d) {
  free(d->labels);
  free(d->pixels);
}

/* Returns 0 on success. */
static int read_digits(const char *path, digits *d) {
  unsigned char head[24];
  uint32_t i, size;
  FILE *file = fopen(path, "rb");
  memset(d, 0, sizeof *d);
  if (!file) {
    perror(path);
    return 1;
  }
  if (fread(head, 1, sizeof head, file) != sizeof head || memcmp(head, "DIGITS01", 8) != 0) goto damaged;
  d->count = little_endian(head + 8);
  d->height = little_endian(head + 12);
  d->width = little_endian(head + 16);
  d->levels = little_endian(head + 20);
  if (!d->count || d->count > 100000 || !d->height || d->height > 256 || !d->width || d->width > 256 || !d->levels)
    goto damaged;
  size = d->height * d->width;
  d->labels = malloc(d->count);
  d->pixels = malloc((size_t)d->count * size);
  if (!d->labels || !d->pixels) goto damaged;
  for (i = 0; i < d->count; i++)
    if (fread(d->labels + i, 1, 1, file) != 1 || fread(d->pixels + (size_t)i * size, 1, size, file) != size ||
        d->labels[i] >= CLASSES)
      goto damaged;
  fclose(file);
  return 0;
damaged:
  fprintf(stderr, "%s: not a digits file, or damaged\n", path);
  fclose(file);
  free_digits(d);
  return 1;
}

/* Prints a failed call's status, if it is one, and frees it. Returns whether it was one. */
static int failed(ortx_status *status) {
  if (!status) return 0;
  fprintf(stderr, "error: %s: %s\n", ortx_code_name(ortx_status_code(status)), ortx_status_text(status));
  ortx_status_destroy(status);
  return 1;
}

static void show(const unsigned char *pixels, const digits *d, const float *probabilities, unsigned label) {
  static const char shades[] = " .:-=+*#%@";
  uint32_t x, y;
  int row, length;
  printf("\nthis is a %u:\n", label);
  /* The picture on the left, twice as wide as high since characters are not; the probabilities on the right. */
  for (row = 0; row < CLASSES; row++) {
    y = (uint32_t)row;
    for (x = 0; x < d->width; x++) {
      char c = ' ';
      if (y < d->height) c = shades[pixels[y * d->width + x] * (sizeof shades - 2) / d->levels];
      printf("%c%c", c, c);
    }
    length = (int)(probabilities[row] * 40 + 0.5f);
    printf("   %d %5.1f %% %.*s\n", row, 100 * (double)probabilities[row], length,
           "########################################");
  }
}

static int best(const float *probabilities) {
  int i, found = 0;
  for (i = 1; i < CLASSES; i++)
    if (probabilities[i] > probabilities[found]) found = i;
  return found;
}

/* Runs the pictures, all in one batch, and judges the answers. Returns 0 if they are good. */
static int classify(const ortx_session *session, const digits *d) {
  int64_t shape[4], answer_shape[2] = {0, 0};
  size_t i, size = (size_t)d->height * d->width, pixels = d->count * size, rank = 0, input = 0, output = 0;
  ortx_value *images = NULL, *answers = NULL;
  const ortx_value *inputs[1];
  const void *data = NULL;
  void *room = NULL;
  const float *probabilities;
  unsigned right = 0;
  int result = 1;

  shape[0] = d->count, shape[1] = 1, shape[2] = d->height, shape[3] = d->width;
  if (failed(ortx_session_input_index(session, "image", &input))) goto done;
  if (failed(ortx_session_output_index(session, "probabilities", &output))) goto done;
  if (failed(ortx_tensor_create(ORTX_DTYPE_FLOAT32, shape, 4, &images))) goto done;
  if (failed(ortx_tensor_data_mut(images, &room))) goto done;
  for (i = 0; i < pixels; i++) ((float *)room)[i] = (float)d->pixels[i] / (float)d->levels;

  inputs[0] = images;
  if (failed(ortx_session_run(session, NULL, &input, inputs, 1, &output, &answers, 1))) goto done;
  if (failed(ortx_tensor_shape(answers, answer_shape, 2, &rank))) goto done;
  if (rank != 2 || answer_shape[0] != (int64_t)d->count || answer_shape[1] != CLASSES) {
    fprintf(stderr, "the model does not give ten numbers a picture\n");
    goto done;
  }
  if (failed(ortx_tensor_data(answers, &data))) goto done;
  probabilities = data;
  for (i = 0; i < d->count; i++) {
    if (i < SHOWN) show(d->pixels + i * size, d, probabilities + i * CLASSES, d->labels[i]);
    right += best(probabilities + i * CLASSES) == d->labels[i];
  }
  printf("\n%u of %u held-out digits right: %.1f %%\n", right, (unsigned)d->count, 100.0 * right / d->count);
  result = right * 100.0 >= d->count * 98.0 ? 0 : 1;
  if (result) fprintf(stderr, "that is less than 98 %%\n");
done:
  ortx_value_destroy(answers);
  ortx_value_destroy(images);
  return result;
}

int main(int argc, char **argv) {
  digits d;
  ortx_session *session = NULL;
  int32_t threads = 0;
  int result = 1;
  if (argc != 3) {
    fprintf(stderr, "usage: %s MODEL.onnx DIGITS.bin\n", argv[0]);
    return 2;
  }
  if (ortx_abi_version() != ORTX_ABI_VERSION) {
    fprintf(stderr, "the library has ABI version %u, this program needs %u\n", (unsigned)ortx_abi_version(),
            (unsigned)ORTX_ABI_VERSION);
    return 1;
  }
  if (read_digits(argv[2], &d)) return 1;
  if (!failed(ortx_session_create_from_file(NULL, argv[1], NULL, &session)) &&
      !failed(ortx_session_threads(session, &threads))) {
    printf("ortx %s, %s, %d thread(s)\n", ortx_version(), ortx_isa_name(ortx_isa_available()), (int)threads);
    result = classify(session, &d);
  }
  ortx_session_destroy(session);
  free_digits(&d);
  return result;
}
