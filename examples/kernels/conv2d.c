/* conv2d(image[n,c,h,w], weights[k,c,r,s], out[n,k,oh,ow], stride, padding): what neural networks
 * call a convolution, directly, with zeros around the image. */
#include "kernel.h"

typedef struct {
  int64_t height, width, rows, columns, out_height, out_width, stride, padding;
} Form;

static int64_t out_length(int64_t length, int64_t window, int64_t stride, int64_t padding) {
  return (length + 2 * padding - window) / stride + 1;
}

/* Adds what one channel of the image gives to one channel of the output. */
static void add_channel(const float* image, const float* weights, float* out, const Form* form) {
  int64_t y, x, r, s;
  for (y = 0; y < form->out_height; ++y) {
    for (x = 0; x < form->out_width; ++x) {
      float sum = 0;
      for (r = 0; r < form->rows; ++r) {
        const int64_t from_y = y * form->stride + r - form->padding;
        if (from_y < 0 || from_y >= form->height) continue;
        for (s = 0; s < form->columns; ++s) {
          const int64_t from_x = x * form->stride + s - form->padding;
          if (from_x < 0 || from_x >= form->width) continue;
          sum += image[from_y * form->width + from_x] * weights[r * form->columns + s];
        }
      }
      out[y * form->out_width + x] += sum;
    }
  }
}

/* Reads and checks everything; 0, or -1 after an error was recorded. */
static int read_form(const DLTensor* image, const DLTensor* weights, const DLTensor* out,
                     const TVMFFIAny* args, Form* form) {
  form->height = image->shape[2], form->width = image->shape[3];
  form->rows = weights->shape[2], form->columns = weights->shape[3];
  form->out_height = out->shape[2], form->out_width = out->shape[3];
  if (expect_int("conv2d", args, 3, &form->stride)) return -1;
  if (expect_int("conv2d", args, 4, &form->padding)) return -1;
  if (form->stride < 1 || form->padding < 0) {
    return fail("ValueError", "conv2d: the stride must be positive, the padding not negative");
  }
  if (expect_length("conv2d", "weights", weights, 1, image->shape[1])) return -1;
  if (expect_length("conv2d", "out", out, 0, image->shape[0])) return -1;
  if (expect_length("conv2d", "out", out, 1, weights->shape[0])) return -1;
  if (expect_length("conv2d", "out", out, 2,
                    out_length(form->height, form->rows, form->stride, form->padding))) {
    return -1;
  }
  return expect_length("conv2d", "out", out, 3,
                       out_length(form->width, form->columns, form->stride, form->padding));
}

KERNEL(conv2d) {
  const DLTensor *image, *weights, *out;
  Form form;
  int64_t n, k, c, i, channels, filters, pixels;
  (void)self, (void)result;
  if (expect_count("conv2d", num_args, 5)) return -1;
  if (!(image = float_tensor("conv2d", args, 0, 4))) return -1;
  if (!(weights = float_tensor("conv2d", args, 1, 4))) return -1;
  if (!(out = float_tensor("conv2d", args, 2, 4))) return -1;
  if (read_form(image, weights, out, args, &form)) return -1;
  channels = image->shape[1], filters = weights->shape[0];
  pixels = form.out_height * form.out_width;
  for (n = 0; n < image->shape[0]; ++n) {
    for (k = 0; k < filters; ++k) {
      float* to = floats(out) + (n * filters + k) * pixels;
      for (i = 0; i < pixels; ++i) to[i] = 0;
      for (c = 0; c < channels; ++c) {
        add_channel(floats(image) + (n * channels + c) * form.height * form.width,
                    floats(weights) + (k * channels + c) * form.rows * form.columns, to, &form);
      }
    }
  }
  return 0;
}
